//! Detectors without learning: baselines for the nets, and a second source of candidates.
//!
//! [`blob`] detects bright balls in an image, [`intensity`] applies it to the intensities of a
//! harmonised volume, and [`excess`] finds wide places of a vessel graph.

pub mod blob;
pub mod excess;
pub mod intensity;
