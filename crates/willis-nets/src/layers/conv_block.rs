//! Convolution, norm and activation.

use burn::module::Module;
use burn::tensor::Tensor;

use super::visible::VisibleCells;
use super::{Conv3d, Conv3dConfig, Init, SpaceNorm, SpaceNormConfig};
use crate::ops;

/// The function after a norm.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Activation {
    /// The identity.
    Identity,
    /// GELU with the exact error function.
    Gelu,
    /// Leaky ReLU with this slope below 0.
    LeakyRelu(f64),
}

/// Configuration of a [`ConvBlock`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ConvBlockConfig {
    /// The convolution.
    pub conv: Conv3dConfig,
    /// The function after the norm.
    pub activation: Activation,
}

/// `activation(instance norm(convolution(x)))`.
#[derive(Module, Debug)]
pub struct ConvBlock {
    /// The convolution.
    pub conv: Conv3d,
    /// The instance norm.
    pub norm: SpaceNorm,
    #[module(skip)]
    activation: Activation,
}

impl ConvBlockConfig {
    /// A block of this convolution and activation.
    pub const fn new(conv: Conv3dConfig, activation: Activation) -> Self {
        Self { conv, activation }
    }

    /// Creates the block.
    pub fn init(&self, init: &mut Init) -> ConvBlock {
        ConvBlock {
            conv: self.conv.init(init),
            norm: SpaceNormConfig::instance(self.conv.out_channels).init(init),
            activation: self.activation,
        }
    }
}

impl ConvBlock {
    /// Applies the block; given visible cells, only these take part and all others are 0.
    ///
    /// # Shapes
    /// x `[B, in, D, H, W]` -> `[B, out, D', H', W']`
    pub fn forward(&self, x: Tensor<5>, visible: Option<&VisibleCells>) -> Tensor<5> {
        let x = self.conv.forward(x);
        let x = match visible {
            Some(visible) => visible.norm(&self.norm, visible.mask(x)),
            None => self.norm.forward(x),
        };
        match self.activation {
            Activation::Identity => x,
            Activation::Gelu => ops::gelu(x),
            Activation::LeakyRelu(slope) => ops::leaky_relu(x, slope),
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::golden;

    fn block(activation: Activation) -> ConvBlock {
        let config = ConvBlockConfig::new(Conv3dConfig::new(2, 3, 3), activation);
        golden::fill(config.init(&mut Init::new(1, &Device::flex())), &[])
    }

    #[test]
    fn the_activation_follows_the_norm() {
        let x = golden::input([1, 2, 4, 4, 4], &Device::flex());
        let normed = block(Activation::Identity).forward(x.clone(), None);
        for (activation, expected) in [
            (Activation::Gelu, ops::gelu(normed.clone())),
            (Activation::LeakyRelu(0.1), ops::leaky_relu(normed.clone(), 0.1)),
        ] {
            block(activation).forward(x.clone(), None).into_data().assert_eq(&expected.into_data(), true);
        }
    }

    #[test]
    fn hidden_cells_change_nothing_and_stay_zero() {
        let device = Device::flex();
        let visible = VisibleCells::new(&[true, false, true, true, false, true, true, true], 1, [2; 3], &device);
        let x = golden::input([1, 2, 4, 4, 4], &device);
        let block = block(Activation::Gelu);
        let y = block.forward(visible.mask(x.clone()), Some(&visible));
        y.clone().into_data().assert_eq(&visible.mask(y).into_data(), true);
    }
}
