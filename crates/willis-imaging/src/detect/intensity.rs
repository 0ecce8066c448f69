//! Blob detector on intensities: the line's detector without learning.
//!
//! [`candidates`] takes a harmonised volume, in which arteries of every modality are bright, and
//! returns the bright balls of its intensities at several scales, best first. It knows neither nets
//! nor masks, so it fails in other ways than they do. `willis predict` proposes its best blobs
//! beside those of the nets, and benchmarks compare the whole line with it:
//!
//! ```
//! use willis_core::{Candidates, HarmonisedVolume};
//! use willis_imaging::detect::intensity::{IntensityBlobConfig, candidates};
//!
//! fn blobs(volume: &HarmonisedVolume) -> Candidates {
//!     candidates(volume, &IntensityBlobConfig::default())
//! }
//! ```
//!
//! A candidate's `probability` is `s / (1 + s)` for the score `s` of [`super::blob`]; it ranks the
//! candidates and is not calibrated. Scores are differences of normalised intensities, so a lumen
//! of 1 in soft tissue of 0 gives a ball the score 0.93. The result does not depend on the number
//! of threads.

use serde::{Deserialize, Serialize};
use willis_core::{Candidates, HarmonisedVolume, Image, InvalidValue, Switch};

use super::blob::{self, BlobConfig};

/// How intensities become candidates.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IntensityBlobConfig {
    /// Whether the line uses the detector.
    pub detector: Switch,
    /// Which extremes of the intensities are blobs.
    pub polarity: BlobPolarity,
    /// Intensities below this are raised to it, so that air beside soft tissue gives no blobs.
    pub floor: f32,
    /// Intensities above this are lowered to it, so that bone does not outshine arteries. In CT 3
    /// is 640 HU; in MR it is four times the median of the head.
    pub ceiling: f32,
    /// Scales and selection.
    pub blob: BlobConfig,
}

/// Which extremes of the intensities are blobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BlobPolarity {
    /// Bright balls: arteries are bright in a harmonised volume, also in T2, whose intensities are
    /// negated.
    Bright,
    /// Dark balls, for volumes harmonised with `invert_t2 = "off"`.
    Dark,
}

impl Default for IntensityBlobConfig {
    fn default() -> Self {
        Self {
            detector: Switch::On,
            polarity: BlobPolarity::Bright,
            floor: -1.0,
            ceiling: 3.0,
            blob: BlobConfig { min_score: 0.1, max_candidates: 24, ..BlobConfig::default() },
        }
    }
}

impl IntensityBlobConfig {
    /// Checks every value.
    ///
    /// # Errors
    /// [`InvalidValue`] names the first value that breaks its rule.
    pub fn validate(&self) -> Result<(), InvalidValue> {
        let (floor, ceiling) = (self.floor, self.ceiling);
        if !floor.is_finite() {
            return Err(InvalidValue::new("floor", floor, "must be finite"));
        }
        if !(ceiling.is_finite() && ceiling > floor) {
            return Err(InvalidValue::new(
                "ceiling",
                ceiling,
                format!("must be finite and greater than floor = {floor}"),
            ));
        }
        self.blob.validate().map_err(|e| e.within("blob"))
    }
}

/// Balls in the intensities of a harmonised volume, best first. `config.detector` is the line's
/// switch and is not consulted here.
pub fn candidates(volume: &HarmonisedVolume, config: &IntensityBlobConfig) -> Candidates {
    let (floor, ceiling) = (config.floor, config.ceiling);
    // Values that are not finite must become 0 in the detector, which clamping keeps them from.
    let finite = |v: f32| if v.is_finite() { v } else { 0.0 };
    let shown: Image<f32> = match config.polarity {
        BlobPolarity::Bright => volume.image.map(|&v| finite(v).clamp(floor, ceiling)),
        BlobPolarity::Dark => volume.image.map(|&v| (-finite(v)).clamp(floor, ceiling)),
    };
    blob::candidates(&shown, None, &config.blob)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use nalgebra::Matrix3;
    use willis_core::{Affine, Grid, Index, Point, SeriesMeta, Shape, Spacing, Volume};

    use super::*;

    /// A volume of these intensities at the places of a grid.
    fn volume(shape: [usize; 3], spacing: Spacing, value: impl Fn(Point) -> f32) -> HarmonisedVolume {
        let [z, y, x] = shape;
        let grid = Grid::new(Shape::new(z, y, x), Affine::axis_aligned(spacing, Point::new(0.0, 0.0, 0.0)));
        let at = |i: usize| value(grid.affine.to_world(grid.shape.index(i).into()));
        let image = Image::new(grid, (0..grid.shape.len()).map(at).collect());
        let meta = SeriesMeta::default();
        let source = Arc::new(Volume { image: image.clone(), meta: meta.clone(), findings: vec![] });
        HarmonisedVolume { image, meta, source, findings: vec![] }
    }

    /// Numbers in 0..1 that depend on a place only.
    fn noise(p: Point) -> f32 {
        let n = (p.x * 12.9898 + p.y * 78.233 + p.z * 37.719).sin() * 43_758.547;
        (n - n.floor()) as f32
    }

    /// The detector as its definition reads, at full resolution and in 64-bit reals: blur with a
    /// Gaussian, second differences, largest eigenvalue, maxima over 26 neighbours. `(score, index)`
    /// of the maxima of one scale, best first.
    fn slow_peaks(image: &Image<f32>, radius_mm: f64, min_score: f64) -> Vec<(f64, [usize; 3])> {
        let [nz, ny, nx] = image.grid.shape.zyx();
        let spacing = image.grid.spacing().zyx();
        let sigma = radius_mm / 3f64.sqrt();
        let extent = [nz as isize, ny as isize, nx as isize];
        let offset = |p: [isize; 3]| {
            let [z, y, x] = [0, 1, 2].map(|a| p[a].clamp(0, extent[a] - 1) as usize);
            image.grid.shape.offset(Index::new(z, y, x))
        };
        let mut values: Vec<f64> = image.voxels.iter().map(|&v| f64::from(v)).collect();
        let places =
            || (0..extent[0]).flat_map(|z| (0..extent[1]).flat_map(move |y| (0..extent[2]).map(move |x| [z, y, x])));
        for axis in 0..3 {
            let voxels = sigma / spacing[axis];
            let reach = (3.0 * voxels).ceil() as isize;
            let weight = |k: isize| (-0.5 * (k as f64 / voxels).powi(2)).exp();
            let total: f64 = (-reach..=reach).map(weight).sum();
            let blurred = |p: [isize; 3]| {
                let at = |k: isize| {
                    let mut q = p;
                    q[axis] += k;
                    weight(k) / total * values[offset(q)]
                };
                (-reach..=reach).map(at).sum::<f64>()
            };
            values = places().map(blurred).collect();
        }
        let score = |p: [isize; 3]| {
            if (0..3).any(|a| p[a] == 0 || p[a] + 1 == extent[a]) {
                return 0.0;
            }
            let step = |a: usize, da: isize, b: usize, db: isize| {
                let mut q = p;
                q[a] += da;
                q[b] += db;
                values[offset(q)]
            };
            let entry = |a: usize, b: usize| {
                let mm2 = spacing[a] * spacing[b];
                if a == b {
                    return (step(a, 1, a, 0) + step(a, -1, a, 0) - 2.0 * values[offset(p)]) * sigma * sigma / mm2;
                }
                let mixed = step(a, 1, b, 1) + step(a, -1, b, -1) - step(a, 1, b, -1) - step(a, -1, b, 1);
                mixed * sigma * sigma / (4.0 * mm2)
            };
            let value = -3.0 * Matrix3::from_fn(entry).symmetric_eigenvalues().max();
            if value >= min_score { value } else { 0.0 }
        };
        let scores: Vec<f64> = places().map(score).collect();
        let is_peak = |p: &[isize; 3]| {
            let own = scores[offset(*p)];
            let steps = (0..27isize).filter(|k| *k != 13).map(|k| [k / 9 - 1, k / 3 % 3 - 1, k % 3 - 1]);
            own > 0.0 && steps.into_iter().all(|s| own >= scores[offset([p[0] + s[0], p[1] + s[1], p[2] + s[2]])])
        };
        let mut peaks: Vec<(f64, [usize; 3])> =
            places().filter(is_peak).map(|p| (scores[offset(p)], p.map(|v| v as usize))).collect();
        peaks.sort_by(|a, b| b.0.total_cmp(&a.0));
        peaks
    }

    #[test]
    fn equals_the_slow_reference_where_no_scale_is_reduced() {
        for spacing in [Spacing::isotropic(0.8), Spacing::new(1.2, 0.7, 0.8)] {
            let balls = [(Point::new(6.0, 7.0, 8.0), 1.6), (Point::new(12.0, 9.0, 6.0), 1.3)];
            let ball = |p: Point| balls.iter().any(|b| p.distance_mm(b.0) <= b.1);
            let volume = volume([18, 24, 22], spacing, |p| f32::from(u8::from(ball(p))) + 0.4 * noise(p));
            // At these diameters a scale's sigma is below 2.4 voxels, so blocks have one voxel.
            for diameter in [2.0, 2.6, 3.2] {
                let blob = BlobConfig {
                    min_diameter_mm: diameter,
                    max_diameter_mm: diameter,
                    n_scales: 1,
                    min_score: 0.1,
                    separation_mm: 0.0,
                    max_candidates: usize::MAX,
                };
                let config = IntensityBlobConfig { blob, ..IntensityBlobConfig::default() };
                let found = candidates(&volume, &config);
                let slow = slow_peaks(&volume.image, diameter / 2.0, 0.1);
                // Peaks nearer to a better one than the radius are merged by the detector alone.
                let mut kept: Vec<(f64, Point)> = Vec::new();
                for (score, [z, y, x]) in slow {
                    let centre = volume.image.grid.affine.to_world(Index::new(z, y, x).into());
                    if kept.iter().all(|k| k.1.distance_mm(centre) >= diameter / 2.0) {
                        kept.push((score, centre));
                    }
                }
                assert!(kept.len() >= balls.len() && found.len() == kept.len(), "{} and {}", found.len(), kept.len());
                for (found, (score, centre)) in found.iter().zip(&kept) {
                    assert!((found.probability - score / (1.0 + score)).abs() < 1e-4, "{found:?} {score}");
                    assert!(found.centre.distance_mm(*centre) < 1e-6, "{found:?} {centre:?}");
                }
            }
        }
    }

    #[test]
    fn a_sac_beside_brighter_bone_in_noise_is_among_the_first() {
        let sac = Point::new(14.0, 14.0, 14.0);
        let intensity = |p: Point| {
            let lumen = p.distance_mm(sac) <= 2.5 || (p.y - 14.0).hypot(p.z - 17.0) <= 1.2;
            let bone = p.x > 24.0;
            let value = if bone {
                4.0
            } else if lumen {
                1.2
            } else {
                0.0
            };
            value + 0.3 * (noise(p) - 0.5)
        };
        let shape = [40, 40, 40];
        let bright = volume(shape, Spacing::isotropic(0.8), intensity);
        let found = candidates(&bright, &IntensityBlobConfig::default());
        assert!(found[0].centre.distance_mm(sac) < 1.0, "{:?}", found[0]);
        let dark = volume(shape, Spacing::isotropic(0.8), |p| -intensity(p));
        let config = IntensityBlobConfig { polarity: BlobPolarity::Dark, ..IntensityBlobConfig::default() };
        assert_eq!(candidates(&dark, &config), found);
        let alone = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        assert_eq!(alone.install(|| candidates(&bright, &IntensityBlobConfig::default())), found);
    }

    #[test]
    fn invalid_values_are_named() {
        let default = IntensityBlobConfig::default;
        assert_eq!(default().validate(), Ok(()));
        for (config, message) in [
            (
                IntensityBlobConfig { ceiling: -2.0, ..default() },
                "ceiling = -2 must be finite and greater than floor = -1",
            ),
            (IntensityBlobConfig { floor: f32::NAN, ..default() }, "floor = NaN must be finite"),
            (
                IntensityBlobConfig { blob: BlobConfig { n_scales: 0, ..BlobConfig::default() }, ..default() },
                "blob.n_scales = 0 must be at least 1",
            ),
        ] {
            assert_eq!(config.validate().unwrap_err().to_string(), message);
        }
    }
}
