//! Learned stages on burn: layers, losses, training, segmentation, proposal and examination.

pub mod akorn;
pub mod asl;
pub mod film;
