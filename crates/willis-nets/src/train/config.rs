//! Configuration of the training loop.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use willis_core::InvalidValue;

use super::optimiser::NetOptimiser;
use crate::rules::{at_least_one, fraction, non_negative, positive};

/// Optimiser, schedule and checkpoints of a training run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainConfig {
    /// Optimiser steps of the whole run.
    pub steps: usize,
    /// Stop with a checkpoint once this call has run for so many seconds, finished or not.
    pub max_seconds: Option<f64>,
    /// Seed of everything random.
    pub seed: u64,
    /// Highest learning rate, reached after the warm-up.
    pub learning_rate: f64,
    /// Learning rate at the last step as a fraction of the highest, 0 to 1.
    pub final_fraction: f64,
    /// Steps of linear warm-up.
    pub warmup_steps: usize,
    /// The optimiser.
    pub optimiser: NetOptimiser,
    /// Decay of the moving average of the weights. The decay starts lower and rises to this value.
    pub ema_decay: f64,
    /// Batches whose gradients are averaged into one optimiser step.
    pub accumulate: usize,
    /// Seconds between checkpoints.
    pub checkpoint_seconds: f64,
    /// Learning rates by prefix of the parameter's path, as fractions of the full rate. The longest
    /// matching prefix applies; a parameter without a match has the full rate, and 0 freezes.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub rates: BTreeMap<String, f64>,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            steps: 1000,
            max_seconds: None,
            seed: 0,
            learning_rate: 1e-3,
            final_fraction: 0.01,
            warmup_steps: 30,
            optimiser: NetOptimiser::default(),
            ema_decay: 0.99,
            accumulate: 1,
            checkpoint_seconds: 60.0,
            rates: BTreeMap::new(),
        }
    }
}

impl TrainConfig {
    /// Checks every value.
    ///
    /// # Errors
    /// [`InvalidValue`] names the first value that breaks its rule.
    pub fn validate(&self) -> Result<(), InvalidValue> {
        if let Some(seconds) = self.max_seconds {
            non_negative("max_seconds", seconds)?;
        }
        positive("learning_rate", self.learning_rate)?;
        fraction("final_fraction", self.final_fraction)?;
        self.optimiser.validate().map_err(|error| error.within("optimiser"))?;
        fraction("ema_decay", self.ema_decay)?;
        at_least_one("accumulate", self.accumulate)?;
        non_negative("checkpoint_seconds", self.checkpoint_seconds)?;
        self.rates.iter().try_for_each(|(path, &rate)| non_negative(&format!("rates.\"{path}\""), rate))
    }

    /// Learning rate of a parameter as a fraction of the full one.
    pub(super) fn rate_of(&self, name: &str) -> f64 {
        let matching = self.rates.iter().filter(|(prefix, _)| name.starts_with(prefix.as_str()));
        matching.max_by_key(|(prefix, _)| prefix.len()).map_or(1.0, |(_, &rate)| rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_prefix_sets_the_rate() {
        let rates = [("weight", 0.5), ("we", 0.1)].map(|(path, rate)| (path.to_string(), rate));
        let config = TrainConfig { rates: rates.into(), ..TrainConfig::default() };
        assert_eq!([config.rate_of("weight"), config.rate_of("web"), config.rate_of("bias")], [0.5, 0.1, 1.0]);
    }

    #[test]
    fn invalid_values_are_named() {
        TrainConfig::default().validate().unwrap();
        let default = TrainConfig::default;
        for (config, message) in [
            (TrainConfig { accumulate: 0, ..default() }, "accumulate = 0 must be at least 1"),
            (TrainConfig { learning_rate: 0.0, ..default() }, "learning_rate = 0 must be finite and above 0"),
            (TrainConfig { final_fraction: 1.5, ..default() }, "final_fraction = 1.5 must lie between 0 and 1"),
            (TrainConfig { max_seconds: Some(-1.0), ..default() }, "max_seconds = -1 must be finite and at least 0"),
            (
                TrainConfig { checkpoint_seconds: f64::INFINITY, ..default() },
                "checkpoint_seconds = inf must be finite and at least 0",
            ),
            (
                TrainConfig { rates: [("a.b".to_string(), f64::NAN)].into(), ..default() },
                "rates.\"a.b\" = NaN must be finite and at least 0",
            ),
        ] {
            assert_eq!(config.validate().unwrap_err().to_string(), message);
        }
    }
}
