//! 3D convolution and its transpose.

use burn::module::{Module, Param};
use burn::tensor::Tensor;

use super::{Init, SpaceNorm};
use crate::ops::{self, ConvOptions};

/// Whether a layer adds a bias.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bias {
    /// The layer adds a bias.
    Yes,
    /// The layer adds none, usually because a norm follows.
    No,
}

/// Configuration of a [`Conv3d`] with a cubic kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conv3dConfig {
    /// Input channels.
    pub in_channels: usize,
    /// Output channels.
    pub out_channels: usize,
    /// Side of the kernel in voxels.
    pub kernel: usize,
    /// Stride, padding and channel groups.
    pub options: ConvOptions,
    /// Whether a bias is added.
    pub bias: Bias,
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

impl Conv3dConfig {
    /// A convolution at stride 1 with bias; an odd kernel keeps the grid.
    pub const fn new(in_channels: usize, out_channels: usize, kernel: usize) -> Self {
        Self { in_channels, out_channels, kernel, options: ConvOptions::cubic(1, kernel / 2), bias: Bias::Yes }
    }

    /// A 1x1x1 convolution with bias.
    pub const fn pointwise(in_channels: usize, out_channels: usize) -> Self {
        Self::new(in_channels, out_channels, 1)
    }

    /// A convolution of each channel by itself, with bias; an odd kernel keeps the grid.
    pub const fn depthwise(channels: usize, kernel: usize) -> Self {
        let config = Self::new(channels, channels, kernel);
        Self { options: ConvOptions { groups: channels, ..config.options }, ..config }
    }

    /// A convolution of adjacent cubes of `side` voxels (kernel = stride, no padding), with bias.
    pub const fn patches(in_channels: usize, out_channels: usize, side: usize) -> Self {
        Self { options: ConvOptions::cubic(side, 0), ..Self::new(in_channels, out_channels, side) }
    }

    /// The same layer with another stride along every axis.
    pub const fn with_stride(self, stride: usize) -> Self {
        Self { options: ConvOptions { stride: [stride; 3], ..self.options }, ..self }
    }

    /// The same layer without a bias.
    pub const fn without_bias(self) -> Self {
        Self { bias: Bias::No, ..self }
    }

    /// Creates the layer: weights with standard deviation `sqrt(2 / fan_out)`, bias 0.
    pub fn init(&self, init: &mut Init) -> Conv3d {
        let &Self { in_channels, out_channels, kernel, options, bias } = self;
        let fan_out = kernel.pow(3) * out_channels / options.groups;
        let shape = [out_channels, in_channels / options.groups, kernel, kernel, kernel];
        Conv3d {
            weight: init.normal(shape, (2.0 / fan_out as f64).sqrt()),
            bias: (bias == Bias::Yes).then(|| init.constant([out_channels], 0.0)),
            options,
        }
    }
}

impl Conv3d {
    /// Applies the convolution.
    ///
    /// # Shapes
    /// x `[B, in, D, H, W]` -> `[B, out, D', H', W']`
    pub fn forward(&self, x: Tensor<5>) -> Tensor<5> {
        ops::conv3d(x, self.weight.val(), self.bias.as_ref().map(Param::val), self.options)
    }

    /// Applies the convolution and then `norm`.
    ///
    /// A norm with stored statistics is folded into the convolution: its scale into the weights,
    /// its shift into the bias. This saves a pass over the volume.
    ///
    /// # Shapes
    /// x `[B, in, D, H, W]` -> `[B, out, D', H', W']`
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

/// Configuration of a [`ConvTranspose3d`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConvTranspose3dConfig {
    /// Input channels.
    pub in_channels: usize,
    /// Output channels.
    pub out_channels: usize,
    /// Stride and side of the kernel in voxels.
    pub stride: usize,
    /// Whether a bias is added.
    pub bias: Bias,
}

/// Transposed 3D convolution whose kernel equals its stride: each voxel becomes a cube of voxels.
#[derive(Module, Debug)]
pub struct ConvTranspose3d {
    /// `[in, out, s, s, s]`.
    pub weight: Param<Tensor<5>>,
    /// `[out]`.
    pub bias: Option<Param<Tensor<1>>>,
}

impl ConvTranspose3dConfig {
    /// A layer with a bias.
    pub const fn new(in_channels: usize, out_channels: usize, stride: usize) -> Self {
        Self { in_channels, out_channels, stride, bias: Bias::Yes }
    }

    /// The same layer without a bias.
    pub const fn without_bias(self) -> Self {
        Self { bias: Bias::No, ..self }
    }

    /// Creates the layer: weights with standard deviation `sqrt(2 / fan_out)`, bias 0.
    pub fn init(&self, init: &mut Init) -> ConvTranspose3d {
        let &Self { in_channels, out_channels, stride, bias } = self;
        let fan_out = stride.pow(3) * out_channels;
        ConvTranspose3d {
            weight: init.normal([in_channels, out_channels, stride, stride, stride], (2.0 / fan_out as f64).sqrt()),
            bias: (bias == Bias::Yes).then(|| init.constant([out_channels], 0.0)),
        }
    }
}

impl ConvTranspose3d {
    /// Applies the transposed convolution.
    ///
    /// # Shapes
    /// x `[B, in, D, H, W]` -> `[B, out, sD, sH, sW]`
    pub fn forward(&self, x: Tensor<5>) -> Tensor<5> {
        let outputs = self.weight.dims()[1];
        let bias = self.bias.as_ref().map_or_else(|| Tensor::zeros([outputs], &x.device().inner()), Param::val);
        ops::conv_transpose3d(x, self.weight.val(), bias)
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Tolerance};

    use super::*;
    use crate::golden;
    use crate::layers::{SpaceNormConfig, Statistics};

    #[test]
    fn output_sizes_follow_the_configuration() {
        let device = Device::flex();
        let init = &mut Init::new(1, &device);
        let x = golden::input([2, 4, 6, 8, 4], &device);
        for (config, expected) in [
            (Conv3dConfig::new(4, 3, 3), [2, 3, 6, 8, 4]),
            (Conv3dConfig::new(4, 3, 3).with_stride(2), [2, 3, 3, 4, 2]),
            (Conv3dConfig::pointwise(4, 5).without_bias(), [2, 5, 6, 8, 4]),
            (Conv3dConfig::depthwise(4, 3), [2, 4, 6, 8, 4]),
            (Conv3dConfig::patches(4, 6, 2), [2, 6, 3, 4, 2]),
        ] {
            let layer = config.init(init);
            assert_eq!(layer.bias.is_some(), config.bias == Bias::Yes);
            assert_eq!(layer.forward(x.clone()).dims(), expected);
        }
        let layer = ConvTranspose3dConfig::new(4, 3, 2).without_bias().init(init);
        assert_eq!(layer.forward(x).dims(), [2, 3, 12, 16, 8]);
    }

    #[test]
    fn a_folded_norm_equals_a_norm_after_the_convolution() {
        let device = Device::flex();
        let init = &mut Init::new(1, &device);
        let x = golden::input([2, 3, 4, 5, 6], &device);
        for (statistics, config) in [
            (Statistics::Stored, Conv3dConfig::new(3, 2, 3)),
            (Statistics::Stored, Conv3dConfig::new(3, 2, 3).without_bias()),
            (Statistics::Own, Conv3dConfig::new(3, 2, 3)),
        ] {
            let norm = golden::fill(SpaceNormConfig::new(2, statistics).init(init), &[]);
            let conv = golden::fill(config.init(init), &[]);
            let expected = norm.forward(conv.forward(x.clone())).into_data();
            let folded = conv.forward_normed(x.clone(), &norm).into_data();
            folded.assert_approx_eq::<f32>(&expected, Tolerance::absolute(1e-5));
        }
    }
}
