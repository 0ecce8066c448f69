//! Volume to harmonised volume: patient axes, a box about the circle of Willis, working spacing,
//! comparable intensities.
//!
//! Intensities after [`harmonise`]: soft tissue is about 0 and air about -1. In MR the vessels of
//! bright-blood series lie around 1 to 3 (a value of 1 is twice the head's median); in CT 40 HU is
//! 0 and 240 HU is 1.

use std::sync::Arc;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use willis_core::{Finding, HarmonisedVolume, Image, Modality, Spacing, Volume};

use crate::resample;

mod head;
pub mod normalise;
pub mod nyul;
pub mod region;

pub use normalise::Normalise;
pub use region::RoiConfig;

/// Spacing of the copy on which the head is found, mm.
const COARSE_MM: f64 = 2.0;
/// Slices farther apart than this lose small aneurysms, mm.
const THICK_MM: f64 = 1.5;

/// How series are made comparable.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HarmoniseConfig {
    /// Working spacing, mm.
    pub spacing_mm: Spacing,
    /// The box about the circle of Willis.
    pub roi: RoiConfig,
    /// Intensity rule.
    pub normalise: Normalise,
    /// Change the sign of T2 series after normalising, so that blood is bright in every series.
    pub invert_t2: bool,
}

impl Default for HarmoniseConfig {
    fn default() -> Self {
        Self {
            spacing_mm: Spacing::isotropic(0.8),
            roi: RoiConfig::default(),
            normalise: Normalise::Auto,
            invert_t2: true,
        }
    }
}

/// Why a volume cannot be harmonised.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HarmoniseError {
    /// A setting that cannot work.
    #[error("harmonise.{field} is {value}; it must be {rule}")]
    Config {
        /// Name of the setting.
        field: &'static str,
        /// Its value.
        value: String,
        /// What is allowed.
        rule: &'static str,
    },
    /// No voxels, or no finite one.
    #[error("the series has no usable voxels")]
    Empty,
    /// The voxel axes do not span space.
    #[error("the series has no valid place in the patient; check its orientation and spacing")]
    SingularPlace,
    /// The result would not fit in memory.
    #[error(
        "{extent_mm:?} mm (x, y, z) are too much at this spacing; check the header, or turn on the region of interest"
    )]
    TooLarge {
        /// Extent along x, y, z, mm.
        extent_mm: [f64; 3],
    },
    /// One value everywhere.
    #[error("the series has no contrast inside the head; it cannot be normalised")]
    NoContrast,
    /// The Nyúl standard could not be read or fitted.
    #[error(transparent)]
    Nyul(#[from] nyul::NyulError),
}

/// Bring a volume onto patient axes at working spacing, cut to the region of interest, with
/// comparable intensities.
///
/// Trilinear interpolation (block averages first where the series is much finer); places outside
/// the scan take the lowest value of the series. The world position of every structure is kept.
///
/// # Errors
/// see [`HarmoniseError`]
pub fn harmonise(volume: &Arc<Volume>, config: &HarmoniseConfig) -> Result<HarmonisedVolume, HarmoniseError> {
    config.validate()?;
    let source = &volume.image;
    source.grid.affine.inverse().ok_or(HarmoniseError::SingularPlace)?;
    let lowest = lowest(source).ok_or(HarmoniseError::Empty)?;
    let mut findings = geometry_findings(source);
    let kind = intensity_kind(volume.meta.modality, lowest, &mut findings);
    let scan = region::scan_box(&source.grid);
    let coarse = resample::area(source, &scan.grid(Spacing::isotropic(COARSE_MM))?, lowest);
    let threshold = head::threshold(&coarse, kind);
    let region = if config.roi.enabled {
        let mask = head::mask(&coarse, threshold);
        region::place(&scan, &coarse.grid, &mask, &config.roi, &mut findings)
    } else {
        scan
    };
    let mut image = resample::area(source, &region.grid(config.spacing_mm)?, lowest);
    normalise::apply(&mut image.voxels, &config.normalise, kind, threshold, lowest)?;
    if config.invert_t2 && volume.meta.modality == Some(Modality::T2) {
        image.voxels.iter_mut().for_each(|v| *v = -*v);
    }
    Ok(HarmonisedVolume { image, meta: volume.meta.clone(), source: Arc::clone(volume), findings })
}

impl HarmoniseConfig {
    /// Whether the settings can work.
    ///
    /// # Errors
    /// [`HarmoniseError::Config`] names the first that cannot.
    pub fn validate(&self) -> Result<(), HarmoniseError> {
        let check = |field, values: [f64; 3], rule, allowed: std::ops::RangeInclusive<f64>| {
            let wrong = values.into_iter().any(|v| !allowed.contains(&v));
            if wrong { Err(HarmoniseError::Config { field, value: format!("{values:?}"), rule }) } else { Ok(()) }
        };
        let size = self.roi.size_mm;
        check("spacing_mm", self.spacing_mm.zyx(), "from 0.1 to 10 mm", 0.1..=10.0)?;
        check("roi.size_mm", [size.z, size.y, size.x], "from 10 to 1000 mm", 10.0..=1000.0)?;
        check("roi.below_vertex_mm", [self.roi.below_vertex_mm; 3], "from 0 to 300 mm", 0.0..=300.0)?;
        match self.normalise {
            Normalise::Window { low, high } if !(high - low > 0.0 && low.is_finite() && high.is_finite()) => {
                let value = format!("low {low}, high {high}");
                Err(HarmoniseError::Config { field: "normalise", value, rule: "a window with low below high" })
            }
            _ => Ok(()),
        }
    }
}

/// How stored values are to be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum IntensityKind {
    /// Hounsfield units.
    Ct,
    /// Arbitrary units, air near 0.
    Mr,
}

fn intensity_kind(modality: Option<Modality>, lowest: f32, findings: &mut Vec<Finding>) -> IntensityKind {
    match modality {
        Some(Modality::Cta) => IntensityKind::Ct,
        Some(_) => IntensityKind::Mr,
        None => {
            let (kind, name) = if lowest < -200.0 { (IntensityKind::Ct, "CT") } else { (IntensityKind::Mr, "MR") };
            findings.push(Finding::warning(
                "guessed-intensity-kind",
                format!("the kind of series is unknown; its values look like {name} and were treated so"),
            ));
            kind
        }
    }
}

fn lowest(image: &Image<f32>) -> Option<f32> {
    let lowest = |voxels: &[f32]| voxels.iter().copied().filter(|v| v.is_finite()).fold(f32::INFINITY, f32::min);
    let lowest = image.voxels.par_chunks(1 << 18).map(lowest).reduce(|| f32::INFINITY, f32::min);
    lowest.is_finite().then_some(lowest)
}

fn geometry_findings(image: &Image<f32>) -> Vec<Finding> {
    let spacing = image.grid.spacing();
    let thickest = spacing.zyx().into_iter().fold(0.0, f64::max);
    let mut findings = Vec::new();
    if thickest > THICK_MM {
        let message = format!("slices are {thickest:.1} mm apart; aneurysms below that size may be missed");
        findings.push(Finding::warning("thick-slices", message));
    }
    // Cosine between each voxel axis and the patient axis it is nearest to.
    let m = image.grid.affine.0;
    let steps = [spacing.x, spacing.y, spacing.z];
    let cosine = |j: usize| (0..3).map(|i| (m[i][j] / steps[j]).abs()).fold(0.0, f64::max);
    let turned = (0..3).map(cosine).fold(1.0, f64::min).min(1.0).acos().to_degrees();
    if turned > 1.0 {
        let message = format!("slices are oblique by {turned:.0} degrees; they were turned onto the patient's axes");
        findings.push(Finding::info("oblique", message));
    }
    findings
}

#[cfg(test)]
mod tests;
