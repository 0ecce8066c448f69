//! Resampling to a coarser grid without aliasing, in one step.
//!
//! Along an axis of the image on which one step on the grid spans `s` > 1 voxels, the filter is
//! Catmull–Rom's cubic stretched by `s`; along the others it is linear interpolation. The stretched
//! cubic keeps more of what the grid can show, and less of what it cannot, than block averages or
//! a stretched triangle (`the_zone_plate_is_kept_below_and_removed_above_the_limit`).
//!
//! # Source
//! Keys, IEEE TASSP 29(6), 1981, a = -1/2; stretching as in Pillow's `resize`.

use rayon::prelude::*;
use willis_core::{Grid, Image};

use super::route::{self, VoxelMap};
use super::{fill, linear};

/// A step up to this counts as no coarser, so that an image keeps its values on its own grid.
const SAME_STEP: f64 = 1.0 + 1e-6;

/// Weights of consecutive voxels along one axis; their sum is 1.
#[derive(Debug, Clone, Default)]
struct WeightedTaps {
    first: usize,
    weights: Vec<f32>,
}

/// The filter along one axis of an image.
#[derive(Debug, Clone, Copy)]
struct AxisFilter {
    /// Voxels that one step on the grid spans.
    step: f64,
    /// Number of voxels of the image along the axis.
    side: usize,
}

/// Resamples an image to a grid; voxels outside the image are `outside`.
pub fn antialiased(image: &Image<f32>, grid: &Grid, outside: f32) -> Image<f32> {
    let steps = route::steps(&image.grid, grid);
    let Some(steps) = steps.filter(|s| !image.grid.shape.is_empty() && s.iter().any(|&s| s > SAME_STEP)) else {
        return linear(image, grid, outside);
    };
    let shape = image.grid.shape;
    let sides = [shape.x, shape.y, shape.z];
    let filters: [AxisFilter; 3] = std::array::from_fn(|i| AxisFilter { step: steps[i], side: sides[i] });
    let lengths = [grid.shape.x, grid.shape.y, grid.shape.z];
    let Some(map) = VoxelMap::between(&image.grid, grid) else { return Image::filled(*grid, outside) };
    match map.aligned_axes(lengths) {
        Some(source) => separable(image, grid, outside, filters, &map, source),
        None => gathered(image, grid, outside, filters, &map),
    }
}

/// Filters one axis of the image after the other; `source[j]` is the axis of the image that the
/// grid's axis `j` is parallel to.
fn separable(
    image: &Image<f32>,
    grid: &Grid,
    outside: f32,
    filters: [AxisFilter; 3],
    map: &VoxelMap,
    source: [usize; 3],
) -> Image<f32> {
    let lengths = [grid.shape.x, grid.shape.y, grid.shape.z];
    let taps = [0, 1, 2].map(|i| {
        let j = (0..3).find(|&j| source[j] == i).expect("the axes are a permutation");
        (0..lengths[j]).map(|k| filters[i].taps(map.along(i, j, k))).collect::<Vec<_>>()
    });
    let [x_taps, y_taps, z_taps] = &taps;
    let (y_used, z_used) = (used(y_taps), used(z_taps));
    let (nx, ny) = (x_taps.len(), y_taps.len());
    let shape = image.grid.shape;
    let planes: Vec<Vec<f32>> = z_used
        .clone()
        .into_par_iter()
        .map(|z| {
            let mut rows = vec![0.0; y_used.len() * nx];
            for (row, y) in rows.chunks_mut(nx).zip(y_used.clone()) {
                let voxels = &image.voxels[(z * shape.y + y) * shape.x..][..shape.x];
                for (value, taps) in row.iter_mut().zip(x_taps) {
                    *value = taps.as_ref().map_or(0.0, |taps| taps.sum(|i| voxels[i]));
                }
            }
            let mut plane = vec![0.0; ny * nx];
            plane.chunks_mut(nx).zip(y_taps).for_each(|(row, taps)| {
                add(row, taps, |y| &rows[(y - y_used.start) * nx..][..nx]);
            });
            plane
        })
        .collect();
    let volume: Vec<Vec<f32>> = z_taps
        .par_iter()
        .map(|taps| {
            let mut plane = vec![0.0; ny * nx];
            add(&mut plane, taps, |z| &planes[z - z_used.start]);
            plane
        })
        .collect();
    let inside = |axis: usize, k: usize| taps[axis][k].is_some();
    fill(grid, outside, |z, y, row| {
        for (x, value) in row.iter_mut().enumerate() {
            let mut place = [0; 3];
            [x, y, z].into_iter().zip(source).for_each(|(k, axis)| place[axis] = k);
            if place.into_iter().enumerate().all(|(axis, k)| inside(axis, k)) {
                *value = volume[place[2]][place[1] * nx + place[0]];
            }
        }
    })
}

/// Weighs the voxels around each position of an oblique grid.
fn gathered(image: &Image<f32>, grid: &Grid, outside: f32, filters: [AxisFilter; 3], map: &VoxelMap) -> Image<f32> {
    let shape = image.grid.shape;
    fill(grid, outside, |z, y, row| {
        let mut taps: [WeightedTaps; 3] = Default::default();
        for (x, value) in row.iter_mut().enumerate() {
            let place = map.at(z, y, x);
            if (0..3).all(|axis| filters[axis].taps_into(place[axis], &mut taps[axis]).is_some()) {
                let [tx, ty, tz] = &taps;
                *value = tz.sum(|z| {
                    ty.sum(|y| {
                        let start = (z * shape.y + y) * shape.x;
                        tx.sum(|x| image.voxels[start + x])
                    })
                });
            }
        }
    })
}

/// The voxels that any of the taps use.
fn used(taps: &[Option<WeightedTaps>]) -> std::ops::Range<usize> {
    let first = taps.iter().flatten().map(|t| t.first).min().unwrap_or(0);
    let end = taps.iter().flatten().map(|t| t.first + t.weights.len()).max().unwrap_or(0);
    first..end
}

/// Adds weighted rows to a sum.
fn add<'a>(sum: &mut [f32], taps: &Option<WeightedTaps>, row: impl Fn(usize) -> &'a [f32]) {
    for (i, &weight) in taps.iter().flat_map(|t| (t.first..).zip(&t.weights)) {
        sum.iter_mut().zip(row(i)).for_each(|(s, v)| *s += weight * v);
    }
}

impl WeightedTaps {
    fn sum(&self, voxel: impl Fn(usize) -> f32) -> f32 {
        (self.first..).zip(&self.weights).map(|(i, w)| w * voxel(i)).sum()
    }
}

impl AxisFilter {
    /// Taps at a position; `None` outside the image.
    fn taps(self, position: f64) -> Option<WeightedTaps> {
        let mut taps = WeightedTaps::default();
        self.taps_into(position, &mut taps).map(|()| taps)
    }

    /// Taps at a position, in place of the present ones; `None` outside the image.
    fn taps_into(self, position: f64, taps: &mut WeightedTaps) -> Option<()> {
        taps.weights.clear();
        if self.step <= SAME_STEP {
            let tap = route::tap(position, self.side, 1)?;
            taps.first = tap.low;
            taps.weights.push(1.0 - tap.weight);
            taps.weights.extend((tap.high > tap.low).then_some(tap.weight));
            return Some(());
        }
        let place = route::inside(position, self.side)?;
        let radius = 2.0 * self.step;
        let first = (place - radius).floor().max(0.0) as usize;
        let last = ((place + radius).ceil() as usize).min(self.side - 1);
        let weight = |i: usize| cubic((i as f64 - place) / self.step);
        let total: f64 = (first..=last).map(weight).sum();
        taps.first = first;
        taps.weights.extend((first..=last).map(|i| (weight(i) / total) as f32));
        taps.trim();
        Some(())
    }
}

impl WeightedTaps {
    /// Drops voxels of weight 0 at both ends: they may be NaN.
    fn trim(&mut self) {
        while self.weights.len() > 1 && self.weights.last() == Some(&0.0) {
            self.weights.pop();
        }
        let zeros = self.weights.iter().take_while(|&&w| w == 0.0).count();
        self.weights.drain(..zeros);
        self.first += zeros;
    }
}

/// Catmull–Rom's cubic: 1 at 0, 0 at ±1 and from ±2 on.
fn cubic(t: f64) -> f64 {
    let t = t.abs();
    if t < 1.0 {
        (1.5 * t - 2.5) * t * t + 1.0
    } else if t < 2.0 {
        ((-0.5 * t + 2.5) * t - 4.0) * t + 2.0
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use willis_core::{Affine, Point, Shape, Spacing, VoxelPoint};

    fn grid(shape: [usize; 3], spacing: f64, angle: f64) -> Grid {
        let (s, c) = (angle.sin() * spacing, angle.cos() * spacing);
        // Rotated around the middle of the grid.
        let reach = |n: usize| (n as f64 - 1.0) / 2.0;
        let (hx, hy) = (reach(shape[2]), reach(shape[1]));
        let rows = [
            [c, -s, 0.0, -(c * hx - s * hy)],
            [s, c, 0.0, -(s * hx + c * hy)],
            [0.0, 0.0, spacing, -reach(shape[0]) * spacing],
        ];
        Grid::new(Shape::new(shape[0], shape[1], shape[2]), Affine(rows))
    }

    fn image(grid: Grid, f: impl Fn(Point) -> f64) -> Image<f32> {
        let value = |i| f(grid.affine.to_world(VoxelPoint::from(grid.shape.index(i)))) as f32;
        Image::new(grid, (0..grid.shape.len()).map(value).collect())
    }

    /// A plate of rings whose frequency rises with the radius, in cycles per millimetre.
    fn plate(p: Point) -> f64 {
        (std::f64::consts::PI * (p.x * p.x + p.y * p.y) / 40.0).cos()
    }

    /// Root mean square over the rings whose frequency is `low` to `high` times what the grid can
    /// show, relative to that of a cosine.
    fn strength(image: &Image<f32>, limit: f64, low: f64, high: f64) -> f64 {
        let (mut sum, mut n) = (0.0, 0);
        for (i, &v) in image.voxels.iter().enumerate() {
            let p = image.grid.affine.to_world(VoxelPoint::from(image.grid.shape.index(i)));
            let frequency = p.x.hypot(p.y) / 40.0 / limit;
            if (low..high).contains(&frequency) {
                sum += f64::from(v).powi(2);
                n += 1;
            }
        }
        (2.0 * sum / f64::from(n)).sqrt()
    }

    /// 0.4 mm voxels to 0.8 mm: the grid shows up to 0.625 cycles per mm, at 25 mm of the plate.
    #[test]
    fn the_zone_plate_is_kept_below_and_removed_above_the_limit() {
        let fine = image(grid([1, 221, 221], 0.4, 0.0), plate);
        for angle in [0.0, 0.3] {
            let coarse = Grid { shape: Shape::new(1, 107, 107), ..grid([1, 107, 107], 0.8, angle) };
            let limit = 0.625;
            let filtered = antialiased(&fine, &coarse, 0.0);
            let (kept, aliased) = (strength(&filtered, limit, 0.2, 0.5), strength(&filtered, limit, 1.35, 1.65));
            assert!((0.95..1.05).contains(&kept), "{angle}: {kept} of the rings below half the limit is kept");
            assert!(aliased < 0.2, "{angle}: {aliased} of the rings above the limit is left");
            // The test can fail: interpolation alone lets them through, block averages blur.
            let interpolated = strength(&linear(&fine, &coarse, 0.0), limit, 1.35, 1.65);
            assert!(interpolated > 0.5, "{interpolated}");
            let blocks = super::super::area(&fine, &coarse, 0.0);
            let (kept, aliased) = (strength(&blocks, limit, 0.2, 0.5), strength(&blocks, limit, 1.35, 1.65));
            assert!(kept < 0.93 && aliased > 0.2, "{kept} {aliased}");
        }
    }

    #[test]
    fn constants_stay_constant_up_to_the_border() {
        let fine = Image::filled(grid([9, 31, 33], 0.5, 0.0), 7.0);
        for angle in [0.0, 0.2] {
            let coarse = antialiased(&fine, &grid([5, 11, 11], 0.9, angle), -1.0);
            assert!(coarse.voxels.iter().all(|&v| (v - 7.0).abs() < 1e-5 || v == -1.0));
            assert!(coarse.voxels.iter().filter(|&&v| v > 0.0).count() > coarse.voxels.len() / 2);
        }
    }

    #[test]
    fn only_the_coarser_axes_are_filtered() {
        let affine = Affine::axis_aligned(Spacing::new(3.0, 0.5, 0.5), Point::new(0.0, 0.0, 0.0));
        let mut thick = Image::filled(Grid::new(Shape::new(4, 8, 8), affine), 0.0);
        thick.voxels[64..128].fill(1.0);
        let affine = Affine::axis_aligned(Spacing::new(1.5, 1.0, 1.0), Point::new(1.0, 1.0, 1.5));
        let out = antialiased(&thick, &Grid::new(Shape::new(3, 3, 3), affine), -1.0);
        // Slices between 0 and 1, at 1, and between 1 and 2, linear along z.
        assert_eq!([out.voxels[0], out.voxels[9], out.voxels[18]].map(|v| (v * 1e4).round() / 1e4), [0.5, 1.0, 0.5]);
    }

    #[test]
    fn a_nan_reaches_only_the_voxels_that_use_it() {
        let mut fine = Image::filled(grid([1, 1, 41], 0.5, 0.0), 1.0);
        fine.voxels[20] = f32::NAN;
        let coarse = antialiased(&fine, &grid([1, 1, 21], 1.0, 0.0), 0.0);
        let nans: Vec<usize> = (0..21).filter(|&i| coarse.voxels[i].is_nan()).collect();
        // Position 10 of the grid is voxel 20; the cubic is 0 at its neighbours' centres.
        assert!(nans.contains(&10) && nans.iter().all(|i| (9..=11).contains(i)), "{nans:?}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        /// The separable passes and the slow sum over all neighbours are the same filter.
        #[test]
        fn separable_equals_gathered(
            step in 1.05..2.7f64,
            shift in prop::array::uniform3(-3.0..3.0f64),
            order in 0usize..3,
            seed in any::<u32>(),
        ) {
            let value = |i: usize| ((i as u32).wrapping_mul(2_654_435_761) ^ seed) as f32 / u32::MAX as f32;
            let source = grid([9, 11, 13], 1.0, 0.0);
            let fine = Image::new(source, (0..source.shape.len()).map(value).collect());
            let s = step;
            let columns = [
                [[s, 0.0, 0.0], [0.0, s, 0.0], [0.0, 0.0, 0.7]],
                [[-s, 0.0, 0.0], [0.0, 0.0, s], [0.0, 0.8, 0.0]],
                [[0.0, s, 0.0], [0.0, 0.0, s], [-s, 0.0, 0.0]],
            ][order];
            let rows = std::array::from_fn(|i| [columns[0][i], columns[1][i], columns[2][i], shift[i] - 4.0]);
            let target = Grid::new(Shape::new(6, 7, 8), Affine(rows));
            let steps = route::steps(&source, &target).unwrap();
            let sides = [13, 11, 9];
            let filters: [AxisFilter; 3] = std::array::from_fn(|i| AxisFilter { step: steps[i], side: sides[i] });
            let map = VoxelMap::between(&source, &target).unwrap();
            let slow = gathered(&fine, &target, -9.0, filters, &map);
            let fast = antialiased(&fine, &target, -9.0);
            for (a, b) in fast.voxels.iter().zip(&slow.voxels) {
                prop_assert!((a - b).abs() < 1e-5, "{} {}", a, b);
            }
        }
    }
}
