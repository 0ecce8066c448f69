//! Brightness of blood by its flow.

use crate::appearance::contrast::{Flow, TissueContrast};
use crate::atlas::{Artery, Atlas};
use crate::random::{Draw, stream};
use crate::render::Capsule;

/// Relative signal of a clot in a [`Capsule`] or a sac; resting blood has 0, fast blood 1.
pub(crate) const THROMBUS: f32 = -1.0;

/// A short part of a siphon whose signal is lost by turbulent flow.
#[derive(Debug, Clone, Copy)]
struct Dephasing {
    left: bool,
    /// Middle as a fraction of the artery's length.
    middle: f64,
    /// Standard deviation of the fall-off, as a fraction of the length.
    width: f64,
    /// Signal that is lost in the middle.
    depth: f64,
}

impl Dephasing {
    fn signal(&self, artery: &Artery, along: f64) -> f64 {
        let apply = artery.name == "ica_infra" && artery.left == self.left;
        let bell = (-0.5 * ((along - self.middle) / self.width).powi(2)).exp();
        if apply { 1.0 - self.depth * bell } else { 1.0 }
    }
}

/// The arteries of a patient with the signal of their flow. `artefacts` is the probability that
/// flow in a siphon loses its signal.
pub(super) fn capsules(atlas: &Atlas, contrast: &TissueContrast, artefacts: f64, seed: u64) -> Vec<Capsule> {
    let mut rng = stream(seed, "scan flow");
    let mut dephased = Vec::new();
    for left in [false, true] {
        let (middle, width, depth) = (rng.uniform(0.76, 0.96), rng.uniform(0.02, 0.06), rng.uniform(0.2, 0.85));
        if contrast.flow == Flow::Inflow && rng.chance(artefacts) {
            dephased.push(Dephasing { left, middle, width, depth });
        }
    }
    let mut out = Vec::new();
    for artery in &atlas.arteries {
        let label = artery.site.map_or(0, |s| s.mask_value());
        let own = rng.uniform(0.94, 1.0);
        let last = (artery.points.len() - 1).max(1) as f64;
        for (i, (p, r)) in artery.points.windows(2).zip(artery.radii.windows(2)).enumerate() {
            let slow = f64::from(contrast.small_loss) * (1.0 - r[0] / 1.3).clamp(0.0, 1.0);
            let lost: f64 = dephased.iter().map(|d| d.signal(artery, i as f64 / last)).product();
            out.push(Capsule {
                a: p[0],
                b: p[1],
                radius_a: r[0] as f32,
                radius_b: r[1] as f32,
                label,
                signal: (own * (1.0 - slow) * lost) as f32,
            });
        }
    }
    out
}

/// Brightness of blood with a relative signal: from clot over resting to fast blood.
pub(super) fn brightness(contrast: &TissueContrast, signal: f32) -> f32 {
    if signal < 0.0 {
        let clot = (-signal).min(1.0);
        contrast.slow + (contrast.thrombus - contrast.slow) * clot
    } else {
        contrast.slow + (contrast.artery - contrast.slow) * signal.min(1.1)
    }
}
