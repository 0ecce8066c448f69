//! Classes of tissue, their numbers in label maps, and their brightness in images.

use rand_chacha::ChaCha8Rng;

use super::fields::Variates;

/// Tissues that have one brightness in a generated image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum HeadClass {
    /// Air around the head.
    Outside,
    /// White matter, brain stem.
    White,
    /// Cerebral and cerebellar cortex.
    Cortex,
    /// Deep grey nuclei.
    DeepGrey,
    /// Cerebrospinal fluid.
    Csf,
    /// Blood in a vessel.
    Vessel,
    /// Compact bone.
    Bone,
    /// Spongy bone.
    Marrow,
    /// Muscle and fat that the label map does not tell apart.
    Soft,
    /// Fat.
    Fat,
    /// Muscle.
    Muscle,
    /// Skin.
    Skin,
    /// Eyeball.
    Eye,
    /// Air inside the head.
    Air,
    /// Tumour or lesion.
    Tumour,
    /// Optic nerve, spinal cord.
    Nerve,
}

/// Number of classes.
pub(super) const CLASSES: usize = HeadClass::Nerve as usize + 1;

/// Meaning of a number in a label map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Label {
    pub class: HeadClass,
    /// Whether the voxel belongs to the brain or the fluid in and around it.
    pub brain: bool,
}

/// Meaning of a number of FreeSurfer's colour table, or of the classes beyond the brain (501 to
/// 530) in SynthSeg's training maps; `None` if it is unknown.
pub(super) fn label_of(number: u16) -> Option<Label> {
    use HeadClass::{
        Air, Bone, Cortex, Csf, DeepGrey, Eye, Fat, Marrow, Muscle, Nerve, Outside, Skin, Soft, Tumour, Vessel, White,
    };
    let (class, brain) = match number {
        0 => (Outside, false),
        2 | 7 | 16 | 28 | 41 | 46 | 60 | 77 | 85 | 251..=255 => (White, true),
        3 | 8 | 42 | 47 | 1000..=2999 => (Cortex, true),
        10..=13 | 17 | 18 | 26 | 49..=54 | 58 | 136..=139 | 163 | 164 => (DeepGrey, true),
        31 | 63 => (DeepGrey, true),
        4 | 5 | 14 | 15 | 24 | 43 | 44 | 72 => (Csf, true),
        30 | 62 => (Vessel, true),
        25 | 57 | 99 => (Tumour, true),
        121 | 129 | 165 | 515 => (Bone, false),
        516 => (Marrow, false),
        119 | 120 | 127 | 258 | 507 | 514 => (Soft, false),
        125 | 131 => (Fat, false),
        123 | 132 => (Muscle, false),
        118 | 124 | 511 => (Skin, false),
        134 | 259 | 506 => (Eye, false),
        130 | 133 | 502 | 509 => (Air, false),
        126 | 128 | 508 | 512 | 530 => (Nerve, false),
        _ => return None,
    };
    Some(Label { class, brain })
}

/// Mean brightness of the classes in common images, 0 to 1, in the order of [`HeadClass`]. Rows:
/// T1, T1 with contrast agent, T2, FLAIR, CT angiography from -200 to 300 HU, CT without contrast
/// agent, time of flight.
const PLAUSIBLE: [[f64; CLASSES]; 7] = [
    [0.01, 0.80, 0.58, 0.66, 0.22, 0.50, 0.08, 0.70, 0.60, 0.95, 0.52, 0.65, 0.30, 0.03, 0.55, 0.60],
    [0.01, 0.74, 0.58, 0.62, 0.22, 1.00, 0.08, 0.70, 0.65, 0.95, 0.56, 0.70, 0.30, 0.03, 0.90, 0.60],
    [0.01, 0.40, 0.55, 0.46, 1.00, 0.10, 0.05, 0.40, 0.40, 0.55, 0.25, 0.40, 0.95, 0.03, 0.65, 0.45],
    [0.01, 0.45, 0.60, 0.55, 0.12, 0.15, 0.05, 0.35, 0.42, 0.60, 0.30, 0.40, 0.20, 0.03, 0.80, 0.45],
    [0.00, 0.46, 0.48, 0.47, 0.42, 0.95, 1.00, 0.80, 0.47, 0.20, 0.52, 0.45, 0.42, 0.00, 0.52, 0.47],
    [0.00, 0.46, 0.48, 0.47, 0.42, 0.49, 1.00, 0.80, 0.47, 0.20, 0.52, 0.45, 0.42, 0.00, 0.50, 0.47],
    [0.01, 0.35, 0.40, 0.38, 0.25, 1.00, 0.08, 0.30, 0.36, 0.36, 0.38, 0.50, 0.25, 0.02, 0.42, 0.36],
];

/// Parts of [`HeadClass::Soft`] with a brightness each.
pub(super) const SOFT_PARTS: usize = 3;

/// Brightness of every class in one image.
#[derive(Debug, Clone)]
pub(super) struct Contrast {
    pub mean: [f32; CLASSES],
    pub deviation: [f32; CLASSES],
    /// Brightness of the parts of soft tissue.
    pub soft: [f32; SOFT_PARTS],
}

impl Contrast {
    /// Draws a contrast: with probability `plausible` near one that scanners make, otherwise any.
    /// `deviation` is the largest standard deviation within a class.
    pub fn draw(plausible: f64, deviation: f64, rng: &mut ChaCha8Rng) -> Self {
        let (mean, soft) = if rng.chance(plausible) {
            let row = PLAUSIBLE[rng.below(PLAUSIBLE.len())];
            let mut near = |centre: f64| (centre * (0.15 * rng.normal()).exp() + 0.03 * rng.normal()).max(0.0) as f32;
            let mean = row.map(&mut near);
            let [fat, muscle] = [HeadClass::Fat, HeadClass::Muscle].map(|class| mean[class as usize]);
            (mean, [fat, muscle, near(row[HeadClass::Soft as usize])])
        } else {
            (
                std::array::from_fn(|_| rng.uniform(0.0, 1.0) as f32),
                std::array::from_fn(|_| rng.uniform(0.0, 1.0) as f32),
            )
        };
        let most = rng.uniform(0.1, 1.0) * deviation;
        let mut contrast =
            Self { mean, deviation: std::array::from_fn(|_| rng.uniform(0.1 * most, most) as f32), soft };
        if rng.chance(0.5) {
            // Many series are stored without noise in the air.
            (contrast.mean[0], contrast.deviation[0]) = (0.0, 0.0);
        } else {
            contrast.mean[0] *= 0.2;
        }
        contrast
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn numbers_have_their_class_and_unknown_ones_none() {
        for (number, class, brain) in [
            (0, HeadClass::Outside, false),
            (41, HeadClass::White, true),
            (1035, HeadClass::Cortex, true),
            (24, HeadClass::Csf, true),
            (515, HeadClass::Bone, false),
            (512, HeadClass::Nerve, false),
        ] {
            assert_eq!(label_of(number), Some(Label { class, brain }), "{number}");
        }
        assert_eq!(label_of(400), None);
    }

    #[test]
    fn contrasts_are_near_a_real_one_or_anything() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let distance = |contrast: &Contrast| {
            let to = |row: &[f64; CLASSES]| {
                row.iter().zip(contrast.mean).skip(1).map(|(a, b)| (a - f64::from(b)).abs()).sum::<f64>()
            };
            PLAUSIBLE.iter().map(to).fold(f64::INFINITY, f64::min) / CLASSES as f64
        };
        let mut mean =
            |plausible| (0..50).map(|_| distance(&Contrast::draw(plausible, 0.1, &mut rng))).sum::<f64>() / 50.0;
        let (near, any) = (mean(1.0), mean(0.0));
        assert!(near < 0.1 && any > 0.15, "{near} {any}");
    }
}
