//! L-BFGS with a strong Wolfe line search.
//!
//! The rules are those of `torch.optim.LBFGS`: first step `min(1, 1/‖g‖₁)`, pairs with
//! `yᵀs ≤ 1e-10` are skipped, `H₀ = yᵀs / yᵀy`, and the run stops when the gradient or the change
//! falls below its tolerance. In f32, rounding satisfies these tests early, which is the failure
//! that arXiv:2505.10949 describes.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use willis_core::InvalidValue;

use super::{ObjectiveFn, Position, Saved, Step, positive, save_vector, wolfe};
use crate::real::{Real, add_scaled, dot, max_abs};

/// Configuration of [`Lbfgs`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LbfgsConfig {
    /// Number of pairs that are kept.
    pub history: usize,
    /// Stops when no component of the gradient exceeds this.
    pub tolerance_grad: f64,
    /// Stops when the step or the change of the loss is below this.
    pub tolerance_change: f64,
}

impl Default for LbfgsConfig {
    /// The tolerances of arXiv:2505.10949.
    fn default() -> Self {
        Self { history: 100, tolerance_grad: 1e-8, tolerance_change: 1e-10 }
    }
}

impl LbfgsConfig {
    /// Checks every value.
    ///
    /// # Errors
    /// [`InvalidValue`] names the first value that breaks its rule.
    pub fn validate(&self) -> Result<(), InvalidValue> {
        positive("history", self.history as f64)?;
        for (field, value) in [("tolerance_grad", self.tolerance_grad), ("tolerance_change", self.tolerance_change)] {
            if value.is_nan() || value < 0.0 {
                return Err(InvalidValue::new(field, value, "must be at least 0"));
            }
        }
        Ok(())
    }
}

/// L-BFGS with its pairs.
#[derive(Debug, Clone)]
pub struct Lbfgs<F> {
    config: LbfgsConfig,
    /// Changes of the parameters and of the gradient, oldest first.
    pairs: VecDeque<(Vec<F>, Vec<F>)>,
}

impl<F: Real> Lbfgs<F> {
    /// No pairs.
    pub fn new(config: LbfgsConfig) -> Self {
        Self { config, pairs: VecDeque::new() }
    }

    /// Makes one step.
    pub fn step(&mut self, at: &mut Position<F>, objective: &mut ObjectiveFn<'_, F>) -> Step {
        let (tolerance_grad, tolerance_change) =
            (F::of(self.config.tolerance_grad), F::of(self.config.tolerance_change));
        if max_abs(&at.gradient) <= tolerance_grad {
            return Step::Stopped("the gradient is below its tolerance");
        }
        let direction = self.direction(&at.gradient);
        let slope = dot(&at.gradient, &direction);
        if slope.as_f64().is_nan() || slope >= F::default() {
            return self.restart("the direction does not descend");
        }
        let one = F::of(1.0);
        let first_step = if self.pairs.is_empty() {
            let sum = at.gradient.iter().fold(F::default(), |sum, g| sum + g.abs());
            one.min(one / sum)
        } else {
            one
        };
        let (old_gradient, old_value) = (at.gradient.clone(), at.value);
        let Some(step) = wolfe::search(at, &direction, first_step, tolerance_change, objective) else {
            return self.restart("no step lowers the loss");
        };
        let s: Vec<F> = direction.iter().map(|&d| d * step).collect();
        let y: Vec<F> = at.gradient.iter().zip(&old_gradient).map(|(&new, &old)| new - old).collect();
        let change = max_abs(&s);
        if dot(&y, &s) > F::of(1e-10) * dot(&y, &y).min(F::of(1.0)) {
            if self.pairs.len() == self.config.history {
                self.pairs.pop_front();
            }
            self.pairs.push_back((s, y));
        }
        if change <= tolerance_change || (at.value - old_value).abs() < tolerance_change * old_value.min(F::of(1.0)) {
            return Step::Stopped("the change is below its tolerance");
        }
        Step::Evaluated
    }

    /// Discards the pairs; stops if there are none.
    fn restart(&mut self, reason: &'static str) -> Step {
        if self.pairs.is_empty() {
            return Step::Stopped(reason);
        }
        self.pairs.clear();
        Step::Evaluated
    }

    /// `-H g` by the two-loop recursion.
    fn direction(&self, gradient: &[F]) -> Vec<F> {
        let mut q: Vec<F> = gradient.iter().map(|&g| -g).collect();
        let mut factors = Vec::with_capacity(self.pairs.len());
        for (s, y) in self.pairs.iter().rev() {
            let factor = dot(s, &q) / dot(y, s);
            add_scaled(&mut q, -factor, y);
            factors.push(factor);
        }
        if let Some((s, y)) = self.pairs.back() {
            let scale = dot(y, s) / dot(y, y);
            q.iter_mut().for_each(|q| *q *= scale);
        }
        for ((s, y), factor) in self.pairs.iter().zip(factors.into_iter().rev()) {
            let correction = factor - dot(y, &q) / dot(y, s);
            add_scaled(&mut q, correction, s);
        }
        q
    }

    pub(super) fn save(&self, to: &mut Vec<f64>) {
        to.push(self.pairs.len() as f64);
        for (s, y) in &self.pairs {
            save_vector(s, to);
            save_vector(y, to);
        }
    }

    pub(super) fn load(&mut self, from: &mut Saved<'_>) -> Option<()> {
        let count = from.number()? as usize;
        self.pairs = (0..count).map(|_| Some((from.vector()?, from.vector()?))).collect::<Option<_>>()?;
        Some(())
    }
}
