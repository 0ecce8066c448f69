//! Training of the expert classifier.

use std::path::Path;

use burn::tensor::Device;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use willis_core::{InvalidValue, Switch};

use super::augment::{ExamineAugmentConfig, augment};
use super::data::ExamineCase;
use super::net::{ExamineNet, ExamineNetConfig};
use super::objective::{Batch, ExamineBalance, ExamineObjective};
use super::sampler::{ExamineSampler, OneClass, Pools};
use crate::layers::Init;
use crate::loss::asl::AsymmetricLoss;
use crate::loss::class::ClassLoss;
use crate::rules::{at_least_one, require};
use crate::train::{StepReport, TrainConfig, TrainError, Trained, train};
use crate::weights::{Weights, WeightsError};

/// Configuration of the training of the expert classifier.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ExamineTraining {
    /// The net.
    pub net: ExamineNetConfig,
    /// Training loop.
    pub train: TrainConfig,
    /// Augmentation of examples.
    pub augment: ExamineAugmentConfig,
    /// Examples per batch.
    pub batch: usize,
    /// How batches are put together.
    pub sampler: ExamineSampler,
    /// Loss of the class.
    pub class: ClassLoss,
    /// Weights of the loss's terms.
    pub balance: ExamineBalance,
}

impl Default for ExamineTraining {
    fn default() -> Self {
        Self {
            net: ExamineNetConfig::default(),
            train: TrainConfig { steps: 2000, learning_rate: 1e-3, ..TrainConfig::default() },
            augment: ExamineAugmentConfig::default(),
            batch: 8,
            sampler: ExamineSampler::Mixed,
            class: ClassLoss::Asymmetric(AsymmetricLoss {
                focus_positive: 0.0,
                focus_negative: 1.0,
                shift: 0.0,
                weight_gradient: Switch::Off,
            }),
            balance: ExamineBalance::default(),
        }
    }
}

impl ExamineTraining {
    /// Checks every value.
    ///
    /// # Errors
    /// [`InvalidValue`] names the first value that breaks its rule.
    pub fn validate(&self) -> Result<(), InvalidValue> {
        self.net.validate().map_err(|error| error.within("net"))?;
        self.train.validate().map_err(|error| error.within("train"))?;
        self.augment.validate().map_err(|error| error.within("augment"))?;
        self.class.validate().map_err(|error| error.within("class"))?;
        self.balance.validate().map_err(|error| error.within("balance"))?;
        at_least_one("batch", self.batch)?;
        self.sampler.validate(self.batch).map_err(|error| error.within("sampler"))?;
        let is_margin = matches!(self.class, ClassLoss::AucMargin(_));
        let ascends = self.train.optimiser.saddle().is_some();
        let rule = "must be pesg or pdsca with class.kind = auc_margin, and adamw with any other";
        require("train.optimiser.kind", self.train.optimiser.name(), is_margin == ascends, rule)
    }
}

/// Error of the training of the expert classifier.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExamineFitError {
    /// A configuration value breaks a rule.
    #[error(transparent)]
    Config(#[from] InvalidValue),
    /// One of the two classes has no example.
    #[error("there are {lesions} lesions and {others} other candidates to train on, and both are needed; add series")]
    OneClass {
        /// Examples of lesions.
        lesions: usize,
        /// Other examples.
        others: usize,
    },
    /// The initial weights do not fit the net.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The training loop failed.
    #[error(transparent)]
    Train(#[from] TrainError),
}

/// Trains an expert classifier from `start` or from random weights, or resumes the run in
/// `run_dir`. Equal cases, configuration and seed give equal nets.
///
/// # Errors
/// [`ExamineFitError`] when the configuration is invalid, a class has no example, the initial
/// weights do not fit, or the training loop fails.
pub fn fit(
    cases: &[ExamineCase],
    training: &ExamineTraining,
    start: Option<Weights>,
    run_dir: &Path,
    device: &Device,
    on_step: impl FnMut(&StepReport<'_>),
) -> Result<Trained<ExamineNet>, ExamineFitError> {
    training.validate()?;
    let pools = Pools::new(cases.iter().flat_map(|case| &case.examples))
        .map_err(|OneClass { lesions, others }| ExamineFitError::OneClass { lesions, others })?;
    let ExamineTraining { batch, sampler, train: TrainConfig { seed, accumulate, .. }, .. } = training;
    let sample = |number: usize, rng: &mut ChaCha8Rng| {
        let sampled = pools.batch(sampler, *batch, *seed, number, rng);
        Batch {
            phase: training.train.optimiser.phase(number / accumulate),
            examples: sampled.iter().map(|s| augment(s.example, &training.augment, rng)).collect(),
            labels: sampled.iter().map(|s| s.label).collect(),
        }
    };
    let net = training.net.init(&mut Init::new(*seed, device));
    let net = match start {
        Some(weights) => weights.apply(net)?,
        None => net,
    };
    // Rates name the parameters of the net, which is a part of the objective.
    let rates = training.train.rates.iter().map(|(path, &rate)| (format!("net.{path}"), rate));
    let config = TrainConfig { rates: rates.collect(), ..training.train.clone() };
    let loss = |objective: &ExamineObjective, batch: Batch| objective.loss(&batch, training);
    let Trained { net: ExamineObjective { net, .. }, step, finished } =
        train(ExamineObjective::new(net, training), &config, run_dir, sample, loss, on_step)?;
    Ok(Trained { net, step, finished })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::encoder::{PatchEncoderConfig, PlainEncoderConfig};
    use super::super::patch::tests::map;
    use super::super::sampler::DualConfig;
    use super::*;
    use crate::loss::auc_margin::AucMarginConfig;
    use crate::loss::balance::UncertaintyConfig;
    use crate::loss::robust::RobustAsymmetricLoss;
    use crate::train::{AdamWConfig, NetOptimiser, PdscaConfig, PesgConfig};
    use willis_core::{Candidate, Evidence, Lesion, Point, SeriesMeta, Site};

    fn case() -> ExamineCase {
        let centre = Point::new(24.0, 24.0, 24.0);
        let lesion = Lesion { centre, diameter_mm: Some(6.0), site: Site::LeftMca, neck: None, neck_width_mm: None };
        let candidate = Candidate {
            rank: 1,
            centre: Point::new(32.0, 24.0, 30.0),
            diameter_mm: 3.0,
            probability: 0.5,
            site: None,
            distance_to_vessel_mm: None,
            evidence: Evidence::default(),
        };
        ExamineCase::new(&map(&[(centre, 3.0)]), &[candidate], &[lesion], &SeriesMeta::default())
    }

    /// A small net and 25 steps on two examples.
    fn training() -> ExamineTraining {
        let encoder = PatchEncoderConfig::Plain(PlainEncoderConfig { embed_dim: 4 });
        let optimiser = NetOptimiser::AdamW(AdamWConfig { weight_decay: 0.0, ..AdamWConfig::default() });
        ExamineTraining {
            net: ExamineNetConfig { encoder, ..ExamineNetConfig::default() },
            train: TrainConfig { steps: 25, learning_rate: 0.01, warmup_steps: 3, optimiser, ..TrainConfig::default() },
            batch: 2,
            augment: ExamineAugmentConfig::NONE,
            ..ExamineTraining::default()
        }
    }

    /// Terms of the loss at every step.
    fn terms(training: &ExamineTraining) -> Vec<BTreeMap<&'static str, f64>> {
        let folder = tempfile::tempdir().unwrap();
        let mut terms = Vec::new();
        let record = |report: &StepReport<'_>| terms.push(report.terms.iter().copied().collect());
        fit(&[case()], training, None, folder.path(), &Device::flex(), record).unwrap();
        terms
    }

    #[test]
    fn two_examples_are_learned_with_every_loss_and_balance() {
        let learned = ExamineBalance::Learned(UncertaintyConfig::default());
        for (class, balance) in [
            (training().class, ExamineBalance::default()),
            (ClassLoss::CrossEntropy, learned),
            (ClassLoss::Robust(RobustAsymmetricLoss::default()), ExamineBalance::default()),
        ] {
            let terms = terms(&ExamineTraining { class, balance, ..training() });
            assert!(terms[24]["class"] < 0.3 * terms[0]["class"], "{class:?}: {terms:?}");
            let weights = terms[24].keys().filter(|name| name.ends_with("_weight")).count();
            assert_eq!(weights, if balance == learned { 4 } else { 0 });
        }
    }

    #[test]
    fn the_auc_margin_loss_parts_two_examples() {
        let class = ClassLoss::AucMargin(AucMarginConfig::default());
        let constant = |optimiser, steps| TrainConfig {
            optimiser,
            steps,
            warmup_steps: 0,
            final_fraction: 1.0,
            learning_rate: 0.1,
            ..training().train
        };
        let pesg = ExamineTraining {
            class,
            train: constant(NetOptimiser::Pesg(PesgConfig::default()), 40),
            sampler: ExamineSampler::Dual(DualConfig::default()),
            ..training()
        };
        let values: Vec<f64> = terms(&pesg).iter().map(|terms| terms["class"]).collect();
        // With a, b and α at their best, the loss is the squared violation of the margin, 1 at the
        // start and 0 when the scores are a margin apart.
        let late = values[30..].iter().sum::<f64>() / 10.0;
        assert!(late < 0.5 * values[..10].iter().fold(f64::MIN, |a, &b| a.max(b)), "{values:?}");

        // Cross-entropy of an untrained net is log 2; the AUC margin loss starts at 1/2.
        let pdsca = ExamineTraining {
            train: constant(NetOptimiser::Pdsca(PdscaConfig::default()), 2),
            sampler: ExamineSampler::Dual(DualConfig::default()),
            ..pesg
        };
        let both = terms(&pdsca);
        assert!((both[0]["class"] - 2f64.ln()).abs() < 0.1, "{both:?}");
        assert!((both[1]["class"] - both[0]["class"]).abs() > 0.05, "{both:?}");
    }

    #[test]
    fn the_auc_margin_loss_needs_its_own_optimiser() {
        let class = ClassLoss::AucMargin(AucMarginConfig::default());
        let error = ExamineTraining { class, ..training() }.validate().unwrap_err();
        let message = "train.optimiser.kind = adamw must be pesg or pdsca with class.kind = auc_margin, and adamw \
                       with any other";
        assert_eq!(error.to_string(), message);
    }

    #[test]
    fn one_class_is_refused() {
        let mut case = case();
        case.examples.retain(|e| e.truth.site.is_some());
        let folder = tempfile::tempdir().unwrap();
        let error =
            fit(&[case], &ExamineTraining::default(), None, folder.path(), &Device::flex(), |_| ()).unwrap_err();
        assert!(matches!(error, ExamineFitError::OneClass { lesions: 1, others: 0 }));
    }
}
