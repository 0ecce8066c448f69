//! Distances of a net back on the series' grid, and the mask.

use willis_core::{Grid, Image};
use willis_kernels::components::{Connectivity, fill_holes, largest};
use willis_kernels::distance::squared_distance_mm2;

use crate::resample;

/// Distance of voxels that the net did not see, mm.
pub const OUTSIDE_MM: f32 = 100.0;

/// Distances at the voxels of a series, interpolated linearly; [`OUTSIDE_MM`] where the net saw
/// nothing. Equal grids give equal values.
pub fn restore(distances: &Image<f32>, series: &Grid) -> Image<f32> {
    resample::linear(distances, series, OUTSIDE_MM)
}

/// The distances with the outer ones computed anew if `border_mm` reaches beyond those of the net,
/// which knows only a narrow band: exact Euclidean distances from the voxels below one voxel's
/// width, within the box of these enlarged by the border, and [`OUTSIDE_MM`] beyond.
pub fn extend(distances: &Image<f32>, border_mm: f64) -> Image<f32> {
    let farthest = distances.voxels.iter().copied().fold(0.0f32, f32::max);
    if border_mm < f64::from(farthest.floor()) {
        return distances.clone();
    }
    let shape = distances.grid.shape;
    let spacing = distances.grid.spacing().zyx();
    let kept = |mm: f32| f64::from(mm) < spacing[0];
    let outside: Vec<u8> = distances.voxels.iter().map(|&mm| u8::from(!kept(mm))).collect();
    if outside.iter().all(|&out| out == 1) {
        return distances.clone();
    }
    let squared = squared_distance_mm2(&outside, shape.zyx(), spacing);
    // Within the enlarged box: at most the border from the box of kept voxels along every axis.
    let (mut low, mut high) = ([usize::MAX; 3], [0usize; 3]);
    for (i, _) in outside.iter().enumerate().filter(|(_, out)| **out == 0) {
        let at = shape.index(i);
        for (axis, at) in [at.z, at.y, at.x].into_iter().enumerate() {
            low[axis] = low[axis].min(at);
            high[axis] = high[axis].max(at);
        }
    }
    let gap = spacing.map(|step| (border_mm / step).round() as usize);
    let value = |(i, &mm): (usize, &f32)| {
        let at = shape.index(i);
        let within = [at.z, at.y, at.x]
            .into_iter()
            .enumerate()
            .all(|(axis, at)| at + gap[axis] >= low[axis] && at <= high[axis].saturating_add(gap[axis]));
        if kept(mm) {
            mm
        } else if within {
            squared[i].sqrt()
        } else {
            OUTSIDE_MM
        }
    };
    Image::new(distances.grid, distances.voxels.iter().enumerate().map(value).collect())
}

/// 1 in the brain: the largest body of voxels nearer than `border_mm`, without holes.
pub fn mask(distances: &Image<f32>, border_mm: f64) -> Image<u8> {
    let shape = distances.grid.shape.zyx();
    let near: Vec<u8> = distances.voxels.iter().map(|&mm| u8::from(f64::from(mm) < border_mm)).collect();
    Image::new(distances.grid, fill_holes(&largest(&near, shape, Connectivity::Six), shape))
}

/// The series with every voxel outside of the mask at the lower of 0 and the series' lowest value.
pub fn stripped(series: &Image<f32>, mask: &Image<u8>) -> Image<f32> {
    let lowest = series.voxels.iter().copied().filter(|v| v.is_finite()).fold(0.0f32, f32::min);
    let voxels = series.voxels.iter().zip(&mask.voxels).map(|(&v, &inside)| if inside == 1 { v } else { lowest });
    Image::new(series.grid, voxels.collect())
}

#[cfg(test)]
mod tests {
    use willis_core::{Affine, Point, Shape, Spacing};

    use super::*;

    /// Distances from a ball of 4 mm, cut at 5 mm as a net's are.
    fn ball() -> Image<f32> {
        let shape = Shape::new(41, 41, 41);
        let grid = Grid::new(shape, Affine::axis_aligned(Spacing::isotropic(1.0), Point::new(0.0, 0.0, 0.0)));
        let middle = Point::new(20.0, 20.0, 20.0);
        let value = |i| (grid.affine.to_world(shape.index(i).into()).distance_mm(middle) - 4.0).min(5.0) as f32;
        Image::new(grid, (0..shape.len()).map(value).collect())
    }

    fn radius(mask: &Image<u8>) -> usize {
        (20..41).filter(|x| mask.voxels[(20 * 41 + 20) * 41 + x] == 1).count() - 1
    }

    #[test]
    fn small_borders_use_the_net_and_large_ones_exact_distances() {
        let near = ball();
        assert_eq!(extend(&near, 4.0).voxels, near.voxels);
        let far = extend(&near, 10.0);
        // Voxels below 1 mm reach to a radius of 4; those at 5 mm have a distance of exactly 1.
        let at = |x: usize| far.voxels[(20 * 41 + 20) * 41 + x];
        assert_eq!([at(20), at(24), at(25), at(30), at(34)], [-4.0, 0.0, 1.0, 6.0, 10.0]);
        assert_eq!([at(35), at(40)], [OUTSIDE_MM; 2]);
        assert_eq!([radius(&mask(&near, 1.0)), radius(&mask(&far, 10.0))], [4, 13]);
    }

    #[test]
    fn the_mask_is_one_body_without_holes() {
        let mut distances = ball();
        let at = |z: usize, y: usize, x: usize| (z * 41 + y) * 41 + x;
        distances.voxels[at(20, 20, 20)] = 5.0;
        distances.voxels[at(0, 0, 0)] = -5.0;
        let mask = mask(&distances, 1.0);
        assert_eq!([mask.voxels[at(20, 20, 20)], mask.voxels[at(0, 0, 0)]], [1, 0]);
        let series = distances.map(|_| 7.0);
        let image = stripped(&series, &mask);
        assert_eq!([image.voxels[at(20, 20, 20)], image.voxels[at(0, 0, 0)]], [7.0, 0.0]);
    }

    #[test]
    fn distances_come_back_to_their_own_voxels() {
        let distances = ball();
        let part = Grid::new(
            Shape::new(3, 4, 50),
            Affine::axis_aligned(Spacing::isotropic(1.0), Point::new(20.0, 19.0, 18.0)),
        );
        let back = restore(&distances, &part);
        assert_eq!(back.voxels[..3], distances.voxels[(18 * 41 + 19) * 41 + 20..][..3]);
        assert_eq!(back.voxels[49], OUTSIDE_MM);
    }
}
