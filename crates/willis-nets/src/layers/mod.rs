//! Neural layers, one per file. Parameters have PyTorch's names and layouts, so that published
//! state dicts load by path.
//!
//! A layer is made by its configuration: `XConfig::init(&mut Init) -> X`.

mod conv3d;
mod conv_block;
pub mod film;
pub mod graph_attention;
mod init;
pub mod kuramoto;
mod linear;
mod norms;
pub mod visible;

pub use conv_block::{Activation, ConvBlock, ConvBlockConfig};
pub use conv3d::{Bias, Conv3d, Conv3dConfig, ConvTranspose3d, ConvTranspose3dConfig};
pub use init::Init;
pub use linear::{Linear, LinearConfig};
pub(crate) use norms::standardise;
pub use norms::{LayerNorm, LayerNormConfig, SpaceNorm, SpaceNormConfig, Statistics};
