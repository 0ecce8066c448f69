//! Deterministic algorithms on series: reading, harmonising, brain extraction around its net,
//! tracing, and detecting without learning. No tensors, no nets.

pub mod detect;
pub mod harmonise;
pub mod ingest;
pub mod resample;
#[cfg(test)]
mod shared_data;
pub mod strip;
pub mod trace;
