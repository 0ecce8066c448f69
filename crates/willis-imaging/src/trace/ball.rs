//! The voxels within a ball.

use willis_core::space::WorldToVoxel;
use willis_core::{Grid, Index, Point, VoxelPoint};

/// Visits the voxels of a grid within balls around points.
pub(super) struct Ball {
    grid: Grid,
    inverse: WorldToVoxel,
    /// Maximum extent along each axis of a ball of radius 1 mm, voxels, `[z, y, x]`.
    reach: [f64; 3],
}

impl Ball {
    /// `None` for a singular grid.
    pub fn new(grid: &Grid) -> Option<Self> {
        let inverse = grid.affine.inverse()?;
        let origin = inverse.apply(Point::new(0.0, 0.0, 0.0));
        let mut squares = [0.0; 3];
        for unit in [Point::new(1.0, 0.0, 0.0), Point::new(0.0, 1.0, 0.0), Point::new(0.0, 0.0, 1.0)] {
            let p = inverse.apply(unit);
            let step = [p.z - origin.z, p.y - origin.y, p.x - origin.x];
            squares.iter_mut().zip(step).for_each(|(s, d)| *s += d * d);
        }
        Some(Self { grid: *grid, inverse, reach: squares.map(f64::sqrt) })
    }

    /// Voxel position of a point.
    pub fn voxel(&self, point: Point) -> VoxelPoint {
        self.inverse.apply(point)
    }

    /// Calls `f(offset, distance in mm)` for each voxel whose centre is within `radius_mm`, in
    /// raster order.
    pub fn visit(&self, centre: Point, radius_mm: f64, mut f: impl FnMut(usize, f64)) {
        let at = self.inverse.apply(centre);
        let span = |middle: f64, reach: f64, n: usize| {
            let low = (middle - radius_mm * reach).ceil().max(0.0) as usize;
            let high = (middle + radius_mm * reach).floor();
            low..if high < 0.0 { low } else { (high as usize + 1).min(n) }
        };
        let shape = self.grid.shape;
        for z in span(at.z, self.reach[0], shape.z) {
            for y in span(at.y, self.reach[1], shape.y) {
                for x in span(at.x, self.reach[2], shape.x) {
                    let index = Index::new(z, y, x);
                    let distance = self.grid.affine.to_world(index.into()).distance_mm(centre);
                    if distance <= radius_mm {
                        f(shape.offset(index), distance);
                    }
                }
            }
        }
    }
}
