//! The expert classifier: from a patch around a candidate and its condition to class, site, centre
//! and size.
//!
//! Letters: B batch, C channels, M channels of the middle feature map.

use std::collections::BTreeMap;

use burn::module::Module;
use burn::tensor::activation::softmax;
use burn::tensor::{Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};
use willis_core::{InvalidValue, SITE_COUNT, Switch};

use super::condition::CONDITIONS;
use super::encoder::{MID_SIDE, PatchEncoder, PatchEncoderConfig};
use super::oscillators::{Oscillators, OscillatorsConfig};
use super::patch::SIDE;
use crate::layers::film::{Film, FilmConfig};
use crate::layers::{Conv3d, Conv3dConfig, Init, Linear, LinearConfig};
use crate::ops;
use crate::weights::{Weights, WeightsError};

/// Width of the hidden layer of the classification head.
const HIDDEN: usize = 64;

/// Initial value of the log-diameter: 4.5 mm.
const MEAN_LOG_DIAMETER: f64 = 1.5;

/// Configuration of an [`ExamineNet`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ExamineNetConfig {
    /// Encoder of the patch.
    pub encoder: PatchEncoderConfig,
    /// Oscillators on the middle feature map.
    pub oscillators: OscillatorsChoice,
    /// Modulation of the features by the condition.
    pub film: Switch,
}

/// Whether the net has oscillators, and their sizes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum OscillatorsChoice {
    /// No oscillators.
    Off,
    /// Kuramoto oscillators.
    Kuramoto(OscillatorsConfig),
}

impl Default for ExamineNetConfig {
    fn default() -> Self {
        Self {
            encoder: PatchEncoderConfig::default(),
            oscillators: OscillatorsChoice::Kuramoto(OscillatorsConfig::default()),
            film: Switch::On,
        }
    }
}

/// The expert classifier.
#[derive(Module, Debug)]
pub struct ExamineNet {
    encoder: PatchEncoder,
    mid_film: Option<Film>,
    oscillators: Option<Oscillators>,
    deep_film: Option<Film>,
    /// Attention over the cells of the middle feature map, whose mean position is the centre.
    spot: Conv3d,
    hidden: Linear,
    head: Linear,
}

/// Output of the net.
#[derive(Debug, Clone)]
pub struct ExamineOutput {
    /// Logit of "aneurysm", `[B]`.
    pub class_logit: Tensor<1>,
    /// Logits of the sites in column order, `[B, 13]`.
    pub site_logits: Tensor<2>,
    /// Offset of the centre from the central voxel of the patch, voxels along z, y, x, `[B, 3]`.
    pub offset_vox: Tensor<2>,
    /// Natural logarithm of the diameter in mm, `[B]`.
    pub log_diameter: Tensor<1>,
    /// Stimulus and last state of the oscillators, `[B, C, 12, 12, 12]` each.
    pub oscillation: Option<[Tensor<5>; 2]>,
}

impl ExamineNetConfig {
    /// Checks every value.
    ///
    /// # Errors
    /// [`InvalidValue`] names the first value that breaks its rule.
    pub fn validate(&self) -> Result<(), InvalidValue> {
        self.encoder.validate().map_err(|error| error.within("encoder"))?;
        match &self.oscillators {
            OscillatorsChoice::Off => Ok(()),
            OscillatorsChoice::Kuramoto(config) => config.validate().map_err(|error| error.within("oscillators")),
        }
    }

    /// A net with initial parameters; equal seeds give equal nets.
    pub fn init(&self, init: &mut Init) -> ExamineNet {
        let mid = self.encoder.mid_channels();
        let deep = 4 * mid;
        let film = |channels, init: &mut Init| {
            (self.film == Switch::On).then(|| FilmConfig { conditions: CONDITIONS, channels }.init(init))
        };
        let encoder = self.encoder.init(init);
        let mut hidden = LinearConfig::new(2 * mid + deep, HIDDEN).init(init);
        hidden.weight = init.normal([HIDDEN, 2 * mid + deep], (1.0 / (2 * mid + deep) as f64).sqrt());
        ExamineNet {
            encoder,
            mid_film: film(mid, init),
            oscillators: match &self.oscillators {
                OscillatorsChoice::Off => None,
                OscillatorsChoice::Kuramoto(config) => Some(config.init(mid, init)),
            },
            deep_film: film(deep, init),
            spot: Conv3dConfig::pointwise(mid, 1).without_bias().init(init),
            hidden,
            head: LinearConfig::new(HIDDEN, 2 + SITE_COUNT).init(init),
        }
    }

    /// Initial weights with a pre-trained WaveFormer encoder, which may have other input channels
    /// and another window.
    ///
    /// # Errors
    /// [`WeightsError`] when the pre-trained encoder has other parameters, or this net's encoder is
    /// plain.
    pub fn with_encoder(&self, pretrained: &Weights, seed: u64) -> Result<Weights, WeightsError> {
        let net = self.init(&mut Init::new(seed, &Device::flex()));
        self.encoder.transfer(Weights::of(&net), pretrained)
    }

    /// Learning rates of a pre-trained encoder's layers, by path. The rate of each layer is `decay`
    /// times that of the next one, and the rate of the last layer is `decay` times that of the rest
    /// of the net.
    pub fn encoder_rates(&self, decay: f64) -> BTreeMap<String, f64> {
        self.encoder.layer_rates(decay)
    }
}

impl ExamineNet {
    /// Revision of what the net computes from its parameters, which weights files name. It is
    /// counted up when the computation changes and the parameters do not. Since revision 2 the
    /// tokens of WaveFormer are normalised before FiLM and pooling.
    pub const REVISION: &str = "2";

    /// The net of a weights file, on the CPU.
    ///
    /// # Errors
    /// [`WeightsError`] when the bytes are not a safetensors file, its metadata lacks the
    /// configuration or has another revision, or the weights do not fit the configuration.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, WeightsError> {
        let weights = Weights::from_bytes(bytes)?;
        weights.check_revision(Self::REVISION)?;
        let config: ExamineNetConfig = weights.config()?;
        weights.apply(config.init(&mut Init::new(0, &Device::flex())))
    }

    /// Classifies patches.
    ///
    /// # Shapes
    /// x `[B, 5, 48, 48, 48]`, condition `[B, 31]`
    pub fn forward(&self, x: Tensor<5>, condition: Tensor<2>) -> ExamineOutput {
        let [batch, ..] = x.dims();
        let mut mid = self.encoder.front(x);
        if let Some(film) = &self.mid_film {
            mid = film.forward(mid, condition.clone());
        }
        let mut oscillation = None;
        if let Some(oscillators) = &self.oscillators {
            let (modulated, states) = oscillators.forward(mid);
            (mid, oscillation) = (modulated, Some(states));
        }
        let mut deep = self.encoder.back(mid.clone());
        if let Some(film) = &self.deep_film {
            deep = film.forward(deep, condition);
        }

        let [_, channels, d, h, w] = mid.dims();
        let attention = softmax(self.spot.forward(mid.clone()).reshape([batch, 1, d * h * w]), 2);
        let cells = mid.clone().reshape([batch, channels, d * h * w]);
        let attended = cells.matmul(attention.clone().swap_dims(1, 2)).reshape([batch, channels]);
        let offset_vox = attention.matmul(cell_places(&mid.device())).reshape([batch, 3]);
        let centre = mid.narrow(2, d / 2 - 1, 2).narrow(3, h / 2 - 1, 2).narrow(4, w / 2 - 1, 2);
        let pooled = Tensor::cat(vec![attended, mean_over_space(centre), mean_over_space(deep)], 1);
        let outputs = self.head.forward(ops::gelu(self.hidden.forward(pooled)));
        ExamineOutput {
            class_logit: outputs.clone().narrow(1, 0, 1).reshape([batch]),
            log_diameter: outputs.clone().narrow(1, 1, 1).reshape([batch]) + MEAN_LOG_DIAMETER,
            site_logits: outputs.narrow(1, 2, SITE_COUNT),
            offset_vox,
            oscillation,
        }
    }

    /// The oscillators, if the net has them.
    pub fn oscillators(&self) -> Option<&Oscillators> {
        self.oscillators.as_ref()
    }

    /// Device of the parameters.
    pub fn device(&self) -> Device {
        self.head.weight.val().device()
    }
}

/// Offsets of the cells of the middle feature map from the central voxel of the patch, in voxels
/// along z, y, x, `[1, 12³, 3]`.
fn cell_places(device: &Device) -> Tensor<3> {
    let step = SIDE / MID_SIDE;
    let along = |cell: usize| (cell * step) as f32 + (step as f32 - 1.0) / 2.0 - (SIDE / 2) as f32;
    let cells = 0..MID_SIDE.pow(3);
    let place = |i: usize| [i / MID_SIDE / MID_SIDE, i / MID_SIDE % MID_SIDE, i % MID_SIDE].map(along);
    let values: Vec<f32> = cells.flat_map(place).collect();
    Tensor::from_data(TensorData::new(values, [1, MID_SIDE.pow(3), 3]), device)
}

/// `[B, C, D, H, W]` -> `[B, C]`.
fn mean_over_space(x: Tensor<5>) -> Tensor<2> {
    let [b, c, d, h, w] = x.dims();
    x.reshape([b, c, d * h * w]).mean_dim(2).reshape([b, c])
}

#[cfg(test)]
mod tests {
    use super::super::encoder::{PlainEncoderConfig, WaveFormerPatchConfig};
    use super::super::patch::IN_CHANNELS;
    use super::*;
    use crate::backbones::waveformer::{Quirks, WaveFormerConfig};
    use crate::golden;
    use crate::weights::Precision;
    use burn::tensor::Tolerance;

    fn waveformer(embed_dim: usize) -> ExamineNetConfig {
        let encoder = PatchEncoderConfig::Waveformer(WaveFormerPatchConfig { embed_dim, ..Default::default() });
        ExamineNetConfig { encoder, ..ExamineNetConfig::default() }
    }

    fn plain(embed_dim: usize) -> ExamineNetConfig {
        let encoder = PatchEncoderConfig::Plain(PlainEncoderConfig { embed_dim });
        ExamineNetConfig { encoder, ..ExamineNetConfig::default() }
    }

    fn net(config: &ExamineNetConfig, seed: u64) -> ExamineNet {
        config.init(&mut Init::new(seed, &Device::flex()))
    }

    #[test]
    fn a_weights_file_restores_its_net_and_others_are_refused() {
        let config = waveformer(4);
        let mut weights = Weights::of(&net(&config, 1));
        let read = |weights: &Weights| ExamineNet::from_bytes(&weights.to_bytes(Precision::F32));
        assert!(matches!(read(&weights), Err(WeightsError::Revision { got: None, .. })));
        weights.metadata.insert("revision".into(), ExamineNet::REVISION.into());
        assert!(matches!(read(&weights), Err(WeightsError::Configuration { .. })));
        let described = weights.clone().described(&config, ExamineNet::REVISION);
        assert!(Weights::of(&read(&described).unwrap()).iter().eq(weights.iter()));
        let other = weights.described(&ExamineNetConfig::default(), ExamineNet::REVISION);
        assert!(matches!(read(&other), Err(WeightsError::Mismatch { .. })));
    }

    #[test]
    fn a_pre_trained_encoder_is_transferred_from_another_window_and_other_channels() {
        let device = Device::flex();
        let config = waveformer(8);
        let pretrained = WaveFormerConfig {
            embed_dim: 8,
            depths: [1; 4],
            head_dim: 4,
            ffn_ratio: 2,
            ..WaveFormerConfig::published(4, 1, 64, Quirks::FIXED)
        };
        let encoder = Weights::of(&pretrained.init_encoder(&mut Init::new(5, &device)));
        let weights = config.with_encoder(&encoder, 1).unwrap();
        let path = "encoder.Waveformer.";
        let name = "block3.0.mlp.pwconv.weight";
        assert!(encoder.get(name).is_some());
        assert_eq!(weights.get(&format!("{path}{name}")), encoder.get(name));
        let rates = config.encoder_rates(0.5);
        for (name, _) in weights.shapes().filter(|(name, _)| name.starts_with(path)) {
            assert_eq!(rates.keys().filter(|prefix| name.starts_with(prefix.as_str())).count(), 1, "{name}");
        }
        assert!(weights.apply(net(&config, 0)).is_ok());
        assert!(plain(8).with_encoder(&encoder, 1).is_err());
        assert!(plain(8).encoder_rates(0.5).is_empty());
    }

    #[test]
    fn every_choice_gives_a_net() {
        let off = |config| ExamineNetConfig { oscillators: OscillatorsChoice::Off, ..config };
        let without_film = |config| ExamineNetConfig { film: Switch::Off, ..config };
        for (config, oscillates) in [
            (ExamineNetConfig::default(), true),
            (without_film(off(plain(24))), false),
            (plain(24), true),
            (off(waveformer(24)), false),
        ] {
            config.validate().unwrap();
            let device = Device::flex();
            let x = golden::input([2, IN_CHANNELS, SIDE, SIDE, SIDE], &device);
            let output = net(&config, 7).forward(x, Tensor::ones([2, CONDITIONS], &device));
            assert_eq!(output.class_logit.dims(), [2]);
            assert_eq!(output.site_logits.dims(), [2, SITE_COUNT]);
            assert_eq!(output.offset_vox.dims(), [2, 3]);
            let state = output.oscillation.map(|[_, state]| state.dims());
            assert_eq!(state, oscillates.then_some([2, 24, MID_SIDE, MID_SIDE, MID_SIDE]));
        }
    }

    #[test]
    fn an_untrained_net_ignores_the_condition_and_is_deterministic() {
        let device = Device::flex();
        let net = net(&ExamineNetConfig::default(), 7);
        let x = golden::input::<5>([1, IN_CHANNELS, SIDE, SIDE, SIDE], &device);
        let logit =
            |value: f32| net.forward(x.clone(), Tensor::full([1, CONDITIONS], value, &device)).class_logit.into_data();
        assert_eq!(logit(1.0), logit(1.0));
        logit(0.0).assert_approx_eq::<f32>(&logit(1.0), Tolerance::absolute(1e-6));
    }

    #[test]
    fn cells_are_placed_around_the_central_voxel() {
        let places = cell_places(&Device::flex()).into_data().try_to_vec::<f32>().unwrap();
        assert_eq!(places[..3], [-22.5; 3]);
        assert_eq!(places[places.len() - 3..], [21.5; 3]);
        assert_eq!(places[3..6], [-22.5, -22.5, -18.5]);
    }
}
