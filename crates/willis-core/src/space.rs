//! Shapes, spacings, voxel indices, world points and affines.
//!
//! Index, point and spacing are separate types with named fields, so that `[x, y, z]` cannot be
//! confused with `[z, y, x]`.

use serde::{Deserialize, Serialize};

/// Number of voxels along each axis, slowest axis first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Shape {
    /// Slices.
    pub z: usize,
    /// Rows.
    pub y: usize,
    /// Columns; the fastest axis in memory.
    pub x: usize,
}

/// Distance between neighbouring voxel centres, in millimetres.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Spacing {
    /// Between slices, mm.
    pub z: f64,
    /// Between rows, mm.
    pub y: f64,
    /// Between columns, mm.
    pub x: f64,
}

/// One voxel of a grid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Index {
    /// Slice.
    pub z: usize,
    /// Row.
    pub y: usize,
    /// Column.
    pub x: usize,
}

/// A position in the voxel coordinates of a grid; voxel centres are at whole numbers.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct VoxelPoint {
    /// Along slices.
    pub z: f64,
    /// Along rows.
    pub y: f64,
    /// Along columns.
    pub x: f64,
}

/// A position in the patient: LPS, millimetres.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Towards the patient's left, mm.
    pub x: f64,
    /// Towards posterior, mm.
    pub y: f64,
    /// Towards superior, mm.
    pub z: f64,
}

/// Affine map from voxel coordinates in the order `(x, y, z)` to LPS millimetres: three rows of a
/// 4x4 matrix whose last row is `0 0 0 1`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Affine(pub [[f64; 4]; 3]);

/// A shape and its position in the patient.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Grid {
    /// Voxels per axis.
    pub shape: Shape,
    /// Voxel `(x, y, z)` to LPS millimetres.
    pub affine: Affine,
}

impl Shape {
    /// A shape from its three sizes.
    pub const fn new(z: usize, y: usize, x: usize) -> Self {
        Self { z, y, x }
    }

    /// Number of voxels.
    pub const fn len(&self) -> usize {
        self.z * self.y * self.x
    }

    /// Whether the shape has no voxels.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Offset of a voxel in a C-order array.
    pub const fn offset(&self, index: Index) -> usize {
        (index.z * self.y + index.y) * self.x + index.x
    }

    /// Voxel at an offset of a C-order array.
    pub const fn index(&self, offset: usize) -> Index {
        let row = offset / self.x;
        Index { z: row / self.y, y: row % self.y, x: offset % self.x }
    }

    /// `[z, y, x]`.
    pub const fn zyx(&self) -> [usize; 3] {
        [self.z, self.y, self.x]
    }

    /// Whether a position is inside the grid or within half a voxel of its outermost voxel centres.
    pub fn contains(&self, p: VoxelPoint) -> bool {
        let inside = |v: f64, n: usize| v >= -0.5 && v <= n as f64 - 0.5;
        inside(p.z, self.z) && inside(p.y, self.y) && inside(p.x, self.x)
    }

    /// The voxel nearest to a position, which may be outside the grid.
    pub fn nearest(&self, p: VoxelPoint) -> Index {
        let clamp = |v: f64, n: usize| v.round().clamp(0.0, n.saturating_sub(1) as f64) as usize;
        Index { z: clamp(p.z, self.z), y: clamp(p.y, self.y), x: clamp(p.x, self.x) }
    }
}

impl Spacing {
    /// A spacing from its three distances in mm.
    pub const fn new(z: f64, y: f64, x: f64) -> Self {
        Self { z, y, x }
    }

    /// The same distance along every axis, mm.
    pub const fn isotropic(mm: f64) -> Self {
        Self { z: mm, y: mm, x: mm }
    }

    /// `[z, y, x]`, mm.
    pub const fn zyx(&self) -> [f64; 3] {
        [self.z, self.y, self.x]
    }

    /// Volume of one voxel, mm³.
    pub const fn voxel_volume_mm3(&self) -> f64 {
        self.z * self.y * self.x
    }

    /// Smallest of the three distances, mm.
    pub fn min(&self) -> f64 {
        self.z.min(self.y).min(self.x)
    }
}

impl Index {
    /// A voxel from its three coordinates.
    pub const fn new(z: usize, y: usize, x: usize) -> Self {
        Self { z, y, x }
    }
}

impl From<Index> for VoxelPoint {
    fn from(i: Index) -> Self {
        Self { z: i.z as f64, y: i.y as f64, x: i.x as f64 }
    }
}

impl VoxelPoint {
    /// A position from its three voxel coordinates.
    pub const fn new(z: f64, y: f64, x: f64) -> Self {
        Self { z, y, x }
    }
}

impl Point {
    /// A point from its LPS coordinates, mm.
    pub const fn new(x: f64, y: f64, z: f64) -> Self {
        Self { x, y, z }
    }

    /// `[x, y, z]`, LPS mm.
    pub const fn xyz(&self) -> [f64; 3] {
        [self.x, self.y, self.z]
    }

    /// Euclidean distance to another point, mm.
    pub fn distance_mm(&self, other: Point) -> f64 {
        ((self.x - other.x).powi(2) + (self.y - other.y).powi(2) + (self.z - other.z).powi(2)).sqrt()
    }
}

impl Affine {
    /// An axis-aligned map: x runs to the left, y to posterior, z to superior, and the first voxel
    /// centre is at `origin`.
    pub const fn axis_aligned(spacing: Spacing, origin: Point) -> Self {
        Self([[spacing.x, 0.0, 0.0, origin.x], [0.0, spacing.y, 0.0, origin.y], [0.0, 0.0, spacing.z, origin.z]])
    }

    /// World position of a voxel position.
    pub fn to_world(&self, p: VoxelPoint) -> Point {
        let row = |r: [f64; 4]| r[0] * p.x + r[1] * p.y + r[2] * p.z + r[3];
        Point { x: row(self.0[0]), y: row(self.0[1]), z: row(self.0[2]) }
    }

    /// Voxel position of a world position; `None` when the map is singular.
    pub fn to_voxel(&self, p: Point) -> Option<VoxelPoint> {
        Some(self.inverse()?.apply(p))
    }

    /// The inverse map, from world to voxel; `None` when singular. Compute it once for many points.
    pub fn inverse(&self) -> Option<WorldToVoxel> {
        let [a, b, c] = self.0;
        let det = self.determinant();
        let scale: f64 = self.spacing().zyx().iter().product();
        if !det.is_finite() || scale == 0.0 || (det / scale).abs() < 1e-9 {
            return None;
        }
        let minor = |r: [f64; 4], s: [f64; 4], i: usize, j: usize| r[i] * s[j] - r[j] * s[i];
        // The inverse is the transposed cofactor matrix divided by the determinant.
        let rows = [
            [minor(b, c, 1, 2), -minor(a, c, 1, 2), minor(a, b, 1, 2)],
            [-minor(b, c, 0, 2), minor(a, c, 0, 2), -minor(a, b, 0, 2)],
            [minor(b, c, 0, 1), -minor(a, c, 0, 1), minor(a, b, 0, 1)],
        ]
        .map(|r| r.map(|v| v / det));
        Some(WorldToVoxel { rows, origin: [a[3], b[3], c[3]] })
    }

    /// Determinant of the 3x3 part; negative when the voxel axes are left-handed.
    pub fn determinant(&self) -> f64 {
        let [a, b, c] = self.0;
        a[0] * (b[1] * c[2] - b[2] * c[1]) - a[1] * (b[0] * c[2] - b[2] * c[0]) + a[2] * (b[0] * c[1] - b[1] * c[0])
    }

    /// Distance between neighbouring voxels along each axis, mm.
    pub fn spacing(&self) -> Spacing {
        let m = &self.0;
        let length = |j: usize| (m[0][j].powi(2) + m[1][j].powi(2) + m[2][j].powi(2)).sqrt();
        Spacing { z: length(2), y: length(1), x: length(0) }
    }

    /// The affine of a grid whose first voxel is at position `start` of this grid and whose steps
    /// are `step` times this grid's. A negative step flips, a fractional one resamples.
    pub fn sub_grid(&self, start: VoxelPoint, step: VoxelPoint) -> Self {
        let origin = self.to_world(start).xyz();
        let steps = [step.x, step.y, step.z];
        let mut m = self.0;
        for (row, o) in m.iter_mut().zip(origin) {
            for (v, s) in row.iter_mut().zip(steps) {
                *v *= s;
            }
            row[3] = o;
        }
        Self(m)
    }

    /// The 4x4 matrix, row by row.
    pub fn to_4x4(&self) -> [[f64; 4]; 4] {
        [self.0[0], self.0[1], self.0[2], [0.0, 0.0, 0.0, 1.0]]
    }
}

/// The inverse of an [`Affine`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WorldToVoxel {
    rows: [[f64; 3]; 3],
    origin: [f64; 3],
}

impl WorldToVoxel {
    /// Voxel position of a world position.
    pub fn apply(&self, p: Point) -> VoxelPoint {
        let d = [p.x - self.origin[0], p.y - self.origin[1], p.z - self.origin[2]];
        let dot = |r: [f64; 3]| r[0] * d[0] + r[1] * d[1] + r[2] * d[2];
        VoxelPoint { x: dot(self.rows[0]), y: dot(self.rows[1]), z: dot(self.rows[2]) }
    }
}

impl Grid {
    /// A grid from its parts.
    pub const fn new(shape: Shape, affine: Affine) -> Self {
        Self { shape, affine }
    }

    /// Voxel size, mm.
    pub fn spacing(&self) -> Spacing {
        self.affine.spacing()
    }

    /// World position of the centre of the grid.
    pub fn centre(&self) -> Point {
        let middle = |n: usize| (n as f64 - 1.0) / 2.0;
        self.affine.to_world(VoxelPoint::new(middle(self.shape.z), middle(self.shape.y), middle(self.shape.x)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn offset_and_index_are_inverse() {
        let shape = Shape::new(2, 3, 5);
        for offset in 0..shape.len() {
            assert_eq!(shape.offset(shape.index(offset)), offset);
        }
        assert_eq!(shape.offset(Index::new(1, 2, 4)), 29);
    }

    #[test]
    fn singular_map_has_no_inverse() {
        assert!(Affine([[1.0, 1.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]]).inverse().is_none());
    }

    fn rotation(a: f64, b: f64, c: f64) -> [[f64; 3]; 3] {
        let (sa, ca, sb, cb, sc, cc) = (a.sin(), a.cos(), b.sin(), b.cos(), c.sin(), c.cos());
        [
            [ca * cb, ca * sb * sc - sa * cc, ca * sb * cc + sa * sc],
            [sa * cb, sa * sb * sc + ca * cc, sa * sb * cc - ca * sc],
            [-sb, cb * sc, cb * cc],
        ]
    }

    proptest! {
        #[test]
        fn voxel_to_world_to_voxel(
            angles in prop::array::uniform3(-3.0..3.0f64),
            spacing in prop::array::uniform3(0.2..6.0f64),
            origin in prop::array::uniform3(-300.0..300.0f64),
            p in prop::array::uniform3(-600.0..600.0f64),
        ) {
            let r = rotation(angles[0], angles[1], angles[2]);
            let mut m = [[0.0; 4]; 3];
            for i in 0..3 {
                for j in 0..3 { m[i][j] = r[i][j] * spacing[j]; }
                m[i][3] = origin[i];
            }
            let affine = Affine(m);
            let q = affine.to_voxel(affine.to_world(VoxelPoint::new(p[2], p[1], p[0]))).unwrap();
            prop_assert!((q.x - p[0]).abs() < 1e-6 && (q.y - p[1]).abs() < 1e-6 && (q.z - p[2]).abs() < 1e-6);
            prop_assert!((affine.spacing().x - spacing[0]).abs() < 1e-9);
        }

        #[test]
        fn sub_grid_keeps_world_positions(start in prop::array::uniform3(-9.0..9.0f64), k in prop::array::uniform3(0.0..9.0f64)) {
            let affine = Affine([[0.5, 0.1, 0.0, 3.0], [-0.1, 0.5, 0.2, -7.0], [0.0, -0.1, 0.9, 11.0]]);
            let step = VoxelPoint::new(-1.0, 2.0, 0.5);
            let start = VoxelPoint::new(start[0], start[1], start[2]);
            let a = affine.sub_grid(start, step).to_world(VoxelPoint::new(k[0], k[1], k[2]));
            let b = affine.to_world(VoxelPoint::new(start.z + step.z * k[0], start.y + step.y * k[1], start.x + step.x * k[2]));
            prop_assert!(a.distance_mm(b) < 1e-9);
        }
    }
}
