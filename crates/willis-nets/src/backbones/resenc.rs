//! Residual-encoder U-Net: the convolutional backbone of S3D, which can encode a masked volume.
//!
//! Source: Isensee et al., MICCAI 2024, arXiv:2404.09556 (ResEnc-L); sizes and state dict of Wald
//! et al., CVPR 2025, arXiv:2410.23132.

use burn::module::Module;
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::layers::visible::VisibleCells;
use crate::layers::{
    Activation, Conv3d, Conv3dConfig, ConvBlock, ConvBlockConfig, ConvTranspose3d, ConvTranspose3dConfig, Init,
};
use crate::ops;
use crate::weights::Weights;

/// Activation of every block but the second convolution of a residual block.
const LEAKY_RELU: Activation = Activation::LeakyRelu(SLOPE);
const SLOPE: f64 = 0.01;

/// Sizes of the net. Every stage but the first halves the resolution.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ResEncConfig {
    /// Channels of the image.
    pub in_channels: usize,
    /// Channels of the logits.
    pub num_classes: usize,
    /// Channels of the stages, finest first.
    pub features: Vec<usize>,
    /// Residual blocks of the stages.
    pub blocks: Vec<usize>,
}

impl Default for ResEncConfig {
    /// Small enough to train on two cores; one channel in and out.
    fn default() -> Self {
        Self { in_channels: 1, num_classes: 1, features: vec![16, 32, 64, 128], blocks: vec![1, 2, 2, 2] }
    }
}

impl ResEncConfig {
    /// Whether a net of these sizes can be made and has a coarser stage than its first.
    pub fn is_sound(&self) -> bool {
        let stages = (2..=8).contains(&self.features.len()) && self.features.len() == self.blocks.len();
        let ends = [self.in_channels, self.num_classes];
        stages && ends.iter().chain(&self.features).chain(&self.blocks).all(|size| (1..=4096).contains(size))
    }

    /// What every axis of an image must be a multiple of.
    pub fn coarsest(&self) -> usize {
        1 << (self.features.len() - 1)
    }

    /// ResEnc-L.
    pub fn published(in_channels: usize, num_classes: usize) -> Self {
        Self { in_channels, num_classes, features: vec![32, 64, 128, 256, 320, 320], blocks: vec![1, 3, 4, 6, 6, 6] }
    }

    /// A net with initial parameters.
    ///
    /// # Panics
    /// if there is no stage, or not a number of blocks for each (programmer error)
    pub fn init(&self, init: &mut Init) -> ResEnc {
        assert!(!self.features.is_empty() && self.features.len() == self.blocks.len(), "stages and their blocks");
        let first = self.features[0];
        let stem = Stem {
            convs: vec![ConvBlockConfig::new(Conv3dConfig::new(self.in_channels, first, 3), LEAKY_RELU).init(init)],
        };
        let stages = (0..self.features.len()).map(|s| Stage::new(self, s, init)).collect();
        let mut decoder = Decoder { transpconvs: Vec::new(), stages: Vec::new(), seg_layers: Vec::new() };
        for pair in self.features.windows(2).rev() {
            let (to, from) = (pair[0], pair[1]);
            decoder.transpconvs.push(ConvTranspose3dConfig::new(from, to, 2).init(init));
            decoder.stages.push(Convs {
                convs: vec![ConvBlockConfig::new(Conv3dConfig::new(2 * to, to, 3), LEAKY_RELU).init(init)],
            });
            decoder.seg_layers.push(Conv3dConfig::pointwise(to, self.num_classes).init(init));
        }
        ResEnc { encoder: Encoder { stem, stages }, decoder }
    }

    /// Parameter path prefixes here and in the official state dict, where they differ.
    pub fn official_names(&self) -> Vec<(String, String)> {
        let name = |stage| format!("encoder.stages.{stage}.blocks.0.skip.");
        (0..self.features.len()).map(|stage| (name(stage), name(stage) + "1.")).collect()
    }
}

/// A checkpoint of nnU-Net's family under the names used here. It holds every convolution and norm
/// twice, the encoder again inside the decoder; in checkpoints of masked pre-training only
/// `all_modules.*` was trained, so that is what counts where it is present.
pub fn canonical(checkpoint: &Weights) -> Weights {
    let trained = checkpoint.shapes().any(|(name, _)| name.contains(".all_modules."));
    let mut found = Weights::default();
    for (name, shape, values) in checkpoint.iter() {
        let name = name.strip_prefix("architecture.").unwrap_or(name);
        let stale = trained && (name.contains(".conv.") || name.contains(".norm."));
        if !stale && !name.starts_with("decoder.encoder.") {
            let name = name.replace(".all_modules.0.", ".conv.").replace(".all_modules.1.", ".norm.");
            found.insert(name, shape.to_vec(), values.to_vec());
        }
    }
    found
}

/// The net.
#[derive(Module, Debug)]
pub struct ResEnc {
    encoder: Encoder,
    decoder: Decoder,
}

#[derive(Module, Debug)]
struct Encoder {
    stem: Stem,
    stages: Vec<Stage>,
}

#[derive(Module, Debug)]
struct Stem {
    convs: Vec<ConvBlock>,
}

#[derive(Module, Debug)]
struct Stage {
    blocks: Vec<Block>,
}

#[derive(Module, Debug)]
struct Decoder {
    transpconvs: Vec<ConvTranspose3d>,
    stages: Vec<Convs>,
    /// One per resolution; only the last, finest one is used without deep supervision.
    seg_layers: Vec<Conv3d>,
}

#[derive(Module, Debug)]
struct Convs {
    convs: Vec<ConvBlock>,
}

impl ResEnc {
    /// x `[B, in, D, H, W]`, every axis a multiple of two to the number of stages less one ->
    /// logits `[B, classes, D, H, W]`.
    pub fn forward(&self, x: Tensor<5>) -> Tensor<5> {
        self.decode(self.encode(x, None))
    }

    /// The last convolution, whose outputs are the logits.
    pub(crate) fn head(&mut self) -> &mut Conv3d {
        self.decoder.seg_layers.last_mut().expect("one per step up")
    }

    /// Features of the stages, finest first; with `visible` only of the cells that may be seen, and
    /// zero elsewhere.
    pub fn encode(&self, x: Tensor<5>, visible: Option<&VisibleCells>) -> Vec<Tensor<5>> {
        let mut x = self.encoder.stem.convs.iter().fold(x, |x, conv| conv.forward(x, visible));
        let mut stages = Vec::new();
        for stage in &self.encoder.stages {
            x = stage.blocks.iter().fold(x, |x, block| block.forward(x, visible));
            stages.push(x.clone());
        }
        stages
    }

    /// Features of the stages, finest first -> logits at the finest.
    ///
    /// # Panics
    /// if the number of stages differs from the encoder's (programmer error)
    pub fn decode(&self, mut stages: Vec<Tensor<5>>) -> Tensor<5> {
        assert_eq!(stages.len(), self.encoder.stages.len(), "one map per stage");
        let mut x = stages.pop().expect("at least one stage");
        for (up, convs) in self.decoder.transpconvs.iter().zip(&self.decoder.stages) {
            let skip = stages.pop().expect("as many skips as steps up");
            let joined = Tensor::cat(vec![up.forward(x), skip], 1);
            x = convs.convs.iter().fold(joined, |x, conv| conv.forward(x, None));
        }
        self.decoder.seg_layers.last().expect("one per step up").forward(x)
    }
}

/// Two convolutions beside a shortcut.
#[derive(Module, Debug)]
struct Block {
    conv1: ConvBlock,
    conv2: ConvBlock,
    /// The shortcut's, where the number of channels changes.
    skip: Option<ConvBlock>,
    stride: usize,
}

impl Stage {
    fn new(config: &ResEncConfig, stage: usize, init: &mut Init) -> Self {
        let outputs = config.features[stage];
        let block = |i: usize| {
            let first = i == 0;
            let inputs = if first { config.features[stage.saturating_sub(1)] } else { outputs };
            let stride = if first && stage > 0 { 2 } else { 1 };
            let conv1 = Conv3dConfig::new(inputs, outputs, 3).with_stride(stride);
            let skip = Conv3dConfig::pointwise(inputs, outputs).without_bias();
            Block {
                conv1: ConvBlockConfig::new(conv1, LEAKY_RELU).init(init),
                conv2: ConvBlockConfig::new(Conv3dConfig::new(outputs, outputs, 3), Activation::Identity).init(init),
                skip: (inputs != outputs).then(|| ConvBlockConfig::new(skip, Activation::Identity).init(init)),
                stride,
            }
        };
        Self { blocks: (0..config.blocks[stage]).map(block).collect() }
    }
}

impl Block {
    fn forward(&self, x: Tensor<5>, visible: Option<&VisibleCells>) -> Tensor<5> {
        let h = self.conv2.forward(self.conv1.forward(x.clone(), visible), visible);
        let mut shortcut = x;
        if self.stride > 1 {
            shortcut = ops::average_pool3d(shortcut, self.stride);
            if let Some(visible) = visible {
                shortcut = visible.mask(shortcut);
            }
        }
        if let Some(skip) = &self.skip {
            shortcut = skip.forward(shortcut, visible);
        }
        ops::leaky_relu(h + shortcut, SLOPE)
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn the_published_net_has_the_published_number_of_parameters() {
        let net = ResEncConfig::published(1, 1).init(&mut Init::new(0, &Device::flex()));
        assert_eq!(net.num_params(), 102_348_965);
    }

    #[test]
    fn trained_copies_count() {
        let mut checkpoint = Weights::default();
        for (name, value) in [
            ("architecture.encoder.stem.convs.0.conv.weight", 1.0),
            ("architecture.encoder.stem.convs.0.all_modules.0.weight", 2.0),
            ("architecture.encoder.stem.convs.0.all_modules.1.bias", 3.0),
            ("architecture.decoder.encoder.stem.convs.0.all_modules.0.weight", 4.0),
            ("architecture.decoder.transpconvs.0.weight", 5.0),
        ] {
            checkpoint.insert(name, vec![1], vec![value]);
        }
        let found = canonical(&checkpoint);
        let values: Vec<(&str, f32)> = found.iter().map(|(name, _, values)| (name, values[0])).collect();
        assert_eq!(
            values,
            [
                ("decoder.transpconvs.0.weight", 5.0),
                ("encoder.stem.convs.0.conv.weight", 2.0),
                ("encoder.stem.convs.0.norm.bias", 3.0)
            ]
        );
    }

    #[test]
    fn axes_may_differ() {
        let config = ResEncConfig { features: vec![4, 8, 8], blocks: vec![1, 2, 1], ..ResEncConfig::published(2, 3) };
        let device = Device::flex();
        let net = config.init(&mut Init::new(1, &device));
        assert_eq!(net.forward(Tensor::ones([2, 2, 4, 8, 12], &device)).dims(), [2, 3, 4, 8, 12]);
    }
}
