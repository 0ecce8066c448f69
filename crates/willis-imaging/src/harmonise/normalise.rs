//! Normalisation of intensities to one scale for all series.

use std::path::PathBuf;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use willis_core::InvalidValue;

use super::error::HarmoniseError;
use super::intensity::IntensityUnits;
use super::nyul::{self, Standard, order_statistics};

/// CT window: the values that become 0 and 1, HU.
const CT_WINDOW: (f64, f64) = (40.0, 240.0);
/// Range of the result of a window; for CT -260 to 840 HU.
const WINDOW_CLIP: (f32, f32) = (-1.5, 4.0);
/// Range of the result for MR.
const MR_CLIP: (f32, f32) = (-2.0, 5.0);

/// Intensity normalisation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Normalise {
    /// [`Normalise::Window`] of 40 to 240 HU for CT, [`Normalise::Percentile`] for MR.
    Auto,
    /// Maps `low` to 0 and `high` to 1; clipped to -1.5 to 4.
    Window {
        /// Value that becomes 0.
        low: f64,
        /// Value that becomes 1.
        high: f64,
    },
    /// Maps the median of the tissue to 0 and air to -1; clipped to -2 to 5.
    ///
    /// It uses one percentile and the physical zero because high percentiles depend on how much
    /// vessel and fat a crop holds.
    Percentile,
    /// Maps to Nyúl's standard scale, then its middle to 0 and its 0 to -1; clipped to -2 to 5.
    Nyul {
        /// Standard scale as written by `willis volume nyul fit` (`.npy`).
        standard: PathBuf,
    },
}

impl Normalise {
    /// Checks every value once, when the configuration is loaded.
    ///
    /// # Errors
    /// [`InvalidValue`] when the ends of a window are not finite and rising.
    pub fn validate(&self) -> Result<(), InvalidValue> {
        match self {
            Self::Window { low, .. } if !low.is_finite() => Err(InvalidValue::new("low", low, "must be finite")),
            Self::Window { low, high } if !(high > low && high.is_finite()) => {
                Err(InvalidValue::new("high", high, format!("must be finite and greater than low = {low}")))
            }
            Self::Auto | Self::Window { .. } | Self::Percentile | Self::Nyul { .. } => Ok(()),
        }
    }
}

/// Normalises voxels in place; NaN becomes the lower end of the result's range.
///
/// `threshold` separates air from tissue, and `lowest` is the lowest value of the series.
///
/// # Errors
/// `Empty` without a finite voxel, `NoContrast` when all tissue has one value, `Nyul` when the
/// standard scale cannot be read or fitted.
pub(super) fn apply(
    voxels: &mut [f32],
    rule: &Normalise,
    units: IntensityUnits,
    threshold: f32,
    lowest: f32,
) -> Result<(), HarmoniseError> {
    match (rule, units) {
        (Normalise::Auto, IntensityUnits::Hounsfield) => window(voxels, CT_WINDOW),
        (Normalise::Window { low, high }, _) => window(voxels, (*low, *high)),
        (Normalise::Auto | Normalise::Percentile, _) => {
            let mut tissue = tissue(voxels, threshold);
            let rank = tissue.len() / 2;
            let median = *order_statistics(&mut tissue, &[rank]).first().ok_or(HarmoniseError::Empty)?;
            // In magnitude images air is 0, even if a crop shows none.
            let air = lowest.min(0.0);
            let scale = median - air;
            if scale <= f32::EPSILON * median.abs() {
                return Err(HarmoniseError::NoContrast);
            }
            map(voxels, MR_CLIP, |v| (v - median) / scale);
        }
        (Normalise::Nyul { standard }, _) => {
            let standard = Standard::load(standard)?;
            let line = nyul::map_to(&standard, tissue(voxels, threshold))?;
            let middle = standard.at(50.0);
            if middle <= 0.0 {
                return Err(HarmoniseError::NoContrast);
            }
            map(voxels, MR_CLIP, |v| ((line.apply(v.into()) - middle) / middle) as f32);
        }
    }
    Ok(())
}

/// Maps `low` to 0 and `high` to 1.
fn window(voxels: &mut [f32], (low, high): (f64, f64)) {
    let (low, scale) = (low as f32, (1.0 / (high - low)) as f32);
    map(voxels, WINDOW_CLIP, |v| (v - low) * scale);
}

/// Applies a function to every voxel and clamps the result; NaN becomes `lowest`.
fn map(voxels: &mut [f32], (lowest, highest): (f32, f32), f: impl Fn(f32) -> f32 + Sync) {
    voxels.par_chunks_mut(1 << 16).for_each(|chunk| {
        for v in chunk {
            let mapped = f(*v);
            *v = if mapped.is_nan() { lowest } else { mapped.clamp(lowest, highest) };
        }
    });
}

/// Finite voxels above the threshold, or all finite voxels when none is above it.
fn tissue(voxels: &[f32], threshold: f32) -> Vec<f32> {
    let finite = voxels.iter().copied().filter(|v| v.is_finite());
    let tissue: Vec<f32> = finite.clone().filter(|&v| v > threshold).collect();
    if tissue.is_empty() { finite.collect() } else { tissue }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_must_rise() {
        let error = |low, high| Normalise::Window { low, high }.validate().unwrap_err().to_string();
        assert_eq!(error(5.0, 5.0), "high = 5 must be finite and greater than low = 5");
        assert_eq!(error(f64::NAN, 5.0), "low = NaN must be finite");
        assert_eq!(Normalise::Window { low: 0.0, high: 1.0 }.validate(), Ok(()));
    }

    #[test]
    fn hounsfield_units_and_mr_by_hand() {
        let mut ct = [-3024.0, 40.0, 240.0, 3000.0, f32::NAN];
        apply(&mut ct, &Normalise::Auto, IntensityUnits::Hounsfield, -300.0, -3024.0).unwrap();
        assert_eq!(ct, [-1.5, 0.0, 1.0, 4.0, -1.5]);
        let mut mr = [0.0, 0.0, 0.0, 90.0, 100.0, 110.0, 300.0, 10_000.0, 80.0];
        apply(&mut mr, &Normalise::Auto, IntensityUnits::Arbitrary, 20.0, 0.0).unwrap();
        // The upper median of the tissue (80, 90, 100, 110, 300, 10000) is 110.
        assert_eq!(mr[..2], [-1.0, -1.0]);
        assert_eq!(mr[5..8], [0.0, 190.0 / 110.0, 5.0]);
        assert!(matches!(
            apply(&mut [0.0; 4], &Normalise::Percentile, IntensityUnits::Arbitrary, 0.0, 0.0),
            Err(HarmoniseError::NoContrast)
        ));
    }
}
