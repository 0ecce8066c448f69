//! Degradation of training patches to what a reader would call a poor image. Every part is off by
//! default.

use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};
use willis_core::InvalidValue;

use super::sample::LabelledPatch;
use crate::rules::{fraction, non_negative};

/// Probabilities and ranges of the degradations. A probability of 0 switches a part off.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DegradeConfig {
    /// Probability that the contrast between vessels and tissue is reduced.
    pub fade: f64,
    /// Smallest factor on that contrast.
    pub least_contrast: f64,
    /// Probability of a blur that differs between the axes.
    pub blur: f64,
    /// Largest standard deviation of the blur, voxels.
    pub max_blur: f64,
    /// Probability of noise in frequency space: a few waves through the whole patch and
    /// fine-grained correlated noise.
    pub waves: f64,
    /// Largest amplitude of the waves.
    pub max_wave: f64,
    /// Probability that a part of the patch lies outside the field of view.
    pub crop: f64,
}

impl Default for DegradeConfig {
    fn default() -> Self {
        Self { fade: 0.0, least_contrast: 0.35, blur: 0.0, max_blur: 1.0, waves: 0.0, max_wave: 0.06, crop: 0.0 }
    }
}

impl DegradeConfig {
    /// Checks every value.
    ///
    /// # Errors
    /// [`InvalidValue`] names the first value that breaks its rule.
    pub fn validate(&self) -> Result<(), InvalidValue> {
        for (field, probability) in [
            ("fade", self.fade),
            ("least_contrast", self.least_contrast),
            ("blur", self.blur),
            ("waves", self.waves),
            ("crop", self.crop),
        ] {
            fraction(field, probability)?;
        }
        non_negative("max_blur", self.max_blur)?;
        non_negative("max_wave", self.max_wave)
    }

    /// Degrades a patch in place. A part that is off draws no random numbers.
    pub(super) fn apply(&self, patch: &mut LabelledPatch, rng: &mut impl Rng) {
        let happens = |probability: f64, rng: &mut _| probability > 0.0 && chance(probability, rng);
        if happens(self.fade, rng) {
            let factor = self.least_contrast + (1.0 - self.least_contrast) * rng.random::<f64>();
            fade(patch, factor as f32);
        }
        let n = patch.size;
        if happens(self.blur, rng) {
            for axis in 0..3 {
                let sigma = rng.random::<f64>() * self.max_blur;
                blur(&mut patch.channels[..n.pow(3)], n, axis, sigma as f32);
            }
        }
        if happens(self.waves, rng) {
            for _ in 0..1 + (rng.random::<f64>() * 3.0) as usize {
                let amplitude = rng.random::<f64>() * self.max_wave;
                let wave = [(); 3].map(|()| (rng.random::<f64>() - 0.5) * std::f64::consts::TAU * 0.9);
                let phase = rng.random::<f64>() * std::f64::consts::TAU;
                add_wave(&mut patch.channels[..n.pow(3)], n, amplitude as f32, wave.map(|k| k as f32), phase as f32);
            }
        }
        if happens(self.crop, rng) {
            let axis = ((rng.random::<f64>() * 3.0) as usize).min(2);
            let part = 0.1 + 0.3 * rng.random::<f64>();
            let upper = chance(0.5, rng);
            crop(patch, axis, (part * n as f64) as usize, upper);
        }
    }
}

fn chance(probability: f64, rng: &mut (impl Rng + ?Sized)) -> bool {
    rng.random::<f64>() < probability
}

/// Moves vessels towards the mean of everything else. At their border the change is gradual.
fn fade(patch: &mut LabelledPatch, factor: f32) {
    let n = patch.size;
    let vessel = |i: usize| patch.sites[i] != 0 || patch.aneurysm[i] != 0;
    let mut weight: Vec<f32> = (0..n.pow(3)).map(|i| f32::from(u8::from(vessel(i)))).collect();
    let image = &patch.channels[..n.pow(3)];
    let (sum, count) = image
        .iter()
        .zip(&weight)
        .filter(|(_, w)| **w == 0.0)
        .fold((0.0f64, 0.0f64), |(s, c), (v, _)| (s + f64::from(*v), c + 1.0));
    if count == 0.0 {
        return;
    }
    let tissue = (sum / count) as f32;
    (0..3).for_each(|axis| blur(&mut weight, n, axis, 0.7));
    let image = &mut patch.channels[..n.pow(3)];
    image.iter_mut().zip(&weight).for_each(|(v, w)| *v += w * (factor - 1.0) * (*v - tissue));
}

/// Convolves with a Gaussian of up to two voxels along one axis; edge voxels are repeated.
fn blur(image: &mut [f32], n: usize, axis: usize, sigma: f32) {
    if sigma < 0.2 {
        return;
    }
    let side = |k: f32| (-0.5 * (k / sigma).powi(2)).exp();
    let sum = 1.0 + 2.0 * (side(1.0) + side(2.0));
    let taps = [1.0 / sum, side(1.0) / sum, side(2.0) / sum];
    let stride = n.pow(2 - axis as u32);
    let mut line = vec![0.0f32; n + 4];
    for start in (0..image.len()).filter(|i| (i / stride).is_multiple_of(n)) {
        for (k, v) in line.iter_mut().enumerate() {
            let i = k.saturating_sub(2).min(n - 1);
            *v = image[start + i * stride];
        }
        for (i, w) in line.windows(5).enumerate() {
            image[start + i * stride] = taps[0] * w[2] + taps[1] * (w[1] + w[3]) + taps[2] * (w[0] + w[4]);
        }
    }
}

fn add_wave(image: &mut [f32], n: usize, amplitude: f32, wave: [f32; 3], phase: f32) {
    for (row, line) in image.chunks_exact_mut(n).enumerate() {
        let start = wave[0] * (row / n) as f32 + wave[1] * (row % n) as f32 + phase;
        line.iter_mut().enumerate().for_each(|(x, v)| *v += amplitude * (start + wave[2] * x as f32).cos());
    }
}

/// Empties `depth` slices at one end of an axis: the darkest value of the patch, no labels.
fn crop(patch: &mut LabelledPatch, axis: usize, depth: usize, upper: bool) {
    let n = patch.size;
    let stride = n.pow(2 - axis as u32);
    let empty = patch.channels[..n.pow(3)].iter().copied().fold(f32::INFINITY, f32::min);
    for i in 0..n.pow(3) {
        let place = i / stride % n;
        let outside = if upper { place >= n - depth } else { place < depth };
        if outside {
            patch.channels[i] = empty;
            patch.sites[i] = 0;
            patch.aneurysm[i] = 0;
            patch.tube[i] = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    /// A bright tube along x in a dark patch.
    fn patch() -> LabelledPatch {
        let mut patch = LabelledPatch::empty(16);
        for z in 7..9 {
            for y in 7..9 {
                for x in 0..16 {
                    let i = (z * 16 + y) * 16 + x;
                    (patch.channels[i], patch.sites[i]) = (1.0, 5);
                }
            }
        }
        patch
    }

    #[test]
    fn nothing_changes_and_nothing_is_drawn_by_default() {
        let (mut degraded, mut rng) = (patch(), ChaCha8Rng::seed_from_u64(3));
        DegradeConfig::default().apply(&mut degraded, &mut rng);
        assert_eq!(degraded, patch());
        assert_eq!(rng.random::<u64>(), ChaCha8Rng::seed_from_u64(3).random::<u64>());
    }

    #[test]
    fn fading_moves_vessels_towards_tissue_and_leaves_the_rest() {
        let mut faded = patch();
        fade(&mut faded, 0.5);
        let inside = (7 * 16 + 7) * 16 + 8;
        assert!(faded.channels[inside] < 0.95 && faded.channels[inside] > 0.45);
        assert_eq!(faded.channels[0], 0.0);
    }

    #[test]
    fn blur_keeps_constants_and_sums() {
        let mut flat = vec![2.0; 4096];
        blur(&mut flat, 16, 1, 1.0);
        assert!(flat.iter().all(|v| (v - 2.0).abs() < 1e-5));
        let mut point = vec![0.0; 4096];
        point[(8 * 16 + 8) * 16 + 8] = 1.0;
        (0..3).for_each(|axis| blur(&mut point, 16, axis, 0.8));
        assert!((point.iter().sum::<f32>() - 1.0).abs() < 1e-4 && point[(8 * 16 + 8) * 16 + 8] < 0.3);
    }

    #[test]
    fn cropping_removes_labels_with_the_image() {
        let mut cropped = patch();
        crop(&mut cropped, 2, 4, true);
        let labelled = |patch: &LabelledPatch| patch.sites.iter().filter(|s| **s != 0).count();
        assert_eq!(labelled(&cropped), labelled(&patch()) * 12 / 16);
        assert_eq!(cropped.channels[(7 * 16 + 7) * 16 + 15], 0.0);
    }

    #[test]
    fn invalid_values_are_named() {
        let config = DegradeConfig { fade: 1.5, ..DegradeConfig::default() };
        assert_eq!(config.validate().expect_err("too large").to_string(), "fade = 1.5 must lie between 0 and 1");
    }
}
