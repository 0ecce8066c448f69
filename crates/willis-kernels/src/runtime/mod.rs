//! What kernels need of the process: an allocator that reuses large blocks, and threads that are
//! awake while a net runs.

pub mod allocator;
mod threads;

pub use threads::keep_threads_awake;
