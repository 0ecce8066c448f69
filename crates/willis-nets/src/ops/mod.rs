//! The heavy tensor operations, one function each, so that nets do not depend on which kernel runs.
//!
//! On the CPU (burn's flex backend, with or without autodiff) the kernels of `willis-kernels` run,
//! with their own backward passes. On any other device burn's operations compute the same.

mod activation;
mod attention;
mod buffers;
mod conv3d;
mod device;
mod kernel;
mod linear;
mod macs;
mod norm;
mod pooling;
mod recompute;
mod resize;
mod transpose;
mod upsample;
mod with_gradient;

pub use activation::{gelu, leaky_relu, softmax};
pub use attention::attention;
pub use conv3d::{ConvOptions, conv_transpose3d, conv3d};
pub use device::{Device, cpu};
pub use linear::linear;
pub use macs::count_macs;
pub(crate) use macs::record_macs;
pub use norm::{channel_affine, instance_norm, layer_norm};
pub use pooling::{average_pool3d, max_pool3d};
pub use resize::{Corners, resize_trilinear};
pub use transpose::{channels_first, channels_last};
pub use upsample::upsample_nearest;
pub use with_gradient::with_gradient;
