//! Weights of the terms of a loss: fixed, or learned from the terms' uncertainty.
//!
//! Letters: L a term, c and s the learned scalar of a term.
//!
//! Sources: Kendall, Gal and Cipolla, CVPR 2018, arXiv:1705.07115; Liebel and Körner 2018,
//! arXiv:1805.06334.

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};
use willis_core::InvalidValue;

use crate::layers::Init;
use crate::rules::positive;

/// How the weights of a loss's terms follow from learned scalars.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UncertaintyForm {
    /// `Σ L / (2c²) + log(1 + c²)`, c starts at 1. Never negative.
    Liebel,
    /// `Σ e^{-s} L + s/2` for classification and `Σ e^{-s} L / 2 + s/2` for regression, where
    /// `s = log σ²` starts at 0. The total may be negative.
    Kendall,
}

/// Kind of a loss's term, which [`UncertaintyForm::Kendall`] distinguishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TermKind {
    /// Likelihood of a class.
    Classification,
    /// Error of a quantity.
    Regression,
}

/// Configuration of learned weights.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UncertaintyConfig {
    /// The form.
    pub form: UncertaintyForm,
    /// Highest weight of a term. Without a cap, the weight of a term that shrinks to 0 grows
    /// without bound.
    pub max_weight: f64,
}

impl Default for UncertaintyConfig {
    fn default() -> Self {
        Self { form: UncertaintyForm::Liebel, max_weight: 10.0 }
    }
}

impl UncertaintyConfig {
    /// Checks every value.
    ///
    /// # Errors
    /// [`InvalidValue`] names the first value that breaks its rule.
    pub fn validate(&self) -> Result<(), InvalidValue> {
        positive("max_weight", self.max_weight)
    }

    /// Scalars for `terms` terms, before the first step.
    pub fn init(&self, terms: usize, init: &mut Init) -> Uncertainty {
        let start = match self.form {
            UncertaintyForm::Liebel => 1.0,
            UncertaintyForm::Kendall => 0.0,
        };
        Uncertainty { scalars: init.constant([terms], start) }
    }

    /// Combines the terms; returns the total and the weight of each term.
    ///
    /// # Shapes
    /// each term `[1]` -> total `[1]`
    ///
    /// # Panics
    /// if the number of terms is not that of the scalars (programmer error)
    pub fn combine(&self, learned: &Uncertainty, terms: Vec<(TermKind, Tensor<1>)>) -> (Tensor<1>, Vec<f64>) {
        let [count] = learned.scalars.val().dims();
        assert_eq!(count, terms.len(), "one scalar per term");
        let mut total = Tensor::zeros([1], &learned.scalars.val().device());
        let mut weights = Vec::with_capacity(count);
        for (i, (kind, term)) in terms.into_iter().enumerate() {
            let scalar = learned.scalars.val().narrow(0, i, 1);
            let (weight, penalty) = self.weight(kind, scalar);
            // Once the cap is reached, the gradient of the weight is 0 and the penalty raises the
            // uncertainty again.
            let weight = weight.clamp_max(self.max_weight);
            weights.push(f64::from(weight.clone().into_scalar::<f32>()));
            total = total + weight * term + penalty;
        }
        (total, weights)
    }

    /// Weight of a term and what the loss adds for it.
    fn weight(&self, kind: TermKind, scalar: Tensor<1>) -> (Tensor<1>, Tensor<1>) {
        match (self.form, kind) {
            (UncertaintyForm::Liebel, _) => {
                let square = scalar.square();
                (square.clone().clamp_min(1e-12).recip() * 0.5, (square + 1.0).log())
            }
            (UncertaintyForm::Kendall, TermKind::Classification) => (scalar.clone().neg().exp(), scalar * 0.5),
            (UncertaintyForm::Kendall, TermKind::Regression) => (scalar.clone().neg().exp() * 0.5, scalar * 0.5),
        }
    }
}

/// Learned scalars, one per term. They have rank one, so the optimiser does not decay them.
#[derive(Module, Debug)]
pub struct Uncertainty {
    scalars: Param<Tensor<1>>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    fn scalars(values: &[f32], device: &Device) -> Uncertainty {
        Uncertainty { scalars: Param::from_tensor(Tensor::from_floats(values, device)) }
    }

    fn terms(values: [f32; 2], device: &Device) -> Vec<(TermKind, Tensor<1>)> {
        let term = |kind, value| (kind, Tensor::<1>::from_floats([value], device));
        vec![term(TermKind::Classification, values[0]), term(TermKind::Regression, values[1])]
    }

    #[test]
    fn published_values() {
        let device = Device::flex();
        let liebel = UncertaintyConfig::default();
        let (total, weights) = liebel.combine(&liebel.init(2, &mut Init::new(0, &device)), terms([1.0, 2.0], &device));
        assert!((total.into_scalar::<f32>() - 2.886_294_4).abs() < 1e-6);
        assert_eq!(weights, [0.5, 0.5]);

        let kendall = UncertaintyConfig { form: UncertaintyForm::Kendall, max_weight: 100.0 };
        // e^{-1} · 1 + 1/2 and e^{2} · 2 / 2 - 1
        let (total, _) = kendall.combine(&scalars(&[1.0, -2.0], &device), terms([1.0, 2.0], &device));
        let want = (-1f32).exp() + 0.5 + 2f32.exp() - 1.0;
        assert!((total.into_scalar::<f32>() - want).abs() < 1e-5);
    }

    #[test]
    fn liebel_is_stationary_where_theory_says() {
        let device = Device::flex().autodiff();
        let config = UncertaintyConfig::default();
        // c⁴ / (1 + c²) = L / 2 at c = 2: L = 2 · 16 / 5.
        let learned = scalars(&[2.0, 2.0], &device);
        let (total, _) = config.combine(&learned, terms([6.4, 6.4], &device));
        let gradient = learned.scalars.val().grad(&total.backward()).unwrap().into_data().try_to_vec::<f32>().unwrap();
        assert!(gradient.iter().all(|g| g.abs() < 1e-5), "{gradient:?}");
    }

    #[test]
    fn the_weight_of_a_vanishing_term_stays_below_the_cap() {
        let device = Device::flex().autodiff();
        let config = UncertaintyConfig { max_weight: 3.0, ..UncertaintyConfig::default() };
        let learned = scalars(&[1e-3, 1.0], &device);
        let (total, weights) = config.combine(&learned, terms([1e-9, 1.0], &device));
        assert_eq!(weights[0], 3.0);
        let gradient = learned.scalars.val().grad(&total.backward()).unwrap().into_data().try_to_vec::<f32>().unwrap();
        assert!(gradient[0].is_finite() && gradient[0].abs() < 1.0, "{gradient:?}");
    }
}
