//! Random augmentation of labelled candidates.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use willis_core::InvalidValue;

use super::condition::{CONDITIONS, mirrored};
use super::data::{CandidateTruth, Example, STORED_SIDE};
use super::patch::{SIDE, STORED_CHANNELS, with_distances};
use crate::rules::{fraction, non_negative, require};

/// Margin around the net's patch in a stored patch: the largest shift, voxels.
const MARGIN: usize = (STORED_SIDE - SIDE) / 2;

/// Probabilities and ranges of the augmentations.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ExamineAugmentConfig {
    /// Probability that left and right are exchanged.
    pub mirror: f32,
    /// Largest shift along each axis, voxels, at most 4.
    pub shift_vox: usize,
    /// Largest relative change of the contrast.
    pub scale: f32,
    /// Largest shift of all intensities.
    pub raise: f32,
    /// Largest standard deviation of the noise on intensities.
    pub noise: f32,
    /// Probability that the aneurysm channel is set to 0, so that the classifier does not depend on
    /// it alone.
    pub blank_aneurysm: f32,
    /// Probability that the condition is set to 0.
    pub blank_condition: f32,
}

impl Default for ExamineAugmentConfig {
    fn default() -> Self {
        Self {
            mirror: 0.5,
            shift_vox: 3,
            scale: 0.15,
            raise: 0.1,
            noise: 0.08,
            blank_aneurysm: 0.15,
            blank_condition: 0.1,
        }
    }
}

impl ExamineAugmentConfig {
    /// No augmentation.
    pub const NONE: Self = Self {
        mirror: 0.0,
        shift_vox: 0,
        scale: 0.0,
        raise: 0.0,
        noise: 0.0,
        blank_aneurysm: 0.0,
        blank_condition: 0.0,
    };

    /// Checks every value.
    ///
    /// # Errors
    /// [`InvalidValue`] names the first value that breaks its rule.
    pub fn validate(&self) -> Result<(), InvalidValue> {
        fraction("mirror", self.mirror)?;
        let rule = format!("exceeds the margin of a stored patch, {MARGIN} voxels");
        require("shift_vox", self.shift_vox, self.shift_vox <= MARGIN, &rule)?;
        non_negative("scale", self.scale)?;
        non_negative("raise", self.raise)?;
        non_negative("noise", self.noise)?;
        fraction("blank_aneurysm", self.blank_aneurysm)?;
        fraction("blank_condition", self.blank_condition)
    }
}

/// An augmented example, in the form of the net's input.
#[derive(Debug, Clone, PartialEq)]
pub struct AugmentedExample {
    /// `[5, 48, 48, 48]`.
    pub channels: Vec<f32>,
    /// `[31]`.
    pub condition: [f32; CONDITIONS],
    /// Labels of the augmented example.
    pub truth: CandidateTruth,
}

/// Augments an example; its labels follow the shift and the mirroring.
///
/// # Panics
/// if the shift exceeds the margin of a stored patch (programmer error).
pub fn augment(example: &Example, config: &ExamineAugmentConfig, rng: &mut ChaCha8Rng) -> AugmentedExample {
    let chance = |p: f32, rng: &mut ChaCha8Rng| rng.random::<f32>() < p;
    let symmetric = |limit: f32, rng: &mut ChaCha8Rng| limit * (2.0 * rng.random::<f32>() - 1.0);
    let shift = config.shift_vox;
    let start: [usize; 3] = std::array::from_fn(|_| MARGIN - shift + rng.random_range(0..2 * shift + 1));
    let mirror = chance(config.mirror, rng);
    let mut truth = example.truth;
    if truth.site.is_some() {
        for (offset, start) in truth.offset_vox.iter_mut().zip(start) {
            *offset += MARGIN as f32 - start as f32;
        }
        if mirror {
            // Voxel i becomes voxel 47 - i, and the central voxel is 24, not 23.5.
            truth.offset_vox[2] = -1.0 - truth.offset_vox[2];
            truth.site = truth.site.map(|site| site.mirror());
        }
    }
    let mut channels = crop(example, start, mirror);
    let voxels = SIDE.pow(3);
    let (scale, raise) = (1.0 + symmetric(config.scale, rng), symmetric(config.raise, rng));
    let noise = config.noise * rng.random::<f32>();
    for value in &mut channels[..voxels] {
        *value = *value * scale + raise;
        if noise > 0.0 {
            // The sum of two uniform numbers has standard deviation 1/√6.
            *value += noise * 2.449_49 * (rng.random::<f32>() + rng.random::<f32>() - 1.0);
        }
    }
    if chance(config.blank_aneurysm, rng) {
        channels[2 * voxels..].fill(0.0);
    }
    let condition = if chance(config.blank_condition, rng) {
        [0.0; CONDITIONS]
    } else if mirror {
        mirrored(example.condition)
    } else {
        example.condition
    };
    let spacing_mm = example.spacing_mm.map(f64::from);
    AugmentedExample { channels: with_distances(channels, spacing_mm), condition, truth }
}

/// Crops `[3, 48, 48, 48]` from `start`, and reverses its x axis if mirrored.
fn crop(example: &Example, start: [usize; 3], mirror: bool) -> Vec<f32> {
    let mut channels = Vec::with_capacity(STORED_CHANNELS * SIDE.pow(3));
    for plane in example.values.chunks_exact(STORED_SIDE * STORED_SIDE).enumerate() {
        let (z, plane) = (plane.0 % STORED_SIDE, plane.1);
        if !(start[0]..start[0] + SIDE).contains(&z) {
            continue;
        }
        for y in start[1]..start[1] + SIDE {
            let row = &plane[y * STORED_SIDE + start[2]..][..SIDE];
            if mirror {
                channels.extend(row.iter().rev().map(|v| v.to_f32()));
            } else {
                channels.extend(row.iter().map(|v| v.to_f32()));
            }
        }
    }
    channels
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::f16;
    use rand::SeedableRng;
    use willis_core::Site;

    /// An example whose lesion is one bright voxel of the stored patch.
    fn example(place: [usize; 3]) -> Example {
        let mut values = vec![f16::ZERO; STORED_CHANNELS * STORED_SIDE.pow(3)];
        values[(place[0] * STORED_SIDE + place[1]) * STORED_SIDE + place[2]] = f16::ONE;
        let offset_vox = place.map(|v| v as f32 - (STORED_SIDE / 2) as f32);
        let truth = CandidateTruth { site: Some(Site::LeftMca), offset_vox, log_diameter: 1.0, hit: true };
        Example { values, condition: [0.0; CONDITIONS], spacing_mm: [0.8; 3], truth }
    }

    #[test]
    fn the_labels_move_with_the_voxels() {
        let example = example([30, 26, 33]);
        let config = ExamineAugmentConfig { mirror: 0.5, shift_vox: 4, ..ExamineAugmentConfig::NONE };
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut sides = [0; 2];
        for _ in 0..16 {
            let sample = augment(&example, &config, &mut rng);
            let brightest = sample.channels[..SIDE.pow(3)].iter().position(|&v| v == 1.0).unwrap();
            let place = [brightest / SIDE / SIDE, brightest / SIDE % SIDE, brightest % SIDE];
            assert_eq!(sample.truth.offset_vox, place.map(|v| v as f32 - (SIDE / 2) as f32));
            sides[usize::from(sample.truth.site == Some(Site::RightMca))] += 1;
        }
        assert!(sides[0] > 0 && sides[1] > 0);
    }

    #[test]
    fn invalid_values_are_named() {
        ExamineAugmentConfig::default().validate().unwrap();
        let config = ExamineAugmentConfig { shift_vox: 5, ..ExamineAugmentConfig::NONE };
        let message = "shift_vox = 5 exceeds the margin of a stored patch, 4 voxels";
        assert_eq!(config.validate().unwrap_err().to_string(), message);
    }

    #[test]
    fn without_augmentation_the_centre_of_the_stored_patch_is_cropped() {
        let sample = augment(&example([28, 28, 28]), &ExamineAugmentConfig::NONE, &mut ChaCha8Rng::seed_from_u64(2));
        assert_eq!(sample.channels[((SIDE / 2) * SIDE + SIDE / 2) * SIDE + SIDE / 2], 1.0);
        assert_eq!(sample.truth.offset_vox, [0.0; 3]);
    }
}
