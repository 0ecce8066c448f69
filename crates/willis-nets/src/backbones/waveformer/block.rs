//! WaveFormer block and the merging of patches between stages.

use burn::module::Module;
use burn::tensor::{Int, Tensor};

use super::attention::{WindowAttention, WindowAttentionConfig};
use super::haar::{self, Details};
use super::{MergeOffsets, Quirks};
use crate::layers::visible::VisibleCells;
use crate::layers::{Conv3d, Conv3dConfig, Init, LayerNorm, LayerNormConfig, Linear, LinearConfig};
use crate::ops::{self, Corners};

/// Sizes of a [`WaveFormerBlock`].
#[derive(Debug, Clone)]
pub(super) struct WaveFormerBlockConfig {
    pub channels: usize,
    pub heads: usize,
    pub window: [usize; 3],
    /// Haar levels.
    pub levels: usize,
    pub multi_scale: bool,
    pub wavelets: bool,
    pub ffn_ratio: usize,
    pub quirks: Quirks,
}

/// Transformer block: window attention on the low-pass scales, then a feed-forward net; both
/// residual.
#[derive(Module, Debug)]
pub(super) struct WaveFormerBlock {
    norm1: LayerNorm,
    attn: WindowAttention,
    norm2: LayerNorm,
    mlp: ConvFeedForward,
    levels: usize,
    multi_scale: bool,
    wavelets: bool,
}

impl WaveFormerBlockConfig {
    pub fn init(&self, init: &mut Init) -> WaveFormerBlock {
        let attention = WindowAttentionConfig {
            channels: self.channels,
            heads: self.heads,
            window: self.window,
            relative_index: self.quirks.relative_index,
            window_reverse: self.quirks.window_reverse,
        };
        WaveFormerBlock {
            norm1: LayerNormConfig::new(self.channels).with_eps(1e-6).init(init),
            attn: attention.init(init),
            norm2: LayerNormConfig::new(self.channels).with_eps(1e-6).init(init),
            mlp: ConvFeedForward::new(self.channels, self.ffn_ratio * self.channels, init),
            levels: self.levels,
            multi_scale: self.multi_scale,
            wavelets: self.wavelets,
        }
    }
}

impl WaveFormerBlock {
    /// Applies the block. `details` receives the sub-bands of the normed tokens, coarsest level
    /// first.
    ///
    /// # Shapes
    /// x `[B, D, H, W, C]` -> the same shape
    pub fn forward(
        &self,
        x: Tensor<5>,
        visible: Option<&VisibleCells>,
        details: Option<&mut Vec<Details>>,
    ) -> Tensor<5> {
        let [_, d, h, w, _] = x.dims();
        let mut scale = masked(self.norm1.forward(x.clone()), visible);
        let mut bands = Vec::new();
        let mut sum: Option<Tensor<5>> = None;
        for level in 1..=self.levels.max(1) {
            if self.levels > 0 {
                scale = match details {
                    // Block means, which are the low-pass parts divided by the square root of 8.
                    _ if !self.wavelets => haar::low_pass(scale) / 8f64.sqrt(),
                    Some(_) => {
                        let (low, high) = haar::transform(scale);
                        bands.push(high);
                        low
                    }
                    None => haar::low_pass(scale),
                };
            }
            if self.multi_scale || level >= self.levels {
                let attended = enlarge(self.attn.forward(scale.clone(), visible), [d, h, w], visible);
                sum = Some(match sum {
                    Some(sum) => sum + attended,
                    None => attended,
                });
            }
        }
        if let Some(details) = details {
            bands.reverse();
            *details = bands;
        }
        let x = x + sum.expect("there is at least one scale");
        let z = masked(self.norm2.forward(x.clone()), visible);
        masked(x + z.clone() + self.mlp.forward(z, visible), visible)
    }
}

/// Tokens `[B, D, H, W, C]` with zeros in hidden cells.
pub(super) fn masked(x: Tensor<5>, visible: Option<&VisibleCells>) -> Tensor<5> {
    match visible {
        Some(visible) => visible.mask_channels_last(x),
        None => x,
    }
}

/// Tokens interpolated to a size. With `visible`, the weights of hidden tokens are zero and those
/// of the others are scaled to sum to one.
fn enlarge(x: Tensor<5>, size: [usize; 3], visible: Option<&VisibleCells>) -> Tensor<5> {
    let [_, d, h, w, _] = x.dims();
    let resized = |x: Tensor<5>| {
        ops::resize_trilinear(x.permute([0, 4, 1, 2, 3]), size, Corners::HalfPixel).permute([0, 2, 3, 4, 1])
    };
    let mask = visible.and_then(|visible| visible.mask_at_channels_last([d, h, w]));
    match mask {
        _ if [d, h, w] == size => masked(x, visible),
        Some(mask) => masked(resized(x * mask.clone()) / resized(mask).clamp_min(1e-6), visible),
        None => resized(x),
    }
}

/// Pointwise, norm, GELU, depthwise, norm, GELU, pointwise. The caller adds the residual.
#[derive(Module, Debug)]
struct ConvFeedForward {
    pwconv: Conv3d,
    norm1: LayerNorm,
    dwconv: Conv3d,
    norm2: LayerNorm,
    fc: Linear,
}

impl ConvFeedForward {
    fn new(channels: usize, hidden: usize, init: &mut Init) -> Self {
        Self {
            pwconv: Conv3dConfig::pointwise(channels, hidden).init(init),
            norm1: LayerNormConfig::new(hidden).init(init),
            dwconv: Conv3dConfig::depthwise(hidden, 3).init(init),
            norm2: LayerNormConfig::new(hidden).init(init),
            fc: LinearConfig::new(hidden, channels).init(init),
        }
    }

    /// x `[B, D, H, W, C]` -> the same shape.
    fn forward(&self, x: Tensor<5>, visible: Option<&VisibleCells>) -> Tensor<5> {
        // A 1x1x1 convolution is a linear map of each token.
        let weight = self.pwconv.weight.val();
        let [hidden, channels, ..] = weight.dims();
        let h = ops::linear(x, weight.reshape([hidden, channels]), self.pwconv.bias.as_ref().map(|b| b.val()));
        let h = masked(ops::gelu(self.norm1.forward(h)), visible);
        let shape = h.dims();
        let h = self.dwconv.forward(ops::channels_first(h, [shape[1], shape[2], shape[3]]));
        let h = ops::channels_last(h, shape);
        self.fc.forward(ops::gelu(self.norm2.forward(h)))
    }
}

/// Merges 2x2x2 tokens into one of twice the channels.
#[derive(Module, Debug)]
pub(super) struct PatchMerging {
    reduction: Linear,
    norm: LayerNorm,
    #[module(skip)]
    offsets: MergeOffsets,
}

impl PatchMerging {
    pub fn new(channels: usize, offsets: MergeOffsets, init: &mut Init) -> Self {
        let reduction = LinearConfig::new(8 * channels, 2 * channels).without_bias().init(init);
        Self { reduction, norm: LayerNormConfig::new(8 * channels).with_eps(1e-6).init(init), offsets }
    }

    /// x `[B, D, H, W, C]`, even axes -> `[B, D/2, H/2, W/2, 2C]`.
    pub fn forward(&self, x: Tensor<5>) -> Tensor<5> {
        let [b, d, h, w, c] = x.dims();
        let (d, h, w) = (d / 2, h / 2, w / 2);
        let blocks = x.reshape([b, d, 2, h, 2, w, 2, c]).permute([0, 1, 3, 5, 2, 4, 6, 7]);
        let merged = match self.offsets {
            MergeOffsets::Product => blocks.reshape([b, d, h, w, 8 * c]),
            MergeOffsets::Repeated => {
                let order = Tensor::<1, Int>::from_ints([0, 4, 2, 1, 5, 2, 1, 7], &blocks.device());
                blocks.reshape([b * d * h * w, 8, c]).select(1, order).reshape([b, d, h, w, 8 * c])
            }
        };
        self.reduction.forward(self.norm.forward(merged))
    }
}
