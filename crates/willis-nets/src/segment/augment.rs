//! Random changes to training patches, so that phantoms teach what holds for real series.

use rand::{Rng, RngExt};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use willis_core::space::Index;

use super::sample::{Patch, Placement};

/// Ranges and probabilities of the changes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AugmentConfig {
    /// Probability that left and right are exchanged, sites with them.
    pub mirror: f64,
    /// Probability that the patch is scaled, each axis on its own.
    pub scale: f64,
    /// Largest logarithm of the scale.
    pub max_log_scale: f64,
    /// Probability that dark and bright are exchanged.
    pub invert: f64,
    /// Probability of a power law between the darkest and the brightest value.
    pub gamma: f64,
    /// Largest deviation of the noise.
    pub noise: f64,
    /// Largest shift of all intensities.
    pub shift: f64,
    /// Largest logarithm of the factor of all intensities.
    pub max_log_contrast: f64,
    /// Probability that one axis is averaged as by thick slices.
    pub coarsen: f64,
    /// Deviation of a common shift of the coordinates, mm.
    pub coordinate_jitter_mm: f64,
    /// Probability that the coordinates are all zero.
    pub coordinate_drop: f64,
}

impl Default for AugmentConfig {
    fn default() -> Self {
        Self {
            mirror: 0.5,
            scale: 0.3,
            max_log_scale: 0.2,
            invert: 0.03,
            gamma: 0.3,
            noise: 0.12,
            shift: 0.2,
            max_log_contrast: 0.3,
            coarsen: 0.2,
            coordinate_jitter_mm: 12.0,
            coordinate_drop: 0.05,
        }
    }
}

impl AugmentConfig {
    /// A patch as large as `size` around `middle`.
    pub(super) fn place(&self, middle: Index, size: usize, rng: &mut impl Rng) -> Placement {
        let scaled = chance(self.scale, rng);
        let mut scale = || if scaled { symmetric(self.max_log_scale, rng).exp() } else { 1.0 };
        let scale = [scale(), scale(), scale()];
        Placement { middle, size, scale, mirrored: chance(self.mirror, rng) }
    }

    /// Changes intensities and coordinates.
    pub(super) fn change(&self, patch: &mut Patch, rng: &mut impl Rng) {
        let voxels = patch.size.pow(3);
        let (image, coordinates) = patch.channels.split_at_mut(voxels);
        if chance(self.coarsen, rng) {
            let axis = (rng.random::<f64>() * 3.0) as usize;
            coarsen(image, patch.size, axis.min(2), 2 + usize::from(chance(0.5, rng)));
        }
        if chance(self.gamma, rng) {
            let exponent = symmetric(0.4, rng).exp() as f32;
            power_law(image, exponent);
        }
        if chance(self.invert, rng) {
            image.iter_mut().for_each(|v| *v = 1.0 - *v);
        }
        let factor = symmetric(self.max_log_contrast, rng).exp() as f32;
        let shift = symmetric(self.shift, rng) as f32;
        let noise = (rng.random::<f64>() * self.noise) as f32;
        for v in image.iter_mut() {
            *v = *v * factor + shift + noise * normal(rng.random::<u32>());
        }
        let dropped = chance(self.coordinate_drop, rng);
        for axis in coordinates.chunks_exact_mut(voxels) {
            let wide = normal(rng.random::<u32>());
            let by = wide * (self.coordinate_jitter_mm / super::net::COORDINATE_MM) as f32;
            axis.par_iter_mut().for_each(|v| *v = if dropped { 0.0 } else { *v + by });
        }
    }
}

fn chance(probability: f64, rng: &mut impl Rng) -> bool {
    rng.random::<f64>() < probability
}

fn symmetric(limit: f64, rng: &mut impl Rng) -> f64 {
    (2.0 * rng.random::<f64>() - 1.0) * limit
}

/// Nearly normal of deviation 1: the sum of the four bytes, cheap enough for every voxel.
fn normal(bits: u32) -> f32 {
    let sum: u32 = bits.to_le_bytes().into_iter().map(u32::from).sum();
    // Four uniform bytes have mean 510 and variance 4 (256^2 - 1) / 12.
    (sum as f32 - 510.0) / 147.8
}

/// Maps the range of values to [0, 1], raises it to a power, and back.
fn power_law(image: &mut [f32], exponent: f32) {
    let (low, high) = image.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(l, h), &v| (l.min(v), h.max(v)));
    let range = high - low;
    if range > 0.0 {
        image.par_iter_mut().for_each(|v| *v = low + range * ((*v - low) / range).powf(exponent));
    }
}

/// Averages runs of `factor` voxels along an axis and interpolates between their middles.
fn coarsen(image: &mut [f32], n: usize, axis: usize, factor: usize) {
    let stride = n.pow(2 - axis as u32);
    let slabs = n / factor;
    let mut line = vec![0.0f32; n];
    let mut means = vec![0.0f32; slabs];
    for start in (0..image.len()).filter(|i| (i / stride).is_multiple_of(n)) {
        line.iter_mut().enumerate().for_each(|(i, v)| *v = image[start + i * stride]);
        for (mean, run) in means.iter_mut().zip(line.chunks_exact(factor)) {
            *mean = run.iter().sum::<f32>() / factor as f32;
        }
        for i in 0..n {
            let place = ((i as f32 + 0.5) / factor as f32 - 0.5).clamp(0.0, (slabs - 1) as f32);
            let low = place as usize;
            let high = (low + 1).min(slabs - 1);
            image[start + i * stride] = means[low] + (place - low as f32) * (means[high] - means[low]);
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::super::sample::PreparedCase;
    use super::super::sample::tests::case;
    use super::*;

    #[test]
    fn coarsening_keeps_constants_and_ramps() {
        let mut ramp: Vec<f32> = (0..512).map(|i| (i / 8 % 8) as f32).collect();
        coarsen(&mut ramp, 8, 1, 2);
        // Along y the ramp 0..7 is the means 0.5, 2.5, 4.5, 6.5 at the places 0.5, 2.5, 4.5, 6.5.
        let line: Vec<f32> = (0..8).map(|y| ramp[y * 8]).collect();
        assert_eq!(line, [0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 6.5]);
        let mut flat = vec![3.0; 512];
        coarsen(&mut flat, 8, 2, 3);
        assert!(flat.iter().all(|&v| v == 3.0));
    }

    #[test]
    fn cheap_noise_has_mean_0_and_deviation_1() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let values: Vec<f64> = (0..100_000).map(|_| f64::from(normal(rng.random::<u32>()))).collect();
        let mean = values.iter().sum::<f64>() / 1e5;
        let variance = values.iter().map(|v| v * v).sum::<f64>() / 1e5;
        assert!(mean.abs() < 0.02 && (variance - 1.0).abs() < 0.02);
    }

    #[test]
    fn the_same_generator_gives_the_same_patch() {
        let prepared = PreparedCase::new(&case(24));
        let make = || {
            let mut rng = ChaCha8Rng::seed_from_u64(9);
            let config = AugmentConfig { scale: 1.0, gamma: 1.0, coarsen: 1.0, ..AugmentConfig::default() };
            let mut patch = prepared.cut(&config.place(Index::new(12, 12, 12), 16, &mut rng));
            config.change(&mut patch, &mut rng);
            patch
        };
        assert_eq!(make(), make());
        assert!(make().channels.iter().all(|v| v.is_finite()));
    }
}
