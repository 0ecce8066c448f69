//! CT whose stored values are HU already, though the header has a rescale intercept.

use rayon::prelude::*;
use willis_core::Finding;

use super::group::SeriesSlice;
use super::header::Instance;

/// Every so many voxels are examined.
const STRIDE: usize = 7;

/// Undoes the rescale intercept when the stored values are certainly HU already.
///
/// They are if more than 5 % of them are soft tissue (-100 to 150 HU), more than 5 % are air (-1100
/// to -850 HU), after the intercept less than a fifth as many are soft tissue, and there is no peak
/// of soft tissue at all after the intercept: at least 2 % of the voxels, and three times as many
/// as in the next 250 HU. Without this last rule, air was taken for soft tissue and padding for air
/// where the field of view is much larger than the head. Voxels of the lowest value, if nothing is
/// near it, are padding and no evidence for anything.
pub(super) fn repair_already_hu(
    voxels: &mut [f32],
    instance: &Instance,
    slices: &[SeriesSlice],
    findings: &mut Vec<Finding>,
) {
    let intercept = slices[0].slice.intercept;
    let uniform = slices.iter().all(|m| (m.slice.slope, m.slice.intercept) == (1.0, intercept));
    if instance.hints.modality != "CT" || !uniform || intercept > -500.0 {
        return;
    }
    let intercept = intercept as f32;
    let padding = instance.pixels.padding.map(|stored| stored as f32 + intercept);
    if !is_already_hu(voxels, intercept, padding) {
        return;
    }
    voxels.iter_mut().for_each(|v| *v -= intercept);
    let message =
        format!("stored values are HU already; the header's rescale intercept of {intercept} was not applied");
    findings.push(Finding::warning("already-hu", message));
}

/// Whether voxels were HU before the intercept was added.
fn is_already_hu(voxels: &[f32], intercept: f32, padding: Option<f32>) -> bool {
    let ranges = [
        (-100.0 + intercept, 150.0 + intercept),
        (-100.0, 150.0),
        (-1100.0 + intercept, -850.0 + intercept),
        (150.0, 400.0),
    ];
    // Number of voxels in each range, and of all.
    let count = |part: &[f32]| {
        let mut counts = [0usize; 5];
        for &v in part.iter().step_by(STRIDE).filter(|&&v| Some(v) != padding) {
            counts[4] += 1;
            ranges.iter().zip(&mut counts).for_each(|((low, high), n)| *n += usize::from(*low <= v && v < *high));
        }
        counts
    };
    let counts =
        voxels.par_chunks(STRIDE << 14).map(count).reduce(|| [0; 5], |a, b| std::array::from_fn(|i| a[i] + b[i]));
    let share = |range: usize| counts[range] as f64 / counts[4].max(1) as f64;
    let [soft_stored, soft_rescaled, air_stored, dense] = [0, 1, 2, 3].map(share);
    let is_tissue = soft_rescaled > 0.02 && soft_rescaled > 3.0 * dense;
    !is_tissue && soft_stored > 0.05 && soft_rescaled * 5.0 < soft_stored && air_stored > 0.05
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Voxels of the given HU and shares in percent, with noise.
    fn voxels(parts: &[(f32, usize)], noise: f32) -> Vec<f32> {
        let one =
            |&(hu, percent): &(f32, usize)| (0..percent * 70).map(move |i| hu + noise * ((i * 37 % 21) as f32 - 10.0));
        parts.iter().flat_map(one).collect()
    }

    #[test]
    fn padding_is_not_air() {
        for padding in [-2048.0, -2000.0, -3024.0, -1024.0] {
            for head in [4, 10, 30] {
                let parts = [(padding, 25), (-1000.0, 72 - head), (40.0, head), (700.0, 3)];
                for noise in [0.0, 1.0] {
                    assert!(!is_already_hu(&voxels(&parts, noise), -1024.0, None), "{padding} {head} {noise}");
                }
            }
        }
    }

    /// A head so small that it makes no peak.
    #[test]
    fn declared_padding_is_no_evidence() {
        let parts = [(-2048.0, 25), (-1000.0, 74), (40.0, 1)];
        assert!(is_already_hu(&voxels(&parts, 0.0), -1024.0, None));
        assert!(!is_already_hu(&voxels(&parts, 0.0), -1024.0, Some(-2048.0)));
    }

    #[test]
    fn stored_hounsfield_units_are_recognised() {
        // HU of -1000, 40 and bone, after the intercept.
        for bone in [[2, 1], [6, 3]] {
            let parts = [(-2024.0, 40), (-984.0, 50), (0.0, bone[0]), (280.0, bone[1])];
            for noise in [0.0, 1.0] {
                assert!(is_already_hu(&voxels(&parts, noise), -1024.0, None), "{bone:?} {noise}");
            }
        }
    }
}
