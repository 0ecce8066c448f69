//! A gradient that was computed elsewhere.

use burn::tensor::{Tensor, TensorData};

use super::kernel::{Kernel, apply1, on_cpu};

/// A scalar whose gradient by `x` is `gradient`; its value has no meaning.
///
/// # Shapes
/// x any, gradient as many values -> `[1]`
/// # Panics
/// if `gradient` does not fill x's shape (programmer error)
pub fn with_gradient<const D: usize>(x: Tensor<D>, gradient: Vec<f32>) -> Tensor<1> {
    assert_eq!(gradient.len(), x.shape().num_elements(), "one derivative per value");
    if !on_cpu(&x) {
        let gradient = Tensor::<D>::from_data(TensorData::new(gradient, x.dims()), &x.device());
        return (x * gradient).sum();
    }
    apply1(Given { gradient }, x)
}

struct Given {
    gradient: Vec<f32>,
}

impl std::fmt::Debug for Given {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Given({} derivatives)", self.gradient.len())
    }
}

impl Kernel<1> for Given {
    fn output_shape(&self) -> Vec<usize> {
        vec![1]
    }

    fn forward(&self, _: [&[f32]; 1]) -> Vec<f32> {
        vec![0.0]
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
    fn the_scalar_carries_the_gradient() {
        let x = Tensor::<1>::from_floats([1.0, 2.0], &Device::flex().autodiff()).require_grad();
        let grads = with_gradient(x.clone(), vec![3.0, -4.0]).backward();
        x.grad(&grads).unwrap().into_data().assert_eq(&TensorData::from([3.0f32, -4.0]), true);
    }
}
