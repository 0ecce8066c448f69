//! The all-MLP decoder.

use burn::module::Module;
use burn::tensor::Tensor;

use super::SegFormer3dConfig;
use super::encoder::Tokens;
use crate::layers::{
    Conv3d, Conv3dConfig, Init, LayerNorm, LayerNormConfig, Linear, LinearConfig, SpaceNorm, SpaceNormConfig,
};
use crate::ops::{self, Corners, resize_trilinear};

/// Projects the four stages to one width, resizes them to the finest stage's grid and fuses them.
#[derive(Module, Debug)]
pub struct SegFormerDecoder {
    linear_c1: Projection,
    linear_c2: Projection,
    linear_c3: Projection,
    linear_c4: Projection,
    linear_fuse: Fuse,
    linear_pred: Conv3d,
}

impl SegFormerDecoder {
    pub(super) fn new(config: &SegFormer3dConfig, init: &mut Init) -> Self {
        let dim = config.decoder_dim;
        let [c1, c2, c3, c4] = config.embed_dims.map(|channels| Projection {
            proj: LinearConfig::new(channels, dim).init(init),
            bn: LayerNormConfig::new(dim).init(init),
        });
        Self {
            linear_c1: c1,
            linear_c2: c2,
            linear_c3: c3,
            linear_c4: c4,
            linear_fuse: Fuse {
                conv: Conv3dConfig::pointwise(4 * dim, dim).without_bias().init(init),
                norm: SpaceNormConfig::new(dim, config.statistics).init(init),
            },
            linear_pred: Conv3dConfig::pointwise(dim, config.num_classes).init(init),
        }
    }

    /// Fused features of the four stages.
    ///
    /// The 1x1 convolution over the concatenation `[c4, c3, c2, c1]` is split into four, one per
    /// stage. Each commutes with the interpolation and is applied before it, on the smaller grid. A
    /// norm with stored statistics is folded into them: its scale into their weights, its shift
    /// into the bias of the finest one.
    ///
    /// # Shapes
    /// tokens of the four stages, finest first -> `[B, decoder_dim, D, H, W]` on the finest grid
    pub fn features(&self, stages: [Tokens; 4]) -> Tensor<5> {
        let finest = stages[0].grid;
        let projections = [&self.linear_c1, &self.linear_c2, &self.linear_c3, &self.linear_c4];
        let [first, second, third, fourth] = stages;
        let (weight, mut shift) = self.linear_fuse.folded();
        let folded = shift.is_some();
        let mut part = |tokens: Tokens, stage: usize| {
            let columns = block(&weight, 3 - stage);
            let fused = tokens.map(|x| ops::linear(projections[stage].forward(x), columns, shift.take()));
            resize_trilinear(fused.into_volume(), finest, Corners::HalfPixel)
        };
        let sum = part(first, 0) + part(second, 1) + part(third, 2) + part(fourth, 3);
        let normed = if folded { sum } else { self.linear_fuse.norm.forward(sum) };
        ops::leaky_relu(normed, 0.0)
    }

    /// The last convolution, whose outputs are the logits.
    pub(crate) fn head(&mut self) -> &mut Conv3d {
        &mut self.linear_pred
    }

    /// Logits of features.
    ///
    /// # Shapes
    /// features `[B, decoder_dim, D, H, W]` -> `[B, num_classes, D, H, W]`
    pub fn classify(&self, features: Tensor<5>) -> Tensor<5> {
        self.linear_pred.forward(features)
    }
}

/// A linear layer and its layer norm, which the official code names `bn`.
#[derive(Module, Debug)]
struct Projection {
    proj: Linear,
    bn: LayerNorm,
}

impl Projection {
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        self.bn.forward(self.proj.forward(x))
    }
}

/// The 1x1 convolution over the concatenated stages, and its norm.
#[derive(Module, Debug)]
struct Fuse {
    conv: Conv3d,
    norm: SpaceNorm,
}

impl Fuse {
    /// Weight `[dim, 4 dim]` and bias `[dim]` with the norm folded into them if its statistics are
    /// stored; otherwise the weight and no bias.
    fn folded(&self) -> (Tensor<2>, Option<Tensor<1>>) {
        let [dim, inputs, ..] = self.conv.weight.dims();
        let weight = self.conv.weight.val().reshape([dim, inputs]);
        match self.norm.affine() {
            Some((scale, shift)) => (weight * scale.reshape([dim, 1]), Some(shift)),
            None => (weight, None),
        }
    }
}

/// Columns of the fusing weight for one stage: `[dim, 4 dim]` -> `[dim, dim]`; `position` is the
/// stage's place in the concatenation.
fn block(weight: &Tensor<2>, position: usize) -> Tensor<2> {
    let dim = weight.dims()[0];
    weight.clone().narrow(1, position * dim, dim)
}
