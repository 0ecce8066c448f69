//! The device that nets run on.

pub use burn::tensor::Device;

/// The CPU, through burn's flex backend and the kernels of `willis-kernels`.
pub fn cpu() -> Device {
    Device::flex()
}
