//! Brain extraction around its net: the series on the net's grid, the distances back on the series'
//! grid, the mask.
//!
//! # Source
//! Hoopes et al., SynthStrip: skull-stripping for any brain image, NeuroImage 260 (2022) 119474, and
//! FreeSurfer's `mri_synthstrip`.

mod orient;

pub use orient::left_inferior_anterior;
