//! AUC margin loss: maximises the area under the ROC curve of each label.
//!
//! `min_{w,a,b} max_{α≥0}` of, per label,
//!
//! ```text
//! v1: (1-p) E[(s-a)² 1₊] + p E[(s-b)² 1₋] + 2α (p (1-p) m + E[p s 1₋ - (1-p) s 1₊]) - p (1-p) α²
//! v2: E₊(s-a)² + E₋(s-b)² + 2α (m + E₋s - E₊s) - α²
//! ```
//!
//! At the optimum, a is the mean score of positives, b that of negatives, and `α = max(0, m + b - a)`.
//! Only the optimisers PESG and PDSCA ascend in α, see [`crate::train::NetOptimiser`].
//!
//! Letters: B batch, L labels, s scores (probabilities), m margin, p share of positives, E mean over
//! the batch, E₊ and E₋ means over positives and negatives.
//!
//! Source: Yuan et al., ICCV 2021, arXiv:2012.03173; behaviour of LibAUC 2.0.1, except that its v1
//! of several labels omits the margin.

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};
use willis_core::InvalidValue;

use crate::layers::Init;
use crate::rules::require;

/// Path of a in a trained module whose field `auc_margin` is an [`AucMargin`].
pub(crate) const MEAN_POSITIVE: &str = "auc_margin.mean_positive";
/// Path of b, likewise.
pub(crate) const MEAN_NEGATIVE: &str = "auc_margin.mean_negative";
/// Path of α, likewise.
pub(crate) const DUAL: &str = "auc_margin.dual";

/// Form of the AUC margin loss.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum AucMarginLoss {
    /// v1, which weighs the classes by the share of positives.
    V1(V1Config),
    /// v2 as documented, with means per class.
    V2,
    /// v2 as the published code computes it for one label: in the term of α, the sum over negatives
    /// is divided by the whole batch.
    V2AsCoded,
}

/// Labels whose AUC is maximised.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AucLabels {
    /// "Aneurysm" alone.
    #[default]
    Presence,
    /// "Aneurysm" and "aneurysm at this site" for each of the thirteen sites.
    Columns,
}

/// Configuration of the AUC margin loss of a classifier.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AucMarginConfig {
    /// Form of the loss.
    pub form: AucMarginLoss,
    /// Labels it is averaged over.
    pub labels: AucLabels,
}

impl Default for AucMarginConfig {
    fn default() -> Self {
        Self { form: AucMarginLoss::V2, labels: AucLabels::Presence }
    }
}

impl AucMarginConfig {
    /// Checks every value.
    ///
    /// # Errors
    /// [`InvalidValue`] names the first value that breaks its rule.
    pub fn validate(&self) -> Result<(), InvalidValue> {
        self.form.validate().map_err(|error| error.within("form"))
    }
}

/// Configuration of v1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct V1Config {
    /// p, the share of positives; by default that of each batch.
    pub positive_rate: Option<f64>,
}

/// Learned scalars of the loss, one of each per label. All start at 0.
#[derive(Module, Debug)]
pub struct AucMargin {
    /// a, `[L]`.
    pub mean_positive: Param<Tensor<1>>,
    /// b, `[L]`.
    pub mean_negative: Param<Tensor<1>>,
    /// α, `[L]`.
    pub dual: Param<Tensor<1>>,
}

impl AucMargin {
    /// The scalars for `labels` labels.
    pub fn new(labels: usize, init: &mut Init) -> Self {
        Self {
            mean_positive: init.constant([labels], 0.0),
            mean_negative: init.constant([labels], 0.0),
            dual: init.constant([labels], 0.0),
        }
    }
}

impl AucMarginLoss {
    /// Checks every value.
    ///
    /// # Errors
    /// [`InvalidValue`] names the first value that breaks its rule.
    pub fn validate(&self) -> Result<(), InvalidValue> {
        match self {
            Self::V1(V1Config { positive_rate: Some(rate) }) => {
                require("positive_rate", rate, *rate > 0.0 && *rate < 1.0, "must be above 0 and below 1")
            }
            Self::V1(_) | Self::V2 | Self::V2AsCoded => Ok(()),
        }
    }

    /// Computes the loss, averaged over the labels of which the batch has both classes; 0 if there
    /// is none.
    ///
    /// # Shapes
    /// scores, targets (0 or 1) and which of them count (0 or 1) `[B, L]` -> `[1]`
    pub fn forward(
        &self,
        learned: &AucMargin,
        margin: f64,
        scores: Tensor<2>,
        targets: Tensor<2>,
        counts: Tensor<2>,
    ) -> Tensor<1> {
        let [_, labels] = scores.dims();
        let row = |t: &Param<Tensor<1>>| t.val().reshape([1, labels]);
        let (a, b, alpha) = (row(&learned.mean_positive), row(&learned.mean_negative), row(&learned.dual));
        let positive = targets.clone() * counts.clone();
        let negative = (targets.neg() + 1.0) * counts;
        let sum = |values: Tensor<2>| values.sum_dim(0);
        let (n_positive, n_negative) = (sum(positive.clone()), sum(negative.clone()));
        let n_all = (n_positive.clone() + n_negative.clone()).clamp_min(1.0);
        let to_a = sum((scores.clone() - a).square() * positive.clone());
        let to_b = sum((scores.clone() - b).square() * negative.clone());
        let (score_positive, score_negative) = (sum(scores.clone() * positive), sum(scores * negative));
        let loss = match self {
            Self::V1(V1Config { positive_rate }) => {
                let p = match positive_rate {
                    Some(rate) => Tensor::full_like(&n_all, *rate),
                    None => n_positive.clone() / n_all.clone(),
                };
                let q = p.clone().neg() + 1.0;
                let both = p.clone() * q.clone();
                let near = (q.clone() * to_a + p.clone() * to_b) / n_all.clone();
                let apart = both.clone() * margin + (p * score_negative - q * score_positive) / n_all;
                near + alpha.clone() * apart * 2.0 - both * alpha.square()
            }
            Self::V2 | Self::V2AsCoded => {
                let per_class = (n_positive.clone().clamp_min(1.0), n_negative.clone().clamp_min(1.0));
                let n_dual = if *self == Self::V2 { per_class.1.clone() } else { n_all };
                let near = to_a / per_class.0.clone() + to_b / per_class.1;
                let apart = score_negative / n_dual - score_positive / per_class.0 + margin;
                near + alpha.clone() * apart * 2.0 - alpha.square()
            }
        };
        let defined = n_positive.clamp_max(1.0) * n_negative.clamp_max(1.0);
        (loss * defined.clone()).sum() / defined.sum().clamp_min(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    fn learned(a: f32, b: f32, alpha: f32, device: &Device) -> AucMargin {
        let param = |value: f32| Param::from_tensor(Tensor::<1>::from_floats([value], device));
        AucMargin { mean_positive: param(a), mean_negative: param(b), dual: param(alpha) }
    }

    /// One label of four scores.
    fn value(loss: AucMarginLoss, scores: [f32; 4], targets: [f32; 4], learned: &AucMargin) -> f32 {
        let device = learned.dual.val().device();
        let column = |values: [f32; 4]| Tensor::<1>::from_floats(values, &device).reshape([4, 1]);
        loss.forward(learned, 1.0, column(scores), column(targets), Tensor::ones([4, 1], &device)).into_scalar()
    }

    #[test]
    fn published_values() {
        let learned = learned(0.7, 0.3, 0.2, &Device::flex());
        let v1 = AucMarginLoss::V1(V1Config::default());
        for (loss, want) in [(v1, 0.09375), (AucMarginLoss::V2, 0.375), (AucMarginLoss::V2AsCoded, 0.295)] {
            let got = value(loss, [0.9, 0.2, 0.6, 0.4], [1.0, 0.0, 0.0, 1.0], &learned);
            assert!((got - want).abs() < 1e-6, "{loss:?}: {got} {want}");
        }
    }

    #[test]
    fn labels_with_one_class_do_not_count() {
        let device = Device::flex();
        let learned = learned(0.1, 0.2, 0.3, &device);
        assert_eq!(value(AucMarginLoss::V2, [0.9, 0.2, 0.6, 0.4], [0.0; 4], &learned), 0.0);
        // Masked rows have no effect on the loss of a label.
        let scores = Tensor::<2>::from_floats([[0.9], [0.2], [0.6], [0.4], [1.0]], &device);
        let targets = Tensor::<2>::from_floats([[1.0], [0.0], [0.0], [1.0], [0.0]], &device);
        let counts = Tensor::<2>::from_floats([[1.0], [1.0], [1.0], [1.0], [0.0]], &device);
        let masked: f32 = AucMarginLoss::V2.forward(&learned, 1.0, scores, targets, counts).into_scalar();
        assert!((masked - value(AucMarginLoss::V2, [0.9, 0.2, 0.6, 0.4], [1.0, 0.0, 0.0, 1.0], &learned)).abs() < 1e-6);
    }

    #[test]
    fn the_loss_is_stationary_in_its_scalars_at_the_means() {
        let device = Device::flex().autodiff();
        let net = learned(0.65, 0.4, 0.75, &device);
        let column = |values: [f32; 4]| Tensor::<1>::from_floats(values, &device).reshape([4, 1]);
        let (scores, targets) = (column([0.9, 0.2, 0.6, 0.4]), column([1.0, 0.0, 0.0, 1.0]));
        let loss = AucMarginLoss::V2.forward(&net, 1.0, scores, targets, Tensor::ones([4, 1], &device));
        let grads = loss.backward();
        for param in [&net.mean_positive, &net.mean_negative, &net.dual] {
            assert!(param.val().grad(&grads).unwrap().into_scalar::<f32>().abs() < 1e-6);
        }
    }

    #[test]
    fn invalid_values_are_named() {
        let loss = AucMarginLoss::V1(V1Config { positive_rate: Some(1.0) });
        assert_eq!(loss.validate().unwrap_err().to_string(), "positive_rate = 1 must be above 0 and below 1");
    }
}
