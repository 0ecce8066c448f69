//! Learned stages on burn: layers, losses, training, segmentation, proposal and examination.

pub mod ops;

pub mod layers;
pub mod loss;
pub mod weights;

pub mod backbones;

pub mod pretrain;
pub mod train;

pub mod examine;
pub mod propose;
pub mod segment;

mod rules;

#[cfg(test)]
mod golden;
