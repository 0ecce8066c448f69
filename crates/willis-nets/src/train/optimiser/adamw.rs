//! AdamW with clipping by global norm.
//!
//! Source: Loshchilov and Hutter, ICLR 2019, arXiv:1711.05101.

use serde::{Deserialize, Serialize};
use willis_core::InvalidValue;

use super::super::TrainConfig;
use super::super::checkpoint::TrainState;
use crate::rules::{non_negative, positive};
use crate::weights::Weights;

/// First and second moment of the gradients.
pub(super) const BUFFERS: [&str; 2] = ["first", "second"];

const BETA1: f64 = 0.9;
const BETA2: f64 = 0.999;
const EPS: f64 = 1e-8;

/// Configuration of AdamW.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdamWConfig {
    /// Decoupled weight decay; applies to parameters of rank two and more.
    pub weight_decay: f64,
    /// Gradients are scaled down to this global norm if they exceed it.
    pub clip_norm: f64,
}

impl Default for AdamWConfig {
    fn default() -> Self {
        Self { weight_decay: 0.01, clip_norm: 1.0 }
    }
}

impl AdamWConfig {
    pub(super) fn validate(&self) -> Result<(), InvalidValue> {
        non_negative("weight_decay", self.weight_decay)?;
        positive("clip_norm", self.clip_norm)
    }

    pub(super) fn step(&self, state: &mut TrainState, gradient: &Weights, learning_rate: f64, config: &TrainConfig) {
        let square: f64 = gradient.iter().flat_map(|(_, _, g)| g).map(|&g| f64::from(g).powi(2)).sum();
        let clip = (self.clip_norm / square.sqrt().max(f64::MIN_POSITIVE)).min(1.0);
        let steps = state.step as i32 + 1;
        let (correct1, correct2) = (1.0 - BETA1.powi(steps), 1.0 - BETA2.powi(steps));
        for (name, shape, gradient) in gradient.iter() {
            let learning_rate = learning_rate * config.rate_of(name);
            let decay = if shape.len() > 1 { learning_rate * self.weight_decay } else { 0.0 };
            let Some((values, [first, second])) = state.parameter(name, BUFFERS) else { continue };
            for (((value, m), v), &g) in values.iter_mut().zip(first).zip(second).zip(gradient) {
                let g = f64::from(g) * clip;
                let new_m = BETA1 * f64::from(*m) + (1.0 - BETA1) * g;
                let new_v = BETA2 * f64::from(*v) + (1.0 - BETA2) * g * g;
                let step = learning_rate * (new_m / correct1) / ((new_v / correct2).sqrt() + EPS);
                *value = (f64::from(*value) * (1.0 - decay) - step) as f32;
                (*m, *v) = (new_m as f32, new_v as f32);
            }
        }
    }
}
