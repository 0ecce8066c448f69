//! What is known of each series: its truth, its prediction, and how they agree.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use willis_core::anatomy::SITE_COUNT;
use willis_core::cohort::{Cohort, CohortSeries, HeaderContent, ScanTruth, SiteKnowledge};
use willis_core::files::{json as json_file, nifti};
use willis_core::{Candidate, Image, Lesion, Modality, Site};
use willis_imaging::detect::blob::{self, BlobConfig};
use willis_imaging::detect::excess::{self, ExcessConfig};
use willis_imaging::resample;
use willis_imaging::trace::{TraceConfig, graph_from_mask};
use willis_kernels::thinning::skeletonize;
use willis_stats::figure::Undefined;
use willis_stats::metrics::{self, detection::TOLERANCE_MM};

use super::measured::Measured;
use super::table::PredictionTable;
use crate::outputs::CandidatesFile;

/// Prediction and truth of one series.
pub struct EvaluatedSeries {
    /// Modality by the truth or, without one, by the table.
    pub modality: Option<Modality>,
    /// Whether there is an aneurysm at each site, and anywhere.
    pub labels: [bool; SITE_COUNT + 1],
    /// The fourteen probabilities.
    pub probabilities: [f64; SITE_COUNT + 1],
    /// True lesions.
    pub lesions: Vec<Lesion>,
    /// How a synthetic series was made.
    pub scan: Option<ScanTruth>,
    /// Best first; `None` without a candidate file.
    pub candidates: Option<Vec<Candidate>>,
    /// Rank of the first candidate that hits each lesion, from 1; `None` without candidates.
    pub ranks: Option<Vec<Option<usize>>>,
    /// The same for the blob detector on intensities; `None` where it was not run.
    pub blob_ranks: Option<Vec<Option<usize>>>,
    /// Probability of an aneurysm in the same head without its lesion.
    pub present_without: Option<f64>,
    /// Agreement of the vessel maps; `None` without one of them.
    pub overlap: Option<VesselOverlap>,
    /// Candidates of the baselines on the vessel map, if asked for.
    pub baselines: Option<Baselines>,
}

impl EvaluatedSeries {
    /// Probability of an aneurysm anywhere.
    pub fn present(&self) -> f64 {
        self.probabilities[SITE_COUNT]
    }

    /// Whether the sites of its lesions are known.
    pub fn knows_sites(&self) -> bool {
        self.scan.as_ref().is_none_or(|scan| scan.sites == SiteKnowledge::Known)
    }

    /// Whether a lesion is known to be at a site.
    pub fn is_at(&self, lesion: &Lesion, site: Site) -> bool {
        self.knows_sites() && lesion.site == site
    }

    /// The head and scanner that it shares with another series, if any.
    pub fn pair(&self) -> Option<&str> {
        self.scan.as_ref()?.pair.as_deref()
    }
}

/// Agreement of the predicted vessels with the true ones.
pub struct VesselOverlap {
    /// Dice overlap.
    pub dice: Result<f64, Undefined>,
    /// Overlap of the centrelines.
    pub cldice: Result<f64, Undefined>,
}

/// Candidates of detectors without learning, in the predicted vessel map.
pub struct Baselines {
    /// Bright balls.
    pub blob: Vec<Candidate>,
    /// Wide places of the vessel graph.
    pub excess: Vec<Candidate>,
}

/// Every series of `cohort` with a row in `table`, whose results are in folders of `results`.
///
/// # Errors
/// when a label map cannot be read
pub fn read(
    cohort: &Cohort,
    table: &PredictionTable,
    results: &Path,
    with_baselines: bool,
) -> anyhow::Result<Vec<EvaluatedSeries>> {
    let mut evaluated = Vec::new();
    for series in &cohort.series {
        if let Some(&probabilities) = table.get(&series.meta.uid) {
            evaluated.push(read_one(series, probabilities, &results.join(&series.meta.uid), with_baselines)?);
        }
    }
    let without: HashMap<String, f64> = evaluated
        .iter()
        .filter(|series| series.lesions.is_empty())
        .filter_map(|series| Some((series.pair()?.to_string(), series.present())))
        .collect();
    for series in evaluated.iter_mut().filter(|series| !series.lesions.is_empty()) {
        series.present_without = series.pair().and_then(|pair| without.get(pair)).copied();
    }
    Ok(evaluated)
}

/// Indices of the series of each head. Series outside of pairs have a head of their own.
pub fn heads(series: &[EvaluatedSeries]) -> Vec<Vec<usize>> {
    let mut heads: Vec<Vec<usize>> = Vec::new();
    let mut of_pair: BTreeMap<&str, usize> = BTreeMap::new();
    for (i, each) in series.iter().enumerate() {
        let head = each.pair().map_or(heads.len(), |pair| *of_pair.entry(pair).or_insert(heads.len()));
        if head == heads.len() {
            heads.push(Vec::new());
        }
        heads[head].push(i);
    }
    heads
}

fn read_one(
    series: &CohortSeries,
    probabilities: [f64; SITE_COUNT + 1],
    results: &Path,
    with_baselines: bool,
) -> anyhow::Result<EvaluatedSeries> {
    let mut labels = [false; SITE_COUNT + 1];
    labels[..SITE_COUNT].copy_from_slice(&series.sites);
    labels[SITE_COUNT] = series.present;
    let truth = series.truth.as_ref();
    let lesions = truth.map_or_else(Vec::new, |truth| truth.lesions.clone());
    let scan = truth.and_then(|truth| truth.scan.clone());
    let measured = Measured::read(results);
    // Where the header had no geometry, positions refer to a guessed grid.
    let guessed = scan.as_ref().filter(|scan| scan.header == HeaderContent::BareFrames);
    let placed = |candidates: Vec<Candidate>| match (guessed, &measured) {
        (Some(scan), Some(measured)) => {
            let moved = |c: Candidate| Some(Candidate { centre: scan.from_assumed(&measured.grid, c.centre)?, ..c });
            candidates.into_iter().filter_map(moved).collect()
        }
        _ => candidates,
    };
    let candidates = read_candidates(&results.join("candidates.json")).map(placed);
    let blobs = measured.as_ref().map(|measured| placed(measured.blob_candidates()));
    let vessels = results.join("vessels.nii.gz");
    Ok(EvaluatedSeries {
        modality: truth.and_then(|truth| truth.series.modality).or(series.meta.modality),
        labels,
        probabilities,
        ranks: candidates.as_deref().map(|candidates| ranks(candidates, &lesions)),
        blob_ranks: blobs.as_deref().map(|blobs| ranks(blobs, &lesions)),
        present_without: None,
        overlap: if guessed.is_none() { overlap(series, &vessels)? } else { None },
        baselines: if with_baselines && vessels.exists() { Some(baselines(&vessels)?) } else { None },
        lesions,
        scan,
        candidates,
    })
}

/// Rank of the first candidate that hits each lesion, by falling probability.
fn ranks(candidates: &[Candidate], lesions: &[Lesion]) -> Vec<Option<usize>> {
    let mut hits = metrics::detections(candidates, lesions, TOLERANCE_MM).candidates;
    hits.sort_by(|a, b| b.0.total_cmp(&a.0));
    let first = |lesion: usize| hits.iter().position(|(_, hit)| *hit == Some(lesion)).map(|i| i + 1);
    (0..lesions.len()).map(first).collect()
}

fn read_candidates(path: &Path) -> Option<Vec<Candidate>> {
    let file: CandidatesFile = json_file::read(path).ok()?;
    Some(file.candidates.iter().map(Candidate::from).collect())
}

fn overlap(series: &CohortSeries, predicted: &Path) -> anyhow::Result<Option<VesselOverlap>> {
    let (true, Some(truth)) = (predicted.exists(), &series.sites_file) else { return Ok(None) };
    let predicted = nifti::read_labels(predicted)?;
    let truth = resample::nearest(&nifti::read_labels(truth)?, &predicted.grid, 0);
    let binary = |image: &Image<u8>| -> Vec<u8> { image.voxels.iter().map(|&v| u8::from(v > 0)).collect() };
    let (p, t) = (binary(&predicted), binary(&truth));
    let shape = predicted.grid.shape.zyx();
    let (p_skeleton, t_skeleton) = (skeletonize(&p, shape), skeletonize(&t, shape));
    Ok(Some(VesselOverlap { dice: metrics::dice(&p, &t), cldice: metrics::cldice(&p, &p_skeleton, &t, &t_skeleton) }))
}

fn baselines(vessels: &Path) -> anyhow::Result<Baselines> {
    let mask = nifti::read_labels(vessels)?.map(|&v| u8::from(v > 0));
    let graph = graph_from_mask(&mask, &TraceConfig::default());
    let blob = blob::candidates(&mask.map(|&v| f32::from(v)), None, &BlobConfig::default());
    Ok(Baselines { blob, excess: excess::candidates(&graph, &ExcessConfig::default()) })
}
