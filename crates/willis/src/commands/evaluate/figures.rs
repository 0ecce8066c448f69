//! The figures of `willis evaluate`.

use willis_core::anatomy::{ANEURYSM_PRESENT, SITE_COUNT, column_names};
use willis_core::{Candidate, Lesion, Modality};
use willis_stats::figure::Undefined;
use willis_stats::metrics::detection::TOLERANCE_MM;
use willis_stats::metrics::{self, ChallengeScore, SeriesDetections};

use super::series::{Baselines, EvaluatedSeries, VesselOverlap, heads};
use super::strata::{self, Member, Stratum};
use crate::scoreboard::Scoreboard;

/// Identifier of the challenge's score.
pub const CHALLENGE_SCORE: &str = "challenge_score";
/// Numbers of candidates at which lesion recall is reported.
pub const RECALL_RANKS: [usize; 3] = [1, 5, 15];

/// Bins of the calibration error.
const CALIBRATION_BINS: usize = 10;
/// Probabilities from which candidates count as false positives.
const THRESHOLDS: [f64; 3] = [0.1, 0.3, 0.5];
/// Least number of lesions of a stratum with a recall.
const LEAST_LESIONS: usize = 10;
/// Least number of series with, and without, an aneurysm in a stratum with an AUC.
const LEAST_OF_CLASS: usize = 5;

/// Candidates of one of the baselines.
type BaselineCandidates = fn(&Baselines) -> &[Candidate];
/// Identifier, name and candidates of the baselines.
const BASELINES: [(&str, &str, BaselineCandidates); 2] =
    [("vessel_blob", "blobs of the vessel map", |b| &b.blob), ("radius_excess", "radius excess", |b| &b.excess)];

/// Identifier of a column's area under the ROC curve.
pub fn auc_id(column: &str) -> String {
    format!("auc_{}", slug(column))
}

/// Identifier of the share of lesions among the first `k` candidates.
pub fn recall_id(k: usize) -> String {
    format!("lesion_recall_at_{k}")
}

/// The same for the blob detector on intensities.
pub fn blob_recall_id(k: usize) -> String {
    format!("blob_lesion_recall_at_{k}")
}

/// Lower-case words joined by underscores.
pub fn slug(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c.to_ascii_lowercase() } else { '_' };
    name.chars().map(plain).collect()
}

/// A part of the evaluated series, with repeats in a bootstrap sample.
type Sample<'a> = [&'a EvaluatedSeries];

/// All figures, with intervals from `samples` bootstrap samples of heads.
pub fn scoreboard(series: &[EvaluatedSeries], samples: usize) -> Scoreboard {
    let mut board = Board { series, scoreboard: Scoreboard::by_group(heads(series), samples) };
    board.add_challenge();
    board.add_calibration();
    board.add_recall();
    board.add_blobs();
    board.add_baselines();
    board.add_pairs();
    board.add_false_positives();
    strata::always().iter().chain(&strata::of_scans(series)).for_each(|stratum| board.add_stratum(stratum));
    for rate in metrics::Froc::STANDARD_RATES {
        let name = format!("FROC sensitivity at {rate} false positives per scan");
        board.add(format!("froc_sensitivity_at_{rate}"), name, "", |s| {
            Ok(metrics::froc(&detections(s)?)?.sensitivity_at(rate))
        });
    }
    board.add_overlap();
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
        for (id, name, with) in [("with", "with an aneurysm", true), ("without", "without one", false)] {
            let count = self.series.iter().filter(|s| s.labels[SITE_COUNT] == with).count();
            let name = format!("mean of present, series {name}");
            self.add(format!("present_mean_{id}"), name, format!("{count} series"), move |s| {
                let values: Vec<f64> = s.iter().filter(|s| s.labels[SITE_COUNT] == with).map(|s| s.present()).collect();
                mean_of(&values)
            });
        }
    }

    fn add_recall(&mut self) {
        for k in RECALL_RANKS {
            self.add(recall_id(k), format!("lesion recall at {k}"), "all lesions", |s| {
                recall(s, k, line_ranks, &|_, _| true)
            });
        }
    }

    /// The baseline that the line must never fall behind.
    fn add_blobs(&mut self) {
        if self.series.iter().all(|s| s.blob_ranks.is_none()) {
            return;
        }
        for k in RECALL_RANKS {
            let name = format!("baseline, blobs of the intensities: lesion recall at {k}");
            self.add(blob_recall_id(k), name, "no learning", |s| recall(s, k, blob_ranks, &|_, _| true));
            let name = format!("lesion recall at {k} above that of blobs");
            self.add(format!("recall_above_blobs_at_{k}"), name, "must not be below 0", |s| {
                Ok(recall(s, k, line_ranks, &|_, _| true)? - recall(s, k, blob_ranks, &|_, _| true)?)
            });
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

    /// Heads that were scanned with and without their lesion.
    fn add_pairs(&mut self) {
        let count = self.series.iter().filter(|s| s.present_without.is_some()).count();
        if count == 0 {
            return;
        }
        let note = format!("{count} pairs with and without the lesion");
        self.add("pairs_that_rise", "share of pairs whose present rises with the lesion", &note, |s| {
            let rises = |s: &&EvaluatedSeries| Some(f64::from(u8::from(s.present() > s.present_without?)));
            mean_of(&s.iter().filter_map(rises).collect::<Vec<_>>())
        });
        self.add("pairs_rise_mean", "mean rise of present with the lesion", &note, |s| {
            mean_of(&s.iter().filter_map(|s| Some(s.present() - s.present_without?)).collect::<Vec<_>>())
        });
        self.add("auc_pairs", format!("AUC {ANEURYSM_PRESENT}, pairs"), &note, |s| {
            auc(&s.iter().copied().filter(|s| s.pair().is_some()).collect::<Vec<_>>(), SITE_COUNT)
        });
    }

    fn add_false_positives(&mut self) {
        let healthy = self.series.iter().filter(|s| s.lesions.is_empty()).count();
        for threshold in THRESHOLDS {
            let name = format!("false candidates from {threshold} per head");
            self.add(format!("false_positives_at_{threshold}"), &name, "all series", |s| false_positives(s, threshold));
            let (id, note) = (format!("false_positives_at_{threshold}_without_lesion"), format!("{healthy} series"));
            self.add(id, format!("{name}, heads without a lesion"), note, |s| {
                false_positives(&s.iter().copied().filter(|s| s.lesions.is_empty()).collect::<Vec<_>>(), threshold)
            });
        }
    }

    /// Recall of a stratum and, if it consists of series, the AUC of an aneurysm anywhere.
    fn add_stratum(&mut self, stratum: &Stratum) {
        let (id, name) = (&stratum.id, &stratum.name);
        if let Member::Series(is) = &stratum.member {
            let members: Vec<&EvaluatedSeries> = self.series.iter().filter(|s| is(s)).collect();
            let positive = members.iter().filter(|s| s.labels[SITE_COUNT]).count();
            let few = is_few(positive.min(members.len() - positive), LEAST_OF_CLASS);
            let note = format!("{} series, {positive} positive", members.len());
            self.add(
                format!("{}_{id}", auc_id(ANEURYSM_PRESENT)),
                format!("AUC {ANEURYSM_PRESENT}, {name}"),
                note,
                |s| {
                    few.map_or(Ok(()), Err)?;
                    auc(&s.iter().copied().filter(|s| stratum.has(s)).collect::<Vec<_>>(), SITE_COUNT)
                },
            );
        }
        let lesions = self.series.iter().flat_map(|s| s.lesions.iter().filter(|l| stratum.has_lesion(s, l))).count();
        let few = is_few(lesions, LEAST_LESIONS);
        let all: Vec<&EvaluatedSeries> = self.series.iter().collect();
        let is_part = |s: &EvaluatedSeries, l: &Lesion| stratum.has_lesion(s, l);
        for k in RECALL_RANKS {
            let blobs = recall(&all, k, blob_ranks, &is_part).ok().filter(|_| few.is_none());
            let blobs = blobs.map_or(String::new(), |blobs| format!(", blobs {blobs:.3}"));
            let (id, name) = (format!("{}_{id}", recall_id(k)), format!("lesion recall at {k}, {name}"));
            self.add(id, name, format!("{lesions} lesions{blobs}"), |s| {
                few.map_or(Ok(()), Err)?;
                recall(s, k, line_ranks, &is_part)
            });
        }
    }

    fn add_overlap(&mut self) {
        self.add("vessel_dice", "vessel Dice", "arteries against everything else", |s| mean(s, |o| o.dice));
        self.add("vessel_cldice", "vessel clDice", "Lee skeletons", |s| mean(s, |o| o.cldice));
        for modality in Modality::ALL {
            let (id, name) = (format!("vessel_dice_{}", slug(modality.name())), modality.name());
            self.add(id, format!("vessel Dice, {name}"), "", |s| {
                mean(&s.iter().copied().filter(|s| s.modality == Some(modality)).collect::<Vec<_>>(), |o| o.dice)
            });
        }
    }
}

/// Why a stratum has no figure, if it is too small but not empty.
fn is_few(count: usize, least: usize) -> Option<Undefined> {
    (count > 0 && count < least).then_some(Undefined::TooFew { least })
}

fn column(sample: &Sample<'_>, i: usize) -> Vec<f64> {
    sample.iter().map(|s| s.probabilities[i]).collect()
}

fn labels(sample: &Sample<'_>, i: usize) -> Vec<bool> {
    sample.iter().map(|s| s.labels[i]).collect()
}

/// Series whose labels of the sites are known.
fn with_sites<'a>(sample: &Sample<'a>) -> Vec<&'a EvaluatedSeries> {
    sample.iter().copied().filter(|s| s.knows_sites()).collect()
}

fn auc(sample: &Sample<'_>, i: usize) -> Result<f64, Undefined> {
    let of = |sample: &Sample<'_>| metrics::auroc(&column(sample, i), &labels(sample, i));
    if i < SITE_COUNT { of(&with_sites(sample)) } else { of(sample) }
}

fn challenge_score(sample: &Sample<'_>) -> ChallengeScore {
    let sample = with_sites(sample);
    let predictions: Vec<_> = sample.iter().map(|s| s.probabilities).collect();
    let labels: Vec<_> = sample.iter().map(|s| s.labels).collect();
    metrics::challenge_score(&predictions, &labels)
}

/// Candidates of each series, matched with its lesions.
fn detections(sample: &Sample<'_>) -> Result<Vec<SeriesDetections>, Undefined> {
    let one = |s: &&EvaluatedSeries| {
        let candidates = s.candidates.as_ref().ok_or(Undefined::NotMeasured)?;
        Ok(metrics::detections(candidates, &s.lesions, TOLERANCE_MM))
    };
    sample.iter().map(one).collect()
}

/// Ranks at which a detector finds the lesions of a series.
type Ranks = fn(&EvaluatedSeries) -> Option<&[Option<usize>]>;

fn line_ranks(series: &EvaluatedSeries) -> Option<&[Option<usize>]> {
    series.ranks.as_deref()
}

fn blob_ranks(series: &EvaluatedSeries) -> Option<&[Option<usize>]> {
    series.blob_ranks.as_deref()
}

/// Share of those lesions that count which one of the first `k` candidates of their series hits.
fn recall(
    sample: &Sample<'_>,
    k: usize,
    ranks: Ranks,
    counts: &dyn Fn(&EvaluatedSeries, &Lesion) -> bool,
) -> Result<f64, Undefined> {
    let (mut found, mut all) = (0usize, 0usize);
    for series in sample {
        let ranks = ranks(series).ok_or(Undefined::NotMeasured)?;
        for (lesion, rank) in series.lesions.iter().zip(ranks) {
            if counts(series, lesion) {
                all += 1;
                found += usize::from(rank.is_some_and(|rank| rank <= k));
            }
        }
    }
    if all == 0 { Err(Undefined::NoLesions) } else { Ok(found as f64 / all as f64) }
}

/// Candidates of at least this probability that hit no lesion, per series.
fn false_positives(sample: &Sample<'_>, threshold: f64) -> Result<f64, Undefined> {
    let count = |s: SeriesDetections| s.candidates.iter().filter(|(p, hit)| *p >= threshold && hit.is_none()).count();
    mean_of(&detections(sample)?.into_iter().map(|s| count(s) as f64).collect::<Vec<_>>())
}

fn mean_of(values: &[f64]) -> Result<f64, Undefined> {
    if values.is_empty() { Err(Undefined::Empty) } else { Ok(values.iter().sum::<f64>() / values.len() as f64) }
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
    use willis_core::cohort::{Appearance, ScanTruth, SiteKnowledge};
    use willis_core::{Affine, Grid, Point, Shape, Site, Spacing};

    use super::*;

    fn series(present: bool) -> EvaluatedSeries {
        let mut labels = [false; SITE_COUNT + 1];
        labels[SITE_COUNT] = present;
        EvaluatedSeries {
            modality: Some(Modality::Mra),
            labels,
            probabilities: [0.5; SITE_COUNT + 1],
            lesions: Vec::new(),
            scan: None,
            candidates: Some(Vec::new()),
            ranks: Some(Vec::new()),
            blob_ranks: None,
            present_without: None,
            overlap: None,
            baselines: None,
        }
    }

    /// A series whose lesion the line finds at one rank and the blob detector at another.
    fn with_lesion(rank: Option<usize>, blob_rank: Option<usize>, part: &str) -> EvaluatedSeries {
        let shape = Shape::new(9, 9, 9);
        let affine = Affine::axis_aligned(Spacing::isotropic(0.5), Point::new(0.0, 0.0, 0.0));
        let scan = ScanTruth::new(Grid::new(shape, affine), Appearance::Unseen);
        let lesion = Lesion {
            centre: Point::new(0.0, 0.0, 0.0),
            diameter_mm: Some(2.0),
            site: Site::Acom,
            neck: None,
            neck_width_mm: None,
        };
        EvaluatedSeries {
            lesions: vec![lesion],
            ranks: Some(vec![rank]),
            blob_ranks: Some(vec![blob_rank]),
            scan: Some(ScanTruth { part: Some(part.into()), ..scan }),
            ..series(true)
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

    #[test]
    fn strata_have_recalls_and_small_ones_have_none() {
        let mut all: Vec<_> = (0..12).map(|i| with_lesion(Some(1 + i % 6), (i % 2 == 0).then_some(1), "a")).collect();
        all.push(with_lesion(None, Some(2), "b"));
        let board = scoreboard(&all, 10);
        assert_eq!(board.value("lesion_recall_at_5_part_a"), Some(10.0 / 12.0));
        assert_eq!(board.value("lesion_recall_at_15_below_3_mm"), Some(12.0 / 13.0));
        assert_eq!(board.value("lesion_recall_at_15_anterior_communicating_artery"), Some(12.0 / 13.0));
        assert_eq!(board.value("lesion_recall_at_15_part_b"), None);
        assert_eq!(board.value("blob_lesion_recall_at_1"), Some(6.0 / 13.0));
        let above = board.value("recall_above_blobs_at_15").unwrap();
        assert!((above - (12.0 - 7.0) / 13.0).abs() < 1e-12, "{above}");
        assert!(board.to_string().contains("fewer than 10"));
    }

    #[test]
    fn pairs_are_compared_and_drawn_together() {
        let present = |p: f64, mut series: EvaluatedSeries, pair: &str| {
            series.probabilities[SITE_COUNT] = p;
            let scan = with_lesion(None, None, "p").scan;
            series.scan = scan.map(|scan| ScanTruth { pair: Some(pair.into()), ..scan });
            series
        };
        let with = |p, without, pair| EvaluatedSeries {
            present_without: Some(without),
            ..present(p, with_lesion(Some(1), None, "p"), pair)
        };
        let all = [
            with(0.8, 0.3, "1"),
            present(0.3, series(false), "1"),
            with(0.2, 0.4, "2"),
            present(0.4, series(false), "2"),
        ];
        assert_eq!(heads(&all), [[0, 1], [2, 3]]);
        let board = scoreboard(&all, 10);
        assert_eq!((board.value("pairs_that_rise"), board.value("auc_pairs")), (Some(0.5), Some(0.5)));
        assert!((board.value("pairs_rise_mean").unwrap() - 0.15).abs() < 1e-12);
    }

    #[test]
    fn unknown_sites_count_for_no_site() {
        let mut one = with_lesion(Some(1), None, "a");
        one.scan = one.scan.map(|scan| ScanTruth { sites: SiteKnowledge::Unknown, ..scan });
        assert!(!one.is_at(&one.lesions[0], Site::Acom));
        assert!(with_sites(&[&one]).is_empty());
    }
}
