//! Peaks of a probability volume and the region around each.

use std::collections::HashMap;

use rayon::prelude::*;
use willis_core::{Image, Index, Point, VoxelPoint};

/// A peak and the voxels that are connected to it above a fraction of its height.
#[derive(Debug, Clone, PartialEq)]
pub struct PeakRegion {
    /// Highest probability in the region.
    pub peak: f32,
    /// Probability-weighted centre, LPS mm.
    pub centre: Point,
    /// Diameter of the ball whose second moment is the region's largest one, mm.
    pub diameter_mm: f64,
    /// Sum of the probability over the region times the volume of a voxel, mm³.
    pub volume_mm3: f32,
    /// Offsets of the region's voxels, sorted.
    pub voxels: Vec<usize>,
}

/// Limits of the search for peaks.
#[derive(Debug, Clone, Copy)]
pub struct PeakBounds {
    /// Lowest probability of a peak.
    pub floor: f32,
    /// A region consists of the connected voxels with at least this fraction of the peak's
    /// probability.
    pub fraction: f32,
    /// Largest distance of a voxel of a region from the peak, mm.
    pub radius_mm: f64,
    /// Largest number of regions.
    pub count: usize,
}

/// Regions around the local maxima of the smoothed probability, in descending order of the smoothed
/// maxima.
///
/// Every voxel belongs to at most one region, and a maximum inside an earlier region starts none.
pub fn peak_regions(probability: &Image<f32>, bounds: PeakBounds) -> Vec<PeakRegion> {
    let mut owner = HashMap::new();
    let mut found = Vec::new();
    for (offset, _) in maxima(probability, bounds.floor) {
        if found.len() == bounds.count {
            break;
        }
        if owner.contains_key(&offset) {
            continue;
        }
        let voxels = grow(probability, offset, bounds, &owner);
        owner.extend(voxels.iter().map(|&v| (v, found.len())));
        found.push(measure(probability, voxels));
    }
    found
}

/// Offsets and values of the local maxima of the 3×3×3 mean, highest first.
fn maxima(probability: &Image<f32>, floor: f32) -> Vec<(usize, f32)> {
    let shape = probability.grid.shape;
    let above = |&offset: &usize| probability.voxels[offset] >= floor;
    let seeds: Vec<usize> = (0..probability.voxels.len()).into_par_iter().filter(above).collect();
    let mean = |&offset: &usize| {
        let sum: f32 = neighbours(shape.index(offset), shape).map(|n| probability.voxels[n]).sum();
        (sum + probability.voxels[offset]) / 27.0
    };
    let smooth: HashMap<usize, f32> = seeds.par_iter().map(|offset| (*offset, mean(offset))).collect();
    let is_maximum = |offset: &usize| {
        // Of equal neighbours the first is the maximum, so that a plateau has one.
        let own = (smooth[offset], std::cmp::Reverse(*offset));
        neighbours(shape.index(*offset), shape)
            .filter_map(|n| smooth.get(&n).map(|&s| (s, std::cmp::Reverse(n))))
            .all(|other| other <= own)
    };
    let mut maxima: Vec<_> = seeds.into_par_iter().filter(is_maximum).map(|offset| (offset, smooth[&offset])).collect();
    maxima.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    maxima
}

/// Voxels connected to a seed that have at least a fraction of its value, are within the radius,
/// and belong to no other region.
fn grow(probability: &Image<f32>, seed: usize, bounds: PeakBounds, owner: &HashMap<usize, usize>) -> Vec<usize> {
    let grid = probability.grid;
    let level = bounds.fraction * probability.voxels[seed];
    let place = |offset| grid.affine.to_world(VoxelPoint::from(grid.shape.index(offset)));
    let middle = place(seed);
    let mut voxels = vec![seed];
    let mut seen = std::collections::HashSet::from([seed]);
    let mut next = 0;
    while let Some(&offset) = voxels.get(next) {
        next += 1;
        for n in neighbours(grid.shape.index(offset), grid.shape) {
            let fits = probability.voxels[n] >= level && !owner.contains_key(&n);
            if fits && seen.insert(n) && place(n).distance_mm(middle) <= bounds.radius_mm {
                voxels.push(n);
            }
        }
    }
    voxels.sort_unstable();
    voxels
}

fn measure(probability: &Image<f32>, voxels: Vec<usize>) -> PeakRegion {
    let grid = probability.grid;
    let voxel_mm3 = grid.affine.determinant().abs();
    let weight = |offset: usize| f64::from(probability.voxels[offset]);
    let points = || voxels.iter().map(|&v| (grid.affine.to_world(grid.shape.index(v).into()).xyz(), weight(v)));
    let total: f64 = points().map(|(_, w)| w).sum();
    let mut middle = [0.0; 3];
    points().for_each(|(p, w)| (0..3).for_each(|i| middle[i] += w * p[i] / total));
    let mut moments = [[0.0; 3]; 3];
    for (p, w) in points() {
        let d = [p[0] - middle[0], p[1] - middle[1], p[2] - middle[2]];
        (0..9).for_each(|k| moments[k / 3][k % 3] += w * d[k / 3] * d[k % 3] / total);
    }
    // Second moment of a voxel's own extent, without which a region of one voxel would have size 0.
    let own = grid.spacing().zyx().iter().map(|s| s * s / 12.0).fold(0.0, f64::max);
    // The second moment of a ball of radius r along any axis is r²/5.
    let diameter_mm = 2.0 * (5.0 * (largest_eigenvalue(moments) + own)).sqrt();
    PeakRegion {
        peak: voxels.iter().map(|&v| probability.voxels[v]).fold(0.0, f32::max),
        centre: Point::new(middle[0], middle[1], middle[2]),
        diameter_mm,
        volume_mm3: (total * voxel_mm3) as f32,
        voxels,
    }
}

/// Largest eigenvalue of a symmetric positive semi-definite matrix, from its characteristic cubic.
fn largest_eigenvalue(m: [[f64; 3]; 3]) -> f64 {
    let mean = (m[0][0] + m[1][1] + m[2][2]) / 3.0;
    let d = [m[0][0] - mean, m[1][1] - mean, m[2][2] - mean];
    let (a, b, c) = (m[0][1], m[0][2], m[1][2]);
    let p = ((d[0] * d[0] + d[1] * d[1] + d[2] * d[2] + 2.0 * (a * a + b * b + c * c)) / 6.0).sqrt();
    if p <= f64::EPSILON * mean.abs() {
        return mean;
    }
    let determinant = d[0] * (d[1] * d[2] - c * c) - a * (a * d[2] - b * c) + b * (a * c - b * d[1]);
    let angle = (determinant / (2.0 * p.powi(3))).clamp(-1.0, 1.0).acos() / 3.0;
    mean + 2.0 * p * angle.cos()
}

/// Offsets of the up to 26 neighbours of a voxel.
fn neighbours(index: Index, shape: willis_core::Shape) -> impl Iterator<Item = usize> {
    let range = |v: usize, n: usize| v.saturating_sub(1)..(v + 2).min(n);
    let own = shape.offset(index);
    range(index.z, shape.z)
        .flat_map(move |z| range(index.y, shape.y).map(move |y| (z, y)))
        .flat_map(move |(z, y)| range(index.x, shape.x).map(move |x| shape.offset(Index::new(z, y, x))))
        .filter(move |&offset| offset != own)
}

#[cfg(test)]
mod tests {
    use super::*;
    use willis_core::{Affine, Grid, Shape, Spacing};

    const BOUNDS: PeakBounds = PeakBounds { floor: 0.05, fraction: 0.5, radius_mm: 15.0, count: 9 };

    fn balls(spheres: &[(Point, f64, f32)]) -> Image<f32> {
        let grid = Grid::new(
            Shape::new(24, 28, 32),
            Affine::axis_aligned(Spacing::isotropic(0.8), Point::new(-9.0, 4.0, 1.0)),
        );
        let value = |offset| {
            let p = grid.affine.to_world(grid.shape.index(offset).into());
            let inside = spheres.iter().filter(|(centre, radius, _)| p.distance_mm(*centre) <= *radius);
            inside.map(|&(_, _, value)| value).fold(0.0, f32::max)
        };
        Image::new(grid, (0..grid.shape.len()).map(value).collect())
    }

    #[test]
    fn a_ball_has_its_centre_diameter_and_volume() {
        let centre = Point::new(2.0, 14.0, 9.0);
        let found = peak_regions(&balls(&[(centre, 3.0, 0.9)]), BOUNDS);
        assert_eq!(found.len(), 1);
        assert!(found[0].centre.distance_mm(centre) < 0.2, "{:?}", found[0].centre);
        assert!((found[0].diameter_mm - 6.0).abs() < 0.5, "{}", found[0].diameter_mm);
        let volume = 0.9 * 4.0 / 3.0 * std::f32::consts::PI * 27.0;
        assert!((found[0].volume_mm3 / volume - 1.0).abs() < 0.1, "{} {volume}", found[0].volume_mm3);
        assert_eq!(found[0].peak, 0.9);
    }

    #[test]
    fn two_balls_are_two_regions_the_higher_first() {
        let (a, b) = (Point::new(-4.0, 10.0, 8.0), Point::new(8.0, 18.0, 12.0));
        let found = peak_regions(&balls(&[(a, 2.0, 0.4), (b, 2.0, 0.8)]), BOUNDS);
        assert_eq!(found.len(), 2);
        assert!(found[0].centre.distance_mm(b) < 0.3 && found[1].centre.distance_mm(a) < 0.3);
        assert_eq!(peak_regions(&balls(&[(a, 2.0, 0.04)]), BOUNDS), []);
        assert_eq!(peak_regions(&balls(&[(a, 2.0, 0.4), (b, 2.0, 0.8)]), PeakBounds { count: 1, ..BOUNDS }).len(), 1);
    }

    #[test]
    fn eigenvalues_of_known_matrices() {
        for (matrix, expected) in [
            ([[2.0, 0.0, 0.0], [0.0, 3.0, 0.0], [0.0, 0.0, 1.0]], 3.0),
            ([[2.0, 1.0, 0.0], [1.0, 2.0, 0.0], [0.0, 0.0, 1.0]], 3.0),
            ([[1.0, 1.0, 1.0]; 3], 3.0),
            ([[0.0; 3]; 3], 0.0),
        ] {
            assert!((largest_eigenvalue(matrix) - expected).abs() < 1e-9);
        }
    }
}
