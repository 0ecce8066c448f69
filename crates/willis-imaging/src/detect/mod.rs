//! Detectors without learning: the baselines that the nets must beat.
//!
//! [`blob`] looks for bright balls in an image, [`excess`] for wide places on a vessel graph.

pub mod blob;
pub mod excess;
