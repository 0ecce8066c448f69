//! The generator: a label map becomes an image that no scanner has made, with its truth.
//!
//! Order of steps: deformation of the labels; vessels and a tumour; brightness per class; bias
//! field; blur; thick slices; noise; cropping; normalisation as in inference; gamma.
//!
//! # Source
//! Hoopes et al. 2022, section 2.2; the order is that of the authors' later public code. We differ:
//! soft tissue is painted in parts, half of the contrasts resemble real ones, and vessels and
//! tumours are added.

use rand_chacha::ChaCha8Rng;

use super::config::HeadGeneratorConfig;
use super::contrast::{CLASSES, Contrast, HeadClass, SOFT_PARTS};
use super::distort::{Pose, add_tumour, add_vessels, blur, thicken};
use super::fields::{Variates, smooth_field};
use super::infer::normalise;
use super::labels::LabelledHead;

/// Distance between the control points of the texture of soft tissue, mm.
const TEXTURE_MM: f64 = 8.0;

/// A generated image and its truth, `[D, H, W]` with axes to Left, Inferior and Anterior.
#[derive(Debug, Clone)]
pub struct GeneratedHead {
    /// Voxels along each axis.
    pub shape: [usize; 3],
    /// Image, normalised as in inference.
    pub image: Vec<f32>,
    /// Signed distance from the surface of the brain, mm, negative inside.
    pub distance_mm: Vec<f32>,
    /// 1 where the scan has voxels, 0 where it was cropped.
    pub inside: Vec<f32>,
}

/// Makes images from label maps at one spacing.
#[derive(Debug, Clone)]
pub struct HeadGenerator<'a> {
    heads: &'a [LabelledHead],
    spacing_mm: f64,
    config: &'a HeadGeneratorConfig,
}

impl<'a> HeadGenerator<'a> {
    /// A generator of these heads.
    ///
    /// # Panics
    /// if there is no head (programmer error)
    pub fn new(heads: &'a [LabelledHead], spacing_mm: f64, config: &'a HeadGeneratorConfig) -> Self {
        assert!(!heads.is_empty(), "the generator needs a head");
        Self { heads, spacing_mm, config }
    }

    /// The image of a stream of random numbers.
    pub fn draw(&self, rng: &mut ChaCha8Rng) -> GeneratedHead {
        let config = self.config;
        let head = &self.heads[rng.below(self.heads.len())];
        let shape = config.patch;
        let (mut classes, distance_mm) = Pose::draw(head, self.spacing_mm, config, rng).apply(head, shape, rng);
        let count = rng.below(config.vessels + 1);
        add_vessels(&mut classes, shape, self.spacing_mm, count, rng);
        if rng.chance(config.tumour_share) {
            add_tumour(&mut classes, shape, self.spacing_mm, rng);
        }
        let mut image = self.paint(&classes, rng);
        blur(&mut image, shape, rng.uniform(0.0, config.blur_vox) as f32);
        if rng.chance(config.thick_share) {
            let slices = (rng.uniform(1.0, config.thickest_mm.max(1.0)) / self.spacing_mm).round() as usize;
            thicken(&mut image, shape, rng.below(3), slices);
        }
        let noise = (rng.uniform(0.0, 1.0).powi(2) * config.noise) as f32;
        if noise > 0.0 && rng.chance(0.7) {
            // A magnitude is never negative.
            image.iter_mut().for_each(|v| *v = (*v + noise * rng.normal() as f32).abs());
        }
        let inside = self.field_of_view(rng);
        image.iter_mut().zip(&inside).for_each(|(value, inside)| *value *= inside);
        normalise(&mut image);
        let exponent = rng.uniform(-config.gamma, config.gamma).exp() as f32;
        image.iter_mut().for_each(|v| *v = v.powf(exponent));
        GeneratedHead { shape, image, distance_mm, inside }
    }

    /// Brightness of every voxel, times a bias field.
    fn paint(&self, classes: &[u8], rng: &mut ChaCha8Rng) -> Vec<f32> {
        let (config, shape) = (self.config, self.config.patch);
        let contrast = Contrast::draw(config.plausible_share, config.class_deviation, rng);
        let texture = smooth_field(shape, TEXTURE_MM / self.spacing_mm, 1.0, rng);
        let bias_mm = 4.0 * 16f64.powf(rng.uniform(0.0, 1.0));
        let bias = smooth_field(shape, bias_mm / self.spacing_mm, rng.uniform(0.0, config.bias), rng);
        let brightness = |((&class, &texture), &bias): ((&u8, &f32), &f32)| {
            let class = usize::from(class);
            let mean = if class == HeadClass::Soft as usize {
                contrast.soft[((texture * 1.5 + 1.5).clamp(0.0, 2.9)) as usize % SOFT_PARTS]
            } else {
                contrast.mean[class % CLASSES]
            };
            (mean + contrast.deviation[class] * rng.normal() as f32).max(0.0) * bias.exp()
        };
        classes.iter().zip(&texture).zip(&bias).map(brightness).collect()
    }

    /// 1 in the field of view, 0 in what was cropped.
    fn field_of_view(&self, rng: &mut ChaCha8Rng) -> Vec<f32> {
        let shape = self.config.patch;
        let mut kept = shape.map(|side| 0..side);
        for range in &mut kept {
            if rng.chance(self.config.crop_share) {
                let cut = ((rng.uniform(0.0, self.config.crop_mm) / self.spacing_mm) as usize).min(range.len() - 1);
                *range = if rng.chance(0.5) { cut..range.end } else { 0..range.end - cut };
            }
        }
        let [z, y, x] = kept;
        let mut inside = vec![0.0; shape.iter().product()];
        for row in z.flat_map(|z| y.clone().map(move |y| z * shape[1] + y)) {
            inside[row * shape[2]..][x.clone()].fill(1.0);
        }
        inside
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::super::labels::tests::cube;
    use super::*;

    fn config() -> HeadGeneratorConfig {
        HeadGeneratorConfig { patch: [16, 16, 24], ..HeadGeneratorConfig::default() }
    }

    fn draw(config: &HeadGeneratorConfig, seed: u64) -> GeneratedHead {
        let heads = [LabelledHead::new(&cube(32)).unwrap()];
        HeadGenerator::new(&heads, 2.0, config).draw(&mut ChaCha8Rng::seed_from_u64(seed))
    }

    #[test]
    fn a_stream_makes_one_image() {
        let (a, b, c) = (draw(&config(), 1), draw(&config(), 1), draw(&config(), 2));
        assert!(a.image == b.image && a.distance_mm == b.distance_mm);
        assert!(a.image != c.image && a.distance_mm != c.distance_mm);
        assert_eq!([a.image.len(), a.distance_mm.len(), a.inside.len()], [16 * 16 * 24; 3]);
        assert!(a.image.iter().all(|v| (0.0..=1.0).contains(v)));
    }

    #[test]
    fn the_undeformed_head_has_its_own_distances() {
        let still = HeadGeneratorConfig {
            shift_mm: 0.0,
            rotation_deg: 0.0,
            scale: 0.0,
            deformation_mm: 0.0,
            crop_share: 0.0,
            ..config()
        };
        let head = draw(&still, 3);
        // The cube of brain is 16 mm wide, and the voxels are 2 mm apart.
        let inside = head.distance_mm.iter().filter(|&&d| d < 0.0).count();
        assert_eq!(inside, 8 * 8 * 8);
        assert!(head.inside.iter().all(|&v| v == 1.0));
    }

    #[test]
    fn cropping_removes_whole_slices() {
        let head = draw(&HeadGeneratorConfig { crop_share: 1.0, ..config() }, 5);
        assert!(head.inside.contains(&0.0) && head.inside.contains(&1.0));
        assert!(head.image.iter().zip(&head.inside).all(|(v, inside)| *inside == 1.0 || *v == 0.0));
    }
}
