//! Random changes of an example that keep its truth.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::condition::{CONDITIONS, mirrored};
use super::data::{Example, STORED_SIDE, Truth};
use super::net::SIDE;
use super::patch::{STORED_CHANNELS, with_distances};

/// How strongly examples are changed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AugmentConfig {
    /// Probability of mirroring left and right.
    pub mirror: f32,
    /// Largest shift along each axis, voxels; at most 4.
    pub shift_vox: usize,
    /// Intensities are multiplied by up to this more or less.
    pub scale: f32,
    /// Intensities are raised or lowered by up to this.
    pub raise: f32,
    /// Largest deviation of the noise on intensities.
    pub noise: f32,
    /// Probability that the aneurysm channel is empty, so that the classifier has eyes of its own.
    pub blank_aneurysm: f32,
    /// Probability that nothing is known of the series.
    pub blank_condition: f32,
}

impl Default for AugmentConfig {
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

impl AugmentConfig {
    /// No change at all.
    pub const NONE: Self = Self {
        mirror: 0.0,
        shift_vox: 0,
        scale: 0.0,
        raise: 0.0,
        noise: 0.0,
        blank_aneurysm: 0.0,
        blank_condition: 0.0,
    };
}

/// An example as the net takes it.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// `[5, 48, 48, 48]`.
    pub channels: Vec<f32>,
    /// `[31]`.
    pub condition: [f32; CONDITIONS],
    /// The truth, after the changes.
    pub truth: Truth,
}

/// A changed copy of an example.
pub fn augment(example: &Example, config: &AugmentConfig, rng: &mut ChaCha8Rng) -> Sample {
    const ROOM: usize = (STORED_SIDE - SIDE) / 2;
    let chance = |p: f32, rng: &mut ChaCha8Rng| rng.random::<f32>() < p;
    let around = |reach: f32, rng: &mut ChaCha8Rng| reach * (2.0 * rng.random::<f32>() - 1.0);
    let shift = config.shift_vox.min(ROOM);
    let start: [usize; 3] = std::array::from_fn(|_| ROOM - shift + rng.random_range(0..2 * shift + 1));
    let mirror = chance(config.mirror, rng);
    let mut truth = example.truth;
    if truth.site.is_some() {
        for (offset, start) in truth.offset_vox.iter_mut().zip(start) {
            *offset += ROOM as f32 - start as f32;
        }
        if mirror {
            // Voxel i becomes 47 - i; the middle voxel is 24, not 23.5.
            truth.offset_vox[2] = -1.0 - truth.offset_vox[2];
            truth.site = truth.site.map(|site| site.mirror());
        }
    }
    let mut channels = crop(example, start, mirror);
    let voxels = SIDE.pow(3);
    let (scale, raise) = (1.0 + around(config.scale, rng), around(config.raise, rng));
    let noise = config.noise * rng.random::<f32>();
    for value in &mut channels[..voxels] {
        *value = *value * scale + raise;
        if noise > 0.0 {
            // The sum of two uniforms has deviation 1/√6.
            *value += noise * 2.449_49 * (rng.random::<f32>() + rng.random::<f32>() - 1.0);
        }
    }
    if chance(config.blank_aneurysm, rng) {
        channels[2 * voxels..].fill(0.0);
    }
    let condition = match (chance(config.blank_condition, rng), mirror) {
        (true, _) => [0.0; CONDITIONS],
        (false, true) => mirrored(example.condition),
        (false, false) => example.condition,
    };
    let spacing_mm = example.spacing_mm.map(f64::from);
    Sample { channels: with_distances(channels, spacing_mm), condition, truth }
}

/// The cube at a start, `[3, 48, 48, 48]`, its x axis reversed when mirrored.
fn crop(example: &Example, start: [usize; 3], mirror: bool) -> Vec<f32> {
    let mut channels = Vec::with_capacity(STORED_CHANNELS * SIDE.pow(3));
    for plane in example.values.chunks_exact(STORED_SIDE * STORED_SIDE).enumerate() {
        let (z, plane) = (plane.0 % STORED_SIDE, plane.1);
        if !(start[0]..start[0] + SIDE).contains(&z) {
            continue;
        }
        for y in start[1]..start[1] + SIDE {
            let row = &plane[y * STORED_SIDE + start[2]..][..SIDE];
            match mirror {
                true => channels.extend(row.iter().rev().map(|v| v.to_f32())),
                false => channels.extend(row.iter().map(|v| v.to_f32())),
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

    /// One bright voxel at a place of the stored patch, marked as a lesion.
    fn example(place: [usize; 3]) -> Example {
        let mut values = vec![f16::ZERO; STORED_CHANNELS * STORED_SIDE.pow(3)];
        values[(place[0] * STORED_SIDE + place[1]) * STORED_SIDE + place[2]] = f16::ONE;
        let offset_vox = place.map(|v| v as f32 - (STORED_SIDE / 2) as f32);
        let truth = Truth { site: Some(Site::LeftMca), offset_vox, log_diameter: 1.0, hit: true };
        Example { values, condition: [0.0; CONDITIONS], spacing_mm: [0.8; 3], truth }
    }

    #[test]
    fn the_truth_moves_with_the_voxels() {
        let example = example([30, 26, 33]);
        let config = AugmentConfig { mirror: 0.5, shift_vox: 4, ..AugmentConfig::NONE };
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
    fn no_change_is_the_middle_of_the_stored_patch() {
        let sample = augment(&example([28, 28, 28]), &AugmentConfig::NONE, &mut ChaCha8Rng::seed_from_u64(2));
        assert_eq!(sample.channels[((SIDE / 2) * SIDE + SIDE / 2) * SIDE + SIDE / 2], 1.0);
        assert_eq!(sample.truth.offset_vox, [0.0; 3]);
    }
}
