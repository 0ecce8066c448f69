//! `willis evaluate`: predictions against the truth. Every figure has a percentile bootstrap
//! interval over series; a figure that is undefined is `n/a`.

use std::path::Path;

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use willis_core::anatomy::{ANEURYSM_PRESENT, SITE_COUNT, column_names};
use willis_core::cohort::{self, Cohort, CohortSeries};
use willis_core::files::{json as json_file, nifti};
use willis_core::{Candidate, Image, Lesion, Modality, Site};
use willis_imaging::detect::blob::{self, BlobConfig};
use willis_imaging::detect::excess::{self, ExcessConfig};
use willis_imaging::resample;
use willis_imaging::trace::{TraceConfig, graph_from_mask};
use willis_kernels::thinning::skeletonize;
use willis_stats::bootstrap::{Interval, interval};
use willis_stats::metrics::detection::TOLERANCE_MM;
use willis_stats::metrics::{self, ChallengeScore, SeriesDetections};

use super::Outcome;
use crate::cli::{EvaluateArgs, Format};
use crate::outputs::CandidatesFile;

/// Everything that is scored of one series.
struct Scored {
    modality: Option<Modality>,
    labels: [bool; SITE_COUNT + 1],
    probabilities: [f64; SITE_COUNT + 1],
    lesions: Vec<Lesion>,
    /// Best first; `None` without a candidate file.
    candidates: Option<Vec<Candidate>>,
    overlap: Option<Overlap>,
    baselines: Option<Baselines>,
}

/// What detectors without learning find in the predicted vessel map.
struct Baselines {
    blob: Vec<Candidate>,
    excess: Vec<Candidate>,
}

struct Overlap {
    dice: Option<f64>,
    cldice: Option<f64>,
}

/// The candidates of one of the baselines.
type Found = fn(&Baselines) -> &[Candidate];

/// A figure with its interval.
struct Figure {
    name: String,
    value: Option<f64>,
    interval: Option<Interval>,
    note: String,
}

/// Runs the command.
pub fn run(args: &EvaluateArgs) -> anyhow::Result<Outcome> {
    let cohort = cohort::read(&args.data)?;
    let (scored, missing) = score(&cohort, args)?;
    ensure!(!scored.is_empty(), "no series of {} has a row in {}", args.data.display(), args.predictions.display());
    let figures = figures(&scored, args.bootstrap);
    match args.format {
        Format::Json => println!("{}", serde_json::to_string_pretty(&as_json(&figures, &scored, missing))?),
        Format::Text => print_table(&figures, scored.len(), missing),
    }
    Ok(if missing == 0 { Outcome::Done } else { Outcome::SomeFailed })
}

fn score(cohort: &Cohort, args: &EvaluateArgs) -> anyhow::Result<(Vec<Scored>, usize)> {
    let predictions = &args.predictions;
    let table = read_predictions(predictions)?;
    let folder = predictions.parent().unwrap_or(Path::new("."));
    let mut scored = Vec::new();
    let mut missing = 0;
    for series in &cohort.series {
        let Some(&probabilities) = table.get(&series.meta.uid) else {
            missing += 1;
            continue;
        };
        let mut labels = [false; SITE_COUNT + 1];
        labels[..SITE_COUNT].copy_from_slice(&series.sites);
        labels[SITE_COUNT] = series.present;
        let lesions = series.truth.as_ref().map_or_else(Vec::new, |t| t.lesions.clone());
        let results = folder.join(&series.meta.uid);
        let vessels = results.join("vessels.nii.gz");
        scored.push(Scored {
            modality: series.meta.modality,
            labels,
            probabilities,
            candidates: read_candidates(&results.join("candidates.json")),
            overlap: overlap(series, &vessels)?,
            baselines: if args.baselines && vessels.exists() { Some(baselines(&vessels)?) } else { None },
            lesions,
        });
    }
    Ok((scored, missing))
}

type PredictionTable = std::collections::BTreeMap<String, [f64; SITE_COUNT + 1]>;

fn read_predictions(path: &Path) -> anyhow::Result<PredictionTable> {
    let name = path.display();
    let mut reader = csv::Reader::from_path(path).with_context(|| format!("cannot read {name}"))?;
    let header = reader.headers()?.clone();
    let column = |wanted: &str| {
        header.iter().position(|h| h == wanted).with_context(|| format!("{name} has no column \"{wanted}\""))
    };
    let uid = column("SeriesInstanceUID")?;
    let columns = column_names().map(column).collect::<anyhow::Result<Vec<_>>>()?;
    let mut table = PredictionTable::new();
    for (line, row) in reader.records().enumerate() {
        let row = row?;
        let mut values = [0.0; SITE_COUNT + 1];
        for (value, &c) in values.iter_mut().zip(&columns) {
            *value =
                row[c].parse().with_context(|| format!("{name}, row {}: \"{}\" is not a number", line + 2, &row[c]))?;
        }
        table.insert(row[uid].to_string(), values);
    }
    Ok(table)
}

fn read_candidates(path: &Path) -> Option<Vec<Candidate>> {
    let file: CandidatesFile = json_file::read(path).ok()?;
    Some(file.candidates.iter().map(Candidate::from).collect())
}

fn overlap(series: &CohortSeries, predicted: &Path) -> anyhow::Result<Option<Overlap>> {
    let (true, Some(truth)) = (predicted.exists(), &series.sites_file) else { return Ok(None) };
    let predicted = nifti::read_labels(predicted)?;
    let truth = resample::nearest(&nifti::read_labels(truth)?, &predicted.grid, 0);
    let binary = |image: &Image<u8>| -> Vec<u8> { image.voxels.iter().map(|&v| u8::from(v > 0)).collect() };
    let (p, t) = (binary(&predicted), binary(&truth));
    let shape = predicted.grid.shape.zyx();
    let (p_skeleton, t_skeleton) = (skeletonize(&p, shape), skeletonize(&t, shape));
    Ok(Some(Overlap {
        dice: metrics::dice(&p, &t).ok(),
        cldice: metrics::cldice(&p, &p_skeleton, &t, &t_skeleton).ok(),
    }))
}

fn baselines(vessels: &Path) -> anyhow::Result<Baselines> {
    let mask = nifti::read_labels(vessels)?.map(|&v| u8::from(v > 0));
    let graph = graph_from_mask(&mask, &TraceConfig::default());
    let blob = blob::candidates(&mask.map(|&v| f32::from(v)), None, &BlobConfig::default());
    Ok(Baselines { blob, excess: excess::candidates(&graph, &ExcessConfig::default()) })
}

fn figures(scored: &[Scored], samples: usize) -> Vec<Figure> {
    let figure = |name: &str, note: &str, f: &(dyn Fn(&[&Scored]) -> Option<f64> + Sync)| {
        let all: Vec<&Scored> = scored.iter().collect();
        let resampled = |sample: &[usize]| f(&sample.iter().map(|&i| &scored[i]).collect::<Vec<_>>());
        Figure {
            name: name.into(),
            value: f(&all),
            interval: interval(scored.len(), 0, samples, resampled),
            note: note.into(),
        }
    };
    let mut figures = vec![figure("challenge score", "half present, half mean of sites", &|s| score_of(s).score.ok())];
    figures.push(figure("challenge score of the defined columns", "not comparable when a column is n/a", &|s| {
        score_of(s).score_of_defined.ok()
    }));
    for (i, name) in column_names().enumerate() {
        let positives = scored.iter().filter(|s| s.labels[i]).count();
        figures.push(figure(&format!("AUC {name}"), &format!("{positives} positive"), &|s| auc(s, i)));
    }
    let present = |s: &[&Scored]| (column(s, SITE_COUNT), labels(s, SITE_COUNT));
    figures.push(figure("Brier score, present", "lower is better", &|s| {
        let (p, y) = present(s);
        metrics::brier(&p, &y).ok()
    }));
    figures.push(figure("expected calibration error, present", "10 bins", &|s| {
        let (p, y) = present(s);
        metrics::expected_calibration_error(&p, &y, 10).ok()
    }));
    for k in [1, 5, 15] {
        figures.push(figure(&format!("lesion recall at {k}"), "all lesions", &|s| recall(s, k, &|_| true)));
    }
    let detectors: [(&str, Found); 2] = [("blobs of the vessel map", |b| &b.blob), ("radius excess", |b| &b.excess)];
    for (name, found) in detectors {
        if scored.iter().any(|s| s.baselines.is_some()) {
            for k in [1, 5, 15] {
                figures.push(figure(&format!("baseline, {name}: lesion recall at {k}"), "no learning", &|s| {
                    let one = |s: &&Scored| {
                        let found = found(s.baselines.as_ref()?);
                        Some(metrics::detection::detections(found, &s.lesions, TOLERANCE_MM))
                    };
                    metrics::detection::recall_at(&s.iter().map(one).collect::<Option<Vec<_>>>()?, k).ok()
                }));
            }
        }
    }
    let bands: [(&str, f64, f64); 3] =
        [("below 3 mm", 0.0, 3.0), ("3 to 7 mm", 3.0, 7.0), ("above 7 mm", 7.0, f64::INFINITY)];
    for (name, low, high) in bands {
        let inside = move |lesion: &Lesion| lesion.diameter_mm.is_some_and(|d| d >= low && d < high);
        figures.push(figure(&format!("lesion recall at 15, {name}"), &count(scored, &inside), &|s| {
            recall(s, 15, &inside)
        }));
    }
    for site in Site::ALL {
        let inside = move |lesion: &Lesion| lesion.site == site;
        figures.push(figure(&format!("lesion recall at 15, {}", site.name()), &count(scored, &inside), &|s| {
            recall(s, 15, &inside)
        }));
    }
    for modality in Modality::ALL {
        let series = scored.iter().filter(|s| s.modality == Some(modality)).count();
        let note = format!("{series} series");
        figures.push(figure(&format!("AUC {ANEURYSM_PRESENT}, {}", modality.name()), &note, &|s| {
            auc(&of_modality(s, modality), SITE_COUNT)
        }));
        figures.push(figure(&format!("lesion recall at 15, {}", modality.name()), &note, &|s| {
            recall(&of_modality(s, modality), 15, &|_| true)
        }));
        figures.push(figure(&format!("vessel Dice, {}", modality.name()), &note, &|s| {
            mean(&of_modality(s, modality), |o| o.dice)
        }));
    }
    for rate in metrics::Froc::STANDARD_RATES {
        figures.push(figure(&format!("FROC sensitivity at {rate} false positives per scan"), "", &|s| {
            sensitivity_at(s, rate)
        }));
    }
    figures.push(figure("vessel Dice", "arteries against everything else", &|s| mean(s, |o| o.dice)));
    figures.push(figure("vessel clDice", "Lee skeletons", &|s| mean(s, |o| o.cldice)));
    figures
}

fn column(scored: &[&Scored], i: usize) -> Vec<f64> {
    scored.iter().map(|s| s.probabilities[i]).collect()
}

fn labels(scored: &[&Scored], i: usize) -> Vec<bool> {
    scored.iter().map(|s| s.labels[i]).collect()
}

fn auc(scored: &[&Scored], i: usize) -> Option<f64> {
    metrics::auroc(&column(scored, i), &labels(scored, i)).ok()
}

fn score_of(scored: &[&Scored]) -> ChallengeScore {
    let predictions: Vec<_> = scored.iter().map(|s| s.probabilities).collect();
    let labels: Vec<_> = scored.iter().map(|s| s.labels).collect();
    metrics::challenge_score(&predictions, &labels)
}

fn of_modality<'a>(scored: &[&'a Scored], modality: Modality) -> Vec<&'a Scored> {
    scored.iter().copied().filter(|s| s.modality == Some(modality)).collect()
}

fn count(scored: &[Scored], inside: &dyn Fn(&Lesion) -> bool) -> String {
    format!("{} lesions", scored.iter().flat_map(|s| &s.lesions).filter(|l| inside(l)).count())
}

fn detected(scored: &[&Scored], inside: &dyn Fn(&Lesion) -> bool) -> Option<Vec<SeriesDetections>> {
    let one = |s: &&Scored| {
        let lesions: Vec<Lesion> = s.lesions.iter().filter(|l| inside(l)).cloned().collect();
        Some(metrics::detection::detections(s.candidates.as_ref()?, &lesions, TOLERANCE_MM))
    };
    scored.iter().map(one).collect()
}

/// Share of lesions that one of the first `k` candidates of their series hits.
fn recall(scored: &[&Scored], k: usize, inside: &dyn Fn(&Lesion) -> bool) -> Option<f64> {
    metrics::detection::recall_at(&detected(scored, inside)?, k).ok()
}

fn sensitivity_at(scored: &[&Scored], rate: f64) -> Option<f64> {
    Some(metrics::froc(&detected(scored, &|_| true)?).ok()?.sensitivity_at(rate))
}

fn mean(scored: &[&Scored], of: impl Fn(&Overlap) -> Option<f64>) -> Option<f64> {
    let values: Vec<f64> = scored.iter().filter_map(|s| s.overlap.as_ref().and_then(&of)).collect();
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

fn print_table(figures: &[Figure], series: usize, missing: usize) {
    let mut table = comfy_table::Table::new();
    table.load_preset(comfy_table::presets::NOTHING).set_header(["figure", "value", "95 % interval", ""]);
    let number = |v: f64| format!("{v:.3}");
    for f in figures {
        let interval = f.interval.map_or("n/a".into(), |i| format!("{} to {}", number(i.lo), number(i.hi)));
        table.add_row([f.name.clone(), f.value.map_or("n/a".into(), number), interval, f.note.clone()]);
    }
    println!("{table}");
    println!("{series} series scored, {missing} without a prediction");
}

fn as_json(figures: &[Figure], scored: &[Scored], missing: usize) -> Value {
    let value_of = |name: &str| figures.iter().find(|f| f.name == name).and_then(|f| f.value);
    let auc: serde_json::Map<_, _> =
        column_names().map(|name| (name.to_string(), json!(value_of(&format!("AUC {name}"))))).collect();
    let list: Vec<_> = figures
        .iter()
        .map(
            |f| json!({"name": f.name, "value": f.value, "interval": f.interval.map(|i| [i.lo, i.hi]), "note": f.note}),
        )
        .collect();
    json!({
        "series": scored.len(),
        "missing": missing,
        "challenge_score": value_of("challenge score"),
        "auc": auc,
        "figures": list,
    })
}
