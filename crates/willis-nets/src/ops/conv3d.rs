//! 3D convolution and its transpose.

use burn::tensor::Tensor;
use willis_kernels::conv3d::{
    Conv3dShape, bias_gradient, forward, input_gradient, transpose_forward, transpose_input_gradient,
    transpose_weight_gradient, weight_gradient,
};

use super::kernel::{CpuKernel, RecomputeOutput, apply3, filled, on_cpu};
use super::macs::record_macs;

/// Stride, padding and groups of a convolution. The dilation is always 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConvOptions {
    /// Stride along each axis.
    pub stride: [usize; 3],
    /// Zeros added at both ends of each axis.
    pub padding: [usize; 3],
    /// Channel groups; one per channel makes the convolution depthwise.
    pub groups: usize,
}

impl ConvOptions {
    /// Options with the same stride and padding along every axis and one group.
    pub const fn cubic(stride: usize, padding: usize) -> Self {
        Self { stride: [stride; 3], padding: [padding; 3], groups: 1 }
    }
}

/// 3D convolution (cross-correlation), as PyTorch's `conv3d`.
///
/// # Shapes
/// x `[B, C, D, H, W]`, weight `[K, C / groups, d, h, w]`, bias `[K]` -> `[B, K, D', H', W']`
pub fn conv3d(x: Tensor<5>, weight: Tensor<5>, bias: Option<Tensor<1>>, options: ConvOptions) -> Tensor<5> {
    let [batch, in_channels, depth, height, width] = x.dims();
    let [out_channels, _, kd, kh, kw] = weight.dims();
    let shape = Conv3dShape {
        batch,
        in_channels,
        out_channels,
        input: [depth, height, width],
        kernel: [kd, kh, kw],
        stride: options.stride,
        padding: options.padding,
        dilation: [1; 3],
        groups: options.groups,
    };
    record_macs(shape.output_len() * shape.weight_len() / out_channels);
    if !on_cpu(&x) {
        return portable(x, weight, bias, options);
    }
    let bias = bias.unwrap_or_else(|| Tensor::zeros([out_channels], &x.device().inner()));
    apply3(Conv3dKernel(shape), x, weight, bias)
}

/// Fallback for other devices: burn's own operation.
fn portable(x: Tensor<5>, weight: Tensor<5>, bias: Option<Tensor<1>>, options: ConvOptions) -> Tensor<5> {
    let options = burn::tensor::ops::ConvOptions::new(options.stride, options.padding, [1; 3], options.groups);
    burn::tensor::module::conv3d(x, weight, bias, options)
}

#[derive(Debug)]
struct Conv3dKernel(Conv3dShape);

impl CpuKernel<3> for Conv3dKernel {
    fn output_shape(&self) -> Vec<usize> {
        [&[self.0.batch, self.0.out_channels][..], &self.0.output()].concat()
    }

    fn forward(&self, [x, weight, bias]: [&[f32]; 3]) -> Vec<f32> {
        filled(self.0.output_len(), |y| forward(&self.0, x, weight, Some(bias), y))
    }

    fn recompute(&self) -> RecomputeOutput {
        let depthwise = self.0.groups == self.0.in_channels;
        if depthwise && self.0.groups > 1 { RecomputeOutput::Always } else { RecomputeOutput::Never }
    }

    fn backward(
        &self,
        [x, weight, bias]: [&[f32]; 3],
        _output: &[f32],
        grad: &[f32],
        needs: [bool; 3],
    ) -> [Option<Vec<f32>>; 3] {
        [
            needs[0].then(|| filled(x.len(), |dx| input_gradient(&self.0, weight, grad, dx))),
            needs[1].then(|| filled(weight.len(), |dw| weight_gradient(&self.0, x, grad, dw))),
            needs[2].then(|| filled(bias.len(), |db| bias_gradient(&self.0, grad, db))),
        ]
    }
}

/// Transposed 3D convolution with kernel = stride and no padding, as PyTorch's `conv_transpose3d`:
/// each voxel becomes a cube of voxels.
///
/// # Shapes
/// x `[B, C, D, H, W]`, weight `[C, K, s, s, s]`, bias `[K]` -> `[B, K, sD, sH, sW]`
pub fn conv_transpose3d(x: Tensor<5>, weight: Tensor<5>, bias: Tensor<1>) -> Tensor<5> {
    let [batch, in_channels, depth, height, width] = x.dims();
    let [_, out_channels, kd, kh, kw] = weight.dims();
    let kernel = [kd, kh, kw];
    record_macs(x.shape().num_elements() * out_channels * kd * kh * kw);
    if !on_cpu(&x) {
        let options = burn::tensor::ops::ConvTransposeOptions::new(kernel, [0; 3], [0; 3], [1; 3], 1);
        return burn::tensor::module::conv_transpose3d(x, weight, Some(bias), options);
    }
    // The convolution whose adjoint this is.
    let shape = Conv3dShape {
        batch,
        in_channels: out_channels,
        out_channels: in_channels,
        input: [depth * kd, height * kh, width * kw],
        kernel,
        stride: kernel,
        padding: [0; 3],
        dilation: [1; 3],
        groups: 1,
    };
    apply3(ConvTranspose3dKernel(shape), x, weight, bias)
}

#[derive(Debug)]
struct ConvTranspose3dKernel(Conv3dShape);

impl CpuKernel<3> for ConvTranspose3dKernel {
    fn output_shape(&self) -> Vec<usize> {
        [&[self.0.batch, self.0.in_channels][..], &self.0.input].concat()
    }

    fn forward(&self, [x, weight, bias]: [&[f32]; 3]) -> Vec<f32> {
        filled(self.0.input_len(), |y| transpose_forward(&self.0, x, weight, Some(bias), y))
    }

    fn backward(
        &self,
        [x, weight, bias]: [&[f32]; 3],
        _output: &[f32],
        grad: &[f32],
        needs: [bool; 3],
    ) -> [Option<Vec<f32>>; 3] {
        // The gradient of the bias is the sum of `grad` over batch and space, as for a convolution
        // with this output.
        let one_to_one =
            Conv3dShape { in_channels: bias.len(), out_channels: bias.len(), kernel: [1; 3], stride: [1; 3], ..self.0 };
        [
            needs[0].then(|| filled(x.len(), |dx| transpose_input_gradient(&self.0, weight, grad, dx))),
            needs[1].then(|| filled(weight.len(), |dw| transpose_weight_gradient(&self.0, x, grad, dw))),
            needs[2].then(|| filled(bias.len(), |db| bias_gradient(&one_to_one, grad, db))),
        ]
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Tolerance};

    use super::*;
    use crate::golden;

    type Convolve = fn(Tensor<5>, Tensor<5>, Option<Tensor<1>>, ConvOptions) -> Tensor<5>;

    /// The output of a convolution, and the gradients of `sum(conv(x)^2)` with respect to x, weight
    /// and bias.
    fn run(convolve: Convolve, options: ConvOptions, channels: [usize; 2], kernel: usize) -> Vec<Vec<f32>> {
        let device = Device::flex().autodiff();
        let weight_shape = [channels[1], channels[0] / options.groups, kernel, kernel, kernel];
        let x = golden::input([2, channels[0], 5, 6, 7], &device).require_grad();
        let weight = golden::input(weight_shape, &device).require_grad();
        let bias = golden::input([channels[1]], &device).require_grad();
        let y = convolve(x.clone(), weight.clone(), Some(bias.clone()), options);
        let grads = y.clone().square().sum().backward();
        let values = |data: burn::tensor::TensorData| data.try_to_vec::<f32>().unwrap();
        vec![
            values(y.into_data()),
            values(x.grad(&grads).unwrap().into_data()),
            values(weight.grad(&grads).unwrap().into_data()),
            values(bias.grad(&grads).unwrap().into_data()),
        ]
    }

    #[test]
    fn output_and_gradients_equal_burns() {
        let depthwise = ConvOptions { groups: 4, ..ConvOptions::cubic(1, 1) };
        for (options, channels, kernel) in [
            (ConvOptions::cubic(1, 1), [3, 2], 3),
            (ConvOptions::cubic(2, 1), [2, 5], 3),
            (depthwise, [4, 4], 3),
            (ConvOptions::cubic(1, 0), [3, 5], 1),
        ] {
            let ours = run(conv3d, options, channels, kernel);
            for (ours, theirs) in ours.iter().zip(run(portable, options, channels, kernel)) {
                let shape = [ours.len()];
                let ours = burn::tensor::TensorData::new(ours.clone(), shape);
                let theirs = burn::tensor::TensorData::new(theirs, shape);
                ours.assert_approx_eq::<f32>(&theirs, Tolerance::rel_abs(1e-4, 1e-4));
            }
        }
    }

    #[test]
    fn the_transpose_equals_burns() {
        let device = Device::flex().autodiff();
        let run = |ours: bool| {
            let x = golden::input([2, 3, 2, 3, 4], &device).require_grad();
            let weight = golden::input([3, 5, 2, 2, 2], &device).require_grad();
            let bias = golden::input([5], &device).require_grad();
            let y = if ours {
                conv_transpose3d(x.clone(), weight.clone(), bias.clone())
            } else {
                let options = burn::tensor::ops::ConvTransposeOptions::new([2; 3], [0; 3], [0; 3], [1; 3], 1);
                burn::tensor::module::conv_transpose3d(x.clone(), weight.clone(), Some(bias.clone()), options)
            };
            let grads = y.clone().square().sum().backward();
            let gradients =
                [x.grad(&grads), weight.grad(&grads), bias.grad(&grads).map(|g| g.reshape([5, 1, 1, 1, 1]))];
            (y, gradients)
        };
        let ((y, gradients), (expected_y, expected)) = (run(true), run(false));
        let tolerance = Tolerance::rel_abs(1e-4, 1e-4);
        y.into_data().assert_approx_eq::<f32>(&expected_y.into_data(), tolerance);
        for (gradient, expected) in gradients.into_iter().zip(expected) {
            gradient.unwrap().into_data().assert_approx_eq::<f32>(&expected.unwrap().into_data(), tolerance);
        }
    }
}
