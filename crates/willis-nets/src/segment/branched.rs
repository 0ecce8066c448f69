//! SegFormer3D for context, with a light convolutional branch at full and half resolution for the
//! wall of a 2 mm aneurysm, which a stride-4 grid cannot show.

use burn::module::Module;
use burn::tensor::Tensor;

use super::net::SegmentNetConfig;
use crate::backbones::segformer3d::SegFormer3d;
use crate::layers::{Activation, Conv3d, Conv3dConfig, ConvBlock, ConvBlockConfig, Init};
use crate::loss::segmentation::CHANNELS;
use crate::ops::{Corners, resize_trilinear};

/// The net.
#[derive(Module, Debug)]
pub struct Branched {
    backbone: SegFormer3d,
    full_in: ConvBlock,
    half_in: ConvBlock,
    half_in_blocks: Vec<ResidualBlock>,
    to_half: Conv3d,
    half_out: ConvBlock,
    half_out_blocks: Vec<ResidualBlock>,
    to_full: Conv3d,
    full_out: ConvBlock,
    full_out_blocks: Vec<ResidualBlock>,
    pub(super) head: Conv3d,
}

impl Branched {
    pub(super) fn new(config: &SegmentNetConfig, init: &mut Init) -> Self {
        let (full, half) = (config.full_channels, config.half_channels);
        let pointwise = |inputs, outputs, init: &mut Init| Conv3dConfig::pointwise(inputs, outputs).init(init);
        let head = pointwise(full, CHANNELS, init);
        let blocks = |channels, init: &mut Init| {
            (0..config.fine_blocks).map(|_| ResidualBlock::new(channels, init)).collect::<Vec<_>>()
        };
        Self {
            backbone: config.backbone.init(init),
            full_in: conv_block(1, full, 1, init),
            half_in: conv_block(full, half, 2, init),
            half_in_blocks: blocks(half, init),
            to_half: pointwise(config.backbone.decoder_dim, half, init),
            half_out: conv_block(half, half, 1, init),
            half_out_blocks: blocks(half, init),
            to_full: pointwise(half, full, init),
            full_out: conv_block(full, full, 1, init),
            full_out_blocks: blocks(full, init),
            head,
        }
    }

    /// x `[B, 4, D, H, W]`, every axis a multiple of 32 -> logits `[B, 15, D, H, W]`.
    pub fn forward(&self, x: Tensor<5>) -> Tensor<5> {
        let [_, _, depth, height, width] = x.dims();
        let full = self.full_in.forward(x.clone().narrow(1, 0, 1), None);
        let half = through(&self.half_in_blocks, self.half_in.forward(full.clone(), None));
        let features = self.backbone.features(x);
        let half_size = [depth / 2, height / 2, width / 2];
        // Convolving a concatenation is summing convolutions: the branches are summed at once,
        // after 1x1 convolutions that run before the interpolation they commute with.
        let half = half + resize_trilinear(self.to_half.forward(features.clone()), half_size, Corners::HalfPixel);
        let half = through(&self.half_out_blocks, self.half_out.forward(half, None));
        let full = full + resize_trilinear(self.to_full.forward(half), [depth, height, width], Corners::HalfPixel);
        let fine = self.head.forward(through(&self.full_out_blocks, self.full_out.forward(full, None)));
        let coarse = self.backbone.segformer_decoder.classify(features);
        fine + resize_trilinear(coarse, [depth, height, width], Corners::HalfPixel)
    }
}

/// 3x3x3 convolution, instance norm, GELU.
fn conv_block(inputs: usize, outputs: usize, stride: usize, init: &mut Init) -> ConvBlock {
    let conv = Conv3dConfig::new(inputs, outputs, 3).with_stride(stride).without_bias();
    ConvBlockConfig::new(conv, Activation::Gelu).init(init)
}

/// `x + W2 GELU(norm(W1 x))`: changes nothing at first, since W2 starts at zero, so that a trained
/// net can be given more of them.
#[derive(Module, Debug)]
struct ResidualBlock {
    first: ConvBlock,
    second: Conv3d,
}

impl ResidualBlock {
    fn new(channels: usize, init: &mut Init) -> Self {
        let first = conv_block(channels, channels, 1, init);
        let mut second = Conv3dConfig::new(channels, channels, 3).init(init);
        second.weight = init.constant(second.weight.dims(), 0.0);
        Self { first, second }
    }
}

fn through(blocks: &[ResidualBlock], x: Tensor<5>) -> Tensor<5> {
    blocks.iter().fold(x, |x, block| x.clone() + block.second.forward(block.first.forward(x, None)))
}
