//! Linear layer.

use burn::module::{Module, Param};
use burn::tensor::Tensor;

use super::{Bias, Init};
use crate::ops;

/// Configuration of a [`Linear`] layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinearConfig {
    /// Input features.
    pub inputs: usize,
    /// Output features.
    pub outputs: usize,
    /// Whether a bias is added.
    pub bias: Bias,
}

/// `y = x W^T + b` over the last axis.
#[derive(Module, Debug)]
pub struct Linear {
    /// `[out, in]`.
    pub weight: Param<Tensor<2>>,
    /// `[out]`.
    pub bias: Option<Param<Tensor<1>>>,
}

impl LinearConfig {
    /// A layer with a bias.
    pub const fn new(inputs: usize, outputs: usize) -> Self {
        Self { inputs, outputs, bias: Bias::Yes }
    }

    /// The same layer without a bias.
    pub const fn without_bias(self) -> Self {
        Self { bias: Bias::No, ..self }
    }

    /// Creates the layer: weights with standard deviation 0.02 (as in SegFormer), bias 0.
    pub fn init(&self, init: &mut Init) -> Linear {
        Linear {
            weight: init.normal([self.outputs, self.inputs], 0.02),
            bias: (self.bias == Bias::Yes).then(|| init.constant([self.outputs], 0.0)),
        }
    }
}

impl Linear {
    /// Applies the layer.
    ///
    /// # Shapes
    /// x `[..., in]` -> `[..., out]`
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let bias = self.bias.as_ref().map(Param::val);
        ops::linear(x, self.weight.val(), bias)
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn values_by_hand_with_and_without_bias() {
        let device = Device::flex();
        let x = Tensor::<2>::from_floats([[1.0, 2.0]], &device);
        for (config, expected) in
            [(LinearConfig::new(2, 2), [1.5, 0.5]), (LinearConfig::new(2, 2).without_bias(), [1.0, 0.0])]
        {
            let mut layer = config.init(&mut Init::new(1, &device));
            layer.weight = Param::from_tensor(Tensor::from_floats([[1.0, 0.0], [2.0, -1.0]], &device));
            layer.bias = layer.bias.map(|_| Param::from_tensor(Tensor::from_floats([0.5, 0.5], &device)));
            assert_eq!(layer.forward(x.clone()).into_data().try_to_vec::<f32>().unwrap(), expected);
        }
    }
}
