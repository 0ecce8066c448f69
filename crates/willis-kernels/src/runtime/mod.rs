//! Process-wide services for programs that run nets: a caching allocator, a thread pool whose
//! workers stay awake, and the environment variables that the kernels read.

pub mod allocator;
mod threads;

pub use crate::simd::{UnknownVectors, check_environment};
pub use threads::keep_threads_awake;
