//! The problems of `willis physics solve`: each is a variant with its own settings.

mod allen_cahn;
mod beltrami;
mod blend;
mod burgers;
mod convection;
mod kovasznay;
mod parameter;
mod poiseuille;
mod womersley;

use serde::{Deserialize, Serialize};
use willis_core::InvalidValue;

pub use allen_cahn::AllenCahn;
pub use beltrami::Beltrami;
pub use burgers::Burgers;
pub use convection::Convection;
pub use kovasznay::Kovasznay;
pub use parameter::ParameterError;
pub use poiseuille::Poiseuille;
pub use womersley::Womersley;

use crate::problem::{InputAxis, Problem, Raster};
use crate::solver::SolverConfig;

/// A problem with its settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Case {
    /// Ethier and Steinman's unsteady flow in a cube.
    Beltrami(Beltrami),
    /// Flow in a plane channel.
    Poiseuille(Poiseuille),
    /// Pulsating flow in a pipe.
    Womersley(Womersley),
    /// Burgers' equation with a shock.
    Burgers(Burgers),
    /// Allen-Cahn equation.
    AllenCahn(AllenCahn),
    /// Convection at constant speed.
    Convection(Convection),
    /// Kovasznay's flow behind a grid.
    Kovasznay(Kovasznay),
}

/// Name of a [`Case`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CaseKind {
    /// [`Case::Beltrami`].
    Beltrami,
    /// [`Case::Poiseuille`].
    Poiseuille,
    /// [`Case::Womersley`].
    Womersley,
    /// [`Case::Burgers`].
    Burgers,
    /// [`Case::AllenCahn`].
    AllenCahn,
    /// [`Case::Convection`].
    Convection,
    /// [`Case::Kovasznay`].
    Kovasznay,
}

/// A case and how it is solved.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Setup {
    /// The problem.
    pub case: Case,
    /// The solver.
    pub solver: SolverConfig,
}

/// Why a problem could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CaseError {
    /// A setting is invalid.
    #[error("invalid parameter: {0}")]
    Invalid(#[from] InvalidValue),
}

impl Setup {
    /// The recipe that reaches the stated errors.
    pub fn new(kind: CaseKind) -> Self {
        let (case, solver) = match kind {
            CaseKind::Beltrami => (Case::Beltrami(Beltrami::default()), Beltrami::solver()),
            CaseKind::Poiseuille => (Case::Poiseuille(Poiseuille::default()), Poiseuille::solver()),
            CaseKind::Womersley => (Case::Womersley(Womersley::default()), Womersley::solver()),
            CaseKind::Burgers => (Case::Burgers(Burgers::default()), Burgers::solver()),
            CaseKind::AllenCahn => (Case::AllenCahn(AllenCahn::default()), AllenCahn::solver()),
            CaseKind::Convection => (Case::Convection(Convection::default()), Convection::solver()),
            CaseKind::Kovasznay => (Case::Kovasznay(Kovasznay::default()), Kovasznay::solver()),
        };
        Self { case, solver }
    }

    /// The problem.
    ///
    /// # Errors
    /// when a setting is invalid or data cannot be read
    pub fn problem(&self) -> Result<Problem, CaseError> {
        match &self.case {
            Case::Beltrami(case) => case.problem(),
            Case::Poiseuille(case) => case.problem(),
            Case::Womersley(case) => case.problem(),
            Case::Burgers(case) => case.problem(),
            Case::AllenCahn(case) => case.problem(),
            Case::Convection(case) => case.problem(),
            Case::Kovasznay(case) => case.problem(),
        }
    }
}

/// Points of a regular grid over the whole domain, with this number per coordinate.
fn grid(inputs: &[InputAxis], counts: &[usize]) -> Vec<f64> {
    let axes = counts.iter().copied().enumerate().collect();
    Raster { axes, fixed: vec![0.0; inputs.len()] }.points(inputs)
}

fn strings(names: &[&str]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

fn positive(field: &str, value: f64) -> Result<(), InvalidValue> {
    if value > 0.0 && value.is_finite() {
        Ok(())
    } else {
        Err(InvalidValue::new(field, value, "must be finite and greater than 0"))
    }
}

#[cfg(test)]
mod tests;
