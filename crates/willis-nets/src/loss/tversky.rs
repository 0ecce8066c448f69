//! Tversky loss: overlap with separate weights for false positives and false negatives. With an
//! exponent it is the focal Tversky loss.
//!
//! Source: Salehi, Erdogmus, Gholipour, MLMI 2017, arXiv:1706.05721 (α is `w_fp`, β is `w_fn`);
//! Abraham, Khan, ISBI 2019, arXiv:1810.07842 (α is `w_fn`).

use serde::{Deserialize, Serialize};
use willis_core::InvalidValue;

use crate::rules::{non_negative, positive};

/// Configuration of the loss; `w_fn > w_fp` favours recall.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tversky {
    /// Weight of false positives.
    pub w_fp: f64,
    /// Weight of false negatives.
    pub w_fn: f64,
    /// The loss is raised to the power `1 / gamma`. Values above 1 (4/3 in the paper) keep the
    /// gradient large when the overlap is nearly complete.
    pub gamma: f64,
}

impl Default for Tversky {
    /// The weights that the paper found best for small lesions.
    fn default() -> Self {
        Self { w_fp: 0.3, w_fn: 0.7, gamma: 1.0 }
    }
}

/// Soft counts of true and false voxels.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct SoftCounts {
    /// Sum of `p g`.
    pub true_positive: f64,
    /// Sum of `p (1 - g)`.
    pub false_positive: f64,
    /// Sum of `(1 - p) g`.
    pub false_negative: f64,
}

impl SoftCounts {
    /// Adds a voxel of probability `p`. `target` is the weight of a target voxel; a value of 0
    /// means that the voxel is not a target, and such voxels have weight 1.
    pub fn add(&mut self, p: f32, target: f32) {
        let (p, target) = (f64::from(p), f64::from(target));
        if target > 0.0 {
            self.true_positive += target * p;
            self.false_negative += target * (1.0 - p);
        } else {
            self.false_positive += p;
        }
    }

    /// The counts of two disjoint sets of voxels.
    pub fn merge(self, other: Self) -> Self {
        Self {
            true_positive: self.true_positive + other.true_positive,
            false_positive: self.false_positive + other.false_positive,
            false_negative: self.false_negative + other.false_negative,
        }
    }
}

/// The loss and its derivatives with respect to the probability of a voxel. The derivative is the
/// same for all target voxels of weight 1, and the same for all other voxels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TverskyLoss {
    /// `(1 - index)^(1 / gamma)`, 0 to 1.
    pub value: f64,
    /// Derivative for a target voxel of weight 1.
    pub d_target: f64,
    /// Derivative for any other voxel.
    pub d_other: f64,
}

impl Tversky {
    /// Added to numerator and denominator, so that empty targets have a loss.
    const SMOOTH: f64 = 1e-5;

    /// Lower bound of `1 - index` in the derivative, which is infinite at 0 for `gamma` above 1.
    const MIN_LOSS: f64 = 1e-6;

    /// Checks every value.
    ///
    /// # Errors
    /// [`InvalidValue`] names the first value that breaks its rule.
    pub fn validate(&self) -> Result<(), InvalidValue> {
        non_negative("w_fp", self.w_fp)?;
        non_negative("w_fn", self.w_fn)?;
        positive("gamma", self.gamma)
    }

    /// Computes `(1 - (TP + s) / (TP + w_fp FP + w_fn FN + s))^(1 / gamma)` with its derivatives.
    pub fn loss(&self, counts: SoftCounts) -> TverskyLoss {
        let numerator = counts.true_positive + Self::SMOOTH;
        let errors = self.w_fp * counts.false_positive + self.w_fn * counts.false_negative;
        let denominator = numerator + errors;
        let square = denominator * denominator;
        let (value, exponent) = (1.0 - numerator / denominator, 1.0 / self.gamma);
        let slope = exponent * value.max(Self::MIN_LOSS).powf(exponent - 1.0);
        TverskyLoss {
            value: value.powf(exponent),
            // The derivative of N / D is (D dN - N dD) / D^2, where (dN, dD) is (1, 1 - w_fn) for a
            // target voxel and (0, w_fp) for any other.
            d_target: -slope * (denominator - numerator * (1.0 - self.w_fn)) / square,
            d_other: slope * numerator * self.w_fp / square,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::loss::{assert_gradient, tube};

    fn soft_counts(target: &[bool], pred: &[f32]) -> SoftCounts {
        let mut counts = SoftCounts::default();
        target.iter().zip(pred).for_each(|(&g, &p)| counts.add(p, f32::from(u8::from(g))));
        counts
    }

    #[test]
    fn golden_counts_and_losses() {
        let (target, pred) = tube();
        assert_eq!(target.iter().filter(|&&g| g).count(), 252);
        let counts = soft_counts(&target, &pred);
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
            let at = loss.loss(soft_counts(&target, &pred));
            let gradient: Vec<f32> = target.iter().map(|&g| if g { at.d_target } else { at.d_other } as f32).collect();
            let inside = target.iter().position(|&g| g).unwrap();
            assert_gradient(1e-3, |p| loss.loss(soft_counts(&target, p)).value, &pred, &gradient, &[0, inside, 4095]);
        }
    }

    #[test]
    fn a_complete_overlap_has_a_finite_gradient() {
        let right = SoftCounts { true_positive: 5.0, ..SoftCounts::default() };
        let loss = Tversky { gamma: 4.0 / 3.0, ..Tversky::default() }.loss(right);
        assert!(loss.value == 0.0 && loss.d_target.is_finite() && loss.d_other.is_finite());
    }

    proptest! {
        /// The threshold with the smallest loss has no lower recall if false negatives weigh more.
        #[test]
        fn a_higher_w_fn_never_lowers_recall(
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
                    let counts = soft_counts(&targets, &on);
                    (loss.loss(counts).value, counts.true_positive)
                };
                voxels.iter().map(at).min_by(|a, b| a.0.total_cmp(&b.0)).expect("thresholds").1
            };
            prop_assert!(found(high) >= found(low), "{} < {}", found(high), found(low));
        }
    }
}
