//! Residual-encoder U-Net: a convolutional backbone whose encoder can run on visible cells only.
//!
//! Source: Isensee et al., MICCAI 2024, arXiv:2404.09556 (ResEnc-L); sizes and state dict of Wald
//! et al., CVPR 2025, arXiv:2410.23132.

use burn::module::Module;
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};
use willis_core::InvalidValue;

use crate::layers::visible::VisibleCells;
use crate::layers::{
    Activation, Conv3d, Conv3dConfig, ConvBlock, ConvBlockConfig, ConvTranspose3d, ConvTranspose3dConfig, Init,
};
use crate::ops;
use crate::rules;
use crate::weights::Weights;

/// Slope of the leaky ReLUs for negative values.
const SLOPE: f64 = 0.01;
/// Activation of every convolution, except the last one of a residual block and the shortcuts.
const LEAKY_RELU: Activation = Activation::LeakyRelu(SLOPE);

/// Sizes of a [`ResEnc`]. Every stage but the first halves the resolution.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ResEncConfig {
    /// Channels of the input.
    pub in_channels: usize,
    /// Channels of the logits.
    pub num_classes: usize,
    /// Channels of the stages, finest first.
    pub features: Vec<usize>,
    /// Residual blocks of the stages.
    pub blocks: Vec<usize>,
}

impl Default for ResEncConfig {
    /// Small enough to train on two cores: four channels in, fifteen classes out.
    fn default() -> Self {
        Self { in_channels: 4, num_classes: 15, features: vec![16, 32, 64, 128], blocks: vec![1, 2, 2, 2] }
    }
}

impl ResEncConfig {
    /// ResEnc-L.
    pub fn published(in_channels: usize, num_classes: usize) -> Self {
        Self { in_channels, num_classes, features: vec![32, 64, 128, 256, 320, 320], blocks: vec![1, 3, 4, 6, 6, 6] }
    }

    /// Checks that a net of these sizes exists.
    ///
    /// # Errors
    /// the first field whose value breaks a rule
    pub fn validate(&self) -> Result<(), InvalidValue> {
        let listed = |list: &[usize]| format!("{list:?}");
        let stages = self.features.len();
        if !(2..=8).contains(&stages) {
            return Err(InvalidValue::new("features", listed(&self.features), "must list 2 to 8 stages"));
        }
        if self.blocks.len() != stages {
            let rule = format!("must have one entry for each of the {stages} stages");
            return Err(InvalidValue::new("blocks", listed(&self.blocks), rule));
        }
        rules::size("in_channels", self.in_channels)?;
        rules::size("num_classes", self.num_classes)?;
        rules::sizes("features", &self.features)?;
        rules::sizes("blocks", &self.blocks)
    }

    /// Stride of the coarsest stage.
    pub fn coarsest_stride(&self) -> usize {
        1 << (self.features.len() - 1)
    }

    /// A net with initial parameters.
    ///
    /// # Panics
    /// if [`Self::validate`] refuses the sizes (programmer error)
    pub fn init(&self, init: &mut Init) -> ResEnc {
        ResEnc { encoder: self.init_encoder(init), decoder: self.init_decoder(init) }
    }

    /// The encoder alone, with initial parameters.
    ///
    /// # Panics
    /// if [`Self::validate`] refuses the sizes (programmer error)
    pub fn init_encoder(&self, init: &mut Init) -> ResEncEncoder {
        self.validate().expect("valid sizes");
        let stem = Stem { convs: vec![conv_block(Conv3dConfig::new(self.in_channels, self.features[0], 3), init)] };
        let stages = (0..self.features.len()).map(|s| ResEncStage::new(self, s, init)).collect();
        ResEncEncoder { stem, stages }
    }

    fn init_decoder(&self, init: &mut Init) -> ResEncDecoder {
        let mut decoder = ResEncDecoder { transpconvs: Vec::new(), stages: Vec::new(), seg_layers: Vec::new() };
        for pair in self.features.windows(2).rev() {
            let (to, from) = (pair[0], pair[1]);
            decoder.transpconvs.push(ConvTranspose3dConfig::new(from, to, 2).init(init));
            decoder.stages.push(DecoderStage { convs: vec![conv_block(Conv3dConfig::new(2 * to, to, 3), init)] });
            decoder.seg_layers.push(Conv3dConfig::pointwise(to, self.num_classes).init(init));
        }
        decoder
    }

    /// Layers of the encoder, input first, each as the paths of its parameters within the encoder.
    pub fn encoder_layers(&self) -> Vec<Vec<String>> {
        let stage = |(stage, depth): (usize, &usize)| {
            (0..*depth).map(move |block| vec![format!("stages.{stage}.blocks.{block}.")])
        };
        [vec!["stem.".to_string()]].into_iter().chain(self.blocks.iter().enumerate().flat_map(stage)).collect()
    }

    /// Prefixes of parameter paths here and in the official state dict, where they differ.
    pub fn official_names(&self) -> Vec<(String, String)> {
        let name = |stage| format!("encoder.stages.{stage}.blocks.0.skip.");
        (0..self.features.len()).map(|stage| (name(stage), name(stage) + "1.")).collect()
    }
}

/// The tensors of a checkpoint of nnU-Net's family, each once and under the names used here.
///
/// Such a checkpoint stores every convolution and norm under two names, and the encoder again
/// inside the decoder. Masked pre-training updates only the copies named `all_modules.*`, so where
/// these are present the others are stale and are dropped.
pub fn canonical(checkpoint: &Weights) -> Weights {
    let has_all_modules = checkpoint.shapes().any(|(name, _)| name.contains(".all_modules."));
    let mut found = Weights::default();
    for (name, shape, values) in checkpoint.iter() {
        let name = name.strip_prefix("architecture.").unwrap_or(name);
        let stale = has_all_modules && (name.contains(".conv.") || name.contains(".norm."));
        if !stale && !name.starts_with("decoder.encoder.") {
            let name = name.replace(".all_modules.0.", ".conv.").replace(".all_modules.1.", ".norm.");
            found.insert(name, shape.to_vec(), values.to_vec());
        }
    }
    found
}

/// Residual-encoder U-Net.
#[derive(Module, Debug)]
pub struct ResEnc {
    encoder: ResEncEncoder,
    decoder: ResEncDecoder,
}

/// The encoder: a stem and stages of residual blocks.
#[derive(Module, Debug)]
pub struct ResEncEncoder {
    stem: Stem,
    stages: Vec<ResEncStage>,
}

#[derive(Module, Debug)]
struct Stem {
    convs: Vec<ConvBlock>,
}

#[derive(Module, Debug)]
struct ResEncStage {
    blocks: Vec<ResEncBlock>,
}

/// The decoder: transposed convolutions, concatenated skips, one convolution per resolution.
#[derive(Module, Debug)]
struct ResEncDecoder {
    transpconvs: Vec<ConvTranspose3d>,
    stages: Vec<DecoderStage>,
    /// One per resolution; without deep supervision only the last, finest one is used.
    seg_layers: Vec<Conv3d>,
}

#[derive(Module, Debug)]
struct DecoderStage {
    convs: Vec<ConvBlock>,
}

impl ResEnc {
    /// Logits at the input's resolution.
    ///
    /// # Shapes
    /// x `[B, in_channels, D, H, W]`, every axis a multiple of the coarsest stride ->
    /// `[B, num_classes, D, H, W]`
    pub fn forward(&self, x: Tensor<5>) -> Tensor<5> {
        self.decode(self.encode(x, None))
    }

    /// The last convolution, whose outputs are the logits.
    pub(crate) fn head(&mut self) -> &mut Conv3d {
        self.decoder.seg_layers.last_mut().expect("one per step up")
    }

    /// [`ResEncEncoder::forward`] of this net's encoder.
    pub fn encode(&self, x: Tensor<5>, visible: Option<&VisibleCells>) -> Vec<Tensor<5>> {
        self.encoder.forward(x, visible)
    }

    /// Logits from the features of the stages.
    ///
    /// # Shapes
    /// stages finest first, `[B, C, D, H, W]` and halved -> `[B, num_classes, D, H, W]`
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

impl ResEncEncoder {
    /// Features of the stages, finest first. With `visible`, features are computed from visible
    /// cells only and are zero in hidden ones.
    ///
    /// # Shapes
    /// x `[B, in_channels, D, H, W]` -> stage s (0 first) `[B, features[s], D / 2^s, ...]`
    pub fn forward(&self, x: Tensor<5>, visible: Option<&VisibleCells>) -> Vec<Tensor<5>> {
        let mut x = self.stem.convs.iter().fold(x, |x, conv| conv.forward(x, visible));
        let mut stages = Vec::new();
        for stage in &self.stages {
            x = stage.blocks.iter().fold(x, |x, block| block.forward(x, visible));
            stages.push(x.clone());
        }
        stages
    }
}

/// Convolution, instance norm, leaky ReLU.
fn conv_block(conv: Conv3dConfig, init: &mut Init) -> ConvBlock {
    ConvBlockConfig::new(conv, LEAKY_RELU).init(init)
}

/// Residual block: two convolutions beside a shortcut.
#[derive(Module, Debug)]
struct ResEncBlock {
    conv1: ConvBlock,
    conv2: ConvBlock,
    /// Projection of the shortcut, where the number of channels changes.
    skip: Option<ConvBlock>,
    stride: usize,
}

impl ResEncStage {
    fn new(config: &ResEncConfig, stage: usize, init: &mut Init) -> Self {
        let outputs = config.features[stage];
        let block = |i: usize| {
            let first = i == 0;
            let inputs = if first { config.features[stage.saturating_sub(1)] } else { outputs };
            let stride = if first && stage > 0 { 2 } else { 1 };
            let skip = Conv3dConfig::pointwise(inputs, outputs).without_bias();
            ResEncBlock {
                conv1: conv_block(Conv3dConfig::new(inputs, outputs, 3).with_stride(stride), init),
                conv2: ConvBlockConfig::new(Conv3dConfig::new(outputs, outputs, 3), Activation::Identity).init(init),
                skip: (inputs != outputs).then(|| ConvBlockConfig::new(skip, Activation::Identity).init(init)),
                stride,
            }
        };
        Self { blocks: (0..config.blocks[stage]).map(block).collect() }
    }
}

impl ResEncBlock {
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
    fn stale_and_repeated_tensors_of_a_checkpoint_are_dropped() {
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
    fn inputs_need_not_be_cubes() {
        let config = ResEncConfig { features: vec![4, 8, 8], blocks: vec![1, 2, 1], ..ResEncConfig::published(2, 3) };
        let device = Device::flex();
        let net = config.init(&mut Init::new(1, &device));
        assert_eq!(net.forward(Tensor::ones([2, 2, 4, 8, 12], &device)).dims(), [2, 3, 4, 8, 12]);
    }
}
