//! Tversky loss: overlap with separate weights of false positives and false negatives; with an
//! exponent, focal Tversky loss.
//!
//! Sources: Salehi, Erdogmus, Gholipour, MLMI 2017, arXiv:1706.05721, whose alpha is `w_fp` and
//! whose beta `w_fn`; Abraham, Khan, ISBI 2019, arXiv:1810.07842, whose alpha is the weight of the
//! false negatives.

use serde::{Deserialize, Serialize};

/// Weights of the two kinds of error; `w_fn > w_fp` favours recall.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tversky {
    /// Weight of false positives.
    pub w_fp: f64,
    /// Weight of false negatives.
    pub w_fn: f64,
    /// The loss is raised to 1 over this: above 1 (the focal paper has 4/3), what is nearly right
    /// keeps a larger slope.
    pub gamma: f64,
}

impl Default for Tversky {
    /// The paper's best for small lesions.
    fn default() -> Self {
        Self { w_fp: 0.3, w_fn: 0.7, gamma: 1.0 }
    }
}

/// Soft counts of overlap and error.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Overlap {
    /// Sum of `p g`.
    pub true_positive: f64,
    /// Sum of `p (1 - g)`.
    pub false_positive: f64,
    /// Sum of `(1 - p) g`.
    pub false_negative: f64,
}

impl Overlap {
    /// Counts of one voxel of probability `p`; `target` is its weight, 0 for one that is no target
    /// and counts once.
    pub fn add(&mut self, p: f32, target: f32) {
        let (p, target) = (f64::from(p), f64::from(target));
        if target > 0.0 {
            self.true_positive += target * p;
            self.false_negative += target * (1.0 - p);
        } else {
            self.false_positive += p;
        }
    }

    /// Counts of two disjoint sets of voxels together.
    pub fn merge(self, other: Self) -> Self {
        Self {
            true_positive: self.true_positive + other.true_positive,
            false_positive: self.false_positive + other.false_positive,
            false_negative: self.false_negative + other.false_negative,
        }
    }
}

/// Loss and its derivative by the probability of a voxel, which is the same for all target voxels
/// of weight 1 and for all others.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TverskyLoss {
    /// `(1 - index)^(1 / gamma)`, 0 to 1.
    pub value: f64,
    /// Derivative by p of a target voxel.
    pub by_target: f64,
    /// Derivative by p of any other voxel.
    pub by_other: f64,
}

impl Tversky {
    /// Added to numerator and denominator.
    const SMOOTH: f64 = 1e-5;

    /// Below this, `1 - index` counts as this in the slope, which would be infinite at 0 for
    /// `gamma` above 1.
    const LEAST: f64 = 1e-6;

    /// `(1 - (TP + s) / (TP + w_fp FP + w_fn FN + s))^(1 / gamma)`.
    pub fn loss(&self, overlap: Overlap) -> TverskyLoss {
        let numerator = overlap.true_positive + Self::SMOOTH;
        let errors = self.w_fp * overlap.false_positive + self.w_fn * overlap.false_negative;
        let denominator = numerator + errors;
        let square = denominator * denominator;
        let (value, exponent) = (1.0 - numerator / denominator, 1.0 / self.gamma);
        let slope = exponent * value.max(Self::LEAST).powf(exponent - 1.0);
        TverskyLoss {
            value: value.powf(exponent),
            // The exact gradient -(D dN - N dD) / D^2 with dN, dD of a target voxel (1, 1 - w_fn)
            // and another (0, w_fp).
            by_target: -slope * (denominator - numerator * (1.0 - self.w_fn)) / square,
            by_other: slope * numerator * self.w_fp / square,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::loss::{assert_gradient, tube};

    fn overlap(target: &[bool], pred: &[f32]) -> Overlap {
        let mut overlap = Overlap::default();
        target.iter().zip(pred).for_each(|(&g, &p)| overlap.add(p, f32::from(u8::from(g))));
        overlap
    }

    #[test]
    fn golden_counts_and_losses() {
        let (target, pred) = tube();
        assert_eq!(target.iter().filter(|&&g| g).count(), 252);
        let counts = overlap(&target, &pred);
        assert!((counts.true_positive - 225.133_139).abs() < 1e-4);
        assert!((counts.false_positive - 382.119_359).abs() < 1e-4);
        assert!((counts.false_negative - 26.866_861).abs() < 1e-4);
        for (w_fp, w_fn, expected) in [(0.5, 0.5, 0.475_979_1), (0.3, 0.7, 0.372_146_2), (0.7, 0.3, 0.550_342_3)] {
            assert!((Tversky { w_fp, w_fn, gamma: 1.0 }.loss(counts).value - expected).abs() < 1e-6);
            let focal = Tversky { w_fp, w_fn, gamma: 4.0 / 3.0 }.loss(counts).value;
            assert!((focal - expected.powf(0.75)).abs() < 1e-6);
        }
    }

    #[test]
    fn gradient_equals_finite_differences() {
        let (target, pred) = tube();
        for gamma in [1.0, 4.0 / 3.0] {
            let loss = Tversky { gamma, ..Tversky::default() };
            let at = loss.loss(overlap(&target, &pred));
            let gradient: Vec<f32> =
                target.iter().map(|&g| if g { at.by_target } else { at.by_other } as f32).collect();
            let inside = target.iter().position(|&g| g).unwrap();
            assert_gradient(1e-3, |p| loss.loss(overlap(&target, p)).value, &pred, &gradient, &[0, inside, 4095]);
        }
    }

    #[test]
    fn nothing_wrong_has_a_finite_slope() {
        let right = Overlap { true_positive: 5.0, ..Overlap::default() };
        let loss = Tversky { gamma: 4.0 / 3.0, ..Tversky::default() }.loss(right);
        assert!(loss.value == 0.0 && loss.by_target.is_finite() && loss.by_other.is_finite());
    }

    proptest! {
        /// Of all thresholds of a score, the one with the least loss finds no less when false
        /// negatives weigh more.
        #[test]
        fn a_higher_w_fn_raises_recall(
            voxels in prop::collection::vec((0.0f32..1.0, any::<bool>()), 4..60),
            low in 0.05..0.45f64,
            high in 0.55..0.95f64,
            gamma in 1.0..2.0f64,
        ) {
            prop_assume!(voxels.iter().any(|&(_, target)| target));
            let targets: Vec<bool> = voxels.iter().map(|&(_, target)| target).collect();
            let found = |w_fn: f64| {
                let loss = Tversky { w_fp: 1.0 - w_fn, w_fn, gamma };
                let at = |&(threshold, _): &(f32, bool)| {
                    let on: Vec<f32> = voxels.iter().map(|&(score, _)| f32::from(u8::from(score >= threshold))).collect();
                    let counts = overlap(&targets, &on);
                    (loss.loss(counts).value, counts.true_positive)
                };
                voxels.iter().map(at).min_by(|a, b| a.0.total_cmp(&b.0)).expect("thresholds").1
            };
            prop_assert!(found(high) >= found(low), "{} < {}", found(high), found(low));
        }
    }
}
