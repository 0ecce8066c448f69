//! Linear maps of the last axis.

use burn::tensor::Tensor;
use willis_kernels::linear as kernels;

use super::kernel::{CpuKernel, apply3, filled, on_cpu};
use super::macs::record_macs;

/// Linear map of the last axis, `x W^T + b`.
///
/// # Shapes
/// x `[..., in]`, weight `[out, in]`, bias `[out]` -> `[..., out]`
pub fn linear<const D: usize>(x: Tensor<D>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<D> {
    let [outputs, inputs] = weight.dims();
    record_macs(x.shape().num_elements() * outputs);
    if !on_cpu(&x) {
        return portable(x, weight, bias);
    }
    let mut shape = x.dims().to_vec();
    shape[D - 1] = outputs;
    let bias = bias.unwrap_or_else(|| Tensor::zeros([outputs], &x.device().inner()));
    apply3(LinearKernel { shape, inputs }, x, weight, bias)
}

/// Fallback for other devices: burn's own operation.
fn portable<const D: usize>(x: Tensor<D>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<D> {
    burn::tensor::module::linear(x, weight.transpose(), bias)
}

#[derive(Debug)]
struct LinearKernel {
    /// Shape of the output.
    shape: Vec<usize>,
    inputs: usize,
}

impl CpuKernel<3> for LinearKernel {
    fn output_shape(&self) -> Vec<usize> {
        self.shape.clone()
    }

    fn forward(&self, [x, weight, bias]: [&[f32]; 3]) -> Vec<f32> {
        filled(self.shape.iter().product(), |y| kernels::linear(self.inputs, x, weight, Some(bias), y))
    }

    fn backward(
        &self,
        [x, weight, bias]: [&[f32]; 3],
        _output: &[f32],
        grad: &[f32],
        needs: [bool; 3],
    ) -> [Option<Vec<f32>>; 3] {
        [
            needs[0].then(|| filled(x.len(), |dx| kernels::input_gradient(self.inputs, weight, grad, dx))),
            needs[1].then(|| filled(weight.len(), |dw| kernels::weight_gradient(self.inputs, x, grad, dw))),
            needs[2].then(|| filled(bias.len(), |db| kernels::bias_gradient(grad, db))),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::kernel::tests::assert_same;

    #[test]
    fn values_and_gradients_equal_burns() {
        let weight = |w: Tensor<3>| w.reshape([14, 3]).slice([0..5, 0..3]);
        let bias = |b: Tensor<3>| b.flatten(0, 2).slice(0..5);
        assert_same(
            [2, 7, 3],
            |[x, w, b]| linear(x, weight(w), Some(bias(b))),
            |[x, w, b]| portable(x, weight(w), Some(bias(b))),
        );
        let twice = |x: Tensor<3>, b: Tensor<3>| x + b * 0.0;
        assert_same(
            [2, 7, 3],
            |[x, w, b]| linear(twice(x, b), weight(w), None),
            |[x, w, b]| portable(twice(x, b), weight(w), None),
        );
    }
}
