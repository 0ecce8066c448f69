//! SegFormer3D with a light convolutional branch at full and half resolution. SegFormer3D sees
//! context on a grid of stride 4, which cannot show the wall of a 2 mm aneurysm; the branch can.

use burn::module::Module;
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};
use willis_core::InvalidValue;

use crate::backbones::segformer3d::{SegFormer3d, SegFormer3dConfig};
use crate::layers::{Activation, Conv3d, Conv3dConfig, ConvBlock, ConvBlockConfig, Init};
use crate::ops::{Corners, resize_trilinear};
use crate::rules;

/// Most residual blocks at each of the three places of the branch.
const MAX_FINE_BLOCKS: usize = 64;

/// Sizes of a [`Branched`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BranchedConfig {
    /// SegFormer3D.
    pub backbone: SegFormer3dConfig,
    /// Channels of the branch at full resolution.
    pub full_channels: usize,
    /// Channels of the branch at half resolution.
    pub half_channels: usize,
    /// Residual blocks at each of three places of the branch: at half resolution before and after
    /// SegFormer3D's features are added, and at full resolution.
    pub fine_blocks: usize,
}

impl Default for BranchedConfig {
    fn default() -> Self {
        Self { backbone: SegFormer3dConfig::default(), full_channels: 8, half_channels: 16, fine_blocks: 0 }
    }
}

impl BranchedConfig {
    /// Checks that a net of these sizes exists.
    ///
    /// # Errors
    /// the first field whose value breaks a rule
    pub fn validate(&self) -> Result<(), InvalidValue> {
        self.backbone.validate().map_err(|error| error.within("backbone"))?;
        rules::size("full_channels", self.full_channels)?;
        rules::size("half_channels", self.half_channels)?;
        if self.fine_blocks > MAX_FINE_BLOCKS {
            let rule = format!("must lie between 0 and {MAX_FINE_BLOCKS}");
            return Err(InvalidValue::new("fine_blocks", self.fine_blocks, rule));
        }
        Ok(())
    }

    /// A net with initial parameters.
    ///
    /// # Panics
    /// if [`Self::validate`] refuses the sizes (programmer error)
    pub fn init(&self, init: &mut Init) -> Branched {
        self.validate().expect("valid sizes");
        let (full, half) = (self.full_channels, self.half_channels);
        let pointwise = |inputs, outputs, init: &mut Init| Conv3dConfig::pointwise(inputs, outputs).init(init);
        let head = pointwise(full, self.backbone.num_classes, init);
        let blocks = |channels, init: &mut Init| {
            (0..self.fine_blocks).map(|_| FineBlock::new(channels, init)).collect::<Vec<_>>()
        };
        Branched {
            backbone: self.backbone.init(init),
            full_in: conv_block(1, full, 1, init),
            half_in: conv_block(full, half, 2, init),
            half_in_blocks: blocks(half, init),
            to_half: pointwise(self.backbone.decoder_dim, half, init),
            half_out: conv_block(half, half, 1, init),
            half_out_blocks: blocks(half, init),
            to_full: pointwise(half, full, init),
            full_out: conv_block(full, full, 1, init),
            full_out_blocks: blocks(full, init),
            head,
        }
    }
}

/// SegFormer3D with a branch at full and half resolution.
#[derive(Module, Debug)]
pub struct Branched {
    backbone: SegFormer3d,
    full_in: ConvBlock,
    half_in: ConvBlock,
    half_in_blocks: Vec<FineBlock>,
    to_half: Conv3d,
    half_out: ConvBlock,
    half_out_blocks: Vec<FineBlock>,
    to_full: Conv3d,
    full_out: ConvBlock,
    full_out_blocks: Vec<FineBlock>,
    pub(super) head: Conv3d,
}

impl Branched {
    /// Logits: the sum of the branch's and of SegFormer3D's interpolated ones. The branch sees only
    /// the first channel, the intensity.
    ///
    /// # Shapes
    /// x `[B, in_channels, D, H, W]`, every axis a multiple of 32 -> `[B, num_classes, D, H, W]`
    pub fn forward(&self, x: Tensor<5>) -> Tensor<5> {
        let [_, _, depth, height, width] = x.dims();
        let full = self.full_in.forward(x.clone().narrow(1, 0, 1), None);
        let half = through(&self.half_in_blocks, self.half_in.forward(full.clone(), None));
        let features = self.backbone.features(x);
        let half_size = [depth / 2, height / 2, width / 2];
        // A convolution of a concatenation is a sum of convolutions. So the paths are added
        // instead, after 1x1 convolutions, which commute with the interpolation and run before it.
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

/// Residual block `x + W2 GELU(norm(W1 x))`. W2 is zero at first, so adding such blocks to a
/// trained net does not change its output.
#[derive(Module, Debug)]
struct FineBlock {
    first: ConvBlock,
    second: Conv3d,
}

impl FineBlock {
    fn new(channels: usize, init: &mut Init) -> Self {
        let first = conv_block(channels, channels, 1, init);
        let mut second = Conv3dConfig::new(channels, channels, 3).init(init);
        second.weight = init.constant(second.weight.dims(), 0.0);
        Self { first, second }
    }
}

fn through(blocks: &[FineBlock], x: Tensor<5>) -> Tensor<5> {
    blocks.iter().fold(x, |x, block| x.clone() + block.second.forward(block.first.forward(x, None)))
}
