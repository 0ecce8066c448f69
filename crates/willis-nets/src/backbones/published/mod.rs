//! Published backbones under the names of their official state dicts, for `willis net`.

pub mod state_dict;

use burn::tensor::{Device, Tensor, TensorData};
use willis_core::InvalidValue;

use super::{Backbone, BackboneConfig};
use crate::layers::Init;
use crate::weights::{Mismatch, Weights, WeightsError};

/// Longest side of a cube, voxels.
const MAX_SIDE: usize = 512;

/// A backbone whose weights have the names of the official state dict.
#[derive(Debug)]
pub struct PublishedBackbone {
    config: BackboneConfig,
    net: Backbone,
}

impl PublishedBackbone {
    /// A net with initial parameters.
    ///
    /// # Errors
    /// the first size that no net has
    pub fn new(config: BackboneConfig, seed: u64, device: &Device) -> Result<Self, InvalidValue> {
        config.validate()?;
        let net = config.init(&mut Init::new(seed, device));
        Ok(Self { config, net })
    }

    /// Logits of plain values on the CPU, with their shape.
    ///
    /// # Shapes
    /// `[B, in_channels, D, H, W]` -> `[B, num_classes, D, H, W]`
    ///
    /// # Panics
    /// if the values do not fill the shape, or the net does not take it (programmer error)
    pub fn logits(&self, shape: [usize; 5], values: Vec<f32>) -> ([usize; 5], Vec<f32>) {
        let x = Tensor::from_data(TensorData::new(values, shape), &crate::ops::cpu());
        let logits = self.forward(x);
        (logits.dims(), logits.into_data().convert::<f32>().try_to_vec().expect("data was just converted to f32"))
    }

    /// Logits; see [`Backbone::forward`].
    pub fn forward(&self, x: Tensor<5>) -> Tensor<5> {
        self.net.forward(x)
    }

    /// Parameters and stored statistics under the official names.
    pub fn weights(&self) -> Weights {
        let names = self.config.official_names();
        let names: Vec<(&str, &str)> =
            names.iter().map(|(ours, official)| (ours.as_str(), official.as_str())).collect();
        Weights::of(&self.net).under(self.config.kind().variant()).renamed(&names)
    }

    /// The net with a checkpoint's weights, given under the official names.
    ///
    /// # Errors
    /// [`WeightsError::Mismatch`] lists every tensor that is missing, unexpected or misshapen
    pub fn with_weights(self, checkpoint: Weights) -> Result<Self, WeightsError> {
        let weights = self.config.canonical(checkpoint);
        let mismatch = Mismatch::between(&self.weights(), &weights);
        if !mismatch.is_empty() {
            return Err(mismatch.into());
        }
        let names = self.config.official_names();
        let names: Vec<(&str, &str)> =
            names.iter().map(|(ours, official)| (official.as_str(), ours.as_str())).collect();
        let weights = weights.renamed(&names).renamed(&[("", self.config.kind().variant())]);
        Ok(Self { net: weights.apply(self.net)?, config: self.config })
    }
}

/// The configuration for cubes of `side` voxels.
///
/// # Errors
/// a side that the net does not take
pub fn for_cubes(config: BackboneConfig, side: usize) -> Result<BackboneConfig, InvalidValue> {
    let stride = config.coarsest_stride();
    if side == 0 || side > MAX_SIDE || !side.is_multiple_of(stride) {
        return Err(InvalidValue::new(
            "size",
            side,
            format!("must be a multiple of {stride} between {stride} and {MAX_SIDE}"),
        ));
    }
    Ok(config.with_window([side; 3]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backbones::BackboneKind;

    fn small(kind: BackboneKind, seed: u64) -> PublishedBackbone {
        let mut config = for_cubes(kind.published(), 32).unwrap();
        if let BackboneConfig::WaveFormer(config) = &mut config {
            config.hf_refinement = willis_core::Switch::On;
        }
        PublishedBackbone::new(config, seed, &Device::flex()).unwrap()
    }

    #[test]
    fn weights_round_trip_under_official_names() {
        for kind in BackboneKind::ALL {
            let weights = small(kind, 1).weights();
            let again = small(kind, 2).with_weights(weights.clone()).unwrap().weights();
            assert_eq!(again, weights, "{}", kind.name());
        }
    }

    #[test]
    fn weights_of_another_net_are_refused_with_every_difference() {
        let weights = small(BackboneKind::SegFormer3d, 1).weights();
        let error = small(BackboneKind::WaveFormer, 1).with_weights(weights).unwrap_err();
        let WeightsError::Mismatch { mismatch } = error else { panic!("{error}") };
        assert!(mismatch.missing.len() > 100 && mismatch.unexpected.len() > 100);
    }

    #[test]
    fn sides_that_the_net_does_not_take_are_refused() {
        for side in [0, 20, 1 << 40] {
            let error = for_cubes(BackboneKind::WaveFormer.published(), side).unwrap_err();
            assert_eq!(error.to_string(), format!("size = {side} must be a multiple of 16 between 16 and 512"));
        }
        assert!(for_cubes(BackboneKind::SegFormer3d.published(), 48).is_err());
    }
}
