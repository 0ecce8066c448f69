//! The line: from a series to its prediction, one stage after the other.

use std::path::Path;
use std::sync::Arc;

use willis_core::{
    Candidate, Candidates, Evidence, Finding, HarmonisedVolume, Prediction, SeriesSummary, VesselGraph, VesselMap,
    Volume,
};
use willis_imaging::harmonise::{HarmoniseError, harmonise};
use willis_imaging::ingest::{IngestError, ingest};
use willis_imaging::trace::{blob, nodes::node_table, trace};
use willis_nets::examine::examine;
use willis_nets::propose::{ProposeNet, propose};
use willis_nets::segment::segment;
use willis_stats::stack::{self, StackError};

use crate::config::Config;
use crate::run::{RunRecord, StageClock};
use crate::weights::Nets;

/// Everything the line made of one series.
pub struct SeriesResult {
    /// The series as read.
    pub volume: Arc<Volume>,
    /// The region of interest.
    pub harmonised: Arc<HarmonisedVolume>,
    /// Vessel map.
    pub map: VesselMap,
    /// Vessel graph.
    pub graph: VesselGraph,
    /// Candidates, best first.
    pub candidates: Candidates,
    /// The fourteen probabilities.
    pub prediction: Prediction,
}

/// Why a series has no prediction.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LineError {
    /// It cannot be read.
    #[error(transparent)]
    Ingest(#[from] IngestError),
    /// It cannot be harmonised.
    #[error(transparent)]
    Harmonise(#[from] HarmoniseError),
    /// The stack's weights do not fit the evidence.
    #[error(transparent)]
    Stack(#[from] StackError),
}

/// Reads a series and takes it down the line.
///
/// `on_stage` hears the name of each stage before it starts.
///
/// # Errors
/// when the series cannot be read or has no head-like content to work on.
pub fn predict_path(
    path: &Path,
    nets: &Nets,
    config: &Config,
    on_stage: &dyn Fn(&'static str),
) -> Result<(SeriesResult, RunRecord), LineError> {
    let mut clock = StageClock::default();
    on_stage("ingest");
    let volume = clock.time("ingest", || ingest(path, &config.ingest))?;
    let result = predict_volume(Arc::new(volume), nets, config, on_stage, &mut clock)?;
    let stages = clock.into_stages();
    let run = RunRecord {
        schema: RunRecord::SCHEMA,
        code_version: env!("CARGO_PKG_VERSION").into(),
        config_sha256: config.sha256(),
        threads: rayon::current_num_threads(),
        models: nets.models.clone(),
        seconds: stages.iter().map(|s| s.seconds).sum(),
        stages,
        findings: result.prediction.findings.clone(),
    };
    Ok((result, run))
}

fn predict_volume(
    volume: Arc<Volume>,
    nets: &Nets,
    config: &Config,
    on_stage: &dyn Fn(&'static str),
    clock: &mut StageClock,
) -> Result<SeriesResult, LineError> {
    on_stage("harmonise");
    let harmonised = Arc::new(clock.time("harmonise", || harmonise(&volume, &config.harmonise))?);
    on_stage("segment");
    let map = clock.time("segment", || segment(&nets.segment, &harmonised, &config.segment));
    on_stage("trace");
    let graph = clock.time("trace", || trace(&map, &config.trace));
    on_stage("propose");
    let proposed = clock.time("propose", || candidates(&nets.propose, &map, &graph, config));
    on_stage("examine");
    let examined = clock.time("examine", || examine(&nets.examine, &map, proposed, &volume.meta, &config.examine));
    on_stage("predict");
    let (candidates, prediction) =
        clock.time("predict", || conclude(&volume, &harmonised, &map, &graph, examined, nets))?;
    Ok(SeriesResult { volume, harmonised, map, graph, candidates, prediction })
}

/// Candidates of a vessel map: what the nets and the blob detector propose together.
pub fn candidates(net: &ProposeNet, map: &VesselMap, graph: &VesselGraph, config: &Config) -> Candidates {
    let table = node_table(graph, map, &config.trace);
    let seeds = blob::candidates(&map.vessel, None, &config.blob);
    propose(Some(net), map, &table, &seeds, &config.propose)
}

/// Stacks the evidence into candidate probabilities and the fourteen columns.
fn conclude(
    volume: &Volume,
    harmonised: &HarmonisedVolume,
    map: &VesselMap,
    graph: &VesselGraph,
    candidates: Candidates,
    nets: &Nets,
) -> Result<(Candidates, Prediction), StackError> {
    let (sites, present) = stack::predict(&nets.stack, &candidates, volume.meta.modality)?;
    let candidates = ranked(candidates);
    let mut findings: Vec<Finding> = volume.findings.iter().chain(&harmonised.findings).cloned().collect();
    let abstain = why_abstain(map, graph);
    if let Some(reason) = &abstain {
        findings.push(Finding::warning("abstain", reason.clone()));
    }
    let prediction = Prediction {
        schema: Prediction::SCHEMA,
        series: SeriesSummary {
            uid: volume.meta.uid.clone(),
            modality: volume.meta.modality,
            shape_zyx: volume.image.grid.shape.zyx(),
            spacing_zyx_mm: volume.image.grid.spacing().zyx(),
        },
        probabilities: Prediction::probability_map(sites, present),
        abstain,
        findings,
        models: nets.models.clone(),
    };
    Ok((candidates, prediction))
}

/// Best first by the odds of the proposal times those of the classifier.
fn ranked(mut candidates: Candidates) -> Candidates {
    for candidate in &mut candidates {
        candidate.probability = joint_probability(&candidate.evidence).unwrap_or(candidate.probability);
    }
    candidates.sort_by(|a: &Candidate, b| b.probability.total_cmp(&a.probability));
    for (i, candidate) in candidates.iter_mut().enumerate() {
        candidate.rank = i + 1;
    }
    candidates
}

/// What the aneurysm channel, the node scorer and the classifier say together; `None` where the classifier was silent. On phantoms
/// the proposal alone ranks better than the briefly trained classifier alone, so neither is dropped.
fn joint_probability(evidence: &Evidence) -> Option<f64> {
    let doubt = |p: Option<f32>| 1.0 - f64::from(p.unwrap_or(0.0)).clamp(0.0, 1.0);
    let proposed = (1.0 - doubt(evidence.aneurysm_peak) * doubt(evidence.graph_score)).clamp(1e-3, 1.0 - 1e-3);
    let log_odds = f64::from(evidence.class_logit?) + (proposed / (1.0 - proposed)).ln();
    Some(1.0 / (1.0 + (-log_odds).exp()))
}

/// A head has some decimetres of traceable arteries in several sites; a volume without them is not what willis was made for.
fn why_abstain(map: &VesselMap, graph: &VesselGraph) -> Option<String> {
    const MIN_LENGTH_MM: f64 = 40.0;
    let length = graph.length_mm();
    if length < MIN_LENGTH_MM {
        return Some(format!("only {length:.0} mm of arteries were found; is this a head with visible arteries?"));
    }
    let mut voxels_of = [0usize; 256];
    map.site.voxels.iter().for_each(|&v| voxels_of[usize::from(v)] += 1);
    let sites = (1..=13).filter(|&v| voxels_of[v] > 20).count();
    (sites < 3).then(|| format!("arteries of only {sites} of 13 sites were recognised; is this a head?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proposal_and_classifier_multiply_their_odds() {
        let evidence = Evidence {
            aneurysm_peak: Some(0.5),
            graph_score: Some(0.5),
            class_logit: Some(0.0),
            ..Evidence::default()
        };
        assert!((joint_probability(&evidence).unwrap() - 0.75).abs() < 1e-9);
        assert_eq!(joint_probability(&Evidence::default()), None);
    }
}
