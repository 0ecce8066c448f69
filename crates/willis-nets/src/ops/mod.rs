//! The heavy tensor operations behind one name each, so that nets never say which kernel runs.
//!
//! On the CPU (burn's flex backend, with or without autodiff) the kernels of `willis-kernels` run,
//! with their own backward passes; on any other device burn's operations do the same.

mod activation;
mod attention;
mod buffers;
mod conv3d;
mod counter;
mod device;
mod given;
mod kernel;
mod linear;
mod norm;
mod pooling;
mod recompute;
mod resize;
mod transpose;

pub use activation::{gelu, leaky_relu, softmax};
pub use attention::attention;
pub use conv3d::{ConvOptions, conv_transpose3d, conv3d};
pub(crate) use counter::count;
pub use counter::multiplications;
pub use device::{Device, cpu};
pub use given::with_gradient;
pub use linear::linear;
pub use norm::{channel_affine, instance_norm, layer_norm};
pub use pooling::{average_pool3d, max_pool3d};
pub use resize::{Corners, resize_trilinear};
pub use transpose::{channels_first, channels_last};
