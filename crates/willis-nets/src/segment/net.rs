//! The vessel net: SegFormer3D for context, a light convolutional branch at full and half resolution for the wall of a
//! 2 mm aneurysm, which a stride-4 grid cannot show.

use std::collections::BTreeMap;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::layers::{Bias, Conv3d, Init, SpaceNorm, Statistics};
use crate::loss::segmentation::{CHANNELS, CLASSES};
use crate::ops::{self, ConvOptions, Corners, resize_trilinear};
use crate::segformer3d::{Encoder, SegFormer3d, SegFormer3dConfig};
use crate::weights::{Weights, WeightsError};

/// Sizes of the vessel net.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SegmentNetConfig {
    /// The part that sees context.
    pub backbone: SegFormer3dConfig,
    /// Channels at full resolution.
    pub full_channels: usize,
    /// Channels at half resolution.
    pub half_channels: usize,
}

impl Default for SegmentNetConfig {
    fn default() -> Self {
        Self { backbone: SegFormer3dConfig::willis(), full_channels: 8, half_channels: 16 }
    }
}

impl SegmentNetConfig {
    /// Whether a net of these sizes can be made and fits the input and the classes.
    fn is_sound(&self) -> bool {
        let channels = [self.backbone.in_channels, self.backbone.num_classes] == [IN_CHANNELS, CHANNELS];
        let fine = [self.full_channels, self.half_channels].iter().all(|size| (1..=4096).contains(size));
        channels && fine && self.backbone.is_sound()
    }

    /// A net with initial parameters; every voxel starts as probable background.
    ///
    /// # Panics    if the backbone does not have four inputs and fifteen classes (programmer error)
    pub fn init(&self, init: &mut Init) -> SegmentNet {
        let backbone = &self.backbone;
        assert_eq!([backbone.in_channels, backbone.num_classes], [IN_CHANNELS, CHANNELS], "channels of the backbone");
        let (full, half) = (self.full_channels, self.half_channels);
        let pointwise = |inputs, outputs, init: &mut Init| {
            Conv3d::new(inputs, outputs, 1, ConvOptions::cubic(1, 0), Bias::Yes, init)
        };
        let mut head = pointwise(full, CHANNELS, init);
        let prior: Vec<f32> = (0..CHANNELS)
            .map(|channel| match channel {
                0 => 2.0,
                CLASSES => -4.0,
                _ => -1.0,
            })
            .collect();
        head.bias = head.bias.map(|bias| bias.map(|old| Tensor::from_floats(prior.as_slice(), &old.device())));
        SegmentNet {
            backbone: backbone.init(init),
            full_in: ConvBlock::new(1, full, 1, init),
            half_in: ConvBlock::new(full, half, 2, init),
            to_half: pointwise(backbone.decoder_dim, half, init),
            half_out: ConvBlock::new(half, half, 1, init),
            to_full: pointwise(half, full, init),
            full_out: ConvBlock::new(full, full, 1, init),
            head,
        }
    }
}

/// Path of the backbone's encoder among the net's parameters.
const ENCODER: &str = "backbone.segformer_encoder";

impl SegmentNetConfig {
    /// Random initial weights but for those of a pre-trained encoder.
    ///
    /// # Errors    the encoder has other parameters than this net's
    pub fn with_encoder(&self, encoder: &Weights, seed: u64) -> Result<Weights, WeightsError> {
        let init = &mut Init::new(seed, &Device::flex());
        let fresh = self.init(init);
        let checked = Weights::of(&encoder.clone().apply(Encoder::new(&self.backbone, init))?);
        let mut weights = Weights::of(&fresh);
        for (name, shape, values) in checked.iter() {
            weights.insert(format!("{ENCODER}.{name}"), shape.to_vec(), values.to_vec());
        }
        Ok(weights)
    }

    /// Learning rates of a pre-trained encoder's layers by path: each layer's is `decay` times the next one's, and the last one's
    /// `decay` times that of the rest of the net (Clark et al., arXiv:2003.10555).
    pub fn encoder_rates(&self, decay: f64) -> BTreeMap<String, f64> {
        let layers = (1..=4).zip(self.backbone.depths).flat_map(|(stage, depth)| {
            let blocks = (0..depth).map(move |block| format!("{ENCODER}.tf_block{stage}.{block}."));
            [format!("{ENCODER}.embed_{stage}.")].into_iter().chain(blocks)
        });
        let layers: Vec<String> = layers.collect();
        let count = layers.len() as i32;
        (0..).zip(layers).map(|(layer, path)| (path, decay.powi(count - layer))).collect()
    }
}

/// Channels of the input: intensity, then the world coordinates x, y, z over [`COORDINATE_MM`].
pub const IN_CHANNELS: usize = 4;
/// World coordinates are given to the net relative to the volume's centre, in units of this many mm.
pub const COORDINATE_MM: f64 = 50.0;

/// The net.
#[derive(Module, Debug)]
pub struct SegmentNet {
    backbone: SegFormer3d,
    full_in: ConvBlock,
    half_in: ConvBlock,
    to_half: Conv3d,
    half_out: ConvBlock,
    to_full: Conv3d,
    full_out: ConvBlock,
    head: Conv3d,
}

impl SegmentNet {
    /// The net of a weights file, on the CPU.
    ///
    /// # Errors    no safetensors file, no configuration in its metadata, or weights that do not fit it
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, WeightsError> {
        let weights = Weights::from_bytes(bytes)?;
        let config: SegmentNetConfig = weights.config()?;
        if !config.is_sound() {
            return Err(WeightsError::Configuration { source: None });
        }
        weights.apply(config.init(&mut Init::new(0, &Device::flex())))
    }

    /// The net with `shift` added to the logit of the background everywhere.
    pub(super) fn with_background_shift(mut self, shift: f32) -> Self {
        let mut shifts = [0.0; CHANNELS];
        shifts[0] = shift;
        let shifted = |old: Tensor<1>| old.clone() + Tensor::from_floats(shifts, &old.device());
        self.head.bias = self.head.bias.map(|bias| bias.map(shifted));
        self
    }

    /// Where the parameters live.
    pub fn device(&self) -> Device {
        self.head.weight.val().device()
    }

    /// x `[B, 4, D, H, W]`, every axis a multiple of 32 -> logits `[B, 15, D, H, W]`: background, the thirteen sites in
    /// the order of their mask values, aneurysm.
    pub fn forward(&self, x: Tensor<5>) -> Tensor<5> {
        let [_, _, depth, height, width] = x.dims();
        let full = self.full_in.forward(x.clone().narrow(1, 0, 1));
        let half = self.half_in.forward(full.clone());
        let features = self.backbone.features(x);
        let half_size = [depth / 2, height / 2, width / 2];
        // Convolving a concatenation is summing convolutions: the branches are summed at once, after 1x1 convolutions
        // that run before the interpolation they commute with.
        let half = half + resize_trilinear(self.to_half.forward(features.clone()), half_size, Corners::Free);
        let half = self.half_out.forward(half);
        let full = full + resize_trilinear(self.to_full.forward(half), [depth, height, width], Corners::Free);
        let fine = self.head.forward(self.full_out.forward(full));
        let coarse = self.backbone.segformer_decoder.classify(features);
        fine + resize_trilinear(coarse, [depth, height, width], Corners::Free)
    }
}

/// Convolution, instance norm, GELU.
#[derive(Module, Debug)]
struct ConvBlock {
    conv: Conv3d,
    norm: SpaceNorm,
}

impl ConvBlock {
    fn new(inputs: usize, outputs: usize, stride: usize, init: &mut Init) -> Self {
        Self {
            conv: Conv3d::new(inputs, outputs, 3, ConvOptions::cubic(stride, 1), Bias::No, init),
            norm: SpaceNorm::new(outputs, Statistics::Own, init),
        }
    }

    fn forward(&self, x: Tensor<5>) -> Tensor<5> {
        ops::gelu(self.norm.forward(self.conv.forward(x)))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
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
        SegmentNetConfig { backbone, full_channels: 4, half_channels: 8 }
    }

    #[test]
    fn a_weights_file_says_which_net_it_is() {
        let net = tiny().init(&mut Init::new(1, &Device::flex()));
        let mut weights = Weights::of(&net);
        let bytes = |weights: &Weights| weights.to_bytes(Precision::F32).unwrap();
        assert!(matches!(SegmentNet::from_bytes(&bytes(&weights)), Err(WeightsError::Configuration { .. })));
        weights.metadata.insert("config".into(), serde_json::to_string(&tiny()).unwrap());
        let read = Weights::of(&SegmentNet::from_bytes(&bytes(&weights)).unwrap());
        assert!(read.iter().eq(weights.iter()));
    }

    #[test]
    fn a_pre_trained_encoder_is_taken_over_and_learns_more_slowly() {
        let config = tiny();
        let encoder = Weights::of(&Encoder::new(&config.backbone, &mut Init::new(8, &Device::flex())));
        let weights = config.with_encoder(&encoder, 1).unwrap();
        assert_eq!(weights.under("backbone.segformer_encoder."), encoder);
        let fresh = Weights::of(&config.init(&mut Init::new(1, &Device::flex())));
        assert_eq!(weights.under("head."), fresh.under("head."));
        assert!(weights.apply(config.init(&mut Init::new(2, &Device::flex()))).is_ok());
        assert!(config.with_encoder(&Weights::default(), 1).is_err());
        let rates = config.encoder_rates(0.5);
        // Four embeddings and four blocks.
        assert_eq!(rates.len(), 8);
        assert_eq!(rates["backbone.segformer_encoder.embed_1."], 0.5f64.powi(8));
        assert_eq!(rates["backbone.segformer_encoder.tf_block4.0."], 0.5);
        for path in rates.keys() {
            assert!(fresh.shapes().any(|(name, _)| name.starts_with(path)), "{path}");
        }
    }

    #[test]
    fn logits_have_the_input_s_shape_and_start_as_background() {
        let device = Device::flex();
        let net = tiny().init(&mut Init::new(1, &device));
        let logits = net.forward(Tensor::zeros([2, 4, 32, 64, 32], &device));
        assert_eq!(logits.dims(), [2, 15, 32, 64, 32]);
        let background: f32 = logits.clone().narrow(1, 0, 1).mean().into_scalar();
        let others: f32 = logits.narrow(1, 1, 14).max().into_scalar();
        assert!(background > others + 1.0, "{background} against {others}");
    }
}
