//! Volume to harmonised volume: patient axes, a box around the circle of Willis, working spacing,
//! comparable intensities.
//!
//! After [`harmonise`] soft tissue is about 0 and air about -1. In CT 40 HU is 0 and 240 HU is 1.
//! In MR a value of 1 is twice the median of the head, and the vessels of bright-blood series have
//! values of about 1 to 3.

use std::ops::RangeInclusive;
use std::sync::Arc;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use willis_core::{Finding, HarmonisedVolume, Image, InvalidValue, Modality, Spacing, Switch, Volume};

use crate::resample;

mod error;
mod head;
mod intensity;
mod normalise;
pub mod nyul;
mod region;

pub use error::HarmoniseError;
use intensity::IntensityUnits;
use normalise::Intensities;
pub use normalise::{Normalise, NyulStandard};
pub use region::{BoxSize, RoiConfig};

/// Spacing of the copy on which the head is segmented, mm.
const COARSE_MM: f64 = 2.0;
/// Above this slice spacing small aneurysms may be missed, mm.
const THICK_MM: f64 = 1.5;

/// How series are made comparable.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HarmoniseConfig {
    /// Working spacing, mm.
    pub spacing_mm: Spacing,
    /// The box around the circle of Willis.
    pub roi: RoiConfig,
    /// Intensity normalisation.
    pub normalise: Normalise,
    /// Negate T2 series after normalisation, so that blood is bright in every series.
    pub invert_t2: Switch,
}

impl Default for HarmoniseConfig {
    fn default() -> Self {
        Self {
            spacing_mm: Spacing::isotropic(0.8),
            roi: RoiConfig::default(),
            normalise: Normalise::Auto,
            invert_t2: Switch::On,
        }
    }
}

/// Resamples a volume to patient axes at the working spacing, crops it to the region of interest
/// and normalises its intensities.
///
/// Interpolation is trilinear along axes on which the series is no finer than the working spacing,
/// and by an anti-aliasing cubic along the others. Voxels outside the scan take the lowest value of
/// the series. World positions are preserved.
///
/// # Errors
/// [`HarmoniseError`] when the volume has no usable voxels, position or contrast, or would be too
/// large.
pub fn harmonise(volume: &Arc<Volume>, config: &HarmoniseConfig) -> Result<HarmonisedVolume, HarmoniseError> {
    harmonise_around(volume, None, config)
}

/// As [`harmonise`], with the region of interest placed by the distances from the surface of the
/// brain, if there are some. No voxel is changed by them.
///
/// # Errors
/// As [`harmonise`].
pub fn harmonise_around(
    volume: &Arc<Volume>,
    brain: Option<&Image<f32>>,
    config: &HarmoniseConfig,
) -> Result<HarmonisedVolume, HarmoniseError> {
    let Region { mut image, series, mut findings } = region_of_interest(volume, brain, config)?;
    normalise::apply(&mut image.voxels, &config.normalise, series, &mut findings)?;
    if config.invert_t2 == Switch::On && volume.meta.modality == Some(Modality::T2) {
        image.voxels.iter_mut().for_each(|v| *v = -*v);
    }
    Ok(HarmonisedVolume { image, meta: volume.meta.clone(), source: Arc::clone(volume), findings })
}

/// The tissue of the region of interest on the scale of the shipped Nyúl standards: air at 0, the
/// median of the tissue at 50; for CT -160 HU at 0 and 40 HU at 50. Standards for the line are
/// fitted on it, with the landmarks as they are.
///
/// # Errors
/// As [`harmonise`].
pub fn tissue_on_standard(volume: &Volume, config: &HarmoniseConfig) -> Result<Vec<f32>, HarmoniseError> {
    let Region { image, series, .. } = region_of_interest(volume, None, config)?;
    normalise::tissue_on_standard(&image.voxels, series)
}

/// The region of interest at the working spacing, in the units of the series.
struct Region {
    image: Image<f32>,
    series: Intensities,
    findings: Vec<Finding>,
}

fn region_of_interest(
    volume: &Volume,
    brain: Option<&Image<f32>>,
    config: &HarmoniseConfig,
) -> Result<Region, HarmoniseError> {
    let source = &volume.image;
    source.grid.affine.inverse().ok_or(HarmoniseError::SingularPlace)?;
    let lowest = lowest(source).ok_or(HarmoniseError::Empty)?;
    let mut findings = geometry_findings(source);
    let modality = volume.meta.modality;
    let units = IntensityUnits::of(modality, lowest, &mut findings);
    let scan = region::scan_box(&source.grid);
    let coarse = resample::area(source, &scan.grid(Spacing::isotropic(COARSE_MM))?, lowest);
    let threshold = head::threshold(&coarse, units);
    let region = match config.roi.crop {
        Switch::On => {
            let by_brain = brain.and_then(|mm| head::mask_about_brain(mm, &coarse.grid, &mut findings));
            let mask = by_brain.unwrap_or_else(|| head::mask(&coarse, threshold));
            region::place(&scan, &coarse.grid, &mask, &config.roi, &mut findings)
        }
        Switch::Off => scan,
    };
    let image = resample::antialiased(source, &region.grid(config.spacing_mm)?, lowest);
    Ok(Region { image, series: Intensities { modality, units, threshold, lowest }, findings })
}

impl HarmoniseConfig {
    /// Checks every value once, when the configuration is loaded.
    ///
    /// # Errors
    /// [`InvalidValue`] for the first value outside its range.
    pub fn validate(&self) -> Result<(), InvalidValue> {
        let (spacing, size) = (self.spacing_mm, self.roi.size_mm);
        let lengths: [(&str, f64, RangeInclusive<f64>); 7] = [
            ("spacing_mm.z", spacing.z, 0.1..=10.0),
            ("spacing_mm.y", spacing.y, 0.1..=10.0),
            ("spacing_mm.x", spacing.x, 0.1..=10.0),
            ("roi.size_mm.z", size.z, 10.0..=1000.0),
            ("roi.size_mm.y", size.y, 10.0..=1000.0),
            ("roi.size_mm.x", size.x, 10.0..=1000.0),
            ("roi.below_vertex_mm", self.roi.below_vertex_mm, 0.0..=300.0),
        ];
        for (field, value, range) in lengths {
            if !range.contains(&value) {
                let rule = format!("must lie between {} and {}", range.start(), range.end());
                return Err(InvalidValue::new(field, value, rule));
            }
        }
        self.normalise.validate().map_err(|e| e.within("normalise"))
    }
}

/// The lowest finite value; `None` when there is none.
fn lowest(image: &Image<f32>) -> Option<f32> {
    let lowest = |voxels: &[f32]| voxels.iter().copied().filter(|v| v.is_finite()).fold(f32::INFINITY, f32::min);
    let lowest = image.voxels.par_chunks(1 << 18).map(lowest).reduce(|| f32::INFINITY, f32::min);
    lowest.is_finite().then_some(lowest)
}

/// Findings about slice spacing and obliqueness.
fn geometry_findings(image: &Image<f32>) -> Vec<Finding> {
    let spacing = image.grid.spacing();
    let thickest = spacing.zyx().into_iter().fold(0.0, f64::max);
    let mut findings = Vec::new();
    if thickest > THICK_MM {
        let message = format!("slices are {thickest:.1} mm apart; aneurysms smaller than that may be missed");
        findings.push(Finding::warning("thick-slices", message));
    }
    // Cosine of the angle between each voxel axis and the nearest patient axis.
    let m = image.grid.affine.0;
    let steps = [spacing.x, spacing.y, spacing.z];
    let cosine = |j: usize| (0..3).map(|i| (m[i][j] / steps[j]).abs()).fold(0.0, f64::max);
    let turned = (0..3).map(cosine).fold(1.0, f64::min).min(1.0).acos().to_degrees();
    if turned > 1.0 {
        let message = format!("slices are oblique by {turned:.0} degrees; they were resampled to the patient's axes");
        findings.push(Finding::info("oblique", message));
    }
    findings
}

#[cfg(test)]
mod tests;
