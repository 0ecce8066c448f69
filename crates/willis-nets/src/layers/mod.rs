//! Layers whose parameters carry PyTorch's names and layouts, so that published state dicts load by
//! path.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, TensorData};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::ops::{self, ConvOptions};

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

/// `y = x W^T + b` over the last axis.
#[derive(Module, Debug)]
pub struct Linear {
    /// `[out, in]`.
    pub weight: Param<Tensor<2>>,
    /// `[out]`.
    pub bias: Option<Param<Tensor<1>>>,
}

impl Linear {
    /// Weights of deviation 0.02 (SegFormer's choice), bias 0.
    pub fn new(inputs: usize, outputs: usize, init: &mut Init) -> Self {
        Self { weight: init.normal([outputs, inputs], 0.02), bias: Some(init.constant([outputs], 0.0)) }
    }

    /// x `[..., in]` -> `[..., out]`.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let bias = self.bias.as_ref().map(Param::val);
        ops::linear(x, self.weight.val(), bias)
    }
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

/// 3D convolution.
#[derive(Module, Debug)]
pub struct Conv3d {
    /// `[out, in / groups, d, h, w]`.
    pub weight: Param<Tensor<5>>,
    /// `[out]`.
    pub bias: Option<Param<Tensor<1>>>,
    #[module(skip)]
    options: ConvOptions,
}

/// Whether a layer adds a bias.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bias {
    /// It does.
    Yes,
    /// It does not, because a norm follows.
    No,
}

impl Conv3d {
    /// Cubic kernel; weights of deviation `sqrt(2 / fan_out)`, bias 0.
    pub fn new(
        inputs: usize,
        outputs: usize,
        kernel: usize,
        options: ConvOptions,
        bias: Bias,
        init: &mut Init,
    ) -> Self {
        let fan_out = kernel.pow(3) * outputs / options.groups;
        let shape = [outputs, inputs / options.groups, kernel, kernel, kernel];
        Self {
            weight: init.normal(shape, (2.0 / fan_out as f64).sqrt()),
            bias: (bias == Bias::Yes).then(|| init.constant([outputs], 0.0)),
            options,
        }
    }

    /// x `[B, C, D, H, W]` -> `[B, out, D', H', W']`.
    pub fn forward(&self, x: Tensor<5>) -> Tensor<5> {
        ops::conv3d(x, self.weight.val(), self.bias.as_ref().map(Param::val), self.options)
    }

    /// The convolution and the norm behind it. A norm by stored statistics costs no pass over the
    /// volume: its scale goes into the weights, its shift into the bias.
    ///
    /// # Shapes
    /// x `[B, C, D, H, W]` -> `[B, out, D', H', W']`
    pub fn forward_normed(&self, x: Tensor<5>, norm: &SpaceNorm) -> Tensor<5> {
        let Some((scale, shift)) = norm.affine() else { return norm.forward(self.forward(x)) };
        let bias = match &self.bias {
            Some(bias) => bias.val() * scale.clone() + shift,
            None => shift,
        };
        let outputs = scale.dims()[0];
        ops::conv3d(x, self.weight.val() * scale.reshape([outputs, 1, 1, 1, 1]), Some(bias), self.options)
    }
}

/// Transposed 3D convolution whose kernel is its stride: every voxel becomes a block.
#[derive(Module, Debug)]
pub struct ConvTranspose3d {
    /// `[in, out, s, s, s]`.
    pub weight: Param<Tensor<5>>,
    /// `[out]`.
    pub bias: Option<Param<Tensor<1>>>,
}

impl ConvTranspose3d {
    /// Weights of deviation `sqrt(2 / fan_out)`, bias 0.
    pub fn new(inputs: usize, outputs: usize, stride: usize, bias: Bias, init: &mut Init) -> Self {
        let fan_out = stride.pow(3) * outputs;
        Self {
            weight: init.normal([inputs, outputs, stride, stride, stride], (2.0 / fan_out as f64).sqrt()),
            bias: (bias == Bias::Yes).then(|| init.constant([outputs], 0.0)),
        }
    }

    /// x `[B, in, D, H, W]` -> `[B, out, sD, sH, sW]`.
    pub fn forward(&self, x: Tensor<5>) -> Tensor<5> {
        let outputs = self.weight.dims()[1];
        let bias = self.bias.as_ref().map_or_else(|| Tensor::zeros([outputs], &x.device().inner()), Param::val);
        ops::conv_transpose3d(x, self.weight.val(), bias)
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
