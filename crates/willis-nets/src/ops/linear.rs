//! Linear maps of the last axis.

use burn::tensor::Tensor;

use super::work::count;

/// `x W^T + b`.
///
/// # Shapes      x `[..., in]`, weight `[out, in]`, bias `[out]` -> `[..., out]`
pub fn linear<const D: usize>(x: Tensor<D>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<D> {
    count(x.shape().num_elements() * weight.dims()[0]);
    burn::tensor::module::linear(x, weight.transpose(), bias)
}
