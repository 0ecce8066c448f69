//! GELU, leaky ReLU and softmax.

use burn::tensor::Tensor;
use willis_kernels::activation as kernels;

use super::kernel::{CpuKernel, RecomputeOutput, SavedForBackward, apply1, filled, on_cpu};

/// GELU: `x Φ(x)` with the exact error function.
///
/// # Shapes
/// any -> the same
pub fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    if !on_cpu(&x) {
        return burn::tensor::activation::gelu(x);
    }
    let shape = x.dims().to_vec();
    apply1(GeluKernel { shape }, x)
}

/// Leaky ReLU: `x` if positive, else `slope * x`. A slope of 0 gives ReLU.
///
/// # Shapes
/// any -> the same
///
/// # Panics
/// if the slope is negative (programmer error)
pub fn leaky_relu<const D: usize>(x: Tensor<D>, slope: f64) -> Tensor<D> {
    if !on_cpu(&x) {
        return burn::tensor::activation::leaky_relu(x, slope);
    }
    assert!(slope >= 0.0, "slope = {slope} is negative");
    let shape = x.dims().to_vec();
    apply1(LeakyReluKernel { shape, slope: slope as f32 }, x)
}

/// Softmax over the last axis.
///
/// # Shapes
/// any -> the same
pub fn softmax<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    if !on_cpu(&x) {
        return burn::tensor::activation::softmax(x, D - 1);
    }
    let shape = x.dims().to_vec();
    apply1(SoftmaxKernel { shape, width: x.dims()[D - 1] }, x)
}

#[derive(Debug)]
struct GeluKernel {
    shape: Vec<usize>,
}

impl CpuKernel<1> for GeluKernel {
    fn output_shape(&self) -> Vec<usize> {
        self.shape.clone()
    }

    fn forward(&self, [x]: [&[f32]; 1]) -> Vec<f32> {
        filled(x.len(), |y| kernels::gelu(x, y))
    }

    fn recompute(&self) -> RecomputeOutput {
        RecomputeOutput::Always
    }

    fn backward(&self, [x]: [&[f32]; 1], _output: &[f32], grad: &[f32], needs: [bool; 1]) -> [Option<Vec<f32>>; 1] {
        [needs[0].then(|| filled(x.len(), |dx| kernels::gelu_backward(x, grad, dx)))]
    }
}

#[derive(Debug)]
struct LeakyReluKernel {
    shape: Vec<usize>,
    slope: f32,
}

impl CpuKernel<1> for LeakyReluKernel {
    fn output_shape(&self) -> Vec<usize> {
        self.shape.clone()
    }

    fn forward(&self, [x]: [&[f32]; 1]) -> Vec<f32> {
        filled(x.len(), |y| kernels::leaky_relu(self.slope, x, y))
    }

    fn recompute(&self) -> RecomputeOutput {
        RecomputeOutput::Always
    }

    fn backward(&self, [x]: [&[f32]; 1], _output: &[f32], grad: &[f32], needs: [bool; 1]) -> [Option<Vec<f32>>; 1] {
        [needs[0].then(|| filled(x.len(), |dx| kernels::leaky_relu_backward(self.slope, x, grad, dx)))]
    }
}

#[derive(Debug)]
struct SoftmaxKernel {
    shape: Vec<usize>,
    width: usize,
}

impl CpuKernel<1> for SoftmaxKernel {
    fn output_shape(&self) -> Vec<usize> {
        self.shape.clone()
    }

    fn forward(&self, [x]: [&[f32]; 1]) -> Vec<f32> {
        filled(x.len(), |y| kernels::softmax(self.width, x, y))
    }

    fn saved_for_backward(&self) -> SavedForBackward {
        SavedForBackward::Output
    }

    fn backward(&self, _: [&[f32]; 1], y: &[f32], grad: &[f32], needs: [bool; 1]) -> [Option<Vec<f32>>; 1] {
        [needs[0].then(|| filled(y.len(), |dx| kernels::softmax_backward(self.width, y, grad, dx)))]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::kernel::tests::assert_same;

    #[test]
    fn values_and_gradients_equal_burns() {
        assert_same([2, 3, 7], |[x, _, _]| gelu(x * 3.0), |[x, _, _]| burn::tensor::activation::gelu(x * 3.0));
        for slope in [0.0, 0.01] {
            let theirs = |[x, _, _]: [Tensor<3>; 3]| burn::tensor::activation::leaky_relu(x, slope);
            assert_same([2, 3, 7], |[x, _, _]| leaky_relu(x, slope), theirs);
        }
        assert_same([2, 3, 7], |[x, _, _]| softmax(x * 3.0), |[x, _, _]| burn::tensor::activation::softmax(x * 3.0, 2));
    }
}
