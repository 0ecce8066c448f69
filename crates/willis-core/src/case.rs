//! A harmonised series with its ground truth, for training.

use crate::image::Image;
use crate::lesion::Lesion;
use crate::series::SeriesMeta;

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
