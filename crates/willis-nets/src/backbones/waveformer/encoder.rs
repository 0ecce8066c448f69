//! The four encoder stages.

use burn::module::Module;
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};
use willis_core::{InvalidValue, Switch};

use super::Quirks;
use super::block::{PatchMerging, WaveFormerBlock, WaveFormerBlockConfig, masked};
use super::haar::{self, Details};
use crate::layers::visible::VisibleCells;
use crate::layers::{Conv3d, Conv3dConfig, Init};
use crate::ops;
use crate::rules;

/// Haar levels of the stages.
const LEVELS: [usize; 4] = [3, 2, 1, 0];
/// Longest side of an input, voxels.
const MAX_SIDE: usize = 512;

/// Which blocks of a stage hand their sub-bands to the decoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DetailSource {
    /// The last block, as published.
    LastBlock,
    /// All blocks; their sub-bands are summed.
    AllBlocks,
}

/// Sizes of a [`WaveFormer`](super::WaveFormer) and its variants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WaveFormerConfig {
    /// Channels of the input.
    pub in_channels: usize,
    /// Channels of the logits.
    pub num_classes: usize,
    /// Sides of the input `[D, H, W]`, multiples of 16; the tables of position bias are built for
    /// them.
    pub size: [usize; 3],
    /// Channels of the first stage, C; each later stage has twice as many.
    pub embed_dim: usize,
    /// Blocks of the stages.
    pub depths: [usize; 4],
    /// Channels of an attention head; divides `embed_dim`.
    pub head_dim: usize,
    /// Hidden width of the feed-forward nets, as a multiple of their channels.
    pub ffn_ratio: usize,
    /// Whether attention runs on every scale of a stage (published) or on the coarsest only.
    pub multi_scale: Switch,
    /// Whether the scales are Haar low-pass parts, whose sub-bands the decoder uses (published).
    /// Otherwise they are block means, and the decoder interpolates: the ablation "wavelet level
    /// 0".
    pub wavelets: Switch,
    /// Which blocks' sub-bands the decoder uses.
    pub details: DetailSource,
    /// Whether the decoder gates the sub-bands before it uses them.
    pub hf_refinement: Switch,
    /// Errors of the published code.
    pub quirks: Quirks,
}

impl Default for WaveFormerConfig {
    /// Small enough to train on two cores: four channels in, fifteen classes out, cubes of 64
    /// voxels.
    fn default() -> Self {
        Self { embed_dim: 24, depths: [1; 4], head_dim: 12, ffn_ratio: 2, ..Self::published(4, 15, 64, Quirks::FIXED) }
    }
}

impl WaveFormerConfig {
    /// The published sizes, for cubes of `side` voxels.
    pub fn published(in_channels: usize, num_classes: usize, side: usize, quirks: Quirks) -> Self {
        Self {
            in_channels,
            num_classes,
            size: [side; 3],
            embed_dim: 48,
            depths: [2; 4],
            head_dim: 16,
            ffn_ratio: 4,
            multi_scale: Switch::On,
            wavelets: Switch::On,
            details: DetailSource::LastBlock,
            hf_refinement: Switch::Off,
            quirks,
        }
    }

    /// Checks that a net of these sizes exists.
    ///
    /// # Errors
    /// the first field whose value breaks a rule
    pub fn validate(&self) -> Result<(), InvalidValue> {
        rules::size("in_channels", self.in_channels)?;
        rules::size("num_classes", self.num_classes)?;
        rules::size("embed_dim", self.embed_dim)?;
        rules::size("head_dim", self.head_dim)?;
        rules::size("ffn_ratio", self.ffn_ratio)?;
        rules::sizes("depths", &self.depths)?;
        for (axis, &side) in self.size.iter().enumerate() {
            if !(16..=MAX_SIDE).contains(&side) || !side.is_multiple_of(16) {
                let rule = format!("must be a multiple of 16 between 16 and {MAX_SIDE}");
                return Err(InvalidValue::new(format!("size[{axis}]"), side, rule));
            }
        }
        if !self.embed_dim.is_multiple_of(self.head_dim) {
            let rule = format!("does not divide embed_dim = {}", self.embed_dim);
            return Err(InvalidValue::new("head_dim", self.head_dim, rule));
        }
        Ok(())
    }

    /// Channels of a stage (0 to 3).
    pub fn channels(&self, stage: usize) -> usize {
        self.embed_dim << stage
    }

    /// Layers of the encoder, input first, each as the paths of its parameters within the encoder.
    pub fn encoder_layers(&self) -> Vec<Vec<String>> {
        let stage = |stage: usize| {
            let embedding = if stage == 0 { "patch_embed.".to_string() } else { format!("downsample_{stage}.") };
            let blocks = (0..self.depths[stage]).map(move |block| format!("block{}.{block}.", stage + 1));
            [embedding].into_iter().chain(blocks).map(|path| vec![path])
        };
        (0..4).flat_map(stage).collect()
    }

    /// The encoder alone, with initial parameters. `num_classes` and `hf_refinement` do not affect
    /// it.
    ///
    /// # Panics
    /// if [`Self::validate`] refuses the sizes (programmer error)
    pub fn init_encoder(&self, init: &mut Init) -> WaveFormerEncoder {
        self.validate().expect("valid sizes");
        let proj = Conv3dConfig::patches(self.in_channels, self.embed_dim, 2).init(init);
        let stage = |stage: usize, init: &mut Init| {
            let block = WaveFormerBlockConfig {
                channels: self.channels(stage),
                heads: self.channels(stage) / self.head_dim,
                window: self.size.map(|side| side / 16),
                levels: LEVELS[stage],
                multi_scale: self.multi_scale == Switch::On,
                wavelets: self.wavelets == Switch::On,
                ffn_ratio: self.ffn_ratio,
                quirks: self.quirks,
            };
            (0..self.depths[stage]).map(|_| block.init(init)).collect()
        };
        WaveFormerEncoder {
            patch_embed: WaveFormerPatchEmbed { proj },
            block1: stage(0, init),
            block2: stage(1, init),
            block3: stage(2, init),
            block4: stage(3, init),
            downsample_1: PatchMerging::new(self.channels(0), self.quirks.merge, init),
            downsample_2: PatchMerging::new(self.channels(1), self.quirks.merge, init),
            downsample_3: PatchMerging::new(self.channels(2), self.quirks.merge, init),
            details: self.details,
        }
    }
}

/// Output of a stage.
#[derive(Debug, Clone)]
pub struct StageOutput {
    /// Tokens after a layer norm without scale or shift, `[B, C, D, H, W]`.
    pub features: Tensor<5>,
    /// Sub-bands of the stage's blocks, coarsest level first; empty without wavelets.
    pub details: Vec<Details>,
}

/// The encoder, under the published state dict's names (without `waveformer_encoder.`).
#[derive(Module, Debug)]
pub struct WaveFormerEncoder {
    patch_embed: WaveFormerPatchEmbed,
    block1: Vec<WaveFormerBlock>,
    block2: Vec<WaveFormerBlock>,
    block3: Vec<WaveFormerBlock>,
    block4: Vec<WaveFormerBlock>,
    downsample_1: PatchMerging,
    downsample_2: PatchMerging,
    downsample_3: PatchMerging,
    #[module(skip)]
    details: DetailSource,
}

/// Convolution of 2x2x2 blocks.
#[derive(Module, Debug)]
struct WaveFormerPatchEmbed {
    proj: Conv3d,
}

impl WaveFormerEncoder {
    /// Outputs of the four stages, finest first. With `visible`, they are computed from visible
    /// cells only and are zero in hidden ones.
    ///
    /// # Shapes
    /// image `[B, in_channels, D, H, W]` -> stage s (0 to 3) `[B, C 2^s, D / 2^(s+1), ...]`
    pub fn forward(&self, image: Tensor<5>, visible: Option<&VisibleCells>) -> [StageOutput; 4] {
        let mut x = masked(self.embed(image), visible);
        std::array::from_fn(|stage| {
            if stage > 0 {
                x = masked(self.merge(stage, x.clone()), visible);
            }
            let mut details = Vec::new();
            for block in self.blocks(stage) {
                let before = std::mem::take(&mut details);
                x = block.forward(x.clone(), visible, Some(&mut details));
                if self.details == DetailSource::AllBlocks && !before.is_empty() {
                    details = details.into_iter().zip(before).map(|(new, old)| haar::add(new, old)).collect();
                }
            }
            StageOutput { features: channels_first(norm(x.clone())), details }
        })
    }

    /// Tokens of the first stage: image `[B, in, D, H, W]` -> `[B, D/2, H/2, W/2, C]`.
    pub fn embed(&self, image: Tensor<5>) -> Tensor<5> {
        self.patch_embed.proj.forward(image).permute([0, 2, 3, 4, 1])
    }

    /// Tokens for a stage (1 to 3), merged from those of the previous one.
    ///
    /// # Shapes
    /// x `[B, D, H, W, C]` -> `[B, D/2, H/2, W/2, 2C]`
    pub fn merge(&self, stage: usize, x: Tensor<5>) -> Tensor<5> {
        match stage {
            1 => self.downsample_1.forward(x),
            2 => self.downsample_2.forward(x),
            3 => self.downsample_3.forward(x),
            _ => panic!("no merging leads into stage {stage}"),
        }
    }

    /// Tokens after the blocks of a stage (0 to 3), without sub-bands.
    ///
    /// # Shapes
    /// x `[B, D, H, W, C]` -> the same shape
    pub fn stage(&self, stage: usize, x: Tensor<5>) -> Tensor<5> {
        self.blocks(stage).iter().fold(x, |x, block| block.forward(x, None, None))
    }

    fn blocks(&self, stage: usize) -> &[WaveFormerBlock] {
        [&self.block1, &self.block2, &self.block3, &self.block4][stage]
    }
}

/// `[B, D, H, W, C]` -> `[B, C, D, H, W]`.
fn channels_first(x: Tensor<5>) -> Tensor<5> {
    x.permute([0, 4, 1, 2, 3])
}

/// Layer norm over the last axis, without scale or shift, eps 1e-5.
pub(crate) fn norm(x: Tensor<5>) -> Tensor<5> {
    let (channels, device) = (x.dims()[4], x.device().inner());
    ops::layer_norm(x, Tensor::ones([channels], &device), Tensor::zeros([channels], &device), 1e-5)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden;
    use burn::tensor::Device;

    fn probe(x: Tensor<5>, expected: &[(usize, f32)]) {
        let values = x.into_data().try_to_vec::<f32>().unwrap();
        for &(index, expected) in expected {
            assert!((values[index] - expected).abs() < 1e-3, "[{index}] {}, expected {expected}", values[index]);
        }
    }

    #[test]
    fn features_and_sub_bands_equal_the_official_implementation() {
        let device = Device::flex();
        let net = WaveFormerConfig::published(1, 3, 64, Quirks::OFFICIAL).init_encoder(&mut Init::new(0, &device));
        let net = golden::fill(net, &[("", "waveformer_encoder.")]);
        let stages = net.forward(golden::input([1, 1, 64, 64, 64], &device), None);
        let first = stages[0].features.clone();
        probe(first, &[(0, 0.831671), (1, 0.767013), (224694, -0.895133), (524288, -0.570518)]);
        probe(stages[3].features.clone(), &[(0, -0.248615), (3510, -0.326064), (12288, 0.400709)]);
        let band = |level: usize, band: usize| channels_first(stages[0].details[level][band].clone());
        assert_eq!(band(0, 0).dims(), [1, 48, 4, 4, 4]);
        probe(band(0, 0), &[(0, 0.159681), (1, 1.721179)]);
        probe(band(2, 0), &[(0, 0.342215)]);
        probe(band(2, 6), &[(0, -0.026805), (1, -0.648651)]);
    }

    #[test]
    fn masked_cells_do_not_influence_the_features() {
        let device = Device::flex();
        let config = WaveFormerConfig {
            size: [32; 3],
            embed_dim: 8,
            head_dim: 4,
            depths: [2, 1, 1, 1],
            ..WaveFormerConfig::published(1, 3, 32, Quirks::FIXED)
        };
        // The shifts of norms are zero at first; random parameters would show a leak through them.
        let net = golden::fill(config.init_encoder(&mut Init::new(1, &device)), &[]);
        let x = golden::input([2, 1, 32, 32, 32], &device);
        let flags: Vec<bool> = (0..16).map(|i| i % 3 == 0).collect();
        let visible = VisibleCells::new(&flags, 2, [2; 3], &device);
        let seen = visible.mask(x.clone());
        // The same volume with other values in masked cells.
        let other = seen.clone() + (x - seen) * 100.0;
        let bytes = |x: Tensor<5>| -> Vec<_> {
            let stages = net.forward(visible.mask(x), Some(&visible)).into_iter();
            let parts = stages.flat_map(|stage| {
                let masked = stage.features.clone() - visible.mask(stage.features.clone());
                assert_eq!(masked.abs().max().into_scalar::<f32>(), 0.0);
                stage.details.into_iter().flatten().chain([stage.features])
            });
            parts.map(|part| part.into_data()).collect()
        };
        let whole = bytes(golden::input([2, 1, 32, 32, 32], &device));
        for (a, b) in whole.into_iter().zip(bytes(other)) {
            a.assert_eq(&b, true);
        }
        let all = VisibleCells::new(&[true; 16], 2, [2; 3], &device);
        let x = golden::input([2, 1, 32, 32, 32], &device);
        let (masked, plain) = (net.forward(x.clone(), Some(&all)), net.forward(x, None));
        for (a, b) in masked.into_iter().zip(plain) {
            let tolerance = burn::tensor::Tolerance::rel_abs(1e-4, 1e-4);
            a.features.into_data().assert_approx_eq::<f32>(&b.features.into_data(), tolerance);
        }
    }

    #[test]
    fn features_depend_on_other_visible_cells() {
        let device = Device::flex();
        let config = WaveFormerConfig {
            size: [32; 3],
            embed_dim: 8,
            head_dim: 4,
            depths: [1; 4],
            ..WaveFormerConfig::published(1, 3, 32, Quirks::FIXED)
        };
        let net = golden::fill(config.init_encoder(&mut Init::new(1, &device)), &[]);
        let visible = VisibleCells::new(&[true, false, false, false, false, false, false, true], 1, [2; 3], &device);
        let x = golden::input([1, 1, 32, 32, 32], &device);
        let first = |x: Tensor<5>| {
            let features = net.forward(visible.mask(x), Some(&visible))[0].features.clone();
            features.narrow(2, 0, 8).narrow(3, 0, 8).narrow(4, 0, 8).into_data()
        };
        let corner = VisibleCells::new(&[true, false, false, false, false, false, false, false], 1, [2; 3], &device);
        let other = corner.mask(x.clone()) + (x.clone() - corner.mask(x.clone())) * 3.0;
        assert_ne!(first(x), first(other));
    }

    #[test]
    fn inputs_need_not_be_cubes() {
        let device = Device::flex();
        let config = WaveFormerConfig {
            size: [16, 32, 48],
            embed_dim: 4,
            head_dim: 2,
            depths: [1; 4],
            ..WaveFormerConfig::published(2, 3, 16, Quirks::FIXED)
        };
        let stages =
            config.init_encoder(&mut Init::new(1, &device)).forward(golden::input([2, 2, 16, 32, 48], &device), None);
        assert_eq!(stages[0].features.dims(), [2, 4, 8, 16, 24]);
        assert_eq!(stages[3].features.dims(), [2, 32, 1, 2, 3]);
        assert_eq!(stages[1].details.len(), 2);
    }
}
