//! SparK around SegFormer3D's or WaveFormer's encoder, with a light decoder that adds the stages on
//! its way up.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};

use crate::backbones::segformer3d::{self, SegFormer3dConfig};
use crate::backbones::waveformer::{WaveformerConfig, WaveformerEncoder};
use crate::layers::visible::VisibleCells;
use crate::layers::{
    Conv3d, Conv3dConfig, ConvTranspose3d, ConvTranspose3dConfig, Init, SpaceNorm, SpaceNormConfig, standardise,
};
use crate::ops;
use crate::weights::Weights;

/// Sizes of a [`Light`] net.
#[derive(Debug, Clone, PartialEq)]
pub struct LightConfig {
    /// The encoder's sizes.
    pub encoder: EncoderConfig,
    /// Channels of the decoder at the coarsest stage; every step up halves them. A multiple of 32.
    pub decoder_width: usize,
}

/// Sizes of the encoder; of the rest of the backbone nothing is used.
#[derive(Debug, Clone, PartialEq)]
pub enum EncoderConfig {
    /// Stages at a quarter to a 32nd of the resolution.
    Segformer3d(SegFormer3dConfig),
    /// Stages at a half to a sixteenth of the resolution.
    Waveformer(WaveformerConfig),
}

/// How the encoder takes what is masked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// Not at all.
    Sparse,
    /// As zeros in its input, from which it makes features there too.
    Dense,
}

/// What a [`Light`] net makes of a volume.
#[derive(Debug, Clone)]
pub struct Painted {
    /// `[B, 1, D, H, W]`.
    pub image: Tensor<5>,
    /// The decoder's features at a sixteenth of the resolution, `[B, width / 2, D/16, H/16, W/16]`.
    pub cells: Tensor<5>,
    /// The encoder's coarsest stage, before masked places are filled, `[B, C, d, h, w]`.
    pub coarsest: Tensor<5>,
}

impl LightConfig {
    /// Steps from the coarsest stage up to full resolution.
    fn steps(&self) -> usize {
        match self.encoder {
            EncoderConfig::Segformer3d(_) => 5,
            EncoderConfig::Waveformer(_) => 4,
        }
    }

    /// Channels of the stages, finest first.
    fn dims(&self) -> [usize; 4] {
        match &self.encoder {
            EncoderConfig::Segformer3d(config) => config.embed_dims,
            EncoderConfig::Waveformer(config) => [0, 1, 2, 3].map(|stage| config.channels(stage)),
        }
    }

    /// Channels of [`Painted::coarsest`].
    pub fn coarsest_channels(&self) -> usize {
        self.dims()[3]
    }

    /// Channels of [`Painted::cells`].
    pub fn cell_channels(&self) -> usize {
        self.decoder_width >> (self.steps() - CELL_STEPS)
    }

    /// A net with initial parameters.
    ///
    /// # Panics
    /// if the decoder's width is no multiple of 32 (programmer error)
    pub fn init(&self, init: &mut Init) -> Light {
        let (dims, width, steps) = (self.dims(), self.decoder_width, self.steps());
        assert!(width > 0 && width.is_multiple_of(32), "decoder of {width} channels");
        let project = |stage: usize, init: &mut Init| {
            let kernel = if stage == 3 { 1 } else { 3 };
            Conv3dConfig::new(dims[stage], width >> (3 - stage), kernel).init(init)
        };
        Light {
            encoder: match &self.encoder {
                EncoderConfig::Segformer3d(config) => Encoder::Segformer3d(segformer3d::Encoder::new(config, init)),
                EncoderConfig::Waveformer(config) => Encoder::Waveformer(config.init(init)),
            },
            mask_tokens: dims.iter().map(|&channels| init.normal([1, channels, 1, 1, 1], 0.02)).collect(),
            densify_projs: (0..4).map(|stage| project(stage, init)).collect(),
            decoder: (0..steps).map(|step| UpBlock::new(width >> step, init)).collect(),
            paint: Conv3dConfig::pointwise(width >> steps, 1).init(init),
        }
    }
}

/// Steps from cells of 16 voxels up to full resolution.
const CELL_STEPS: usize = 4;

/// What is pre-trained.
#[derive(Module, Debug)]
#[allow(clippy::large_enum_variant, reason = "there is one encoder at a time")]
enum Encoder {
    Segformer3d(segformer3d::Encoder),
    Waveformer(WaveformerEncoder),
}

/// The pre-training net.
#[derive(Module, Debug)]
pub struct Light {
    encoder: Encoder,
    /// `[1, C, 1, 1, 1]` per stage, finest first.
    mask_tokens: Vec<Param<Tensor<5>>>,
    /// To the decoder's channels, finest stage first.
    densify_projs: Vec<Conv3d>,
    /// From the coarsest stage to full resolution.
    decoder: Vec<UpBlock>,
    paint: Conv3d,
}

impl Light {
    /// What the encoder makes of the seen cells, finest stage first, `[B, C, D, H, W]` each; of
    /// everything without `visible`.
    pub fn encode(&self, x: Tensor<5>, visible: Option<&VisibleCells>) -> Vec<Tensor<5>> {
        let x = match visible {
            Some(visible) => visible.mask(x),
            None => x,
        };
        match &self.encoder {
            Encoder::Segformer3d(net) => {
                net.forward(x, visible).into_iter().map(|tokens| tokens.into_volume()).collect()
            }
            Encoder::Waveformer(net) => net.forward(x, visible).into_iter().map(|stage| stage.features).collect(),
        }
    }

    /// The painting of x `[B, in, D, H, W]`, every axis a multiple of 32, and of the encoder's size
    /// for WaveFormer.
    pub fn forward(&self, x: Tensor<5>, visible: &VisibleCells, encoding: Encoding) -> Painted {
        let stages = match encoding {
            Encoding::Sparse => self.encode(x, Some(visible)),
            Encoding::Dense => self.encode(visible.mask(x), None),
        };
        let coarsest = stages.last().expect("four stages").clone();
        let densified = |(stage, features): (usize, Tensor<5>)| {
            let whole = match encoding {
                Encoding::Sparse => visible.fill_hidden(visible.standardise(features), self.mask_tokens[stage].val()),
                Encoding::Dense => standardise(features),
            };
            self.densify_projs[stage].forward(whole)
        };
        let mut dense: Vec<Tensor<5>> = stages.into_iter().enumerate().map(densified).collect();
        let mut x = dense.pop().expect("four stages");
        let mut cells = None;
        for (block, left) in self.decoder.iter().zip((1..=self.decoder.len()).rev()) {
            if left == CELL_STEPS {
                cells = Some(x.clone());
            }
            x = block.forward(x);
            if let Some(features) = dense.pop() {
                x = x + features;
            }
        }
        Painted { image: self.paint.forward(x), cells: cells.expect("cells are of 16 voxels or finer"), coarsest }
    }

    /// Where the parameters live.
    pub fn device(&self) -> Device {
        self.mask_tokens[0].val().device()
    }

    /// Parameters of the encoder under its own names.
    pub fn encoder_weights(&self) -> Weights {
        match &self.encoder {
            Encoder::Segformer3d(net) => Weights::of(net),
            Encoder::Waveformer(net) => Weights::of(net),
        }
    }
}

/// Twice the resolution, then half the channels.
#[derive(Module, Debug)]
struct UpBlock {
    up: ConvTranspose3d,
    conv1: Conv3d,
    norm1: SpaceNorm,
    conv2: Conv3d,
    norm2: SpaceNorm,
}

impl UpBlock {
    fn new(channels: usize, init: &mut Init) -> Self {
        let conv = |outputs, init: &mut Init| Conv3dConfig::new(channels, outputs, 3).without_bias().init(init);
        Self {
            up: ConvTranspose3dConfig::new(channels, channels, 2).init(init),
            conv1: conv(channels, init),
            norm1: SpaceNormConfig::instance(channels).init(init),
            conv2: conv(channels / 2, init),
            norm2: SpaceNormConfig::instance(channels / 2).init(init),
        }
    }

    fn forward(&self, x: Tensor<5>) -> Tensor<5> {
        let x = self.norm1.forward(self.conv1.forward(self.up.forward(x)));
        self.norm2.forward(self.conv2.forward(ops::leaky_relu(x, 0.0)))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::backbones::waveformer::Quirks;
    use crate::golden;

    /// A net small enough for tests.
    pub fn tiny() -> LightConfig {
        let backbone = SegFormer3dConfig {
            in_channels: 1,
            embed_dims: [8, 8, 16, 16],
            heads: [1, 1, 2, 2],
            depths: [1; 4],
            ..SegFormer3dConfig::willis()
        };
        LightConfig { encoder: EncoderConfig::Segformer3d(backbone), decoder_width: 32 }
    }

    /// The same around WaveFormer, for cubes of 32 voxels.
    pub fn tiny_waveformer() -> LightConfig {
        let config = WaveformerConfig {
            embed_dim: 8,
            head_dim: 4,
            depths: [1; 4],
            ..WaveformerConfig::published(1, 32, Quirks::FIXED)
        };
        LightConfig { encoder: EncoderConfig::Waveformer(config), decoder_width: 32 }
    }

    #[test]
    fn nothing_masked_influences_anything_seen() {
        let device = Device::flex();
        // Cells as large as SegFormer3D's third stage's voxels (its fourth is coarser), as its
        // fourth's, and larger.
        for (config, cell, height) in [(tiny(), 16, 64), (tiny(), 32, 64), (tiny_waveformer(), 16, 32)] {
            // Norms start without a shift; random parameters show a leak through one.
            let net = golden::fill(config.init(&mut Init::new(3, &device)), &[]);
            let x = golden::input([2, 1, 32, height, 32], &device);
            let grid = [32 / cell, height / cell, 32 / cell];
            let flags: Vec<bool> = (0..2 * grid.iter().product::<usize>()).map(|i| i % 2 == 0).collect();
            let visible = VisibleCells::new(&flags, 2, grid, &device);
            let other = visible.mask(x.clone()) + (x.clone() - visible.mask(x.clone())) * 100.0;
            for (a, b) in net.encode(x.clone(), Some(&visible)).into_iter().zip(net.encode(other, Some(&visible))) {
                visible.mask(a.clone()).into_data().assert_eq(&a.clone().into_data(), true);
                a.into_data().assert_eq(&b.into_data(), true);
            }
            for encoding in [Encoding::Sparse, Encoding::Dense] {
                let painted = net.forward(x.clone(), &visible, encoding);
                assert_eq!(painted.image.dims(), [2, 1, 32, height, 32]);
                assert_eq!(painted.cells.dims(), [2, config.cell_channels(), 2, height / 16, 2]);
                assert_eq!(painted.coarsest.dims()[1], config.coarsest_channels());
            }
        }
    }

    #[test]
    fn with_all_cells_seen_the_encoder_is_the_backbone_s() {
        let device = Device::flex();
        for config in [tiny(), tiny_waveformer()] {
            let net = golden::fill(config.init(&mut Init::new(3, &device)), &[]);
            let x = golden::input([1, 1, 32, 32, 32], &device);
            let visible = VisibleCells::new(&[true; 8], 1, [2; 3], &device);
            for (a, b) in net.encode(x.clone(), Some(&visible)).into_iter().zip(net.encode(x, None)) {
                a.into_data().assert_approx_eq::<f32>(&b.into_data(), burn::tensor::Tolerance::rel_abs(1e-4, 1e-4));
            }
        }
    }
}
