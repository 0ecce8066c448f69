//! From scores to probabilities: Platt scaling and a change of prevalence.
//!
//! Fit on out-of-fold scores only.
//!
//! # Source
//! Platt 1999, as implemented in scikit-learn 1.9 (`CalibratedClassifierCV`, method `sigmoid`).

use serde::{Deserialize, Serialize};

use crate::logistic::{minimise, sigmoid};

/// Why a calibration cannot be fitted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CalibrationError {
    /// Positives or negatives are missing.
    #[error("calibration needs positives and negatives, got {positives} and {negatives}; add series")]
    OneClass {
        /// Number of positives.
        positives: usize,
        /// Number of negatives.
        negatives: usize,
    },
    /// A score is infinite or not a number.
    #[error("score {row} is not finite; leave the row out")]
    NotFinite {
        /// Position of the score.
        row: usize,
    },
}

/// Platt scaling: `p = 1 / (1 + exp(A f + B))` for a score `f`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Platt {
    /// Slope A; negative when a higher score means a higher probability.
    pub a: f64,
    /// Offset B.
    pub b: f64,
}

impl Platt {
    /// Fits slope and offset with Platt's targets `(N₊ + 1) / (N₊ + 2)` and `1 / (N₋ + 2)`.
    ///
    /// # Errors
    /// `OneClass`, `NotFinite`.
    ///
    /// # Panics
    /// if scores and labels differ in number (programmer error).
    pub fn fit(scores: &[f64], labels: &[bool]) -> Result<Self, CalibrationError> {
        let (positives, negatives) = check(scores, labels)?;
        let largest = scores.iter().fold(0.0f64, |m, f| m.max(f.abs()));
        let scale = if largest >= 30.0 { largest } else { 1.0 };
        let scaled: Vec<f64> = scores.iter().map(|f| f / scale).collect();
        let high = (positives + 1.0) / (positives + 2.0);
        let low = 1.0 / (negatives + 2.0);
        let targets: Vec<f64> = labels.iter().map(|y| if *y { high } else { low }).collect();
        let line = minimise(&scaled, 1, &targets, 0.0);
        Ok(Self { a: -line[0] / scale, b: -line[1] })
    }

    /// Probability for a score.
    pub fn apply(&self, score: f64) -> f64 {
        sigmoid(-(self.a * score + self.b))
    }
}

/// Probability at another prevalence: the odds are multiplied by the ratio of the prior odds.
///
/// Assumes that only the share of positives changes, not the distribution of scores within a class.
/// `fitted` and `target` are prevalences between 0 and 1, both excluded.
pub fn shift_prevalence(probability: f64, fitted: f64, target: f64) -> f64 {
    let positive = probability * (target / fitted);
    let negative = (1.0 - probability) * ((1.0 - target) / (1.0 - fitted));
    positive / (positive + negative)
}

/// Numbers of positives and negatives.
fn check(scores: &[f64], labels: &[bool]) -> Result<(f64, f64), CalibrationError> {
    assert_eq!(scores.len(), labels.len(), "one label per score");
    if let Some(row) = scores.iter().position(|s| !s.is_finite()) {
        return Err(CalibrationError::NotFinite { row });
    }
    let positives = labels.iter().filter(|y| **y).count();
    let negatives = labels.len() - positives;
    if positives == 0 || negatives == 0 {
        return Err(CalibrationError::OneClass { positives, negatives });
    }
    Ok((positives as f64, negatives as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCORES: [f64; 8] = [-2.0, -1.5, -0.5, 0.1, 0.3, 1.2, 2.2, 0.7];
    const LABELS: [bool; 8] = [false, false, false, true, false, true, true, true];

    #[test]
    fn platt_scaling_equals_scikit_learns() {
        let platt = Platt::fit(&SCORES, &LABELS).unwrap();
        assert!((platt.a + 0.99983436).abs() < 1e-5 && (platt.b - 0.07835699).abs() < 1e-5, "{platt:?}");
        // Large scores are scaled internally; the result is the same.
        let large = Platt::fit(&SCORES.map(|f| f * 100.0), &LABELS).unwrap();
        assert!((large.a * 100.0 - platt.a).abs() < 1e-9 && (large.b - platt.b).abs() < 1e-9);
        assert!(matches!(Platt::fit(&[1.0], &[true]), Err(CalibrationError::OneClass { positives: 1, negatives: 0 })));
        assert!(matches!(Platt::fit(&[1.0, f64::NAN], &[true, false]), Err(CalibrationError::NotFinite { row: 1 })));
    }

    #[test]
    fn hand_worked_prevalence() {
        // Odds 1 at prevalence 1/2 become 1/9 at 1/10.
        assert!((shift_prevalence(0.5, 0.5, 0.1) - 0.1).abs() < 1e-15);
        assert!((shift_prevalence(0.3, 0.4, 0.4) - 0.3).abs() < 1e-15);
        assert_eq!((shift_prevalence(0.0, 0.5, 0.1), shift_prevalence(1.0, 0.5, 0.1)), (0.0, 1.0));
    }
}
