//! Layers whose parameters carry PyTorch's names and layouts, so that published state dicts load by
//! path.

mod conv3d;
pub mod film;
pub mod graph_attention;
mod init;
pub mod kuramoto;
mod linear;
mod norms;
pub mod visible;

pub use conv3d::{Bias, Conv3d, ConvTranspose3d};
pub use init::Init;
pub use linear::Linear;
pub use norms::{LayerNorm, SpaceNorm, Statistics};
