//! The learned stages, on burn.
//!
//! From the bottom: [`ops`] runs the CPU kernels under autodiff; [`layers`] have one file each;
//! [`loss`] has the losses; [`weights`] names, saves and loads parameters; [`backbones`] are the
//! published networks; [`train`] is the training loop and [`pretrain`] self-supervised training;
//! [`brain`], [`segment`], [`propose`] and [`examine`] are the stages.

pub mod ops;

pub mod layers;
pub mod loss;
pub mod weights;

pub mod backbones;

pub mod pretrain;
pub mod train;

pub mod brain;
pub mod examine;
pub mod propose;
pub mod segment;

mod rules;

#[cfg(test)]
mod golden;
