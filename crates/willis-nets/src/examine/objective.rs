//! What the training of the expert classifier minimises: the terms of the loss and their balance.

use burn::module::Module;
use burn::tensor::activation::{log_softmax, sigmoid, softmax};
use burn::tensor::{Int, Tensor, TensorData};
use serde::{Deserialize, Serialize};
use willis_core::{InvalidValue, SITE_COUNT};

use super::augment::AugmentedExample;
use super::condition::CONDITIONS;
use super::fit::ExamineTraining;
use super::net::{ExamineNet, ExamineOutput};
use super::patch::{IN_CHANNELS, SIDE};
use crate::layers::Init;
use crate::loss::auc_margin::{AucLabels, AucMargin, AucMarginConfig};
use crate::loss::balance::{TermKind, Uncertainty, UncertaintyConfig};
use crate::loss::class::{ClassLoss, cross_entropy};
use crate::rules::non_negative;
use crate::train::{Loss, LossPhase};

/// Weights of the terms of the loss.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ExamineBalance {
    /// Constants.
    Fixed(FixedBalance),
    /// Learned from the uncertainty of the terms.
    Learned(UncertaintyConfig),
}

impl Default for ExamineBalance {
    fn default() -> Self {
        Self::Fixed(FixedBalance::default())
    }
}

/// Constant weights; that of the class is 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FixedBalance {
    /// Weight of the cross-entropy of the site.
    pub site: f64,
    /// Weight of the smooth L1 loss of the centre, in voxels.
    pub offset: f64,
    /// Weight of the smooth L1 loss of the log-diameter.
    pub diameter: f64,
}

impl Default for FixedBalance {
    fn default() -> Self {
        Self { site: 0.2, offset: 0.1, diameter: 0.2 }
    }
}

impl ExamineBalance {
    pub(super) fn validate(&self) -> Result<(), InvalidValue> {
        match self {
            Self::Fixed(weights) => {
                non_negative("site", weights.site)?;
                non_negative("offset", weights.offset)?;
                non_negative("diameter", weights.diameter)
            }
            Self::Learned(config) => config.validate(),
        }
    }
}

/// The net and what the loss learns beside it.
#[derive(Module, Debug)]
pub(super) struct ExamineObjective {
    pub net: ExamineNet,
    /// Scalars of the AUC margin loss; the optimisers find them by the name of this field.
    auc_margin: Option<AucMargin>,
    uncertainty: Option<Uncertainty>,
}

/// A batch and what it is to be used for.
pub(super) struct Batch {
    pub phase: LossPhase,
    pub examples: Vec<AugmentedExample>,
    /// For each example, the only label it counts for; `None` for all.
    pub labels: Vec<Option<usize>>,
}

impl ExamineObjective {
    pub fn new(net: ExamineNet, training: &ExamineTraining) -> Self {
        let init = &mut Init::new(0, &net.device());
        let auc_margin = match training.class {
            ClassLoss::AucMargin(config) => Some(AucMargin::new(columns(config.labels), init)),
            ClassLoss::CrossEntropy | ClassLoss::Asymmetric(_) | ClassLoss::Robust(_) => None,
        };
        let uncertainty = match training.balance {
            ExamineBalance::Fixed(_) => None,
            ExamineBalance::Learned(config) => Some(config.init(4, init)),
        };
        Self { net, auc_margin, uncertainty }
    }

    /// Loss of a batch: of the class over all examples, of centre and size over the lesions, and of
    /// the site over the hits.
    pub fn loss(&self, batch: &Batch, training: &ExamineTraining) -> Loss {
        let examples = &batch.examples;
        let device = self.net.device();
        let count = examples.len();
        let column = |f: &dyn Fn(&AugmentedExample) -> Vec<f32>, width: usize| {
            let values: Vec<f32> = examples.iter().flat_map(f).collect();
            Tensor::<2>::from_data(TensorData::new(values, [count, width]), &device)
        };
        let x = column(&|s| s.channels.clone(), IN_CHANNELS * SIDE.pow(3));
        let x = x.reshape([count, IN_CHANNELS, SIDE, SIDE, SIDE]);
        let output = self.net.forward(x, column(&|s| s.condition.to_vec(), CONDITIONS));
        let is_lesion = column(&|s| vec![f32::from(s.truth.site.is_some())], 1);
        let lesions = examples.iter().filter(|s| s.truth.site.is_some()).count().max(1) as f64;
        let is_hit = column(&|s| vec![f32::from(s.truth.hit)], 1);
        let hits = examples.iter().filter(|s| s.truth.hit).count().max(1) as f64;

        let class = self.class_term(&output, batch, training);
        let sites: Vec<i32> = examples.iter().map(|s| s.truth.site.map_or(0, |site| site.column() as i32)).collect();
        let sites = Tensor::<2, Int>::from_data(TensorData::new(sites, [count, 1]), &device);
        let log_probability = log_softmax(output.site_logits, 1).gather(1, sites);
        let site = (log_probability * is_hit).sum().neg() / hits;
        let offset = output.offset_vox - column(&|s| s.truth.offset_vox.to_vec(), 3);
        let offset = (smooth_l1(offset).sum_dim(1) * is_lesion.clone()).sum() / lesions;
        let diameter = output.log_diameter.reshape([count, 1]) - column(&|s| vec![s.truth.log_diameter], 1);
        let diameter = (smooth_l1(diameter) * is_lesion).sum() / lesions;

        let value = |t: &Tensor<1>| f64::from(t.clone().into_scalar::<f32>());
        let mut terms = vec![
            ("class", value(&class)),
            ("site", value(&site)),
            ("offset", value(&offset)),
            ("diameter", value(&diameter)),
        ];
        let total = match (&training.balance, &self.uncertainty) {
            (ExamineBalance::Learned(config), Some(learned)) => {
                let (classification, regression) = (TermKind::Classification, TermKind::Regression);
                let all =
                    [(classification, class), (classification, site), (regression, offset), (regression, diameter)];
                let (total, weights) = config.combine(learned, all.into());
                let names = ["class_weight", "site_weight", "offset_weight", "diameter_weight"];
                terms.extend(names.into_iter().zip(weights));
                total
            }
            (ExamineBalance::Fixed(weights), _) => {
                class + site * weights.site + offset * weights.offset + diameter * weights.diameter
            }
            (ExamineBalance::Learned(_), None) => unreachable!("learned weights have scalars"),
        };
        Loss { terms, ..Loss::of(total) }
    }

    fn class_term(&self, output: &ExamineOutput, batch: &Batch, training: &ExamineTraining) -> Tensor<1> {
        let logits = output.class_logit.clone();
        let is_lesion: Vec<f32> = batch.examples.iter().map(|s| f32::from(s.truth.site.is_some())).collect();
        let targets = Tensor::from_floats(is_lesion.as_slice(), &logits.device());
        match (&training.class, &self.auc_margin, batch.phase) {
            (ClassLoss::AucMargin(config), Some(learned), LossPhase::Objective) => {
                let margin = training.train.optimiser.saddle().map_or(1.0, |saddle| saddle.margin);
                auc_margin_term(config, learned, margin, output, batch)
            }
            (ClassLoss::AucMargin(_), ..) | (ClassLoss::CrossEntropy, ..) => cross_entropy(logits, targets).mean(),
            (ClassLoss::Asymmetric(loss), ..) => loss.forward(logits, targets).mean(),
            (ClassLoss::Robust(loss), ..) => loss.forward(logits, targets).mean(),
        }
    }
}

/// Number of labels of the AUC margin loss.
fn columns(labels: AucLabels) -> usize {
    match labels {
        AucLabels::Presence => 1,
        AucLabels::Columns => 1 + SITE_COUNT,
    }
}

/// AUC margin loss of "aneurysm" and, with [`AucLabels::Columns`], of "aneurysm at the site", whose
/// score is the product of both probabilities.
fn auc_margin_term(
    config: &AucMarginConfig,
    learned: &AucMargin,
    margin: f64,
    output: &ExamineOutput,
    batch: &Batch,
) -> Tensor<1> {
    let (count, width) = (batch.examples.len(), columns(config.labels));
    let present: Tensor<2> = sigmoid(output.class_logit.clone()).reshape([count, 1]);
    let at_sites = present.clone() * softmax(output.site_logits.clone(), 1);
    let scores = Tensor::cat(vec![present, at_sites], 1).narrow(1, 0, width);
    let (mut targets, mut counts) = (Vec::new(), Vec::new());
    for (example, label) in batch.examples.iter().zip(&batch.labels) {
        let truth = &example.truth;
        for column in 0..width {
            let at_site = truth.site.is_some_and(|site| column == 0 || site.column() + 1 == column);
            let site_is_known = column == 0 || truth.site.is_none() || truth.hit;
            let is_drawn_for = label.is_none_or(|label| label == column);
            targets.push(f32::from(at_site));
            counts.push(f32::from(site_is_known && is_drawn_for));
        }
    }
    let table = |values: Vec<f32>| Tensor::from_data(TensorData::new(values, [count, width]), &scores.device());
    let (targets, counts) = (table(targets), table(counts));
    config.form.forward(learned, margin, scores, targets, counts)
}

/// Smooth L1 loss: `d²/2` for `|d|` up to 1, then `|d| - 1/2`.
fn smooth_l1(difference: Tensor<2>) -> Tensor<2> {
    let size = difference.abs();
    let small = size.clone().clamp_max(1.0);
    // With s = min(|d|, 1), both branches are s²/2 + (|d| - s).
    small.clone().square() / 2.0 + (size - small)
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn smooth_l1_by_hand() {
        let d = Tensor::from_floats([[0.0, 0.5, -1.0, 3.0]], &Device::flex());
        assert_eq!(smooth_l1(d).into_data().try_to_vec::<f32>().unwrap(), [0.0, 0.125, 0.5, 2.5]);
    }
}
