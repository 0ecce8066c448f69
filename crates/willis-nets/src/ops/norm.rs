//! Layer norm, instance norm, and the scale and shift of a batch norm with stored statistics.

use std::sync::OnceLock;

use burn::tensor::Tensor;
use willis_kernels::norm::{self as kernels, RowStats};

use super::buffers;
use super::kernel::{CpuKernel, RecomputeOutput, apply3, filled, on_cpu};

/// Layer norm over the last axis: `(x - mean) / sqrt(var + eps) * weight + bias` with the biased
/// variance.
///
/// # Shapes
/// x `[..., C]`, weight and bias `[C]` -> the same as x
pub fn layer_norm<const D: usize>(x: Tensor<D>, weight: Tensor<1>, bias: Tensor<1>, eps: f64) -> Tensor<D> {
    if !on_cpu(&x) {
        return portable_layer_norm(x, weight, bias, eps);
    }
    apply3(NormKernel::new(&x, NormAxes::Channels, eps), x, weight, bias)
}

/// Instance norm: like [`layer_norm`], but over space, with a scale and a shift per channel.
///
/// # Shapes
/// x `[B, C, D, H, W]`, weight and bias `[C]` -> the same as x
pub fn instance_norm(x: Tensor<5>, weight: Tensor<1>, bias: Tensor<1>, eps: f64) -> Tensor<5> {
    if !on_cpu(&x) {
        return portable_instance_norm(x, weight, bias, eps);
    }
    let volume = x.dims()[2..].iter().product();
    apply3(NormKernel::new(&x, NormAxes::Space { volume }, eps), x, weight, bias)
}

/// `scale x + offset` in each channel: a batch norm with stored statistics.
///
/// # Shapes
/// x `[B, C, D, H, W]`, scale and offset `[C]` -> the same as x
pub fn channel_affine(x: Tensor<5>, scale: Tensor<1>, offset: Tensor<1>) -> Tensor<5> {
    if !on_cpu(&x) {
        return portable_channel_affine(x, scale, offset);
    }
    let kernel = ChannelAffineKernel { shape: x.dims().to_vec(), volume: x.dims()[2..].iter().product() };
    apply3(kernel, x, scale, offset)
}

fn portable_channel_affine(x: Tensor<5>, scale: Tensor<1>, offset: Tensor<1>) -> Tensor<5> {
    let channels = scale.dims()[0];
    x * scale.reshape([1, channels, 1, 1, 1]) + offset.reshape([1, channels, 1, 1, 1])
}

fn portable_layer_norm<const D: usize>(x: Tensor<D>, weight: Tensor<1>, bias: Tensor<1>, eps: f64) -> Tensor<D> {
    let centred = x.clone() - x.mean_dim(D - 1);
    let variance = centred.clone().square().mean_dim(D - 1);
    centred / (variance + eps).sqrt() * weight.unsqueeze() + bias.unsqueeze()
}

fn portable_instance_norm(x: Tensor<5>, weight: Tensor<1>, bias: Tensor<1>, eps: f64) -> Tensor<5> {
    let [batch, channels, depth, height, width] = x.dims();
    let flat = x.reshape([batch, channels, depth * height * width]);
    let centred = flat.clone() - flat.mean_dim(2);
    let variance = centred.clone().square().mean_dim(2);
    let scaled = centred / (variance + eps).sqrt() * weight.reshape([1, channels, 1]) + bias.reshape([1, channels, 1]);
    scaled.reshape([batch, channels, depth, height, width])
}

/// The axes that mean and variance are taken over.
#[derive(Debug, Clone, Copy)]
enum NormAxes {
    Channels,
    Space { volume: usize },
}

#[derive(Debug)]
struct NormKernel {
    shape: Vec<usize>,
    axes: NormAxes,
    eps: f32,
    /// Mean and deviation of each row, saved by the forward pass for the backward pass.
    stats: OnceLock<Vec<RowStats>>,
}

impl NormKernel {
    fn new<const D: usize>(x: &Tensor<D>, axes: NormAxes, eps: f64) -> Self {
        Self { shape: x.dims().to_vec(), axes, eps: eps as f32, stats: OnceLock::new() }
    }

    fn run(&self, [x, gain, shift]: [&[f32]; 3]) -> (Vec<f32>, Vec<RowStats>) {
        let mut y = buffers::take(x.len());
        let row = match self.axes {
            NormAxes::Channels => gain.len(),
            NormAxes::Space { volume } => volume,
        };
        let mut stats = vec![RowStats::default(); x.len() / row.max(1)];
        match self.axes {
            NormAxes::Channels => kernels::layer_norm(x, gain, shift, self.eps, &mut y, &mut stats),
            NormAxes::Space { volume } => kernels::instance_norm(volume, x, gain, shift, self.eps, &mut y, &mut stats),
        }
        (y, stats)
    }
}

impl CpuKernel<3> for NormKernel {
    fn output_shape(&self) -> Vec<usize> {
        self.shape.clone()
    }

    fn forward(&self, inputs: [&[f32]; 3]) -> Vec<f32> {
        let (y, stats) = self.run(inputs);
        self.stats.get_or_init(|| stats);
        y
    }

    fn recompute(&self) -> RecomputeOutput {
        RecomputeOutput::Always
    }

    fn backward(&self, inputs: [&[f32]; 3], _output: &[f32], grad: &[f32], needs: [bool; 3]) -> [Option<Vec<f32>>; 3] {
        let [x, gain, shift] = inputs;
        let stats = self.stats.get_or_init(|| self.run(inputs).1);
        let [mut dx, mut dgain, mut dshift] = [x, gain, shift].map(|input| buffers::take(input.len()));
        match self.axes {
            NormAxes::Channels => kernels::layer_norm_backward(x, gain, stats, grad, &mut dx, &mut dgain, &mut dshift),
            NormAxes::Space { volume } => {
                kernels::instance_norm_backward(volume, x, gain, stats, grad, &mut dx, &mut dgain, &mut dshift);
            }
        }
        [needs[0].then_some(dx), needs[1].then_some(dgain), needs[2].then_some(dshift)]
    }
}

#[derive(Debug)]
struct ChannelAffineKernel {
    shape: Vec<usize>,
    volume: usize,
}

impl CpuKernel<3> for ChannelAffineKernel {
    fn output_shape(&self) -> Vec<usize> {
        self.shape.clone()
    }

    fn forward(&self, [x, scale, offset]: [&[f32]; 3]) -> Vec<f32> {
        filled(x.len(), |y| kernels::channel_affine(self.volume, x, scale, offset, y))
    }

    fn recompute(&self) -> RecomputeOutput {
        RecomputeOutput::Always
    }

    fn backward(&self, inputs: [&[f32]; 3], _output: &[f32], grad: &[f32], needs: [bool; 3]) -> [Option<Vec<f32>>; 3] {
        let [x, scale, _] = inputs;
        let [mut dx, mut dscale, mut doffset] = inputs.map(|input| buffers::take(input.len()));
        kernels::channel_affine_backward(self.volume, x, scale, grad, &mut dx, &mut dscale, &mut doffset);
        [needs[0].then_some(dx), needs[1].then_some(dscale), needs[2].then_some(doffset)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::kernel::tests::assert_same;

    #[test]
    fn values_and_gradients_equal_the_portable_forms() {
        assert_same(
            [2, 5, 3],
            |[x, w, b]| layer_norm(x, w.flatten(0, 2).slice(0..3), b.flatten(0, 2).slice(0..3), 1e-5),
            |[x, w, b]| portable_layer_norm(x, w.flatten(0, 2).slice(0..3), b.flatten(0, 2).slice(0..3), 1e-5),
        );
        assert_same(
            [2, 3, 2, 4, 3],
            |[x, w, b]| instance_norm(x, w.flatten(0, 4).slice(0..3), b.flatten(0, 4).slice(0..3), 1e-5),
            |[x, w, b]| portable_instance_norm(x, w.flatten(0, 4).slice(0..3), b.flatten(0, 4).slice(0..3), 1e-5),
        );
        assert_same(
            [2, 3, 2, 4, 3],
            |[x, w, b]| channel_affine(x, w.flatten(0, 4).slice(0..3), b.flatten(0, 4).slice(0..3)),
            |[x, w, b]| portable_channel_affine(x, w.flatten(0, 4).slice(0..3), b.flatten(0, 4).slice(0..3)),
        );
    }
}
