//! The map from the voxels of a grid to positions in an image.

use willis_core::{Affine, Grid, Point, VoxelPoint};

/// Maximum drift across the whole grid of aligned axes, in voxels of the image.
const ALIGNED_TOLERANCE: f64 = 1e-3;
/// Positions this close to a voxel centre are rounded to it, so that resampling an image to its own
/// grid is the identity.
const SNAP: f64 = 1e-5;

/// How the voxels of a grid map to an image.
pub(super) enum Route {
    /// Every axis of the grid is parallel to one axis of the image: taps along z, y, x of the grid.
    Aligned([AxisTaps; 3]),
    /// Any other map.
    Oblique(VoxelMap),
}

/// The two voxels around a position along one axis, as offsets in the image's array.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct AxisTap {
    pub low: usize,
    pub high: usize,
    /// Weight of `high`, in [0, 1).
    pub weight: f32,
}

/// Taps along one axis of the grid. Those inside the image are contiguous.
#[derive(Debug, PartialEq)]
pub(super) struct AxisTaps {
    /// First grid position inside the image.
    pub start: usize,
    pub taps: Vec<AxisTap>,
}

/// Affine map from a voxel `(x, y, z)` of a grid to a voxel position `(x, y, z)` of an image.
#[derive(Debug, Clone, Copy)]
pub(super) struct VoxelMap([[f64; 4]; 3]);

impl Route {
    /// The route from a grid to an image; `None` when the affine of the image is singular or either
    /// grid is empty.
    pub fn between(image: &Grid, grid: &Grid) -> Option<Self> {
        if image.shape.is_empty() || grid.shape.is_empty() {
            return None;
        }
        let map = VoxelMap::between(image, grid)?;
        let lengths = [grid.shape.x, grid.shape.y, grid.shape.z];
        let Some(source) = map.aligned_axes(lengths) else {
            return Some(Self::Oblique(map));
        };
        let sides = [image.shape.x, image.shape.y, image.shape.z];
        let strides = [1, image.shape.x, image.shape.x * image.shape.y];
        let taps = |axis: usize| {
            let i = source[axis];
            AxisTaps::new(map.0[i][axis], map.0[i][3], lengths[axis], sides[i], strides[i])
        };
        Some(Self::Aligned([taps(2), taps(1), taps(0)]))
    }
}

/// For each axis x, y, z of the image, the largest number of voxels that one step on the grid moves
/// along it; `None` when the affine of the image is singular.
pub(super) fn steps(image: &Grid, grid: &Grid) -> Option<[f64; 3]> {
    let VoxelMap(rows) = VoxelMap::between(image, grid)?;
    Some(rows.map(|row| row[..3].iter().fold(0.0, |most: f64, v| most.max(v.abs()))))
}

/// A position on an axis of `side` voxels, moved to the nearest voxel centre when it is close to
/// one or beyond the border's; `None` outside the image.
pub(super) fn inside(position: f64, side: usize) -> Option<f64> {
    let last = side as f64 - 1.0;
    if !(-0.5 - SNAP..=last + 0.5 + SNAP).contains(&position) {
        return None;
    }
    let whole = position.round();
    Some(if (position - whole).abs() < SNAP { whole } else { position }.clamp(0.0, last))
}

/// The voxels around a position on an axis of `side` voxels, `stride` apart in memory; `None`
/// outside the image.
pub(super) fn tap(position: f64, side: usize, stride: usize) -> Option<AxisTap> {
    let position = inside(position, side)?;
    let low = position.floor();
    let weight = (position - low) as f32;
    let low = low as usize * stride;
    // At weight 0 `high` is `low`: the next voxel may be missing or NaN.
    Some(AxisTap { low, high: if weight > 0.0 { low + stride } else { low }, weight })
}

impl AxisTap {
    /// Offset of the nearer voxel, `high` on ties.
    pub fn nearest(&self) -> usize {
        if self.weight < 0.5 { self.low } else { self.high }
    }
}

impl AxisTaps {
    fn new(step: f64, origin: f64, length: usize, side: usize, stride: usize) -> Self {
        let taps = |k: usize| tap(origin + step * k as f64, side, stride);
        let start = (0..length).find(|&k| taps(k).is_some()).unwrap_or(length);
        Self { start, taps: (start..length).map_while(taps).collect() }
    }

    /// Tap at a grid position; `None` outside the image.
    pub fn get(&self, k: usize) -> Option<AxisTap> {
        self.taps.get(k.checked_sub(self.start)?).copied()
    }
}

impl VoxelMap {
    pub fn between(image: &Grid, grid: &Grid) -> Option<Self> {
        let to_voxel = image.affine.inverse()?;
        let at = |p: Point| {
            let p = to_voxel.apply(p);
            [p.x, p.y, p.z]
        };
        let Affine(m) = grid.affine;
        let origin = at(grid.affine.to_world(VoxelPoint::new(0.0, 0.0, 0.0)));
        let zero = at(Point::new(0.0, 0.0, 0.0));
        // A step is a direction, so the origin of the image is subtracted.
        let step = |j: usize| {
            let end = at(Point::new(m[0][j], m[1][j], m[2][j]));
            std::array::from_fn::<f64, 3, _>(|i| end[i] - zero[i])
        };
        let steps = [step(0), step(1), step(2)];
        let rows = std::array::from_fn(|i| [steps[0][i], steps[1][i], steps[2][i], origin[i]]);
        rows.iter().flatten().all(|v: &f64| v.is_finite()).then_some(Self(rows))
    }

    /// Position `[x, y, z]` in the image of a voxel of the grid.
    pub fn at(&self, z: usize, y: usize, x: usize) -> [f64; 3] {
        self.0.map(|r| r[0] * x as f64 + r[1] * y as f64 + r[2] * z as f64 + r[3])
    }

    /// Position along axis `i` of the image of voxel `k` along the grid's parallel axis `j`.
    pub fn along(&self, i: usize, j: usize, k: usize) -> f64 {
        self.0[i][3] + self.0[i][j] * k as f64
    }

    /// For each grid axis x, y, z the image axis that it is parallel to; `None` unless all are
    /// parallel to one.
    pub fn aligned_axes(&self, lengths: [usize; 3]) -> Option<[usize; 3]> {
        let drift = |i: usize, j: usize| (self.0[i][j] * lengths[j] as f64).abs();
        let main = |j: usize| (0..3).max_by(|&a, &b| drift(a, j).total_cmp(&drift(b, j))).expect("three axes");
        let axes = [main(0), main(1), main(2)];
        let distinct = axes[0] != axes[1] && axes[0] != axes[2] && axes[1] != axes[2];
        let straight = (0..3).all(|j| (0..3).all(|i| i == axes[j] || drift(i, j) < ALIGNED_TOLERANCE));
        (distinct && straight).then_some(axes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taps_at_centres_between_them_and_outside() {
        let tap = |p| tap(p, 4, 10).map(|t| (t.low, t.high, t.weight));
        assert_eq!(tap(2.0), Some((20, 20, 0.0)));
        assert_eq!(tap(1.25), Some((10, 20, 0.25)));
        assert_eq!(tap(-0.4), Some((0, 0, 0.0)));
        assert_eq!(tap(3.5), Some((30, 30, 0.0)));
        assert_eq!(tap(3.6), None);
        assert_eq!(tap(-0.6), None);
        assert_eq!(tap(f64::NAN), None);
    }

    #[test]
    fn taps_along_a_reversed_axis() {
        // Grid positions 0 to 4 map to 4, 3, 2, 1, 0 on an axis of 4 voxels.
        let taps = AxisTaps::new(-1.0, 4.0, 5, 4, 1);
        assert_eq!(taps.start, 1);
        assert_eq!(taps.taps.iter().map(AxisTap::nearest).collect::<Vec<_>>(), [3, 2, 1, 0]);
        assert_eq!(taps.get(0), None);
    }
}
