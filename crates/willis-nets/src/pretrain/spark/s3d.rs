//! S3D, SparK's form for 3D images: a convolutional encoder sees a quarter of a volume's cells,
//! tokens fill the rest, and the segmentation decoder paints the whole.
//!
//! Source: Wald et al., CVPR 2025, arXiv:2410.23132.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};

use crate::backbones::resenc::{ResEnc, ResEncConfig};
use crate::layers::visible::VisibleCells;
use crate::layers::{Conv3d, Conv3dConfig, Init};

/// Whether the encoder's input is masked too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InputMask {
    /// It is: nothing masked can influence anything seen.
    On,
    /// It is not, as in the published trainer, whose first convolution sees one voxel across each
    /// border.
    Off,
}

/// The pre-training net around a backbone.
#[derive(Module, Debug)]
pub struct S3d {
    net: ResEnc,
    /// Of every stage but the finest.
    densify_projs: Vec<Conv3d>,
    /// `[1, C, 1, 1, 1]` per stage, finest first.
    mask_tokens: Vec<Param<Tensor<5>>>,
}

impl S3d {
    /// Around a net with initial parameters.
    pub fn new(config: &ResEncConfig, init: &mut Init) -> Self {
        let conv = |&channels: &usize, init: &mut Init| Conv3dConfig::new(channels, channels, 3).init(init);
        Self {
            net: config.init(init),
            densify_projs: config.features[1..].iter().map(|channels| conv(channels, init)).collect(),
            mask_tokens: config.features.iter().map(|&channels| init.normal([1, channels, 1, 1, 1], 0.02)).collect(),
        }
    }

    /// Parameter path prefixes here and in the official state dict, where they differ.
    pub fn official_names(config: &ResEncConfig) -> Vec<(String, String)> {
        let mut names: Vec<(String, String)> =
            config.official_names().into_iter().map(|(ours, official)| (format!("net.{ours}"), official)).collect();
        names.extend([("net.".to_string(), String::new())]);
        let proj = |i: usize| (format!("densify_projs.{i}."), format!("densify_projs.{}.", i + 1));
        names.extend((0..config.features.len() - 1).map(proj));
        names
    }

    /// What the encoder makes of the seen cells, finest stage first.
    pub fn encode(&self, x: Tensor<5>, visible: &VisibleCells, input: InputMask) -> Vec<Tensor<5>> {
        let x = if input == InputMask::On { visible.mask(x) } else { x };
        self.net.encode(x, Some(visible))
    }

    /// Reconstruction of a volume: x `[B, in, D, H, W]` -> `[B, classes, D, H, W]`.
    pub fn forward(&self, x: Tensor<5>, visible: &VisibleCells, input: InputMask) -> Tensor<5> {
        let stages = self.encode(x, visible, input);
        let dense = stages.into_iter().enumerate().map(|(level, features)| {
            let filled = visible.fill_hidden(visible.standardise(features), self.mask_tokens[level].val());
            match level {
                0 => filled,
                _ => self.densify_projs[level - 1].forward(filled),
            }
        });
        self.net.decode(dense.collect())
    }

    /// Where the parameters live.
    pub fn device(&self) -> Device {
        self.mask_tokens[0].val().device()
    }

    /// The backbone as it stands.
    pub fn backbone(&self) -> &ResEnc {
        &self.net
    }

    /// The pre-trained backbone.
    pub fn into_backbone(self) -> ResEnc {
        self.net
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden;
    use crate::weights::Weights;

    /// The mask of the golden values: of 64 cells the 48 with the smallest numbers are masked.
    fn golden_mask() -> Vec<bool> {
        let mut order: Vec<(f64, usize)> = golden::stream("mask").take(64).zip(0..).collect();
        order.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let mut flags = vec![true; 64];
        order[..48].iter().for_each(|&(_, cell)| flags[cell] = false);
        flags
    }

    fn filled(net: S3d, config: &ResEncConfig) -> S3d {
        let names = S3d::official_names(config);
        let names: Vec<(&str, &str)> = names.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        // The prefix "net." has no counterpart to be found by on the way back, so values are made
        // by name in place.
        let official = |ours: &str| {
            let found = names.iter().find_map(|(a, b)| Some(format!("{b}{}", ours.strip_prefix(a)?)));
            found.unwrap_or_else(|| ours.to_string())
        };
        Weights::of(&net).map(|name, shape| golden::parameter(&official(name), shape)).apply(net).unwrap()
    }

    #[test]
    fn golden_values() {
        let device = Device::flex();
        let flags = golden_mask();
        let masked: Vec<usize> = (0..64).filter(|&cell| !flags[cell]).take(10).collect();
        assert_eq!(masked, [1, 2, 3, 4, 5, 6, 7, 9, 11, 12]);
        let config = ResEncConfig::published(1, 1);
        let net = filled(S3d::new(&config, &mut Init::new(0, &device)), &config);
        let visible = VisibleCells::new(&flags, 1, [4; 3], &device);
        let x = golden::input([1, 1, 64, 64, 64], &device);
        let stages = net.encode(x.clone(), &visible, InputMask::Off);
        let probes = [(0, -0.015297), (1, -0.003590), (1_198_372, -0.005936), (2_796_202, 1.608310)];
        golden::check(stages[0].clone(), 0.1682946, 0.5063556, probes, 1e-3);
        golden::check(stages[5].clone(), 1.5895324, 1.5398794, [(0, 0.659824), (1, 1.732769), (365, 0.745613)], 1e-3);
        let rows = [
            (InputMask::Off, 0.3078322, 0.5994747, [0.234289, -0.684607, 0.017705, -0.010235]),
            (InputMask::On, 0.3069595, 0.5993757, [0.224124, -0.322415, 0.014280, -0.009304]),
        ];
        for (input, mean, deviation, values) in rows {
            let probes = [0, 37_449, 131_072, 262_143].into_iter().zip(values);
            golden::check(net.forward(x.clone(), &visible, input), mean, deviation, probes, 1e-3);
        }
    }

    #[test]
    fn nothing_masked_influences_anything_seen() {
        let device = Device::flex();
        let config = ResEncConfig { features: vec![4, 8, 8], blocks: vec![1, 2, 1], ..ResEncConfig::published(1, 1) };
        let net = S3d::new(&config, &mut Init::new(3, &device));
        let flags: Vec<bool> = (0..64).map(|cell| cell % 3 == 0).collect();
        let visible = VisibleCells::new(&flags, 1, [4; 3], &device);
        let x = golden::input([1, 1, 16, 16, 16], &device);
        let other = visible.mask(x.clone()) + (x.clone() - visible.mask(x.clone())) * 100.0 + 0.0;
        let run = |x| net.encode(x, &visible, InputMask::On);
        for (a, b) in run(x.clone()).into_iter().zip(run(other.clone())) {
            a.into_data().assert_eq(&b.into_data(), true);
        }
        let leaky = |x| net.encode(x, &visible, InputMask::Off).remove(0).into_data();
        assert_ne!(leaky(x), leaky(other));
    }
}
