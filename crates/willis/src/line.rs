//! The line: from a series to its prediction, one stage after the other.

use std::path::Path;
use std::sync::Arc;

use willis_core::{
    Candidates, Finding, HarmonisedVolume, Modality, Prediction, SeriesSummary, VesselGraph, VesselMap, Volume,
};
use willis_imaging::harmonise::{HarmoniseError, harmonise};
use willis_imaging::ingest::{IngestError, ingest};
use willis_imaging::trace::{blob, nodes::node_table, trace};
use willis_nets::examine::examine;
use willis_nets::propose::{ProposeNet, propose};
use willis_nets::segment::{CLEAR_VOXELS, artery_voxels_both_ways, segment};
use willis_stats::stack::{self, StackError};

use crate::config::{Config, StackTable};
use crate::models::Nets;
use crate::run::{RunRecord, StageClock};

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
        prevalence: config.stack.prevalence,
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
    let harmonised = clock.time("harmonise", move || harmonise(&volume, &config.harmonise))?;
    on_stage("segment");
    let map = clock.time("segment", || {
        let settled = settle_polarity(harmonised, nets, config);
        segment(&nets.segment, &Arc::new(settled), &config.segment)
    });
    let harmonised = Arc::clone(&map.source);
    let volume = Arc::clone(&harmonised.source);
    on_stage("trace");
    let graph = clock.time("trace", || trace(&map, &config.trace));
    on_stage("propose");
    let proposed = clock.time("propose", || candidates(&nets.propose, &map, &graph, config));
    on_stage("examine");
    let examined = clock.time("examine", || examine(&nets.examine, &map, proposed, &volume.meta, &config.examine));
    on_stage("stack");
    let (candidates, prediction) =
        clock.time("stack", || conclude(&volume, &harmonised, &map, &graph, examined, nets, &config.stack))?;
    Ok(SeriesResult { volume, harmonised, map, graph, candidates, prediction })
}

/// Where brightness alone told T2, whose arteries are dark, from kinds whose arteries are bright,
/// the vessel net looks both ways, and the way that shows more arteries is kept.
fn settle_polarity(harmonised: HarmonisedVolume, nets: &Nets, config: &Config) -> HarmonisedVolume {
    let meta = &harmonised.source.meta;
    let other = match meta.modality {
        Some(Modality::T2) => Modality::Mra,
        Some(Modality::Mra | Modality::T1Post) => Modality::T2,
        Some(Modality::Cta) | None => return harmonised,
    };
    if !meta.modality_from_voxels || !config.harmonise.invert_t2 {
        return harmonised;
    }
    let [here, there] = artery_voxels_both_ways(&nets.segment, &harmonised.image, &config.segment);
    if here >= there || there < CLEAR_VOXELS {
        return harmonised;
    }
    let mut source = Arc::unwrap_or_clone(harmonised.source);
    source.meta.modality = Some(other);
    source.findings.push(Finding::warning(
        "modality-corrected",
        format!("taken for {} after all: arteries show better so, {there} voxels instead of {here}", other.name()),
    ));
    HarmonisedVolume { image: harmonised.image.map(|v| -v), source: Arc::new(source), findings: harmonised.findings }
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
    config: &StackTable,
) -> Result<(Candidates, Prediction), StackError> {
    let candidates = stack::rank(&nets.stack, candidates, volume.meta.modality)?;
    let fourteen = stack::predict(&nets.stack, &candidates, volume.meta.modality)?;
    let (sites, present) = nets.stack.at_prevalence(fourteen, config.prevalence);
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

/// A head has some decimetres of traceable arteries in most sites; a volume without them is not
/// what willis was made for. When the limit was set, 200 held-out phantoms showed 10 to 13 sites, a
/// real aorta 5.
fn why_abstain(map: &VesselMap, graph: &VesselGraph) -> Option<String> {
    const MIN_LENGTH_MM: f64 = 40.0;
    const MIN_SITES: usize = 8;
    let length = graph.length_mm();
    if length < MIN_LENGTH_MM {
        return Some(format!("only {length:.0} mm of arteries were found; is this a head with visible arteries?"));
    }
    let mut voxels_of = [0usize; 256];
    map.site.voxels.iter().for_each(|&v| voxels_of[usize::from(v)] += 1);
    let sites = (1..=13).filter(|&v| voxels_of[v] > 20).count();
    (sites < MIN_SITES).then(|| format!("arteries of only {sites} of 13 sites were recognised; is this a head?"))
}
