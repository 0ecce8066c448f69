//! Random numbers: one ChaCha stream per purpose, and noise that depends only on a counter.

use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::vector::{Vec3, vec3};

/// Generator for one purpose. Different purposes get unrelated streams from the same seed.
pub(crate) fn stream(seed: u64, purpose: &str) -> ChaCha8Rng {
    // FNV-1a of the name, mixed with the seed.
    let name = purpose.bytes().fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    ChaCha8Rng::seed_from_u64(splitmix64(seed ^ splitmix64(name)))
}

/// Distributions that this crate draws from.
pub(crate) trait Draw: Rng {
    /// Uniform in `[low, high)`.
    fn uniform(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.random::<f64>()
    }

    /// Bernoulli trial with this probability of `true`.
    fn chance(&mut self, probability: f64) -> bool {
        self.random::<f64>() < probability
    }

    /// Standard normal (Box-Muller).
    fn normal(&mut self) -> f64 {
        let u: f64 = 1.0 - self.random::<f64>();
        let v: f64 = self.random();
        (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
    }

    /// Log-normal, `median * exp(sigma * normal)`, clamped to `[low, high]`.
    fn log_normal(&mut self, median: f64, sigma: f64, low: f64, high: f64) -> f64 {
        (median * (sigma * self.normal()).exp()).clamp(low, high)
    }

    /// Isotropic normal vector with unit standard deviation per axis.
    fn normal3(&mut self) -> Vec3 {
        vec3(self.normal(), self.normal(), self.normal())
    }

    /// Index drawn with probability proportional to its weight. The weights must not all be zero.
    fn weighted(&mut self, weights: &[f64]) -> usize {
        let mut left = self.random::<f64>() * weights.iter().sum::<f64>();
        for (i, w) in weights.iter().enumerate() {
            left -= w;
            if left < 0.0 {
                return i;
            }
        }
        weights.iter().rposition(|w| *w > 0.0).unwrap_or(0)
    }
}

impl<R: Rng + ?Sized> Draw for R {}

/// One step of SplitMix64: a bijective hash of 64 bits.
pub(crate) const fn splitmix64(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Approximately normal noise from a counter: the sum of four 16-bit uniform numbers with mean 0,
/// standard deviation 1 and range ±3.5.
pub(crate) fn counter_normal(seed: u64, counter: u64) -> f32 {
    let bits = splitmix64(seed ^ counter.wrapping_mul(0xd134_2543_de82_ef95));
    let sum = (bits & 0xffff) + ((bits >> 16) & 0xffff) + ((bits >> 32) & 0xffff) + (bits >> 48);
    (sum as f32 / 65_535.0 - 2.0) * 1.732_050_8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_differ_by_purpose_and_repeat_by_seed() {
        let first = |seed, purpose| stream(seed, purpose).random::<u64>();
        assert_eq!(first(1, "atlas"), first(1, "atlas"));
        assert_ne!(first(1, "atlas"), first(1, "lesion"));
        assert_ne!(first(1, "atlas"), first(2, "atlas"));
    }

    #[test]
    fn noise_has_mean_0_and_variance_1() {
        let moments = |values: &[f64]| {
            let n = values.len() as f64;
            let mean = values.iter().sum::<f64>() / n;
            (mean, values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n)
        };
        let counted: Vec<f64> = (0..20_000).map(|i| f64::from(counter_normal(7, i))).collect();
        let mut rng = stream(3, "test");
        let drawn: Vec<f64> = (0..20_000).map(|_| rng.normal()).collect();
        for values in [counted, drawn] {
            let (mean, variance) = moments(&values);
            assert!(mean.abs() < 0.03 && (variance - 1.0).abs() < 0.04, "{mean} {variance}");
        }
    }

    #[test]
    fn indices_are_drawn_by_weight() {
        let mut rng = stream(5, "test");
        let picks = (0..3000).filter(|_| rng.weighted(&[1.0, 0.0, 2.0]) == 2).count();
        assert!((1850..2150).contains(&picks), "{picks}");
        assert!((0..100).all(|_| rng.weighted(&[0.0, 1.0, 0.0]) == 1));
    }
}
