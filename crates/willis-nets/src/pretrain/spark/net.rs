//! SparK around a backbone's encoder, with a light decoder that adds each stage's features at their
//! resolution.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};

use crate::backbones::{BackboneConfig, BackboneEncoder};
use crate::layers::visible::VisibleCells;
use crate::layers::{
    Conv3d, Conv3dConfig, ConvTranspose3d, ConvTranspose3dConfig, Init, SpaceNorm, SpaceNormConfig, standardise,
};
use crate::ops;
use crate::weights::Weights;

/// Sizes of a [`SparkNet`].
#[derive(Debug, Clone, PartialEq)]
pub struct SparkNetConfig {
    /// The backbone whose encoder is pre-trained; its coarsest stride is at least 16.
    pub encoder: BackboneConfig,
    /// Channels of the decoder at the coarsest stage, a multiple of 32; each step up halves them.
    pub decoder_width: usize,
}

/// How the encoder treats masked cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// It computes from visible cells only.
    Sparse,
    /// It takes zeros in masked cells as input and computes features there too.
    Dense,
}

/// Output of a [`SparkNet`].
#[derive(Debug, Clone)]
pub struct SparkOutput {
    /// Reconstructed volume, `[B, 1, D, H, W]`.
    pub reconstruction: Tensor<5>,
    /// Features of the decoder at stride 16, `[B, C, D/16, H/16, W/16]` with C from
    /// [`SparkNetConfig::cell_channels`].
    pub cells: Tensor<5>,
    /// Coarsest stage of the encoder, before mask tokens are filled in, `[B, C, d, h, w]`.
    pub coarsest: Tensor<5>,
}

/// Steps up from stride 16 to full resolution.
const CELL_STEPS: usize = 4;

impl SparkNetConfig {
    /// Steps up from the coarsest stage to full resolution.
    fn steps(&self) -> usize {
        self.encoder.coarsest_stride().ilog2() as usize
    }

    /// Channels of [`SparkOutput::coarsest`].
    pub fn coarsest_channels(&self) -> usize {
        *self.encoder.stage_channels().last().expect("every encoder has stages")
    }

    /// Channels of [`SparkOutput::cells`].
    pub fn cell_channels(&self) -> usize {
        self.decoder_width >> (self.steps() - CELL_STEPS)
    }

    /// A net with initial parameters.
    ///
    /// # Panics
    /// if the decoder's width is not a multiple of 32 (programmer error)
    pub fn init(&self, init: &mut Init) -> SparkNet {
        let (channels, width, steps) = (self.encoder.stage_channels(), self.decoder_width, self.steps());
        assert!(width > 0 && width.is_multiple_of(32), "decoder of {width} channels");
        let coarsest = channels.len() - 1;
        let project = |stage: usize, init: &mut Init| {
            let kernel = if stage == coarsest { 1 } else { 3 };
            Conv3dConfig::new(channels[stage], width >> (coarsest - stage), kernel).init(init)
        };
        SparkNet {
            encoder: self.encoder.init_encoder(init),
            mask_tokens: channels.iter().map(|&channels| init.normal([1, channels, 1, 1, 1], 0.02)).collect(),
            densify_projs: (0..channels.len()).map(|stage| project(stage, init)).collect(),
            decoder: (0..steps).map(|step| UpBlock::new(width >> step, init)).collect(),
            proj: Conv3dConfig::pointwise(width >> steps, 1).init(init),
        }
    }
}

/// SparK around a backbone's encoder.
#[derive(Module, Debug)]
pub struct SparkNet {
    encoder: BackboneEncoder,
    /// `[1, C, 1, 1, 1]` per stage, finest first.
    mask_tokens: Vec<Param<Tensor<5>>>,
    /// Projections to the decoder's channels, finest stage first.
    densify_projs: Vec<Conv3d>,
    /// From the coarsest stage to full resolution.
    decoder: Vec<UpBlock>,
    /// To one channel.
    proj: Conv3d,
}

impl SparkNet {
    /// Features of the encoder's stages, finest first: of visible cells, or of the whole volume
    /// without `visible`.
    ///
    /// # Shapes
    /// x `[B, in_channels, D, H, W]` -> `[B, C, D/s, H/s, W/s]` for each stage's channels C and
    /// stride s
    pub fn encode(&self, x: Tensor<5>, visible: Option<&VisibleCells>) -> Vec<Tensor<5>> {
        let x = match visible {
            Some(visible) => visible.mask(x),
            None => x,
        };
        self.encoder.encode(x, visible)
    }

    /// Reconstruction of the volume from its visible cells.
    ///
    /// # Shapes
    /// x `[B, in_channels, D, H, W]`, every axis a multiple of the encoder's coarsest stride (and
    /// as long as its window, if it has one) -> [`SparkOutput`]
    pub fn forward(&self, x: Tensor<5>, visible: &VisibleCells, encoding: Encoding) -> SparkOutput {
        let stages = match encoding {
            Encoding::Sparse => self.encode(x, Some(visible)),
            Encoding::Dense => self.encode(visible.mask(x), None),
        };
        let coarsest = stages.last().expect("every encoder has stages").clone();
        let densified = |(stage, features): (usize, Tensor<5>)| {
            let whole = match encoding {
                Encoding::Sparse => visible.fill_hidden(visible.standardise(features), self.mask_tokens[stage].val()),
                Encoding::Dense => standardise(features),
            };
            self.densify_projs[stage].forward(whole)
        };
        let mut dense: Vec<Tensor<5>> = stages.into_iter().enumerate().map(densified).collect();
        let mut x = dense.pop().expect("every encoder has stages");
        let mut cells = None;
        for (block, steps_left) in self.decoder.iter().zip((1..=self.decoder.len()).rev()) {
            if steps_left == CELL_STEPS {
                cells = Some(x.clone());
            }
            x = block.forward(x);
            if let Some(features) = dense.pop() {
                x = x + features;
            }
        }
        SparkOutput {
            reconstruction: self.proj.forward(x),
            cells: cells.expect("the coarsest stride is at least 16"),
            coarsest,
        }
    }

    /// Device of the parameters.
    pub fn device(&self) -> Device {
        self.mask_tokens[0].val().device()
    }

    /// Parameters of the encoder under its own names.
    pub fn encoder_weights(&self) -> Weights {
        self.encoder.weights()
    }
}

/// Doubles the resolution, then halves the channels.
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

    /// x `[B, C, D, H, W]` -> `[B, C/2, 2D, 2H, 2W]`.
    fn forward(&self, x: Tensor<5>) -> Tensor<5> {
        let x = self.norm1.forward(self.conv1.forward(self.up.forward(x)));
        self.norm2.forward(self.conv2.forward(ops::leaky_relu(x, 0.0)))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::backbones::segformer3d::SegFormer3dConfig;
    use crate::backbones::waveformer::WaveFormerConfig;
    use crate::golden;

    /// A net around SegFormer3D small enough for tests.
    pub fn tiny_segformer(in_channels: usize) -> SparkNetConfig {
        let config = SegFormer3dConfig {
            in_channels,
            embed_dims: [8, 8, 16, 16],
            heads: [1, 1, 2, 2],
            depths: [1; 4],
            ..SegFormer3dConfig::default()
        };
        SparkNetConfig { encoder: BackboneConfig::SegFormer3d(config), decoder_width: 32 }
    }

    /// A net around WaveFormer small enough for tests, for cubes of 32 voxels.
    pub fn tiny_waveformer(in_channels: usize) -> SparkNetConfig {
        let config = WaveFormerConfig {
            in_channels,
            size: [32; 3],
            embed_dim: 8,
            head_dim: 4,
            ffn_ratio: 4,
            ..Default::default()
        };
        SparkNetConfig { encoder: BackboneConfig::WaveFormer(config), decoder_width: 32 }
    }

    #[test]
    fn masked_cells_do_not_influence_the_features() {
        let device = Device::flex();
        // Cells of the stride of SegFormer3D's third stage (its fourth is coarser), of the fourth,
        // and of WaveFormer's fourth.
        for (config, cell, height) in
            [(tiny_segformer(1), 16, 64), (tiny_segformer(1), 32, 64), (tiny_waveformer(1), 16, 32)]
        {
            // The shifts of norms are zero at first; random parameters would show a leak through
            // them.
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
                let output = net.forward(x.clone(), &visible, encoding);
                assert_eq!(output.reconstruction.dims(), [2, 1, 32, height, 32]);
                assert_eq!(output.cells.dims(), [2, config.cell_channels(), 2, height / 16, 2]);
                assert_eq!(output.coarsest.dims()[1], config.coarsest_channels());
            }
        }
    }

    #[test]
    fn with_all_cells_visible_the_encoder_is_the_dense_one() {
        let device = Device::flex();
        for config in [tiny_segformer(1), tiny_waveformer(1)] {
            let net = golden::fill(config.init(&mut Init::new(3, &device)), &[]);
            let x = golden::input([1, 1, 32, 32, 32], &device);
            let visible = VisibleCells::new(&[true; 8], 1, [2; 3], &device);
            for (a, b) in net.encode(x.clone(), Some(&visible)).into_iter().zip(net.encode(x, None)) {
                a.into_data().assert_approx_eq::<f32>(&b.into_data(), burn::tensor::Tolerance::rel_abs(1e-4, 1e-4));
            }
        }
    }
}
