//! `willis evaluate`: predictions against the truth.

mod figures;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, bail, ensure};
use serde_json::{Map, Value, json};
use willis_core::anatomy::{SITE_COUNT, column_names};
use willis_core::cohort::{self, Cohort, CohortSeries};
use willis_core::files::{json as json_file, nifti};
use willis_core::{Candidate, Image, Lesion, Modality};
use willis_imaging::detect::blob::{self, BlobConfig};
use willis_imaging::detect::excess::{self, ExcessConfig};
use willis_imaging::resample;
use willis_imaging::trace::{TraceConfig, graph_from_mask};
use willis_kernels::thinning::skeletonize;
use willis_stats::figure::Undefined;
use willis_stats::metrics;

use super::Outcome;
use crate::cli::{EvaluateArgs, Format};
use crate::outputs::CandidatesFile;
use crate::scoreboard::Scoreboard;

/// Prediction and truth of one series.
struct EvaluatedSeries {
    modality: Option<Modality>,
    labels: [bool; SITE_COUNT + 1],
    probabilities: [f64; SITE_COUNT + 1],
    lesions: Vec<Lesion>,
    /// Best first; `None` without a candidate file.
    candidates: Option<Vec<Candidate>>,
    /// Agreement of the vessel maps; `None` without one of them.
    overlap: Option<VesselOverlap>,
    baselines: Option<Baselines>,
}

/// Agreement of the predicted vessels with the true ones.
struct VesselOverlap {
    dice: Result<f64, Undefined>,
    cldice: Result<f64, Undefined>,
}

/// Candidates of detectors without learning, in the predicted vessel map.
struct Baselines {
    blob: Vec<Candidate>,
    excess: Vec<Candidate>,
}

/// Runs the command.
pub fn run(args: &EvaluateArgs) -> anyhow::Result<Outcome> {
    let cohort = cohort::read(&args.data)?;
    let (evaluated, missing) = read(&cohort, args)?;
    ensure!(!evaluated.is_empty(), "no series of {} has a row in {}", args.data.display(), args.predictions.display());
    let scoreboard = figures::scoreboard(&evaluated, args.bootstrap);
    match args.format {
        Format::Json => println!("{}", serde_json::to_string_pretty(&to_json(&scoreboard, missing)?)?),
        Format::Text => {
            println!("{scoreboard}\n{} series scored, {missing} without a prediction", evaluated.len());
        }
    }
    Ok(if missing == 0 { Outcome::Done } else { Outcome::SomeFailed })
}

/// The scoreboard with the figures of the challenge on top.
fn to_json(scoreboard: &Scoreboard, missing: usize) -> anyhow::Result<Value> {
    let auc: Map<_, _> =
        column_names().map(|column| (column.to_string(), json!(scoreboard.value(&figures::auc_id(column))))).collect();
    let mut json = serde_json::to_value(scoreboard)?;
    json["missing"] = json!(missing);
    json["challenge_score"] = json!(scoreboard.value(figures::CHALLENGE_SCORE));
    json["auc"] = Value::Object(auc);
    Ok(json)
}

/// Every series with a row in the table of predictions, and the number of those without one.
fn read(cohort: &Cohort, args: &EvaluateArgs) -> anyhow::Result<(Vec<EvaluatedSeries>, usize)> {
    let table = read_predictions(&args.predictions)?;
    let folder = args.predictions.parent().unwrap_or(Path::new("."));
    let mut evaluated = Vec::new();
    for series in &cohort.series {
        let Some(&probabilities) = table.get(&series.meta.uid) else { continue };
        let mut labels = [false; SITE_COUNT + 1];
        labels[..SITE_COUNT].copy_from_slice(&series.sites);
        labels[SITE_COUNT] = series.present;
        let results = folder.join(&series.meta.uid);
        let vessels = results.join("vessels.nii.gz");
        evaluated.push(EvaluatedSeries {
            modality: series.meta.modality,
            labels,
            probabilities,
            lesions: series.truth.as_ref().map_or_else(Vec::new, |truth| truth.lesions.clone()),
            candidates: read_candidates(&results.join("candidates.json")),
            overlap: overlap(series, &vessels)?,
            baselines: if args.baselines && vessels.exists() { Some(baselines(&vessels)?) } else { None },
        });
    }
    let missing = cohort.series.len() - evaluated.len();
    Ok((evaluated, missing))
}

/// Probabilities of the fourteen columns by series instance UID.
type PredictionTable = BTreeMap<String, [f64; SITE_COUNT + 1]>;

fn read_predictions(path: &Path) -> anyhow::Result<PredictionTable> {
    let name = path.display().to_string();
    let file = File::open(path).with_context(|| format!("cannot read {name}"))?;
    parse_predictions(file, &name)
}

/// Reads a table of predictions; `name` is that of the file, for messages.
///
/// # Errors
/// for the first row that repeats a series, or has a value that is not a probability.
fn parse_predictions(table: impl Read, name: &str) -> anyhow::Result<PredictionTable> {
    let mut reader = csv::Reader::from_reader(table);
    let header = reader.headers().with_context(|| format!("cannot read {name}"))?.clone();
    let column = |wanted: &str| {
        header.iter().position(|h| h == wanted).with_context(|| format!("{name} has no column \"{wanted}\""))
    };
    let uid = column("SeriesInstanceUID")?;
    let columns = column_names().map(|c| Ok((c, column(c)?))).collect::<anyhow::Result<Vec<_>>>()?;
    let mut rows = BTreeMap::<String, (usize, [f64; SITE_COUNT + 1])>::new();
    for (index, row) in reader.records().enumerate() {
        let line = index + 2;
        let row = row.with_context(|| format!("{name}, row {line} cannot be read"))?;
        let mut values = [0.0; SITE_COUNT + 1];
        for (value, &(title, c)) in values.iter_mut().zip(&columns) {
            *value = row[c].trim().parse().ok().filter(|p| (0.0..=1.0).contains(p)).with_context(|| {
                format!("{name}, row {line}, column \"{title}\": \"{}\" is not a probability from 0 to 1", &row[c])
            })?;
        }
        if let Some((first, _)) = rows.insert(row[uid].to_string(), (line, values)) {
            bail!("{name}, row {line} repeats the series of row {first}; keep one row for each series");
        }
    }
    Ok(rows.into_iter().map(|(uid, (_, values))| (uid, values)).collect())
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A table of two series, in which the last value of the second is `value`.
    fn table(second: &str, value: &str) -> String {
        let header: Vec<&str> = column_names().collect();
        let halves = vec!["0.5"; SITE_COUNT].join(",");
        format!("SeriesInstanceUID,{}\n1.2,{halves},1\n{second},{halves},{value}\n", header.join(","))
    }

    #[test]
    fn rows_that_are_no_predictions_are_named() {
        let read = |second, value| parse_predictions(table(second, value).as_bytes(), "p.csv");
        assert_eq!(read("1.3", "0").unwrap().len(), 2);
        for value in ["NaN", "inf", "-inf", "1.7", "-3", "", "high", "1e-400x"] {
            let error = read("1.3", value).unwrap_err().to_string();
            assert!(error.starts_with("p.csv, row 3, column \"Aneurysm Present\""), "{error}");
        }
        let error = read("1.2", "0.25").unwrap_err().to_string();
        assert!(error.contains("row 3 repeats the series of row 2"), "{error}");
        assert!(parse_predictions(&b"a,b\n1,2\n"[..], "p.csv").unwrap_err().to_string().contains("no column"));
    }
}
