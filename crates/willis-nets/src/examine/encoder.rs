//! The encoder of the expert classifier, in two halves around the middle feature map.
//!
//! Letters: B batch, M channels of the middle feature map.

use std::collections::BTreeMap;

use burn::module::Module;
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};
use willis_core::InvalidValue;

use super::patch::{IN_CHANNELS, SIDE};
use crate::backbones::layer_decay_rates;
use crate::backbones::waveformer::{Quirks, WaveFormerConfig, WaveFormerEncoder, norm};
use crate::layers::{Activation, Conv3dConfig, ConvBlock, ConvBlockConfig, Init};
use crate::rules::{at_least_one, require};
use crate::weights::transfer::transfer_encoder;
use crate::weights::{Weights, WeightsError};

/// Side of the middle feature map, voxels.
pub const MID_SIDE: usize = SIDE / 4;

/// Path of the WaveFormer encoder among the classifier's parameters.
const WAVEFORMER_PATH: &str = "encoder.Waveformer.";

/// Which encoder turns a patch into features.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum PatchEncoderConfig {
    /// WaveFormer encoder.
    Waveformer(WaveFormerPatchConfig),
    /// Strided convolutions, as a baseline.
    Plain(PlainEncoderConfig),
}

/// Sizes of the WaveFormer encoder of a patch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WaveFormerPatchConfig {
    /// Channels of the first stage, even; every later stage doubles them.
    pub embed_dim: usize,
    /// Blocks of each stage.
    pub depths: [usize; 4],
}

/// Sizes of the plain encoder of a patch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PlainEncoderConfig {
    /// Channels after the first convolution; every later halving of the resolution doubles them.
    pub embed_dim: usize,
}

impl Default for PatchEncoderConfig {
    fn default() -> Self {
        Self::Waveformer(WaveFormerPatchConfig::default())
    }
}

impl Default for WaveFormerPatchConfig {
    fn default() -> Self {
        Self { embed_dim: 24, depths: [1, 1, 1, 1] }
    }
}

impl Default for PlainEncoderConfig {
    fn default() -> Self {
        Self { embed_dim: 24 }
    }
}

impl PatchEncoderConfig {
    /// Checks every value.
    ///
    /// # Errors
    /// [`InvalidValue`] names the first value that breaks its rule.
    pub fn validate(&self) -> Result<(), InvalidValue> {
        match self {
            Self::Waveformer(WaveFormerPatchConfig { embed_dim, depths }) => {
                let is_even = *embed_dim > 0 && embed_dim.is_multiple_of(2);
                require("embed_dim", embed_dim, is_even, "must be positive and even")?;
                depths.iter().enumerate().try_for_each(|(i, &depth)| at_least_one(&format!("depths[{i}]"), depth))
            }
            Self::Plain(config) => at_least_one("embed_dim", config.embed_dim),
        }
    }

    /// Channels at half of the patch's resolution.
    pub fn embed_dim(&self) -> usize {
        match self {
            Self::Waveformer(config) => config.embed_dim,
            Self::Plain(config) => config.embed_dim,
        }
    }

    /// Channels of the middle feature map, M.
    pub fn mid_channels(&self) -> usize {
        2 * self.embed_dim()
    }

    pub(super) fn init(&self, init: &mut Init) -> PatchEncoder {
        match self {
            Self::Waveformer(config) => PatchEncoder::Waveformer(config.backbone().init_encoder(init)),
            Self::Plain(config) => PatchEncoder::Plain(config.init(init)),
        }
    }

    /// Replaces the encoder in a classifier's weights by a pre-trained WaveFormer encoder, which
    /// may have other input channels and another window.
    ///
    /// # Errors
    /// [`WeightsError`] when the pre-trained encoder has other parameters, or this encoder is
    /// plain.
    pub(super) fn transfer(&self, classifier: Weights, pretrained: &Weights) -> Result<Weights, WeightsError> {
        transfer_encoder(classifier, WAVEFORMER_PATH, pretrained)
    }

    /// Learning rates of a pre-trained encoder's layers by path; see [`layer_decay_rates`]. Empty
    /// for the plain encoder, which is not pre-trained.
    pub(super) fn layer_rates(&self, decay: f64) -> BTreeMap<String, f64> {
        let layers = match self {
            Self::Waveformer(config) => config.backbone().encoder_layers(),
            Self::Plain(_) => Vec::new(),
        };
        layer_decay_rates(WAVEFORMER_PATH, layers, decay)
    }
}

impl WaveFormerPatchConfig {
    fn backbone(&self) -> WaveFormerConfig {
        WaveFormerConfig {
            embed_dim: self.embed_dim,
            depths: self.depths,
            head_dim: self.embed_dim / 2,
            ffn_ratio: 2,
            ..WaveFormerConfig::published(IN_CHANNELS, 1, SIDE, Quirks::FIXED)
        }
    }
}

impl PlainEncoderConfig {
    fn init(&self, init: &mut Init) -> PlainEncoder {
        let width = self.embed_dim;
        let mut layer = |inputs, outputs, stride| {
            let conv = Conv3dConfig::new(inputs, outputs, 3).with_stride(stride).without_bias();
            ConvBlockConfig::new(conv, Activation::Gelu).init(init)
        };
        PlainEncoder {
            front: vec![layer(IN_CHANNELS, width, 2), layer(width, 2 * width, 2), layer(2 * width, 2 * width, 1)],
            back: vec![layer(2 * width, 4 * width, 2), layer(4 * width, 8 * width, 2)],
        }
    }
}

/// The encoder. The names of the variants are part of the names in weights files.
#[derive(Module, Debug)]
#[expect(clippy::large_enum_variant, reason = "a net has one encoder; a box would only add a name to its weights")]
pub(super) enum PatchEncoder {
    Waveformer(WaveFormerEncoder),
    Plain(PlainEncoder),
}

impl PatchEncoder {
    /// The first half.
    ///
    /// Both halves end in a norm. The tokens of a WaveFormer grow with depth, and without the norm
    /// a modulation by FiLM would be lost beside them.
    ///
    /// # Shapes
    /// patch `[B, 5, 48, 48, 48]` -> `[B, M, 12, 12, 12]`
    pub(super) fn front(&self, x: Tensor<5>) -> Tensor<5> {
        match self {
            Self::Waveformer(net) => {
                let tokens = net.stage(0, net.embed(x));
                norm(net.stage(1, net.merge(1, tokens))).permute([0, 4, 1, 2, 3])
            }
            Self::Plain(net) => net.front.iter().fold(x, |x, layer| layer.forward(x, None)),
        }
    }

    /// The second half.
    ///
    /// # Shapes
    /// `[B, M, 12, 12, 12]` -> `[B, 4M, 3, 3, 3]`
    pub(super) fn back(&self, mid: Tensor<5>) -> Tensor<5> {
        match self {
            Self::Waveformer(net) => {
                let tokens = net.stage(2, net.merge(2, mid.permute([0, 2, 3, 4, 1])));
                norm(net.stage(3, net.merge(3, tokens))).permute([0, 4, 1, 2, 3])
            }
            Self::Plain(net) => net.back.iter().fold(mid, |x, layer| layer.forward(x, None)),
        }
    }
}

/// Strided convolutions.
#[derive(Module, Debug)]
pub(super) struct PlainEncoder {
    front: Vec<ConvBlock>,
    back: Vec<ConvBlock>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_values_are_named() {
        PatchEncoderConfig::default().validate().unwrap();
        let odd = WaveFormerPatchConfig { embed_dim: 3, ..WaveFormerPatchConfig::default() };
        let error = PatchEncoderConfig::Waveformer(odd).validate().unwrap_err();
        assert_eq!(error.to_string(), "embed_dim = 3 must be positive and even");
        let error = PatchEncoderConfig::Plain(PlainEncoderConfig { embed_dim: 0 }).validate().unwrap_err();
        assert_eq!(error.to_string(), "embed_dim = 0 must be at least 1");
    }

    #[test]
    fn a_choice_carries_its_own_fields_only() {
        let read = |json: &str| serde_json::from_str::<PatchEncoderConfig>(json);
        let plain = read(r#"{"kind": "plain", "embed_dim": 4}"#).unwrap();
        assert_eq!(plain, PatchEncoderConfig::Plain(PlainEncoderConfig { embed_dim: 4 }));
        assert_eq!(read(r#"{"kind": "waveformer"}"#).unwrap(), PatchEncoderConfig::default());
        assert!(read(r#"{"kind": "plain", "depths": [1, 1, 1, 1]}"#).is_err());
        assert!(read(r#"{"embed_dim": 4}"#).is_err());
    }
}
