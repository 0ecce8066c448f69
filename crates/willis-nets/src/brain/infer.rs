//! The trained net: from an image on the net's grid to distances.

use burn::tensor::{Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use super::net::{StripModel, StripModelConfig};
use crate::layers::Init;
use crate::ops::cpu;
use crate::weights::{Weights, WeightsError};

/// Percentile of an image that becomes 1.
const WHITE_PERCENTILE: f64 = 0.99;

/// Sizes of a net and the grid that it works on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BrainNetConfig {
    /// The net.
    pub model: StripModelConfig,
    /// Distance between voxels along every axis, mm.
    pub spacing_mm: f64,
}

impl Default for BrainNetConfig {
    /// The published net.
    fn default() -> Self {
        Self { model: StripModelConfig::default(), spacing_mm: 1.0 }
    }
}

/// A trained [`StripModel`] with its grid.
#[derive(Debug)]
pub struct BrainNet {
    model: StripModel,
    config: BrainNetConfig,
}

/// Maps an image to 0 to 1 in place: the minimum to 0, the 99th percentile of all voxels, padding
/// included, to 1.
///
/// The percentile interpolates between order statistics. A constant image becomes 0.
pub fn normalise(image: &mut [f32]) {
    let lowest = image.iter().copied().fold(f32::INFINITY, f32::min);
    image.iter_mut().for_each(|v| *v -= lowest);
    let white = percentile(image, WHITE_PERCENTILE);
    let scale = if white > 0.0 { 1.0 / white } else { 0.0 };
    image.iter_mut().for_each(|v| *v = (*v * scale).clamp(0.0, 1.0));
}

/// Linear interpolation between order statistics, as NumPy's default.
fn percentile(values: &[f32], fraction: f64) -> f32 {
    let Some(last) = values.len().checked_sub(1) else { return 0.0 };
    let position = fraction * last as f64;
    let low = position as usize;
    let mut sorted = values.to_vec();
    let (_, &mut at, above) = sorted.select_nth_unstable_by(low, f32::total_cmp);
    let next = above.iter().copied().fold(f32::INFINITY, f32::min);
    if next.is_finite() { at + (next - at) * (position - low as f64) as f32 } else { at }
}

impl BrainNet {
    /// Revision of what the net computes from its parameters, which weights files name.
    pub const REVISION: &str = "1";

    /// A net of this model.
    pub fn new(model: StripModel, config: BrainNetConfig) -> Self {
        Self { model, config }
    }

    /// The net of a weights file of `willis train brain`, on the CPU.
    ///
    /// # Errors
    /// [`WeightsError`] when the bytes are not a safetensors file, its metadata lacks the
    /// configuration or has another revision, or the weights do not fit the configuration.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, WeightsError> {
        let weights = Weights::from_bytes(bytes)?;
        weights.check_revision(Self::REVISION)?;
        let config: BrainNetConfig = weights.config()?;
        config.model.validate().map_err(|_| WeightsError::Configuration { source: None })?;
        Ok(Self { model: weights.apply(fresh(&config))?, config })
    }

    /// A net with initial parameters, on the CPU.
    ///
    /// # Panics
    /// if the configuration is invalid (programmer error)
    pub fn untrained(config: BrainNetConfig) -> Self {
        Self { model: fresh(&config), config }
    }

    /// The same net with the tensors of a state dict under FreeSurfer's names.
    ///
    /// # Errors
    /// [`WeightsError::Mismatch`] lists every tensor that is missing, unexpected or misshapen
    pub fn with_weights(self, state_dict: Weights) -> Result<Self, WeightsError> {
        Ok(Self { model: state_dict.apply(self.model)?, config: self.config })
    }

    /// Sizes and grid.
    pub fn config(&self) -> &BrainNetConfig {
        &self.config
    }

    /// Parameters, with configuration and revision in the metadata.
    pub fn weights(&self) -> Weights {
        Weights::of(&self.model).described(&self.config, Self::REVISION)
    }

    /// Signed distance from the surface of the brain, mm, negative inside.
    ///
    /// # Shapes
    /// image `[D, H, W]` after [`normalise`], axes to Left, Inferior and Anterior, every side a
    /// multiple of [`StripModelConfig::multiple`] -> `[D, H, W]`
    pub fn distances_mm(&self, image: Vec<f32>, [depth, height, width]: [usize; 3]) -> Vec<f32> {
        let x = Tensor::from_data(TensorData::new(image, [1, 1, depth, height, width]), &cpu());
        let distances = self.model.infer(x) * self.config.spacing_mm;
        distances.into_data().convert::<f32>().try_to_vec().expect("data was just converted to f32")
    }

    /// As [`Self::distances_mm`], the mean over the image and its mirror image, left for right.
    ///
    /// The net is trained on both sides alike, so that where the two differ is error.
    pub fn symmetric_distances_mm(&self, image: Vec<f32>, shape: [usize; 3]) -> Vec<f32> {
        let mirrored = mirrored(&image, shape);
        let mut distances = self.distances_mm(image, shape);
        let others = self.distances_mm(mirrored, shape);
        distances.iter_mut().zip(self::mirrored(&others, shape)).for_each(|(mm, other)| *mm = 0.5 * (*mm + other));
        distances
    }
}

/// The image with its first axis reversed, which runs to Left.
fn mirrored(image: &[f32], [depth, height, width]: [usize; 3]) -> Vec<f32> {
    debug_assert_eq!(image.len(), depth * height * width);
    image.chunks(height * width).rev().flatten().copied().collect()
}

fn fresh(config: &BrainNetConfig) -> StripModel {
    config.model.init(&mut Init::new(0, &Device::flex()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::Precision;

    #[test]
    fn percentiles_are_those_of_numpy() {
        // numpy.percentile([5, 1, 4, 2, 3], [99, 50, 30]) = 4.96, 3.0, 2.2
        for (fraction, expected) in [(0.99, 4.96), (0.5, 3.0), (0.3, 2.2), (1.0, 5.0)] {
            assert!((percentile(&[5.0, 1.0, 4.0, 2.0, 3.0], fraction) - expected).abs() < 1e-6);
        }
        let mut image = vec![-1.0, 0.0, 1.0, 3.0];
        normalise(&mut image);
        assert!(image[0] == 0.0 && (image[1] - 1.0 / 3.94).abs() < 1e-6 && image[3] == 1.0, "{image:?}");
        let mut flat = vec![7.0; 4];
        normalise(&mut flat);
        assert_eq!(flat, [0.0; 4]);
    }

    #[test]
    fn files_keep_net_and_grid() {
        let config = BrainNetConfig { model: StripModelConfig { features: vec![2, 3] }, spacing_mm: 2.0 };
        let net = BrainNet::new(config.model.init(&mut Init::new(4, &Device::flex())), config);
        let again = BrainNet::from_bytes(&net.weights().to_bytes(Precision::F32)).unwrap();
        assert_eq!(again.config(), net.config());
        let image: Vec<f32> = (0..64).map(|v| v as f32 / 64.0).collect();
        assert_eq!(again.distances_mm(image.clone(), [4; 3]), net.distances_mm(image.clone(), [4; 3]));
        // The mean of both sides is the same for a head and its mirror image.
        let both = net.symmetric_distances_mm(image.clone(), [4; 3]);
        assert_ne!(both, net.distances_mm(image.clone(), [4; 3]));
        assert_eq!(mirrored(&both, [4; 3]), net.symmetric_distances_mm(mirrored(&image, [4; 3]), [4; 3]));
        let published = BrainNet::untrained(BrainNetConfig::default());
        assert!(published.with_weights(net.weights()).is_err());
    }
}
