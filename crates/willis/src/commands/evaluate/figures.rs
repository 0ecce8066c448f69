//! The figures of `willis evaluate`.

use willis_core::anatomy::{ANEURYSM_PRESENT, SITE_COUNT, column_names};
use willis_core::{Candidate, Lesion, Modality, Site};
use willis_stats::figure::Undefined;
use willis_stats::metrics::detection::TOLERANCE_MM;
use willis_stats::metrics::{self, ChallengeScore, SeriesDetections};

use super::{Baselines, EvaluatedSeries, VesselOverlap};
use crate::scoreboard::Scoreboard;

/// Identifier of the challenge's score.
pub const CHALLENGE_SCORE: &str = "challenge_score";

/// Numbers of candidates at which lesion recall is reported.
const RECALL_RANKS: [usize; 3] = [1, 5, 15];
/// Number of candidates for the recall of parts of the lesions.
const RANK: usize = 15;
/// Bins of the calibration error.
const CALIBRATION_BINS: usize = 10;

/// Bands of lesion diameter: identifier, name, least and upper diameter in mm.
const DIAMETER_BANDS: [(&str, &str, f64, f64); 3] = [
    ("below_3_mm", "below 3 mm", 0.0, 3.0),
    ("3_to_7_mm", "3 to 7 mm", 3.0, 7.0),
    ("above_7_mm", "above 7 mm", 7.0, f64::INFINITY),
];

/// Candidates of one of the baselines.
type BaselineCandidates = fn(&Baselines) -> &[Candidate];
/// Identifier, name and candidates of the baselines.
const BASELINES: [(&str, &str, BaselineCandidates); 2] =
    [("blob", "blobs of the vessel map", |b| &b.blob), ("radius_excess", "radius excess", |b| &b.excess)];

/// Identifier of a column's area under the ROC curve.
pub fn auc_id(column: &str) -> String {
    format!("auc_{}", slug(column))
}

/// Lower-case words joined by underscores.
fn slug(name: &str) -> String {
    name.to_ascii_lowercase().replace(' ', "_")
}

/// A part of the evaluated series, with repeats in a bootstrap sample.
type Sample<'a> = [&'a EvaluatedSeries];

/// All figures, with intervals from `samples` bootstrap samples.
pub fn scoreboard(series: &[EvaluatedSeries], samples: usize) -> Scoreboard {
    let mut board = Board { series, scoreboard: Scoreboard::new(series.len(), samples) };
    board.add_challenge();
    board.add_calibration();
    board.add_recall();
    board.add_baselines();
    board.add_recall_of_parts();
    board.add_modalities();
    for rate in metrics::Froc::STANDARD_RATES {
        let name = format!("FROC sensitivity at {rate} false positives per scan");
        board.add(format!("froc_sensitivity_at_{rate}"), name, "", |s| {
            Ok(metrics::froc(&detections(s, &|_| true)?)?.sensitivity_at(rate))
        });
    }
    board.add("vessel_dice", "vessel Dice", "arteries against everything else", |s| mean(s, |o| o.dice));
    board.add("vessel_cldice", "vessel clDice", "Lee skeletons", |s| mean(s, |o| o.cldice));
    board.scoreboard
}

/// The scoreboard that is being filled.
struct Board<'a> {
    series: &'a [EvaluatedSeries],
    scoreboard: Scoreboard,
}

impl Board<'_> {
    fn add(
        &mut self,
        id: impl Into<String>,
        name: impl Into<String>,
        note: impl Into<String>,
        metric: impl Fn(&Sample<'_>) -> Result<f64, Undefined> + Sync,
    ) {
        let series = self.series;
        self.scoreboard.add(id, name, note, |sample| metric(&sample.iter().map(|&i| &series[i]).collect::<Vec<_>>()));
    }

    fn add_challenge(&mut self) {
        let note = "half present, half mean of sites";
        self.add(CHALLENGE_SCORE, "challenge score", note, |s| challenge_score(s).score);
        let note = "not comparable when a column is n/a";
        self.add("challenge_score_of_defined", "challenge score of the defined columns", note, |s| {
            challenge_score(s).score_of_defined
        });
        for (i, column) in column_names().enumerate() {
            let positives = self.series.iter().filter(|s| s.labels[i]).count();
            self.add(auc_id(column), format!("AUC {column}"), format!("{positives} positive"), |s| auc(s, i));
        }
    }

    fn add_calibration(&mut self) {
        self.add("brier_present", "Brier score, present", "lower is better", |s| {
            metrics::brier(&column(s, SITE_COUNT), &labels(s, SITE_COUNT))
        });
        let (name, note) = ("expected calibration error, present", format!("{CALIBRATION_BINS} bins"));
        self.add("calibration_error_present", name, note, |s| {
            metrics::expected_calibration_error(&column(s, SITE_COUNT), &labels(s, SITE_COUNT), CALIBRATION_BINS)
        });
    }

    fn add_recall(&mut self) {
        for k in RECALL_RANKS {
            let (id, name) = (format!("lesion_recall_at_{k}"), format!("lesion recall at {k}"));
            self.add(id, name, "all lesions", |s| recall(s, k, &|_| true));
        }
    }

    fn add_baselines(&mut self) {
        if self.series.iter().all(|s| s.baselines.is_none()) {
            return;
        }
        for (id, name, candidates) in BASELINES {
            for k in RECALL_RANKS {
                let (id, name) =
                    (format!("{id}_lesion_recall_at_{k}"), format!("baseline, {name}: lesion recall at {k}"));
                self.add(id, name, "no learning", |s| {
                    let found = |s: &&EvaluatedSeries| {
                        let candidates = candidates(s.baselines.as_ref().ok_or(Undefined::NotMeasured)?);
                        Ok(metrics::detections(candidates, &s.lesions, TOLERANCE_MM))
                    };
                    metrics::recall_at(&s.iter().map(found).collect::<Result<Vec<_>, Undefined>>()?, k)
                });
            }
        }
    }

    fn add_recall_of_parts(&mut self) {
        for (id, name, low, high) in DIAMETER_BANDS {
            self.add_recall_of(id, name, move |lesion| lesion.diameter_mm.is_some_and(|d| d >= low && d < high));
        }
        for site in Site::ALL {
            self.add_recall_of(&slug(site.name()), site.name(), move |lesion| lesion.site == site);
        }
    }

    fn add_recall_of(&mut self, id: &str, name: &str, is_part: impl Fn(&Lesion) -> bool + Sync) {
        let lesions = self.series.iter().flat_map(|s| &s.lesions).filter(|l| is_part(l)).count();
        let (id, name) = (format!("lesion_recall_at_{RANK}_{id}"), format!("lesion recall at {RANK}, {name}"));
        self.add(id, name, format!("{lesions} lesions"), |s| recall(s, RANK, &is_part));
    }

    fn add_modalities(&mut self) {
        for modality in Modality::ALL {
            let count = self.series.iter().filter(|s| s.modality == Some(modality)).count();
            let (note, name, id) = (format!("{count} series"), modality.name(), slug(modality.name()));
            let auc_name = format!("AUC {ANEURYSM_PRESENT}, {name}");
            self.add(format!("{}_{id}", auc_id(ANEURYSM_PRESENT)), auc_name, &note, |s| {
                auc(&of_modality(s, modality), SITE_COUNT)
            });
            let recall_name = format!("lesion recall at {RANK}, {name}");
            self.add(format!("lesion_recall_at_{RANK}_{id}"), recall_name, &note, |s| {
                recall(&of_modality(s, modality), RANK, &|_| true)
            });
            self.add(format!("vessel_dice_{id}"), format!("vessel Dice, {name}"), &note, |s| {
                mean(&of_modality(s, modality), |o| o.dice)
            });
        }
    }
}

fn of_modality<'a>(sample: &Sample<'a>, modality: Modality) -> Vec<&'a EvaluatedSeries> {
    sample.iter().copied().filter(|s| s.modality == Some(modality)).collect()
}

fn column(sample: &Sample<'_>, i: usize) -> Vec<f64> {
    sample.iter().map(|s| s.probabilities[i]).collect()
}

fn labels(sample: &Sample<'_>, i: usize) -> Vec<bool> {
    sample.iter().map(|s| s.labels[i]).collect()
}

fn auc(sample: &Sample<'_>, i: usize) -> Result<f64, Undefined> {
    metrics::auroc(&column(sample, i), &labels(sample, i))
}

fn challenge_score(sample: &Sample<'_>) -> ChallengeScore {
    let predictions: Vec<_> = sample.iter().map(|s| s.probabilities).collect();
    let labels: Vec<_> = sample.iter().map(|s| s.labels).collect();
    metrics::challenge_score(&predictions, &labels)
}

/// Candidates of each series, matched with those lesions that count.
fn detections(sample: &Sample<'_>, counts: &dyn Fn(&Lesion) -> bool) -> Result<Vec<SeriesDetections>, Undefined> {
    let one = |s: &&EvaluatedSeries| {
        let lesions: Vec<Lesion> = s.lesions.iter().filter(|l| counts(l)).cloned().collect();
        let candidates = s.candidates.as_ref().ok_or(Undefined::NotMeasured)?;
        Ok(metrics::detections(candidates, &lesions, TOLERANCE_MM))
    };
    sample.iter().map(one).collect()
}

/// Share of those lesions that count which one of the first `k` candidates of their series hits.
fn recall(sample: &Sample<'_>, k: usize, counts: &dyn Fn(&Lesion) -> bool) -> Result<f64, Undefined> {
    metrics::recall_at(&detections(sample, counts)?, k)
}

/// Mean over the series for which the metric is defined.
fn mean(sample: &Sample<'_>, of: fn(&VesselOverlap) -> Result<f64, Undefined>) -> Result<f64, Undefined> {
    let results: Vec<_> = sample.iter().filter_map(|s| s.overlap.as_ref()).map(of).collect();
    let values: Vec<f64> = results.iter().filter_map(|result| result.ok()).collect();
    if values.is_empty() {
        return Err(results.iter().find_map(|result| result.err()).unwrap_or(Undefined::NotMeasured));
    }
    Ok(values.iter().sum::<f64>() / values.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(present: bool) -> EvaluatedSeries {
        let mut labels = [false; SITE_COUNT + 1];
        labels[SITE_COUNT] = present;
        EvaluatedSeries {
            modality: Some(Modality::Mra),
            labels,
            probabilities: [0.5; SITE_COUNT + 1],
            lesions: Vec::new(),
            candidates: Some(Vec::new()),
            overlap: None,
            baselines: None,
        }
    }

    #[test]
    fn identifiers_are_words_joined_by_underscores() {
        let board = serde_json::to_value(scoreboard(&[series(true), series(false)], 10)).unwrap();
        for figure in board["figures"].as_array().unwrap() {
            let id = figure["id"].as_str().unwrap();
            let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '.';
            assert!(id.chars().all(is_plain), "{id}");
        }
    }

    #[test]
    fn figures_without_a_basis_are_undefined() {
        let board = scoreboard(&[series(true), series(false)], 10);
        assert_eq!(board.value(&auc_id(ANEURYSM_PRESENT)), Some(0.5));
        for id in
            ["challenge_score", "auc_basilar_tip", "lesion_recall_at_15", "vessel_dice", "auc_aneurysm_present_cta"]
        {
            assert_eq!(board.value(id), None, "{id}");
        }
    }
}
