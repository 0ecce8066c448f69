//! PESG, the proximal epoch stochastic gradient method of the AUC margin loss.
//!
//! Source: Yuan et al., ICCV 2021, arXiv:2012.03173; behaviour of LibAUC 2.0.1.

use serde::{Deserialize, Serialize};
use willis_core::InvalidValue;

use super::super::TrainConfig;
use super::super::checkpoint::TrainState;
use super::saddle::{REFERENCE, SUM, SaddleConfig};
use crate::loss::auc_margin::DUAL;
use crate::rules::fraction;
use crate::weights::Weights;

const MOMENTUM: &str = "momentum";

pub(super) const BUFFERS: [&str; 3] = [MOMENTUM, REFERENCE, SUM];

/// Configuration of PESG.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PesgConfig {
    /// Weight of the new direction in the momentum; what is left is that of the old one.
    pub momentum: f64,
    /// Margin, decay and drops.
    pub saddle: SaddleConfig,
}

impl Default for PesgConfig {
    fn default() -> Self {
        Self { momentum: 0.9, saddle: SaddleConfig::default() }
    }
}

impl PesgConfig {
    pub(super) fn validate(&self) -> Result<(), InvalidValue> {
        fraction("momentum", self.momentum)?;
        self.saddle.validate().map_err(|error| error.within("saddle"))
    }

    pub(super) fn step(&self, state: &mut TrainState, gradient: &Weights, learning_rate: f64, config: &TrainConfig) {
        let learning_rate = self.saddle.dropped(learning_rate, state.step);
        self.saddle.renew_reference(state);
        let old_weight = if state.step == 0 { 0.0 } else { 1.0 - self.momentum };
        let new_weight = if state.step == 0 { 1.0 } else { self.momentum };
        for (name, _, gradient) in gradient.iter().filter(|(name, ..)| *name != DUAL) {
            let learning_rate = learning_rate * config.rate_of(name);
            let Some((values, [momentum, reference, sum])) = state.parameter(name, BUFFERS) else { continue };
            let buffers = momentum.iter_mut().zip(reference).zip(sum);
            for ((value, ((momentum, reference), sum)), &g) in values.iter_mut().zip(buffers).zip(gradient) {
                let w = f64::from(*value);
                let direction = self.saddle.direction(f64::from(g), w, f64::from(*reference));
                let smoothed = old_weight * f64::from(*momentum) + new_weight * direction;
                *momentum = smoothed as f32;
                *value = (w - learning_rate * smoothed) as f32;
                *sum += *value;
            }
        }
        self.saddle.ascend(&mut state.net, learning_rate);
    }
}

#[cfg(test)]
mod tests {
    use super::super::NetOptimiser;
    use super::*;

    fn weights(values: [f32; 2]) -> Weights {
        let mut weights = Weights::default();
        weights.insert("w", vec![2], values.to_vec());
        weights
    }

    fn config(saddle: SaddleConfig) -> TrainConfig {
        let optimiser = NetOptimiser::Pesg(PesgConfig { saddle, ..PesgConfig::default() });
        TrainConfig { optimiser, ..TrainConfig::default() }
    }

    #[test]
    fn published_values() {
        let config = config(SaddleConfig::default());
        let mut state = TrainState::new(weights([0.5, -0.3]), &config);
        state.buffers.insert(REFERENCE, weights([0.01, -0.02]));
        for (gradient, want) in
            [([0.2, -2.0], [0.479_901_5, -0.199_943_7]), ([0.0, 0.0], [0.477_806_635_8, -0.189_905_5])]
        {
            state.update(&weights(gradient), 0.1, &config);
            for (got, want) in state.net.get("w").unwrap().iter().zip(want) {
                assert!((f64::from(*got) - want).abs() < 1e-7, "{got} {want}");
            }
        }
    }

    #[test]
    fn the_reference_becomes_the_mean_of_the_weights_at_a_drop() {
        let config = config(SaddleConfig { drops: vec![2], ..SaddleConfig::default() });
        let mut state = TrainState::new(weights([0.5, -0.3]), &config);
        let mut seen = Vec::new();
        for _ in 0..3 {
            state.update(&weights([0.2, -0.1]), 0.1, &config);
            seen.push(state.net.get("w").unwrap()[0]);
        }
        let reference = state.buffers[REFERENCE].get("w").unwrap()[0];
        assert!((reference - (seen[0] + seen[1]) / 2.0).abs() < 1e-6);
        assert!((state.buffers[SUM].get("w").unwrap()[0] - seen[2]).abs() < 1e-6);
        // The rate has dropped to a tenth.
        assert!(((seen[1] - seen[2]) / (seen[0] - seen[1])).abs() < 0.2);
    }
}
