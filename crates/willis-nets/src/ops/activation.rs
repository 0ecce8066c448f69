//! GELU and softmax.

use burn::tensor::Tensor;
use willis_kernels::activation as kernels;

use super::kernel::{Kernel, apply1, filled, on_cpu};

/// `x * Phi(x)` with the exact error function.
///
/// # Shapes      any -> the same
pub fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    if !on_cpu(&x) {
        return burn::tensor::activation::gelu(x);
    }
    let shape = x.dims().to_vec();
    apply1(Gelu { shape }, x)
}

/// Softmax over the last axis.
///
/// # Shapes      any -> the same
pub fn softmax<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    if !on_cpu(&x) {
        return burn::tensor::activation::softmax(x, D - 1);
    }
    let shape = x.dims().to_vec();
    apply1(Softmax { shape, width: x.dims()[D - 1] }, x)
}

#[derive(Debug)]
struct Gelu {
    shape: Vec<usize>,
}

impl Kernel<1> for Gelu {
    fn output_shape(&self) -> Vec<usize> {
        self.shape.clone()
    }

    fn forward(&self, [x]: [&[f32]; 1]) -> Vec<f32> {
        filled(x.len(), |y| kernels::gelu(x, y))
    }

    fn backward(&self, [x]: [&[f32]; 1], _output: &[f32], grad: &[f32], needs: [bool; 1]) -> [Option<Vec<f32>>; 1] {
        [needs[0].then(|| filled(x.len(), |dx| kernels::gelu_backward(x, grad, dx)))]
    }
}

#[derive(Debug)]
struct Softmax {
    shape: Vec<usize>,
    width: usize,
}

impl Kernel<1> for Softmax {
    fn output_shape(&self) -> Vec<usize> {
        self.shape.clone()
    }

    fn forward(&self, [x]: [&[f32]; 1]) -> Vec<f32> {
        filled(x.len(), |y| kernels::softmax(self.width, x, y))
    }

    fn backward(&self, [x]: [&[f32]; 1], y: &[f32], grad: &[f32], needs: [bool; 1]) -> [Option<Vec<f32>>; 1] {
        [needs[0].then(|| filled(x.len(), |dx| kernels::softmax_backward(self.width, y, grad, dx)))]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::kernel::tests::assert_same;

    #[test]
    fn values_and_gradients_equal_burn_s() {
        assert_same([2, 3, 7], |[x, _, _]| gelu(x * 3.0), |[x, _, _]| burn::tensor::activation::gelu(x * 3.0));
        assert_same([2, 3, 7], |[x, _, _]| softmax(x * 3.0), |[x, _, _]| burn::tensor::activation::softmax(x * 3.0, 2));
    }
}
