//! Adam, with a learning rate that decays in steps.
//!
//! Source: Kingma & Ba, arXiv:1412.6980.

use serde::{Deserialize, Serialize};
use willis_core::InvalidValue;

use super::{Position, Saved, Step, below_one, positive, save_vector};
use crate::real::Real;

/// Configuration of [`Adam`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdamConfig {
    /// Learning rate of the first step.
    pub learning_rate: f64,
    /// Factor on the learning rate after every `decay_steps` steps.
    pub decay: f64,
    /// Steps between two decays.
    pub decay_steps: usize,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
}

impl Default for AdamConfig {
    /// The recipe of Urbán et al., JCP 523:113656, for nets of about 2 000 parameters.
    fn default() -> Self {
        Self { learning_rate: 5e-3, decay: 0.98, decay_steps: 1000, beta1: 0.99, beta2: 0.999, epsilon: 1e-20 }
    }
}

impl AdamConfig {
    /// Checks every value.
    ///
    /// # Errors
    /// [`InvalidValue`] names the first value that breaks its rule.
    pub fn validate(&self) -> Result<(), InvalidValue> {
        positive("learning_rate", self.learning_rate)?;
        positive("decay", self.decay)?;
        positive("decay_steps", self.decay_steps as f64)?;
        below_one("beta1", self.beta1)?;
        below_one("beta2", self.beta2)?;
        positive("epsilon", self.epsilon)
    }
}

/// Adam with its moments.
#[derive(Debug, Clone)]
pub struct Adam<F> {
    config: AdamConfig,
    steps: usize,
    first: Vec<F>,
    second: Vec<F>,
}

impl<F: Real> Adam<F> {
    /// Zero moments.
    pub fn new(config: AdamConfig, parameters: usize) -> Self {
        Self { config, steps: 0, first: vec![F::default(); parameters], second: vec![F::default(); parameters] }
    }

    /// Makes one step.
    pub fn step(&mut self, at: &mut Position<F>) -> Step {
        let AdamConfig { learning_rate, decay, decay_steps, beta1, beta2, epsilon } = self.config;
        let rate = learning_rate * decay.powi((self.steps / decay_steps) as i32);
        self.steps += 1;
        let correct = |beta: f64| 1.0 - beta.powi(self.steps as i32);
        let (beta1_f, beta2_f, one) = (F::of(beta1), F::of(beta2), F::of(1.0));
        // An epsilon below the smallest float of the type would allow 0 / 0.
        let epsilon = F::of(epsilon).max(F::of(1e-30));
        for (i, &g) in at.gradient.iter().enumerate() {
            let (m, v) = (&mut self.first[i], &mut self.second[i]);
            *m = beta1_f * *m + (one - beta1_f) * g;
            *v = beta2_f * *v + (one - beta2_f) * g * g;
            let (mean, square) = (*m / F::of(correct(beta1)), *v / F::of(correct(beta2)));
            at.parameters[i] -= F::of(rate) * mean / (square.sqrt() + epsilon);
        }
        Step::Moved
    }

    pub(super) fn save(&self, to: &mut Vec<f64>) {
        to.push(self.steps as f64);
        save_vector(&self.first, to);
        save_vector(&self.second, to);
    }

    pub(super) fn load(&mut self, from: &mut Saved<'_>) -> Option<()> {
        self.steps = from.number()? as usize;
        (self.first, self.second) = (from.vector()?, from.vector()?);
        Some(())
    }
}
