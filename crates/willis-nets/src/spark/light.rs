//! SparK around SegFormer3D's encoder, with a light decoder that adds the stages on its way up.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::layers::{Bias, Conv3d, ConvTranspose3d, Init, SpaceNorm, Statistics};
use crate::ops::{self, ConvOptions};
use crate::segformer3d::{Encoder, SegFormer3dConfig};
use crate::sparse::{Active, plain_standardise};

/// Sizes of a [`Light`] net.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LightConfig {
    /// The encoder's sizes; of the rest of SegFormer3D nothing is used.
    pub backbone: SegFormer3dConfig,
    /// Channels of the decoder at the coarsest stage; every step up halves them. A multiple of 32.
    pub decoder_width: usize,
}

impl Default for LightConfig {
    /// Around the backbone of our vessel net.
    fn default() -> Self {
        Self { backbone: SegFormer3dConfig::willis(), decoder_width: 128 }
    }
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
}

impl LightConfig {
    /// Channels of [`Painted::cells`].
    pub fn cell_channels(&self) -> usize {
        self.decoder_width / 2
    }

    /// A net with initial parameters.
    ///
    /// # Panics    if the decoder's width is no multiple of 32 (programmer error)
    pub fn init(&self, init: &mut Init) -> Light {
        let (dims, width) = (self.backbone.embed_dims, self.decoder_width);
        assert!(width > 0 && width.is_multiple_of(32), "decoder of {width} channels");
        let project = |stage: usize, init: &mut Init| {
            let kernel = if stage == 3 { 1 } else { 3 };
            let options = ConvOptions::cubic(1, kernel / 2);
            Conv3d::new(dims[stage], width >> (3 - stage), kernel, options, Bias::Yes, init)
        };
        Light {
            encoder: Encoder::new(&self.backbone, init),
            mask_tokens: dims.iter().map(|&channels| init.normal([1, channels, 1, 1, 1], 0.02)).collect(),
            densify_projs: (0..4).map(|stage| project(stage, init)).collect(),
            decoder: (0..5).map(|step| UpBlock::new(width >> step, init)).collect(),
            paint: Conv3d::new(width >> 5, 1, 1, ConvOptions::cubic(1, 0), Bias::Yes, init),
        }
    }
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
    /// What the encoder makes of the seen cells, finest stage first, `[B, C, D, H, W]` each; of everything without `active`.
    pub fn encode(&self, x: Tensor<5>, active: Option<&Active>) -> Vec<Tensor<5>> {
        let x = match active {
            Some(active) => active.keep(x),
            None => x,
        };
        self.encoder.forward(x, active).into_iter().map(|tokens| tokens.into_volume()).collect()
    }

    /// The painting of x `[B, in, D, H, W]`, every axis a multiple of 32.
    pub fn forward(&self, x: Tensor<5>, active: &Active, encoding: Encoding) -> Painted {
        let stages = match encoding {
            Encoding::Sparse => self.encode(x, Some(active)),
            Encoding::Dense => self.encode(active.keep(x), None),
        };
        let densified = |(stage, features): (usize, Tensor<5>)| {
            let whole = match encoding {
                Encoding::Sparse => active.fill(active.standardise(features), self.mask_tokens[stage].val()),
                Encoding::Dense => plain_standardise(features),
            };
            self.densify_projs[stage].forward(whole)
        };
        let mut dense: Vec<Tensor<5>> = stages.into_iter().enumerate().map(densified).collect();
        let mut x = dense.pop().expect("four stages");
        let mut cells = None;
        for block in &self.decoder {
            x = block.forward(x);
            if let Some(features) = dense.pop() {
                x = x + features;
            }
            cells.get_or_insert_with(|| x.clone());
        }
        Painted { image: self.paint.forward(x), cells: cells.expect("five blocks") }
    }

    /// Where the parameters live.
    pub fn device(&self) -> Device {
        self.mask_tokens[0].val().device()
    }

    /// The pre-trained encoder.
    pub fn into_encoder(self) -> Encoder {
        self.encoder
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
        let conv =
            |outputs, init: &mut Init| Conv3d::new(channels, outputs, 3, ConvOptions::cubic(1, 1), Bias::No, init);
        Self {
            up: ConvTranspose3d::new(channels, channels, 2, Bias::Yes, init),
            conv1: conv(channels, init),
            norm1: SpaceNorm::new(channels, Statistics::Own, init),
            conv2: conv(channels / 2, init),
            norm2: SpaceNorm::new(channels / 2, Statistics::Own, init),
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
        LightConfig { backbone, decoder_width: 32 }
    }

    #[test]
    fn nothing_masked_influences_anything_seen() {
        let device = Device::flex();
        // Norms start without a shift; random parameters show a leak through one.
        let net = golden::fill(tiny().init(&mut Init::new(3, &device)), &[]);
        let x = golden::input([2, 1, 32, 64, 32], &device);
        // Cells as large as the third stage's voxels (its fourth is coarser), as the fourth's, and larger.
        for cell in [16, 32] {
            let cells = 32 * 64 * 32 / cell * 2 / cell / cell;
            let flags: Vec<bool> = (0..cells).map(|i| i % 2 == 0).collect();
            let active = Active::new(&flags, 2, [32 / cell, 64 / cell, 32 / cell], &device);
            let other = active.keep(x.clone()) + (x.clone() - active.keep(x.clone())) * 100.0;
            for (a, b) in net.encode(x.clone(), Some(&active)).into_iter().zip(net.encode(other, Some(&active))) {
                active.keep(a.clone()).into_data().assert_eq(&a.clone().into_data(), true);
                a.into_data().assert_eq(&b.into_data(), true);
            }
            let painted = net.forward(x.clone(), &active, Encoding::Sparse);
            assert_eq!(painted.image.dims(), [2, 1, 32, 64, 32]);
            assert_eq!(painted.cells.dims(), [2, tiny().cell_channels(), 2, 4, 2]);
        }
    }

    #[test]
    fn with_all_cells_seen_the_encoder_is_the_backbone_s() {
        let device = Device::flex();
        let net = golden::fill(tiny().init(&mut Init::new(3, &device)), &[]);
        let x = golden::input([1, 1, 32, 32, 32], &device);
        let active = Active::new(&[true; 8], 1, [2; 3], &device);
        for (a, b) in net.encode(x.clone(), Some(&active)).into_iter().zip(net.encode(x, None)) {
            a.into_data().assert_approx_eq::<f32>(&b.into_data(), burn::tensor::Tolerance::rel_abs(1e-4, 1e-4));
        }
    }
}
