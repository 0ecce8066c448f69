//! A harmonised series with its ground truth, for training.

use std::sync::Arc;

use crate::image::{HarmonisedVolume, Image, Volume};
use crate::lesion::Lesion;
use crate::series::SeriesMeta;
use crate::space::{Affine, Grid, Point, Shape, Spacing};

/// One training case on the working grid.
#[derive(Debug, Clone)]
pub struct TrainingCase {
    /// Normalised intensities, as in inference.
    pub image: Image<f32>,
    /// Site of each arterial voxel as [`crate::Site::mask_value`], 0 for background; an aneurysm's
    /// voxels carry its parent site.
    pub sites: Image<u8>,
    /// 1 inside an aneurysm sac, else 0.
    pub aneurysm: Image<u8>,
    /// Ground-truth lesions.
    pub lesions: Vec<Lesion>,
    /// Metadata of the series.
    pub meta: SeriesMeta,
}

impl TrainingCase {
    /// The harmonised volume that the case was made from. Its source has no voxels of the scan,
    /// which a case does not keep.
    pub fn harmonised(&self) -> HarmonisedVolume {
        let affine = Affine::axis_aligned(Spacing::isotropic(1.0), Point::new(0.0, 0.0, 0.0));
        let image = Image::filled(Grid::new(Shape::new(1, 1, 1), affine), 0.0);
        let source = Volume { image, meta: self.meta.clone(), findings: Vec::new() };
        HarmonisedVolume {
            image: self.image.clone(),
            meta: self.meta.clone(),
            source: Arc::new(source),
            findings: Vec::new(),
        }
    }
}
