//! Optimisers over a flat vector of parameters.
//!
//! An optimiser stands at a [`Position`] and makes one step per call. Its state can be saved as
//! numbers, so that a run resumes to the same bytes.

mod adam;
mod lbfgs;
mod soap;
mod ssbroyden;
mod wolfe;

use std::ops::Range;

use serde::{Deserialize, Serialize};
use willis_core::InvalidValue;

use crate::real::Real;
pub use adam::{Adam, AdamConfig};
pub use lbfgs::{Lbfgs, LbfgsConfig};
pub use soap::{Soap, SoapConfig};
pub use ssbroyden::{SsBroyden, SsBroydenConfig};

/// Value and gradient of what is minimised; the gradient is written into the second argument.
pub type ObjectiveFn<'a, F> = dyn FnMut(&[F], &mut Vec<F>) -> F + 'a;

/// Parameters with value and gradient of the objective there.
#[derive(Debug, Clone, Default)]
pub struct Position<F> {
    /// Parameters.
    pub parameters: Vec<F>,
    /// Value of the objective.
    pub value: F,
    /// Gradient of the objective.
    pub gradient: Vec<F>,
}

/// A part of the parameters: a matrix of weights, or a vector.
#[derive(Debug, Clone, PartialEq)]
pub struct ParameterBlock {
    /// Place in the parameters.
    pub range: Range<usize>,
    /// Columns of a matrix; `None` for a vector.
    pub columns: Option<usize>,
}

/// What a step did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The parameters moved; value and gradient belong to the new ones.
    Evaluated,
    /// The parameters moved; value and gradient are out of date.
    Moved,
    /// No further progress is possible; the reason.
    Stopped(&'static str),
}

/// Name of an optimiser.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OptimiserKind {
    /// Adam.
    Adam,
    /// L-BFGS with a strong Wolfe line search.
    Lbfgs,
    /// Self-scaled Broyden with a dense inverse Hessian.
    Ssbroyden,
    /// SOAP: Adam in the eigenbasis of Shampoo's preconditioner.
    Soap,
}

/// Configuration of every optimiser.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OptimiserConfig {
    /// Adam.
    pub adam: AdamConfig,
    /// L-BFGS.
    pub lbfgs: LbfgsConfig,
    /// SSBroyden.
    pub ssbroyden: SsBroydenConfig,
    /// SOAP.
    pub soap: SoapConfig,
}

impl OptimiserConfig {
    /// Checks every value.
    ///
    /// # Errors
    /// [`InvalidValue`] names the first value that breaks its rule.
    pub fn validate(&self) -> Result<(), InvalidValue> {
        self.adam.validate().map_err(|error| error.within("adam"))?;
        self.lbfgs.validate().map_err(|error| error.within("lbfgs"))?;
        self.ssbroyden.validate().map_err(|error| error.within("ssbroyden"))?;
        self.soap.validate().map_err(|error| error.within("soap"))
    }
}

/// An optimiser with its state.
#[derive(Debug, Clone)]
pub enum Optimiser<F: Real> {
    /// Adam.
    Adam(Adam<F>),
    /// L-BFGS.
    Lbfgs(Lbfgs<F>),
    /// SSBroyden.
    SsBroyden(SsBroyden<F>),
    /// SOAP.
    Soap(Soap<F>),
}

impl<F: Real> Optimiser<F> {
    /// An optimiser that has made no step. The parts must cover the parameters in order.
    pub fn new(kind: OptimiserKind, config: &OptimiserConfig, parts: &[ParameterBlock]) -> Self {
        let count = parts.last().map_or(0, |part| part.range.end);
        match kind {
            OptimiserKind::Adam => Self::Adam(Adam::new(config.adam, count)),
            OptimiserKind::Lbfgs => Self::Lbfgs(Lbfgs::new(config.lbfgs)),
            OptimiserKind::Ssbroyden => Self::SsBroyden(SsBroyden::new(config.ssbroyden, count)),
            OptimiserKind::Soap => Self::Soap(Soap::new(config.soap, parts)),
        }
    }

    /// Makes one step. Value and gradient of the position must be up to date.
    pub fn step(&mut self, at: &mut Position<F>, objective: &mut ObjectiveFn<'_, F>) -> Step {
        match self {
            Self::Adam(adam) => adam.step(at),
            Self::Lbfgs(lbfgs) => lbfgs.step(at, objective),
            Self::SsBroyden(broyden) => broyden.step(at, objective),
            Self::Soap(soap) => soap.step(at),
        }
    }

    /// Tells the optimiser that the objective has changed: it discards what it knows about the
    /// present position.
    pub fn objective_changed(&mut self) {
        match self {
            Self::SsBroyden(broyden) => broyden.objective_changed(),
            Self::Adam(_) | Self::Lbfgs(_) | Self::Soap(_) => {}
        }
    }

    /// The state as numbers.
    pub fn save(&self, to: &mut Vec<f64>) {
        match self {
            Self::Adam(adam) => adam.save(to),
            Self::Lbfgs(lbfgs) => lbfgs.save(to),
            Self::SsBroyden(broyden) => broyden.save(to),
            Self::Soap(soap) => soap.save(to),
        }
    }

    /// Restores the state from the numbers of [`Optimiser::save`]; `None` if they do not fit.
    pub fn load(&mut self, from: &mut Saved<'_>) -> Option<()> {
        match self {
            Self::Adam(adam) => adam.load(from),
            Self::Lbfgs(lbfgs) => lbfgs.load(from),
            Self::SsBroyden(broyden) => broyden.load(from),
            Self::Soap(soap) => soap.load(from),
        }
    }
}

/// Numbers of a saved state that are still to be read.
#[derive(Debug)]
pub struct Saved<'a>(pub &'a [f64]);

impl Saved<'_> {
    /// The next number.
    pub fn number(&mut self) -> Option<f64> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// The next vector, written by [`save_vector`].
    pub fn vector<F: Real>(&mut self) -> Option<Vec<F>> {
        let length = self.number()? as usize;
        let (vector, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(vector.iter().map(|&v| F::of(v)).collect())
    }
}

/// Appends a vector with its length.
pub fn save_vector<F: Real>(vector: &[F], to: &mut Vec<f64>) {
    to.push(vector.len() as f64);
    to.extend(vector.iter().map(|v| v.as_f64()));
}

fn positive(field: &str, value: f64) -> Result<(), InvalidValue> {
    if value > 0.0 && value.is_finite() {
        Ok(())
    } else {
        Err(InvalidValue::new(field, value, "must be finite and greater than 0"))
    }
}

fn below_one(field: &str, value: f64) -> Result<(), InvalidValue> {
    if (0.0..1.0).contains(&value) {
        Ok(())
    } else {
        Err(InvalidValue::new(field, value, "must be at least 0 and less than 1"))
    }
}

#[cfg(test)]
mod tests;
