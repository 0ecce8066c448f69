//! Vessels that resemble aneurysms: infundibula, ectasias and stenoses. All are changes of arterial
//! radii.

use rand_chacha::ChaCha8Rng;

use crate::atlas::{Artery, Atlas, RADIUS_LIMITS_MM};
use crate::mix::LookAlikes;
use crate::random::Draw;

/// Adds infundibula, ectasias and stenoses to some arteries of a patient.
pub(crate) fn add(atlas: &mut Atlas, look_alikes: LookAlikes, rng: &mut ChaCha8Rng) {
    // Probability per artery of an infundibulum, an ectasia, a stenosis.
    let [funnel, ectasia, stenosis] = match look_alikes {
        LookAlikes::Usual => [0.12, 0.06, 0.06],
        LookAlikes::Many => [0.5, 0.3, 0.2],
    };
    for artery in &mut atlas.arteries {
        match artery.name {
            "pcom" | "choroidal" | "ophthalmic" if rng.chance(funnel) => infundibulum(artery, rng),
            "basilar" | "ica_infra" | "ica_supra" | "m1" | "vertebral" | "p1" if rng.chance(ectasia) => {
                bulge(artery, rng.uniform(1.15, 1.45), rng.uniform(2.5, 7.0), rng);
            }
            "m1" | "m2_superior" | "m2_inferior" | "a1" | "basilar" | "p2" | "ica_infra" | "vertebral"
                if rng.chance(stenosis) =>
            {
                bulge(artery, rng.uniform(0.4, 0.8), rng.uniform(1.5, 3.5), rng);
            }
            _ => {}
        }
    }
}

/// Widens the origin of a branch to a cone at most 3 mm wide, with the branch at its tip.
fn infundibulum(artery: &mut Artery, rng: &mut ChaCha8Rng) {
    let (mouth, length) = (rng.uniform(0.9, 1.4), rng.uniform(3.0, 4.5));
    let mut run = 0.0;
    for i in 0..artery.points.len() {
        if i > 0 {
            run += (artery.points[i] - artery.points[i - 1]).length();
        }
        let cone = mouth * (1.0 - run / length);
        artery.radii[i] = artery.radii[i].max(cone);
    }
}

/// Multiplies the radius around one point by up to `factor`. The effect falls off as a Gaussian
/// with standard deviation `reach_mm`.
fn bulge(artery: &mut Artery, factor: f64, reach_mm: f64, rng: &mut ChaCha8Rng) {
    let middle = (artery.points.len() as f64 * rng.uniform(0.25, 0.75)) as usize;
    let centre = artery.points[middle];
    for (point, radius) in artery.points.iter().zip(&mut artery.radii) {
        let bell = (-0.5 * ((*point - centre).length() / reach_mm).powi(2)).exp();
        *radius = (*radius * (1.0 + (factor - 1.0) * bell)).clamp(RADIUS_LIMITS_MM[0], RADIUS_LIMITS_MM[1]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::stream;

    #[test]
    fn radii_stay_within_limits() {
        for seed in 0..20 {
            let mut atlas = Atlas::draw(&mut stream(seed, "atlas"));
            let look_alikes = [LookAlikes::Usual, LookAlikes::Many][seed as usize % 2];
            add(&mut atlas, look_alikes, &mut stream(seed, "mimics"));
            let radii = atlas.arteries.iter().flat_map(|a| &a.radii);
            assert!(radii.clone().all(|r| (RADIUS_LIMITS_MM[0]..=RADIUS_LIMITS_MM[1]).contains(r)));
        }
    }
}
