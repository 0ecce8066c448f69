//! The decoder: three parallel branches invert the wavelet transforms of the first three stages,
//! and residual blocks merge them.
//!
//! Letters: C channels of the first stage, R side of the input.

use burn::module::Module;
use burn::tensor::Tensor;
use burn::tensor::activation::sigmoid;
use willis_core::Switch;

use super::encoder::{StageOutput, WaveFormerConfig};
use super::haar::{self, Details};
use crate::layers::{
    Conv3d, Conv3dConfig, ConvTranspose3d, ConvTranspose3dConfig, Init, Linear, LinearConfig, SpaceNorm,
    SpaceNormConfig, standardise,
};
use crate::ops::{self, Corners, leaky_relu};

fn relu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    leaky_relu(x, 0.0)
}

/// Residual block: two convolutions with norms beside a shortcut.
#[derive(Module, Debug)]
pub(super) struct ResBlock {
    conv1: Conv3d,
    conv2: Conv3d,
    /// Projection of the shortcut, where the number of channels changes.
    conv3: Option<Conv3d>,
}

impl ResBlock {
    pub fn new(inputs: usize, outputs: usize, init: &mut Init) -> Self {
        Self {
            conv1: Conv3dConfig::new(inputs, outputs, 3).without_bias().init(init),
            conv2: Conv3dConfig::new(outputs, outputs, 3).without_bias().init(init),
            conv3: (inputs != outputs).then(|| Conv3dConfig::pointwise(inputs, outputs).without_bias().init(init)),
        }
    }

    /// x `[B, inputs, D, H, W]` -> `[B, outputs, D, H, W]`.
    pub fn forward(&self, x: Tensor<5>) -> Tensor<5> {
        const SLOPE: f64 = 0.01;
        let h = leaky_relu(standardise(self.conv1.forward(x.clone())), SLOPE);
        let h = standardise(self.conv2.forward(h));
        let shortcut = match &self.conv3 {
            Some(conv) => standardise(conv.forward(x)),
            None => x,
        };
        leaky_relu(h + shortcut, SLOPE)
    }
}

/// Channel calibration of the bottleneck: a narrow path, gated per channel, added to a projection.
#[derive(Module, Debug)]
pub(super) struct Calibration {
    reduce: Conv3d,
    conv: Conv3d,
    expand: Conv3d,
    residual: Conv3d,
    fc1: Linear,
    fc2: Linear,
}

impl Calibration {
    pub fn new(channels: usize, init: &mut Init) -> Self {
        let narrow = channels / 4;
        Self {
            reduce: Conv3dConfig::pointwise(channels, narrow).init(init),
            conv: Conv3dConfig::new(narrow, narrow, 3).init(init),
            expand: Conv3dConfig::pointwise(narrow, channels).init(init),
            residual: Conv3dConfig::pointwise(channels, channels).init(init),
            fc1: LinearConfig::new(channels, narrow).init(init),
            fc2: LinearConfig::new(narrow, channels).init(init),
        }
    }

    /// x `[B, C, D, H, W]` -> the same shape.
    pub fn forward(&self, x: Tensor<5>) -> Tensor<5> {
        let [batch, channels, ..] = x.dims();
        let h = relu(standardise(self.reduce.forward(x.clone())));
        let h = relu(standardise(self.conv.forward(h)));
        let h = standardise(self.expand.forward(h));
        let mean = h.clone().reshape([batch, channels, h.shape().num_elements() / (batch * channels)]).mean_dim(2);
        let gate = sigmoid(self.fc2.forward(relu(self.fc1.forward(mean.reshape([batch, channels])))));
        relu(h * gate.reshape([batch, channels, 1, 1, 1]) + self.residual.forward(x))
    }
}

/// Voxel-wise gate on the sub-bands of one level.
#[derive(Module, Debug)]
struct SubBandGate {
    conv1: Conv3d,
    norm: SpaceNorm,
    conv2: Conv3d,
}

impl SubBandGate {
    fn new(channels: usize, init: &mut Init) -> Self {
        Self {
            conv1: Conv3dConfig::depthwise(channels, 3).init(init),
            norm: SpaceNormConfig::instance(channels).init(init),
            conv2: Conv3dConfig::pointwise(channels, channels).init(init),
        }
    }

    /// Gated sub-bands, `[B, D, H, W, C]` each.
    fn forward(&self, details: Details) -> Details {
        details.map(|band| {
            let first = band.clone().permute([0, 4, 1, 2, 3]);
            let weight = sigmoid(self.conv2.forward(relu(self.norm.forward(self.conv1.forward(first)))));
            band * weight.permute([0, 2, 3, 4, 1])
        })
    }
}

/// Branch from the bottleneck to one stage's resolution through that stage's sub-bands.
#[derive(Module, Debug)]
pub(super) struct WaveletDecoder {
    conv_lf_block: Conv3d,
    hf_ref: Option<Vec<SubBandGate>>,
    conv_block: ResBlock,
}

impl WaveletDecoder {
    /// The branch of a stage (0 to 2).
    pub fn new(config: &WaveFormerConfig, stage: usize, init: &mut Init) -> Self {
        let (bottleneck, channels) = (config.channels(3), config.channels(stage));
        Self {
            conv_lf_block: Conv3dConfig::new(bottleneck, channels, 3).without_bias().init(init),
            hf_ref: (config.hf_refinement == Switch::On)
                .then(|| (0..3 - stage).map(|_| SubBandGate::new(channels, init)).collect()),
            conv_block: ResBlock::new(2 * channels, channels, init),
        }
    }

    /// Inverts the wavelet transform with the bottleneck as low-pass part and merges the skip.
    /// Without sub-bands the bottleneck is interpolated.
    ///
    /// # Shapes
    /// bottleneck `[B, 8C, R/16, ...]`, the stage's sub-bands and skip -> the skip's shape
    pub fn forward(&self, bottleneck: Tensor<5>, details: Vec<Details>, skip: Tensor<5>) -> Tensor<5> {
        let low = self.conv_lf_block.forward(bottleneck);
        if details.is_empty() {
            let [_, _, d, h, w] = skip.dims();
            let low = ops::resize_trilinear(low, [d, h, w], Corners::HalfPixel);
            return self.conv_block.forward(Tensor::cat(vec![low, skip], 1));
        }
        let mut low = low.permute([0, 2, 3, 4, 1]);
        for (level, details) in details.into_iter().enumerate() {
            let details = match &self.hf_ref {
                Some(refinements) => refinements[level].forward(details),
                None => details,
            };
            low = haar::inverse(low, details);
        }
        self.conv_block.forward(Tensor::cat(vec![low.permute([0, 4, 1, 2, 3]), skip], 1))
    }
}

/// Upsampling to the first stage's resolution and width, beside a shortcut.
#[derive(Module, Debug)]
pub(super) struct Upsampling {
    depthwise: Conv3d,
    norm: SpaceNorm,
    conv2: Conv3d,
    /// One or two 1x1 convolutions, each after a GELU.
    mix: Vec<Conv3d>,
    shortcut: Conv3d,
}

impl Upsampling {
    /// From `channels` to `outputs` channels with one or two mixing `layers`.
    pub fn new(channels: usize, outputs: usize, layers: usize, init: &mut Init) -> Self {
        let mix = match layers {
            1 => vec![Conv3dConfig::pointwise(2 * channels, outputs).init(init)],
            _ => {
                vec![
                    Conv3dConfig::pointwise(2 * channels, channels).init(init),
                    Conv3dConfig::pointwise(channels, outputs).init(init),
                ]
            }
        };
        Self {
            depthwise: Conv3dConfig::depthwise(channels, 3).init(init),
            norm: SpaceNormConfig::instance(channels).init(init),
            conv2: Conv3dConfig::pointwise(channels, 2 * channels).init(init),
            mix,
            shortcut: Conv3dConfig::pointwise(channels, outputs).init(init),
        }
    }

    /// x `[B, channels, d, h, w]` -> `[B, outputs, size...]`.
    pub fn forward(&self, x: Tensor<5>, size: [usize; 3]) -> Tensor<5> {
        let large = ops::resize_trilinear(x, size, Corners::Aligned);
        let h = self.norm.forward(self.depthwise.forward(large.clone()));
        let h = self.mix.iter().fold(self.conv2.forward(h), |h, conv| conv.forward(ops::gelu(h)));
        h + self.shortcut.forward(large)
    }
}

/// Upsampling to the input's resolution.
#[derive(Module, Debug)]
pub(super) struct FullResolution {
    transposed: ConvTranspose3d,
    block: ResBlock,
}

impl FullResolution {
    pub fn new(channels: usize, init: &mut Init) -> Self {
        let transposed = ConvTranspose3dConfig::new(3 * channels, channels, 2).without_bias().init(init);
        Self { transposed, block: ResBlock::new(2 * channels, channels, init) }
    }

    /// x `[B, 3C, R/2, ...]`, skip `[B, C, R, ...]` -> `[B, C, R, ...]`.
    pub fn forward(&self, x: Tensor<5>, skip: Tensor<5>) -> Tensor<5> {
        let up = self.transposed.forward(x);
        self.block.forward(Tensor::cat(vec![up, skip], 1))
    }
}

/// The decoder without the convolution that makes the logits.
#[derive(Module, Debug)]
pub(super) struct WaveFormerDecoder {
    /// On the skips of the first three stages.
    pub skips: Vec<ResBlock>,
    pub calibration: Calibration,
    /// The branches of the first three stages.
    pub wavelet: Vec<WaveletDecoder>,
    /// From the second and the third stage to the first one's resolution.
    pub up: Vec<Upsampling>,
    pub full: FullResolution,
}

impl WaveFormerDecoder {
    pub fn new(config: &WaveFormerConfig, init: &mut Init) -> Self {
        let c = config.embed_dim;
        let skips = (0..3).map(|stage| ResBlock::new(config.channels(stage), config.channels(stage), init)).collect();
        let wavelet = (0..3).map(|stage| WaveletDecoder::new(config, stage, init)).collect();
        let up = vec![Upsampling::new(2 * c, c, 1, init), Upsampling::new(4 * c, c, 2, init)];
        let calibration = Calibration::new(config.channels(3), init);
        Self { skips, calibration, wavelet, up, full: FullResolution::new(c, init) }
    }

    /// Features at full resolution.
    ///
    /// # Shapes
    /// outputs of the four stages, full-resolution features of the input `[B, C, R, ...]` ->
    /// `[B, C, R, ...]`
    pub fn forward(&self, stages: [StageOutput; 4], image: Tensor<5>) -> Tensor<5> {
        let [first, second, third, fourth] = stages;
        let bottleneck = self.calibration.forward(fourth.features);
        let size: [usize; 3] = first.features.dims()[2..].try_into().expect("five axes");
        let decoded = |stage: usize, output: StageOutput| {
            let skip = self.skips[stage].forward(output.features);
            self.wavelet[stage].forward(bottleneck.clone(), output.details, skip)
        };
        let deep = self.up[1].forward(decoded(2, third), size);
        let middle = self.up[0].forward(decoded(1, second), size);
        let joined = Tensor::cat(vec![deep, middle, decoded(0, first)], 1);
        self.full.forward(joined, image)
    }
}
