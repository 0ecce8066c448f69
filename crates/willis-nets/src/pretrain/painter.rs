//! The nets around what is pre-trained: they paint, and for MiM they also say where a cube belongs.

use burn::module::Module;
use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Int, Tensor, TensorData};

use super::regions::{RegionErrors, RegionHeads};
use super::views::Parent;
use super::{Method, PretrainConfig};
use crate::backbones::published::Backbone;
use crate::layers::visible::VisibleCells;
use crate::layers::{Init, Linear, standardise};
use crate::ops;
use crate::pretrain::spark::{Encoding, InputMask, Light, S3d, masked_cell_error, masked_error, repainted};
use crate::weights::Weights;

/// The net around what is pre-trained.
#[derive(Module, Debug)]
#[allow(clippy::large_enum_variant, reason = "there is one net at a time")]
pub(super) enum Painter {
    Light(Light),
    Nested(Nested),
    Resenc(S3d),
}

/// The net of MiM: beside the painting, what a cube's features say must fit the place of its parent
/// where it lies.
#[derive(Module, Debug)]
pub(super) struct Nested {
    light: Light,
    sparse: bool,
    /// Of the children's and the parents' features, of the second level and of the third.
    child: Vec<Projector>,
    parent: Vec<Projector>,
    /// HybridMIM's questions, where they are asked.
    regions: Option<RegionHeads>,
}

/// What a net makes of cubes.
pub(super) struct Painting {
    /// `[B, 1, D, H, W]`.
    pub image: Tensor<5>,
    /// For MiM: the decoder's features on the grid of cells.
    pub cells: Option<Tensor<5>>,
    /// For MiM: the encoder's coarsest stage.
    pub coarsest: Option<Tensor<5>>,
}

/// Two layers.
#[derive(Module, Debug)]
struct Projector {
    fc1: Linear,
    fc2: Linear,
}

impl Projector {
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

impl Nested {
    /// What HybridMIM's questions to the coarsest stage are answered wrongly; none where they are
    /// not asked.
    ///
    /// # Shapes
    /// flags of the seen cells of `grid³` for each cube
    pub fn region_errors(&self, coarsest: Tensor<5>, seen: &[bool], grid: usize) -> Option<RegionErrors> {
        Some(self.regions.as_ref()?.errors(coarsest, seen, grid))
    }

    /// InfoNCE of the second or third level: each child's mean feature against the places of its
    /// parent, whose features are detached.
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
        // Octants of the first level, cells of the second.
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

impl Painter {
    pub fn new(config: &PretrainConfig, device: &Device) -> Self {
        let init = &mut Init::new(config.train.seed, device);
        match (config.backbone, config.method) {
            (Backbone::Segformer3d | Backbone::Waveformer, Method::Spark) => Self::Light(config.light().init(init)),
            (Backbone::Segformer3d | Backbone::Waveformer, method) => {
                let light = config.light().init(init);
                let mut projectors = || (0..2).map(|_| Projector::new(config.light().cell_channels(), init)).collect();
                Self::Nested(Nested {
                    light,
                    sparse: method == Method::SparkMim,
                    child: projectors(),
                    parent: projectors(),
                    regions: config
                        .nested
                        .asks_regions()
                        .then(|| RegionHeads::new(config.light().coarsest_channels(), init)),
                })
            }
            (Backbone::Resenc, _) => Self::Resenc(S3d::new(&config.resenc, init)),
        }
    }

    /// The painting of x `[B, in, D, H, W]`.
    pub fn paint(&self, x: Tensor<5>, visible: &VisibleCells) -> Painting {
        let alone = |image| Painting { image, cells: None, coarsest: None };
        match self {
            Self::Light(net) => alone(net.forward(x, visible, Encoding::Sparse).image),
            Self::Nested(net) => {
                let encoding = if net.sparse { Encoding::Sparse } else { Encoding::Dense };
                let painted = net.light.forward(x, visible, encoding);
                Painting { image: painted.image, cells: Some(painted.cells), coarsest: Some(painted.coarsest) }
            }
            Self::Resenc(net) => alone(net.forward(x, visible, InputMask::On)),
        }
    }

    /// The net of MiM, if this is one.
    pub fn nested(&self) -> Option<&Nested> {
        match self {
            Self::Nested(net) => Some(net),
            Self::Light(_) | Self::Resenc(_) => None,
        }
    }

    /// How far a painting is from the intensities, where they were masked.
    pub fn error(&self, painted: Tensor<5>, intensity: Tensor<5>, visible: &VisibleCells, cell: usize) -> Tensor<1> {
        match self {
            Self::Light(_) | Self::Nested(_) => masked_cell_error(painted, intensity, visible, cell),
            Self::Resenc(_) => masked_error(painted, intensity, visible),
        }
    }

    /// A painting in units of the standardised intensities.
    pub fn in_units_of(&self, painted: Tensor<5>, intensity: Tensor<5>, cell: usize) -> Tensor<5> {
        match self {
            Self::Light(_) | Self::Nested(_) => repainted(painted, standardise(intensity), cell),
            Self::Resenc(_) => painted,
        }
    }

    /// Coarsest features of everything.
    pub fn bottleneck(&self, x: Tensor<5>) -> Tensor<5> {
        let stages = match self {
            Self::Light(net) => net.encode(x, None),
            Self::Nested(net) => net.light.encode(x, None),
            Self::Resenc(net) => net.backbone().encode(x, None),
        };
        stages.into_iter().next_back().expect("every backbone has stages")
    }

    pub fn device(&self) -> Device {
        match self {
            Self::Light(net) => net.device(),
            Self::Nested(net) => net.light.device(),
            Self::Resenc(net) => net.device(),
        }
    }

    pub fn into_weights(self) -> Weights {
        match self {
            Self::Light(net) => net.encoder_weights(),
            Self::Nested(net) => net.light.encoder_weights(),
            Self::Resenc(net) => Weights::of(&net.into_backbone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_that_equals_its_place_aligns_best() {
        let device = Device::flex();
        let config = PretrainConfig { method: Method::SparkMim, decoder_width: 32, ..PretrainConfig::default() };
        let Painter::Nested(mut net) = Painter::new(&config, &device) else { panic!("MiM nests") };
        // One projector for both sides, so that equal features give equal vectors.
        net.parent = net.child.clone();
        let channels = config.light().cell_channels();
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
