//! Random brightness of every tissue, as SynthSeg draws it: the nets can rely on shape only.

use rand_chacha::ChaCha8Rng;
use willis_core::Modality;

use super::RandomConfig;
use super::contrast::{Flow, TissueContrast};
use crate::anatomy::BRIGHTNESS_COUNT;
use crate::head::Tissue;
use crate::random::Draw;

/// Range of brightness in MR.
const RANGE: f64 = 700.0;
/// Share of MR phantoms whose arteries are on the other side of brain than usual.
const REVERSED: f64 = 0.12;

/// Draws the brightness of everything.
pub(super) fn draw(modality: Modality, config: &RandomConfig, rng: &mut ChaCha8Rng) -> TissueContrast {
    match modality {
        Modality::Cta => ct(config, rng),
        _ => mr(modality, config, rng),
    }
}

/// Everything stays within what Hounsfield units allow: windows would cut off the rest.
fn ct(config: &RandomConfig, rng: &mut ChaCha8Rng) -> TissueContrast {
    let mut tissue = [0; BRIGHTNESS_COUNT].map(|_| rng.uniform(-60.0, 130.0) as f32);
    tissue[Tissue::Air as usize] = -1000.0;
    tissue[Tissue::Fat as usize] = rng.uniform(-150.0, 0.0) as f32;
    tissue[Tissue::Bone as usize] = rng.uniform(300.0, 1900.0) as f32;
    tissue[Tissue::Marrow as usize] = rng.uniform(0.0, 800.0) as f32;
    let grey = f64::from(tissue[Tissue::Grey as usize]);
    let artery = grey + (config.least_contrast * 500.0) + rng.uniform(20.0, 550.0);
    let vein = rng.uniform(grey, artery);
    tissue[BRIGHTNESS_COUNT - 1] = vein as f32;
    TissueContrast {
        tissue,
        artery: artery as f32,
        slow: rng.uniform(0.5 * (grey + artery), artery) as f32,
        vein: vein as f32,
        thrombus: rng.uniform(0.0, 120.0) as f32,
        noise: (rng.uniform(0.0, 0.3) * (artery - grey)) as f32,
        small_loss: rng.uniform(0.0, 0.4) as f32,
        flow: Flow::Agent,
    }
}

fn mr(modality: Modality, config: &RandomConfig, rng: &mut ChaCha8Rng) -> TissueContrast {
    let mut tissue = [0; BRIGHTNESS_COUNT].map(|_| rng.uniform(0.05 * RANGE, 0.8 * RANGE) as f32);
    tissue[Tissue::Air as usize] = rng.uniform(0.0, 30.0) as f32;
    tissue[Tissue::Bone as usize] = rng.uniform(0.0, 0.25 * RANGE) as f32;
    // Grey and white matter differ less than the others.
    let (grey, apart) = (tissue[Tissue::Grey as usize], rng.uniform(-0.25, 0.25) as f32);
    tissue[Tissue::White as usize] = grey * (1.0 + apart);
    let grey = f64::from(grey);
    let dark = matches!(modality, Modality::T2) != rng.chance(REVERSED);
    let least = config.least_contrast * RANGE;
    let artery = if dark {
        (grey - least - rng.uniform(0.0, 0.4 * RANGE)).max(5.0)
    } else {
        grey + least + rng.uniform(0.0, 0.7 * RANGE)
    };
    let vein = grey + (artery - grey) * rng.uniform(-0.2, 1.0);
    tissue[BRIGHTNESS_COUNT - 1] = vein as f32;
    TissueContrast {
        tissue,
        artery: artery as f32,
        slow: (artery + (grey - artery) * rng.uniform(0.0, 0.7)) as f32,
        vein: vein as f32,
        thrombus: rng.uniform(0.1 * RANGE, 0.6 * RANGE) as f32,
        noise: (rng.uniform(0.0, 0.3) * (artery - grey).abs()) as f32,
        small_loss: rng.uniform(0.0, 0.6) as f32,
        flow: if dark { Flow::Void } else { Flow::Inflow },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::stream;

    #[test]
    fn arteries_keep_the_least_contrast_and_appear_on_both_sides_of_brain() {
        let config = RandomConfig::default();
        let mut darker = 0;
        for seed in 0..300 {
            for modality in [Modality::Mra, Modality::Cta] {
                let c = draw(modality, &config, &mut stream(seed, "random"));
                let difference = c.artery - c.tissue[Tissue::Grey as usize];
                assert!(difference.abs() > 20.0, "{modality:?} {seed}: {difference}");
                darker += usize::from(modality == Modality::Mra && difference < 0.0);
            }
        }
        assert!((15..65).contains(&darker), "{darker}");
    }
}
