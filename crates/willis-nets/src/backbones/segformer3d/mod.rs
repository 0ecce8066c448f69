//! SegFormer3D: a hierarchical transformer encoder with an all-MLP decoder.
//!
//! Source: Perera et al., CVPR-W 2024, arXiv:2404.10156; repository OSUPCVLab/SegFormer3D.
//! Parameter paths are those of the official state dict, except those in [`OFFICIAL_NAMES`].

mod decoder;
mod encoder;

use burn::module::Module;
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};
use willis_core::InvalidValue;

pub use decoder::SegFormerDecoder;
pub use encoder::SegFormerEncoder;

use crate::layers::{Init, Statistics};
use crate::ops::{Corners, resize_trilinear};
use crate::rules;

/// Stride of the fourth stage.
pub const COARSEST_STRIDE: usize = 32;
/// Masks are resolved down to stages of this stride, voxels: attention takes its keys from a grid
/// of 16 voxels. The fourth stage counts as visible where the cells of a mask are smaller.
pub const MASK_STRIDE: usize = 16;

/// Prefixes of parameter paths here and in the official state dict, where they differ.
pub const OFFICIAL_NAMES: [(&str, &str); 2] = [
    ("segformer_decoder.linear_fuse.conv.", "segformer_decoder.linear_fuse.0."),
    ("segformer_decoder.linear_fuse.norm.", "segformer_decoder.linear_fuse.1."),
];

/// Divisor of the attention logits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttentionScale {
    /// `sqrt(number of heads)`: the release of April 2024, the paper and the published weights.
    Heads,
    /// `sqrt(channels per head)`: the usual scale, and the revision of November 2025.
    HeadDim,
}

/// Sizes of a [`SegFormer3d`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SegFormer3dConfig {
    /// Channels of the input.
    pub in_channels: usize,
    /// Channels of the logits.
    pub num_classes: usize,
    /// Channels of the four stages.
    pub embed_dims: [usize; 4],
    /// Attention heads of the four stages; each divides the stage's channels.
    pub heads: [usize; 4],
    /// Transformer blocks of the four stages.
    pub depths: [usize; 4],
    /// Channels of the decoder.
    pub decoder_dim: usize,
    /// Divisor of the attention logits.
    pub attention_scale: AttentionScale,
    /// Statistics of the norms over space.
    pub statistics: Statistics,
}

impl Default for SegFormer3dConfig {
    /// Small enough to train on two cores: four channels in, fifteen classes out.
    fn default() -> Self {
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
}

impl SegFormer3dConfig {
    /// The published net; its weights for BraTS have four channels in and three classes out.
    pub fn published(in_channels: usize, num_classes: usize) -> Self {
        Self {
            in_channels,
            num_classes,
            embed_dims: [32, 64, 160, 256],
            heads: [1, 2, 5, 8],
            depths: [2; 4],
            decoder_dim: 256,
            attention_scale: AttentionScale::Heads,
            statistics: Statistics::Stored,
        }
    }

    /// Checks that a net of these sizes exists.
    ///
    /// # Errors
    /// the first field whose value breaks a rule
    pub fn validate(&self) -> Result<(), InvalidValue> {
        rules::size("in_channels", self.in_channels)?;
        rules::size("num_classes", self.num_classes)?;
        rules::size("decoder_dim", self.decoder_dim)?;
        rules::sizes("embed_dims", &self.embed_dims)?;
        rules::sizes("heads", &self.heads)?;
        rules::sizes("depths", &self.depths)?;
        for (stage, (&channels, &heads)) in self.embed_dims.iter().zip(&self.heads).enumerate() {
            if !channels.is_multiple_of(heads) {
                let rule = format!("does not divide embed_dims[{stage}] = {channels}");
                return Err(InvalidValue::new(format!("heads[{stage}]"), heads, rule));
            }
        }
        Ok(())
    }

    /// A net with initial parameters.
    ///
    /// # Panics
    /// if [`Self::validate`] refuses the sizes (programmer error)
    pub fn init(&self, init: &mut Init) -> SegFormer3d {
        SegFormer3d { segformer_encoder: self.init_encoder(init), segformer_decoder: SegFormerDecoder::new(self, init) }
    }

    /// The encoder alone, with initial parameters. `num_classes` and `decoder_dim` do not affect
    /// it.
    ///
    /// # Panics
    /// if [`Self::validate`] refuses the sizes (programmer error)
    pub fn init_encoder(&self, init: &mut Init) -> SegFormerEncoder {
        self.validate().expect("valid sizes");
        SegFormerEncoder::new(self, init)
    }

    /// Layers of the encoder, input first, each as the paths of its parameters within the encoder.
    /// A stage's norm belongs to its last block.
    pub fn encoder_layers(&self) -> Vec<Vec<String>> {
        let stage = |(stage, depth): (usize, usize)| {
            let block = move |block| {
                let mut paths = vec![format!("tf_block{stage}.{block}.")];
                if block + 1 == depth {
                    paths.push(format!("norm{stage}."));
                }
                paths
            };
            [vec![format!("embed_{stage}.")]].into_iter().chain((0..depth).map(block))
        };
        (1..=4).zip(self.depths).flat_map(stage).collect()
    }
}

/// SegFormer3D.
#[derive(Module, Debug)]
pub struct SegFormer3d {
    /// Four stages with strides 4, 8, 16 and 32.
    pub segformer_encoder: SegFormerEncoder,
    /// All-MLP decoder at stride 4.
    pub segformer_decoder: SegFormerDecoder,
}

impl SegFormer3d {
    /// Logits at the input's resolution, interpolated from stride 4.
    ///
    /// # Shapes
    /// x `[B, in_channels, D, H, W]`, every axis a multiple of 32 -> `[B, num_classes, D, H, W]`
    pub fn forward(&self, x: Tensor<5>) -> Tensor<5> {
        let [_, _, depth, height, width] = x.dims();
        let coarse = self.segformer_decoder.classify(self.features(x));
        resize_trilinear(coarse, [depth, height, width], Corners::HalfPixel)
    }

    /// Features of the decoder.
    ///
    /// # Shapes
    /// x `[B, in_channels, D, H, W]`, every axis a multiple of 32 ->
    /// `[B, decoder_dim, D/4, H/4, W/4]`
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
        let net = SegFormer3dConfig::published(4, 3).init(&mut Init::new(0, &Device::flex()));
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
            let config = SegFormer3dConfig { attention_scale, ..SegFormer3dConfig::published(4, 3) };
            let net = golden::fill(config.init(&mut Init::new(0, &device)), &OFFICIAL_NAMES);
            let logits = net.forward(golden::input([1, 4, 64, 64, 64], &device));
            golden::check(logits, mean, deviation, probes.into_iter().zip(values), 1e-4);
        }
    }

    #[test]
    fn inputs_need_not_be_cubes() {
        let device = Device::flex();
        let config =
            SegFormer3dConfig { embed_dims: [4, 4, 8, 8], heads: [1, 1, 2, 2], ..SegFormer3dConfig::default() };
        let net = config.init(&mut Init::new(1, &device));
        assert_eq!(net.forward(Tensor::ones([2, 4, 32, 64, 96], &device)).dims(), [2, 15, 32, 64, 96]);
    }
}
