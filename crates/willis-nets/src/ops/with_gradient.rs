//! A scalar with a precomputed gradient.

use burn::tensor::{Tensor, TensorData};

use super::kernel::{CpuKernel, SavedForBackward, apply1, on_cpu};

/// Returns a scalar whose gradient with respect to `x` is `gradient`; its value is meaningless.
///
/// It connects a loss that computes its own gradient to autodiff.
///
/// # Shapes
/// x any, gradient with as many values -> `[1]`
///
/// # Panics
/// if the number of values of `gradient` and `x` differ (programmer error)
pub fn with_gradient<const D: usize>(x: Tensor<D>, gradient: Vec<f32>) -> Tensor<1> {
    assert_eq!(gradient.len(), x.shape().num_elements(), "one derivative per value");
    if !on_cpu(&x) {
        let gradient = Tensor::<D>::from_data(TensorData::new(gradient, x.dims()), &x.device());
        return (x * gradient).sum();
    }
    apply1(PrecomputedGradient { gradient }, x)
}

struct PrecomputedGradient {
    gradient: Vec<f32>,
}

impl std::fmt::Debug for PrecomputedGradient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PrecomputedGradient({} values)", self.gradient.len())
    }
}

impl CpuKernel<1> for PrecomputedGradient {
    fn output_shape(&self) -> Vec<usize> {
        vec![1]
    }

    fn forward(&self, _: [&[f32]; 1]) -> Vec<f32> {
        vec![0.0]
    }

    fn saved_for_backward(&self) -> SavedForBackward {
        SavedForBackward::Neither
    }

    fn backward(&self, _: [&[f32]; 1], _output: &[f32], grad: &[f32], needs: [bool; 1]) -> [Option<Vec<f32>>; 1] {
        [needs[0].then(|| self.gradient.iter().map(|g| g * grad[0]).collect())]
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn backward_returns_the_given_gradient() {
        let x = Tensor::<1>::from_floats([1.0, 2.0], &Device::flex().autodiff()).require_grad();
        let grads = with_gradient(x.clone(), vec![3.0, -4.0]).backward();
        x.grad(&grads).unwrap().into_data().assert_eq(&TensorData::from([3.0f32, -4.0]), true);
    }
}
