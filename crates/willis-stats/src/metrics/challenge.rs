//! The challenge's score: a weighted mean of fourteen areas under the ROC curve.

use willis_core::anatomy::SITE_COUNT;

use super::rank::auroc;
use crate::figure::Undefined;

/// Number of columns of a submission.
pub const COLUMN_COUNT: usize = SITE_COUNT + 1;

/// Weight of each column: 1 for a site, 13 for "aneurysm present", the last.
const WEIGHTS: [f64; COLUMN_COUNT] = {
    let mut weights = [1.0; COLUMN_COUNT];
    weights[SITE_COUNT] = SITE_COUNT as f64;
    weights
};

/// Areas under the ROC curve of all columns, and their weighted mean.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ChallengeScore {
    /// Area by column; undefined where a class is missing.
    pub auc: [Result<f64, Undefined>; COLUMN_COUNT],
    /// The challenge's score; undefined when any column is, because the challenge's own metric
    /// refuses such data.
    pub score: Result<f64, Undefined>,
    /// The weighted mean over the defined columns only; undefined when there are none. Not
    /// comparable with published scores.
    pub score_of_defined: Result<f64, Undefined>,
}

/// Scores predictions: one row per series, columns in the challenge's order, "aneurysm present"
/// last.
///
/// `score = (13 · AUC_present + Σ AUC_site) / 26`.
///
/// # Panics
/// if predictions and labels differ in number (programmer error).
///
/// # Source
/// Kaggle metric "mean weighted columnwise AUCROC", weights `[1] * 13 + [13]`.
pub fn challenge_score(predictions: &[[f64; COLUMN_COUNT]], labels: &[[bool; COLUMN_COUNT]]) -> ChallengeScore {
    let auc = std::array::from_fn(|column| {
        let scores: Vec<f64> = predictions.iter().map(|row| row[column]).collect();
        let truth: Vec<bool> = labels.iter().map(|row| row[column]).collect();
        auroc(&scores, &truth)
    });
    let defined = || auc.iter().zip(WEIGHTS).filter_map(|(auc, weight)| Some((auc.ok()?, weight)));
    let weight: f64 = defined().map(|(_, weight)| weight).sum();
    let columns = COLUMN_COUNT - defined().count();
    let undefined = Undefined::UndefinedColumns { columns };
    let mean = defined().map(|(auc, weight)| auc * weight).sum::<f64>() / weight;
    let score_of_defined = if columns < COLUMN_COUNT { Ok(mean) } else { Err(undefined) };
    let score = if columns == 0 { Ok(mean) } else { Err(undefined) };
    ChallengeScore { auc, score, score_of_defined }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Four series; site `c` is positive in series 0 and, for even `c`, in series 1.
    fn labels() -> Vec<[bool; COLUMN_COUNT]> {
        let row = |series: usize| {
            std::array::from_fn(|c| match c {
                SITE_COUNT => series < 2,
                _ => series == 0 || (series == 1 && c % 2 == 0),
            })
        };
        (0..4).map(row).collect()
    }

    #[test]
    fn present_weighs_as_much_as_all_sites_together() {
        // All sites right, "present" wrong: (13 · 0 + 13 · 1) / 26.
        let labels = labels();
        let mut predictions: Vec<[f64; COLUMN_COUNT]> = labels.iter().map(|l| l.map(f64::from)).collect();
        for (row, truth) in predictions.iter_mut().zip(&labels) {
            row[SITE_COUNT] = f64::from(!truth[SITE_COUNT]);
        }
        assert_eq!(challenge_score(&predictions, &labels).score, Ok(0.5));
        // Constant columns have an area of one half.
        assert_eq!(challenge_score(&[[0.3; COLUMN_COUNT]; 4], &labels).score, Ok(0.5));
    }

    #[test]
    fn hand_worked_score() {
        // Every column scores the series 0.9, 0.2, 0.6, 0.1. Odd sites (6): one positive on top,
        // area 1. Even sites (7) and "present": positives 0.9 and 0.2 against 0.6 and 0.1, three of
        // four pairs won, area 3/4. Score (13 · 0.75 + 7 · 0.75 + 6 · 1) / 26 = 21 / 26.
        let predictions = [0.9, 0.2, 0.6, 0.1].map(|p| [p; COLUMN_COUNT]);
        let score = challenge_score(&predictions, &labels());
        assert!((score.score.unwrap() - 21.0 / 26.0).abs() < 1e-15);
        assert_eq!(score.auc[0], Ok(0.75));
        assert_eq!(score.auc[1], Ok(1.0));
    }

    #[test]
    fn a_column_without_positives_has_no_score() {
        let mut labels = labels();
        labels.iter_mut().for_each(|row| row[3] = false);
        let predictions = [0.9, 0.2, 0.6, 0.1].map(|p| [p; COLUMN_COUNT]);
        let score = challenge_score(&predictions, &labels);
        assert_eq!(score.score, Err(Undefined::UndefinedColumns { columns: 1 }));
        assert_eq!(score.auc.map(|auc| auc.err()), std::array::from_fn(|c| (c == 3).then_some(Undefined::OneClass)));
        // (13 · 0.75 + 7 · 0.75 + 5 · 1) / 25.
        assert!((score.score_of_defined.unwrap() - 20.0 / 25.0).abs() < 1e-15);
        assert_eq!(challenge_score(&[], &[]).score_of_defined, Err(Undefined::UndefinedColumns { columns: 14 }));
    }
}
