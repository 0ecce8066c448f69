//! Vessels that resemble aneurysms: infundibula, ectasias and stenoses, which are changes of
//! arterial radii; stumps, loops and fenestrations, which are changes of their course.

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

/// Adds stumps, loops and fenestrations to some arteries of a patient.
pub(crate) fn add_shapes(atlas: &mut Atlas, look_alikes: LookAlikes, rng: &mut ChaCha8Rng) {
    // Probability per artery of a stump, a loop, a fenestration.
    let [stump, winding, split] = match look_alikes {
        LookAlikes::Usual => [0.05, 0.06, 0.05],
        LookAlikes::Many => [0.25, 0.25, 0.2],
    };
    let mut added = Vec::new();
    for artery in &mut atlas.arteries {
        match artery.name {
            "m1" | "m2_superior" | "m2_inferior" | "a2" | "p2" | "ica_supra" | "basilar" if rng.chance(stump) => {
                added.push(cut_off(artery, rng));
            }
            "m2_superior" | "m2_inferior" | "pica" | "aica" | "p2" | "a2" if rng.chance(winding) => {
                coil_up(artery, rng);
            }
            "basilar" | "vertebral" | "a1" | "m1" if rng.chance(split) => added.push(second_lumen(artery, rng)),
            _ => {}
        }
    }
    atlas.arteries.extend(added);
}

/// A short branch with a blunt end, as an occluded artery leaves.
fn cut_off(parent: &Artery, rng: &mut ChaCha8Rng) -> Artery {
    let i = (parent.points.len() as f64 * rng.uniform(0.2, 0.9)) as usize;
    let (at, radius) = (parent.points[i], parent.radii[i]);
    let out = rng.normal3().unit();
    let own = (radius * rng.uniform(0.35, 0.7)).clamp(RADIUS_LIMITS_MM[0], RADIUS_LIMITS_MM[1]);
    let steps = 2 + (radius + rng.uniform(1.5, 4.0)) as usize;
    let points = (0..steps).map(|k| at + out * k as f64).collect();
    Artery { name: "stump", left: parent.left, site: parent.site, points, radii: vec![own; steps] }
}

/// Winds a part of an artery once around its course.
fn coil_up(artery: &mut Artery, rng: &mut ChaCha8Rng) {
    let n = artery.points.len();
    let length = (n / 3).clamp(4, 16);
    if n < length + 4 {
        return;
    }
    let first = (rng.uniform(0.15, 0.6) * (n - length) as f64) as usize;
    let (u, v) = (artery.points[first + length - 1] - artery.points[first]).unit().frame();
    let width = rng.uniform(1.2, 3.0);
    for k in 0..length {
        let t = k as f64 / (length - 1) as f64;
        let (sin, cos) = (std::f64::consts::TAU * t).sin_cos();
        let point = &mut artery.points[first + k];
        *point = *point + (u * (1.0 - cos) + v * sin) * (0.5 * width);
    }
}

/// A second lumen beside a part of an artery.
fn second_lumen(artery: &mut Artery, rng: &mut ChaCha8Rng) -> Artery {
    let n = artery.points.len();
    let length = (n / 3).clamp(5, 12).min(n);
    let first = (rng.uniform(0.1, 0.8) * (n - length) as f64) as usize;
    let along = artery.points[first + length - 1] - artery.points[first];
    let side = rng.normal3().reject(along.unit()).unit();
    let part = first..first + length;
    let own = artery.radii[first];
    let apart = |k: usize| 1.3 * own * (std::f64::consts::PI * k as f64 / (length - 1) as f64).sin();
    let points = part.clone().map(|i| artery.points[i] + side * apart(i - first)).collect();
    let radii: Vec<f64> = part.clone().map(|i| (artery.radii[i] * 0.75).max(RADIUS_LIMITS_MM[0])).collect();
    for i in part {
        artery.points[i] = artery.points[i] - side * (0.4 * apart(i - first));
        artery.radii[i] = (artery.radii[i] * 0.8).max(RADIUS_LIMITS_MM[0]);
    }
    Artery { name: "second lumen", left: artery.left, site: artery.site, points, radii }
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
            let before = atlas.arteries.len();
            add_shapes(&mut atlas, look_alikes, &mut stream(seed, "more mimics"));
            assert!(look_alikes == LookAlikes::Usual || atlas.arteries.len() > before, "{seed}");
            let radii = atlas.arteries.iter().flat_map(|a| &a.radii);
            assert!(radii.clone().all(|r| (RADIUS_LIMITS_MM[0]..=RADIUS_LIMITS_MM[1]).contains(r)));
        }
    }
}
