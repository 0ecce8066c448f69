//! Training of the expert classifier.

use std::path::Path;

use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Int, Tensor, TensorData};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use willis_core::{InvalidValue, Switch};

use super::augment::{AugmentedExample, ExamineAugmentConfig, augment};
use super::condition::CONDITIONS;
use super::data::{ExamineCase, Example};
use super::net::{ExamineNet, ExamineNetConfig};
use super::patch::{IN_CHANNELS, SIDE};
use crate::layers::Init;
use crate::loss::asl::AsymmetricLoss;
use crate::rules::{at_least_one, non_negative};
use crate::train::{Loss, StepReport, TrainConfig, TrainError, Trained, train};
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
    /// Examples per batch. Of eight, three are hits, one is near a lesion without being a hit, and
    /// four belong to no lesion.
    pub batch: usize,
    /// Loss of the class.
    pub class: AsymmetricLoss,
    /// Weight of the cross-entropy of the site.
    pub site_weight: f64,
    /// Weight of the smooth L1 loss of the centre, in voxels.
    pub offset_weight: f64,
    /// Weight of the smooth L1 loss of the log-diameter.
    pub diameter_weight: f64,
}

impl Default for ExamineTraining {
    fn default() -> Self {
        Self {
            net: ExamineNetConfig::default(),
            train: TrainConfig { steps: 2000, learning_rate: 1e-3, ..TrainConfig::default() },
            augment: ExamineAugmentConfig::default(),
            batch: 8,
            class: AsymmetricLoss {
                focus_positive: 0.0,
                focus_negative: 1.0,
                shift: 0.0,
                weight_gradient: Switch::Off,
            },
            site_weight: 0.2,
            offset_weight: 0.1,
            diameter_weight: 0.2,
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
        at_least_one("batch", self.batch)?;
        non_negative("site_weight", self.site_weight)?;
        non_negative("offset_weight", self.offset_weight)?;
        non_negative("diameter_weight", self.diameter_weight)
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
    let examples = cases.iter().flat_map(|case| &case.examples);
    let (lesions, others): (Vec<&Example>, Vec<&Example>) = examples.partition(|e| e.truth.site.is_some());
    if lesions.is_empty() || others.is_empty() {
        return Err(ExamineFitError::OneClass { lesions: lesions.len(), others: others.len() });
    }
    let (hits, near): (Vec<&Example>, Vec<&Example>) = lesions.iter().partition(|e| e.truth.hit);
    let sample = |_: usize, rng: &mut ChaCha8Rng| -> Vec<AugmentedExample> {
        let draw = |i: usize| {
            let pool = match i % 8 {
                6 if !near.is_empty() => &near,
                0 | 2 | 4 | 6 if !hits.is_empty() => &hits,
                0 | 2 | 4 | 6 => &lesions,
                _ => &others,
            };
            augment(pool[rng.random_range(0..pool.len())], &training.augment, rng)
        };
        (0..training.batch).map(draw).collect()
    };
    let net = training.net.init(&mut Init::new(training.train.seed, device));
    let net = match start {
        Some(weights) => weights.apply(net)?,
        None => net,
    };
    let loss = |net: &ExamineNet, batch: Vec<AugmentedExample>| batch_loss(net, &batch, training);
    Ok(train(net, &training.train, run_dir, sample, loss, on_step)?)
}

/// Loss of a batch: of the class over all examples, of centre and size over the lesions, and of the
/// site over the hits.
fn batch_loss(net: &ExamineNet, batch: &[AugmentedExample], training: &ExamineTraining) -> Loss {
    let device = net.device();
    let count = batch.len();
    let column = |f: &dyn Fn(&AugmentedExample) -> Vec<f32>, width: usize| {
        let values: Vec<f32> = batch.iter().flat_map(f).collect();
        Tensor::<2>::from_data(TensorData::new(values, [count, width]), &device)
    };
    let x = column(&|s| s.channels.clone(), IN_CHANNELS * SIDE.pow(3)).reshape([count, IN_CHANNELS, SIDE, SIDE, SIDE]);
    let output = net.forward(x, column(&|s| s.condition.to_vec(), CONDITIONS));
    let is_lesion = column(&|s| vec![f32::from(s.truth.site.is_some())], 1);
    let lesions = batch.iter().filter(|s| s.truth.site.is_some()).count().max(1) as f64;
    let is_hit = column(&|s| vec![f32::from(s.truth.hit)], 1);
    let hits = batch.iter().filter(|s| s.truth.hit).count().max(1) as f64;

    let class = training.class.forward(output.class_logit, is_lesion.clone().reshape([count])).mean();
    let sites: Vec<i32> = batch.iter().map(|s| s.truth.site.map_or(0, |site| site.column() as i32)).collect();
    let sites = Tensor::<2, Int>::from_data(TensorData::new(sites, [count, 1]), &device);
    let log_probability = log_softmax(output.site_logits, 1).gather(1, sites);
    let site = (log_probability * is_hit).sum().neg() / hits;
    let offset = output.offset_vox - column(&|s| s.truth.offset_vox.to_vec(), 3);
    let offset = (smooth_l1(offset).sum_dim(1) * is_lesion.clone()).sum() / lesions;
    let diameter = output.log_diameter.reshape([count, 1]) - column(&|s| vec![s.truth.log_diameter], 1);
    let diameter = (smooth_l1(diameter) * is_lesion).sum() / lesions;

    let value = |t: &Tensor<1>| f64::from(t.clone().into_scalar::<f32>());
    let terms = vec![
        ("class", value(&class)),
        ("site", value(&site)),
        ("offset", value(&offset)),
        ("diameter", value(&diameter)),
    ];
    let total =
        class + site * training.site_weight + offset * training.offset_weight + diameter * training.diameter_weight;
    Loss { terms, ..Loss::of(total) }
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
    use super::super::encoder::{PatchEncoderConfig, PlainEncoderConfig};
    use super::super::patch::tests::map;
    use super::*;
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

    #[test]
    fn smooth_l1_by_hand() {
        let d = Tensor::from_floats([[0.0, 0.5, -1.0, 3.0]], &Device::flex());
        assert_eq!(smooth_l1(d).into_data().try_to_vec::<f32>().unwrap(), [0.0, 0.125, 0.5, 2.5]);
    }

    #[test]
    fn two_examples_are_learned() {
        let encoder = PatchEncoderConfig::Plain(PlainEncoderConfig { embed_dim: 4 });
        let net = ExamineNetConfig { encoder, ..Default::default() };
        let train =
            TrainConfig { steps: 25, learning_rate: 0.01, warmup_steps: 3, weight_decay: 0.0, ..Default::default() };
        let training =
            ExamineTraining { net, train, batch: 2, augment: ExamineAugmentConfig::NONE, ..Default::default() };
        let folder = tempfile::tempdir().unwrap();
        let mut losses = Vec::new();
        fit(&[case()], &training, None, folder.path(), &Device::flex(), |report| losses.push(report.terms[0].1))
            .unwrap();
        assert!(losses[24] < 0.3 * losses[0], "{losses:?}");
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
