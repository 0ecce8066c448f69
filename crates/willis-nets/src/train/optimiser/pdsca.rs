//! PDSCA, which takes steps on the AUC margin loss at points that are a cross-entropy step ahead.
//!
//! Source: Yuan et al., ICLR 2022 (compositional training); behaviour of LibAUC 2.0.1, where equally
//! many steps on cross-entropy and on the AUC margin loss alternate.

use serde::{Deserialize, Serialize};
use willis_core::InvalidValue;

use super::super::TrainConfig;
use super::super::checkpoint::TrainState;
use super::saddle::{LossPhase, REFERENCE, SUM, SaddleConfig};
use crate::loss::auc_margin::{DUAL, MEAN_NEGATIVE, MEAN_POSITIVE};
use crate::rules::{at_least_one, fraction, positive};
use crate::weights::Weights;

/// Buffer of the average of the weights over cross-entropy steps.
pub(super) const AVERAGE: &str = "average_ahead";
const MOMENTUM: &str = "momentum";

pub(super) const BUFFERS: [&str; 4] = [AVERAGE, MOMENTUM, REFERENCE, SUM];

/// Configuration of PDSCA.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PdscaConfig {
    /// Steps of each phase before the other begins; cross-entropy comes first.
    pub period: usize,
    /// Learning rate of cross-entropy steps as a fraction of that of the others.
    pub inner_rate: f64,
    /// β₁, weight of the new weights in their average over cross-entropy steps.
    pub beta1: f64,
    /// β₂, weight of the new direction in the momentum of the other steps.
    pub beta2: f64,
    /// Margin, decay and drops.
    pub saddle: SaddleConfig,
}

impl Default for PdscaConfig {
    fn default() -> Self {
        Self { period: 1, inner_rate: 1.0, beta1: 0.9, beta2: 0.9, saddle: SaddleConfig::default() }
    }
}

impl PdscaConfig {
    pub(super) fn validate(&self) -> Result<(), InvalidValue> {
        at_least_one("period", self.period)?;
        positive("inner_rate", self.inner_rate)?;
        fraction("beta1", self.beta1)?;
        fraction("beta2", self.beta2)?;
        self.saddle.validate().map_err(|error| error.within("saddle"))
    }

    pub(super) fn phase(&self, step: usize) -> LossPhase {
        if (step / self.period).is_multiple_of(2) { LossPhase::CrossEntropy } else { LossPhase::Objective }
    }

    pub(super) fn step(&self, state: &mut TrainState, gradient: &Weights, learning_rate: f64, config: &TrainConfig) {
        let learning_rate = self.saddle.dropped(learning_rate, state.step);
        self.saddle.renew_reference(state);
        match self.phase(state.step) {
            LossPhase::CrossEntropy => self.step_ahead(state, gradient, learning_rate * self.inner_rate, config),
            LossPhase::Objective => {
                self.margin_step(state, gradient, learning_rate, config);
                self.saddle.ascend(&mut state.net, learning_rate);
            }
        }
        let TrainState { net, buffers, .. } = state;
        buffers.entry(SUM).and_modify(|sum| sum.add_scaled(net, 1.0));
    }

    /// A step on cross-entropy; the weights become their average over such steps.
    fn step_ahead(&self, state: &mut TrainState, gradient: &Weights, learning_rate: f64, config: &TrainConfig) {
        for (name, _, gradient) in gradient.iter().filter(|(name, ..)| !is_scalar_of_loss(name)) {
            let learning_rate = learning_rate * config.rate_of(name);
            if learning_rate == 0.0 {
                continue;
            }
            let Some((values, [average, reference])) = state.parameter(name, [AVERAGE, REFERENCE]) else { continue };
            let buffers = average.iter_mut().zip(reference);
            for ((value, (average, reference)), &g) in values.iter_mut().zip(buffers).zip(gradient) {
                let w = f64::from(*value);
                let moved = w - learning_rate * self.saddle.direction(f64::from(g), w, f64::from(*reference));
                *average = ((1.0 - self.beta1) * f64::from(*average) + self.beta1 * moved) as f32;
                *value = *average;
            }
        }
    }

    /// A step on the AUC margin loss.
    fn margin_step(&self, state: &mut TrainState, gradient: &Weights, learning_rate: f64, config: &TrainConfig) {
        let is_first = state.step == self.period;
        let (old_weight, new_weight) = if is_first { (0.0, 1.0) } else { (1.0 - self.beta2, self.beta2) };
        for (name, _, gradient) in gradient.iter().filter(|(name, ..)| *name != DUAL) {
            let learning_rate = learning_rate * config.rate_of(name);
            let Some((values, [momentum, reference])) = state.parameter(name, [MOMENTUM, REFERENCE]) else { continue };
            let buffers = momentum.iter_mut().zip(reference);
            for ((value, (momentum, reference)), &g) in values.iter_mut().zip(buffers).zip(gradient) {
                let w = f64::from(*value);
                let direction = self.saddle.direction(f64::from(g), w, f64::from(*reference));
                let smoothed = old_weight * f64::from(*momentum) + new_weight * direction;
                *momentum = smoothed as f32;
                *value = (w - learning_rate * smoothed) as f32;
            }
        }
    }
}

/// Whether a parameter is one of the AUC margin loss, which cross-entropy does not depend on.
fn is_scalar_of_loss(name: &str) -> bool {
    [MEAN_POSITIVE, MEAN_NEGATIVE, DUAL].contains(&name)
}

#[cfg(test)]
mod tests {
    use super::super::NetOptimiser;
    use super::*;

    fn weights(value: f32) -> Weights {
        let mut weights = Weights::default();
        weights.insert("w", vec![1], vec![value]);
        weights
    }

    #[test]
    fn phases_alternate() {
        let config = PdscaConfig { period: 2, ..PdscaConfig::default() };
        let phases: Vec<bool> = (0..6).map(|step| config.phase(step) == LossPhase::CrossEntropy).collect();
        assert_eq!(phases, [true, true, false, false, true, true]);
    }

    #[test]
    fn steps_by_hand() {
        let saddle = SaddleConfig { weight_decay: 0.0, epoch_decay: 0.0, ..SaddleConfig::default() };
        let optimiser = NetOptimiser::Pdsca(PdscaConfig { inner_rate: 0.5, saddle, ..PdscaConfig::default() });
        let config = TrainConfig { optimiser, ..TrainConfig::default() };
        let mut state = TrainState::new(weights(1.0), &config);
        let mut w = Vec::new();
        for _ in 0..4 {
            state.update(&weights(0.2), 0.1, &config);
            w.push(f64::from(state.net.get("w").unwrap()[0]));
        }
        // Ahead: 1 - 0.05 · 0.2 = 0.99, averaged with 1.
        let ahead = 0.1 + 0.9 * 0.99;
        // On the margin: the first momentum is the direction itself.
        let margin = ahead - 0.1 * 0.2;
        let ahead_again = 0.1 * ahead + 0.9 * (margin - 0.05 * 0.2);
        let want = [ahead, margin, ahead_again, ahead_again - 0.1 * 0.2];
        for (got, want) in w.iter().zip(want) {
            assert!((got - want).abs() < 1e-6, "{got} {want}");
        }
    }
}
