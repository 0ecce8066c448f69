//! MiM around a backbone's encoder: SparK's net, and heads that align the levels.
//!
//! Source: Zhuang et al., IEEE TMI 44(9), 2025, arXiv:2404.15580. We differ: no released variant of
//! the authors' code computes a contrastive loss on both pairs of levels, so the alignment follows
//! the paper's description.

use burn::module::Module;
use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Int, Tensor, TensorData};

use super::crops::Parent;
use super::regions::{RegionErrors, RegionHeads};
use super::spark::{Encoding, SparkNet, SparkNetConfig, SparkOutput};
use crate::layers::visible::VisibleCells;
use crate::layers::{Init, Linear};
use crate::ops;
use crate::weights::Weights;

/// Sizes of a [`MimNet`].
pub(super) struct MimNetConfig {
    /// Encoder and decoder.
    pub net: SparkNetConfig,
    /// How the encoder treats masked cells.
    pub encoding: Encoding,
    /// Whether the net has the heads of HybridMIM's auxiliary losses.
    pub region_losses: bool,
}

impl MimNetConfig {
    /// A net with initial parameters.
    pub fn init(&self, init: &mut Init) -> MimNet {
        let net = self.net.init(init);
        let mut heads = || (0..2).map(|_| ProjectionHead::new(self.net.cell_channels(), init)).collect();
        MimNet {
            net,
            encoding: self.encoding,
            child: heads(),
            parent: heads(),
            regions: self.region_losses.then(|| RegionHeads::new(self.net.coarsest_channels(), init)),
        }
    }
}

/// MiM around a backbone's encoder.
#[derive(Module, Debug)]
pub(super) struct MimNet {
    net: SparkNet,
    #[module(skip)]
    encoding: Encoding,
    /// Heads for the features of children on the second and the third level.
    child: Vec<ProjectionHead>,
    /// Heads for the features of their parents.
    parent: Vec<ProjectionHead>,
    /// Heads of HybridMIM's auxiliary losses.
    regions: Option<RegionHeads>,
}

/// Two linear layers with GELU between, and normalisation to unit length.
#[derive(Module, Debug)]
struct ProjectionHead {
    fc1: Linear,
    fc2: Linear,
}

impl ProjectionHead {
    fn new(channels: usize, init: &mut Init) -> Self {
        let mut linear = || {
            let weight = init.normal([channels, channels], (1.0 / channels as f64).sqrt());
            Linear { weight, bias: Some(init.constant([channels], 0.0)) }
        };
        Self { fc1: linear(), fc2: linear() }
    }

    /// `[..., C]` -> vectors of unit length, `[..., C]`.
    fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let x = self.fc2.forward(ops::gelu(self.fc1.forward(x)));
        x.clone() / (x.square().sum_dim(D - 1) + 1e-12).sqrt()
    }
}

impl MimNet {
    /// Reconstruction of a volume from its visible cells; see [`SparkNet::forward`].
    pub fn forward(&self, x: Tensor<5>, visible: &VisibleCells) -> SparkOutput {
        self.net.forward(x, visible, self.encoding)
    }

    /// Features of the unmasked volume; see [`SparkNet::encode`].
    pub fn encode(&self, x: Tensor<5>) -> Vec<Tensor<5>> {
        self.net.encode(x, None)
    }

    /// Device of the parameters.
    pub fn device(&self) -> Device {
        self.net.device()
    }

    /// Parameters of the encoder under its own names.
    pub fn encoder_weights(&self) -> Weights {
        self.net.encoder_weights()
    }

    /// HybridMIM's auxiliary losses, if this net has their heads.
    ///
    /// # Shapes
    /// coarsest features `[B, C, d, h, w]`, visibility of the `grid³` cells of each cube
    pub fn region_errors(&self, coarsest: Tensor<5>, visible: &[bool], grid: usize) -> Option<RegionErrors> {
        Some(self.regions.as_ref()?.errors(coarsest, visible, grid))
    }

    /// InfoNCE between the second or third level (1 or 2) and the one before: the mean feature of
    /// each child should be most similar to the feature of its own place in its parent, among all
    /// places of the parent. The parents are detached.
    ///
    /// # Shapes
    /// features of children and parents `[B, C, g, g, g]` on the grid of cells -> `[1]`
    pub fn alignment(
        &self,
        level: usize,
        children: Tensor<5>,
        parents: Tensor<5>,
        at: &[Parent],
        temperature: f64,
    ) -> Tensor<1> {
        let [count, channels, g, ..] = children.dims();
        let device = children.device();
        let child = children.reshape([count, channels, g.pow(3)]).mean_dim(2).reshape([count, channels]);
        // Places are octants on the first level and cells on the second.
        let places = if level == 1 { 2 } else { g };
        let k = g / places;
        let [outer, ..] = parents.dims();
        let blocks = parents.detach().reshape([outer * channels * places, k, places, k, places, k]);
        let blocks = blocks.permute([0, 2, 4, 1, 3, 5]).reshape([outer, channels, places.pow(3), k.pow(3)]);
        let features = blocks.mean_dim(3).reshape([outer, channels, places.pow(3)]).swap_dims(1, 2);
        let ints = |values: Vec<i32>| TensorData::new(values, [count]);
        let cubes = Tensor::<1, Int>::from_data(ints(at.iter().map(|p| p.cube as i32).collect()), &device);
        let candidates = self.parent[level - 1].forward(features.select(0, cubes));
        let child = self.child[level - 1].forward(child).reshape([count, 1, channels]);
        let logits = child.matmul(candidates.swap_dims(1, 2)).reshape([count, places.pow(3)]) / temperature;
        let right = Tensor::<1, Int>::from_data(ints(at.iter().map(|p| p.place as i32).collect()), &device);
        log_softmax(logits, 1).gather(1, right.reshape([count, 1])).mean().neg()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pretrain::spark::tests::tiny_segformer;

    #[test]
    fn the_alignment_is_best_for_a_child_that_equals_its_place() {
        let device = Device::flex();
        let config = MimNetConfig { net: tiny_segformer(4), encoding: Encoding::Sparse, region_losses: false };
        let mut net = config.init(&mut Init::new(0, &device));
        // One head for both sides, so that equal features give equal vectors.
        net.parent = net.child.clone();
        let channels = config.net.cell_channels();
        let hashed = |i: usize| (i as f32 * 12.9898).sin();
        let values: Vec<f32> = (0..channels * 8).map(hashed).collect();
        let parents = Tensor::<5>::from_data(TensorData::new(values.clone(), [1, channels, 2, 2, 2]), &device);
        let child = |place: usize| {
            let feature: Vec<f32> = (0..channels * 8).map(|i| values[i / 8 * 8 + place]).collect();
            Tensor::<5>::from_data(TensorData::new(feature, [1, channels, 2, 2, 2]), &device)
        };
        let loss = |level, place, child| {
            net.alignment(level, child, parents.clone(), &[Parent { cube: 0, place }], 0.05).into_scalar::<f32>()
        };
        for level in [1, 2] {
            for place in [0, 5] {
                assert!(loss(level, place, child(place)) + 1.0 < loss(level, place, child(7 - place)));
            }
        }
    }
}
