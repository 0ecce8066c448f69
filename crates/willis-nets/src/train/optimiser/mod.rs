//! Optimisers, and the moving average of the weights.
//!
//! They work on named values in host memory, so that the arithmetic is the same on every device and
//! the state can be written to a file as it is.

mod adamw;
mod gradients;
mod pdsca;
mod pesg;
mod saddle;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use willis_core::InvalidValue;

use super::TrainConfig;
use super::checkpoint::TrainState;
use crate::weights::Weights;

pub use adamw::AdamWConfig;
pub(super) use gradients::gradients;
pub use pdsca::PdscaConfig;
pub use pesg::PesgConfig;
pub use saddle::{LossPhase, SaddleConfig};

/// The optimiser of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum NetOptimiser {
    /// AdamW.
    AdamW(AdamWConfig),
    /// PESG, for the AUC margin loss.
    Pesg(PesgConfig),
    /// PDSCA, for the AUC margin loss in turn with cross-entropy.
    Pdsca(PdscaConfig),
}

impl Default for NetOptimiser {
    fn default() -> Self {
        Self::AdamW(AdamWConfig::default())
    }
}

impl NetOptimiser {
    /// Checks every value.
    ///
    /// # Errors
    /// [`InvalidValue`] names the first value that breaks its rule.
    pub fn validate(&self) -> Result<(), InvalidValue> {
        match self {
            Self::AdamW(config) => config.validate(),
            Self::Pesg(config) => config.validate(),
            Self::Pdsca(config) => config.validate(),
        }
    }

    /// Its name in configuration files.
    pub fn name(&self) -> &'static str {
        match self {
            Self::AdamW(_) => "adamw",
            Self::Pesg(_) => "pesg",
            Self::Pdsca(_) => "pdsca",
        }
    }

    /// What the optimisers of the AUC margin loss share; `None` for others.
    pub fn saddle(&self) -> Option<&SaddleConfig> {
        match self {
            Self::AdamW(_) => None,
            Self::Pesg(config) => Some(&config.saddle),
            Self::Pdsca(config) => Some(&config.saddle),
        }
    }

    /// Which loss an optimiser step, counted from 0, is to be given.
    pub fn phase(&self, step: usize) -> LossPhase {
        match self {
            Self::AdamW(_) | Self::Pesg(_) => LossPhase::Objective,
            Self::Pdsca(config) => config.phase(step),
        }
    }

    /// Names of the buffers, one per parameter each.
    pub(super) fn buffer_names(&self) -> &'static [&'static str] {
        match self {
            Self::AdamW(_) => &adamw::BUFFERS,
            Self::Pesg(_) => &pesg::BUFFERS,
            Self::Pdsca(_) => &pdsca::BUFFERS,
        }
    }

    /// The buffers before the first step.
    pub(super) fn buffers(&self, net: &Weights, seed: u64) -> BTreeMap<&'static str, Weights> {
        let initial = |name: &&'static str| {
            let values = match *name {
                saddle::REFERENCE => saddle::initial_reference(net, seed),
                pdsca::AVERAGE => net.clone(),
                _ => net.clone().map(|_, shape| vec![0.0; shape.iter().product()]),
            };
            (*name, values)
        };
        self.buffer_names().iter().map(initial).collect()
    }
}

impl TrainState {
    /// One optimiser step, which also updates the moving average.
    ///
    /// Parameters without a gradient do not change.
    pub(super) fn update(&mut self, gradient: &Weights, learning_rate: f64, config: &TrainConfig) {
        match &config.optimiser {
            NetOptimiser::AdamW(optimiser) => optimiser.step(self, gradient, learning_rate, config),
            NetOptimiser::Pesg(optimiser) => optimiser.step(self, gradient, learning_rate, config),
            NetOptimiser::Pdsca(optimiser) => optimiser.step(self, gradient, learning_rate, config),
        }
        self.step += 1;
        // The decay is lower in the first steps, so that the initial values are soon forgotten.
        let decay = config.ema_decay.min((1.0 + self.step as f64) / (10.0 + self.step as f64)) as f32;
        self.average.scale(decay);
        self.average.add_scaled(&self.net, 1.0 - decay);
    }

    /// Values of a parameter and of its buffers.
    fn parameter<const N: usize>(&mut self, name: &str, buffers: [&str; N]) -> Option<(&mut [f32], [&mut [f32]; N])> {
        let mut found: BTreeMap<&str, &mut [f32]> = BTreeMap::new();
        for (key, buffer) in &mut self.buffers {
            found.insert(key, buffer.get_mut(name)?);
        }
        let buffers = buffers.map(|key| found.remove(key));
        let buffers: Vec<&mut [f32]> = buffers.into_iter().collect::<Option<_>>()?;
        Some((self.net.get_mut(name)?, buffers.try_into().ok()?))
    }
}
