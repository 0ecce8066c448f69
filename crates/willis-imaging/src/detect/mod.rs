//! Detectors without learning: baselines for the nets, and a second source of candidates.
//!
//! [`blob`] detects bright balls in an image, and [`excess`] wide places of a vessel graph.

pub mod blob;
pub mod excess;
