//! FiLM (feature-wise linear modulation): a scale and a shift per channel, computed from a
//! condition vector.
//!
//! `FiLM(x)_c = (1 + δ_c) x_c + β_c`, the same in every voxel; `(δ, β) = W k + b` with the
//! condition k.
//!
//! Letters: B batch, C channels, K length of the condition.
//!
//! Source: Perez et al., AAAI 2018, arXiv:1709.07871. We differ: W and b start at 0, so that a new
//! layer is the identity.

use burn::module::{Module, Param};
use burn::tensor::Tensor;

use super::Init;

/// Configuration of a [`Film`] layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FilmConfig {
    /// Length of the condition vector, K.
    pub conditions: usize,
    /// Modulated channels, C.
    pub channels: usize,
}

/// FiLM layer with one linear generator for δ and β.
#[derive(Module, Debug)]
pub struct Film {
    /// W, `[2C, K]`: the rows of δ, then those of β.
    pub weight: Param<Tensor<2>>,
    /// b, `[2C]`.
    pub bias: Param<Tensor<1>>,
}

impl FilmConfig {
    /// Creates the layer, which is the identity until it is trained.
    pub fn init(&self, init: &mut Init) -> Film {
        Film {
            weight: init.constant([2 * self.channels, self.conditions], 0.0),
            bias: init.constant([2 * self.channels], 0.0),
        }
    }
}

impl Film {
    /// Modulates x by the condition.
    ///
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
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn a_new_layer_is_the_identity() {
        let device = Device::flex();
        let film = FilmConfig { conditions: 3, channels: 2 }.init(&mut Init::new(0, &device));
        let x = Tensor::<1>::from_floats([1.0, 2.0, 3.0, 4.0], &device).reshape([2, 2, 1, 1, 1]);
        let y = film.forward(x.clone(), Tensor::ones([2, 3], &device));
        assert_eq!(y.into_data(), x.into_data());
    }

    #[test]
    fn the_scale_is_applied_before_the_shift() {
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
