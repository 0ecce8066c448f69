//! Deterministic algorithms on series: reading, harmonising, tracing, and detecting without
//! learning. No tensors, no nets.

pub mod detect;
pub mod harmonise;
pub mod ingest;
pub mod resample;
#[cfg(test)]
mod shared_data;
pub mod trace;
