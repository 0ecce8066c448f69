//! Losses with their gradients, on plain slices.
//!
//! A loss over a whole patch of fifteen channels touches memory many times when it is built from tensor operations.
//! Here the value and its gradient by the logits are computed together and [`surrogate`] hands the gradient to autodiff.

pub mod segmentation;
pub mod tversky;

use burn::tensor::Tensor;

use crate::ops;

/// A scalar whose gradient by `x` is `gradient`; its value has no meaning.
///
/// # Panics    if `gradient` does not fill x's shape (programmer error)
pub fn surrogate<const D: usize>(x: Tensor<D>, gradient: Vec<f32>) -> Tensor<1> {
    ops::with_gradient(x, gradient)
}

#[cfg(test)]
pub(crate) fn assert_gradient(f: impl Fn(&[f32]) -> f64, x: &[f32], gradient: &[f32], indices: &[usize]) {
    for &i in indices {
        let step = 1e-3;
        let moved = |by: f32| {
            let mut x = x.to_vec();
            x[i] += by;
            f(&x)
        };
        let numeric = (moved(step) - moved(-step)) / (2.0 * f64::from(step));
        let got = f64::from(gradient[i]);
        assert!((got - numeric).abs() <= 2e-3 * numeric.abs() + 2e-5, "[{i}] {got}, numerically {numeric}");
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, TensorData};

    use super::*;

    #[test]
    fn the_surrogate_carries_the_gradient() {
        let x = Tensor::<1>::from_floats([1.0, 2.0], &Device::flex().autodiff()).require_grad();
        let grads = surrogate(x.clone(), vec![3.0, -4.0]).backward();
        x.grad(&grads).unwrap().into_data().assert_eq(&TensorData::from([3.0f32, -4.0]), true);
    }
}
