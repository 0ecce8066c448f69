//! Brain extraction around its net: the series on the net's grid, the distances back on the series'
//! grid, the mask.
//!
//! # Source
//! Hoopes et al., SynthStrip: skull-stripping for any brain image, NeuroImage 260 (2022) 119474,
//! and FreeSurfer's `mri_synthstrip`.

mod conform;
mod distances;
mod orient;

pub use conform::{StripError, StripGrid, StripSampling, StripUnits, conform};
pub use distances::{OUTSIDE_MM, extend, mask, restore, stripped};
pub use orient::left_inferior_anterior;
