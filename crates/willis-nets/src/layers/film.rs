//! FiLM: features modulated by a condition.
//!
//! `FiLM(x)_c = (1 + δ_c) x_c + β_c`, constant in space. Letters: B batch, C channels, K
//! conditions.
//!
//! Source: Perez et al. 2018, arXiv 1709.07871. We start the generator at zero, so that a fresh
//! layer is the identity.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};

/// Sizes of a [`Film`] layer.
#[derive(Debug, Clone)]
pub struct FilmConfig {
    /// Length of the condition vector, K.
    pub conditions: usize,
    /// Modulated channels, C.
    pub channels: usize,
}

/// One linear generator for δ and β.
#[derive(Module, Debug)]
pub struct Film {
    /// `[2C, K]`: rows of δ, then rows of β.
    pub weight: Param<Tensor<2>>,
    /// `[2C]`.
    pub bias: Param<Tensor<1>>,
}

impl FilmConfig {
    /// The identity.
    pub fn init(&self, device: &Device) -> Film {
        Film {
            weight: Param::from_tensor(Tensor::zeros([2 * self.channels, self.conditions], device)),
            bias: Param::from_tensor(Tensor::zeros([2 * self.channels], device)),
        }
    }
}

impl Film {
    /// # Shapes
    /// x `[B, C, D, H, W]`, condition `[B, K]` -> `[B, C, D, H, W]`
    pub fn forward(&self, x: Tensor<5>, condition: Tensor<2>) -> Tensor<5> {
        let [batch, channels, ..] = x.dims();
        let generated = condition.matmul(self.weight.val().transpose()) + self.bias.val().unsqueeze::<2>();
        let part = |from: usize| {
            generated.clone().slice([0..batch, from..from + channels]).reshape([batch, channels, 1, 1, 1])
        };
        let (scale, shift) = (part(0), part(channels));
        x * (scale + 1.0) + shift
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fresh_layer_is_the_identity() {
        let device = Device::flex();
        let film = FilmConfig { conditions: 3, channels: 2 }.init(&device);
        let x = Tensor::<1>::from_floats([1.0, 2.0, 3.0, 4.0], &device).reshape([2, 2, 1, 1, 1]);
        let y = film.forward(x.clone(), Tensor::ones([2, 3], &device));
        assert_eq!(y.into_data(), x.into_data());
    }

    #[test]
    fn scale_comes_before_shift() {
        let device = Device::flex();
        let film = Film {
            weight: Param::from_tensor(Tensor::from_floats([[1.0], [0.0], [0.0], [10.0]], &device)),
            bias: Param::from_tensor(Tensor::zeros([4], &device)),
        };
        let x = Tensor::<1>::from_floats([3.0, 5.0], &device).reshape([1, 2, 1, 1, 1]);
        let y = film.forward(x, Tensor::from_floats([[2.0]], &device));
        // (1 + 2) * 3 and 5 + 20
        assert_eq!(y.into_data().try_to_vec::<f32>().unwrap(), [9.0, 25.0]);
    }
}
