//! Random numbers and smooth random fields of the generator.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use willis_kernels::resize::{Interpolation, resize};

/// Random variates of the generator.
pub(super) trait Variates {
    /// Uniform in `[low, high)`.
    fn uniform(&mut self, low: f64, high: f64) -> f64;
    /// Bernoulli trial with this probability of `true`.
    fn chance(&mut self, probability: f64) -> bool;
    /// Whole number below `end`.
    fn below(&mut self, end: usize) -> usize;
    /// Approximately standard normal: the sum of four 16-bit uniform numbers, at most 3.5.
    fn normal(&mut self) -> f64;
}

impl Variates for ChaCha8Rng {
    fn uniform(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.random::<f64>()
    }

    fn chance(&mut self, probability: f64) -> bool {
        self.random::<f64>() < probability
    }

    fn below(&mut self, end: usize) -> usize {
        self.random_range(0..end)
    }

    fn normal(&mut self) -> f64 {
        let bits: u64 = self.random();
        let sum: u64 = (0..4).map(|part| (bits >> (16 * part)) & 0xffff).sum();
        (sum as f64 / 65_535.0 - 2.0) * 1.732_050_8
    }
}

/// A smooth field on a grid: normal values at control points `spacing` voxels apart, interpolated
/// linearly.
pub(super) fn smooth_field(shape: [usize; 3], spacing: f64, deviation: f64, rng: &mut ChaCha8Rng) -> Vec<f32> {
    let coarse = shape.map(|side| ((side as f64 / spacing).ceil() as usize + 1).clamp(2, side.max(2)));
    let control: Vec<f32> = (0..coarse.iter().product()).map(|_| (deviation * rng.normal()) as f32).collect();
    let mut field = vec![0.0; shape.iter().product()];
    resize(1, coarse, shape, Interpolation::LinearAligned, &control, &mut field);
    field
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn fields_have_their_deviation_and_are_smooth() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let field = smooth_field([32, 32, 32], 8.0, 2.0, &mut rng);
        let variance = field.iter().map(|v| v * v).sum::<f32>() / field.len() as f32;
        // Interpolation between independent values lowers the variance.
        assert!((0.5..4.5).contains(&variance), "{variance}");
        let steps = field.chunks(32).flat_map(|row| row.windows(2).map(|w| (w[1] - w[0]).abs()));
        assert!(steps.fold(0.0, f32::max) < 2.5);
    }
}
