//! The vessel net: one of three backbones, of which SegFormer3D has a branch at full resolution.

use std::collections::BTreeMap;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::branched::Branched;
use crate::backbones::published::Backbone;
use crate::backbones::resenc::{ResEnc, ResEncConfig};
use crate::backbones::segformer3d::{SegFormer3d, SegFormer3dConfig};
use crate::backbones::waveformer::{Waveformer, WaveformerConfig};
use crate::layers::{Conv3d, Init};
use crate::loss::segmentation::{CHANNELS, CLASSES};
use crate::ops::count_macs;
use crate::weights::transfer::transfer_encoder;
use crate::weights::{Weights, WeightsError};
use willis_core::{InvalidValue, Switch};

/// Which vessel net, and the sizes of each; those of the others have no effect.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SegmentNetConfig {
    /// Which net.
    pub kind: Backbone,
    /// SegFormer3D, which sees context.
    pub backbone: SegFormer3dConfig,
    /// Whether SegFormer3D has a branch at full and half resolution.
    pub fine_branch: Switch,
    /// Channels of that branch at full resolution.
    pub full_channels: usize,
    /// Channels at half resolution.
    pub half_channels: usize,
    /// Residual blocks of the branch: so many at half resolution before and after the context
    /// joins, and at full resolution.
    pub fine_blocks: usize,
    /// WaveFormer; its size is that of the windows.
    pub waveformer: WaveformerConfig,
    /// Residual-encoder U-Net.
    pub resenc: ResEncConfig,
}

impl Default for SegmentNetConfig {
    fn default() -> Self {
        Self {
            kind: Backbone::Segformer3d,
            backbone: SegFormer3dConfig::willis(),
            fine_branch: Switch::On,
            full_channels: 8,
            half_channels: 16,
            fine_blocks: 0,
            waveformer: WaveformerConfig::default(),
            resenc: ResEncConfig { in_channels: IN_CHANNELS, num_classes: CHANNELS, ..ResEncConfig::default() },
        }
    }
}

impl SegmentNetConfig {
    /// Whether a net of these sizes can be made and fits the input and the classes.
    pub fn is_sound(&self) -> bool {
        match self.kind {
            Backbone::Segformer3d => {
                let channels = [self.backbone.in_channels, self.backbone.num_classes] == [IN_CHANNELS, CHANNELS];
                let fine = [self.full_channels, self.half_channels].iter().all(|size| (1..=4096).contains(size));
                channels && fine && self.fine_blocks <= 64 && self.backbone.is_sound()
            }
            Backbone::Waveformer => {
                let WaveformerConfig { in_channels, size, .. } = self.waveformer;
                let is_window = size == [size[0]; 3] && size[0].is_multiple_of(32);
                in_channels == IN_CHANNELS && is_window && self.waveformer.is_sound()
            }
            Backbone::Resenc => {
                let channels = [self.resenc.in_channels, self.resenc.num_classes] == [IN_CHANNELS, CHANNELS];
                // Windows are multiples of 32 voxels.
                channels && self.resenc.is_sound() && self.resenc.coarsest() <= 32
            }
        }
    }

    /// Checks that a net of these sizes can be made and fits the input and the classes.
    ///
    /// # Errors
    /// [`InvalidValue`] names the backbone.
    pub fn validate(&self) -> Result<(), InvalidValue> {
        let rule = "has sizes that make no vessel net: four channels in, fifteen out, no size 0";
        if self.is_sound() { Ok(()) } else { Err(InvalidValue::new("kind", self.kind.name(), rule)) }
    }

    /// A net with initial parameters; every voxel starts as probable background.
    ///
    /// # Panics
    /// if the configuration is not sound (programmer error)
    pub fn init(&self, init: &mut Init) -> SegmentNet {
        assert!(self.is_sound(), "no vessel net has these sizes: {self:?}");
        let mut net = match (self.kind, self.fine_branch) {
            (Backbone::Segformer3d, Switch::On) => SegmentNet::Branched(Branched::new(self, init)),
            (Backbone::Segformer3d, Switch::Off) => SegmentNet::Segformer3d(self.backbone.init(init)),
            (Backbone::Waveformer, _) => SegmentNet::Waveformer(Waveformer::new(&self.waveformer, CHANNELS, init)),
            (Backbone::Resenc, _) => SegmentNet::Resenc(self.resenc.init(init)),
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

    /// Side of the only windows the net takes; `None` when it takes any multiple of 32.
    pub fn window(&self) -> Option<usize> {
        (self.kind == Backbone::Waveformer).then_some(self.waveformer.size[0])
    }

    /// Random initial weights but for those of a pre-trained encoder, which may have been made for
    /// other input channels.
    ///
    /// # Errors
    /// the encoder has other parameters than this net's
    pub fn with_encoder(&self, encoder: &Weights, seed: u64) -> Result<Weights, WeightsError> {
        let net = self.init(&mut Init::new(seed, &Device::flex()));
        let weights = match self.kind {
            // The whole U-Net was pre-trained; its decoder painted intensities.
            Backbone::Resenc => transfer_encoder(Weights::of(&net), self.encoder(), &encoder.under("encoder.")),
            Backbone::Segformer3d | Backbone::Waveformer => {
                transfer_encoder(Weights::of(&net), self.encoder(), encoder)
            }
        };
        Ok(weights?.under(net.variant()))
    }

    /// Path of the encoder among the net's parameters.
    fn encoder(&self) -> &'static str {
        match (self.kind, self.fine_branch) {
            (Backbone::Segformer3d, Switch::On) => "Branched.backbone.segformer_encoder.",
            (Backbone::Segformer3d, Switch::Off) => "Segformer3d.segformer_encoder.",
            (Backbone::Waveformer, _) => "Waveformer.waveformer_encoder.",
            (Backbone::Resenc, _) => "Resenc.encoder.",
        }
    }

    /// Learning rates of a pre-trained encoder's layers by path: each layer's is `decay` times the
    /// next one's, and the last one's `decay` times that of the rest of the net (Clark et al.,
    /// arXiv:2003.10555).
    pub fn encoder_rates(&self, decay: f64) -> BTreeMap<String, f64> {
        // A stage's norm goes with its last block.
        let segformer3d = |(stage, depth): (usize, usize)| {
            let block = move |block| match block + 1 == depth {
                true => vec![format!("tf_block{stage}.{block}."), format!("norm{stage}.")],
                false => vec![format!("tf_block{stage}.{block}.")],
            };
            [vec![format!("embed_{stage}.")]].into_iter().chain((0..depth).map(block))
        };
        let resenc = |(stage, depth): (usize, &usize)| {
            (0..*depth).map(move |block| vec![format!("stages.{stage}.blocks.{block}.")])
        };
        let layers: Vec<Vec<String>> = match self.kind {
            Backbone::Segformer3d => (1..=4).zip(self.backbone.depths).flat_map(segformer3d).collect(),
            Backbone::Waveformer => self.waveformer.layers().into_iter().map(|path| vec![path]).collect(),
            Backbone::Resenc => {
                let blocks = self.resenc.blocks.iter().enumerate().flat_map(resenc);
                [vec!["stem.".to_string()]].into_iter().chain(blocks).collect()
            }
        };
        let (count, encoder) = (layers.len() as i32, self.encoder());
        let rated = |(layer, paths): (i32, Vec<String>)| {
            paths.into_iter().map(move |path| (format!("{encoder}{path}"), decay.powi(count - layer)))
        };
        (0..).zip(layers).flat_map(rated).collect()
    }
}

/// Channels of the input: intensity, then the world coordinates x, y, z over [`COORDINATE_MM`].
pub const IN_CHANNELS: usize = 4;
/// World coordinates are given to the net relative to the volume's centre, in units of this many
/// mm.
pub const COORDINATE_MM: f64 = 50.0;

/// The net.
#[derive(Module, Debug)]
#[allow(clippy::large_enum_variant, reason = "there is one net at a time")]
pub enum SegmentNet {
    /// SegFormer3D with a branch at full resolution.
    Branched(Branched),
    /// SegFormer3D alone.
    Segformer3d(SegFormer3d),
    /// WaveFormer.
    Waveformer(Waveformer),
    /// Residual-encoder U-Net.
    Resenc(ResEnc),
}

impl SegmentNet {
    /// The net of a weights file, on the CPU.
    ///
    /// # Errors
    /// no safetensors file, no configuration in its metadata, or weights that do not fit it
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, WeightsError> {
        let weights = Weights::from_bytes(bytes)?;
        let config: SegmentNetConfig = weights.config()?;
        if !config.is_sound() {
            return Err(WeightsError::Configuration { source: None });
        }
        config.init(&mut Init::new(0, &Device::flex())).with_weights(weights)
    }

    /// The net with other parameters, given under the backbone's own names.
    ///
    /// # Errors
    /// weights of another net or configuration
    pub fn with_weights(self, weights: Weights) -> Result<Self, WeightsError> {
        let variant = self.variant();
        weights.renamed(&[("", variant)]).apply(self)
    }

    /// [`Self::with_weights`], which may be of a net with fewer residual blocks: the others stay as
    /// they are.
    ///
    /// # Errors
    /// weights of another net or configuration
    pub fn grown_from(self, mut weights: Weights) -> Result<Self, WeightsError> {
        for (name, shape, values) in self.weights().iter().filter(|(name, ..)| name.contains("_blocks.")) {
            if weights.get(name).is_none() {
                weights.insert(name, shape.to_vec(), values.to_vec());
            }
        }
        self.with_weights(weights)
    }

    /// Its parameters under the backbone's own names, which weights files have.
    pub fn weights(&self) -> Weights {
        Weights::of(self).under(self.variant())
    }

    /// What the paths of its parameters start with.
    fn variant(&self) -> &'static str {
        match self {
            Self::Branched(_) => "Branched.",
            Self::Segformer3d(_) => "Segformer3d.",
            Self::Waveformer(_) => "Waveformer.",
            Self::Resenc(_) => "Resenc.",
        }
    }

    /// The last convolution.
    fn head(&mut self) -> &mut Conv3d {
        match self {
            Self::Branched(net) => &mut net.head,
            Self::Segformer3d(net) => net.segformer_decoder.head(),
            Self::Waveformer(net) => net.head(),
            Self::Resenc(net) => net.head(),
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

    /// Side of the only windows the net takes; `None` when it takes any multiple of 32.
    pub fn window(&self) -> Option<usize> {
        match self {
            Self::Waveformer(net) => Some(net.size()[0]),
            Self::Branched(_) | Self::Segformer3d(_) | Self::Resenc(_) => None,
        }
    }

    /// Number of its parameters.
    pub fn parameters(&self) -> usize {
        self.num_params()
    }

    /// Multiply-accumulates of one window of `side³` voxels.
    pub fn multiplications(&self, side: usize) -> u64 {
        let x = Tensor::zeros([1, IN_CHANNELS, side, side, side], &self.device());
        count_macs(|| self.forward(x).into_data()).1
    }

    /// Where the parameters live.
    pub fn device(&self) -> Device {
        self.devices().into_iter().next().expect("parameters live somewhere")
    }

    /// x `[B, 4, D, H, W]`, every axis a multiple of 32 and as long as [`Self::window`] says ->
    /// logits `[B, 15, D, H, W]`: background, the thirteen sites in the order of their mask values,
    /// aneurysm.
    pub fn forward(&self, x: Tensor<5>) -> Tensor<5> {
        match self {
            Self::Branched(net) => net.forward(x),
            Self::Segformer3d(net) => net.forward(x),
            Self::Waveformer(net) => net.forward(x),
            Self::Resenc(net) => net.forward(x),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::backbones::waveformer::Quirks;
    use crate::weights::Precision;

    /// A net small enough for tests.
    pub fn tiny() -> SegmentNetConfig {
        let backbone = SegFormer3dConfig {
            embed_dims: [8, 8, 16, 16],
            heads: [1, 1, 2, 2],
            depths: [1; 4],
            decoder_dim: 16,
            ..SegFormer3dConfig::willis()
        };
        SegmentNetConfig {
            backbone,
            full_channels: 4,
            half_channels: 8,
            fine_blocks: 1,
            waveformer: WaveformerConfig {
                embed_dim: 8,
                head_dim: 4,
                ..WaveformerConfig::published(4, 32, Quirks::FIXED)
            },
            resenc: ResEncConfig { features: vec![4, 8, 8], blocks: vec![1; 3], ..SegmentNetConfig::default().resenc },
            ..SegmentNetConfig::default()
        }
    }

    /// Every net there is.
    fn all() -> [SegmentNetConfig; 4] {
        let of = |kind, fine_branch| SegmentNetConfig { kind, fine_branch, ..tiny() };
        [
            of(Backbone::Segformer3d, Switch::On),
            of(Backbone::Segformer3d, Switch::Off),
            of(Backbone::Waveformer, Switch::On),
            of(Backbone::Resenc, Switch::On),
        ]
    }

    #[test]
    fn a_weights_file_says_which_net_it_is() {
        for config in all() {
            let mut weights = config.init(&mut Init::new(1, &Device::flex())).weights();
            let bytes = |weights: &Weights| weights.to_bytes(Precision::F32);
            assert!(matches!(SegmentNet::from_bytes(&bytes(&weights)), Err(WeightsError::Configuration { .. })));
            weights.metadata.insert("config".into(), serde_json::to_string(&config).unwrap());
            let read = SegmentNet::from_bytes(&bytes(&weights)).unwrap();
            assert_eq!(read.window(), config.window());
            assert!(read.weights().iter().eq(weights.iter()));
        }
    }

    #[test]
    fn a_pre_trained_encoder_is_taken_over_and_learns_more_slowly() {
        for config in all() {
            let device = Device::flex();
            let fresh = Weights::of(&config.init(&mut Init::new(1, &device)));
            let other = Weights::of(&config.init(&mut Init::new(8, &device)));
            let encoder = other.under(config.encoder());
            // A pre-trained U-Net comes with its decoder.
            let given = match config.kind {
                Backbone::Resenc => other.under("Resenc."),
                Backbone::Segformer3d | Backbone::Waveformer => encoder.clone(),
            };
            let start = config.with_encoder(&given, 1).unwrap();
            let net = config.init(&mut Init::new(2, &device)).with_weights(start).unwrap();
            let weights = Weights::of(&net);
            assert_eq!(weights.under(config.encoder()), encoder);
            let rest = |weights: &Weights| {
                let named = weights.iter().filter(|(name, ..)| !name.starts_with(config.encoder()));
                named.map(|(name, _, values)| (name.to_string(), values.to_vec())).collect::<Vec<_>>()
            };
            assert_eq!(rest(&weights), rest(&fresh));
            assert!(config.with_encoder(&Weights::default(), 1).is_err());
            let rates = config.encoder_rates(0.5);
            for path in rates.keys() {
                assert!(fresh.shapes().any(|(name, _)| name.starts_with(path)), "{path}");
            }
            // No parameter of the encoder is left out.
            for (name, _) in fresh.shapes().filter(|(name, _)| name.starts_with(config.encoder())) {
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
    fn more_residual_blocks_change_nothing_at_first() {
        let device = Device::flex();
        let [few, more] = [0, 2].map(|fine_blocks| SegmentNetConfig { fine_blocks, ..tiny() });
        let net = few.init(&mut Init::new(1, &device));
        let grown = more.init(&mut Init::new(2, &device)).grown_from(net.weights()).unwrap();
        let x = Tensor::random([1, 4, 32, 32, 32], burn::tensor::Distribution::Default, &device);
        assert!(grown.parameters() > net.parameters());
        assert_eq!(grown.forward(x.clone()).into_data(), net.forward(x).into_data());
        assert!(net.grown_from(grown.weights()).is_err());
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
            assert!(background > others + 1.0, "{:?}: {background} against {others}", config.kind);
            assert!(net.multiplications(32) > 1_000_000);
        }
    }
}
