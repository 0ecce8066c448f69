//! WaveFormer: windowed attention on the low-pass scales of a Haar transform, whose detail
//! sub-bands the decoder uses to restore resolution.
//!
//! Letters: B batch, C channels of the first stage, D H W axes, T tokens of a window. Tokens have
//! channels last, `[B, D, H, W, C]`.
//!
//! Source: Al Hasan et al., MICCAI 2025, arXiv:2503.23764, and the behaviour of the authors' code,
//! whose three errors can be reproduced or corrected ([`Quirks`]). We differ: the sides of the
//! input need not be equal, and there is no drop path.

mod attention;
mod block;
mod decoder;
mod encoder;
pub mod haar;

pub(crate) use encoder::norm;
pub use encoder::{DetailSource, StageOutput, WaveFormerConfig, WaveFormerEncoder};

use burn::module::Module;
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::layers::{Conv3d, Conv3dConfig, Init};
use decoder::{ResBlock, WaveFormerDecoder};

/// Stride of the fourth stage.
pub const COARSEST_STRIDE: usize = 16;

/// Prefixes of parameter paths here and in the official state dict, where they differ; the first
/// that matches applies.
pub const OFFICIAL_NAMES: [(&str, &str); 39] = [
    ("image.conv1.", "encoder1.layer.conv1.conv."),
    ("image.conv2.", "encoder1.layer.conv2.conv."),
    ("image.conv3.", "encoder1.layer.conv3.conv."),
    ("decoder.skips.0.conv1.", "encoder2.layer.conv1.conv."),
    ("decoder.skips.0.conv2.", "encoder2.layer.conv2.conv."),
    ("decoder.skips.1.conv1.", "encoder3.layer.conv1.conv."),
    ("decoder.skips.1.conv2.", "encoder3.layer.conv2.conv."),
    ("decoder.skips.2.conv1.", "encoder4.layer.conv1.conv."),
    ("decoder.skips.2.conv2.", "encoder4.layer.conv2.conv."),
    ("decoder.calibration.", "encoder10."),
    ("decoder.wavelet.0.conv_lf_block.", "decoder2.conv_lf_block.conv."),
    ("decoder.wavelet.0.conv_block.conv1.", "decoder2.conv_block.conv1.conv."),
    ("decoder.wavelet.0.conv_block.conv2.", "decoder2.conv_block.conv2.conv."),
    ("decoder.wavelet.0.conv_block.conv3.", "decoder2.conv_block.conv3.conv."),
    ("decoder.wavelet.0.", "decoder2."),
    ("decoder.wavelet.1.conv_lf_block.", "decoder3.conv_lf_block.conv."),
    ("decoder.wavelet.1.conv_block.conv1.", "decoder3.conv_block.conv1.conv."),
    ("decoder.wavelet.1.conv_block.conv2.", "decoder3.conv_block.conv2.conv."),
    ("decoder.wavelet.1.conv_block.conv3.", "decoder3.conv_block.conv3.conv."),
    ("decoder.wavelet.1.", "decoder3."),
    ("decoder.wavelet.2.conv_lf_block.", "decoder4.conv_lf_block.conv."),
    ("decoder.wavelet.2.conv_block.conv1.", "decoder4.conv_block.conv1.conv."),
    ("decoder.wavelet.2.conv_block.conv2.", "decoder4.conv_block.conv2.conv."),
    ("decoder.wavelet.2.conv_block.conv3.", "decoder4.conv_block.conv3.conv."),
    ("decoder.wavelet.2.", "decoder4."),
    ("decoder.up.0.depthwise.", "learnable_up3.conv1.1."),
    ("decoder.up.0.mix.0.", "learnable_up3.conv3."),
    ("decoder.up.0.shortcut.", "learnable_up3.res_conv.1."),
    ("decoder.up.0.", "learnable_up3."),
    ("decoder.up.1.depthwise.", "learnable_up4.conv1.1."),
    ("decoder.up.1.mix.0.", "learnable_up4.conv3.0."),
    ("decoder.up.1.mix.1.", "learnable_up4.conv3.2."),
    ("decoder.up.1.shortcut.", "learnable_up4.res_conv.1."),
    ("decoder.up.1.", "learnable_up4."),
    ("decoder.full.transposed.", "decoder1.transp_conv.conv."),
    ("decoder.full.block.conv1.", "decoder1.conv_block.conv1.conv."),
    ("decoder.full.block.conv2.", "decoder1.conv_block.conv2.conv."),
    ("decoder.full.block.conv3.", "decoder1.conv_block.conv3.conv."),
    ("out.", "out.conv.conv."),
];

/// Which errors of the published code a net reproduces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quirks {
    /// How attended windows are put back.
    pub window_reverse: WindowReverse,
    /// How a displacement becomes a row of the bias table.
    pub relative_index: RelativeIndex,
    /// Which sub-grids are merged.
    pub merge: MergeOffsets,
}

impl Quirks {
    /// All errors of the published code, which its checkpoints were trained with.
    pub const OFFICIAL: Self = Self {
        window_reverse: WindowReverse::Flat,
        relative_index: RelativeIndex::Colliding,
        merge: MergeOffsets::Repeated,
    };
    /// No errors; for new training.
    pub const FIXED: Self = Self {
        window_reverse: WindowReverse::Permuted,
        relative_index: RelativeIndex::Distinct,
        merge: MergeOffsets::Product,
    };
}

/// How attended windows are put back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WindowReverse {
    /// By a plain reshape, which scrambles space when there is more than one window (published).
    Flat,
    /// To where they were cut.
    Permuted,
}

/// How a displacement becomes a row of the bias table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RelativeIndex {
    /// With depth stride `3w - 1`, by which displacements collide (published).
    Colliding,
    /// With depth stride `(2w - 1)²`.
    Distinct,
}

/// Which of the eight strided sub-grids are merged, in which order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MergeOffsets {
    /// 000 100 010 001 101 010 001 111: two are read twice, two never (published).
    Repeated,
    /// 000 001 010 011 100 101 110 111.
    Product,
}

/// WaveFormer.
#[derive(Module, Debug)]
pub struct WaveFormer {
    waveformer_encoder: WaveFormerEncoder,
    /// Features of the input at full resolution.
    image: ResBlock,
    decoder: WaveFormerDecoder,
    out: Conv3d,
    #[module(skip)]
    size: [usize; 3],
}

impl WaveFormerConfig {
    /// A net with initial parameters.
    ///
    /// # Panics
    /// if [`Self::validate`] refuses the sizes (programmer error)
    pub fn init(&self, init: &mut Init) -> WaveFormer {
        WaveFormer {
            waveformer_encoder: self.init_encoder(init),
            image: ResBlock::new(self.in_channels, self.embed_dim, init),
            decoder: WaveFormerDecoder::new(self, init),
            out: Conv3dConfig::pointwise(self.embed_dim, self.num_classes).init(init),
            size: self.size,
        }
    }
}

impl WaveFormer {
    /// The only input size that the net takes, `[D, H, W]`.
    pub fn size(&self) -> [usize; 3] {
        self.size
    }

    /// Logits at the input's resolution.
    ///
    /// # Shapes
    /// x `[B, in_channels, D, H, W]` of [`Self::size`] -> `[B, num_classes, D, H, W]`
    pub fn forward(&self, x: Tensor<5>) -> Tensor<5> {
        let stages = self.waveformer_encoder.forward(x.clone(), None);
        self.out.forward(self.decoder.forward(stages, self.image.forward(x)))
    }

    /// The last convolution, whose outputs are the logits.
    pub(crate) fn head(&mut self) -> &mut Conv3d {
        &mut self.out
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use willis_core::Switch;

    use super::*;
    use crate::golden;
    use crate::weights::Weights;

    const PROBES: [usize; 7] = [0, 1, 112_347, 262_144, 393_216, 655_360, 786_431];

    fn check(quirks: Quirks, multi_scale: Switch, hf_refinement: Switch, mean: f64, deviation: f64, values: [f64; 7]) {
        let device = Device::flex();
        let config = WaveFormerConfig { multi_scale, hf_refinement, ..WaveFormerConfig::published(1, 3, 64, quirks) };
        let net = golden::fill(config.init(&mut Init::new(0, &device)), &OFFICIAL_NAMES);
        let logits = net.forward(golden::input([1, 1, 64, 64, 64], &device));
        golden::check(logits, mean, deviation, PROBES.into_iter().zip(values), 1e-3);
    }

    #[test]
    fn the_published_net_has_the_published_number_of_parameters() {
        let count = |hf_refinement| {
            let config = WaveFormerConfig { hf_refinement, ..WaveFormerConfig::published(4, 4, 128, Quirks::OFFICIAL) };
            config.init(&mut Init::new(0, &Device::flex())).num_params()
        };
        assert_eq!(count(Switch::Off), 17_167_546);
        assert_eq!(count(Switch::On), 17_167_546 + 78_576);
    }

    #[test]
    fn official_names_are_the_published_ones() {
        let config =
            WaveFormerConfig { hf_refinement: Switch::On, ..WaveFormerConfig::published(1, 3, 16, Quirks::OFFICIAL) };
        let net = config.init(&mut Init::new(0, &Device::flex()));
        let weights = Weights::of(&net).renamed(&OFFICIAL_NAMES);
        for name in [
            "waveformer_encoder.block1.0.attn.relative_position_bias_table",
            "encoder1.layer.conv3.conv.weight",
            "encoder10.fc2.bias",
            "decoder4.conv_lf_block.conv.weight",
            "decoder2.hf_ref.2.conv2.bias",
            "decoder3.conv_block.conv3.conv.weight",
            "learnable_up4.conv1.1.weight",
            "learnable_up4.norm.weight",
            "learnable_up3.conv3.weight",
            "decoder1.transp_conv.conv.weight",
            "decoder1.conv_block.conv1.conv.weight",
            "out.conv.conv.bias",
        ] {
            assert!(weights.get(name).is_some(), "{name}");
        }
    }

    #[test]
    fn logits_of_the_published_code() {
        let quirks = Quirks::OFFICIAL;
        let values = [-0.118035, -0.650825, -0.160237, -0.643882, -0.665978, 2.226145, 1.712722];
        check(quirks, Switch::On, Switch::Off, 0.3317925, 1.0228056, values);
        let values = [0.062707, -0.521298, -0.052175, -0.670431, -0.921454, 1.436905, 1.261091];
        check(quirks, Switch::Off, Switch::Off, 0.3349838, 1.0239457, values);
        let values = [-0.255291, -0.590012, -0.052332, -0.546174, -0.700209, 2.003114, 1.686999];
        check(quirks, Switch::On, Switch::On, 0.3316511, 1.0223271, values);
    }

    #[test]
    fn ablations_change_the_logits_but_not_the_parameters() {
        let device = Device::flex();
        let logits = |change: fn(&mut WaveFormerConfig)| {
            let mut config = WaveFormerConfig {
                embed_dim: 8,
                head_dim: 4,
                size: [16, 32, 16],
                ..WaveFormerConfig::published(2, 3, 16, Quirks::FIXED)
            };
            change(&mut config);
            let net = golden::fill(config.init(&mut Init::new(0, &device)), &OFFICIAL_NAMES);
            let logits = net.forward(golden::input([1, 2, 16, 32, 16], &device));
            assert_eq!(logits.dims(), [1, 3, 16, 32, 16]);
            (net.num_params(), logits.into_data().try_to_vec::<f32>().unwrap())
        };
        let (parameters, plain) = logits(|_| ());
        for change in [
            |c: &mut WaveFormerConfig| c.wavelets = Switch::Off,
            |c: &mut WaveFormerConfig| c.details = DetailSource::AllBlocks,
        ] {
            let (same, other) = logits(change);
            assert_eq!(same, parameters);
            assert!(other.iter().all(|v| v.is_finite()) && other != plain);
        }
        // With one block per stage the sum is that block.
        let one = |details| logits(details).1;
        let last = one(|c| c.depths = [1; 4]);
        assert_eq!(last, one(|c| (c.depths, c.details) = ([1; 4], DetailSource::AllBlocks)));
    }

    #[test]
    fn logits_with_the_window_reverse_corrected() {
        let quirks = Quirks { window_reverse: WindowReverse::Permuted, ..Quirks::OFFICIAL };
        let values = [0.349818, -0.525806, -0.374310, -0.590754, -0.698989, 2.051249, 1.348974];
        check(quirks, Switch::On, Switch::Off, 0.3336607, 1.0225098, values);
        let values = [0.304857, -0.454235, -0.441927, -0.446026, -0.752748, 1.909968, 1.368405];
        check(quirks, Switch::On, Switch::On, 0.3334955, 1.0224169, values);
    }

    #[test]
    fn logits_with_all_errors_corrected() {
        let values = [0.457066, -0.856614, -0.356177, -0.784672, -0.572938, 1.986499, 1.331331];
        check(Quirks::FIXED, Switch::On, Switch::Off, 0.3326702, 1.0218148, values);
        let values = [0.467596, -0.760967, -0.413621, -0.687121, -0.594866, 1.833138, 1.339932];
        check(Quirks::FIXED, Switch::On, Switch::On, 0.3321964, 1.0219443, values);
        let values = [-0.321681, -0.742770, -0.559126, -0.943273, -0.808558, 1.671624, 1.483360];
        check(Quirks::FIXED, Switch::Off, Switch::Off, 0.3339546, 1.0207246, values);
    }
}
