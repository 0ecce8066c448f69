//! StripModel, the U-Net of SynthStrip: image to signed distance from the brain's surface.
//!
//! Two convolutions per level, no norm, LeakyReLU 0.2, max pooling and nearest-neighbour upsampling
//! by 2. Parameters have FreeSurfer's names.
//!
//! # Source
//! Hoopes et al., SynthStrip: skull-stripping for any brain image, NeuroImage 260 (2022) 119474.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};
use willis_core::InvalidValue;

use crate::layers::{Conv3d, Conv3dConfig, Init};
use crate::ops;
use crate::rules::require;

/// Slope of the activation below 0.
const SLOPE: f64 = 0.2;
/// Convolutions of a level.
const CONVS: usize = 2;
/// Slices of a slab of the finest level, where inference needs most memory.
const SLAB: usize = 32;
/// Slices around a slab that its result depends on: the two convolutions of the encoder and the
/// three after the last skip.
const HALO: usize = 6;
/// Voxels below which the finest level is computed whole.
const WHOLE_VOXELS: usize = 128 * 128 * 128;

/// Sizes of a [`StripModel`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StripModelConfig {
    /// Channels of the levels, finest first.
    pub features: Vec<usize>,
}

impl Default for StripModelConfig {
    /// The published net.
    fn default() -> Self {
        Self { features: vec![16, 32, 64, 64, 64, 64, 64] }
    }
}

/// Predicts the signed distance of every voxel from the brain's surface, in voxels, negative
/// inside.
#[derive(Module, Debug)]
pub struct StripModel {
    /// Levels with a skip connection, finest first.
    encoder: Vec<Vec<StripConv>>,
    /// Coarsest level, then one for each further skip connection.
    decoder: Vec<Vec<StripConv>>,
    /// Convolutions after the finest skip connection; the last has no activation.
    remaining: Vec<StripConv>,
}

/// A convolution; an activation follows it.
#[derive(Module, Debug)]
struct StripConv {
    conv: Conv3d,
}

impl StripModelConfig {
    /// Checks every value.
    ///
    /// # Errors
    /// [`InvalidValue`] names the first value that breaks its rule.
    pub fn validate(&self) -> Result<(), InvalidValue> {
        let levels = self.features.len();
        require("features", levels, (2..=8).contains(&levels), "must list the channels of 2 to 8 levels")?;
        self.features.iter().enumerate().try_for_each(|(level, &channels)| {
            require(
                &format!("features[{level}]"),
                channels,
                (1..=1024).contains(&channels),
                "must lie between 1 and 1024",
            )
        })
    }

    /// What every side of an image must be a multiple of.
    pub fn multiple(&self) -> usize {
        1 << (self.features.len() - 1)
    }

    /// A net with initial parameters.
    ///
    /// # Panics
    /// if the configuration is invalid (programmer error)
    pub fn init(&self, init: &mut Init) -> StripModel {
        let (last, skips) = self.features.split_last().expect("a net has at least two levels");
        let mut level = |inputs: usize, outputs: usize| {
            let conv = |i: usize| StripConv::new(if i == 0 { inputs } else { outputs }, outputs, init);
            (0..CONVS).map(conv).collect::<Vec<_>>()
        };
        let mut inputs = 1;
        let mut encoder = Vec::new();
        for &outputs in skips {
            encoder.push(level(inputs, outputs));
            inputs = outputs;
        }
        let mut decoder = vec![level(inputs, *last)];
        inputs = *last;
        for &outputs in skips[1..].iter().rev() {
            decoder.push(level(inputs + outputs, outputs));
            inputs = outputs;
        }
        let mut remaining = level(inputs + skips[0], skips[0]);
        remaining.push(StripConv::new(skips[0], 1, init));
        StripModel { encoder, decoder, remaining }
    }
}

impl StripConv {
    fn new(inputs: usize, outputs: usize, init: &mut Init) -> Self {
        Self { conv: Conv3dConfig::new(inputs, outputs, 3).init(init) }
    }
}

impl StripModel {
    /// Computes the distances.
    ///
    /// # Shapes
    /// x `[B, 1, D, H, W]`, every side a multiple of [`StripModelConfig::multiple`] ->
    /// `[B, 1, D, H, W]`
    pub fn forward(&self, x: Tensor<5>) -> Tensor<5> {
        let skip = activated(&self.encoder[0], x);
        let coarse = self.below(ops::max_pool3d(skip.clone(), 2));
        self.finish(coarse, skip)
    }

    /// As [`Self::forward`], without gradients and with less memory: large images pass the finest
    /// level slab by slab. What a slab needs of its surroundings is computed again.
    ///
    /// # Shapes
    /// x `[B, 1, D, H, W]` -> `[B, 1, D, H, W]`
    pub fn infer(&self, x: Tensor<5>) -> Tensor<5> {
        let [_, _, depth, height, width] = x.dims();
        if depth * height * width <= WHOLE_VOXELS {
            return self.forward(x);
        }
        let slabs: Vec<Slab> = (0..depth).step_by(SLAB).map(|start| Slab::new(start, depth)).collect();
        let pooled = slabs.iter().map(|slab| {
            let skip = activated(&self.encoder[0], slab.around(x.clone(), 1));
            slab.inner(ops::max_pool3d(skip, 2), 2)
        });
        let coarse = self.below(Tensor::cat(pooled.collect(), 2));
        let finished = slabs.iter().map(|slab| {
            let skip = activated(&self.encoder[0], slab.around(x.clone(), 1));
            slab.inner(self.finish(slab.around(coarse.clone(), 2), skip), 1)
        });
        Tensor::cat(finished.collect(), 2)
    }

    /// The device of the parameters.
    pub(super) fn device(&self) -> Device {
        self.remaining[0].conv.weight.val().device()
    }

    /// Every level below the finest: the finest features, pooled, to the input of its decoder
    /// before upsampling.
    fn below(&self, mut x: Tensor<5>) -> Tensor<5> {
        let mut skips = Vec::new();
        for level in &self.encoder[1..] {
            let skip = activated(level, x);
            x = ops::max_pool3d(skip.clone(), 2);
            skips.push(skip);
        }
        let (bottleneck, levels) = self.decoder.split_first().expect("init makes the coarsest level");
        x = activated(bottleneck, x);
        for level in levels {
            let skip = skips.pop().expect("one skip connection per level");
            x = activated(level, Tensor::cat(vec![ops::upsample_nearest(x, 2), skip], 1));
        }
        x
    }

    /// Decoder of the finest level.
    fn finish(&self, coarse: Tensor<5>, skip: Tensor<5>) -> Tensor<5> {
        let (last, convs) = self.remaining.split_last().expect("init makes three convolutions");
        let x = Tensor::cat(vec![ops::upsample_nearest(coarse, 2), skip], 1);
        last.conv.forward(activated(convs, x))
    }
}

fn activated(convs: &[StripConv], x: Tensor<5>) -> Tensor<5> {
    convs.iter().fold(x, |x, layer| ops::leaky_relu(layer.conv.forward(x), SLOPE))
}

/// Consecutive slices with the halo that lies inside the image. All bounds are even.
#[derive(Debug, Clone, Copy)]
struct Slab {
    start: usize,
    end: usize,
    from: usize,
    to: usize,
}

impl Slab {
    fn new(start: usize, depth: usize) -> Self {
        let end = (start + SLAB).min(depth);
        Self { start, end, from: start.saturating_sub(HALO), to: (end + HALO).min(depth) }
    }

    /// Slices of the slab and its halo, of an image that is `coarser` times coarser.
    fn around(&self, x: Tensor<5>, coarser: usize) -> Tensor<5> {
        x.narrow(2, self.from / coarser, (self.to - self.from) / coarser)
    }

    /// Drops the halo.
    fn inner(&self, x: Tensor<5>, coarser: usize) -> Tensor<5> {
        x.narrow(2, (self.start - self.from) / coarser, (self.end - self.start) / coarser)
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Tolerance;

    use super::*;
    use crate::golden;

    fn small() -> StripModelConfig {
        StripModelConfig { features: vec![2, 3, 4] }
    }

    #[test]
    fn the_published_net_has_the_published_parameters_and_values() {
        let device = Device::flex();
        let net = golden::fill(StripModelConfig::default().init(&mut Init::new(0, &device)), &[]);
        assert_eq!(net.num_params(), 2_566_561);
        let x = golden::input([1, 1, 64, 64, 64], &device);
        let probes = [
            (0, 0.029730),
            (1, 0.015226),
            (37449, -0.025217),
            (87381, -0.074366),
            (131_072, 0.056942),
            (218_453, 0.000938),
            (262_143, 0.003773),
        ];
        golden::check(net.forward(x), -0.020_138_2, 0.067_784_9, probes, 1e-4);
    }

    #[test]
    fn slabs_give_the_distances_of_the_whole() {
        let device = Device::flex();
        let net = golden::fill(small().init(&mut Init::new(0, &device)), &[]);
        let x = golden::input([1, 1, 144, 128, 128], &device);
        let whole = net.forward(x.clone()).into_data();
        net.infer(x).into_data().assert_approx_eq::<f32>(&whole, Tolerance::absolute(1e-5));
    }

    #[test]
    fn sizes_that_make_no_net_are_refused() {
        small().validate().unwrap();
        let error = |features| StripModelConfig { features }.validate().unwrap_err().to_string();
        assert_eq!(error(vec![4]), "features = 1 must list the channels of 2 to 8 levels");
        assert_eq!(error(vec![4, 0]), "features[1] = 0 must lie between 1 and 1024");
    }
}
