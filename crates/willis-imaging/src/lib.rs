//! Deterministic algorithms on series: reading, harmonising, tracing. No tensors, no nets.

pub mod harmonise;
pub mod ingest;
pub mod resample;
pub mod trace;
