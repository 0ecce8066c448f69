//! Intensities that mean the same in every series.

use std::path::PathBuf;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::nyul::{self, Standard, order_statistics};
use super::{HarmoniseError, IntensityKind};

/// CT: Hounsfield units that become 0 and 1.
const CT_WINDOW: (f64, f64) = (40.0, 240.0);
/// Limits of the result for windows: 40 HU of air to dense bone.
const WINDOW_CLIP: (f32, f32) = (-1.5, 4.0);
/// Limits of the result for MR.
const MR_CLIP: (f32, f32) = (-2.0, 5.0);

/// Intensity rule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Normalise {
    /// [`Normalise::Window`] of 40 to 240 HU for CT, [`Normalise::Percentile`] for MR.
    Auto,
    /// `low` becomes 0, `high` becomes 1; clipped to -1.5 to 4.
    Window {
        /// Value that becomes 0.
        low: f64,
        /// Value that becomes 1.
        high: f64,
    },
    /// The median of the tissue becomes 0, air -1; clipped to -2 to 5.
    ///
    /// One percentile and the physical zero, because high percentiles depend on how much vessel and
    /// fat a crop holds.
    Percentile,
    /// Nyúl's standard scale, then its middle becomes 0 and its 0 becomes -1; clipped to -2 to 5.
    Nyul {
        /// Standard scale as written by `willis volume nyul fit` (`.npy`).
        standard: PathBuf,
    },
}

/// Normalise voxels in place; what is not a number becomes the lowest value of the result.
///
/// `threshold` parts air from tissue, `lowest` is the lowest value of the series.
pub(super) fn apply(
    voxels: &mut [f32],
    rule: &Normalise,
    kind: IntensityKind,
    threshold: f32,
    lowest: f32,
) -> Result<(), HarmoniseError> {
    match (rule, kind) {
        (Normalise::Auto, IntensityKind::Ct) => window(voxels, CT_WINDOW),
        (Normalise::Window { low, high }, _) => window(voxels, (*low, *high)),
        (Normalise::Auto | Normalise::Percentile, _) => {
            let mut tissue = tissue(voxels, threshold);
            let rank = tissue.len() / 2;
            let median = *order_statistics(&mut tissue, &[rank]).first().ok_or(HarmoniseError::Empty)?;
            // Magnitude images have air at 0, whether a crop shows any or not.
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

fn window(voxels: &mut [f32], (low, high): (f64, f64)) {
    let (low, scale) = (low as f32, (1.0 / (high - low)) as f32);
    map(voxels, WINDOW_CLIP, |v| (v - low) * scale);
}

fn map(voxels: &mut [f32], (lowest, highest): (f32, f32), f: impl Fn(f32) -> f32 + Sync) {
    voxels.par_chunks_mut(1 << 16).for_each(|piece| {
        for v in piece {
            let mapped = f(*v);
            *v = if mapped.is_nan() { lowest } else { mapped.clamp(lowest, highest) };
        }
    });
}

/// Finite voxels above the threshold; all finite ones when none is.
fn tissue(voxels: &[f32], threshold: f32) -> Vec<f32> {
    let finite = voxels.iter().copied().filter(|v| v.is_finite());
    let tissue: Vec<f32> = finite.clone().filter(|&v| v > threshold).collect();
    if tissue.is_empty() { finite.collect() } else { tissue }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hounsfield_units_and_mr_by_hand() {
        let mut ct = [-3024.0, 40.0, 240.0, 3000.0, f32::NAN];
        apply(&mut ct, &Normalise::Auto, IntensityKind::Ct, -300.0, -3024.0).unwrap();
        assert_eq!(ct, [-1.5, 0.0, 1.0, 4.0, -1.5]);
        let mut mr = [0.0, 0.0, 0.0, 90.0, 100.0, 110.0, 300.0, 10_000.0, 80.0];
        apply(&mut mr, &Normalise::Auto, IntensityKind::Mr, 20.0, 0.0).unwrap();
        // Tissue is 80, 90, 100, 110, 300, 10000: its upper median is 110.
        assert_eq!(mr[..2], [-1.0, -1.0]);
        assert_eq!(mr[5..8], [0.0, 190.0 / 110.0, 5.0]);
        assert!(matches!(
            apply(&mut [0.0; 4], &Normalise::Percentile, IntensityKind::Mr, 0.0, 0.0),
            Err(HarmoniseError::NoContrast)
        ));
    }
}
