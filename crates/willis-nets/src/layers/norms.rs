//! Norms over channels and over space.

use burn::module::{Module, Param};
use burn::tensor::Tensor;

use super::Init;
use crate::ops;

/// Layer norm over the last axis.
#[derive(Module, Debug)]
pub struct LayerNorm {
    /// Scale `[C]`.
    pub weight: Param<Tensor<1>>,
    /// Shift `[C]`.
    pub bias: Param<Tensor<1>>,
    eps: f64,
}

impl LayerNorm {
    /// Scale 1, shift 0, eps 1e-5.
    pub fn new(channels: usize, init: &mut Init) -> Self {
        Self { weight: init.constant([channels], 1.0), bias: init.constant([channels], 0.0), eps: 1e-5 }
    }

    /// The same layer with another eps.
    pub fn with_eps(self, eps: f64) -> Self {
        Self { eps, ..self }
    }

    /// x `[..., C]` -> the same shape.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        ops::layer_norm(x, self.weight.val(), self.bias.val(), self.eps)
    }
}

/// Norm over space: by stored statistics (batch norm as it is evaluated) or by the volume's own
/// (instance norm).
#[derive(Module, Debug)]
pub struct SpaceNorm {
    /// Scale `[C]`.
    pub weight: Param<Tensor<1>>,
    /// Shift `[C]`.
    pub bias: Param<Tensor<1>>,
    /// Stored mean `[C]`; none for instance norm.
    pub running_mean: Option<Param<Tensor<1>>>,
    /// Stored variance `[C]`; none for instance norm.
    pub running_var: Option<Param<Tensor<1>>>,
}

/// Where a [`SpaceNorm`] takes its statistics from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Statistics {
    /// Published weights carry them; they are constants here.
    Stored,
    /// The volume in hand, in training and inference alike.
    Own,
}

impl SpaceNorm {
    const EPS: f64 = 1e-5;

    /// Scale 1, shift 0; stored statistics start at mean 0 and variance 1.
    pub fn new(channels: usize, statistics: Statistics, init: &mut Init) -> Self {
        let stored = |init: &mut Init, value| {
            (statistics == Statistics::Stored).then(|| init.constant([channels], value).set_require_grad(false))
        };
        Self {
            weight: init.constant([channels], 1.0),
            bias: init.constant([channels], 0.0),
            running_mean: stored(init, 0.0),
            running_var: stored(init, 1.0),
        }
    }

    /// x `[B, C, D, H, W]` -> the same shape.
    pub fn forward(&self, x: Tensor<5>) -> Tensor<5> {
        match self.affine() {
            Some((scale, shift)) => ops::channel_affine(x, scale, shift),
            None => ops::instance_norm(x, self.weight.val(), self.bias.val(), Self::EPS),
        }
    }

    /// Scale and shift `[C]` that the norm comes to when its statistics are stored.
    pub(crate) fn affine(&self) -> Option<(Tensor<1>, Tensor<1>)> {
        let (mean, variance) = (self.running_mean.as_ref()?.val(), self.running_var.as_ref()?.val());
        let scale = self.weight.val() / (variance + Self::EPS).sqrt();
        let shift = self.bias.val() - mean * scale.clone();
        Some((scale, shift))
    }
}
