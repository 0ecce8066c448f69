//! Flow, clot and lobes of aneurysms as the acquisitions show them.

use rand_chacha::ChaCha8Rng;

use super::contrast::Flow;
use crate::lesion::{SacFlow, SacShape};
use crate::random::Draw;

/// Diameter from which a sac may hold a clot, mm.
const CLOT_MM: f64 = 5.0;
/// Diameter from which blood may rest in a sac, mm.
const RESTING_MM: f64 = 5.0;

/// Gives every sac its flow. With contrast agent a sac is as bright as its parent artery whatever
/// its size; otherwise large sacs may, but need not, hold resting blood. `pathology` is the
/// probability of a clot in a large sac and of a lobe in any.
pub(crate) fn dress(sacs: &mut [SacShape], flow: Flow, pathology: f64, rng: &mut ChaCha8Rng) {
    for sac in sacs {
        let diameter = sac.truth.diameter_mm.unwrap_or(RESTING_MM);
        let resting = diameter > RESTING_MM && rng.chance(0.5);
        let (signal, lost_at_dome) = match flow {
            Flow::Agent => (rng.uniform(0.94, 1.03), rng.uniform(0.0, 0.06)),
            Flow::Inflow | Flow::Void if resting => (rng.uniform(0.35, 1.0), rng.uniform(0.0, 0.6)),
            Flow::Inflow | Flow::Void => (rng.uniform(0.82, 1.03), rng.uniform(0.0, 0.25)),
        };
        let clot =
            (diameter > CLOT_MM && rng.chance(pathology)).then(|| (rng.normal3().unit(), rng.uniform(-0.3, 0.6)));
        sac.set_flow(SacFlow { signal: signal as f32, lost_at_dome: lost_at_dome as f32, clot });
        if rng.chance(pathology) {
            sac.add_lobe(rng.normal3().unit(), rng.uniform(0.55, 0.9));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::appearance::THROMBUS;
    use crate::atlas::Atlas;
    use crate::lesion::grow;
    use crate::mix::LesionChoice;
    use crate::random::stream;
    use crate::vector::Vec3;

    fn dressed(flow: Flow, pathology: f64) -> Vec<SacShape> {
        let each = |seed| {
            let atlas = Atlas::draw(&mut stream(seed, "atlas"));
            let mut sacs = grow(&atlas, 3, &LesionChoice::default(), |_| true, &mut stream(seed, "lesion"));
            dress(&mut sacs, flow, pathology, &mut stream(seed, "dress"));
            sacs
        };
        (0..40).flat_map(each).collect()
    }

    /// The shortcut of the plain model: there, brightness tells the size.
    #[test]
    fn with_contrast_agent_the_size_of_a_sac_does_not_show_in_its_brightness() {
        let sacs = dressed(Flow::Agent, 0.0);
        let mean = |large: bool| {
            let of = sacs.iter().filter(|s| (s.truth.diameter_mm.expect("known") > 6.0) == large);
            let signals: Vec<f32> = of.map(|s| s.signal_at(Vec3::from(s.truth.centre))).collect();
            assert!(signals.len() > 10);
            signals.iter().sum::<f32>() / signals.len() as f32
        };
        assert!((mean(true) - mean(false)).abs() < 0.02);
    }

    #[test]
    fn clots_fill_a_part_of_some_large_sacs_only() {
        let sacs = dressed(Flow::Void, 1.0);
        for sac in &sacs {
            let large = sac.truth.diameter_mm.expect("known") > CLOT_MM;
            let (centre, radius) = sac.bound();
            let around = |i: u64| centre + stream(i, "direction").normal3().unit() * (radius * 0.7);
            let clotted = (0..60).filter(|i| sac.signal_at(around(*i)) == THROMBUS).count();
            assert_eq!(clotted > 0, large);
            assert!(clotted < 60);
        }
    }
}
