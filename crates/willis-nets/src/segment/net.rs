//! The vessel net: a backbone, or SegFormer3D with a branch at full resolution.

use std::collections::BTreeMap;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};
use willis_core::InvalidValue;

use super::branched::{Branched, BranchedConfig};
use crate::backbones::{Backbone, BackboneConfig, BackboneKind, layer_decay_rates};
use crate::layers::{Conv3d, Init};
use crate::loss::segmentation::{CHANNELS, CLASSES};
use crate::ops::count_macs;
use crate::weights::transfer::transfer_encoder;
use crate::weights::{Weights, WeightsError};

/// Channels of the input: intensity, then the world coordinates x, y, z over [`COORDINATE_MM`].
pub const IN_CHANNELS: usize = 4;
/// Unit of the coordinate channels, mm; they are relative to the volume's centre.
pub const COORDINATE_MM: f64 = 50.0;
/// Windows are multiples of this many voxels.
const WINDOW_STEP: usize = 32;

/// Which vessel net, and its sizes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum SegmentNetConfig {
    /// SegFormer3D with a convolutional branch at full and half resolution.
    Branched(BranchedConfig),
    /// A backbone alone.
    Plain {
        /// The backbone.
        backbone: BackboneConfig,
    },
}

impl Default for SegmentNetConfig {
    fn default() -> Self {
        Self::Branched(BranchedConfig::default())
    }
}

impl SegmentNetConfig {
    /// The net around a backbone, with default sizes: SegFormer3D has the branch.
    pub fn around(kind: BackboneKind) -> Self {
        match kind {
            BackboneKind::SegFormer3d => Self::default(),
            kind => Self::Plain { backbone: kind.config() },
        }
    }

    /// The backbone.
    pub fn backbone(&self) -> BackboneConfig {
        match self {
            Self::Branched(config) => BackboneConfig::SegFormer3d(config.backbone.clone()),
            Self::Plain { backbone } => backbone.clone(),
        }
    }

    /// Checks that a net of these sizes exists and takes the input and the classes of segmentation.
    ///
    /// # Errors
    /// the first field whose value breaks a rule
    pub fn validate(&self) -> Result<(), InvalidValue> {
        if let Self::Branched(config) = self {
            config.validate()?;
        }
        let within = |error: InvalidValue| error.within("backbone");
        let backbone = self.backbone();
        backbone.validate().map_err(within)?;
        backbone.validate_channels(IN_CHANNELS, CHANNELS).map_err(within)?;
        if let Some(size) = backbone.window()
            && (size != [size[0]; 3] || !size[0].is_multiple_of(WINDOW_STEP))
        {
            let rule = format!("must be three equal multiples of {WINDOW_STEP}");
            return Err(within(InvalidValue::new("size", format!("{size:?}"), rule)));
        }
        let stride = backbone.coarsest_stride();
        if stride > WINDOW_STEP {
            let rule = format!("halves the resolution to a stride of {stride}, more than {WINDOW_STEP}");
            return Err(within(InvalidValue::new("features", format!("{:?}", backbone.stage_channels()), rule)));
        }
        Ok(())
    }

    /// A net with initial parameters; every voxel starts as probable background.
    ///
    /// # Panics
    /// if [`Self::validate`] refuses the sizes (programmer error)
    pub fn init(&self, init: &mut Init) -> SegmentNet {
        self.validate().expect("valid sizes");
        let mut net = match self {
            Self::Branched(config) => SegmentNet::Branched(config.init(init)),
            Self::Plain { backbone } => SegmentNet::Plain(backbone.init(init)),
        };
        let prior: Vec<f32> = (0..CHANNELS)
            .map(|channel| match channel {
                0 => 2.0,
                CLASSES => -4.0,
                _ => -1.0,
            })
            .collect();
        let head = net.head();
        head.bias = head.bias.take().map(|bias| bias.map(|old| Tensor::from_floats(prior.as_slice(), &old.device())));
        net
    }

    /// Side of the only windows that the net takes; `None` when it takes every multiple of 32.
    pub fn window(&self) -> Option<usize> {
        self.backbone().window().map(|size| size[0])
    }

    /// Initial weights with the encoder of a pre-trained backbone, which may have other input
    /// channels.
    ///
    /// # Errors
    /// the encoder's parameters are not those of this net's encoder
    pub fn with_encoder(&self, pretrained: &Weights, seed: u64) -> Result<Weights, WeightsError> {
        let net = self.init(&mut Init::new(seed, &Device::flex()));
        let encoder = self.backbone().pretrained_encoder(pretrained);
        Ok(transfer_encoder(Weights::of(&net), &self.encoder_path(), &encoder)?.under(&net.variant()))
    }

    /// Path of the encoder among the net's parameters.
    fn encoder_path(&self) -> String {
        let net = match self {
            Self::Branched(_) => "Branched.backbone.".to_string(),
            Self::Plain { backbone } => format!("Plain.{}", backbone.kind().variant()),
        };
        net + self.backbone().encoder_path()
    }

    /// Learning rates of a pre-trained encoder's layers by path; see [`layer_decay_rates`].
    pub fn encoder_rates(&self, decay: f64) -> BTreeMap<String, f64> {
        layer_decay_rates(&self.encoder_path(), self.backbone().encoder_layers(), decay)
    }
}

/// The vessel net.
#[derive(Module, Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one net at a time")]
pub enum SegmentNet {
    /// SegFormer3D with a branch at full resolution.
    Branched(Branched),
    /// A backbone alone.
    Plain(Backbone),
}

impl SegmentNet {
    /// Revision of the computation from the parameters, which weights files carry. It is increased
    /// when that changes while names and shapes of the parameters stay.
    pub const REVISION: &str = "1";

    /// The net of a weights file, on the CPU.
    ///
    /// # Errors
    /// not a safetensors file, another revision, no valid configuration in the metadata, or weights
    /// that do not fit it
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, WeightsError> {
        let weights = Weights::from_bytes(bytes)?;
        weights.check_revision(Self::REVISION)?;
        let config: SegmentNetConfig = weights.config()?;
        if config.validate().is_err() {
            return Err(WeightsError::Configuration { source: None });
        }
        config.init(&mut Init::new(0, &Device::flex())).with_weights(weights)
    }

    /// The net with other parameters, given under the names of weights files.
    ///
    /// # Errors
    /// weights of another net or configuration
    pub fn with_weights(self, weights: Weights) -> Result<Self, WeightsError> {
        let variant = self.variant();
        weights.renamed(&[("", &variant)]).apply(self)
    }

    /// [`Self::with_weights`] of this net or of one with fewer residual blocks; the blocks that the
    /// weights lack keep their parameters.
    ///
    /// # Errors
    /// weights of another net or configuration
    pub fn with_shallower_weights(self, mut weights: Weights) -> Result<Self, WeightsError> {
        for (name, shape, values) in self.weights().iter().filter(|(name, ..)| name.contains("_blocks.")) {
            if weights.get(name).is_none() {
                weights.insert(name, shape.to_vec(), values.to_vec());
            }
        }
        self.with_weights(weights)
    }

    /// The parameters under the names of weights files, which are the net's own.
    pub fn weights(&self) -> Weights {
        Weights::of(self).under(&self.variant())
    }

    /// Names of the enums' variants, with which the paths of all parameters start.
    fn variant(&self) -> String {
        match self {
            Self::Branched(_) => "Branched.".to_string(),
            Self::Plain(net) => format!("Plain.{}", net.kind().variant()),
        }
    }

    /// The last convolution.
    fn head(&mut self) -> &mut Conv3d {
        match self {
            Self::Branched(net) => &mut net.head,
            Self::Plain(net) => net.head(),
        }
    }

    /// The net with `shift` added to the logit of the background everywhere.
    pub(super) fn with_background_shift(mut self, shift: f32) -> Self {
        let mut shifts = [0.0; CHANNELS];
        shifts[0] = shift;
        let shifted = |old: Tensor<1>| old.clone() + Tensor::from_floats(shifts, &old.device());
        let head = self.head();
        head.bias = head.bias.take().map(|bias| bias.map(shifted));
        self
    }

    /// Side of the only windows that the net takes; `None` when it takes every multiple of 32.
    pub fn window(&self) -> Option<usize> {
        match self {
            Self::Branched(_) => None,
            Self::Plain(net) => net.window().map(|size| size[0]),
        }
    }

    /// Number of parameters.
    pub fn parameters(&self) -> usize {
        self.num_params()
    }

    /// Multiply-accumulates of one window of `side³` voxels.
    pub fn multiplications(&self, side: usize) -> u64 {
        let x = Tensor::zeros([1, IN_CHANNELS, side, side, side], &self.device());
        count_macs(|| self.forward(x).into_data()).1
    }

    /// Device of the parameters.
    pub fn device(&self) -> Device {
        self.devices().into_iter().next().expect("every net has parameters")
    }

    /// Logits: background, the thirteen sites in the order of their mask values, aneurysm.
    ///
    /// # Shapes
    /// x `[B, 4, D, H, W]`, every axis a multiple of 32, or of the side of [`Self::window`] ->
    /// `[B, 15, D, H, W]`
    pub fn forward(&self, x: Tensor<5>) -> Tensor<5> {
        match self {
            Self::Branched(net) => net.forward(x),
            Self::Plain(net) => net.forward(x),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::backbones::resenc::ResEncConfig;
    use crate::backbones::segformer3d::SegFormer3dConfig;
    use crate::backbones::waveformer::WaveFormerConfig;
    use crate::weights::Precision;

    fn small_segformer() -> SegFormer3dConfig {
        SegFormer3dConfig {
            embed_dims: [8, 8, 16, 16],
            heads: [1, 1, 2, 2],
            depths: [1; 4],
            decoder_dim: 16,
            ..SegFormer3dConfig::default()
        }
    }

    fn branched(fine_blocks: usize) -> SegmentNetConfig {
        let config = BranchedConfig { backbone: small_segformer(), full_channels: 4, half_channels: 8, fine_blocks };
        SegmentNetConfig::Branched(config)
    }

    /// A net small enough for tests.
    pub fn tiny() -> SegmentNetConfig {
        branched(1)
    }

    /// A WaveFormer small enough for tests, for windows of this size.
    pub fn tiny_waveformer(size: [usize; 3]) -> SegmentNetConfig {
        let config = WaveFormerConfig { size, embed_dim: 8, head_dim: 4, ..WaveFormerConfig::default() };
        SegmentNetConfig::Plain { backbone: BackboneConfig::WaveFormer(config) }
    }

    /// Every net there is.
    fn all() -> [SegmentNetConfig; 4] {
        let resenc = ResEncConfig { features: vec![4, 8, 8], blocks: vec![1; 3], ..ResEncConfig::default() };
        [
            tiny(),
            SegmentNetConfig::Plain { backbone: BackboneConfig::SegFormer3d(small_segformer()) },
            tiny_waveformer([32; 3]),
            SegmentNetConfig::Plain { backbone: BackboneConfig::ResEnc(resenc) },
        ]
    }

    #[test]
    fn a_weights_file_is_read_by_the_configuration_in_its_metadata() {
        for config in all() {
            let weights = config.init(&mut Init::new(1, &Device::flex())).weights();
            let read = |weights: &Weights| SegmentNet::from_bytes(&weights.to_bytes(Precision::F32));
            assert!(matches!(read(&weights), Err(WeightsError::Revision { .. })));
            let of_another = weights.clone().described(&"another net", SegmentNet::REVISION);
            assert!(matches!(read(&of_another), Err(WeightsError::Configuration { .. })));
            let weights = weights.described(&config, SegmentNet::REVISION);
            let read = read(&weights).unwrap();
            assert_eq!(read.window(), config.window());
            assert!(read.weights().iter().eq(weights.iter()));
        }
    }

    #[test]
    fn invalid_configurations_name_field_value_and_rule() {
        for kind in BackboneKind::ALL {
            assert_eq!(SegmentNetConfig::around(kind).validate(), Ok(()));
        }
        for (text, message) in [
            (
                r#"{"kind": "branched", "backbone": {"heads": [1, 2, 4, 3]}}"#,
                "backbone.heads[3] = 3 does not divide embed_dims[3] = 160",
            ),
            (r#"{"kind": "branched", "fine_blocks": 65}"#, "fine_blocks = 65 must lie between 0 and 64"),
            (
                r#"{"kind": "plain", "backbone": {"kind": "resenc", "in_channels": 1}}"#,
                "backbone.in_channels = 1 must be 4",
            ),
            (
                r#"{"kind": "plain", "backbone": {"kind": "waveformer", "size": [64, 32, 64]}}"#,
                "backbone.size = [64, 32, 64] must be three equal multiples of 32",
            ),
            (
                r#"{"kind": "plain", "backbone": {"kind": "resenc", "features": [1, 1, 1, 1, 1, 1, 1], "blocks": [1, 1, 1, 1, 1, 1, 1]}}"#,
                "backbone.features = [1, 1, 1, 1, 1, 1, 1] halves the resolution to a stride of 64, more than 32",
            ),
        ] {
            let config: SegmentNetConfig = serde_json::from_str(text).unwrap();
            assert_eq!(config.validate().unwrap_err().to_string(), message);
        }
        for unknown in [
            r#"{"kind": "branched", "fine_branch": "on"}"#,
            r#"{"kind": "plain", "backbone": {"kind": "resenc"}, "full_channels": 8}"#,
        ] {
            assert!(serde_json::from_str::<SegmentNetConfig>(unknown).is_err(), "{unknown}");
        }
    }

    #[test]
    fn a_pretrained_encoder_is_transferred_and_learns_more_slowly() {
        for config in all() {
            let device = Device::flex();
            let path = config.encoder_path();
            let fresh = Weights::of(&config.init(&mut Init::new(1, &device)));
            let other = config.init(&mut Init::new(8, &device));
            let encoder = Weights::of(&other).under(&path);
            // `willis pretrain` writes the U-Net with its decoder.
            let pretrained = match config.backbone() {
                BackboneConfig::ResEnc(_) => other.weights(),
                BackboneConfig::SegFormer3d(_) | BackboneConfig::WaveFormer(_) => encoder.clone(),
            };
            let start = config.with_encoder(&pretrained, 1).unwrap();
            let net = config.init(&mut Init::new(2, &device)).with_weights(start).unwrap();
            let weights = Weights::of(&net);
            assert_eq!(weights.under(&path), encoder);
            let rest = |weights: &Weights| {
                let named = weights.iter().filter(|(name, ..)| !name.starts_with(&path));
                named.map(|(name, _, values)| (name.to_string(), values.to_vec())).collect::<Vec<_>>()
            };
            assert_eq!(rest(&weights), rest(&fresh));
            assert!(config.with_encoder(&Weights::default(), 1).is_err());
            let rates = config.encoder_rates(0.5);
            for path in rates.keys() {
                assert!(fresh.shapes().any(|(name, _)| name.starts_with(path)), "{path}");
            }
            for (name, _) in fresh.shapes().filter(|(name, _)| name.starts_with(&path)) {
                assert_eq!(rates.keys().filter(|path| name.starts_with(path.as_str())).count(), 1, "{name}");
            }
        }
        let rates = tiny().encoder_rates(0.5);
        // Four embeddings, four blocks and the norms after them.
        assert_eq!(rates.len(), 12);
        assert_eq!(rates["Branched.backbone.segformer_encoder.embed_1."], 0.5f64.powi(8));
        assert_eq!(rates["Branched.backbone.segformer_encoder.tf_block4.0."], 0.5);
    }

    #[test]
    fn additional_residual_blocks_do_not_change_the_logits() {
        let device = Device::flex();
        let net = branched(0).init(&mut Init::new(1, &device));
        let deeper = branched(2).init(&mut Init::new(2, &device)).with_shallower_weights(net.weights()).unwrap();
        let x = Tensor::random([1, 4, 32, 32, 32], burn::tensor::Distribution::Default, &device);
        assert!(deeper.parameters() > net.parameters());
        assert_eq!(deeper.forward(x.clone()).into_data(), net.forward(x).into_data());
        assert!(net.with_shallower_weights(deeper.weights()).is_err());
    }

    #[test]
    fn logits_have_the_input_s_shape_and_start_as_background() {
        let device = Device::flex();
        for config in all() {
            let net = config.init(&mut Init::new(1, &device));
            let height = if config.window().is_some() { 32 } else { 64 };
            let logits = net.forward(Tensor::zeros([2, 4, 32, height, 32], &device));
            assert_eq!(logits.dims(), [2, 15, 32, height, 32]);
            let background: f32 = logits.clone().narrow(1, 0, 1).mean().into_scalar();
            let others: f32 = logits.narrow(1, 1, 14).max().into_scalar();
            assert!(background > others + 1.0, "{config:?}: {background} against {others}");
            assert!(net.multiplications(32) > 1_000_000);
        }
    }
}
