//! CPU kernels on plain slices: no volumes, no files, no tensors.
//!
//! Arrays are C-order `[z, y, x]`. Every kernel gives the same bytes at any number of threads.

pub mod components;
pub mod distance;
pub mod thinning;
