//! Robust asymmetric loss (RAL) for binary labels, some of which are wrong.
//!
//! With `p`, the shifted `q`, and the weight `w` of [ASL](super::asl):
//!
//! ```text
//! L₊ = log p + ε₁ (1 - p) + ½ ε₂ (1 - p)²
//! L₋ = (log q + ε₀ q) (λ - p) p² (λ - q)
//! L  = -w (y L₊ + (1 - y) L₋)
//! ```
//!
//! The polynomial terms shape the gradient of positives. The Hill factor `(λ - p) p²` pushes a
//! negative less if its `p` is near 1, since its label may be wrong.
//!
//! Source: Park et al., ICCV workshops 2023, arXiv:2308.05542, and the authors' code, which alone
//! has the factor `λ - q`.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};
use willis_core::{InvalidValue, Switch};

use super::asl::{AsymmetricLoss, EPSILON};
use crate::rules::positive;

/// Configuration of the robust asymmetric loss.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RobustAsymmetricLoss {
    /// γ₊, the focusing exponent of positives.
    pub focus_positive: f64,
    /// γ₋, the focusing exponent of negatives.
    pub focus_negative: f64,
    /// m, the probability shift of negatives.
    pub shift: f64,
    /// ε₁ and ε₂, the coefficients of the polynomial of positives.
    pub polynomial_positive: [f64; 2],
    /// ε₀, the coefficient of the polynomial of negatives.
    pub polynomial_negative: f64,
    /// λ of the Hill factor.
    pub hill: f64,
}

impl Default for RobustAsymmetricLoss {
    /// The published values.
    fn default() -> Self {
        Self {
            focus_positive: 0.0,
            focus_negative: 4.0,
            shift: 0.05,
            polynomial_positive: [1.0, -2.5],
            polynomial_negative: 0.0,
            hill: 1.5,
        }
    }
}

impl RobustAsymmetricLoss {
    /// Checks every value.
    ///
    /// # Errors
    /// [`InvalidValue`] names the first value that breaks its rule.
    pub fn validate(&self) -> Result<(), InvalidValue> {
        self.asymmetric().validate()?;
        let [first, second] = self.polynomial_positive;
        for (field, value) in [
            ("polynomial_positive[0]", first),
            ("polynomial_positive[1]", second),
            ("polynomial_negative", self.polynomial_negative),
        ] {
            crate::rules::require(field, value, value.is_finite(), "must be finite")?;
        }
        positive("hill", self.hill)
    }

    /// The asymmetric loss whose probabilities and weight this loss uses. The published code lets
    /// gradients through the weight.
    fn asymmetric(&self) -> AsymmetricLoss {
        let Self { focus_positive, focus_negative, shift, .. } = *self;
        AsymmetricLoss { focus_positive, focus_negative, shift, weight_gradient: Switch::On }
    }

    /// Computes the loss of each element.
    ///
    /// # Shapes
    /// logits and targets (0 or 1) of one shape -> the same
    pub fn forward<const D: usize>(&self, logits: Tensor<D>, targets: Tensor<D>) -> Tensor<D> {
        let asymmetric = self.asymmetric();
        let [p, q] = asymmetric.probabilities(logits);
        let weight = asymmetric.weight([p.clone(), q.clone()], targets.clone());
        let [first, second] = self.polynomial_positive;
        let missing = p.clone().neg() + 1.0;
        let positive = p.clone().clamp_min(EPSILON).log() + missing.clone() * first + missing.square() * (0.5 * second);
        let hill = (p.clone().neg() + self.hill) * p.square() * (q.clone().neg() + self.hill);
        let negative = (q.clone().clamp_min(EPSILON).log() + q * self.polynomial_negative) * hill;
        let negative_targets = targets.clone().neg() + 1.0;
        (weight * (targets * positive + negative_targets * negative)).neg()
    }
}

#[cfg(test)]
mod tests {
    use super::super::assert_gradient;
    use super::*;
    use burn::tensor::Device;

    const LOGITS: [f32; 4] = [2.0, -1.0, 0.5, -3.0];
    const TARGETS: [f32; 4] = [1.0, 0.0, 0.0, 1.0];

    #[test]
    fn published_values() {
        let device = Device::flex();
        let (logits, targets) = (Tensor::<1>::from_floats(LOGITS, &device), Tensor::<1>::from_floats(TARGETS, &device));
        let got = RobustAsymmetricLoss::default().forward(logits, targets).into_data().try_to_vec::<f32>().unwrap();
        for (got, want) in got.iter().zip([0.025486759794, 0.000036348049, 0.03327493524, 3.230260058616]) {
            assert!((got - want as f32).abs() < 2e-5, "{got} {want}");
        }
    }

    #[test]
    fn gradient_equals_central_differences() {
        let loss = RobustAsymmetricLoss { focus_positive: 1.5, polynomial_negative: 0.3, ..Default::default() };
        let device = Device::flex().autodiff();
        let value = |x: &[f32]| {
            let targets = Tensor::<1>::from_floats(TARGETS, &device);
            f64::from(loss.forward(Tensor::<1>::from_floats(x, &device), targets).sum().into_scalar::<f32>())
        };
        let x = Tensor::<1>::from_floats(LOGITS, &device).require_grad();
        let grads = loss.forward(x.clone(), Tensor::<1>::from_floats(TARGETS, &device)).sum().backward();
        let gradient = x.grad(&grads).unwrap().into_data().try_to_vec::<f32>().unwrap();
        assert_gradient(1e-2, value, &LOGITS, &gradient, &[0, 1, 2, 3]);
    }

    #[test]
    fn invalid_values_are_named() {
        RobustAsymmetricLoss::default().validate().unwrap();
        let loss = RobustAsymmetricLoss { polynomial_positive: [1.0, f64::NAN], ..Default::default() };
        assert_eq!(loss.validate().unwrap_err().to_string(), "polynomial_positive[1] = NaN must be finite");
        let loss = RobustAsymmetricLoss { shift: 1.0, ..Default::default() };
        assert_eq!(loss.validate().unwrap_err().field, "shift");
    }
}
