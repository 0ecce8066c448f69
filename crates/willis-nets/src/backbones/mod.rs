//! Backbones: encoders with decoders that map a volume to logits of the same size.
//!
//! [`BackboneConfig`] is the closed choice among them. To add a backbone, write its file and extend
//! the enums of this file; everything else goes through them.

pub mod published;
pub mod resenc;
pub mod segformer3d;
pub mod waveformer;

use std::collections::BTreeMap;

use burn::module::Module;
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};
use willis_core::InvalidValue;

use crate::layers::visible::VisibleCells;
use crate::layers::{Conv3d, Init};
use crate::weights::Weights;
use resenc::{ResEnc, ResEncConfig, ResEncEncoder};
use segformer3d::{SegFormer3d, SegFormer3dConfig, SegFormerEncoder};
use waveformer::{Quirks, WaveFormer, WaveFormerConfig, WaveFormerEncoder};

/// Revision of what the backbones compute from their parameters, which pre-trained weights carry.
/// It is increased when that changes while names and shapes of the parameters stay.
pub const REVISION: &str = "1";

/// Name of a backbone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackboneKind {
    /// SegFormer3D.
    SegFormer3d,
    /// WaveFormer.
    WaveFormer,
    /// Residual-encoder U-Net.
    ResEnc,
}

impl BackboneKind {
    /// All backbones.
    pub const ALL: [Self; 3] = [Self::SegFormer3d, Self::WaveFormer, Self::ResEnc];

    /// The name in configurations and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::SegFormer3d => "segformer3d",
            Self::WaveFormer => "waveformer",
            Self::ResEnc => "resenc",
        }
    }

    /// Name of the variant of [`Backbone`], with which the paths of its parameters start.
    pub(crate) const fn variant(self) -> &'static str {
        match self {
            Self::SegFormer3d => "SegFormer3d.",
            Self::WaveFormer => "WaveFormer.",
            Self::ResEnc => "ResEnc.",
        }
    }

    /// One line for lists: architecture and source.
    pub const fn about(self) -> &'static str {
        match self {
            Self::SegFormer3d => "hierarchical transformer, all-MLP decoder (Perera et al., CVPR-W 2024)",
            Self::WaveFormer => "windowed attention on wavelet scales, wavelet decoders (Al Hasan et al., MICCAI 2025)",
            Self::ResEnc => "residual-encoder U-Net, nnU-Net's ResEnc-L (Isensee et al., MICCAI 2024)",
        }
    }

    /// The backbone of that [name](Self::name).
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Sizes that train on two cores: four channels in, fifteen classes out.
    pub fn config(self) -> BackboneConfig {
        match self {
            Self::SegFormer3d => BackboneConfig::SegFormer3d(SegFormer3dConfig::default()),
            Self::WaveFormer => BackboneConfig::WaveFormer(WaveFormerConfig::default()),
            Self::ResEnc => BackboneConfig::ResEnc(ResEncConfig::default()),
        }
    }

    /// The published net, which official checkpoints fit.
    pub fn published(self) -> BackboneConfig {
        match self {
            Self::SegFormer3d => BackboneConfig::SegFormer3d(SegFormer3dConfig::published(4, 3)),
            Self::WaveFormer => {
                BackboneConfig::WaveFormer(WaveFormerConfig::published(4, 4, PUBLISHED_SIDE, Quirks::OFFICIAL))
            }
            Self::ResEnc => BackboneConfig::ResEnc(ResEncConfig::published(1, 1)),
        }
    }

    /// Side of the cubes on which the published net is described, voxels.
    pub const fn published_side(self) -> usize {
        match self {
            Self::SegFormer3d | Self::WaveFormer => PUBLISHED_SIDE,
            Self::ResEnc => 64,
        }
    }
}

/// Side of the cubes that the published SegFormer3D and WaveFormer take, voxels.
const PUBLISHED_SIDE: usize = 128;

/// A backbone and its sizes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum BackboneConfig {
    /// SegFormer3D.
    SegFormer3d(SegFormer3dConfig),
    /// WaveFormer.
    WaveFormer(WaveFormerConfig),
    /// Residual-encoder U-Net.
    ResEnc(ResEncConfig),
}

impl Default for BackboneConfig {
    fn default() -> Self {
        Self::SegFormer3d(SegFormer3dConfig::default())
    }
}

impl BackboneConfig {
    /// Which backbone it is.
    pub fn kind(&self) -> BackboneKind {
        match self {
            Self::SegFormer3d(_) => BackboneKind::SegFormer3d,
            Self::WaveFormer(_) => BackboneKind::WaveFormer,
            Self::ResEnc(_) => BackboneKind::ResEnc,
        }
    }

    /// Checks that a net of these sizes exists.
    ///
    /// # Errors
    /// the first field whose value breaks a rule
    pub fn validate(&self) -> Result<(), InvalidValue> {
        match self {
            Self::SegFormer3d(config) => config.validate(),
            Self::WaveFormer(config) => config.validate(),
            Self::ResEnc(config) => config.validate(),
        }
    }

    /// Checks the numbers of channels against those that the caller feeds and reads.
    ///
    /// # Errors
    /// `in_channels` or `num_classes` when it differs
    pub fn validate_channels(&self, in_channels: usize, num_classes: usize) -> Result<(), InvalidValue> {
        for (field, value, expected) in
            [("in_channels", self.in_channels(), in_channels), ("num_classes", self.num_classes(), num_classes)]
        {
            if value != expected {
                return Err(InvalidValue::new(field, value, format!("must be {expected}")));
            }
        }
        Ok(())
    }

    /// Channels of the input.
    pub fn in_channels(&self) -> usize {
        match self {
            Self::SegFormer3d(config) => config.in_channels,
            Self::WaveFormer(config) => config.in_channels,
            Self::ResEnc(config) => config.in_channels,
        }
    }

    /// Channels of the logits.
    pub fn num_classes(&self) -> usize {
        match self {
            Self::SegFormer3d(config) => config.num_classes,
            Self::WaveFormer(config) => config.num_classes,
            Self::ResEnc(config) => config.num_classes,
        }
    }

    /// The only input size `[D, H, W]` that the net takes; `None` when it takes every multiple of
    /// the [coarsest stride](Self::coarsest_stride).
    pub fn window(&self) -> Option<[usize; 3]> {
        match self {
            Self::WaveFormer(config) => Some(config.size),
            Self::SegFormer3d(_) | Self::ResEnc(_) => None,
        }
    }

    /// The same net for inputs of this size `[D, H, W]`.
    #[must_use]
    pub fn with_window(mut self, size: [usize; 3]) -> Self {
        if let Self::WaveFormer(config) = &mut self {
            config.size = size;
        }
        self
    }

    /// Channels of the encoder's stages, finest first.
    pub fn stage_channels(&self) -> Vec<usize> {
        match self {
            Self::SegFormer3d(config) => config.embed_dims.to_vec(),
            Self::WaveFormer(config) => (0..4).map(|stage| config.channels(stage)).collect(),
            Self::ResEnc(config) => config.features.clone(),
        }
    }

    /// Stride of the encoder's coarsest stage, a power of two; input axes must be multiples of it.
    pub fn coarsest_stride(&self) -> usize {
        match self {
            Self::SegFormer3d(_) => segformer3d::COARSEST_STRIDE,
            Self::WaveFormer(_) => waveformer::COARSEST_STRIDE,
            Self::ResEnc(config) => config.coarsest_stride(),
        }
    }

    /// The cells of a mask must be multiples of this many voxels along each axis, so that a masked
    /// encoder can tell visible from masked positions wherever positions mix.
    pub fn mask_stride(&self) -> usize {
        match self {
            Self::SegFormer3d(_) => segformer3d::MASK_STRIDE,
            Self::WaveFormer(_) | Self::ResEnc(_) => self.coarsest_stride(),
        }
    }

    /// Path of the encoder among the net's parameters, without the variant.
    pub fn encoder_path(&self) -> &'static str {
        match self {
            Self::SegFormer3d(_) => "segformer_encoder.",
            Self::WaveFormer(_) => "waveformer_encoder.",
            Self::ResEnc(_) => "encoder.",
        }
    }

    /// Layers of the encoder, input first, each as the paths of its parameters within the encoder.
    pub fn encoder_layers(&self) -> Vec<Vec<String>> {
        match self {
            Self::SegFormer3d(config) => config.encoder_layers(),
            Self::WaveFormer(config) => config.encoder_layers(),
            Self::ResEnc(config) => config.encoder_layers(),
        }
    }

    /// The encoder's parameters in the weights that `willis pretrain` writes for this backbone.
    pub fn pretrained_encoder(&self, weights: &Weights) -> Weights {
        match self {
            Self::SegFormer3d(_) | Self::WaveFormer(_) => weights.clone(),
            // The whole U-Net is pre-trained, its decoder on intensities.
            Self::ResEnc(_) => weights.under(self.encoder_path()),
        }
    }

    /// Prefixes of parameter paths here and in the official state dict, where they differ; the
    /// first that matches applies.
    pub fn official_names(&self) -> Vec<(String, String)> {
        let owned = |&(ours, official): &(&str, &str)| (ours.to_string(), official.to_string());
        match self {
            Self::SegFormer3d(_) => segformer3d::OFFICIAL_NAMES.iter().map(owned).collect(),
            Self::WaveFormer(_) => waveformer::OFFICIAL_NAMES.iter().map(owned).collect(),
            Self::ResEnc(config) => config.official_names(),
        }
    }

    /// The tensors of an official checkpoint, each once and under its state-dict name.
    pub fn canonical(&self, checkpoint: Weights) -> Weights {
        match self {
            Self::SegFormer3d(_) | Self::WaveFormer(_) => checkpoint,
            Self::ResEnc(_) => resenc::canonical(&checkpoint),
        }
    }

    /// A net with initial parameters.
    ///
    /// # Panics
    /// if [`Self::validate`] refuses the sizes (programmer error)
    pub fn init(&self, init: &mut Init) -> Backbone {
        match self {
            Self::SegFormer3d(config) => Backbone::SegFormer3d(config.init(init)),
            Self::WaveFormer(config) => Backbone::WaveFormer(config.init(init)),
            Self::ResEnc(config) => Backbone::ResEnc(config.init(init)),
        }
    }

    /// The encoder alone, with initial parameters.
    ///
    /// # Panics
    /// if [`Self::validate`] refuses the sizes (programmer error)
    pub fn init_encoder(&self, init: &mut Init) -> BackboneEncoder {
        match self {
            Self::SegFormer3d(config) => BackboneEncoder::SegFormer3d(config.init_encoder(init)),
            Self::WaveFormer(config) => BackboneEncoder::WaveFormer(config.init_encoder(init)),
            Self::ResEnc(config) => BackboneEncoder::ResEnc(config.init_encoder(init)),
        }
    }
}

/// A backbone with its decoder.
#[derive(Module, Debug)]
pub enum Backbone {
    /// SegFormer3D.
    SegFormer3d(SegFormer3d),
    /// WaveFormer.
    WaveFormer(WaveFormer),
    /// Residual-encoder U-Net.
    ResEnc(ResEnc),
}

impl Backbone {
    /// Which backbone it is.
    pub fn kind(&self) -> BackboneKind {
        match self {
            Self::SegFormer3d(_) => BackboneKind::SegFormer3d,
            Self::WaveFormer(_) => BackboneKind::WaveFormer,
            Self::ResEnc(_) => BackboneKind::ResEnc,
        }
    }

    /// Logits at the input's resolution.
    ///
    /// # Shapes
    /// x `[B, in_channels, D, H, W]` -> `[B, num_classes, D, H, W]`; every axis a multiple of the
    /// coarsest stride, and as long as [`BackboneConfig::window`] demands
    pub fn forward(&self, x: Tensor<5>) -> Tensor<5> {
        match self {
            Self::SegFormer3d(net) => net.forward(x),
            Self::WaveFormer(net) => net.forward(x),
            Self::ResEnc(net) => net.forward(x),
        }
    }

    /// The last convolution, whose outputs are the logits.
    pub(crate) fn head(&mut self) -> &mut Conv3d {
        match self {
            Self::SegFormer3d(net) => net.segformer_decoder.head(),
            Self::WaveFormer(net) => net.head(),
            Self::ResEnc(net) => net.head(),
        }
    }

    /// The only input size `[D, H, W]` that the net takes; see [`BackboneConfig::window`].
    pub fn window(&self) -> Option<[usize; 3]> {
        match self {
            Self::WaveFormer(net) => Some(net.size()),
            Self::SegFormer3d(_) | Self::ResEnc(_) => None,
        }
    }
}

/// The encoder of a backbone.
#[derive(Module, Debug)]
#[expect(clippy::large_enum_variant, reason = "a program holds one or two nets at a time")]
pub enum BackboneEncoder {
    /// SegFormer3D's.
    SegFormer3d(SegFormerEncoder),
    /// WaveFormer's.
    WaveFormer(WaveFormerEncoder),
    /// The residual-encoder U-Net's.
    ResEnc(ResEncEncoder),
}

impl BackboneEncoder {
    /// Features of the stages, finest first. With `visible`, x must be zero in hidden cells;
    /// features are computed from visible cells only and are zero in hidden ones.
    ///
    /// # Shapes
    /// x `[B, in_channels, D, H, W]` -> `[B, C, D/s, H/s, W/s]` for each stage's channels C and
    /// stride s
    pub fn encode(&self, x: Tensor<5>, visible: Option<&VisibleCells>) -> Vec<Tensor<5>> {
        match self {
            Self::SegFormer3d(net) => net.forward(x, visible).into_iter().map(|tokens| tokens.into_volume()).collect(),
            Self::WaveFormer(net) => net.forward(x, visible).into_iter().map(|stage| stage.features).collect(),
            Self::ResEnc(net) => net.forward(x, visible),
        }
    }

    /// The parameters under the encoder's own names.
    pub fn weights(&self) -> Weights {
        match self {
            Self::SegFormer3d(net) => Weights::of(net),
            Self::WaveFormer(net) => Weights::of(net),
            Self::ResEnc(net) => Weights::of(net),
        }
    }
}

/// Learning rates for layer-wise decay, by parameter path: each layer's rate is `decay` times the
/// next one's, and the last one's is `decay` times that of the rest of the net.
///
/// `layers` are the paths of each layer's parameters, input first, and `prefix` is the path that
/// they are relative to.
///
/// # Source
/// Clark et al. 2020, arXiv:2003.10555.
pub fn layer_decay_rates(prefix: &str, layers: Vec<Vec<String>>, decay: f64) -> BTreeMap<String, f64> {
    let count = layers.len() as i32;
    let rated = |(layer, paths): (i32, Vec<String>)| {
        paths.into_iter().map(move |path| (format!("{prefix}{path}"), decay.powi(count - layer)))
    };
    (0..).zip(layers).flat_map(rated).collect()
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::golden;

    #[test]
    fn default_and_published_sizes_are_valid() {
        for kind in BackboneKind::ALL {
            for config in [kind.config(), kind.published()] {
                assert_eq!(config.kind(), kind);
                assert_eq!(config.validate(), Ok(()), "{}", kind.name());
            }
            assert_eq!(BackboneKind::from_name(kind.name()), Some(kind));
        }
        assert_eq!(BackboneKind::from_name("unet"), None);
    }

    #[test]
    fn a_configuration_names_its_backbone_and_unknown_fields_are_errors() {
        for kind in BackboneKind::ALL {
            let text = serde_json::to_string(&kind.published()).unwrap();
            assert!(text.contains(&format!(r#""kind":"{}""#, kind.name())), "{text}");
            assert_eq!(serde_json::from_str::<BackboneConfig>(&text).unwrap(), kind.published());
            let partial = serde_json::json!({ "kind": kind.name(), "in_channels": 2 });
            assert_eq!(serde_json::from_value::<BackboneConfig>(partial).unwrap().in_channels(), 2);
            let unknown = serde_json::json!({ "kind": kind.name(), "channels": 2 });
            assert!(serde_json::from_value::<BackboneConfig>(unknown).is_err());
        }
        assert!(serde_json::from_value::<BackboneConfig>(serde_json::json!({ "kind": "unet" })).is_err());
    }

    #[test]
    fn invalid_sizes_name_field_value_and_rule() {
        for (text, message) in [
            (r#"{"kind": "segformer3d", "heads": [1, 2, 5, 5]}"#, "heads[2] = 5 does not divide embed_dims[2] = 96"),
            (r#"{"kind": "segformer3d", "heads": [0, 1, 1, 1]}"#, "heads[0] = 0 must lie between 1 and 4096"),
            (r#"{"kind": "segformer3d", "decoder_dim": 5000}"#, "decoder_dim = 5000 must lie between 1 and 4096"),
            (r#"{"kind": "waveformer", "head_dim": 7}"#, "head_dim = 7 does not divide embed_dim = 24"),
            (
                r#"{"kind": "waveformer", "size": [64, 20, 64]}"#,
                "size[1] = 20 must be a multiple of 16 between 16 and 512",
            ),
            (r#"{"kind": "waveformer", "num_classes": 0}"#, "num_classes = 0 must lie between 1 and 4096"),
            (r#"{"kind": "resenc", "features": [8]}"#, "features = [8] must list 2 to 8 stages"),
            (r#"{"kind": "resenc", "blocks": [1, 1]}"#, "blocks = [1, 1] must have one entry for each of the 4 stages"),
            (r#"{"kind": "resenc", "blocks": [1, 1, 0, 1]}"#, "blocks[2] = 0 must lie between 1 and 4096"),
        ] {
            let config: BackboneConfig = serde_json::from_str(text).unwrap();
            assert_eq!(config.validate().unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn stages_have_the_channels_and_strides_of_the_configuration() {
        let device = Device::flex();
        for kind in BackboneKind::ALL {
            let config = kind.config().with_window([64, 32, 32]);
            let encoder = config.init_encoder(&mut Init::new(1, &device));
            let stages = encoder.encode(golden::input([1, 4, 64, 32, 32], &device), None);
            assert_eq!(stages.iter().map(|x| x.dims()[1]).collect::<Vec<_>>(), config.stage_channels());
            let coarsest = stages.last().unwrap().dims();
            assert_eq!(coarsest[2..], [64, 32, 32].map(|side| side / config.coarsest_stride()));
            // The encoder alone has the parameters of the encoder in the whole net, under its
            // paths.
            let whole = config.init(&mut Init::new(1, &device));
            let path = format!("{}{}", kind.variant(), config.encoder_path());
            let names = |weights: &Weights| weights.shapes().map(|(name, _)| name.to_string()).collect::<Vec<_>>();
            assert_eq!(names(&Weights::of(&whole).under(&path)), names(&encoder.weights()));
        }
    }

    #[test]
    fn every_parameter_of_an_encoder_belongs_to_one_layer() {
        for kind in BackboneKind::ALL {
            let config = kind.config();
            let encoder = config.init_encoder(&mut Init::new(1, &Device::flex()));
            let rates = layer_decay_rates("", config.encoder_layers(), 0.5);
            for (name, _) in encoder.weights().shapes() {
                assert_eq!(rates.keys().filter(|path| name.starts_with(path.as_str())).count(), 1, "{name}");
            }
        }
    }
}
