//! From scores to probabilities: Platt, isotonic and temperature scaling, and a change of
//! prevalence.
//!
//! Fit on out-of-fold scores only. With fewer than about 1,000 rows prefer Platt or temperature to
//! isotonic.
//!
//! # Source
//! Platt 1999; Zadrozny & Elkan 2002; Guo et al. 2017, arXiv:1706.04599. Behaviour of scikit-learn
//! 1.9.

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

/// Sigmoid of a straight line: `p = 1 / (1 + exp(A f + B))`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Platt {
    /// Slope; negative when a higher score means "more probable".
    pub a: f64,
    /// Offset.
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

/// A rising curve through averages of neighbours: linear between knots, flat outside.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Isotonic {
    /// Scores of the knots, strictly rising.
    pub scores: Vec<f64>,
    /// Probabilities of the knots, never falling.
    pub probabilities: Vec<f64>,
}

impl Isotonic {
    /// Fits by pooling adjacent violators; rows of equal score are averaged first.
    ///
    /// # Errors
    /// `OneClass`, `NotFinite`.
    ///
    /// # Panics
    /// if scores and labels differ in number (programmer error).
    pub fn fit(scores: &[f64], labels: &[bool]) -> Result<Self, CalibrationError> {
        check(scores, labels)?;
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_by(|a, b| scores[*a].total_cmp(&scores[*b]));
        // Blocks of (first score, last score, sum, count) with rising means.
        let mut blocks: Vec<(f64, f64, f64, f64)> = Vec::new();
        for tie in order.chunk_by(|a, b| scores[*a] == scores[*b]) {
            let sum = tie.iter().filter(|i| labels[**i]).count() as f64;
            let mut block = (scores[tie[0]], scores[tie[0]], sum, tie.len() as f64);
            while let Some(before) = blocks.pop_if(|before| before.2 * block.3 >= block.2 * before.3) {
                block = (before.0, block.1, before.2 + block.2, before.3 + block.3);
            }
            blocks.push(block);
        }
        let mut curve = Self { scores: Vec::new(), probabilities: Vec::new() };
        for (first, last, sum, count) in blocks {
            for score in if first == last { vec![first] } else { vec![first, last] } {
                curve.scores.push(score);
                curve.probabilities.push(sum / count);
            }
        }
        Ok(curve)
    }

    /// Probability for a score.
    pub fn apply(&self, score: f64) -> f64 {
        let above = self.scores.partition_point(|s| *s <= score);
        if above == 0 {
            return self.probabilities[0];
        }
        if above == self.scores.len() {
            return self.probabilities[above - 1];
        }
        let (s, p) = (&self.scores[above - 1..=above], &self.probabilities[above - 1..=above]);
        p[0] + (p[1] - p[0]) * (score - s[0]) / (s[1] - s[0])
    }
}

/// Logits times one factor: `p = sigmoid(β · logit)`; keeps the order and the decision at one half.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Temperature {
    /// Inverse temperature β, positive.
    pub beta: f64,
}

impl Temperature {
    /// Fits β by log loss, with log β between −10 and 10.
    ///
    /// The loss is convex in β, so its slope is bisected.
    ///
    /// # Errors
    /// `OneClass`, `NotFinite`.
    ///
    /// # Panics
    /// if logits and labels differ in number (programmer error).
    pub fn fit(logits: &[f64], labels: &[bool]) -> Result<Self, CalibrationError> {
        check(logits, labels)?;
        let slope = |beta: f64| -> f64 {
            logits.iter().zip(labels).map(|(x, y)| (sigmoid(beta * x) - f64::from(*y)) * x).sum()
        };
        let (mut low, mut high) = (-10.0f64, 10.0f64);
        for _ in 0..60 {
            let middle = (low + high) / 2.0;
            if slope(middle.exp()) < 0.0 { low = middle } else { high = middle }
        }
        Ok(Self { beta: ((low + high) / 2.0).exp() })
    }

    /// Probability for a logit.
    pub fn apply(&self, logit: f64) -> f64 {
        sigmoid(self.beta * logit)
    }
}

/// Probability after a change of prevalence: the odds are multiplied by the ratio of the prior
/// odds.
///
/// Holds when only the share of positives changes, not what they look like. Prevalences lie between
/// 0 and 1.
pub fn shift_prevalence(probability: f64, fitted: f64, target: f64) -> f64 {
    let weight = |prior: f64, other: f64| prior / other;
    let positive = probability * weight(target, fitted);
    let negative = (1.0 - probability) * weight(1.0 - target, 1.0 - fitted);
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
    use proptest::prelude::*;

    const SCORES: [f64; 8] = [-2.0, -1.5, -0.5, 0.1, 0.3, 1.2, 2.2, 0.7];
    const LABELS: [bool; 8] = [false, false, false, true, false, true, true, true];

    #[test]
    fn platt_of_scikit_learn() {
        let platt = Platt::fit(&SCORES, &LABELS).unwrap();
        assert!((platt.a + 0.99983436).abs() < 1e-5 && (platt.b - 0.07835699).abs() < 1e-5, "{platt:?}");
        // Large scores are scaled on the way; the curve is the same.
        let large = Platt::fit(&SCORES.map(|f| f * 100.0), &LABELS).unwrap();
        assert!((large.a * 100.0 - platt.a).abs() < 1e-9 && (large.b - platt.b).abs() < 1e-9);
        assert!(matches!(Platt::fit(&[1.0], &[true]), Err(CalibrationError::OneClass { positives: 1, negatives: 0 })));
        assert!(matches!(Platt::fit(&[1.0, f64::NAN], &[true, false]), Err(CalibrationError::NotFinite { row: 1 })));
    }

    #[test]
    fn isotonic_of_scikit_learn() {
        let curve = Isotonic::fit(&SCORES, &LABELS).unwrap();
        assert_eq!(SCORES.map(|f| curve.apply(f)), [0.0, 0.0, 0.0, 0.5, 0.5, 1.0, 1.0, 1.0]);
        assert_eq!((curve.apply(-9.0), curve.apply(9.0), curve.apply(0.2)), (0.0, 1.0, 0.5));
        assert!((curve.apply(-0.2) - 0.25).abs() < 1e-12, "half way between the knots at -0.5 and 0.1");
        let ties = Isotonic::fit(&[1.0, 1.0, 2.0], &[true, false, true]).unwrap();
        assert_eq!((ties.apply(1.0), ties.apply(2.0)), (0.5, 1.0));
    }

    #[test]
    fn temperature_cools_what_is_too_sure() {
        // Three of four right at logit ±x: β x = ln 3 whatever x was.
        for x in [0.1, 5.0] {
            let t =
                Temperature::fit(&[x, x, x, x, -x, -x, -x, -x], &[true, true, true, false, false, false, false, true]);
            assert!((t.unwrap().beta * x - 3f64.ln()).abs() < 1e-9);
        }
    }

    #[test]
    fn hand_worked_prevalence() {
        // Odds 1 at prevalence 1/2 become 1/9 at 1/10.
        assert!((shift_prevalence(0.5, 0.5, 0.1) - 0.1).abs() < 1e-15);
        assert!((shift_prevalence(0.3, 0.4, 0.4) - 0.3).abs() < 1e-15);
        assert_eq!((shift_prevalence(0.0, 0.5, 0.1), shift_prevalence(1.0, 0.5, 0.1)), (0.0, 1.0));
    }

    proptest! {
        #[test]
        fn calibrations_never_reverse_the_order(rows in prop::collection::vec((-5.0..5.0f64, any::<bool>()), 4..40), q in -6.0..6.0f64) {
            let scores: Vec<f64> = rows.iter().map(|r| r.0).collect();
            let labels: Vec<bool> = rows.iter().map(|r| r.1).collect();
            if let (Ok(curve), Ok(t)) = (Isotonic::fit(&scores, &labels), Temperature::fit(&scores, &labels)) {
                prop_assert!(curve.apply(q) <= curve.apply(q + 0.5) + 1e-12);
                prop_assert!((0.0..=1.0).contains(&curve.apply(q)));
                prop_assert!(t.apply(q) <= t.apply(q + 0.5));
            }
        }
    }
}
