//! Evidence of the expert classifier for candidates.

use burn::tensor::activation::{sigmoid, softmax};
use burn::tensor::{Tensor, TensorData};
use serde::{Deserialize, Serialize};
use willis_core::{Candidate, Candidates, Evidence, InvalidValue, SITE_COUNT, SeriesMeta, Site, VesselMap, VoxelPoint};
use willis_kernels::runtime::keep_threads_awake;

use super::condition::{CONDITIONS, condition};
use super::net::ExamineNet;
use super::oscillators::Synchrony;
use super::patch::{CandidatePatch, IN_CHANNELS, SIDE, input, patch};
use crate::rules::{at_least_one, fraction, non_negative};

/// Examination of candidates.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ExamineConfig {
    /// Patches per forward pass.
    pub batch: usize,
    /// Probability from which centre and diameter are taken from the classifier, and the site too
    /// if the vessel map gives none.
    pub confident: f64,
    /// A centre that the classifier would move farther than this is not moved, mm. Longer moves
    /// lost lesions and found none.
    pub max_move_mm: f64,
    /// Candidates nearer to each other than this after the moves are merged, mm.
    pub merge_mm: f64,
}

impl Default for ExamineConfig {
    fn default() -> Self {
        Self { batch: 4, confident: 0.3, max_move_mm: 2.0, merge_mm: 2.0 }
    }
}

impl ExamineConfig {
    /// Checks every value.
    ///
    /// # Errors
    /// [`InvalidValue`] names the first value that breaks its rule.
    pub fn validate(&self) -> Result<(), InvalidValue> {
        at_least_one("batch", self.batch)?;
        fraction("confident", self.confident)?;
        non_negative("max_move_mm", self.max_move_mm)?;
        non_negative("merge_mm", self.merge_mm)
    }
}

/// Candidates, best first, without those that are too near to a better one.
fn distinct(candidates: Candidates, merge_mm: f64) -> Candidates {
    let mut kept = Candidates::new();
    for candidate in candidates {
        if !kept.iter().any(|better| better.centre.distance_mm(candidate.centre) < merge_mm) {
            kept.push(candidate);
        }
    }
    kept
}

/// Output of the net for one patch.
struct PatchPrediction {
    class_logit: f32,
    probability: f32,
    sites: [f32; SITE_COUNT],
    offset_vox: [f32; 3],
    diameter_mm: f64,
    synchrony: Option<Synchrony>,
}

/// Adds the classifier's evidence to candidates and sorts them, most probable first.
///
/// The result is deterministic: the oscillators start from a seeded state. A candidate whose centre
/// is not finite stays as it is.
///
/// # Panics
/// if `config.batch` is 0 (programmer error; see [`ExamineConfig::validate`]).
pub fn examine(
    net: &ExamineNet,
    map: &VesselMap,
    mut candidates: Candidates,
    meta: &SeriesMeta,
    config: &ExamineConfig,
) -> Candidates {
    for group in candidates.chunks_mut(config.batch) {
        let cut = |c: &Candidate| patch(map, c.centre, SIDE);
        let patches: Vec<(usize, CandidatePatch)> =
            group.iter().enumerate().filter_map(|(i, candidate)| Some((i, cut(candidate)?))).collect();
        if patches.is_empty() {
            continue;
        }
        let batch: Vec<(&Candidate, &CandidatePatch)> = patches.iter().map(|(i, patch)| (&group[*i], patch)).collect();
        let predictions = keep_threads_awake(|| predict(net, map, &batch, meta));
        for ((i, patch), prediction) in patches.iter().zip(predictions) {
            update(&mut group[*i], patch, &prediction, map, config);
        }
    }
    candidates.sort_by(|a, b| b.probability.total_cmp(&a.probability));
    let mut candidates = distinct(candidates, config.merge_mm);
    for (place, candidate) in candidates.iter_mut().enumerate() {
        candidate.rank = place + 1;
    }
    candidates
}

/// Runs the net on a batch of candidates and their patches.
fn predict(
    net: &ExamineNet,
    map: &VesselMap,
    batch: &[(&Candidate, &CandidatePatch)],
    meta: &SeriesMeta,
) -> Vec<PatchPrediction> {
    let device = net.device();
    let count = batch.len();
    let grid = map.vessel.grid;
    let spacing = grid.spacing();
    let channels: Vec<f32> = batch.iter().flat_map(|(_, patch)| input(patch, spacing.zyx())).collect();
    let conditions: Vec<f32> = batch.iter().flat_map(|(c, _)| condition(meta, c.site, &grid, c.centre)).collect();
    let x = Tensor::from_data(TensorData::new(channels, [count, IN_CHANNELS, SIDE, SIDE, SIDE]), &device);
    let output = net.forward(x, Tensor::from_data(TensorData::new(conditions, [count, CONDITIONS]), &device));

    let radii: Vec<f64> = batch.iter().map(|(c, _)| c.diameter_mm / 2.0 / spacing.min().max(1e-6)).collect();
    let synchrony = match (net.oscillators(), output.oscillation) {
        (Some(oscillators), Some(states)) => oscillators.synchrony(states, &radii).into_iter().map(Some).collect(),
        _ => vec![None; count],
    };
    let probabilities = values(sigmoid(output.class_logit.clone()));
    let (logits, diameters) = (values(output.class_logit), values(output.log_diameter));
    let (sites, offsets) = (values(softmax(output.site_logits, 1)), values(output.offset_vox));
    let predictions = synchrony.into_iter().enumerate().map(|(i, synchrony)| PatchPrediction {
        class_logit: logits[i],
        probability: probabilities[i],
        sites: std::array::from_fn(|site| sites[i * SITE_COUNT + site]),
        offset_vox: std::array::from_fn(|axis| offsets[3 * i + axis]),
        diameter_mm: f64::from(diameters[i]).exp().clamp(0.5, 50.0),
        synchrony,
    });
    predictions.collect()
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().convert::<f32>().try_to_vec().expect("data was just converted to f32")
}

/// Adds a prediction to its candidate.
fn update(
    candidate: &mut Candidate,
    patch: &CandidatePatch,
    prediction: &PatchPrediction,
    map: &VesselMap,
    config: &ExamineConfig,
) {
    candidate.probability = f64::from(prediction.probability);
    candidate.evidence.class_logit = Some(prediction.class_logit);
    candidate.evidence.site_probabilities = Some(prediction.sites);
    candidate.evidence.order_inside = prediction.synchrony.map(|s| s.order_inside);
    candidate.evidence.order_shell = prediction.synchrony.map(|s| s.order_shell);
    candidate.evidence.energy = prediction.synchrony.map(|s| s.energy);
    if candidate.probability < config.confident {
        return;
    }
    let [z, y, x] = prediction.offset_vox.map(f64::from);
    let place = VoxelPoint::new(patch.middle.z + z, patch.middle.y + y, patch.middle.x + x);
    let centre = map.vessel.grid.affine.to_world(place);
    if centre.distance_mm(candidate.centre) <= config.max_move_mm {
        candidate.centre = centre;
    }
    candidate.diameter_mm = size_mm(&candidate.evidence, prediction.diameter_mm);
    let best = (0..SITE_COUNT).max_by(|&a, &b| prediction.sites[a].total_cmp(&prediction.sites[b]));
    candidate.site = candidate.site.or(best.and_then(Site::from_column));
}

/// Diameter of a candidate: the mean of two estimates, weighted by the peak of the aneurysm map.
///
/// The first, weighted by the peak, is the diameter of the ball with the candidate's volume in the
/// map. The second is the classifier's estimate.
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
    use super::super::encoder::{PatchEncoderConfig, WaveFormerPatchConfig};
    use super::super::net::ExamineNetConfig;
    use super::super::patch::tests::map;
    use super::*;
    use crate::layers::Init;
    use burn::tensor::Device;
    use willis_core::Point;

    #[test]
    fn the_map_counts_for_the_diameter_as_much_as_its_peak() {
        let evidence = |peak: f32, volume: f32| Evidence {
            aneurysm_peak: Some(peak),
            aneurysm_volume_mm3: Some(volume),
            ..Evidence::default()
        };
        let ball = (std::f64::consts::PI / 6.0 * 216.0) as f32;
        assert!((size_mm(&evidence(1.0, ball), 9.0) - 6.0).abs() < 1e-5);
        // At a peak of 0.5 the probabilities sum to half the volume, and each estimate counts half.
        assert!((size_mm(&evidence(0.5, 0.5 * ball), 9.0) - 7.5).abs() < 1e-5);
        assert_eq!(size_mm(&evidence(0.0, 0.0), 9.0), 9.0);
        assert_eq!(size_mm(&Evidence::default(), 9.0), 9.0);
    }

    #[test]
    fn invalid_values_are_named() {
        ExamineConfig::default().validate().unwrap();
        let config = ExamineConfig { batch: 0, ..ExamineConfig::default() };
        assert_eq!(config.validate().unwrap_err().to_string(), "batch = 0 must be at least 1");
        let config = ExamineConfig { confident: 2.0, ..ExamineConfig::default() };
        assert_eq!(config.validate().unwrap_err().to_string(), "confident = 2 must lie between 0 and 1");
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
    fn evidence_is_complete_and_deterministic() {
        let encoder = PatchEncoderConfig::Waveformer(WaveFormerPatchConfig { embed_dim: 8, ..Default::default() });
        let config = ExamineNetConfig { encoder, ..ExamineNetConfig::default() };
        let net = config.init(&mut Init::new(1, &Device::flex()));
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
