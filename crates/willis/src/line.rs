//! The line: from a series to its prediction, one stage after the other.

use std::path::Path;
use std::sync::Arc;

use willis_core::{
    Candidates, Finding, HarmonisedVolume, Prediction, SeriesSummary, Switch, VesselGraph, VesselMap, Volume,
};
use willis_imaging::detect::blob;
use willis_imaging::harmonise::{HarmoniseError, harmonise_around};
use willis_imaging::ingest::{IngestError, ingest};
use willis_imaging::trace::{nodes::node_table, trace};
use willis_nets::examine::examine;
use willis_nets::propose::{ProposeNet, propose};
use willis_nets::segment::segment;
use willis_stats::stack::{self, StackError};

use crate::brain::BrainFinder;
use crate::config::Config;
use crate::models::Nets;
use crate::polarity::correct_polarity;
use crate::run::{RunRecord, Stage, StageClock};

/// Artifacts of one series. The volumes are reached through the vessel map.
pub struct SeriesResult {
    /// Vessel map.
    pub map: VesselMap,
    /// Vessel graph.
    pub graph: VesselGraph,
    /// Candidates, best first.
    pub candidates: Candidates,
    /// The fourteen probabilities.
    pub prediction: Prediction,
}

impl SeriesResult {
    /// The region of interest that the nets worked on.
    pub fn harmonised(&self) -> &HarmonisedVolume {
        &self.map.source
    }

    /// The series as read.
    pub fn volume(&self) -> &Volume {
        &self.map.source.source
    }
}

/// Why a series has no prediction.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LineError {
    /// The series cannot be read.
    #[error(transparent)]
    Ingest(#[from] IngestError),
    /// The series cannot be harmonised.
    #[error(transparent)]
    Harmonise(#[from] HarmoniseError),
    /// The weights of the stack do not fit the evidence.
    #[error(transparent)]
    Stack(#[from] StackError),
}

/// Reads a series and takes it down the line.
///
/// `on_stage` is called with each stage before it starts.
///
/// # Errors
/// when the series cannot be read or harmonised, or the stack does not fit the evidence.
pub fn predict_path(
    path: &Path,
    nets: &Nets,
    config: &Config,
    on_stage: &dyn Fn(Stage),
) -> Result<(SeriesResult, RunRecord), LineError> {
    let mut clock = StageClock::new(on_stage);
    let volume = Arc::new(clock.run(Stage::Ingest, || ingest(path, &config.ingest))?);
    let harmonised = clock.run(Stage::Harmonise, move || harmonised(&volume, &nets.brain, config))?;
    let upright = Arc::new(clock.run(Stage::Polarity, || correct_polarity(harmonised, &nets.segment, config)));
    let map = clock.run(Stage::Segment, move || segment(&nets.segment, &upright, &config.segment));
    let graph = clock.run(Stage::Trace, || trace(&map, &config.trace));
    let proposed = clock.run(Stage::Propose, || candidates(&nets.propose, &map, &graph, config));
    let examined =
        clock.run(Stage::Examine, || examine(&nets.examine, &map, proposed, &map.source.meta, &config.examine));
    let result = clock.run(Stage::Stack, || conclude(map, graph, examined, nets, config))?;
    let run = RunRecord::new(config, &nets.models, clock.into_records(), &result.prediction.findings);
    Ok((result, run))
}

/// Harmonises a series, its region of interest placed by the brain if the configuration says so.
///
/// # Errors
/// when the series cannot be harmonised
pub fn harmonised(
    volume: &Arc<Volume>,
    brain: &BrainFinder,
    config: &Config,
) -> Result<HarmonisedVolume, HarmoniseError> {
    let distances = match config.harmonise.roi.brain {
        // What stops the search for the brain stops harmonising as well, and is reported there.
        Switch::On => brain.on_own_grid(volume).ok(),
        Switch::Off => None,
    };
    harmonise_around(volume, distances.as_ref(), &config.harmonise)
}

/// Candidates of a vessel map, proposed by the nets and the blob detector together.
pub fn candidates(net: &ProposeNet, map: &VesselMap, graph: &VesselGraph, config: &Config) -> Candidates {
    let table = node_table(graph, map, &config.trace);
    let seeds = blob::candidates(&map.vessel, None, &config.blob);
    propose(Some(net), map, &table, &seeds, &config.propose)
}

/// Stacks the evidence into candidate probabilities and the fourteen columns.
fn conclude(
    map: VesselMap,
    graph: VesselGraph,
    examined: Candidates,
    nets: &Nets,
    config: &Config,
) -> Result<SeriesResult, StackError> {
    let harmonised = &map.source;
    let volume = &harmonised.source;
    let modality = harmonised.meta.modality;
    let candidates = stack::rank(&nets.stack, examined, modality)?;
    let fourteen = stack::probabilities(&nets.stack, &candidates, modality)?;
    let (sites, present) = nets.stack.at_prevalence(fourteen, config.stack.prevalence);
    let abstain = why_abstain(&map, &graph);
    let warning = abstain.as_ref().map(|reason| Finding::warning("abstain", reason.clone()));
    let findings = volume.findings.iter().chain(&harmonised.findings).cloned().chain(warning).collect();
    let prediction = Prediction {
        schema: Prediction::SCHEMA,
        series: SeriesSummary {
            uid: volume.meta.uid.clone(),
            modality,
            shape_zyx: volume.image.grid.shape.zyx(),
            spacing_zyx_mm: volume.image.grid.spacing().zyx(),
        },
        probabilities: Prediction::probability_map(sites, present),
        abstain,
        findings,
        models: nets.models.clone(),
    };
    Ok(SeriesResult { map, graph, candidates, prediction })
}

/// Traced arteries shorter than this in all are not those of a head, mm.
const MIN_LENGTH_MM: f64 = 40.0;
/// Fewer sites than this are not a head. When the limit was set, 200 held-out phantoms showed 10 to
/// 13 sites, a real aorta 5.
const MIN_SITES: usize = 8;
/// A site counts as recognised when it has more voxels than this.
const MIN_SITE_VOXELS: usize = 20;

/// Why the series does not look like a head with visible arteries, if it does not.
fn why_abstain(map: &VesselMap, graph: &VesselGraph) -> Option<String> {
    let length = graph.length_mm();
    if length < MIN_LENGTH_MM {
        return Some(format!("only {length:.0} mm of arteries were found; is this a head with visible arteries?"));
    }
    let mut voxels_of = [0usize; 256];
    map.site.voxels.iter().for_each(|&v| voxels_of[usize::from(v)] += 1);
    let sites = (1..=13).filter(|&v| voxels_of[v] > MIN_SITE_VOXELS).count();
    (sites < MIN_SITES).then(|| format!("arteries of only {sites} of 13 sites were recognised; is this a head?"))
}
