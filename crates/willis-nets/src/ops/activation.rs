//! Pointwise non-linearities.

use burn::tensor::Tensor;

/// `x * Phi(x)` with the exact error function.
pub fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    burn::tensor::activation::gelu(x)
}
