//! The loss of "aneurysm or not".

use burn::tensor::Tensor;
use burn::tensor::activation::log_sigmoid;
use serde::{Deserialize, Serialize};
use willis_core::InvalidValue;

use super::asl::AsymmetricLoss;
use super::auc_margin::AucMarginConfig;
use super::robust::RobustAsymmetricLoss;

/// Loss of a class.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ClassLoss {
    /// Binary cross-entropy.
    CrossEntropy,
    /// Asymmetric loss (ASL).
    Asymmetric(AsymmetricLoss),
    /// Robust asymmetric loss (RAL).
    Robust(RobustAsymmetricLoss),
    /// AUC margin loss, which needs an optimiser of its own: `pesg` or `pdsca`.
    AucMargin(AucMarginConfig),
}

impl ClassLoss {
    /// Checks every value.
    ///
    /// # Errors
    /// [`InvalidValue`] names the first value that breaks its rule.
    pub fn validate(&self) -> Result<(), InvalidValue> {
        match self {
            Self::CrossEntropy => Ok(()),
            Self::Asymmetric(loss) => loss.validate(),
            Self::Robust(loss) => loss.validate(),
            Self::AucMargin(config) => config.validate(),
        }
    }
}

/// Binary cross-entropy of each element, `-y log σ(x) - (1 - y) log σ(-x)`.
///
/// # Shapes
/// logits and targets (0 or 1) of one shape -> the same
pub fn cross_entropy<const D: usize>(logits: Tensor<D>, targets: Tensor<D>) -> Tensor<D> {
    let negative = targets.clone().neg() + 1.0;
    (targets * log_sigmoid(logits.clone()) + negative * log_sigmoid(logits.neg())).neg()
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    #[test]
    fn cross_entropy_by_hand() {
        let device = Device::flex();
        let logits = Tensor::<1>::from_floats([0.0, 1.0, -40.0], &device);
        let targets = Tensor::<1>::from_floats([1.0, 0.0, 1.0], &device);
        let got = cross_entropy(logits, targets).into_data().try_to_vec::<f32>().unwrap();
        for (got, want) in got.iter().zip([2f32.ln(), (1.0 + 1f32.exp()).ln(), 40.0]) {
            assert!((got - want).abs() < 1e-5, "{got} {want}");
        }
    }

    #[test]
    fn a_configuration_names_its_kind() {
        let loss: ClassLoss = serde_json::from_str(r#"{"kind": "robust", "hill": 2.0}"#).unwrap();
        assert_eq!(loss, ClassLoss::Robust(RobustAsymmetricLoss { hill: 2.0, ..Default::default() }));
        assert!(serde_json::from_str::<ClassLoss>(r#"{"kind": "asymmetric", "hill": 2.0}"#).is_err());
    }
}
