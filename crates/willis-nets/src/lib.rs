//! Learned stages on burn: layers, losses, training, segmentation, proposal and examination.

pub mod akorn;
pub mod asl;
pub mod catalogue;
pub mod checkpoint;
pub mod examine;
pub mod film;
pub mod gat;
#[cfg(test)]
mod golden;
pub mod layers;
pub mod loss;
pub mod memory;
pub mod mim;
pub mod ops;
mod pool;
pub mod pretrain;
pub mod pretrained;
pub mod propose;
pub mod resenc;
pub mod segformer3d;
pub mod segment;
pub mod spark;
pub mod sparse;
pub mod train;
pub mod waveformer;
pub mod weights;

pub use burn::tensor::Device;
pub use pool::on_pool;
use serde::{Deserialize, Serialize};

/// Whether a part takes part; off for ablations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Switch {
    /// It does.
    On,
    /// It does not.
    Off,
}

/// The processor, through burn's flex backend and our kernels.
pub fn cpu() -> Device {
    Device::flex()
}
