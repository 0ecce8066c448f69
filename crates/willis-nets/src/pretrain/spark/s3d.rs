//! S3D, SparK's form for 3D images: the encoder of the residual-encoder U-Net computes from visible
//! cells, mask tokens fill the rest, and the U-Net's decoder reconstructs the volume.
//!
//! Source: Wald et al., CVPR 2025, arXiv:2410.23132. We differ: the input is masked too. The
//! published trainer masks only after the first convolution, which sees one voxel across each
//! border.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};

use crate::backbones::resenc::{ResEnc, ResEncConfig};
use crate::layers::visible::VisibleCells;
use crate::layers::{Conv3d, Conv3dConfig, Init};

/// S3D around a residual-encoder U-Net.
#[derive(Module, Debug)]
pub struct S3d {
    net: ResEnc,
    /// Of every stage but the finest.
    densify_projs: Vec<Conv3d>,
    /// `[1, C, 1, 1, 1]` per stage, finest first.
    mask_tokens: Vec<Param<Tensor<5>>>,
}

impl S3d {
    /// A net with initial parameters.
    pub fn new(config: &ResEncConfig, init: &mut Init) -> Self {
        let conv = |&channels: &usize, init: &mut Init| Conv3dConfig::new(channels, channels, 3).init(init);
        Self {
            net: config.init(init),
            densify_projs: config.features[1..].iter().map(|channels| conv(channels, init)).collect(),
            mask_tokens: config.features.iter().map(|&channels| init.normal([1, channels, 1, 1, 1], 0.02)).collect(),
        }
    }

    /// Prefixes of parameter paths here and in the official state dict, where they differ.
    pub fn official_names(config: &ResEncConfig) -> Vec<(String, String)> {
        let mut names: Vec<(String, String)> =
            config.official_names().into_iter().map(|(ours, official)| (format!("net.{ours}"), official)).collect();
        names.extend([("net.".to_string(), String::new())]);
        let proj = |i: usize| (format!("densify_projs.{i}."), format!("densify_projs.{}.", i + 1));
        names.extend((0..config.features.len() - 1).map(proj));
        names
    }

    /// Reconstruction of the volume from its visible cells.
    ///
    /// # Shapes
    /// x `[B, in_channels, D, H, W]` -> `[B, num_classes, D, H, W]`
    pub fn forward(&self, x: Tensor<5>, visible: &VisibleCells) -> Tensor<5> {
        self.reconstruct(self.net.encode(visible.mask(x), Some(visible)), visible)
    }

    /// Reconstruction from the encoder's stages, which are zero in masked cells.
    fn reconstruct(&self, stages: Vec<Tensor<5>>, visible: &VisibleCells) -> Tensor<5> {
        let dense = stages.into_iter().enumerate().map(|(level, features)| {
            let filled = visible.fill_hidden(visible.standardise(features), self.mask_tokens[level].val());
            match level {
                0 => filled,
                _ => self.densify_projs[level - 1].forward(filled),
            }
        });
        self.net.decode(dense.collect())
    }

    /// Device of the parameters.
    pub fn device(&self) -> Device {
        self.mask_tokens[0].val().device()
    }

    /// The U-Net.
    pub fn backbone(&self) -> &ResEnc {
        &self.net
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden;
    use crate::pretrain::crops::mask_smallest;
    use crate::weights::Weights;

    fn filled(net: S3d, config: &ResEncConfig) -> S3d {
        let names = S3d::official_names(config);
        // Values are made by official name in place: the prefix "net." has no counterpart by which
        // renamed tensors could be found again.
        let official = |ours: &str| {
            let found = names.iter().find_map(|(a, b)| Some(format!("{b}{}", ours.strip_prefix(a.as_str())?)));
            found.unwrap_or_else(|| ours.to_string())
        };
        Weights::of(&net).map(|name, shape| golden::parameter(&official(name), shape)).apply(net).unwrap()
    }

    #[test]
    fn reconstructions_equal_the_official_implementation() {
        let device = Device::flex();
        // Of 64 cells, the 48 with the smallest numbers are masked.
        let flags = mask_smallest(golden::keys("mask").take(64), 48);
        let masked: Vec<usize> = (0..64).filter(|&cell| !flags[cell]).take(10).collect();
        assert_eq!(masked, [1, 2, 3, 4, 5, 6, 7, 9, 11, 12]);
        let config = ResEncConfig::published(1, 1);
        let net = filled(S3d::new(&config, &mut Init::new(0, &device)), &config);
        let visible = VisibleCells::new(&flags, 1, [4; 3], &device);
        let x = golden::input([1, 1, 64, 64, 64], &device);
        // The published trainer does not mask the input.
        let stages = net.net.encode(x.clone(), Some(&visible));
        let probes = [(0, -0.015297), (1, -0.003590), (1_198_372, -0.005936), (2_796_202, 1.608310)];
        golden::check(stages[0].clone(), 0.1682946, 0.5063556, probes, 1e-3);
        golden::check(stages[5].clone(), 1.5895324, 1.5398794, [(0, 0.659824), (1, 1.732769), (365, 0.745613)], 1e-3);
        let rows = [
            (net.reconstruct(stages, &visible), 0.3078322, 0.5994747, [0.234289, -0.684607, 0.017705, -0.010235]),
            (net.forward(x, &visible), 0.3069595, 0.5993757, [0.224124, -0.322415, 0.014280, -0.009304]),
        ];
        for (reconstruction, mean, deviation, values) in rows {
            let probes = [0, 37_449, 131_072, 262_143].into_iter().zip(values);
            golden::check(reconstruction, mean, deviation, probes, 1e-3);
        }
    }

    #[test]
    fn masked_cells_do_not_influence_the_reconstruction() {
        let device = Device::flex();
        let config = ResEncConfig { features: vec![4, 8, 8], blocks: vec![1, 2, 1], ..ResEncConfig::published(1, 1) };
        let net = S3d::new(&config, &mut Init::new(3, &device));
        let flags: Vec<bool> = (0..64).map(|cell| cell % 3 == 0).collect();
        let visible = VisibleCells::new(&flags, 1, [4; 3], &device);
        let x = golden::input([1, 1, 16, 16, 16], &device);
        let other = visible.mask(x.clone()) + (x.clone() - visible.mask(x.clone())) * 100.0;
        let reconstruction = |x| net.forward(x, &visible).into_data();
        reconstruction(x.clone()).assert_eq(&reconstruction(other.clone()), true);
        // Without a mask on the input they do, across the borders of cells.
        let leaky = |x| net.net.encode(x, Some(&visible)).remove(0).into_data();
        assert_ne!(leaky(x), leaky(other));
    }
}
