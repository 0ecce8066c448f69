//! Training of the brain net on generated heads.

use std::path::Path;

use burn::tensor::activation::sigmoid;
use burn::tensor::{Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};
use willis_core::InvalidValue;

use super::config::HeadGeneratorConfig;
use super::generate::{GeneratedHead, HeadGenerator};
use super::infer::BrainNetConfig;
use super::labels::LabelledHead;
use super::net::{StripModel, StripModelConfig};
use crate::layers::Init;
use crate::rules::{non_negative, positive, require};
use crate::train::{Loss, StepReport, TrainConfig, TrainError, Trained, train};
use crate::weights::{Weights, WeightsError};

/// Width of the band about the surface in which distances matter, mm.
const BAND_MM: f32 = 5.0;
/// Weight of voxels outside of the band.
const FAR_WEIGHT: f32 = 0.1;
/// Distances are learned up to this one, mm: farther ones cannot be seen from the surface.
const FARTHEST_MM: f32 = 10.0;
/// Steepness of the soft mask at the surface, per voxel.
const STEEPNESS: f32 = 2.0;

/// Configuration of the training of the brain net.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BrainTraining {
    /// The net and its grid.
    pub net: BrainNetConfig,
    /// Training loop.
    pub train: TrainConfig,
    /// The generator.
    pub generate: HeadGeneratorConfig,
    /// Weight of the soft Dice loss of the mask beside the squared error of the distances.
    pub dice: f32,
    /// Phantom heads beside the label maps.
    pub phantoms: usize,
    /// Generated heads that the trained net is scored on.
    pub validation_heads: usize,
}

impl Default for BrainTraining {
    /// The recipe of the embedded net.
    fn default() -> Self {
        Self {
            net: BrainNetConfig { model: StripModelConfig { features: vec![8, 16, 32, 32, 32] }, spacing_mm: 2.0 },
            train: TrainConfig { steps: 3000, ..TrainConfig::default() },
            generate: HeadGeneratorConfig::default(),
            dice: 1.0,
            phantoms: 4,
            validation_heads: 20,
        }
    }
}

impl BrainTraining {
    /// Checks every value, and that the images fit the net.
    ///
    /// # Errors
    /// [`InvalidValue`] names the first value that breaks its rule.
    pub fn validate(&self) -> Result<(), InvalidValue> {
        self.net.model.validate().map_err(|error| error.within("model").within("net"))?;
        positive("net.spacing_mm", self.net.spacing_mm)?;
        self.train.validate().map_err(|error| error.within("train"))?;
        self.generate.validate().map_err(|error| error.within("generate"))?;
        non_negative("dice", self.dice)?;
        let multiple = self.net.model.multiple();
        self.generate.patch.iter().try_for_each(|&side| {
            let rule = format!("must be a multiple of {multiple}, which the net needs");
            require("generate.patch", side, side.is_multiple_of(multiple), &rule)
        })
    }
}

/// Error of the training of the brain net.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BrainFitError {
    /// A configuration value breaks a rule.
    #[error(transparent)]
    Config(#[from] InvalidValue),
    /// There is no label map to train on.
    #[error("there is no label map to train on; give a folder with some")]
    NoHeads,
    /// The initial weights do not fit the net.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The training loop failed.
    #[error(transparent)]
    Train(#[from] TrainError),
}

/// Trains the net on images of these heads, or resumes the run in `run_dir`. `start` are initial
/// weights; without them the net starts from random ones.
///
/// # Errors
/// [`BrainFitError`] when the configuration is invalid, there is no head, the initial weights do
/// not fit, or the training loop fails.
pub fn fit(
    heads: &[LabelledHead],
    training: &BrainTraining,
    start: Option<Weights>,
    run_dir: &Path,
    device: &Device,
    on_step: impl FnMut(&StepReport<'_>),
) -> Result<Trained<StripModel>, BrainFitError> {
    training.validate()?;
    if heads.is_empty() {
        return Err(BrainFitError::NoHeads);
    }
    let mut net = training.net.model.init(&mut Init::new(training.train.seed, device));
    if let Some(weights) = start {
        net = weights.apply(net)?;
    }
    let spacing_mm = training.net.spacing_mm;
    let generator = HeadGenerator::new(heads, spacing_mm, &training.generate);
    let loss = |net: &StripModel, head: GeneratedHead| brain_loss(net, head, spacing_mm as f32, training.dice);
    Ok(train(net, &training.train, run_dir, |_, rng| generator.draw(rng), loss, on_step)?)
}

/// Squared error of the distances in voxels, weighted by [`BAND_MM`], plus soft Dice of the mask.
fn brain_loss(net: &StripModel, head: GeneratedHead, spacing_mm: f32, dice: f32) -> Loss {
    let device = net.device();
    let [depth, height, width] = head.shape;
    let tensor =
        |values: Vec<f32>| Tensor::<5>::from_data(TensorData::new(values, [1, 1, depth, height, width]), &device);
    let weight = |(&mm, &inside): (&f32, &f32)| inside * if mm.abs() < BAND_MM { 1.0 } else { FAR_WEIGHT };
    let weights: Vec<f32> = head.distance_mm.iter().zip(&head.inside).map(weight).collect();
    let total = weights.iter().sum::<f32>().max(1.0);
    let mask: Vec<f32> = head.distance_mm.iter().map(|&mm| f32::from(mm < 0.0)).collect();
    let area = mask.iter().zip(&head.inside).map(|(a, b)| a * b).sum::<f32>();
    let target = head.distance_mm.iter().map(|mm| mm.clamp(-FARTHEST_MM, FARTHEST_MM) / spacing_mm).collect();

    let distance = net.forward(tensor(head.image));
    let inside = tensor(head.inside);
    let error = ((distance.clone() - tensor(target)).square() * tensor(weights)).sum() / total;
    let soft = sigmoid(distance * -STEEPNESS) * inside;
    let overlap = (soft.clone() * tensor(mask)).sum();
    let dice_loss = (overlap * 2.0 + 1.0) / (soft.sum() + area + 1.0) * -1.0 + 1.0;
    let values = Tensor::cat(vec![error.clone(), dice_loss.clone()], 0).into_data();
    let values: Vec<f32> = values.convert::<f32>().try_to_vec().expect("data was just converted to f32");
    let [error_value, dice_value] = [values[0], values[1]].map(f64::from);
    Loss {
        tensor: error + dice_loss * dice,
        value: error_value + f64::from(dice) * dice_value,
        terms: vec![("distance", error_value), ("dice", dice_value)],
    }
}

#[cfg(test)]
mod tests {
    use super::super::labels::tests::cube;
    use super::*;

    fn training(steps: usize) -> BrainTraining {
        BrainTraining {
            net: BrainNetConfig { model: StripModelConfig { features: vec![4, 8, 8] }, spacing_mm: 2.0 },
            train: TrainConfig { steps, learning_rate: 1e-2, checkpoint_seconds: 0.0, ..TrainConfig::default() },
            generate: HeadGeneratorConfig { patch: [16; 3], plausible_share: 1.0, ..HeadGeneratorConfig::default() },
            ..BrainTraining::default()
        }
    }

    fn run(training: &BrainTraining, folder: &Path) -> (Vec<f64>, Trained<StripModel>) {
        let heads = [LabelledHead::new(&cube(32)).unwrap()];
        let mut losses = Vec::new();
        let trained = fit(&heads, training, None, folder, &Device::flex(), |report| losses.push(report.loss)).unwrap();
        (losses, trained)
    }

    #[test]
    fn a_cube_of_brain_is_learned() {
        let folder = tempfile::tempdir().unwrap();
        let (losses, _) = run(&training(120), folder.path());
        let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
        let (first, last) = (mean(&losses[..10]), mean(&losses[110..]));
        assert!(last < 0.4 * first, "{first} {last}");
    }

    #[test]
    fn an_interrupted_run_ends_in_the_same_weights() {
        let (whole, broken) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (_, expected) = run(&training(4), whole.path());
        let mut stopped = training(4);
        stopped.train.max_seconds = Some(0.0);
        let mut last = run(&stopped, broken.path()).1;
        assert!(!last.finished);
        while !last.finished {
            last = run(&stopped, broken.path()).1;
        }
        assert_eq!(Weights::of(&last.net), Weights::of(&expected.net));
    }

    #[test]
    fn images_that_do_not_fit_the_net_are_refused() {
        BrainTraining::default().validate().unwrap();
        let mut odd = training(1);
        odd.generate.patch[1] = 18;
        let error = odd.validate().unwrap_err().to_string();
        assert_eq!(error, "generate.patch = 18 must be a multiple of 4, which the net needs");
    }
}
