//! CT whose stored values are HU already, though the header has a rescale intercept.

use rayon::prelude::*;
use willis_core::Finding;

use super::group::SeriesSlice;
use super::header::Instance;

/// Every so many voxels are examined.
const STRIDE: usize = 7;

/// Number of the examined voxels in each of [`HuSurvey::ranges`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct HuCounts {
    inside: [usize; 4],
    /// Of all.
    total: usize,
}

impl HuCounts {
    /// The sum.
    pub fn plus(self, other: Self) -> Self {
        let inside = std::array::from_fn(|i| self.inside[i] + other.inside[i]);
        Self { inside, total: self.total + other.total }
    }
}

/// Finds out whether values are HU already before the rescale intercept is added.
#[derive(Debug, Clone, Copy)]
pub(super) struct HuSurvey {
    intercept: f32,
    /// Padding after the intercept.
    padding: Option<f32>,
}

impl HuSurvey {
    /// The survey of a CT series with one negative intercept; `None` for others.
    pub fn of(instance: &Instance, slices: &[SeriesSlice]) -> Option<Self> {
        let intercept = slices[0].slice.intercept;
        let uniform = slices.iter().all(|m| (m.slice.slope, m.slice.intercept) == (1.0, intercept));
        if instance.hints.modality != "CT" || !uniform || intercept > -500.0 {
            return None;
        }
        let intercept = intercept as f32;
        let padding = instance.pixels.padding.map(|stored| stored as f32 + intercept);
        Some(Self { intercept, padding })
    }

    /// Soft tissue and air before the intercept, soft and dense tissue after it.
    fn ranges(&self) -> [(f32, f32); 4] {
        let intercept = self.intercept;
        [
            (-100.0 + intercept, 150.0 + intercept),
            (-100.0, 150.0),
            (-1100.0 + intercept, -850.0 + intercept),
            (150.0, 400.0),
        ]
    }

    /// Examines a part of the volume that begins with voxel `start`.
    pub fn count(&self, part: &[f32], start: usize) -> HuCounts {
        let first = (STRIDE - start % STRIDE) % STRIDE;
        let sample: Vec<f32> = part.iter().skip(first).step_by(STRIDE).copied().collect();
        // Loops over contiguous values without branches are vectorised.
        let padding = self.padding.map_or(0, |p| sample.iter().map(|&v| u32::from(v == p)).sum::<u32>());
        let inside = self.ranges().map(|(low, high)| {
            let all = sample.iter().map(|&v| u32::from(low <= v) & u32::from(v < high)).sum::<u32>();
            let padding = if self.padding.is_some_and(|p| low <= p && p < high) { padding } else { 0 };
            (all - padding) as usize
        });
        HuCounts { inside, total: sample.len() - padding as usize }
    }

    /// Examines a whole volume.
    pub fn count_all(&self, voxels: &[f32]) -> HuCounts {
        const PART: usize = STRIDE << 14;
        let parts = voxels.par_chunks(PART).enumerate();
        parts.map(|(k, part)| self.count(part, k * PART)).reduce(HuCounts::default, HuCounts::plus)
    }

    /// Whether voxels were HU before the intercept was added.
    ///
    /// They were if more than 5 % of them are soft tissue (-100 to 150 HU), more than 5 % are air
    /// (-1100 to -850 HU), after the intercept less than a fifth as many are soft tissue, and there
    /// is no peak of soft tissue at all after the intercept: at least 2 % of the voxels, and three
    /// times as many as in the next 250 HU. Without this last rule, air was taken for soft tissue
    /// and padding for air where the field of view is much larger than the head. Voxels of the
    /// declared padding are no evidence for anything.
    fn is_already_hu(counts: HuCounts) -> bool {
        let share = |range: usize| counts.inside[range] as f64 / counts.total.max(1) as f64;
        let [soft_stored, soft_rescaled, air_stored, dense] = [0, 1, 2, 3].map(share);
        let is_tissue = soft_rescaled > 0.02 && soft_rescaled > 3.0 * dense;
        !is_tissue && soft_stored > 0.05 && soft_rescaled * 5.0 < soft_stored && air_stored > 0.05
    }

    /// Undoes the rescale intercept when the stored values are certainly HU already.
    pub fn repair(&self, counts: HuCounts, voxels: &mut [f32], findings: &mut Vec<Finding>) {
        if !Self::is_already_hu(counts) {
            return;
        }
        let intercept = self.intercept;
        voxels.iter_mut().for_each(|v| *v -= intercept);
        let message =
            format!("stored values are HU already; the header's rescale intercept of {intercept} was not applied");
        findings.push(Finding::warning("already-hu", message));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_already_hu(voxels: &[f32], intercept: f32, padding: Option<f32>) -> bool {
        HuSurvey::is_already_hu(HuSurvey { intercept, padding }.count_all(voxels))
    }

    #[test]
    fn parts_add_up_to_the_whole() {
        let all = voxels(&[(-2048.0, 25), (-1000.0, 70), (40.0, 4), (300.0, 1)], 3.0);
        for padding in [None, Some(-2048.0), Some(43.0), Some(5.0)] {
            let survey = HuSurvey { intercept: -1024.0, padding };
            let expected = |(low, high): (f32, f32)| {
                all.iter().step_by(STRIDE).filter(|&&v| Some(v) != padding && low <= v && v < high).count()
            };
            let whole = survey.count_all(&all);
            assert_eq!(whole.inside, survey.ranges().map(expected));
            for size in [1, 5, 64, 1000] {
                let parts = all.chunks(size).enumerate().map(|(k, part)| survey.count(part, k * size));
                assert_eq!(parts.fold(HuCounts::default(), HuCounts::plus), whole, "{size}");
            }
        }
    }

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
