//! From candidates to evidence.

use burn::tensor::activation::{sigmoid, softmax};
use burn::tensor::{Tensor, TensorData};
use serde::{Deserialize, Serialize};
use willis_core::{Candidates, Evidence, SITE_COUNT, SeriesMeta, Site, VesselMap, VoxelPoint};

use super::condition::{CONDITIONS, condition};
use super::net::{ExamineNet, IN_CHANNELS, SIDE};
use super::oscillators::Reading;
use super::patch::{Patch, input, patch};
use willis_kernels::runtime::keep_threads_awake;

/// How candidates are examined.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ExamineConfig {
    /// Patches that go through the net together.
    pub batch: usize,
    /// From this probability on, centre and diameter are taken from the classifier, and the site
    /// where anatomy names none.
    pub confident: f64,
    /// A centre that the classifier would move farther than this stays, mm: such moves took lesions
    /// away and found none.
    pub max_move_mm: f64,
    /// Candidates nearer than this after the moves are one, mm.
    pub merge_mm: f64,
}

impl Default for ExamineConfig {
    fn default() -> Self {
        Self { batch: 4, confident: 0.3, max_move_mm: 2.0, merge_mm: 2.0 }
    }
}

/// Candidates, best first, without those that were moved onto a better one.
fn distinct(candidates: Candidates, merge_mm: f64) -> Candidates {
    let mut kept = Candidates::new();
    for candidate in candidates {
        if !kept.iter().any(|better| better.centre.distance_mm(candidate.centre) < merge_mm) {
            kept.push(candidate);
        }
    }
    kept
}

/// What the net says of one patch.
struct Answer {
    class_logit: f32,
    probability: f32,
    sites: [f32; SITE_COUNT],
    offset_vox: [f32; 3],
    diameter_mm: f64,
    reading: Option<Reading>,
}

/// The candidates with the classifier's evidence, most probable first.
///
/// Same net and input, same evidence: the oscillators start from a seeded state.
pub fn examine(
    net: &ExamineNet,
    map: &VesselMap,
    mut candidates: Candidates,
    meta: &SeriesMeta,
    config: &ExamineConfig,
) -> Candidates {
    for group in candidates.chunks_mut(config.batch.max(1)) {
        let cut = |c: &willis_core::Candidate| patch(map, c.centre, SIDE);
        let seen: Vec<(usize, Patch)> = group.iter().enumerate().filter_map(|(i, c)| Some((i, cut(c)?))).collect();
        if seen.is_empty() {
            continue;
        }
        let members: Vec<&willis_core::Candidate> = seen.iter().map(|&(i, _)| &group[i]).collect();
        let patches: Vec<&Patch> = seen.iter().map(|(_, patch)| patch).collect();
        let answers = keep_threads_awake(|| answer(net, map, &members, &patches, meta));
        for ((i, patch), answer) in seen.iter().zip(answers) {
            take(&mut group[*i], patch, &answer, map, config);
        }
    }
    candidates.sort_by(|a, b| b.probability.total_cmp(&a.probability));
    let mut candidates = distinct(candidates, config.merge_mm);
    for (place, candidate) in candidates.iter_mut().enumerate() {
        candidate.rank = place + 1;
    }
    candidates
}

fn answer(
    net: &ExamineNet,
    map: &VesselMap,
    candidates: &[&willis_core::Candidate],
    patches: &[&Patch],
    meta: &SeriesMeta,
) -> Vec<Answer> {
    let device = net.device();
    let count = patches.len();
    let grid = map.vessel.grid;
    let spacing = grid.spacing();
    let channels: Vec<f32> = patches.iter().flat_map(|patch| input(patch, spacing.zyx())).collect();
    let conditions: Vec<f32> = candidates.iter().flat_map(|c| condition(meta, c.site, &grid, c.centre)).collect();
    let x = Tensor::from_data(TensorData::new(channels, [count, IN_CHANNELS, SIDE, SIDE, SIDE]), &device);
    let output = net.forward(x, Tensor::from_data(TensorData::new(conditions, [count, CONDITIONS]), &device));

    let radii: Vec<f64> = candidates.iter().map(|c| c.diameter_mm / 2.0 / spacing.min().max(1e-6)).collect();
    let readings = match (net.oscillators(), output.oscillation) {
        (Some(oscillators), Some(states)) => oscillators.readings(states, &radii).into_iter().map(Some).collect(),
        _ => vec![None; count],
    };
    let probabilities = values(sigmoid(output.class_logit.clone()));
    let (logits, diameters) = (values(output.class_logit), values(output.log_diameter));
    let (sites, offsets) = (values(softmax(output.site_logits, 1)), values(output.offset_vox));
    let answers = readings.into_iter().enumerate().map(|(i, reading)| Answer {
        class_logit: logits[i],
        probability: probabilities[i],
        sites: std::array::from_fn(|site| sites[i * SITE_COUNT + site]),
        offset_vox: std::array::from_fn(|axis| offsets[3 * i + axis]),
        diameter_mm: f64::from(diameters[i]).exp().clamp(0.5, 50.0),
        reading,
    });
    answers.collect()
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().convert::<f32>().try_to_vec().expect("data was just converted to f32")
}

/// Writes an answer into its candidate.
fn take(
    candidate: &mut willis_core::Candidate,
    patch: &Patch,
    answer: &Answer,
    map: &VesselMap,
    config: &ExamineConfig,
) {
    candidate.probability = f64::from(answer.probability);
    candidate.evidence.class_logit = Some(answer.class_logit);
    candidate.evidence.site_probabilities = Some(answer.sites);
    candidate.evidence.order_inside = answer.reading.map(|r| r.order_inside);
    candidate.evidence.order_shell = answer.reading.map(|r| r.order_shell);
    candidate.evidence.energy = answer.reading.map(|r| r.energy);
    if candidate.probability < config.confident {
        return;
    }
    let [z, y, x] = answer.offset_vox.map(f64::from);
    let place = VoxelPoint::new(patch.middle.z + z, patch.middle.y + y, patch.middle.x + x);
    let centre = map.vessel.grid.affine.to_world(place);
    if centre.distance_mm(candidate.centre) <= config.max_move_mm {
        candidate.centre = centre;
    }
    candidate.diameter_mm = size_mm(&candidate.evidence, answer.diameter_mm);
    let best = (0..SITE_COUNT).max_by(|&a, &b| answer.sites[a].total_cmp(&answer.sites[b]));
    candidate.site = candidate.site.or(best.and_then(Site::from_column));
}

/// Diameter of the ball with the volume that the aneurysm map gives a candidate, counted for as
/// much as the map is sure of it; for the rest the classifier's estimate.
fn size_mm(evidence: &Evidence, estimate_mm: f64) -> f64 {
    let peak = f64::from(evidence.aneurysm_peak.unwrap_or(0.0));
    if peak <= 0.0 {
        return estimate_mm;
    }
    let volume_mm3 = f64::from(evidence.aneurysm_volume_mm3.unwrap_or(0.0)) / peak;
    let ball_mm = (6.0 / std::f64::consts::PI * volume_mm3).cbrt();
    peak * ball_mm + (1.0 - peak) * estimate_mm
}

#[cfg(test)]
mod tests {
    use super::super::net::ExamineNetConfig;
    use super::super::patch::tests::map;
    use super::*;
    use burn::tensor::Device;
    use willis_core::{Candidate, Point};

    #[test]
    fn a_sure_map_says_how_large_a_sac_is() {
        let evidence = |peak: f32, volume: f32| Evidence {
            aneurysm_peak: Some(peak),
            aneurysm_volume_mm3: Some(volume),
            ..Evidence::default()
        };
        let ball = (std::f64::consts::PI / 6.0 * 216.0) as f32;
        assert!((size_mm(&evidence(1.0, ball), 9.0) - 6.0).abs() < 1e-5);
        // Half as sure: the sum of probabilities is half the volume, and the estimate counts for
        // half.
        assert!((size_mm(&evidence(0.5, 0.5 * ball), 9.0) - 7.5).abs() < 1e-5);
        assert_eq!(size_mm(&evidence(0.0, 0.0), 9.0), 9.0);
        assert_eq!(size_mm(&Evidence::default(), 9.0), 9.0);
    }

    fn candidates() -> Candidates {
        let candidate = |x: f64| Candidate {
            rank: 0,
            centre: Point::new(x, 24.0, 24.0),
            diameter_mm: 5.0,
            probability: 0.1,
            site: Some(Site::Acom),
            distance_to_vessel_mm: None,
            evidence: Evidence { aneurysm_peak: Some(0.7), ..Evidence::default() },
        };
        [20.0, 24.0, f64::NAN, 30.0].map(candidate).into()
    }

    #[test]
    fn evidence_is_complete_and_repeats() {
        let net = ExamineNetConfig { embed_dim: 8, ..ExamineNetConfig::default() }.init(1, &Device::flex());
        let map = map(&[(Point::new(24.0, 24.0, 24.0), 3.0)]);
        let config = ExamineConfig { batch: 2, ..ExamineConfig::default() };
        let run = || examine(&net, &map, candidates(), &SeriesMeta::default(), &config);
        let found = run();
        assert_eq!(found.iter().map(|c| c.rank).collect::<Vec<_>>(), [1, 2, 3, 4]);
        let seen: Vec<&Candidate> = found.iter().filter(|c| c.centre.x.is_finite()).collect();
        assert_eq!(seen.len(), 3);
        for candidate in seen {
            let e = &candidate.evidence;
            assert!(e.class_logit.is_some() && e.energy.is_some() && e.aneurysm_peak == Some(0.7));
            assert!((e.site_probabilities.unwrap().iter().sum::<f32>() - 1.0).abs() < 1e-5);
            assert!(
                (0.0..=1.0001).contains(&e.order_inside.unwrap()) && (0.0..=1.0001).contains(&e.order_shell.unwrap())
            );
        }
        let again: Vec<Evidence> = run().into_iter().map(|c| c.evidence).collect();
        assert_eq!(found.into_iter().map(|c| c.evidence).collect::<Vec<_>>(), again);
    }
}
