//! 3D convolution and its transpose.

use burn::module::{Module, Param};
use burn::tensor::Tensor;

use super::{Init, SpaceNorm};
use crate::ops::{self, ConvOptions};

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
