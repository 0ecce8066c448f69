//! Asymmetric loss (ASL) for binary labels with few positives.
//!
//! `p = σ(x)`, `q = min(1 - p + m, 1)`, `L = -w [y log max(p, ε) + (1 - y) log max(q, ε)]` with
//! `w = (1 - p_t)^γ_t`, `p_t = y p + (1 - y) q`, `γ_t = γ₊ y + γ₋ (1 - y)`.
//!
//! Letters: x logit, y label (0 or 1), p and q probabilities of a positive and a negative label.
//!
//! Source: Ridnik et al., ICCV 2021, arXiv:2009.14119.

use burn::tensor::Tensor;
use burn::tensor::activation::sigmoid;
use serde::{Deserialize, Serialize};
use willis_core::{InvalidValue, Switch};

use crate::rules::non_negative;

/// Smallest probability whose logarithm is taken.
pub(super) const EPSILON: f64 = 1e-8;

/// Configuration of the asymmetric loss: how much easy labels are down-weighted.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AsymmetricLoss {
    /// γ₊, the focusing exponent of positives.
    pub focus_positive: f64,
    /// γ₋, the focusing exponent of negatives.
    pub focus_negative: f64,
    /// m, the probability shift: negatives with `p` up to m have no loss.
    pub shift: f64,
    /// Whether gradients flow through the weight w; the published code detaches it.
    pub weight_gradient: Switch,
}

impl Default for AsymmetricLoss {
    /// The paper's exponents and shift.
    fn default() -> Self {
        Self { focus_positive: 1.0, focus_negative: 4.0, shift: 0.05, weight_gradient: Switch::Off }
    }
}

impl AsymmetricLoss {
    /// Checks every value.
    ///
    /// # Errors
    /// [`InvalidValue`] names the first value that breaks its rule.
    pub fn validate(&self) -> Result<(), InvalidValue> {
        non_negative("focus_positive", self.focus_positive)?;
        non_negative("focus_negative", self.focus_negative)?;
        if !(0.0..1.0).contains(&self.shift) {
            return Err(InvalidValue::new("shift", self.shift, "must be at least 0 and less than 1"));
        }
        Ok(())
    }

    /// `p` and `q`: the probabilities of a positive and, shifted, of a negative label.
    ///
    /// # Shapes
    /// any -> the same
    pub(super) fn probabilities<const D: usize>(&self, logits: Tensor<D>) -> [Tensor<D>; 2] {
        let positive = sigmoid(logits);
        let negative = (positive.clone().neg() + (1.0 + self.shift)).clamp_max(1.0);
        [positive, negative]
    }

    /// `w = (1 - p_t)^γ_t`.
    ///
    /// # Shapes
    /// p, q and targets of one shape -> the same
    pub(super) fn weight<const D: usize>(&self, [p, q]: [Tensor<D>; 2], targets: Tensor<D>) -> Tensor<D> {
        // One constant exponent per class needs no gradient with respect to the exponent.
        let power = |p: Tensor<D>, focus: f64| {
            if focus == 0.0 { Tensor::ones_like(&p) } else { (p.neg() + 1.0).clamp_min(EPSILON).powf_scalar(focus) }
        };
        let negative_targets = targets.clone().neg() + 1.0;
        let weight = targets * power(p, self.focus_positive) + negative_targets * power(q, self.focus_negative);
        match self.weight_gradient {
            Switch::On => weight,
            Switch::Off => weight.detach(),
        }
    }

    /// Computes the loss of each element.
    ///
    /// # Shapes
    /// logits and targets (0 or 1) of one shape -> the same
    pub fn forward<const D: usize>(&self, logits: Tensor<D>, targets: Tensor<D>) -> Tensor<D> {
        let [positive, negative] = self.probabilities(logits);
        let log_likelihood = targets.clone() * positive.clone().clamp_min(EPSILON).log()
            + (targets.clone().neg() + 1.0) * negative.clone().clamp_min(EPSILON).log();
        (self.weight([positive, negative], targets) * log_likelihood).neg()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    fn losses(loss: AsymmetricLoss) -> Vec<f32> {
        let device = Device::flex();
        let logits = Tensor::<1>::from_floats([2.0, -1.0, 0.5, -3.0], &device);
        let targets = Tensor::<1>::from_floats([1.0, 0.0, 0.0, 1.0], &device);
        loss.forward(logits, targets).into_data().try_to_vec().unwrap()
    }

    #[test]
    fn published_values() {
        let got = losses(AsymmetricLoss::default());
        for (got, want) in got.iter().zip([0.015130189803, 0.000567797518, 0.091253004091, 2.904005434467]) {
            assert!((got - want as f32).abs() < 2e-5, "{got} {want}");
        }
        let sum: f32 = losses(AsymmetricLoss { focus_positive: 0.0, ..AsymmetricLoss::default() }).iter().sum();
        assert!((sum - 3.267_336_2).abs() < 2e-5, "{sum}");
    }

    #[test]
    fn invalid_values_are_named() {
        let loss = AsymmetricLoss { focus_negative: -1.0, ..AsymmetricLoss::default() };
        assert_eq!(loss.validate().unwrap_err().to_string(), "focus_negative = -1 must be finite and at least 0");
        let loss = AsymmetricLoss { shift: 1.0, ..AsymmetricLoss::default() };
        assert_eq!(loss.validate().unwrap_err().field, "shift");
        assert!(AsymmetricLoss::default().validate().is_ok());
    }

    #[test]
    fn easy_negatives_have_no_loss_and_no_gradient() {
        let device = Device::flex().autodiff();
        let logits = Tensor::<1>::from_floats([-4.0], &device).require_grad();
        let loss = AsymmetricLoss { weight_gradient: Switch::On, ..Default::default() };
        let value = loss.forward(logits.clone(), Tensor::zeros([1], &device)).sum();
        let gradient = logits.grad(&value.clone().backward()).unwrap();
        assert!(value.into_scalar::<f32>().abs() < 1e-7);
        assert!(gradient.into_scalar::<f32>().abs() < 1e-7);
    }
}
