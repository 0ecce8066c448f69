//! Vessel voxels of a map, and the arterial trees they form.

use willis_core::{Point, Site, VesselMap};
use willis_kernels::components::{Connectivity, label};

/// Every vessel voxel of a map.
pub(super) struct VesselVoxels {
    voxels: Vec<VesselVoxel>,
}

struct VesselVoxel {
    offset: usize,
    /// Centre of the voxel, LPS mm.
    place: Point,
    site: u8,
    /// Whether it is connected to enough other vessel voxels to belong to an arterial tree.
    in_tree: bool,
}

impl VesselVoxels {
    /// The voxels of at least this vessel probability. A connected component is an arterial tree if
    /// it has at least the share `tree_share` of them.
    pub(super) fn of(map: &VesselMap, threshold: f32, tree_share: f64) -> Self {
        let grid = map.vessel.grid;
        let mask: Vec<u8> = map.vessel.voxels.iter().map(|&p| u8::from(p >= threshold)).collect();
        let parts = label(&mask, [grid.shape.z, grid.shape.y, grid.shape.x], Connectivity::TwentySix);
        let least = tree_share * parts.sizes.iter().sum::<usize>() as f64;
        let voxel = |(offset, &part): (usize, &u32)| {
            let size = *parts.sizes.get((part as usize).checked_sub(1)?)?;
            let place = grid.affine.to_world(grid.shape.index(offset).into());
            Some(VesselVoxel { offset, place, site: map.site.voxels[offset], in_tree: size as f64 >= least })
        };
        Self { voxels: parts.labels.iter().enumerate().filter_map(voxel).collect() }
    }

    /// Distance in mm to the nearest vessel voxel outside `region`, given as sorted offsets, and
    /// the site of that voxel.
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

    /// Distance in mm to the nearest voxel of an arterial tree; 0 if the map has no tree.
    pub(super) fn distance_to_tree_mm(&self, centre: Point) -> f64 {
        let tree = self.voxels.iter().filter(|voxel| voxel.in_tree);
        tree.map(|voxel| voxel.place.distance_mm(centre)).reduce(f64::min).unwrap_or(0.0)
    }
}
