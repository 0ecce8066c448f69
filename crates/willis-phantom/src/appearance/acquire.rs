//! What a scanner does to a whole volume: shading, ghosts, streaks, blur, noise, stored values.

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use willis_core::{Grid, Modality};

use super::AppearanceModel;
use super::contrast::TissueContrast;
use super::textured;
use crate::noise::NoiseField;
use crate::random::{Draw, counter_normal, splitmix64};

/// Weights of the neighbours at distance 0, 1 and 2 voxels.
type Taps = [f32; 3];

/// A centre of streaks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Streak {
    /// Voxel coordinates z, y, x.
    pub middle: [f32; 3],
    /// Amplitude at a distance of 5 mm, HU.
    pub strength: f32,
}

/// A copy of the head along the phase-encoding direction.
#[derive(Debug, Clone, Copy)]
struct Ghost {
    strength: f32,
    /// Shift as a fraction of the rows.
    shift: f32,
}

/// What happens to the whole volume.
#[derive(Debug, Clone)]
pub(crate) struct Acquisition {
    /// CT or MR.
    ct: bool,
    /// Blur along z, y, x.
    blur: [Taps; 3],
    /// Strength of the edge enhancement of a sharp kernel.
    sharpen: f32,
    noise_sd: f32,
    /// Blur of the noise along z, y, x.
    noise_blur: [Taps; 3],
    bias: f32,
    bias_mm: f32,
    ghost: Option<Ghost>,
    /// Metal.
    pub streaks: Vec<Streak>,
    /// Stored value per brightness.
    gain: f32,
    spacing: [f32; 3],
    field: NoiseField,
    noise_seed: u64,
}

/// A sampled Gaussian with a standard deviation in voxels.
fn gaussian(sigma: f64) -> Taps {
    let side = |k: f64| (-0.5 * (k / sigma.max(0.05)).powi(2)).exp();
    let (one, two) = (side(1.0), side(2.0));
    let sum = 1.0 + 2.0 * (one + two);
    [1.0, one, two].map(|w| (w / sum) as f32)
}

/// Standard deviation in voxels whose noise has this correlation between neighbours.
fn sigma_of(correlation: f64) -> f64 {
    let (mut low, mut high) = (0.05, 2.0);
    for _ in 0..30 {
        let middle = 0.5 * (low + high);
        let below = f64::from(neighbour_correlation(gaussian(middle))) < correlation;
        (low, high) = if below { (middle, high) } else { (low, middle) };
    }
    low
}

/// Correlation of neighbouring voxels of white noise after a blur.
fn neighbour_correlation(t: Taps) -> f32 {
    2.0 * (t[0] * t[1] + t[1] * t[2]) / power(t)
}

/// Variance of white noise of variance 1 after a blur.
fn power(t: Taps) -> f32 {
    t[0] * t[0] + 2.0 * (t[1] * t[1] + t[2] * t[2])
}

impl Acquisition {
    /// Draws an acquisition on a grid.
    pub fn draw(
        model: &AppearanceModel,
        modality: Modality,
        contrast: &TissueContrast,
        artefacts: f64,
        grid: &Grid,
        rng: &mut ChaCha8Rng,
    ) -> Self {
        let ct = modality == Modality::Cta;
        let spacing = grid.spacing();
        let mm = [spacing.z, spacing.y, spacing.x];
        let sharp = ct && rng.chance(0.35);
        let in_plane = if ct {
            let kernel = if sharp { rng.uniform(0.2, 0.32) } else { rng.uniform(0.35, 0.6) };
            kernel / mm[2]
        } else {
            rng.uniform(0.35, 0.8)
        };
        let blur: [f64; 3] = match model {
            AppearanceModel::Random(config) => std::array::from_fn(|i| rng.uniform(0.0, config.blur_mm) / mm[i]),
            _ => [if mm[0] > 2.0 { 0.2 } else { rng.uniform(0.25, 0.6) }, in_plane, in_plane * rng.uniform(0.85, 1.3)],
        };
        let noise_blur: [f64; 3] = match model {
            AppearanceModel::Textured(_) => {
                let [within, across] = textured::statistics(modality).correlation;
                [sigma_of(across), sigma_of(within), sigma_of(within)]
            }
            _ if ct => [rng.uniform(0.3, 0.9), in_plane * rng.uniform(0.7, 1.1), in_plane * rng.uniform(0.7, 1.1)],
            _ => [rng.uniform(0.1, 0.55), rng.uniform(0.2, 0.75), rng.uniform(0.2, 0.75)],
        };
        let brightest = contrast.tissue.iter().copied().fold(contrast.artery.max(contrast.vein), f32::max);
        Self {
            ct,
            blur: blur.map(|sigma| gaussian(sigma.min(1.4))),
            sharpen: if sharp { rng.uniform(0.2, 0.7) as f32 } else { 0.0 },
            noise_sd: contrast.noise * if sharp { 1.3 } else { 1.0 },
            noise_blur: noise_blur.map(|sigma| gaussian(sigma.min(1.2))),
            bias: if ct { 0.0 } else { rng.uniform(0.05, 0.35) as f32 },
            bias_mm: rng.uniform(60.0, 110.0) as f32,
            ghost: (!ct && rng.chance(0.5 * artefacts))
                .then(|| Ghost { strength: rng.uniform(0.01, 0.05) as f32, shift: rng.uniform(0.08, 0.5) as f32 }),
            streaks: Vec::new(),
            gain: if ct { 1.0 } else { rng.log_normal(700.0, 0.7, 130.0, 2600.0) as f32 / brightest.max(1.0) },
            spacing: mm.map(|v| v as f32),
            field: NoiseField::new(rng),
            noise_seed: splitmix64(rng.next_u64()),
        }
    }

    /// Slope and intercept that convert stored values to brightness.
    pub fn rescale(&self) -> (f64, f64) {
        if self.ct { (1.0, -1024.0) } else { (1.0, 0.0) }
    }

    /// Stored values of a volume of brightness `[z, y, x]`.
    pub fn store(&self, mut bright: Vec<f32>, shape: [usize; 3]) -> Vec<i16> {
        let [_, rows, columns] = shape;
        let plane = rows * columns;
        bright.par_chunks_mut(plane).enumerate().for_each(|(z, slice)| {
            self.shade(slice, z, [rows, columns]);
            smooth_plane(slice, [rows, columns], self.blur[1], self.blur[2]);
            if self.sharpen > 0.0 {
                let mut soft = slice.to_vec();
                smooth_plane(&mut soft, [rows, columns], gaussian(1.0), gaussian(1.0));
                slice.iter_mut().zip(soft).for_each(|(v, soft)| *v += self.sharpen * (*v - soft));
            }
        });
        let source = &bright;
        let stored: Vec<Vec<i16>> = (0..shape[0])
            .into_par_iter()
            .map(|z| {
                let mut slice = across(source, z, shape, self.blur[0]);
                self.add_noise(&mut slice, z, shape);
                let offset = -self.rescale().1 as f32;
                slice.iter().map(|v| (v * self.gain + offset).round().clamp(0.0, 4095.0) as i16).collect()
            })
            .collect();
        stored.concat()
    }

    /// Bias field, ghost and streaks of one slice.
    fn shade(&self, slice: &mut [f32], z: usize, [rows, columns]: [usize; 2]) {
        if let Some(ghost) = self.ghost {
            let whole = slice.to_vec();
            let shift = ((ghost.shift * rows as f32) as usize).max(1);
            for y in 0..rows {
                let from = (y + shift) % rows * columns;
                for x in 0..columns {
                    slice[y * columns + x] += ghost.strength * whole[from + x];
                }
            }
        }
        if self.bias > 0.0 {
            for y in 0..rows {
                let at =
                    |x: usize| [x as f32 * self.spacing[2], y as f32 * self.spacing[1], z as f32 * self.spacing[0]];
                // The field is smooth: every eighth voxel, linear between.
                let mut left = self.field.scaled(at(0), self.bias_mm);
                for start in (0..columns).step_by(8) {
                    let right = self.field.scaled(at(start + 8), self.bias_mm);
                    for x in start..(start + 8).min(columns) {
                        let t = (x - start) as f32 / 8.0;
                        slice[y * columns + x] *= 1.0 + self.bias * (left + (right - left) * t);
                    }
                    left = right;
                }
            }
        }
        for streak in &self.streaks {
            self.add_streak(slice, z, [rows, columns], streak);
        }
    }

    /// Dark and bright rays from a piece of metal in its slices.
    fn add_streak(&self, slice: &mut [f32], z: usize, [rows, columns]: [usize; 2], streak: &Streak) {
        let off = (z as f32 - streak.middle[0]) * self.spacing[0];
        let part = streak.strength * (-0.5 * (off / 2.2).powi(2)).exp();
        if part < 2.0 {
            return;
        }
        for y in 0..rows {
            let dy = (y as f32 - streak.middle[1]) * self.spacing[1];
            for x in 0..columns {
                let dx = (x as f32 - streak.middle[2]) * self.spacing[2];
                let far = (dx * dx + dy * dy).sqrt();
                let angle = dy.atan2(dx);
                let ray = self.field.at([angle * 4.5 + 40.0, off * 0.3 + 3.0, streak.middle[2] * 0.37]);
                slice[y * columns + x] += part * ray * (-far / 60.0).exp() * 5.0 / far.max(3.0);
            }
        }
    }

    fn add_noise(&self, slice: &mut [f32], z: usize, shape: [usize; 3]) {
        let mut noise = self.noise(z, shape, self.noise_seed);
        if self.ct {
            slice.iter_mut().zip(&noise).for_each(|(v, n)| *v += n);
            return;
        }
        // The magnitude of a complex signal.
        slice.iter_mut().zip(&noise).for_each(|(v, n)| *v += n);
        noise = self.noise(z, shape, splitmix64(self.noise_seed ^ 0x5a5a));
        slice.iter_mut().zip(&noise).for_each(|(v, n)| *v = v.hypot(*n));
    }

    /// Correlated noise of a slice.
    fn noise(&self, z: usize, [_, rows, columns]: [usize; 3], seed: u64) -> Vec<f32> {
        let plane = rows * columns;
        let taps = self.noise_blur[0];
        let mut sum = vec![0.0f32; plane];
        // Slices beyond the volume have noise, too.
        for (offset, weight) in [(0, taps[2]), (1, taps[1]), (2, taps[0]), (3, taps[1]), (4, taps[2])] {
            if weight < 1e-4 {
                continue;
            }
            let first = ((z + offset) * plane) as u64;
            sum.iter_mut().enumerate().for_each(|(i, v)| *v += weight * counter_normal(seed, first + i as u64));
        }
        smooth_plane(&mut sum, [rows, columns], self.noise_blur[1], self.noise_blur[2]);
        let sd = self.noise_blur.iter().map(|t| power(*t)).product::<f32>().sqrt();
        let factor = self.noise_sd / sd.max(1e-6);
        sum.iter_mut().for_each(|v| *v *= factor);
        sum
    }
}

/// Convolves a slice along its rows and columns; edge voxels are repeated.
fn smooth_plane(slice: &mut [f32], [rows, columns]: [usize; 2], along_y: Taps, along_x: Taps) {
    let mut line = Vec::with_capacity(columns + 4);
    if along_x[1] > 1e-4 {
        for row in slice.chunks_exact_mut(columns) {
            line.clear();
            line.extend([row[0]; 2]);
            line.extend_from_slice(row);
            line.extend([row[columns - 1]; 2]);
            for (v, w) in row.iter_mut().zip(line.windows(5)) {
                *v = along_x[0] * w[2] + along_x[1] * (w[1] + w[3]) + along_x[2] * (w[0] + w[4]);
            }
        }
    }
    if along_y[1] > 1e-4 {
        let source = slice.to_vec();
        let row = |y: i64| (y.clamp(0, rows as i64 - 1) as usize) * columns;
        for y in 0..rows as i64 {
            let [a, b, c, d, e] = [row(y - 2), row(y - 1), row(y), row(y + 1), row(y + 2)];
            let out = &mut slice[y as usize * columns..][..columns];
            for (x, v) in out.iter_mut().enumerate() {
                *v = along_y[0] * source[c + x]
                    + along_y[1] * (source[b + x] + source[d + x])
                    + along_y[2] * (source[a + x] + source[e + x]);
            }
        }
    }
}

/// Slice `z` of a volume convolved across slices.
fn across(volume: &[f32], z: usize, [slices, rows, columns]: [usize; 3], taps: Taps) -> Vec<f32> {
    let plane = rows * columns;
    let slice = |z: i64| &volume[(z.clamp(0, slices as i64 - 1) as usize) * plane..][..plane];
    if taps[1] < 1e-4 {
        return slice(z as i64).to_vec();
    }
    let z = z as i64;
    let (near, far) = ([slice(z - 1), slice(z + 1)], [slice(z - 2), slice(z + 2)]);
    let middle = slice(z);
    (0..plane)
        .map(|i| taps[0] * middle[i] + taps[1] * (near[0][i] + near[1][i]) + taps[2] * (far[0][i] + far[1][i]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::appearance::ScannerConfig;
    use crate::random::stream;
    use willis_core::{Affine, Point, Shape, Spacing};

    fn acquisition(modality: Modality, model: &AppearanceModel) -> Acquisition {
        let grid =
            Grid::new(Shape::new(12, 40, 40), Affine::axis_aligned(Spacing::isotropic(0.6), Point::new(0.0, 0.0, 0.0)));
        let mut rng = stream(3, "acquire");
        let contrast = TissueContrast::draw(modality, &mut rng);
        let acquisition = Acquisition::draw(model, modality, &contrast, 0.0, &grid, &mut rng);
        Acquisition { bias: 0.0, sharpen: 0.0, ghost: None, ..acquisition }
    }

    #[test]
    fn noise_has_its_deviation_and_neighbours_correlate() {
        let model = AppearanceModel::Scanner(ScannerConfig::default());
        let a = Acquisition { noise_sd: 12.0, ..acquisition(Modality::Cta, &model) };
        let stored = a.store(vec![40.0; 12 * 1600], [12, 40, 40]);
        let values: Vec<f64> = stored.iter().map(|v| f64::from(*v) - 1064.0).collect();
        let sd = (values.iter().map(|v| v * v).sum::<f64>() / values.len() as f64).sqrt();
        assert!((10.5..13.5).contains(&sd), "{sd}");
        let pairs = values[..11 * 1600].iter().zip(&values[1600..]);
        let correlation = pairs.map(|(a, b)| a * b).sum::<f64>() / (11.0 * 1600.0) / (sd * sd);
        assert!((0.02..0.95).contains(&correlation), "{correlation}");
    }

    #[test]
    fn blur_keeps_the_sum_and_metal_makes_streaks_near_itself_only() {
        let model = AppearanceModel::Scanner(ScannerConfig::default());
        let mut a = Acquisition { noise_sd: 0.0, ..acquisition(Modality::Cta, &model) };
        let mut volume = vec![0.0; 12 * 1600];
        volume[6 * 1600 + 20 * 40 + 20] = 1000.0;
        let sum: i64 = a.store(volume, [12, 40, 40]).iter().map(|v| i64::from(*v) - 1024).sum();
        assert!((900..1100).contains(&sum), "{sum}");
        a.streaks = vec![Streak { middle: [2.0, 20.0, 20.0], strength: 300.0 }];
        let stored = a.store(vec![0.0; 12 * 1600], [12, 40, 40]);
        let spread = |z: usize| stored[z * 1600..][..1600].iter().map(|v| (v - 1024).abs()).max();
        assert!(spread(2) > Some(40) && spread(11) < Some(20), "{:?} {:?}", spread(2), spread(11));
    }

    #[test]
    fn measured_correlations_become_widths() {
        for correlation in [0.2, 0.42, 0.6] {
            let found = neighbour_correlation(gaussian(sigma_of(correlation)));
            assert!((f64::from(found) - correlation).abs() < 0.01, "{correlation}: {found}");
        }
    }
}
