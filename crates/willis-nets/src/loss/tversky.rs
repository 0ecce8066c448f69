//! Tversky loss: overlap with separate weights of false positives and false negatives.
//!
//! Source: Salehi, Erdogmus, Gholipour, MLMI 2017, arXiv:1706.05721. Their alpha is `w_fp`, their beta `w_fn`.

use serde::{Deserialize, Serialize};

/// Weights of the two kinds of error; `w_fn > w_fp` favours recall.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tversky {
    /// Weight of false positives.
    pub w_fp: f64,
    /// Weight of false negatives.
    pub w_fn: f64,
}

impl Default for Tversky {
    /// The paper's best for small lesions.
    fn default() -> Self {
        Self { w_fp: 0.3, w_fn: 0.7 }
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
    /// Counts of one voxel of probability `p`; `target` is its weight, 0 for one that is no target and counts once.
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

/// Loss and its derivative by the probability of a voxel, which is the same for all target voxels of weight 1 and for all others.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TverskyLoss {
    /// `1 - index`, 0 to 1.
    pub value: f64,
    /// Derivative by p of a target voxel.
    pub by_target: f64,
    /// Derivative by p of any other voxel.
    pub by_other: f64,
}

impl Tversky {
    /// Added to numerator and denominator.
    const SMOOTH: f64 = 1e-5;

    /// `1 - (TP + s) / (TP + w_fp FP + w_fn FN + s)`.
    pub fn loss(&self, overlap: Overlap) -> TverskyLoss {
        let numerator = overlap.true_positive + Self::SMOOTH;
        let errors = self.w_fp * overlap.false_positive + self.w_fn * overlap.false_negative;
        let denominator = numerator + errors;
        let square = denominator * denominator;
        TverskyLoss {
            value: 1.0 - numerator / denominator,
            // The exact gradient -(D dN - N dD) / D^2 with dN, dD of a target voxel (1, 1 - w_fn) and another (0, w_fp).
            by_target: -(denominator - numerator * (1.0 - self.w_fn)) / square,
            by_other: numerator * self.w_fp / square,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden;
    use crate::loss::assert_gradient;

    /// The tube and the prediction of the specification, whose x is the first axis.
    fn tube() -> (Vec<bool>, Vec<f32>) {
        let target = |i: usize| {
            let (x, y, z) = ((i / 256) as i32, (i / 16 % 16) as i32, (i % 16) as i32);
            (2..=13).contains(&x) && (y - 8).pow(2) + (z - 8).pow(2) <= 6
        };
        let target: Vec<bool> = (0..4096).map(target).collect();
        let noise = golden::stream("pred").map(|t| 0.2 * (t + 1.0) / 2.0);
        let pred = target.iter().zip(noise).map(|(&g, n)| (if g { 0.8 + n } else { n }) as f32).collect();
        (target, pred)
    }

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
            assert!((Tversky { w_fp, w_fn }.loss(counts).value - expected).abs() < 1e-6);
        }
    }

    #[test]
    fn gradient_equals_finite_differences() {
        let (target, pred) = tube();
        let loss = Tversky::default();
        let at = loss.loss(overlap(&target, &pred));
        let gradient: Vec<f32> = target.iter().map(|&g| if g { at.by_target } else { at.by_other } as f32).collect();
        let inside = target.iter().position(|&g| g).unwrap();
        assert_gradient(|p| loss.loss(overlap(&target, p)).value, &pred, &gradient, &[0, inside, 4095]);
    }
}
