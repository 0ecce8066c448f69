//! SegFormer3D: a hierarchical transformer encoder with an all-MLP decoder.
//!
//! Source: Perera et al., CVPR-W 2024, arXiv:2404.10156; repository OSUPCVLab/SegFormer3D.
//! Parameter paths are those of the official state dict, except `linear_fuse.0` and
//! `linear_fuse.1`, which are [`OFFICIAL_NAMES`].

mod decoder;
mod encoder;

use burn::module::Module;
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

pub use decoder::Decoder;
pub use encoder::Encoder;

use crate::layers::{Init, Statistics};
use crate::ops::{Corners, resize_trilinear};

/// Parameter path prefixes here and in the official state dict, where they differ.
pub const OFFICIAL_NAMES: [(&str, &str); 2] = [
    ("segformer_decoder.linear_fuse.conv.", "segformer_decoder.linear_fuse.0."),
    ("segformer_decoder.linear_fuse.norm.", "segformer_decoder.linear_fuse.1."),
];

/// What attention logits are divided by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttentionScale {
    /// `sqrt(number of heads)`: the release of April 2024, the paper and the published weights.
    Heads,
    /// `sqrt(channels per head)`: the usual scale, and the revision of November 2025.
    HeadDim,
}

/// Sizes of the net.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SegFormer3dConfig {
    /// Channels of the input.
    pub in_channels: usize,
    /// Channels of the logits.
    pub num_classes: usize,
    /// Channels of the four stages.
    pub embed_dims: [usize; 4],
    /// Attention heads of the four stages.
    pub heads: [usize; 4],
    /// Blocks of the four stages.
    pub depths: [usize; 4],
    /// Channels of the decoder.
    pub decoder_dim: usize,
    /// What attention logits are divided by.
    pub attention_scale: AttentionScale,
    /// Statistics of the norms over space.
    pub statistics: Statistics,
}

impl Default for SegFormer3dConfig {
    /// The published net for BraTS.
    fn default() -> Self {
        Self {
            in_channels: 4,
            num_classes: 3,
            embed_dims: [32, 64, 160, 256],
            heads: [1, 2, 5, 8],
            depths: [2; 4],
            decoder_dim: 256,
            attention_scale: AttentionScale::Heads,
            statistics: Statistics::Stored,
        }
    }
}

impl SegFormer3dConfig {
    /// The backbone of our vessel net: intensity and three world coordinates in; small enough to
    /// train on two cores.
    pub fn willis() -> Self {
        Self {
            in_channels: 4,
            num_classes: 15,
            embed_dims: [24, 48, 96, 160],
            heads: [1, 2, 4, 5],
            depths: [2; 4],
            decoder_dim: 96,
            attention_scale: AttentionScale::HeadDim,
            statistics: Statistics::Own,
        }
    }

    /// Whether a net of these sizes can be made: no size is 0 or absurd, and heads divide channels.
    pub fn is_sound(&self) -> bool {
        let sizes =
            [&self.embed_dims[..], &self.heads, &self.depths, &[self.in_channels, self.num_classes, self.decoder_dim]];
        let plausible = sizes.concat().iter().all(|size| (1..=4096).contains(size));
        plausible && self.embed_dims.iter().zip(&self.heads).all(|(channels, heads)| channels.is_multiple_of(*heads))
    }

    /// A net with initial parameters.
    ///
    /// # Panics
    /// if the channels of a stage are not a multiple of its heads (programmer error)
    pub fn init(&self, init: &mut Init) -> SegFormer3d {
        SegFormer3d { segformer_encoder: Encoder::new(self, init), segformer_decoder: Decoder::new(self, init) }
    }
}

/// The net.
#[derive(Module, Debug)]
pub struct SegFormer3d {
    /// Four stages, at a quarter, an eighth, a sixteenth and a 32nd of the resolution.
    pub segformer_encoder: Encoder,
    /// All-MLP decoder at a quarter of the resolution.
    pub segformer_decoder: Decoder,
}

impl SegFormer3d {
    /// x `[B, C, D, H, W]`, every axis a multiple of 32 -> logits `[B, classes, D, H, W]`.
    pub fn forward(&self, x: Tensor<5>) -> Tensor<5> {
        let [_, _, depth, height, width] = x.dims();
        let coarse = self.forward_coarse(x);
        resize_trilinear(coarse, [depth, height, width], Corners::HalfPixel)
    }

    /// x `[B, C, D, H, W]`, every axis a multiple of 32 -> logits `[B, classes, D/4, H/4, W/4]`.
    pub fn forward_coarse(&self, x: Tensor<5>) -> Tensor<5> {
        self.segformer_decoder.classify(self.features(x))
    }

    /// x `[B, C, D, H, W]`, every axis a multiple of 32 -> decoder features
    /// `[B, decoder_dim, D/4, H/4, W/4]`.
    pub fn features(&self, x: Tensor<5>) -> Tensor<5> {
        self.segformer_decoder.features(self.segformer_encoder.forward(x, None))
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::golden;
    use crate::weights::Weights;

    #[test]
    fn the_published_net_has_the_published_number_of_parameters() {
        let net = SegFormer3dConfig::default().init(&mut Init::new(0, &Device::flex()));
        let running: usize =
            Weights::of(&net).shapes().filter(|(n, _)| n.contains("running_")).map(|(_, s)| s[0]).sum();
        assert_eq!(net.num_params() - running, 4_525_251);
    }

    #[test]
    fn logits_equal_the_official_implementation() {
        let device = Device::flex();
        let probes = [0, 112_347, 262_144, 393_216, 655_360, 786_431];
        let rows = [
            (
                AttentionScale::HeadDim,
                0.209_785_5,
                0.349_033_2,
                [0.355734, 0.640254, 1.462909, 0.958827, -0.197534, -0.496324],
            ),
            (
                AttentionScale::Heads,
                0.327_173_9,
                0.331_588_4,
                [0.840202, 0.406693, 1.130586, 0.232093, 0.383208, 0.283935],
            ),
        ];
        for (attention_scale, mean, deviation, values) in rows {
            let config = SegFormer3dConfig { attention_scale, ..SegFormer3dConfig::default() };
            let net = golden::fill(config.init(&mut Init::new(0, &device)), &OFFICIAL_NAMES);
            let logits = net.forward(golden::input([1, 4, 64, 64, 64], &device));
            golden::check(logits, mean, deviation, probes.into_iter().zip(values), 1e-4);
        }
    }

    #[test]
    fn sizes_that_make_no_net_are_known() {
        assert!(SegFormer3dConfig::default().is_sound() && SegFormer3dConfig::willis().is_sound());
        for heads in [[0, 1, 1, 1], [7, 1, 1, 1], [1, 1, 1, 1 << 40]] {
            assert!(!SegFormer3dConfig { heads, ..SegFormer3dConfig::default() }.is_sound());
        }
    }

    #[test]
    fn axes_may_differ() {
        let device = Device::flex();
        let config = SegFormer3dConfig { embed_dims: [4, 4, 8, 8], heads: [1, 1, 2, 2], ..SegFormer3dConfig::willis() };
        let net = config.init(&mut Init::new(1, &device));
        assert_eq!(net.forward(Tensor::ones([2, 4, 32, 64, 96], &device)).dims(), [2, 15, 32, 64, 96]);
    }
}
