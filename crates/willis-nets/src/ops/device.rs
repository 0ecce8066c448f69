//! Where nets run.

pub use burn::tensor::Device;

/// The processor, through burn's flex backend and our kernels.
pub fn cpu() -> Device {
    Device::flex()
}
