//! CPU kernels on plain slices, in which training and inference spend most of their time. The crate
//! uses no tensor library and reads no files.
//!
//! Volumes are C-order `[z, y, x]`; tensors are contiguous f32 `[B, C, D, H, W]`. The result of a
//! kernel does not depend on the number of threads.

pub mod activation;
pub mod attention;
pub mod conv3d;
pub mod linear;
pub mod norm;
pub mod pooling;
pub mod resize;
pub mod transpose;

pub mod components;
pub mod distance;
pub mod thinning;

pub mod runtime;

mod matrix;
mod panels;
mod shared;
mod simd;
