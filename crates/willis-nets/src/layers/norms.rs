//! Norms over channels and over space.

use burn::module::{Module, Param};
use burn::tensor::Tensor;

use super::Init;
use crate::ops;

/// Added to the variance by [`SpaceNorm`] and [`standardise`], as in PyTorch.
const SPACE_EPS: f64 = 1e-5;

/// Configuration of a [`LayerNorm`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LayerNormConfig {
    /// Length of the last axis, C.
    pub channels: usize,
    /// Added to the variance.
    pub eps: f64,
}

/// Layer norm over the last axis.
#[derive(Module, Debug)]
pub struct LayerNorm {
    /// Scale `[C]`.
    pub weight: Param<Tensor<1>>,
    /// Shift `[C]`.
    pub bias: Param<Tensor<1>>,
    eps: f64,
}

impl LayerNormConfig {
    /// A norm with PyTorch's eps of 1e-5.
    pub const fn new(channels: usize) -> Self {
        Self { channels, eps: 1e-5 }
    }

    /// The same norm with another eps.
    pub const fn with_eps(self, eps: f64) -> Self {
        Self { eps, ..self }
    }

    /// Creates the norm: scale 1, shift 0.
    pub fn init(&self, init: &mut Init) -> LayerNorm {
        let &Self { channels, eps } = self;
        LayerNorm { weight: init.constant([channels], 1.0), bias: init.constant([channels], 0.0), eps }
    }
}

impl LayerNorm {
    /// Normalises the last axis.
    ///
    /// # Shapes
    /// x `[..., C]` -> the same
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        ops::layer_norm(x, self.weight.val(), self.bias.val(), self.eps)
    }
}

/// Where a [`SpaceNorm`] takes its mean and variance from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Statistics {
    /// Batch norm in evaluation mode: published weights carry the statistics, and they stay
    /// constant.
    Stored,
    /// Instance norm: the statistics of each volume, in training and in inference.
    Own,
}

/// Configuration of a [`SpaceNorm`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpaceNormConfig {
    /// Channels, C.
    pub channels: usize,
    /// Batch norm or instance norm.
    pub statistics: Statistics,
}

/// A norm over space: batch norm with stored statistics, or instance norm.
#[derive(Module, Debug)]
pub struct SpaceNorm {
    /// Scale `[C]`.
    pub weight: Param<Tensor<1>>,
    /// Shift `[C]`.
    pub bias: Param<Tensor<1>>,
    /// Stored mean `[C]`; `None` for instance norm.
    pub running_mean: Option<Param<Tensor<1>>>,
    /// Stored variance `[C]`; `None` for instance norm.
    pub running_var: Option<Param<Tensor<1>>>,
}

impl SpaceNormConfig {
    /// A norm of `channels` channels.
    pub const fn new(channels: usize, statistics: Statistics) -> Self {
        Self { channels, statistics }
    }

    /// An instance norm.
    pub const fn instance(channels: usize) -> Self {
        Self::new(channels, Statistics::Own)
    }

    /// Creates the norm: scale 1, shift 0, stored statistics at mean 0 and variance 1.
    pub fn init(&self, init: &mut Init) -> SpaceNorm {
        let &Self { channels, statistics } = self;
        let stored = |init: &mut Init, value| {
            (statistics == Statistics::Stored).then(|| init.constant([channels], value).set_require_grad(false))
        };
        SpaceNorm {
            weight: init.constant([channels], 1.0),
            bias: init.constant([channels], 0.0),
            running_mean: stored(init, 0.0),
            running_var: stored(init, 1.0),
        }
    }
}

impl SpaceNorm {
    /// Normalises each channel over space.
    ///
    /// # Shapes
    /// x `[B, C, D, H, W]` -> the same
    pub fn forward(&self, x: Tensor<5>) -> Tensor<5> {
        match self.affine() {
            Some((scale, shift)) => ops::channel_affine(x, scale, shift),
            None => ops::instance_norm(x, self.weight.val(), self.bias.val(), SPACE_EPS),
        }
    }

    /// Scale and shift `[C]` that are equivalent to the norm, if its statistics are stored.
    pub(crate) fn affine(&self) -> Option<(Tensor<1>, Tensor<1>)> {
        let (mean, variance) = (self.running_mean.as_ref()?.val(), self.running_var.as_ref()?.val());
        let scale = self.weight.val() / (variance + SPACE_EPS).sqrt();
        let shift = self.bias.val() - mean * scale.clone();
        Some((scale, shift))
    }
}

/// Instance norm without scale and shift: mean 0 and variance 1 per item and channel.
///
/// # Shapes
/// x `[B, C, D, H, W]` -> the same
pub(crate) fn standardise(x: Tensor<5>) -> Tensor<5> {
    let (channels, device) = (x.dims()[1], x.device().inner());
    ops::instance_norm(x, Tensor::ones([channels], &device), Tensor::zeros([channels], &device), SPACE_EPS)
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    fn values<const D: usize>(x: Tensor<D>) -> Vec<f32> {
        x.into_data().try_to_vec().unwrap()
    }

    fn assert_close(got: &[f32], expected: &[f32]) {
        assert!(got.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-4), "{got:?}, expected {expected:?}");
    }

    #[test]
    fn layer_norm_by_hand() {
        let device = Device::flex();
        let norm = LayerNormConfig::new(2).init(&mut Init::new(0, &device));
        // Mean 2, variance 1.
        assert_close(&values(norm.forward(Tensor::<2>::from_floats([[1.0, 3.0]], &device))), &[-1.0, 1.0]);
        let wide = LayerNormConfig::new(2).with_eps(3.0).init(&mut Init::new(0, &device));
        assert_close(&values(wide.forward(Tensor::<2>::from_floats([[1.0, 3.0]], &device))), &[-0.5, 0.5]);
    }

    #[test]
    fn space_norm_uses_own_or_stored_statistics() {
        let device = Device::flex();
        let x = Tensor::<1>::from_floats([1.0, 3.0], &device).reshape([1, 1, 1, 1, 2]);
        let own = SpaceNormConfig::instance(1).init(&mut Init::new(0, &device));
        assert_close(&values(own.forward(x.clone())), &[-1.0, 1.0]);
        assert_close(&values(standardise(x.clone())), &[-1.0, 1.0]);
        let mut stored = SpaceNormConfig::new(1, Statistics::Stored).init(&mut Init::new(0, &device));
        stored.running_mean = Some(Param::from_tensor(Tensor::from_floats([5.0], &device)));
        stored.running_var = Some(Param::from_tensor(Tensor::from_floats([4.0], &device)));
        assert_close(&values(stored.forward(x)), &[-2.0, -1.0]);
    }
}
