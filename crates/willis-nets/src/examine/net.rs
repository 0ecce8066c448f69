//! The expert classifier: a patch around a candidate and what is known of the series, to class,
//! site, centre and size.
//!
//! Letters: B batch, C channels, M mid channels on a quarter of the patch's side.

use std::collections::BTreeMap;

use burn::module::Module;
use burn::tensor::activation::softmax;
use burn::tensor::{Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};
use willis_core::SITE_COUNT;

use super::condition::CONDITIONS;
use super::oscillators::{Oscillators, OscillatorsConfig};
use crate::backbones::waveformer::{Quirks, WaveformerConfig, WaveformerEncoder, norm};
use crate::layers::film::{Film, FilmConfig};
use crate::layers::{Activation, Conv3d, Conv3dConfig, ConvBlock, ConvBlockConfig, Init, Linear, LinearConfig};
use crate::ops;
use crate::weights::transfer::transfer_encoder;
use crate::weights::{Weights, WeightsError};
use willis_core::Switch;

/// Side of a patch, voxels.
pub const SIDE: usize = 48;
/// Channels of the input: intensity, vessel and aneurysm probability, signed distance to the vessel
/// wall, distance to the middle of the patch.
pub const IN_CHANNELS: usize = 5;
/// Side of the grid on which oscillators run and the centre is looked for.
pub const MID_SIDE: usize = SIDE / 4;

const HIDDEN: usize = 64;
/// Path of WaveFormer's encoder among the net's parameters.
const ENCODER: &str = "encoder.Waveformer.";

/// What turns the patch into features.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Backbone {
    /// WaveFormer encoder.
    Waveformer,
    /// Strided convolutions: the baseline row.
    Plain,
}

/// Sizes of an [`ExamineNet`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ExamineNetConfig {
    /// What turns the patch into features.
    pub backbone: Backbone,
    /// Channels at half of the patch's side; each halving doubles them.
    pub embed_dim: usize,
    /// Blocks of WaveFormer's stages.
    pub depths: [usize; 4],
    /// Kuramoto oscillators after the second stage.
    pub oscillators: Switch,
    /// Their size.
    pub oscillator_sizes: OscillatorsConfig,
    /// Modulation by what is known of the series.
    pub film: Switch,
}

impl Default for ExamineNetConfig {
    fn default() -> Self {
        Self {
            backbone: Backbone::Waveformer,
            embed_dim: 24,
            depths: [1, 1, 1, 1],
            oscillators: Switch::On,
            oscillator_sizes: OscillatorsConfig::default(),
            film: Switch::On,
        }
    }
}

/// The expert classifier.
#[derive(Module, Debug)]
pub struct ExamineNet {
    encoder: Encoder,
    mid_film: Option<Film>,
    oscillators: Option<Oscillators>,
    deep_film: Option<Film>,
    spot: Conv3d,
    hidden: Linear,
    head: Linear,
}

/// What the net says of each patch.
#[derive(Debug, Clone)]
pub struct ExamineOutput {
    /// Logit of "is an aneurysm", `[B]`.
    pub class_logit: Tensor<1>,
    /// Logits of the sites, column order, `[B, 13]`.
    pub site_logits: Tensor<2>,
    /// Centre relative to the middle voxel of the patch, voxels along z, y, x, `[B, 3]`.
    pub offset_vox: Tensor<2>,
    /// Natural logarithm of the diameter in mm, `[B]`.
    pub log_diameter: Tensor<1>,
    /// Stimulus and last state of the oscillators, `[B, C, 12, 12, 12]` each.
    pub oscillation: Option<[Tensor<5>; 2]>,
}

impl ExamineNetConfig {
    /// A fresh net; equal seeds give equal nets.
    pub fn init(&self, seed: u64, device: &Device) -> ExamineNet {
        let init = &mut Init::new(seed, device);
        let (mid, deep) = (2 * self.embed_dim, 8 * self.embed_dim);
        let film = |channels, init: &mut Init| {
            (self.film == Switch::On).then(|| FilmConfig { conditions: CONDITIONS, channels }.init(init))
        };
        let encoder = match self.backbone {
            Backbone::Waveformer => Encoder::Waveformer(self.waveformer().init(init)),
            Backbone::Plain => Encoder::Plain(PlainEncoder::new(self.embed_dim, init)),
        };
        let mut hidden = LinearConfig::new(2 * mid + deep, HIDDEN).init(init);
        hidden.weight = init.normal([HIDDEN, 2 * mid + deep], (1.0 / (2 * mid + deep) as f64).sqrt());
        ExamineNet {
            encoder,
            mid_film: film(mid, init),
            oscillators: (self.oscillators == Switch::On).then(|| self.oscillator_sizes.init(mid, init)),
            deep_film: film(deep, init),
            spot: Conv3dConfig::pointwise(mid, 1).without_bias().init(init),
            hidden,
            head: LinearConfig::new(HIDDEN, 2 + SITE_COUNT).init(init),
        }
    }

    /// Random initial weights but for those of a pre-trained WaveFormer encoder, which may have
    /// been made for other input channels and another patch.
    ///
    /// # Errors
    /// the encoder has other parameters than this net's, or this net is the plain one
    pub fn with_encoder(&self, encoder: &Weights, seed: u64) -> Result<Weights, WeightsError> {
        transfer_encoder(Weights::of(&self.init(seed, &Device::flex())), ENCODER, encoder)
    }

    /// Learning rates of a pre-trained encoder's layers by path: each layer's is `decay` times the
    /// next one's, and the last one's `decay` times that of the rest of the net (Clark et al.,
    /// arXiv:2003.10555).
    pub fn encoder_rates(&self, decay: f64) -> BTreeMap<String, f64> {
        let layers = self.waveformer().layers();
        let count = layers.len() as i32;
        (0..).zip(layers).map(|(layer, path)| (format!("{ENCODER}{path}"), decay.powi(count - layer))).collect()
    }

    fn waveformer(&self) -> WaveformerConfig {
        WaveformerConfig {
            embed_dim: self.embed_dim,
            depths: self.depths,
            head_dim: self.embed_dim / 2,
            ffn_ratio: 2,
            ..WaveformerConfig::published(IN_CHANNELS, SIDE, Quirks::FIXED)
        }
    }
}

impl ExamineNet {
    /// What the net computes from its parameters; counted up when that changes though the
    /// parameters stay. Weights files name it. 2: WaveFormer's tokens are normed before FiLM and
    /// pooling.
    pub const REVISION: &str = "2";

    /// The net of a weights file, on the CPU.
    ///
    /// # Errors
    /// no safetensors file, no configuration in its metadata, another revision, or weights that do
    /// not fit it
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, WeightsError> {
        let weights = Weights::from_bytes(bytes)?;
        weights.check_revision(Self::REVISION)?;
        let config = weights.config()?;
        Self::from_weights(weights, &config, &Device::flex())
    }

    /// The net of these weights.
    ///
    /// # Errors
    /// [`WeightsError`] when they belong to another net or configuration
    pub fn from_weights(weights: Weights, config: &ExamineNetConfig, device: &Device) -> Result<Self, WeightsError> {
        weights.apply(config.init(0, device))
    }

    /// What the net says of patches.
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
        let spot = softmax(self.spot.forward(mid.clone()).reshape([batch, 1, d * h * w]), 2);
        let cells = mid.clone().reshape([batch, channels, d * h * w]);
        let found = cells.matmul(spot.clone().swap_dims(1, 2)).reshape([batch, channels]);
        let offset_vox = spot.matmul(cell_places(&mid.device())).reshape([batch, 3]);
        let centre = mid.narrow(2, d / 2 - 1, 2).narrow(3, h / 2 - 1, 2).narrow(4, w / 2 - 1, 2);
        let pooled = Tensor::cat(vec![found, mean_over_space(centre), mean_over_space(deep)], 1);
        let answers = self.head.forward(ops::gelu(self.hidden.forward(pooled)));
        ExamineOutput {
            class_logit: answers.clone().narrow(1, 0, 1).reshape([batch]),
            log_diameter: answers.clone().narrow(1, 1, 1).reshape([batch]) + 1.5,
            site_logits: answers.narrow(1, 2, SITE_COUNT),
            offset_vox,
            oscillation,
        }
    }

    /// The oscillators, if they take part.
    pub fn oscillators(&self) -> Option<&Oscillators> {
        self.oscillators.as_ref()
    }

    /// Where the parameters are.
    pub fn device(&self) -> Device {
        self.head.weight.val().device()
    }
}

/// Offsets z, y, x of the mid grid's cells from the patch's middle voxel, `[1, 12³, 3]`, voxels.
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

#[derive(Module, Debug)]
#[expect(clippy::large_enum_variant, reason = "a net has one encoder; a box would only cost a name in the weights")]
enum Encoder {
    Waveformer(WaveformerEncoder),
    Plain(PlainEncoder),
}

impl Encoder {
    /// Patch `[B, 5, 48, 48, 48]` -> `[B, M, 12, 12, 12]`.
    ///
    /// Both halves end in a norm, so that a modulation has the size of what it modulates: the
    /// tokens of a WaveFormer grow with depth.
    fn front(&self, x: Tensor<5>) -> Tensor<5> {
        match self {
            Self::Waveformer(net) => {
                let tokens = net.stage(0, net.embed(x));
                norm(net.stage(1, net.merge(1, tokens))).permute([0, 4, 1, 2, 3])
            }
            Self::Plain(net) => net.front.iter().fold(x, |x, layer| layer.forward(x, None)),
        }
    }

    /// `[B, M, 12, 12, 12]` -> `[B, 4M, 3, 3, 3]`.
    fn back(&self, mid: Tensor<5>) -> Tensor<5> {
        match self {
            Self::Waveformer(net) => {
                let tokens = net.stage(2, net.merge(2, mid.permute([0, 2, 3, 4, 1])));
                norm(net.stage(3, net.merge(3, tokens))).permute([0, 4, 1, 2, 3])
            }
            Self::Plain(net) => net.back.iter().fold(mid, |x, layer| layer.forward(x, None)),
        }
    }
}

#[derive(Module, Debug)]
struct PlainEncoder {
    front: Vec<ConvBlock>,
    back: Vec<ConvBlock>,
}

impl PlainEncoder {
    fn new(width: usize, init: &mut Init) -> Self {
        let mut layer = |inputs, outputs, stride| {
            let conv = Conv3dConfig::new(inputs, outputs, 3).with_stride(stride).without_bias();
            ConvBlockConfig::new(conv, Activation::Gelu).init(init)
        };
        Self {
            front: vec![layer(IN_CHANNELS, width, 2), layer(width, 2 * width, 2), layer(2 * width, 2 * width, 1)],
            back: vec![layer(2 * width, 4 * width, 2), layer(4 * width, 8 * width, 2)],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden;
    use crate::weights::Precision;
    use burn::tensor::Tolerance;

    fn shapes_hold(config: &ExamineNetConfig) -> ExamineOutput {
        let device = Device::flex();
        let net = config.init(7, &device);
        let x = golden::input([2, IN_CHANNELS, SIDE, SIDE, SIDE], &device);
        let output = net.forward(x, Tensor::ones([2, CONDITIONS], &device));
        assert_eq!(output.class_logit.dims(), [2]);
        assert_eq!(output.site_logits.dims(), [2, SITE_COUNT]);
        assert_eq!(output.offset_vox.dims(), [2, 3]);
        output
    }

    #[test]
    fn weights_of_another_revision_are_refused() {
        let config = ExamineNetConfig { embed_dim: 4, ..ExamineNetConfig::default() };
        let mut weights = Weights::of(&config.init(1, &Device::flex()));
        weights.metadata.insert("config".into(), serde_json::to_string(&config).unwrap());
        let read = |weights: &Weights| ExamineNet::from_bytes(&weights.to_bytes(Precision::F32));
        assert!(matches!(read(&weights), Err(WeightsError::Revision { got: None, .. })));
        weights.metadata.insert("revision".into(), ExamineNet::REVISION.into());
        assert!(read(&weights).is_ok());
    }

    #[test]
    fn a_pre_trained_encoder_of_another_patch_and_channels_is_taken_over() {
        let device = Device::flex();
        let config = ExamineNetConfig { embed_dim: 8, ..ExamineNetConfig::default() };
        let pretrained = WaveformerConfig {
            embed_dim: 8,
            depths: config.depths,
            head_dim: 4,
            ffn_ratio: 2,
            ..WaveformerConfig::published(4, 64, Quirks::FIXED)
        };
        let encoder = Weights::of(&pretrained.init(&mut Init::new(5, &device)));
        let weights = config.with_encoder(&encoder, 1).unwrap();
        let same = "block3.0.mlp.pwconv.weight";
        assert_eq!(weights.get(&format!("{ENCODER}{same}")), encoder.get(same));
        assert!(weights.get(&format!("{ENCODER}{same}")).is_some());
        let rates = config.encoder_rates(0.5);
        for (name, _) in weights.shapes().filter(|(name, _)| name.starts_with(ENCODER)) {
            assert_eq!(rates.keys().filter(|path| name.starts_with(path.as_str())).count(), 1, "{name}");
        }
        assert!(ExamineNet::from_weights(weights, &config, &device).is_ok());
        let plain = ExamineNetConfig { backbone: Backbone::Plain, ..config };
        assert!(plain.with_encoder(&encoder, 1).is_err());
    }

    #[test]
    fn every_switch_gives_a_net() {
        let full = shapes_hold(&ExamineNetConfig::default());
        assert_eq!(full.oscillation.unwrap()[1].dims()[2..], [MID_SIDE; 3]);
        let (on, off) = (Switch::On, Switch::Off);
        for (backbone, oscillators, film) in
            [(Backbone::Plain, off, off), (Backbone::Plain, on, on), (Backbone::Waveformer, off, on)]
        {
            let config = ExamineNetConfig { backbone, oscillators, film, ..ExamineNetConfig::default() };
            assert_eq!(shapes_hold(&config).oscillation.is_some(), oscillators == on);
        }
    }

    #[test]
    fn a_fresh_net_ignores_the_condition_and_answers_the_same_twice() {
        let device = Device::flex();
        let net = ExamineNetConfig::default().init(7, &device);
        let x = golden::input::<5>([1, IN_CHANNELS, SIDE, SIDE, SIDE], &device);
        let logit =
            |value: f32| net.forward(x.clone(), Tensor::full([1, CONDITIONS], value, &device)).class_logit.into_data();
        assert_eq!(logit(1.0), logit(1.0));
        logit(0.0).assert_approx_eq::<f32>(&logit(1.0), Tolerance::absolute(1e-6));
    }

    #[test]
    fn weights_return_the_net() {
        let device = Device::flex();
        let config = ExamineNetConfig { embed_dim: 4, ..ExamineNetConfig::default() };
        let weights = Weights::of(&config.init(3, &device));
        assert_eq!(Weights::of(&ExamineNet::from_weights(weights.clone(), &config, &device).unwrap()), weights);
        assert!(ExamineNet::from_weights(weights, &ExamineNetConfig::default(), &device).is_err());
    }

    #[test]
    fn cells_lie_around_the_middle_voxel() {
        let places = cell_places(&Device::flex()).into_data().try_to_vec::<f32>().unwrap();
        assert_eq!(places[..3], [-22.5; 3]);
        assert_eq!(places[places.len() - 3..], [21.5; 3]);
        assert_eq!(places[3..6], [-22.5, -22.5, -18.5]);
    }
}
