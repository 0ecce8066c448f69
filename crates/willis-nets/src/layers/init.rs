//! Initial parameters from one seed.

use burn::module::Param;
use burn::tensor::{Device, Tensor, TensorData};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// The source of initial parameters: one seeded generator, which layers draw from in the order in
/// which they are made.
#[derive(Debug)]
pub struct Init {
    seed: u64,
    rng: ChaCha8Rng,
    device: Device,
}

impl Init {
    /// Creates a source whose parameters live on `device`; equal seeds give equal nets.
    pub fn new(seed: u64, device: &Device) -> Self {
        Self { seed, rng: ChaCha8Rng::seed_from_u64(seed), device: device.clone() }
    }

    /// Returns a source that starts at the first number of the same seed.
    ///
    /// A layer that draws from it leaves the numbers of all layers after it as they are.
    pub fn restarted(&self) -> Self {
        Self::new(self.seed, &self.device)
    }

    /// Draws from a normal distribution with mean 0, truncated at two standard deviations.
    pub fn normal<const D: usize>(&mut self, shape: [usize; D], deviation: f64) -> Param<Tensor<D>> {
        let values = (0..shape.iter().product()).map(|_| self.truncated_normal(deviation)).collect();
        self.param(values, shape)
    }

    /// Draws uniformly from `[-bound, bound)`.
    pub fn uniform<const D: usize>(&mut self, shape: [usize; D], bound: f32) -> Param<Tensor<D>> {
        let values = (0..shape.iter().product()).map(|_| bound * (2.0 * self.rng.random::<f32>() - 1.0)).collect();
        self.param(values, shape)
    }

    /// Fills the parameter with one value; draws nothing.
    pub fn constant<const D: usize>(&mut self, shape: [usize; D], value: f32) -> Param<Tensor<D>> {
        self.param(vec![value; shape.iter().product()], shape)
    }

    fn param<const D: usize>(&self, values: Vec<f32>, shape: [usize; D]) -> Param<Tensor<D>> {
        Param::from_tensor(Tensor::from_data(TensorData::new(values, shape), &self.device))
    }

    /// Box-Muller transform; values beyond two standard deviations are drawn again.
    fn truncated_normal(&mut self, deviation: f64) -> f32 {
        loop {
            let radius = (-2.0 * (1.0 - self.rng.random::<f64>()).ln()).sqrt();
            let value = radius * (std::f64::consts::TAU * self.rng.random::<f64>()).cos();
            if value.abs() <= 2.0 {
                return (value * deviation) as f32;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(param: Param<Tensor<1>>) -> Vec<f32> {
        param.val().into_data().try_to_vec().unwrap()
    }

    #[test]
    fn normal_values_are_truncated_and_have_the_deviation() {
        let values = values(Init::new(1, &Device::flex()).normal([20_000], 0.5));
        assert!(values.iter().all(|v| v.abs() <= 1.0));
        let mean = values.iter().sum::<f32>() / values.len() as f32;
        let variance = values.iter().map(|v| v * v).sum::<f32>() / values.len() as f32;
        // Truncation at two deviations leaves 0.7737 of the variance.
        assert!(mean.abs() < 0.02 && (variance / 0.25 - 0.7737).abs() < 0.03, "{mean} {variance}");
    }

    #[test]
    fn uniform_values_fill_their_range() {
        let values = values(Init::new(1, &Device::flex()).uniform([20_000], 0.5));
        let (low, high) = values.iter().fold((0.0f32, 0.0f32), |(low, high), &v| (low.min(v), high.max(v)));
        assert!((-0.5..-0.49).contains(&low) && (0.49..0.5).contains(&high), "{low} {high}");
    }

    #[test]
    fn a_restarted_source_repeats_its_numbers_and_leaves_the_first_alone() {
        let device = Device::flex();
        let mut init = Init::new(7, &device);
        let first = values(init.normal([5], 1.0));
        assert_eq!(values(init.restarted().normal([5], 1.0)), first);
        let mut other = Init::new(7, &device);
        other.normal([5], 1.0);
        assert_eq!(values(init.normal([5], 1.0)), values(other.normal([5], 1.0)));
    }
}
