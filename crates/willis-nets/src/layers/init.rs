//! Initial parameters from one seed.

use burn::module::Param;
use burn::tensor::{Device, Tensor, TensorData};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Makes initial parameters: one seeded generator, drawn from in the order in which layers are
/// made.
#[derive(Debug)]
pub struct Init {
    rng: ChaCha8Rng,
    device: Device,
}

impl Init {
    /// Parameters on `device`; the same seed gives the same net.
    pub fn new(seed: u64, device: &Device) -> Self {
        Self { rng: ChaCha8Rng::seed_from_u64(seed), device: device.clone() }
    }

    /// Normal values of mean 0, cut at two deviations.
    pub fn normal<const D: usize>(&mut self, shape: [usize; D], deviation: f64) -> Param<Tensor<D>> {
        let values = (0..shape.iter().product()).map(|_| self.cut_normal(deviation)).collect();
        self.param(values, shape)
    }

    /// One value everywhere.
    pub fn constant<const D: usize>(&mut self, shape: [usize; D], value: f32) -> Param<Tensor<D>> {
        self.param(vec![value; shape.iter().product()], shape)
    }

    fn param<const D: usize>(&self, values: Vec<f32>, shape: [usize; D]) -> Param<Tensor<D>> {
        Param::from_tensor(Tensor::from_data(TensorData::new(values, shape), &self.device))
    }

    /// Box-Muller, drawn again when beyond two deviations.
    fn cut_normal(&mut self, deviation: f64) -> f32 {
        loop {
            let radius = (-2.0 * (1.0 - self.rng.random::<f64>()).ln()).sqrt();
            let value = radius * (std::f64::consts::TAU * self.rng.random::<f64>()).cos();
            if value.abs() <= 2.0 {
                return (value * deviation) as f32;
            }
        }
    }
}
