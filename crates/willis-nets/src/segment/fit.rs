//! Training of the vessel net.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::tensor::activation::softmax;
use burn::tensor::{Device, Tensor, TensorData};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use willis_core::files::FileError;
use willis_core::{Index, InvalidValue, Switch};

use super::augment::SegmentAugmentConfig;
use super::infer::{SegmentConfig, segment_image};
use super::net::{IN_CHANNELS, SegmentNet, SegmentNetConfig};
use super::sample::{AneurysmDraw, LabelledPatch, PackedCase, SampleConfig, random_below};
use crate::layers::Init;
use crate::loss::cldice::soft_cldice;
use crate::loss::segmentation::{CLASSES, SegmentationLossConfig, SegmentationTarget, segmentation_loss};
use crate::ops::with_gradient;
use crate::train::{Loss, StepReport, TrainConfig, TrainError, Trained, train};
use crate::weights::{Weights, WeightsError};

/// Configuration of the training of the vessel net.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SegmentTraining {
    /// The net.
    pub net: SegmentNetConfig,
    /// Training loop.
    pub train: TrainConfig,
    /// Drawing of patches.
    pub sample: SampleConfig,
    /// Augmentation of patches.
    pub augment: SegmentAugmentConfig,
    /// Weights of the terms of the loss.
    pub loss: SegmentationLossConfig,
    /// Inference on the validation cases.
    pub infer: SegmentConfig,
    /// Whether the bias of the background class is corrected after the last step, so that 0.5 is
    /// the best threshold on the validation cases.
    pub balance: Switch,
}

impl Default for SegmentTraining {
    fn default() -> Self {
        Self {
            net: SegmentNetConfig::default(),
            train: TrainConfig::default(),
            sample: SampleConfig::default(),
            augment: SegmentAugmentConfig::default(),
            loss: SegmentationLossConfig::default(),
            infer: SegmentConfig::default(),
            balance: Switch::On,
        }
    }
}

impl SegmentTraining {
    /// Checks every value, and that the patches fit the net.
    ///
    /// # Errors
    /// [`InvalidValue`] names the first value that breaks its rule.
    pub fn validate(&self) -> Result<(), InvalidValue> {
        self.net.validate().map_err(|error| error.within("net"))?;
        self.train.validate().map_err(|error| error.within("train"))?;
        self.sample.validate().map_err(|error| error.within("sample"))?;
        self.augment.validate().map_err(|error| error.within("augment"))?;
        self.loss.validate().map_err(|error| error.within("loss"))?;
        self.infer.validate().map_err(|error| error.within("infer"))?;
        match self.net.window() {
            Some(side) if side != self.sample.patch => {
                let rule = format!("differs from the only window the net takes, {side} voxels");
                Err(InvalidValue::new("sample.patch", self.sample.patch, rule))
            }
            _ => Ok(()),
        }
    }
}

/// Error of the training of the vessel net.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SegmentFitError {
    /// A configuration value breaks a rule.
    #[error(transparent)]
    Config(#[from] InvalidValue),
    /// A case cannot be read.
    #[error(transparent)]
    Case(#[from] FileError),
    /// There is no case to train on.
    #[error("no training case was given; make some with `willis cohort synth`")]
    NoCases,
    /// The training loop failed.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// The initial weights do not fit the net.
    #[error(transparent)]
    Weights(#[from] WeightsError),
}

/// Trains the vessel net on the cases in `cases`, or resumes the run in `run_dir`.
///
/// `start` are initial weights under the backbone's own names; without them the net starts from
/// random weights. The folders in `validation` are used for [`SegmentTraining::balance`].
///
/// # Errors
/// [`SegmentFitError`] when the configuration is invalid, a case cannot be read, the initial
/// weights do not fit, or the training loop fails.
pub fn fit(
    cases: &[PathBuf],
    validation: &[PathBuf],
    config: &SegmentTraining,
    start: Option<Weights>,
    run_dir: &Path,
    device: &Device,
    on_step: impl FnMut(&StepReport<'_>),
) -> Result<Trained<SegmentNet>, SegmentFitError> {
    config.validate()?;
    let cases = cases.par_iter().map(|folder| PackedCase::load(folder)).collect::<Result<Vec<_>, _>>()?;
    if cases.is_empty() {
        return Err(SegmentFitError::NoCases);
    }
    let net = config.net.init(&mut Init::new(config.train.seed, device));
    let net = match start {
        Some(weights) => net.with_shallower_weights(weights)?,
        None => net,
    };
    let cases = TrainingSet::new(cases);
    let sample = |_: usize, rng: &mut ChaCha8Rng| cases.draw(config, rng);
    let loss = |net: &SegmentNet, patches: Vec<LabelledPatch>| batch_loss(net, &patches, &config.loss);
    let mut trained = train(net, &config.train, run_dir, sample, loss, on_step)?;
    if trained.finished && config.balance == Switch::On {
        trained.net = balanced(trained.net, validation, &config.infer)?;
    }
    Ok(trained)
}

/// The cases to draw patches from.
struct TrainingSet {
    cases: Vec<PackedCase>,
    /// Case and central voxel of the aneurysms of each class that has any.
    lesions_of_class: Vec<Vec<(usize, Index)>>,
}

impl TrainingSet {
    fn new(cases: Vec<PackedCase>) -> Self {
        let mut by_class: BTreeMap<u8, Vec<(usize, Index)>> = BTreeMap::new();
        for (i, case) in cases.iter().enumerate() {
            case.lesions().iter().for_each(|&(class, middle)| by_class.entry(class).or_default().push((i, middle)));
        }
        Self { cases, lesions_of_class: by_class.into_values().collect() }
    }

    /// A batch of augmented patches.
    fn draw(&self, config: &SegmentTraining, rng: &mut ChaCha8Rng) -> Vec<LabelledPatch> {
        let one = |_| {
            let (case, middle) = match config.sample.aneurysms {
                AneurysmDraw::ByCase => self.draw_by_case(&config.sample, rng),
                AneurysmDraw::BySite => self.draw_by_site(&config.sample, rng),
            };
            let mut patch = case.cut(&config.augment.place(middle, config.sample.patch, rng));
            config.augment.apply(&mut patch, rng);
            patch
        };
        (0..config.sample.batch).map(one).collect()
    }

    fn draw_by_case(&self, config: &SampleConfig, rng: &mut ChaCha8Rng) -> (&PackedCase, Index) {
        let case = &self.cases[random_below(self.cases.len(), rng)];
        (case, case.draw_middle(config, rng))
    }

    fn draw_by_site(&self, config: &SampleConfig, rng: &mut ChaCha8Rng) -> (&PackedCase, Index) {
        if self.lesions_of_class.is_empty() || rng.random::<f64>() >= config.at_aneurysm {
            let rest = (1.0 - config.at_aneurysm).max(f64::MIN_POSITIVE);
            return self.draw_by_case(
                &SampleConfig { at_aneurysm: 0.0, at_vessel: config.at_vessel / rest, ..config.clone() },
                rng,
            );
        }
        let lesions = &self.lesions_of_class[random_below(self.lesions_of_class.len(), rng)];
        let (case, middle) = lesions[random_below(lesions.len(), rng)];
        let case = &self.cases[case];
        (case, case.jittered(middle, config.patch, rng))
    }
}

/// Loss of a batch of patches of one size.
pub(super) fn batch_loss(net: &SegmentNet, patches: &[LabelledPatch], config: &SegmentationLossConfig) -> Loss {
    let side = patches[0].size;
    let shape = [patches.len(), IN_CHANNELS, side, side, side];
    let channels: Vec<f32> = patches.iter().flat_map(|p| &p.channels).copied().collect();
    let joined = |part: fn(&LabelledPatch) -> &Vec<u8>| patches.iter().flat_map(part).copied().collect::<Vec<u8>>();
    let (sites, tube) = (joined(|p| &p.sites), joined(|p| &p.tube));
    let aneurysm: Vec<f32> = patches.iter().flat_map(|p| p.aneurysm_weights(config.small_lesion_voxels)).collect();
    let logits = net.forward(Tensor::from_data(TensorData::new(channels, shape), &net.device()));
    let values = logits.clone().into_data().convert::<f32>().try_into_vec().expect("logits were just converted to f32");
    let target = SegmentationTarget { sites: &sites, aneurysm: &aneurysm, tube: &tube };
    let loss = segmentation_loss(values, patches.len(), target, config);
    let mut sum = Loss {
        tensor: with_gradient(logits.clone(), loss.gradient),
        value: loss.total,
        terms: vec![
            ("cross_entropy", loss.cross_entropy),
            ("vessel_tversky", loss.vessel_tversky),
            ("skeleton_recall", loss.skeleton_recall),
            ("focal", loss.focal),
            ("aneurysm_tversky", loss.aneurysm_tversky),
        ],
    };
    if config.soft_cldice > 0.0 {
        let background = softmax(logits.narrow(1, 0, CLASSES), 1).narrow(1, 0, 1);
        let vessels: Vec<f32> = sites.iter().map(|&site| f32::from(u8::from(site != 0))).collect();
        let vessels = Tensor::from_data(TensorData::new(vessels, background.dims()), &net.device());
        let term = soft_cldice(background.neg() + 1.0, vessels);
        let value = f64::from(term.clone().into_scalar::<f32>());
        sum.terms.push(("soft_cldice", value));
        sum.value += config.soft_cldice * value;
        sum.tensor = sum.tensor + term * config.soft_cldice;
    }
    sum
}

/// Shifts the bias of the background class so that 0.5 is the vessel probability at which the Dice
/// over the validation cases is highest. The loss gives more weight to the rare vessel voxels, so
/// the trained net overestimates their probability. Without cases the net is unchanged.
fn balanced(net: SegmentNet, folders: &[PathBuf], config: &SegmentConfig) -> Result<SegmentNet, FileError> {
    let mut odds = LogOddsHistogram::default();
    for folder in folders {
        let case = willis_core::files::case::load(folder)?;
        let maps = segment_image(&net, &case.image, config);
        maps.vessel.iter().zip(&case.sites.voxels).for_each(|(&p, &site)| odds.add(p, site != 0));
    }
    Ok(net.with_background_shift(odds.best_threshold()))
}

/// Histogram of the predicted log odds of "vessel", separately for vessel voxels and others.
#[derive(Debug)]
struct LogOddsHistogram {
    /// Other voxels and vessel voxels of each bin.
    counts: [[u64; 2]; LogOddsHistogram::BINS],
}

impl Default for LogOddsHistogram {
    fn default() -> Self {
        Self { counts: [[0; 2]; Self::BINS] }
    }
}

impl LogOddsHistogram {
    /// Bins between `-LIMIT` and `LIMIT`; the outer ones also hold the values beyond.
    const BINS: usize = 240;
    const LIMIT: f32 = 12.0;

    fn add(&mut self, probability: f32, is_vessel: bool) {
        let log_odds = (probability / (1.0 - probability)).ln();
        let bin = (log_odds + Self::LIMIT) / (2.0 * Self::LIMIT) * Self::BINS as f32;
        self.counts[(bin.max(0.0) as usize).min(Self::BINS - 1)][usize::from(is_vessel)] += 1;
    }

    /// Threshold with the highest Dice, in log odds; of several, the one nearest to 0.
    fn best_threshold(&self) -> f32 {
        let truth: u64 = self.counts.iter().map(|[_, vessel]| vessel).sum();
        let (mut found, mut both) = (0, 0);
        let mut best = (0.0, 0.0f32);
        for (bin, [other, vessel]) in self.counts.iter().enumerate().rev() {
            found += other + vessel;
            both += vessel;
            let threshold = (bin as f32 / Self::BINS as f32 - 0.5) * 2.0 * Self::LIMIT;
            let dice = 2.0 * both as f64 / (found + truth).max(1) as f64;
            if dice > best.0 || (dice == best.0 && threshold.abs() < best.1.abs()) {
                best = (dice, threshold);
            }
        }
        best.1
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::tests::case;
    use super::*;

    fn config() -> SegmentTraining {
        SegmentTraining {
            net: super::super::net::tests::tiny(),
            train: TrainConfig { steps: 60, learning_rate: 0.01, warmup_steps: 3, ..TrainConfig::default() },
            sample: SampleConfig { patch: 32, ..SampleConfig::default() },
            ..SegmentTraining::default()
        }
    }

    #[test]
    fn one_batch_is_learned() {
        let cases = TrainingSet::new(vec![PackedCase::new(&case(32))]);
        for soft_cldice in [0.0, 1.0] {
            let mut config = config();
            config.loss.soft_cldice = soft_cldice;
            let run_dir = tempfile::tempdir().unwrap();
            let net = config.net.init(&mut Init::new(1, &Device::flex()));
            let sample = |_: usize, _: &mut ChaCha8Rng| {
                // The same generator every time, so that every batch is the same.
                cases.draw(&config, &mut rand::SeedableRng::seed_from_u64(4))
            };
            let mut losses = Vec::new();
            let loss = |net: &SegmentNet, patches: Vec<LabelledPatch>| batch_loss(net, &patches, &config.loss);
            let mut terms = 0;
            let on_step = |report: &StepReport<'_>| {
                losses.push(report.loss);
                terms = report.terms.len();
            };
            train(net, &config.train, run_dir.path(), sample, loss, on_step).unwrap();
            let (first, last) = (losses[0], losses[losses.len() - 1]);
            assert!(last < 0.4 * first, "loss went from {first} to {last}");
            assert_eq!(terms, if soft_cldice > 0.0 { 6 } else { 5 });
        }
    }

    #[test]
    fn the_best_threshold_separates_vessels_from_other_voxels() {
        assert_eq!(LogOddsHistogram::default().best_threshold(), 0.0);
        let mut odds = LogOddsHistogram::default();
        let sigmoid = |x: f32| 1.0 / (1.0 + (-x).exp());
        for (log_odds, is_vessel) in [(-9.0, false), (0.5, false), (1.5, false), (3.2, true), (8.0, true), (1e9, true)]
        {
            odds.add(sigmoid(log_odds), is_vessel);
        }
        assert!((1.5..=3.2).contains(&odds.best_threshold()), "{}", odds.best_threshold());
        let net = config().net.init(&mut Init::new(1, &Device::flex()));
        let x = Tensor::zeros([1, IN_CHANNELS, 32, 32, 32], &Device::flex());
        let background = |net: &SegmentNet| net.forward(x.clone()).narrow(1, 0, 1).mean().into_scalar::<f32>();
        let before = background(&net);
        assert!((background(&net.with_background_shift(2.0)) - before - 2.0).abs() < 1e-4);
    }

    #[test]
    fn cases_in_folders_are_trained_on_and_invalid_configurations_refused() {
        let folder = tempfile::tempdir().unwrap();
        let paths = [folder.path().join("a"), folder.path().join("b")];
        paths.iter().for_each(|path| willis_core::files::case::save(path, &case(32)).unwrap());
        let run_dir = folder.path().join("run");
        let config = SegmentTraining { train: TrainConfig { steps: 2, ..TrainConfig::default() }, ..config() };
        let mut steps = Vec::new();
        let fitted =
            fit(&paths[..1], &paths[1..], &config, None, &run_dir, &Device::flex(), |report| steps.push(report.step));
        let fitted = fitted.unwrap();
        assert_eq!(steps, [1, 2]);
        assert!(fitted.finished);
        let refused = |cases: &[PathBuf], config: &SegmentTraining| {
            fit(cases, &[], config, None, &run_dir, &Device::flex(), |_| ()).unwrap_err()
        };
        assert!(matches!(refused(&[], &config), SegmentFitError::NoCases));
        let mut other = config.clone();
        other.sample.patch = 48;
        assert_eq!(refused(&paths, &other).to_string(), "sample.patch = 48 must be a positive multiple of 32");
        other.sample.patch = 32;
        other.net = super::super::net::tests::tiny_waveformer([64; 3]);
        let message = refused(&paths, &other).to_string();
        assert_eq!(message, "sample.patch = 32 differs from the only window the net takes, 64 voxels");
    }
}
