//! Training of the vessel net on cases.

use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor, TensorData};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use willis_core::TrainingCase;
use willis_core::files::FileError;

use super::augment::AugmentConfig;
use super::infer::{SegmentConfig, segment_image};
use super::net::{IN_CHANNELS, SegmentNet, SegmentNetConfig};
use super::sample::{Patch, PreparedCase, SampleConfig, prepare, random_below};
use crate::layers::Init;
use crate::loss::segmentation::{SegmentationLossConfig, SegmentationTarget, segmentation_loss};
use crate::loss::surrogate;
use crate::train::{Loss, Progress, TrainConfig, TrainError, train};
use crate::weights::{Weights, WeightsError};

/// The whole recipe.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
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
    /// The training loop stopped.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// Initial weights do not fit.
    #[error(transparent)]
    Weights(#[from] WeightsError),
}

/// A trained vessel net and how it does on the validation cases.
#[derive(Debug)]
pub struct Fitted {
    /// The net, with averaged weights.
    pub net: SegmentNet,
    /// Steps done.
    pub step: usize,
    /// Whether all steps are done.
    pub finished: bool,
    /// `None` without validation cases or before the last step.
    pub scores: Option<Scores>,
}

/// Agreement with the truth, over all voxels of all cases at threshold 0.5.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// Dice of the vessels; `None` when neither side has any.
    pub vessel_dice: Option<f64>,
    /// Dice of the aneurysms.
    pub aneurysm_dice: Option<f64>,
    /// Share of true vessel voxels with the right site, of those found.
    pub site_accuracy: Option<f64>,
}

/// Trains on the cases in folders, or goes on with the run in `run_dir`; `start` are weights to start from.
///
/// # Errors    unreadable cases, a patch size the net cannot take, a failed loop
pub fn fit(
    cases: &[PathBuf],
    validation: &[PathBuf],
    config: &SegmentTraining,
    start: Option<Weights>,
    run_dir: &Path,
    device: &Device,
    progress: impl FnMut(&Progress<'_>),
) -> Result<Fitted, FitError> {
    let patch = config.sample.patch;
    if patch == 0 || !patch.is_multiple_of(32) {
        return Err(FitError::PatchSize { got: patch });
    }
    let cases = cases.par_iter().map(|folder| prepare(folder)).collect::<Result<Vec<_>, _>>()?;
    if cases.is_empty() {
        return Err(FitError::NoCases);
    }
    let net = config.net.init(&mut Init::new(config.train.seed, device));
    let net = match start {
        Some(weights) => weights.apply(net)?,
        None => net,
    };
    let sample = |_: usize, rng: &mut ChaCha8Rng| draw(&cases, config, rng);
    let loss = |net: &SegmentNet, patches: Vec<Patch>| batch_loss(net, &patches, &config.loss);
    let trained = train(net, &config.train, run_dir, sample, loss, progress)?;
    let scores = if trained.finished { score(&trained.net, validation, &config.infer)? } else { None };
    Ok(Fitted { net: trained.net, step: trained.step, finished: trained.finished, scores })
}

/// One batch of changed patches.
fn draw(cases: &[PreparedCase], config: &SegmentTraining, rng: &mut ChaCha8Rng) -> Vec<Patch> {
    let one = |_| {
        let case = &cases[random_below(cases.len(), rng)];
        let middle = case.draw_middle(&config.sample, rng);
        let mut patch = case.cut(&config.augment.place(middle, config.sample.patch, rng));
        config.augment.change(&mut patch, rng);
        patch
    };
    (0..config.sample.batch.max(1)).map(one).collect()
}

/// Loss of a batch of patches of one size.
pub(super) fn batch_loss(net: &SegmentNet, patches: &[Patch], config: &SegmentationLossConfig) -> Loss {
    let side = patches[0].size;
    let shape = [patches.len(), IN_CHANNELS, side, side, side];
    let channels: Vec<f32> = patches.iter().flat_map(|p| &p.channels).copied().collect();
    let joined = |part: fn(&Patch) -> &Vec<u8>| patches.iter().flat_map(part).copied().collect::<Vec<u8>>();
    let (sites, aneurysm, tube) = (joined(|p| &p.sites), joined(|p| &p.aneurysm), joined(|p| &p.tube));
    let logits = net.forward(Tensor::from_data(TensorData::new(channels, shape), &net.device()));
    let values = logits.clone().into_data().convert::<f32>();
    let values = values.as_slice::<f32>().expect("logits were just converted to f32");
    let target = SegmentationTarget { sites: &sites, aneurysm: &aneurysm, tube: &tube };
    let loss = segmentation_loss(values, patches.len(), target, config);
    Loss {
        tensor: surrogate(logits, loss.gradient),
        value: loss.total,
        terms: vec![
            ("cross_entropy", loss.cross_entropy),
            ("vessel_tversky", loss.vessel_tversky),
            ("skeleton_recall", loss.skeleton_recall),
            ("focal", loss.focal),
            ("aneurysm_tversky", loss.aneurysm_tversky),
        ],
    }
}

/// Scores of a net over validation cases; `None` without any.
///
/// # Errors    unreadable cases
pub fn score(net: &SegmentNet, folders: &[PathBuf], config: &SegmentConfig) -> Result<Option<Scores>, FileError> {
    let mut counts = Counts::default();
    for folder in folders {
        let case = willis_core::files::case::load(folder)?;
        counts.add(net, &case, config);
    }
    Ok((!folders.is_empty()).then(|| counts.scores()))
}

#[derive(Debug, Default)]
struct Counts {
    vessel: [u64; 3],
    aneurysm: [u64; 3],
    sites: [u64; 2],
}

impl Counts {
    fn add(&mut self, net: &SegmentNet, case: &TrainingCase, config: &SegmentConfig) {
        let maps = segment_image(net, &case.image, config);
        for (i, (&site, &aneurysm)) in case.sites.voxels.iter().zip(&case.aneurysm.voxels).enumerate() {
            let vessel = maps.vessel[i] >= 0.5;
            count(&mut self.vessel, vessel, site != 0);
            count(&mut self.aneurysm, maps.aneurysm[i] >= 0.5, aneurysm != 0);
            if vessel && site != 0 {
                self.sites[0] += u64::from(maps.site[i] == site);
                self.sites[1] += 1;
            }
        }
    }

    fn scores(&self) -> Scores {
        let ratio = |part: u64, all: u64| (all > 0).then(|| part as f64 / all as f64);
        let dice = |[both, found, truth]: [u64; 3]| ratio(2 * both, found + truth);
        Scores {
            vessel_dice: dice(self.vessel),
            aneurysm_dice: dice(self.aneurysm),
            site_accuracy: ratio(self.sites[0], self.sites[1]),
        }
    }
}

fn count([both, found, truth]: &mut [u64; 3], is_found: bool, is_true: bool) {
    *both += u64::from(is_found && is_true);
    *found += u64::from(is_found);
    *truth += u64::from(is_true);
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
        let config = config();
        let prepared = [PreparedCase::new(&case(32))];
        let run_dir = tempfile::tempdir().unwrap();
        let net = config.net.init(&mut Init::new(1, &Device::flex()));
        let sample = |_: usize, _: &mut ChaCha8Rng| {
            // The first generator of the run, so that every batch is the same one.
            draw(&prepared, &config, &mut rand::SeedableRng::seed_from_u64(4))
        };
        let mut losses = Vec::new();
        let loss = |net: &SegmentNet, patches: Vec<Patch>| batch_loss(net, &patches, &config.loss);
        train(net, &config.train, run_dir.path(), sample, loss, |p| losses.push(p.loss)).unwrap();
        let (first, last) = (losses[0], losses[losses.len() - 1]);
        assert!(last < 0.4 * first, "loss went from {first} to {last}");
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
        assert!(fitted.finished && fitted.scores.is_some());
        let none = fit(&[], &[], &config, None, &run_dir, &Device::flex(), |_| ());
        assert!(matches!(none, Err(FitError::NoCases)));
    }
}
