//! What the optimisers of the AUC margin loss share: decay towards reference weights, learning rate
//! drops, and the ascent of the dual variable.
//!
//! Letters: w weights, g gradient, a, b, α and m as in [`crate::loss::auc_margin`].
//!
//! Source: behaviour of LibAUC 2.0.1.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use willis_core::InvalidValue;

use super::super::checkpoint::TrainState;
use crate::loss::auc_margin::{DUAL, MEAN_NEGATIVE, MEAN_POSITIVE};
use crate::rules::{non_negative, positive, require};
use crate::weights::Weights;

/// Buffer of the weights that the epoch decay pulls towards.
pub(super) const REFERENCE: &str = "reference";
/// Buffer of the sum of the weights since the last drop.
pub(super) const SUM: &str = "sum";

/// Highest value of α.
const MAX_DUAL: f64 = 999.0;

/// Standard deviation of the first reference. The published code starts from such noise, not from
/// the initial weights, so that before the first drop the epoch decay acts like weight decay.
const REFERENCE_DEVIATION: f64 = 0.01;

/// Loss that an optimiser step expects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LossPhase {
    /// The loss of the run.
    Objective,
    /// Cross-entropy of the same labels.
    CrossEntropy,
}

/// Margin, decay and drops of an optimiser of the AUC margin loss.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SaddleConfig {
    /// m, the margin of the loss.
    pub margin: f64,
    /// Largest absolute value of each derivative.
    pub clip: f64,
    /// Decay towards 0.
    pub weight_decay: f64,
    /// Decay towards the reference, the mean of the weights between the last two drops.
    pub epoch_decay: f64,
    /// Steps at which the learning rate drops and the reference is renewed, in rising order.
    pub drops: Vec<usize>,
    /// What the learning rate is divided by at each drop.
    pub drop_factor: f64,
}

impl Default for SaddleConfig {
    /// The published values.
    fn default() -> Self {
        Self { margin: 1.0, clip: 1.0, weight_decay: 1e-5, epoch_decay: 2e-3, drops: Vec::new(), drop_factor: 10.0 }
    }
}

impl SaddleConfig {
    pub(super) fn validate(&self) -> Result<(), InvalidValue> {
        positive("margin", self.margin)?;
        positive("clip", self.clip)?;
        non_negative("weight_decay", self.weight_decay)?;
        non_negative("epoch_decay", self.epoch_decay)?;
        let rising = self.drops.first() != Some(&0) && self.drops.windows(2).all(|pair| pair[0] < pair[1]);
        require("drops", format!("{:?}", self.drops), rising, "must be positive and rising")?;
        positive("drop_factor", self.drop_factor)
    }

    /// Learning rate after the drops so far.
    pub(super) fn dropped(&self, learning_rate: f64, step: usize) -> f64 {
        let drops = self.drops.iter().filter(|&&drop| drop <= step).count();
        learning_rate / self.drop_factor.powi(drops as i32)
    }

    /// Renews the reference if this step is a drop.
    pub(super) fn renew_reference(&self, state: &mut TrainState) {
        let Some(index) = self.drops.iter().position(|&drop| drop == state.step) else { return };
        let since = index.checked_sub(1).map_or(0, |last| self.drops[last]);
        let mut mean = state.buffers[SUM].clone();
        mean.scale(1.0 / (state.step - since) as f32);
        state.buffers.insert(SUM, mean.clone().map(|_, shape| vec![0.0; shape.iter().product()]));
        state.buffers.insert(REFERENCE, mean);
    }

    /// Direction of descent of one weight, `clamp(g) + λ_e (w - w_ref) + λ_w w`.
    pub(super) fn direction(&self, g: f64, w: f64, reference: f64) -> f64 {
        g.clamp(-self.clip, self.clip) + self.epoch_decay * (w - reference) + self.weight_decay * w
    }

    /// Ascends in α with the new a and b: `α + η (2 (m + b - a) - 2α)`, from 0 to 999.
    pub(super) fn ascend(&self, net: &mut Weights, learning_rate: f64) {
        let of = |name| net.get(name).map(<[f32]>::to_vec);
        let (Some(a), Some(b)) = (of(MEAN_POSITIVE), of(MEAN_NEGATIVE)) else { return };
        let Some(dual) = net.get_mut(DUAL) else { return };
        for ((alpha, a), b) in dual.iter_mut().zip(a).zip(b) {
            let old = f64::from(*alpha);
            let slope = 2.0 * (self.margin + f64::from(b) - f64::from(a)) - 2.0 * old;
            *alpha = (old + learning_rate * slope).clamp(0.0, MAX_DUAL) as f32;
        }
    }
}

/// The first reference: noise from a stream of the run's seed that no batch uses.
pub(super) fn initial_reference(net: &Weights, seed: u64) -> Weights {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(u64::MAX);
    let mut normal = || {
        let radius = (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt();
        (REFERENCE_DEVIATION * radius * (std::f64::consts::TAU * rng.random::<f64>()).cos()) as f32
    };
    net.clone().map(|_, shape| (0..shape.iter().product()).map(|_| normal()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_divide_the_learning_rate() {
        let config = SaddleConfig { drops: vec![2, 4], ..SaddleConfig::default() };
        config.validate().unwrap();
        let rates: Vec<f64> = (0..5).map(|step| config.dropped(1.0, step)).collect();
        assert_eq!(rates, [1.0, 1.0, 0.1, 0.1, 0.01]);
        let config = SaddleConfig { drops: vec![4, 2], ..SaddleConfig::default() };
        assert_eq!(config.validate().unwrap_err().to_string(), "drops = [4, 2] must be positive and rising");
    }

    #[test]
    fn the_dual_variable_follows_the_violated_margin() {
        let config = SaddleConfig::default();
        let mut net = Weights::default();
        for (name, value) in [(MEAN_POSITIVE, 0.7), (MEAN_NEGATIVE, 0.3), (DUAL, 0.2)] {
            net.insert(name, vec![1], vec![value]);
        }
        config.ascend(&mut net, 0.1);
        // 0.2 + 0.1 (2 · 0.6 - 0.4)
        assert!((net.get(DUAL).unwrap()[0] - 0.28).abs() < 1e-6);
        net.insert(MEAN_POSITIVE, vec![1], vec![5.0]);
        config.ascend(&mut net, 0.5);
        assert_eq!(net.get(DUAL).unwrap(), [0.0]);
    }

    #[test]
    fn the_first_reference_is_small_noise_of_the_seed() {
        let mut net = Weights::default();
        net.insert("w", vec![1000], vec![1.0; 1000]);
        let reference = initial_reference(&net, 3);
        let values = reference.get("w").unwrap();
        let deviation = (values.iter().map(|v| v * v).sum::<f32>() / 1000.0).sqrt();
        assert!((deviation - 0.01).abs() < 1e-3, "{deviation}");
        assert_eq!(reference, initial_reference(&net, 3));
        assert_ne!(reference, initial_reference(&net, 4));
    }
}
