//! Brightness of tissues and blood in the acquisitions of a clinic.

use rand_chacha::ChaCha8Rng;
use willis_core::Modality;

use crate::anatomy::BRIGHTNESS_COUNT;
use crate::head::Tissue;
use crate::random::Draw;

/// Brightness of everything in one acquisition: HU for CTA, arbitrary units for MR.
#[derive(Debug, Clone)]
pub(crate) struct TissueContrast {
    /// Brightness of each tissue and, last, of the dural sinuses.
    pub tissue: [f32; BRIGHTNESS_COUNT],
    /// Fast arterial blood.
    pub artery: f32,
    /// Blood that hardly moves.
    pub slow: f32,
    /// Filled veins.
    pub vein: f32,
    /// Clot.
    pub thrombus: f32,
    /// Standard deviation of the noise.
    pub noise: f32,
    /// Signal that the smallest arteries lose by slow flow, 0 to 1.
    pub small_loss: f32,
    /// Whether moving blood gives more or less signal than resting blood.
    pub flow: Flow,
}

/// How an acquisition shows moving blood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flow {
    /// Contrast agent: bright, whether it moves or not.
    Agent,
    /// Bright by inflow; resting blood fades.
    Inflow,
    /// Dark; resting blood is brighter.
    Void,
}

// air, skin, fat, muscle, bone, marrow, csf, grey, white, dura, enhancing
const CTA: [f64; 11] = [-1000.0, 40.0, -95.0, 58.0, 1150.0, 430.0, 6.0, 40.0, 31.0, 75.0, 80.0];
const TOF: [f64; 11] = [4.0, 120.0, 150.0, 95.0, 18.0, 55.0, 42.0, 122.0, 108.0, 85.0, 125.0];
/// MRA with contrast agent: tissue is saturated.
const CE_MRA: [f64; 11] = [4.0, 90.0, 110.0, 70.0, 12.0, 45.0, 25.0, 78.0, 85.0, 100.0, 190.0];
/// Three-dimensional gradient echo, as MPRAGE.
const T1_GRADIENT: [f64; 11] = [5.0, 230.0, 420.0, 170.0, 30.0, 240.0, 70.0, 205.0, 300.0, 280.0, 430.0];
/// Spin echo.
const T1_SPIN: [f64; 11] = [5.0, 240.0, 520.0, 200.0, 30.0, 280.0, 85.0, 245.0, 300.0, 300.0, 500.0];
const T2: [f64; 11] = [4.0, 200.0, 420.0, 95.0, 25.0, 190.0, 660.0, 330.0, 225.0, 110.0, 420.0];

impl TissueContrast {
    /// Draws one of the acquisitions of a modality.
    pub fn draw(modality: Modality, rng: &mut ChaCha8Rng) -> Self {
        match modality {
            Modality::Cta => Self::cta(rng),
            Modality::Mra if rng.chance(0.15) => Self::contrast_mra(rng),
            Modality::Mra => Self::tof(rng),
            Modality::T1Post => match rng.weighted(&[0.5, 0.25, 0.25]) {
                0 => Self::gradient_t1(rng),
                n => Self::spin_t1(n == 1, rng),
            },
            Modality::T2 => Self::t2(rng),
        }
    }

    /// Tissues vary by `spread` about their typical brightness.
    fn tissues(typical: &[f64; 11], spread: f64, rng: &mut ChaCha8Rng) -> [f32; BRIGHTNESS_COUNT] {
        let mut tissue = [0.0f32; BRIGHTNESS_COUNT];
        for (out, value) in tissue.iter_mut().zip(typical) {
            *out = (value * rng.log_normal(1.0, spread, 0.6, 1.6)) as f32;
        }
        tissue
    }

    fn cta(rng: &mut ChaCha8Rng) -> Self {
        let mut tissue = Self::tissues(&CTA, 0.07, rng);
        tissue[Tissue::Air as usize] = -1000.0;
        if rng.chance(0.08) {
            // Blood in the subarachnoid space.
            tissue[Tissue::Csf as usize] = rng.uniform(40.0, 75.0) as f32;
        }
        let artery = rng.uniform(200.0, 560.0);
        // From an early arterial phase to a late one.
        let venous = if rng.chance(0.3) { rng.uniform(0.0, 0.15) } else { rng.uniform(0.15, 1.0) };
        let vein = 48.0 + (artery - 48.0) * venous;
        tissue[BRIGHTNESS_COUNT - 1] = vein as f32;
        Self {
            tissue,
            artery: artery as f32,
            slow: (artery * rng.uniform(0.75, 1.0)) as f32,
            vein: vein as f32,
            thrombus: rng.uniform(45.0, 80.0) as f32,
            noise: rng.uniform(5.0, 26.0) as f32,
            small_loss: 0.05,
            flow: Flow::Agent,
        }
    }

    fn tof(rng: &mut ChaCha8Rng) -> Self {
        let mut tissue = Self::tissues(&TOF, 0.1, rng);
        if rng.chance(0.4) {
            suppress_fat(&mut tissue, rng);
        }
        if rng.chance(0.5) {
            // Magnetisation transfer darkens brain.
            for part in [Tissue::Grey, Tissue::White, Tissue::Muscle] {
                tissue[part as usize] *= rng.uniform(0.6, 0.85) as f32;
            }
        }
        let grey = f64::from(tissue[Tissue::Grey as usize]);
        let artery = grey * rng.log_normal(3.6, 0.3, 1.9, 7.0);
        let vein = grey * rng.uniform(0.55, 1.3);
        tissue[BRIGHTNESS_COUNT - 1] = vein as f32;
        Self {
            tissue,
            artery: artery as f32,
            slow: (grey * rng.uniform(0.8, 1.3)) as f32,
            vein: vein as f32,
            thrombus: (grey * rng.uniform(0.6, 1.6)) as f32,
            noise: (grey * rng.uniform(0.05, 0.16)) as f32,
            small_loss: rng.uniform(0.15, 0.75) as f32,
            flow: Flow::Inflow,
        }
    }

    fn contrast_mra(rng: &mut ChaCha8Rng) -> Self {
        let mut tissue = Self::tissues(&CE_MRA, 0.1, rng);
        let artery = rng.log_normal(520.0, 0.25, 300.0, 900.0);
        let vein = 80.0 + (artery - 80.0) * rng.uniform(0.1, 1.05);
        tissue[BRIGHTNESS_COUNT - 1] = vein as f32;
        Self {
            tissue,
            artery: artery as f32,
            slow: (artery * rng.uniform(0.8, 1.0)) as f32,
            vein: vein as f32,
            thrombus: rng.uniform(60.0, 110.0) as f32,
            noise: rng.uniform(5.0, 16.0) as f32,
            small_loss: rng.uniform(0.05, 0.3) as f32,
            flow: Flow::Agent,
        }
    }

    fn gradient_t1(rng: &mut ChaCha8Rng) -> Self {
        let mut tissue = Self::tissues(&T1_GRADIENT, 0.09, rng);
        if rng.chance(0.25) {
            suppress_fat(&mut tissue, rng);
        }
        let white = f64::from(tissue[Tissue::White as usize]);
        let artery = white * rng.uniform(1.25, 2.6);
        let vein = artery * rng.uniform(0.65, 1.1);
        tissue[BRIGHTNESS_COUNT - 1] = vein as f32;
        Self {
            tissue,
            artery: artery as f32,
            slow: (artery * rng.uniform(0.8, 1.0)) as f32,
            vein: vein as f32,
            thrombus: (white * rng.uniform(0.6, 1.3)) as f32,
            noise: (white * rng.uniform(0.02, 0.07)) as f32,
            small_loss: rng.uniform(0.0, 0.35) as f32,
            flow: Flow::Agent,
        }
    }

    /// Spin echo: moving blood gives no signal, resting blood takes up the agent. `dark` also
    /// suppresses what flows slowly.
    fn spin_t1(dark: bool, rng: &mut ChaCha8Rng) -> Self {
        let mut tissue = Self::tissues(&T1_SPIN, 0.09, rng);
        if rng.chance(0.45) {
            suppress_fat(&mut tissue, rng);
        }
        let white = f64::from(tissue[Tissue::White as usize]);
        let artery = rng.uniform(15.0, 60.0);
        let vein = if dark { rng.uniform(60.0, 260.0) } else { white * rng.uniform(1.1, 1.8) };
        tissue[BRIGHTNESS_COUNT - 1] = vein as f32;
        Self {
            tissue,
            artery: artery as f32,
            slow: if dark { rng.uniform(80.0, 220.0) as f32 } else { (white * rng.uniform(0.7, 1.6)) as f32 },
            vein: vein as f32,
            thrombus: (white * rng.uniform(0.7, 1.5)) as f32,
            noise: (white * rng.uniform(0.02, 0.07)) as f32,
            small_loss: rng.uniform(0.1, 0.6) as f32,
            flow: Flow::Void,
        }
    }

    fn t2(rng: &mut ChaCha8Rng) -> Self {
        let mut tissue = Self::tissues(&T2, 0.09, rng);
        if rng.chance(0.3) {
            suppress_fat(&mut tissue, rng);
        }
        let vein = rng.uniform(40.0, 200.0);
        tissue[BRIGHTNESS_COUNT - 1] = vein as f32;
        Self {
            tissue,
            artery: rng.uniform(15.0, 70.0) as f32,
            slow: rng.uniform(120.0, 380.0) as f32,
            vein: vein as f32,
            thrombus: rng.uniform(60.0, 420.0) as f32,
            noise: rng.uniform(5.0, 22.0) as f32,
            small_loss: rng.uniform(0.0, 0.35) as f32,
            flow: Flow::Void,
        }
    }
}

/// Darkens fat and marrow as fat suppression does.
fn suppress_fat(tissue: &mut [f32; BRIGHTNESS_COUNT], rng: &mut ChaCha8Rng) {
    let left = rng.uniform(0.12, 0.4) as f32;
    for part in [Tissue::Fat, Tissue::Marrow] {
        tissue[part as usize] *= left;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::stream;

    #[test]
    fn every_acquisition_shows_arteries_against_fluid_and_brain() {
        for modality in Modality::ALL {
            for seed in 0..60 {
                let contrast = TissueContrast::draw(modality, &mut stream(seed, "contrast"));
                let grey = contrast.tissue[Tissue::Grey as usize];
                let difference = (contrast.artery - grey).abs();
                assert!(difference > 2.0 * contrast.noise, "{modality:?} {seed}: {contrast:?}");
                let void = contrast.flow == Flow::Void;
                assert_eq!(void, contrast.artery < grey, "{modality:?} {seed}");
                assert!(contrast.tissue.iter().all(|v| v.is_finite()));
            }
        }
    }

    #[test]
    fn veins_of_ct_angiograms_are_empty_to_full() {
        let filling: Vec<f32> = (0..200)
            .map(|seed| {
                let c = TissueContrast::draw(Modality::Cta, &mut stream(seed, "contrast"));
                (c.vein - 48.0) / (c.artery - 48.0)
            })
            .collect();
        assert!(filling.iter().any(|f| *f < 0.05) && filling.iter().any(|f| *f > 0.9));
    }
}
