//! Agreement of vessel maps with the truth at threshold 0.5, over all voxels of all cases.

use std::iter::Sum;

use serde::{Deserialize, Serialize};
use willis_core::{TrainingCase, VesselMap};
use willis_kernels::distance::squared_distance_mm2;
use willis_kernels::thinning::skeletonize;

/// Agreement of vessel maps with the truth; a figure is `None` where its denominator is 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Agreement {
    /// Dice of the vessels.
    pub vessel_dice: Option<f64>,
    /// Dice of the aneurysms.
    pub aneurysm_dice: Option<f64>,
    /// Share of the true vessel voxels found whose site is right.
    pub site_accuracy: Option<f64>,
    /// Share of the true vessel voxels that are found.
    pub vessel_recall: Option<f64>,
    /// Share of the found vessel voxels that are true.
    pub vessel_precision: Option<f64>,
    /// Share of the true vessels' skeleton that is found.
    pub skeleton_recall: Option<f64>,
    /// Share of the skeleton found where the vessel is narrower than [`THIN_MM`].
    pub thin_recall: Option<f64>,
}

/// Diameter below which a vessel counts as thin, mm.
pub const THIN_MM: f64 = 1.5;

/// Voxel counts of one case, or their sum over several.
#[derive(Debug, Default, Clone, Copy)]
pub struct VoxelCounts {
    /// In both, found, true.
    vessel: [u64; 3],
    aneurysm: [u64; 3],
    /// With the right site, found.
    sites: [u64; 2],
    /// Found, all.
    skeleton: [u64; 2],
    thin: [u64; 2],
}

impl VoxelCounts {
    /// Compares a vessel map with the case it was predicted from.
    ///
    /// # Panics
    /// if the map has another shape than the case (programmer error).
    pub fn of(maps: &VesselMap, case: &TrainingCase) -> Self {
        let mut counts = Self::default();
        assert_eq!(maps.vessel.grid.shape, case.sites.grid.shape, "the map is of another case");
        let (vessels, aneurysms) = (&maps.vessel.voxels, &maps.aneurysm.voxels);
        for (i, (&site, &aneurysm)) in case.sites.voxels.iter().zip(&case.aneurysm.voxels).enumerate() {
            let vessel = vessels[i] >= 0.5;
            count(&mut counts.vessel, vessel, site != 0);
            count(&mut counts.aneurysm, aneurysms[i] >= 0.5, aneurysm != 0);
            if vessel && site != 0 {
                counts.sites[0] += u64::from(maps.site.voxels[i] == site);
                counts.sites[1] += 1;
            }
        }
        let (shape, spacing) = (case.sites.grid.shape.zyx(), case.sites.grid.spacing());
        let truth: Vec<u8> = case.sites.voxels.iter().map(|&site| u8::from(site != 0)).collect();
        let to_wall = squared_distance_mm2(&truth, shape, spacing.zyx());
        // Distances reach to the centre of the first voxel outside, half a voxel beyond the wall.
        let thin = (THIN_MM / 2.0 + spacing.min() / 2.0).powi(2) as f32;
        for (i, _) in skeletonize(&truth, shape).iter().enumerate().filter(|&(_, &on)| on != 0) {
            let found = u64::from(vessels[i] >= 0.5);
            let add = |[both, all]: &mut [u64; 2]| (*both, *all) = (*both + found, *all + 1);
            add(&mut counts.skeleton);
            if to_wall[i] < thin {
                add(&mut counts.thin);
            }
        }
        counts
    }

    /// The figures that follow from the counts.
    pub fn agreement(&self) -> Agreement {
        let ratio = |part: u64, all: u64| (all > 0).then(|| part as f64 / all as f64);
        let dice = |[both, found, truth]: [u64; 3]| ratio(2 * both, found + truth);
        Agreement {
            vessel_dice: dice(self.vessel),
            aneurysm_dice: dice(self.aneurysm),
            site_accuracy: ratio(self.sites[0], self.sites[1]),
            vessel_recall: ratio(self.vessel[0], self.vessel[2]),
            vessel_precision: ratio(self.vessel[0], self.vessel[1]),
            skeleton_recall: ratio(self.skeleton[0], self.skeleton[1]),
            thin_recall: ratio(self.thin[0], self.thin[1]),
        }
    }
}

impl Sum for VoxelCounts {
    fn sum<I: Iterator<Item = Self>>(cases: I) -> Self {
        fn added<const N: usize>(a: [u64; N], b: [u64; N]) -> [u64; N] {
            std::array::from_fn(|i| a[i] + b[i])
        }
        cases.fold(Self::default(), |sum, case| Self {
            vessel: added(sum.vessel, case.vessel),
            aneurysm: added(sum.aneurysm, case.aneurysm),
            sites: added(sum.sites, case.sites),
            skeleton: added(sum.skeleton, case.skeleton),
            thin: added(sum.thin, case.thin),
        })
    }
}

fn count([both, found, truth]: &mut [u64; 3], is_found: bool, is_true: bool) {
    *both += u64::from(is_found && is_true);
    *found += u64::from(is_found);
    *truth += u64::from(is_true);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use willis_core::Image;

    use super::super::sample::tests::case;
    use super::*;

    #[test]
    fn half_a_vessel_has_a_recall_of_one_half() {
        let mut case = case(24);
        // A tube along x, 2 mm wide and then 1 mm wide: one half is found, and as many voxels
        // beside it.
        for (reach, thin) in [(4, false), (1, true)] {
            let shape = case.sites.grid.shape;
            let (mut found_vessel, mut vessel) = (Vec::new(), 0u64);
            for (i, site) in case.sites.voxels.iter_mut().enumerate() {
                let at = shape.index(i);
                let square = |y: usize| at.z.abs_diff(12).pow(2) + at.y.abs_diff(y).pow(2);
                *site = if square(12) <= reach { 5 } else { 0 };
                vessel += u64::from(*site != 0);
                let found = at.x < 12 && (square(12) <= reach || square(4) <= reach);
                found_vessel.push(f32::from(u8::from(found)));
            }
            let grid = case.sites.grid;
            let maps = VesselMap {
                vessel: Image::new(grid, found_vessel),
                aneurysm: Image::filled(grid, 0.0),
                site: Image::filled(grid, 5),
                source: Arc::new(case.harmonised()),
            };
            let counts = VoxelCounts::of(&maps, &case);
            assert_eq!(counts.vessel, [vessel / 2, vessel, vessel]);
            assert_eq!([counts; 3].into_iter().sum::<VoxelCounts>().vessel, counts.vessel.map(|v| 3 * v));
            let agreement = counts.agreement();
            assert_eq!((agreement.vessel_recall, agreement.vessel_precision), (Some(0.5), Some(0.5)));
            assert!((agreement.skeleton_recall.unwrap() - 0.5).abs() < 0.1);
            assert_eq!(agreement.thin_recall.is_some(), thin);
            assert_eq!((agreement.vessel_dice, agreement.site_accuracy), (Some(0.5), Some(1.0)));
        }
    }
}
