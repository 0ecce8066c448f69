//! Images: voxels on a grid, and the volumes of the first stages.

use std::sync::Arc;

use crate::series::{Finding, SeriesMeta};
use crate::space::{Grid, Index};

/// A C-order `[z, y, x]` array on a grid.
#[derive(Debug, Clone, PartialEq)]
pub struct Image<T> {
    /// Shape and affine.
    pub grid: Grid,
    /// `grid.shape.len()` values, x fastest.
    pub voxels: Vec<T>,
}

impl<T> Image<T> {
    /// An image from its parts.
    ///
    /// # Panics
    /// if the number of voxels differs from the grid's (programmer error).
    pub fn new(grid: Grid, voxels: Vec<T>) -> Self {
        assert_eq!(voxels.len(), grid.shape.len(), "voxel count does not match shape {:?}", grid.shape);
        Self { grid, voxels }
    }

    /// Value at a voxel.
    pub fn at(&self, index: Index) -> &T {
        &self.voxels[self.grid.shape.offset(index)]
    }

    /// The image with `f` applied to every value.
    pub fn map<U>(&self, f: impl FnMut(&T) -> U) -> Image<U> {
        Image { grid: self.grid, voxels: self.voxels.iter().map(f).collect() }
    }
}

impl<T: Clone> Image<T> {
    /// An image with the same value everywhere.
    pub fn filled(grid: Grid, value: T) -> Self {
        Self { grid, voxels: vec![value; grid.shape.len()] }
    }
}

/// A series as read: stored units after slope and intercept (HU for CT), on the scanner's own grid.
#[derive(Debug, Clone)]
pub struct Volume {
    /// Voxels and grid.
    pub image: Image<f32>,
    /// Metadata from the header or the user.
    pub meta: SeriesMeta,
    /// Everything unusual, repaired or guessed while reading.
    pub findings: Vec<Finding>,
}

/// The region of interest on canonical axes (x to Left, y to Posterior, z to Superior) at working
/// spacing, with intensities normalised.
///
/// Values are about 0 for soft tissue and about 1 for vessels in bright-blood series;
/// `willis_imaging::harmonise` defines them.
#[derive(Debug, Clone)]
pub struct HarmonisedVolume {
    /// Normalised intensities.
    pub image: Image<f32>,
    /// What is known of the series at this point of the line; a later stage may correct a guessed
    /// modality, the metadata of [`Self::source`] stays as read.
    pub meta: SeriesMeta,
    /// The volume it was computed from.
    pub source: Arc<Volume>,
    /// Everything unusual, repaired or guessed while harmonising.
    pub findings: Vec<Finding>,
}

/// Output of the segmentation net on the harmonised grid.
#[derive(Debug, Clone)]
pub struct VesselMap {
    /// Probability that a voxel belongs to an artery or an aneurysm, 0 to 1.
    pub vessel: Image<f32>,
    /// Probability that a voxel belongs to an aneurysm, 0 to 1.
    pub aneurysm: Image<f32>,
    /// Most probable site of each voxel as [`crate::Site::mask_value`], 0 where background is the
    /// most probable class.
    pub site: Image<u8>,
    /// The volume it was computed from.
    pub source: Arc<HarmonisedVolume>,
}
