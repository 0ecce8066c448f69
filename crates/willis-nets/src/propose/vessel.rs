//! Where the vessels of a map lie, and which of them are arterial trees.

use willis_core::{Point, Site, VesselMap};
use willis_kernels::components::{Connectivity, label};

use super::infer::ProposeConfig;

/// Every vessel voxel of a map.
pub(super) struct Vessel {
    voxels: Vec<Voxel>,
}

struct Voxel {
    offset: usize,
    place: Point,
    site: u8,
    /// Whether it is connected to enough others to be part of an arterial tree.
    in_tree: bool,
}

impl Vessel {
    pub(super) fn of(map: &VesselMap, config: &ProposeConfig) -> Self {
        let grid = map.vessel.grid;
        let mask: Vec<u8> = map.vessel.voxels.iter().map(|&p| u8::from(p >= config.vessel_threshold)).collect();
        let parts = label(&mask, [grid.shape.z, grid.shape.y, grid.shape.x], Connectivity::TwentySix);
        let least = config.tree_share * parts.sizes.iter().sum::<usize>() as f64;
        let voxel = |(offset, &part): (usize, &u32)| {
            let size = *parts.sizes.get((part as usize).checked_sub(1)?)?;
            let place = grid.affine.to_world(grid.shape.index(offset).into());
            Some(Voxel { offset, place, site: map.site.voxels[offset], in_tree: size as f64 >= least })
        };
        Self { voxels: parts.labels.iter().enumerate().filter_map(voxel).collect() }
    }

    /// Distance to the nearest vessel voxel that is not in `region` (sorted offsets), and its site.
    pub(super) fn nearest_outside(&self, centre: Point, region: &[usize]) -> (Option<f64>, Option<Site>) {
        let mut best: Option<(f64, u8)> = None;
        for voxel in &self.voxels {
            let distance = voxel.place.distance_mm(centre);
            if best.is_none_or(|(nearest, _)| distance < nearest) && region.binary_search(&voxel.offset).is_err() {
                best = Some((distance, voxel.site));
            }
        }
        (best.map(|b| b.0), best.and_then(|b| Site::from_mask_value(b.1)))
    }

    /// Distance to the nearest voxel of an arterial tree, mm; 0 where a map has none.
    pub(super) fn distance_to_tree_mm(&self, centre: Point) -> f64 {
        let tree = self.voxels.iter().filter(|voxel| voxel.in_tree);
        tree.map(|voxel| voxel.place.distance_mm(centre)).reduce(f64::min).unwrap_or(0.0)
    }
}
