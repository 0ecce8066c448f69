//! Training of the vessel net on cases.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::tensor::activation::softmax;
use burn::tensor::{Device, Tensor, TensorData};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use willis_core::Index;
use willis_core::files::FileError;

use super::augment::AugmentConfig;
use super::infer::{SegmentConfig, segment_image};
use super::net::{IN_CHANNELS, SegmentNet, SegmentNetConfig};
use super::sample::{AneurysmDraw, Patch, PreparedCase, SampleConfig, prepare, random_below};
use crate::layers::Init;
use crate::loss::cldice::soft_cldice;
use crate::loss::segmentation::{CLASSES, SegmentationLossConfig, SegmentationTarget, segmentation_loss};
use crate::ops::with_gradient;
use crate::train::{Loss, StepReport, TrainConfig, TrainError, train};
use crate::weights::{Weights, WeightsError};
use willis_core::Switch;

/// The whole recipe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SegmentTraining {
    /// Sizes of the net.
    pub net: SegmentNetConfig,
    /// Steps, learning rate, checkpoints.
    pub train: TrainConfig,
    /// How patches are drawn.
    pub sample: SampleConfig,
    /// How patches are changed.
    pub augment: AugmentConfig,
    /// Terms of the loss.
    pub loss: SegmentationLossConfig,
    /// Windows of the validation.
    pub infer: SegmentConfig,
    /// Whether the odds are corrected after the last step, so that 0.5 is the best threshold on the
    /// validation cases.
    pub balance: Switch,
}

impl Default for SegmentTraining {
    fn default() -> Self {
        Self {
            net: SegmentNetConfig::default(),
            train: TrainConfig::default(),
            sample: SampleConfig::default(),
            augment: AugmentConfig::default(),
            loss: SegmentationLossConfig::default(),
            infer: SegmentConfig::default(),
            balance: Switch::On,
        }
    }
}

/// Why the vessel net could not be trained.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FitError {
    /// A case could not be read.
    #[error(transparent)]
    Case(#[from] FileError),
    /// There is nothing to train on.
    #[error("no training case was given; make some with `willis cohort synth`")]
    NoCases,
    /// A patch size that the net cannot halve five times.
    #[error("patch size {got} is no multiple of 32; use 64 or 96")]
    PatchSize {
        /// The size.
        got: usize,
    },
    /// WaveFormer's position bias is made for one size.
    #[error("patches of {patch} voxels do not fit a WaveFormer made for {size}; give both the same size")]
    WindowSize {
        /// Side of the patches.
        patch: usize,
        /// What the net was made for.
        size: usize,
    },
    /// Sizes that make no vessel net.
    #[error("`train.vessels.net` makes no net: four channels in, fifteen out, no size 0, heads that divide channels")]
    Net,
    /// The training loop stopped.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// Initial weights do not fit.
    #[error(transparent)]
    Weights(#[from] WeightsError),
}

/// A trained vessel net.
#[derive(Debug)]
pub struct Fitted {
    /// The net, with averaged weights.
    pub net: SegmentNet,
    /// Steps done.
    pub step: usize,
    /// Whether all steps are done.
    pub finished: bool,
}

/// Trains on the cases in folders, or goes on with the run in `run_dir`; `start` are weights to
/// start from, under the backbone's own names.
///
/// # Errors
/// unreadable cases, a patch size the net cannot take, a failed loop
pub fn fit(
    cases: &[PathBuf],
    validation: &[PathBuf],
    config: &SegmentTraining,
    start: Option<Weights>,
    run_dir: &Path,
    device: &Device,
    progress: impl FnMut(&StepReport<'_>),
) -> Result<Fitted, FitError> {
    let patch = config.sample.patch;
    if patch == 0 || !patch.is_multiple_of(32) {
        return Err(FitError::PatchSize { got: patch });
    }
    if !config.net.is_sound() {
        return Err(FitError::Net);
    }
    if let Some(size) = config.net.window().filter(|&size| size != patch) {
        return Err(FitError::WindowSize { patch, size });
    }
    let cases = cases.par_iter().map(|folder| prepare(folder)).collect::<Result<Vec<_>, _>>()?;
    if cases.is_empty() {
        return Err(FitError::NoCases);
    }
    let net = config.net.init(&mut Init::new(config.train.seed, device));
    let net = match start {
        Some(weights) => net.grown_from(weights)?,
        None => net,
    };
    let cases = TrainingSet::new(cases);
    let sample = |_: usize, rng: &mut ChaCha8Rng| cases.draw(config, rng);
    let loss = |net: &SegmentNet, patches: Vec<Patch>| batch_loss(net, &patches, &config.loss);
    let trained = train(net, &config.train, run_dir, sample, loss, progress)?;
    let mut net = trained.net;
    if trained.finished && config.balance == Switch::On {
        net = balanced(net, validation, &config.infer)?;
    }
    Ok(Fitted { net, step: trained.step, finished: trained.finished })
}

/// Cases, and the aneurysms of each class: case and middle; no list is empty.
struct TrainingSet {
    cases: Vec<PreparedCase>,
    lesions_of_class: Vec<Vec<(usize, Index)>>,
}

impl TrainingSet {
    fn new(cases: Vec<PreparedCase>) -> Self {
        let mut by_class: BTreeMap<u8, Vec<(usize, Index)>> = BTreeMap::new();
        for (i, case) in cases.iter().enumerate() {
            case.lesions().iter().for_each(|&(class, middle)| by_class.entry(class).or_default().push((i, middle)));
        }
        Self { cases, lesions_of_class: by_class.into_values().collect() }
    }

    /// One batch of changed patches.
    fn draw(&self, config: &SegmentTraining, rng: &mut ChaCha8Rng) -> Vec<Patch> {
        let one = |_| {
            let (case, middle) = match config.sample.aneurysms {
                AneurysmDraw::ByCase => self.any(&config.sample, rng),
                AneurysmDraw::BySite => self.even(&config.sample, rng),
            };
            let mut patch = case.cut(&config.augment.place(middle, config.sample.patch, rng));
            config.augment.change(&mut patch, rng);
            patch
        };
        (0..config.sample.batch.max(1)).map(one).collect()
    }

    fn any(&self, config: &SampleConfig, rng: &mut ChaCha8Rng) -> (&PreparedCase, Index) {
        let case = &self.cases[random_below(self.cases.len(), rng)];
        (case, case.draw_middle(config, rng))
    }

    fn even(&self, config: &SampleConfig, rng: &mut ChaCha8Rng) -> (&PreparedCase, Index) {
        if self.lesions_of_class.is_empty() || rng.random::<f64>() >= config.at_aneurysm {
            let rest = (1.0 - config.at_aneurysm).max(f64::MIN_POSITIVE);
            return self
                .any(&SampleConfig { at_aneurysm: 0.0, at_vessel: config.at_vessel / rest, ..config.clone() }, rng);
        }
        let lesions = &self.lesions_of_class[random_below(self.lesions_of_class.len(), rng)];
        let (case, middle) = lesions[random_below(lesions.len(), rng)];
        let case = &self.cases[case];
        (case, case.moved(middle, config.patch, rng))
    }
}

/// Loss of a batch of patches of one size.
pub(super) fn batch_loss(net: &SegmentNet, patches: &[Patch], config: &SegmentationLossConfig) -> Loss {
    let side = patches[0].size;
    let shape = [patches.len(), IN_CHANNELS, side, side, side];
    let channels: Vec<f32> = patches.iter().flat_map(|p| &p.channels).copied().collect();
    let joined = |part: fn(&Patch) -> &Vec<u8>| patches.iter().flat_map(part).copied().collect::<Vec<u8>>();
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

/// The net with its odds of "vessel" corrected, so that a probability of 0.5 is where the Dice over
/// the validation cases is best. Training weighs the rare vessel voxels up, which makes the net's
/// own odds too high. Unchanged without cases.
fn balanced(net: SegmentNet, folders: &[PathBuf], config: &SegmentConfig) -> Result<SegmentNet, FileError> {
    let mut odds = LogOdds::default();
    for folder in folders {
        let case = willis_core::files::case::load(folder)?;
        let maps = segment_image(&net, &case.image, config);
        maps.vessel.iter().zip(&case.sites.voxels).for_each(|(&p, &site)| odds.add(p, site != 0));
    }
    Ok(net.with_background_shift(odds.best_threshold()))
}

/// Numbers of vessel and other voxels by the log odds they are given.
#[derive(Debug)]
struct LogOdds {
    counts: [[u64; 2]; LogOdds::BINS],
}

impl Default for LogOdds {
    fn default() -> Self {
        Self { counts: [[0; 2]; Self::BINS] }
    }
}

impl LogOdds {
    /// Bins from `-LIMIT` to `LIMIT`; the outer ones hold all that lies beyond.
    const BINS: usize = 240;
    const LIMIT: f32 = 12.0;

    fn add(&mut self, probability: f32, is_vessel: bool) {
        let log_odds = (probability / (1.0 - probability)).ln();
        let bin = (log_odds + Self::LIMIT) / (2.0 * Self::LIMIT) * Self::BINS as f32;
        self.counts[(bin.max(0.0) as usize).min(Self::BINS - 1)][usize::from(is_vessel)] += 1;
    }

    /// Log odds from which on voxels are to be taken for vessel: the highest Dice, of equal ones
    /// the nearest to 0.
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
        let prepared = TrainingSet::new(vec![PreparedCase::new(&case(32))]);
        for soft_cldice in [0.0, 1.0] {
            let mut config = config();
            config.loss.soft_cldice = soft_cldice;
            let run_dir = tempfile::tempdir().unwrap();
            let net = config.net.init(&mut Init::new(1, &Device::flex()));
            let sample = |_: usize, _: &mut ChaCha8Rng| {
                // The first generator of the run, so that every batch is the same one.
                prepared.draw(&config, &mut rand::SeedableRng::seed_from_u64(4))
            };
            let mut losses = Vec::new();
            let loss = |net: &SegmentNet, patches: Vec<Patch>| batch_loss(net, &patches, &config.loss);
            let mut terms = 0;
            let show = |p: &StepReport<'_>| {
                losses.push(p.loss);
                terms = p.terms.len();
            };
            train(net, &config.train, run_dir.path(), sample, loss, show).unwrap();
            let (first, last) = (losses[0], losses[losses.len() - 1]);
            assert!(last < 0.4 * first, "loss went from {first} to {last}");
            assert_eq!(terms, if soft_cldice > 0.0 { 6 } else { 5 });
        }
    }

    #[test]
    fn the_threshold_parts_vessels_from_the_rest() {
        assert_eq!(LogOdds::default().best_threshold(), 0.0);
        let mut odds = LogOdds::default();
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
    fn cases_in_folders_are_fitted_and_scored() {
        let folder = tempfile::tempdir().unwrap();
        let paths = [folder.path().join("a"), folder.path().join("b")];
        paths.iter().for_each(|path| willis_core::files::case::save(path, &case(32)).unwrap());
        let run_dir = folder.path().join("run");
        let config = SegmentTraining { train: TrainConfig { steps: 2, ..TrainConfig::default() }, ..config() };
        let mut steps = Vec::new();
        let fitted = fit(&paths[..1], &paths[1..], &config, None, &run_dir, &Device::flex(), |p| steps.push(p.step));
        let fitted = fitted.unwrap();
        assert_eq!(steps, [1, 2]);
        assert!(fitted.finished);
        let refused = |cases: &[PathBuf], config: &SegmentTraining| {
            fit(cases, &[], config, None, &run_dir, &Device::flex(), |_| ()).unwrap_err()
        };
        assert!(matches!(refused(&[], &config), FitError::NoCases));
        let mut other = config.clone();
        other.net.kind = crate::backbones::published::Backbone::Waveformer;
        other.net.waveformer.size = [64; 3];
        assert!(matches!(refused(&paths, &other), FitError::WindowSize { patch: 32, size: 64 }));
        other.net.waveformer.size = [64, 32, 64];
        assert!(matches!(refused(&paths, &other), FitError::Net));
    }
}
