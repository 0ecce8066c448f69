//! Brightness and texture as measured in two real heads.
//!
//! Only the numbers below come from the images. T1: `anat_T1w` of `datalad/example-dicom-structural`
//! (public domain, PDDL). T2: `axial_t2_fse` of `FNNDSC/data` (Apache-2.0). Grey and white matter
//! and fluid are the means of three clusters in a central block of the brain; the texture is the
//! standard deviation of white matter between Gaussians of two widths, relative to its mean; the
//! correlation is that of neighbouring voxels after removal of everything wider than 3 mm.

use rand_chacha::ChaCha8Rng;
use willis_core::Modality;

use super::contrast::TissueContrast;
use crate::head::Tissue;
use crate::random::Draw;

/// Statistics of one head.
#[derive(Debug, Clone, Copy)]
pub(super) struct HeadStatistics {
    /// Fluid and grey matter relative to white matter.
    pub fluid_grey: [f64; 2],
    /// Standard deviation relative to the mean in bands of 0.5, 1, 2, 4, 8 to twice that, mm.
    pub bands: [f64; 5],
    /// Correlation of neighbouring voxels within and across slices.
    pub correlation: [f64; 2],
}

const T1: HeadStatistics =
    HeadStatistics { fluid_grey: [0.22, 0.64], bands: [0.030, 0.021, 0.030, 0.036, 0.035], correlation: [0.42, 0.42] };
const T2: HeadStatistics =
    HeadStatistics { fluid_grey: [4.1, 1.5], bands: [0.041, 0.035, 0.062, 0.088, 0.078], correlation: [0.50, 0.27] };

/// Statistics of the head that stands for a modality.
pub(super) fn statistics(modality: Modality) -> HeadStatistics {
    match modality {
        Modality::T2 => T2,
        Modality::Cta | Modality::Mra | Modality::T1Post => T1,
    }
}

/// Draws an acquisition and gives brain and fluid their measured brightness, in MR.
pub(super) fn draw(modality: Modality, rng: &mut ChaCha8Rng) -> TissueContrast {
    let mut contrast = TissueContrast::draw(modality, rng);
    let known = statistics(modality);
    if matches!(modality, Modality::T1Post | Modality::T2) {
        let white = f64::from(contrast.tissue[Tissue::White as usize]);
        let [fluid, grey] = known.fluid_grey.map(|k| white * k * rng.log_normal(1.0, 0.04, 0.85, 1.18));
        contrast.tissue[Tissue::Csf as usize] = fluid as f32;
        contrast.tissue[Tissue::Grey as usize] = grey as f32;
    }
    // The finest band is the noise.
    let white = contrast.tissue[Tissue::White as usize].abs().max(30.0);
    if modality != Modality::Cta {
        contrast.noise = white * (known.bands[0] * rng.uniform(0.8, 2.2)) as f32;
    }
    contrast
}
