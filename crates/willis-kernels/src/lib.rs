//! CPU kernels on plain slices: what training and inference spend their time in. No tensor library,
//! no files.
//!
//! Volumes are C-order `[z, y, x]`, tensors contiguous f32 `[B, C, D, H, W]`. Every kernel gives
//! the same bytes at any number of threads.

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
