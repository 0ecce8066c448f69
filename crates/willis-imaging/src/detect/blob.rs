//! Blob detector: bright balls at several scales.
//!
//! At scale sigma the image is blurred with a Gaussian and its Hessian computed. At the centre of a
//! ball of radius `sqrt(3) sigma` the three eigenvalues are equal and negative; on the axis of a
//! tube one is near zero. The score is `-3 sigma² (largest eigenvalue)`. For a ball it equals the
//! negative scale-normalised Laplacian, 0.93 at unit contrast (Lindeberg, IJCV 30(2), 1998); for a
//! tube it vanishes.

use nalgebra::Matrix3;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use willis_core::{Candidate, Candidates, Evidence, Image, Index, InvalidValue, Point, VoxelPoint};

/// Minimum sigma, in voxels of the reduced image on which a scale is computed.
const SIGMA_VOXELS: f64 = 1.2;

/// How blobs become candidates.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BlobConfig {
    /// Smallest diameter to detect, mm.
    pub min_diameter_mm: f64,
    /// Largest diameter to detect, mm.
    pub max_diameter_mm: f64,
    /// Number of scales, evenly spaced in the logarithm of the diameter.
    pub n_scales: usize,
    /// Peaks below this score are discarded; a perfect ball of contrast 1 scores 0.93.
    pub min_score: f32,
    /// Minimum distance between two candidates, mm; the radius of the better one when that is
    /// larger.
    pub separation_mm: f64,
    /// Maximum number of candidates.
    pub max_candidates: usize,
}

impl Default for BlobConfig {
    fn default() -> Self {
        Self {
            min_diameter_mm: 2.0,
            max_diameter_mm: 12.0,
            n_scales: 6,
            min_score: 0.02,
            separation_mm: 3.0,
            max_candidates: 15,
        }
    }
}

impl BlobConfig {
    /// Checks every value once, when the configuration is loaded.
    ///
    /// # Errors
    /// [`InvalidValue`] for the first value outside its range.
    pub fn validate(&self) -> Result<(), InvalidValue> {
        let (low, high) = (self.min_diameter_mm, self.max_diameter_mm);
        if !(low.is_finite() && low > 0.0) {
            return Err(InvalidValue::new("min_diameter_mm", low, "must be finite and greater than 0"));
        }
        if !(high.is_finite() && high >= low) {
            let rule = format!("must be finite and at least min_diameter_mm = {low}");
            return Err(InvalidValue::new("max_diameter_mm", high, rule));
        }
        if self.n_scales == 0 {
            return Err(InvalidValue::new("n_scales", self.n_scales, "must be at least 1"));
        }
        if !(self.min_score.is_finite() && self.min_score >= 0.0) {
            return Err(InvalidValue::new("min_score", self.min_score, "must be finite and at least 0"));
        }
        if !(self.separation_mm.is_finite() && self.separation_mm >= 0.0) {
            return Err(InvalidValue::new("separation_mm", self.separation_mm, "must be finite and at least 0"));
        }
        Ok(())
    }
}

/// A local maximum of one scale.
struct Peak {
    centre: Point,
    radius_mm: f64,
    score: f32,
}

/// Bright balls of an image, a vessel probability, or a mask of 0 and 1, best first.
///
/// If `allowed` is given, the nearest voxel to a centre must be non-zero in it. The probability is
/// `s / (1 + s)` for a score `s`; it ranks candidates and is not calibrated. Values that are not
/// finite count as 0.
///
/// # Panics
/// if `allowed` differs in shape (programmer error)
pub fn candidates(image: &Image<f32>, allowed: Option<&Image<u8>>, config: &BlobConfig) -> Candidates {
    if let Some(allowed) = allowed {
        assert_eq!(allowed.grid.shape, image.grid.shape, "the allowed mask does not match the image");
    }
    let Some(inverse) = image.grid.affine.inverse().filter(|_| !image.grid.shape.is_empty()) else {
        return Candidates::new();
    };
    let is_allowed =
        |peak: &Peak| allowed.is_none_or(|a| *a.at(image.grid.shape.nearest(inverse.apply(peak.centre))) != 0);
    let mut peaks: Vec<Peak> = diameters_mm(config)
        .flat_map(|diameter| peaks_at(image, diameter / 2.0, config.min_score))
        .filter(is_allowed)
        .collect();
    // The sort is stable: equal scores remain in order of scale, then raster order.
    peaks.sort_by(|a, b| b.score.total_cmp(&a.score));
    let mut kept: Vec<Peak> = Vec::new();
    for peak in peaks {
        let clear = |k: &Peak| k.centre.distance_mm(peak.centre) >= k.radius_mm.max(config.separation_mm);
        if kept.len() < config.max_candidates && kept.iter().all(clear) {
            kept.push(peak);
        }
    }
    (1..).zip(kept).map(|(rank, peak)| candidate(rank, &peak)).collect()
}

fn candidate(rank: usize, peak: &Peak) -> Candidate {
    let score = f64::from(peak.score);
    Candidate {
        rank,
        centre: peak.centre,
        diameter_mm: 2.0 * peak.radius_mm,
        probability: score / (1.0 + score),
        site: None,
        distance_to_vessel_mm: None,
        evidence: Evidence::default(),
    }
}

/// Diameters evenly spaced in the logarithm.
fn diameters_mm(config: &BlobConfig) -> impl Iterator<Item = f64> {
    let (low, high, n) = (config.min_diameter_mm, config.max_diameter_mm, config.n_scales);
    let last = n.saturating_sub(1).max(1) as f64;
    (0..n).map(move |k| low * (high / low).powf(k as f64 / last))
}

/// Peaks at the scale of one radius.
fn peaks_at(image: &Image<f32>, radius_mm: f64, min_score: f32) -> Vec<Peak> {
    let sigma = radius_mm / 3f64.sqrt();
    let spacing = image.grid.spacing().zyx();
    let factors = spacing.map(|s| ((sigma / (SIGMA_VOXELS * s)) as usize).max(1));
    let mut level = ScaleLevel::reduce(image, factors);
    // The mean over n voxels has already blurred by the variance of that box, (n² - 1) / 12.
    for (axis, spacing) in spacing.into_iter().enumerate() {
        let done = ((factors[axis] * factors[axis] - 1) as f64 / 12.0).sqrt() * spacing;
        let left = (sigma * sigma - done * done).max(0.0).sqrt();
        level.blur(axis, left / level.spacing_mm[axis]);
    }
    let score = level.score(sigma, min_score);
    let place = |[z, y, x]: [usize; 3]| {
        let full = |i: usize, axis: usize| (i as f64 + 0.5) * factors[axis] as f64 - 0.5;
        image.grid.affine.to_world(VoxelPoint::new(full(z, 0), full(y, 1), full(x, 2)))
    };
    level.maxima(&score).into_iter().map(|(at, score)| Peak { centre: place(at), radius_mm, score }).collect()
}

/// The image at the spacing of one scale.
struct ScaleLevel {
    voxels: Vec<f32>,
    shape: [usize; 3],
    spacing_mm: [f64; 3],
}

impl ScaleLevel {
    /// Means over blocks of voxels; the last block along an axis may be smaller.
    fn reduce(image: &Image<f32>, factors: [usize; 3]) -> Self {
        let full = image.grid.shape;
        let extents = full.zyx();
        let shape = [0, 1, 2].map(|axis| extents[axis].div_ceil(factors[axis]));
        let spacing = image.grid.spacing().zyx();
        let spacing_mm = [0, 1, 2].map(|axis| spacing[axis] * factors[axis] as f64);
        let span = |i: usize, axis: usize| i * factors[axis]..((i + 1) * factors[axis]).min(extents[axis]);
        let mut voxels = vec![0.0f32; shape.iter().product()];
        voxels.par_chunks_mut(shape[2]).enumerate().for_each(|(line, out)| {
            let (zs, ys) = (span(line / shape[1], 0), span(line % shape[1], 1));
            let n_rows = zs.len() * ys.len();
            for (z, y) in zs.flat_map(|z| ys.clone().map(move |y| (z, y))) {
                let row = &image.voxels[full.offset(Index::new(z, y, 0))..][..full.x];
                for (sum, block) in out.iter_mut().zip(row.chunks(factors[2])) {
                    *sum += block.iter().map(|&v| if v.is_finite() { v } else { 0.0 }).sum::<f32>();
                }
            }
            out.iter_mut().enumerate().for_each(|(x, sum)| *sum /= (n_rows * span(x, 2).len()) as f32);
        });
        Self { voxels, shape, spacing_mm }
    }

    /// Blurs along one axis with a Gaussian; sigma in voxels, edge values repeated.
    fn blur(&mut self, axis: usize, sigma: f64) {
        if sigma < 0.1 {
            return;
        }
        let reach = (3.0 * sigma).ceil() as isize;
        let weights: Vec<f64> = (-reach..=reach).map(|k| (-0.5 * (k as f64 / sigma).powi(2)).exp()).collect();
        let total: f64 = weights.iter().sum();
        let taps: Vec<(isize, f32)> = (-reach..).zip(weights.iter().map(|w| (w / total) as f32)).collect();
        let [_, ny, nx] = self.shape;
        let n = self.shape[axis] as isize;
        let input = &self.voxels;
        let mut output = vec![0.0f32; input.len()];
        output.par_chunks_mut(nx).enumerate().for_each(|(row, out)| {
            let (z, y) = (row / ny, row % ny);
            let clamp = |i: usize, step: isize| (i as isize + step).clamp(0, n - 1) as usize;
            if axis == 2 {
                let line = &input[row * nx..(row + 1) * nx];
                let padded: Vec<f32> = (-reach..n + reach).map(|x| line[clamp(0, x)]).collect();
                for (k, &(_, w)) in taps.iter().enumerate() {
                    out.iter_mut().zip(&padded[k..]).for_each(|(o, v)| *o += w * v);
                }
                return;
            }
            for &(step, w) in &taps {
                let from = if axis == 0 { clamp(z, step) * ny + y } else { z * ny + clamp(y, step) };
                out.iter_mut().zip(&input[from * nx..(from + 1) * nx]).for_each(|(o, v)| *o += w * v);
            }
        });
        self.voxels = output;
    }

    /// Score of each voxel; 0 below `min_score` and on the border.
    fn score(&self, sigma: f64, min_score: f32) -> Vec<f32> {
        let [nz, ny, nx] = self.shape;
        let (row, slice) = (nx, nx * ny);
        let scale = |axis: usize| sigma * sigma / (self.spacing_mm[axis] * self.spacing_mm[axis]);
        let cross = |a: usize, b: usize| sigma * sigma / (4.0 * self.spacing_mm[a] * self.spacing_mm[b]);
        let v = &self.voxels;
        let second = |i: usize, s: usize| f64::from(v[i + s] + v[i - s] - 2.0 * v[i]);
        let mixed = |i: usize, s: usize, t: usize| f64::from(v[i + s + t] + v[i - s - t] - v[i + s - t] - v[i - s + t]);
        // A little below the threshold, so that rounding rejects nothing that the threshold accepts.
        let least = f64::from(min_score) / 3.0 * (1.0 - 1e-6);
        let mut score = vec![0.0f32; v.len()];
        score.par_chunks_mut(nx).enumerate().for_each(|(line, out)| {
            let (z, y) = (line / ny, line % ny);
            if z == 0 || z + 1 >= nz || y == 0 || y + 1 >= ny {
                return;
            }
            for (x, out) in out.iter_mut().enumerate().take(nx.saturating_sub(1)).skip(1) {
                let i = line * nx + x;
                let (zz, yy, xx) = (second(i, slice) * scale(0), second(i, row) * scale(1), second(i, 1) * scale(2));
                // The largest eigenvalue is at least the largest diagonal entry.
                if -3.0 * zz.max(yy).max(xx) < f64::from(min_score) {
                    continue;
                }
                let (zy, zx) = (mixed(i, slice, row) * cross(0, 1), mixed(i, slice, 1) * cross(0, 2));
                let yx = mixed(i, row, 1) * cross(1, 2);
                // Sylvester's criterion: unless `-H - least` is positive definite, the largest eigenvalue of
                // the Hessian H exceeds `-least`. It spares most voxels the eigenvalues.
                let (a, b, c) = (-zz - least, -yy - least, -xx - least);
                let minor = a * b - zy * zy;
                if minor <= 0.0 || c * minor - a * yx * yx - b * zx * zx - 2.0 * zy * zx * yx <= 0.0 {
                    continue;
                }
                let eigenvalues = Matrix3::new(zz, zy, zx, zy, yy, yx, zx, yx, xx).symmetric_eigenvalues();
                let value = (-3.0 * eigenvalues.max()) as f32;
                *out = if value >= min_score { value } else { 0.0 };
            }
        });
        score
    }

    /// Voxels above all 26 neighbours; on a plateau the first in raster order.
    fn maxima(&self, score: &[f32]) -> Vec<([usize; 3], f32)> {
        let [_, ny, nx] = self.shape;
        let is_maximum = |&i: &usize| {
            let (row, slice) = (nx, nx * ny);
            score[i] > 0.0
                && (0..27).filter(|&k| k != 13).all(|k| {
                    let j = i + k / 9 * slice + k / 3 % 3 * row + k % 3 - slice - row - 1;
                    if j < i { score[i] > score[j] } else { score[i] >= score[j] }
                })
        };
        let found: Vec<usize> = (0..score.len()).into_par_iter().filter(is_maximum).collect();
        found.into_iter().map(|i| ([i / nx / ny, i / nx % ny, i % nx], score[i])).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use willis_core::{Affine, Grid, Shape, Spacing};

    fn draw(spacing: Spacing, inside: impl Fn(Point) -> bool) -> Image<f32> {
        let shape = Shape::new((24.0 / spacing.z) as usize, (24.0 / spacing.y) as usize, (24.0 / spacing.x) as usize);
        let grid = Grid::new(shape, Affine::axis_aligned(spacing, Point::new(-3.0, 4.0, 5.0)));
        let at = |i: usize| if inside(grid.affine.to_world(shape.index(i).into())) { 1.0 } else { 0.0 };
        Image::new(grid, (0..shape.len()).map(at).collect())
    }

    #[test]
    fn invalid_values_are_named() {
        let default = BlobConfig::default;
        assert_eq!(default().validate(), Ok(()));
        for (config, message) in [
            (BlobConfig { n_scales: 0, ..default() }, "n_scales = 0 must be at least 1"),
            (
                BlobConfig { max_diameter_mm: 1.0, ..default() },
                "max_diameter_mm = 1 must be finite and at least min_diameter_mm = 2",
            ),
            (BlobConfig { min_score: -1.0, ..default() }, "min_score = -1 must be finite and at least 0"),
        ] {
            assert_eq!(config.validate().unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn balls_are_found_with_position_and_size_and_tubes_are_not() {
        let middle = Point::new(9.0, 16.0, 17.0);
        for spacing in [Spacing::isotropic(0.5), Spacing::new(1.0, 0.5, 0.5), Spacing::isotropic(0.8)] {
            for radius in [2.0, 3.0, 4.5] {
                let ball = draw(spacing, |p| p.distance_mm(middle) <= radius);
                let found = candidates(&ball, None, &BlobConfig::default());
                assert!(
                    found[0].centre.distance_mm(middle) <= 0.5 + 0.3 * radius,
                    "{spacing:?} {radius}: {:?}",
                    found[0]
                );
                assert!((found[0].diameter_mm / (2.0 * radius)).ln().abs() < 0.4, "{radius}: {:?}", found[0]);
                let score = found[0].probability / (1.0 - found[0].probability);
                assert!((0.65..1.05).contains(&score), "{spacing:?} {radius}: {score}");
                let nowhere = ball.map(|_| 0u8);
                assert!(candidates(&ball, Some(&nowhere), &BlobConfig::default()).is_empty());
            }
            let tube = draw(spacing, |p| (p.y - 16.0).powi(2) + (p.x - 9.0).powi(2) <= 4.0);
            let config = BlobConfig { min_score: 0.3, ..BlobConfig::default() };
            assert!(candidates(&tube, None, &config).is_empty(), "{spacing:?}");
        }
    }

    #[test]
    fn flat_empty_and_nan_images_have_no_blobs() {
        let config = BlobConfig::default();
        assert!(candidates(&draw(Spacing::isotropic(1.0), |_| true), None, &config).is_empty());
        let grid =
            Grid::new(Shape::new(0, 4, 4), Affine::axis_aligned(Spacing::isotropic(1.0), Point::new(0.0, 0.0, 0.0)));
        assert!(candidates(&Image::new(grid, Vec::new()), None, &config).is_empty());
        let broken = draw(Spacing::isotropic(1.0), |_| true).map(|_| f32::NAN);
        assert!(candidates(&broken, None, &config).is_empty());
        let thin = Grid::new(Shape::new(1, 2, 3), grid.affine);
        assert!(candidates(&Image::new(thin, vec![1.0; 6]), None, &config).is_empty());
    }
}
