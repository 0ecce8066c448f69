//! Random augmentation of training patches, so that nets trained on phantoms generalise to real
//! series.

use rand::{Rng, RngExt};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use willis_core::InvalidValue;
use willis_core::space::Index;

use super::degrade::DegradeConfig;
use super::sample::{LabelledPatch, PatchPlacement};
use crate::rules::{fraction, non_negative};

/// Probabilities and ranges of the augmentations.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SegmentAugmentConfig {
    /// Probability that left and right are exchanged, with their sites.
    pub mirror: f64,
    /// Probability that the patch is scaled, each axis independently.
    pub scale: f64,
    /// Largest absolute logarithm of the scale.
    pub max_log_scale: f64,
    /// Probability that intensities are inverted.
    pub invert: f64,
    /// Probability of a gamma correction between the lowest and the highest intensity.
    pub gamma: f64,
    /// Largest standard deviation of the noise.
    pub noise: f64,
    /// Largest shift of all intensities.
    pub shift: f64,
    /// Largest absolute logarithm of the contrast factor.
    pub max_log_contrast: f64,
    /// Probability that one axis is averaged as by thick slices.
    pub coarsen: f64,
    /// Standard deviation of the shift of each coordinate, mm.
    pub coordinate_jitter_mm: f64,
    /// Probability that all coordinates are set to 0.
    pub coordinate_drop: f64,
    /// Degradation to a poor image, off by default.
    pub degrade: DegradeConfig,
}

impl Default for SegmentAugmentConfig {
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
            degrade: DegradeConfig::default(),
        }
    }
}

impl SegmentAugmentConfig {
    /// Checks every value.
    ///
    /// # Errors
    /// [`InvalidValue`] names the first value that breaks its rule.
    pub fn validate(&self) -> Result<(), InvalidValue> {
        for (field, probability) in [
            ("mirror", self.mirror),
            ("scale", self.scale),
            ("invert", self.invert),
            ("gamma", self.gamma),
            ("coarsen", self.coarsen),
            ("coordinate_drop", self.coordinate_drop),
        ] {
            fraction(field, probability)?;
        }
        for (field, limit) in [
            ("max_log_scale", self.max_log_scale),
            ("noise", self.noise),
            ("shift", self.shift),
            ("max_log_contrast", self.max_log_contrast),
            ("coordinate_jitter_mm", self.coordinate_jitter_mm),
        ] {
            non_negative(field, limit)?;
        }
        self.degrade.validate().map_err(|error| error.within("degrade"))
    }

    /// A random placement of a patch of side `size` around `middle`.
    pub(super) fn place(&self, middle: Index, size: usize, rng: &mut impl Rng) -> PatchPlacement {
        let scaled = chance(self.scale, rng);
        let mut scale = || if scaled { symmetric(self.max_log_scale, rng).exp() } else { 1.0 };
        let scale = [scale(), scale(), scale()];
        PatchPlacement { middle, size, scale, mirrored: chance(self.mirror, rng) }
    }

    /// Augments intensities and coordinates of a patch in place.
    pub(super) fn apply(&self, patch: &mut LabelledPatch, rng: &mut impl Rng) {
        self.degrade.apply(patch, rng);
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
            let shift = normal(rng.random::<u32>());
            let by = shift * (self.coordinate_jitter_mm / super::net::COORDINATE_MM) as f32;
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

/// An approximately standard normal number: the sum of four random bytes, cheap enough for every
/// voxel.
fn normal(bits: u32) -> f32 {
    let sum: u32 = bits.to_le_bytes().into_iter().map(u32::from).sum();
    // Four uniform bytes have mean 510 and variance 4 (256^2 - 1) / 12.
    (sum as f32 - 510.0) / 147.8
}

/// Maps the range of values to [0, 1], raises it to a power, and maps it back.
fn power_law(image: &mut [f32], exponent: f32) {
    let (low, high) = image.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(l, h), &v| (l.min(v), h.max(v)));
    let range = high - low;
    if range > 0.0 {
        image.par_iter_mut().for_each(|v| *v = low + range * ((*v - low) / range).powf(exponent));
    }
}

/// Averages runs of `factor` voxels along an axis and interpolates linearly between the means.
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

    use super::super::sample::PackedCase;
    use super::super::sample::tests::case;
    use super::*;

    #[test]
    fn coarsening_keeps_constants_and_ramps() {
        let mut ramp: Vec<f32> = (0..512).map(|i| (i / 8 % 8) as f32).collect();
        coarsen(&mut ramp, 8, 1, 2);
        // The ramp 0..7 along y has the means 0.5, 2.5, 4.5, 6.5 at the same coordinates.
        let line: Vec<f32> = (0..8).map(|y| ramp[y * 8]).collect();
        assert_eq!(line, [0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 6.5]);
        let mut flat = vec![3.0; 512];
        coarsen(&mut flat, 8, 2, 3);
        assert!(flat.iter().all(|&v| v == 3.0));
    }

    #[test]
    fn noise_has_mean_0_and_deviation_1() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let values: Vec<f64> = (0..100_000).map(|_| f64::from(normal(rng.random::<u32>()))).collect();
        let mean = values.iter().sum::<f64>() / 1e5;
        let variance = values.iter().map(|v| v * v).sum::<f64>() / 1e5;
        assert!(mean.abs() < 0.02 && (variance - 1.0).abs() < 0.02);
    }

    #[test]
    fn invalid_values_are_named() {
        SegmentAugmentConfig::default().validate().unwrap();
        let config = SegmentAugmentConfig { invert: 2.0, ..SegmentAugmentConfig::default() };
        assert_eq!(config.validate().unwrap_err().to_string(), "invert = 2 must lie between 0 and 1");
        let config = SegmentAugmentConfig { noise: -0.5, ..SegmentAugmentConfig::default() };
        assert_eq!(config.validate().unwrap_err().to_string(), "noise = -0.5 must be finite and at least 0");
    }

    #[test]
    fn the_same_generator_gives_the_same_patch() {
        let packed = PackedCase::new(&case(24));
        let make = || {
            let mut rng = ChaCha8Rng::seed_from_u64(9);
            let config =
                SegmentAugmentConfig { scale: 1.0, gamma: 1.0, coarsen: 1.0, ..SegmentAugmentConfig::default() };
            let mut patch = packed.cut(&config.place(Index::new(12, 12, 12), 16, &mut rng));
            config.apply(&mut patch, &mut rng);
            patch
        };
        assert_eq!(make(), make());
        assert!(make().channels.iter().all(|v| v.is_finite()));
    }
}
