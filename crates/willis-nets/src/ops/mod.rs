//! The heavy tensor operations behind one name each, so that nets never say which kernel runs.
//!
//! On the CPU (burn's flex backend, with or without autodiff) the kernels of `willis-kernels` run,
//! with their own backward passes; on any other device burn's operations do the same.

mod activation;
mod attention;
mod buffers;
mod conv3d;
mod given;
mod kernel;
mod layout;
mod linear;
mod norm;
mod pool;
mod remade;
mod resize;
mod work;

pub use activation::{gelu, leaky_relu, softmax};
pub use attention::attention;
pub use conv3d::{ConvOptions, conv_transpose3d, conv3d};
pub use given::with_gradient;
pub use layout::{channels_first, channels_last};
pub use linear::linear;
pub use norm::{channel_affine, instance_norm, layer_norm};
pub use pool::{average_pool3d, max_pool3d};
pub use resize::{Corners, resize_trilinear};
pub(crate) use work::count;
pub use work::multiplications;
