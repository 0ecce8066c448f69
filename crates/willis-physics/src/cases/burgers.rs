//! Burgers' equation `u_t + u u_x = ν u_xx` on [-1, 1] × [0, 1] with `u(x, 0) = -sin πx`,
//! `u(±1, t) = 0`, ν = 0.01 / π: a shock forms at x = 0.
//!
//! The reference is the Cole-Hopf solution, by quadrature. Initial and boundary values are hard.
//!
//! Source: Raissi et al., JCP 378:686; Basdevant et al. 1986 for the solution.

use std::f64::consts::PI;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use willis_core::InvalidValue;

use super::{CaseError, grid, strings};
use crate::net::MlpConfig;
use crate::problem::{Field, InputAxis, Measure, Problem, Raster, Source, Term};
use crate::solver::SolverConfig;
use crate::taylor::Taylor;

/// Settings of the case.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Burgers {
    /// ν, viscosity.
    pub viscosity: f64,
}

impl Default for Burgers {
    fn default() -> Self {
        Self { viscosity: 0.01 / PI }
    }
}

/// The Cole-Hopf solution
/// `u = -∫ sin π(x-η) f(x-η) e^{-η²/4νt} dη / ∫ f(x-η) e^{-η²/4νt} dη`, `f(y) = e^{-cos(πy)/2πν}`.
///
/// The trapezoidal rule converges faster than any power for these integrands.
pub(super) fn cole_hopf(x: f64, t: f64, viscosity: f64) -> f64 {
    if t <= 0.0 {
        return -(PI * x).sin();
    }
    const STEPS: i32 = 500;
    // Where the Gaussian alone is below the precision whatever the exponent of f.
    let width = ((2.0 / (PI * viscosity) + 80.0) * viscosity * t).sqrt() * 2.0;
    let width = width.min(2.0 * (1.0 + x.abs()).max(4.0 * (80.0 * viscosity * t).sqrt()));
    let exponent = |eta: f64| -(PI * (x - eta)).cos() / (2.0 * PI * viscosity) - eta * eta / (4.0 * viscosity * t);
    let at = |i: i32| width * f64::from(i) / f64::from(STEPS);
    let largest = (-STEPS..=STEPS).map(|i| exponent(at(i))).fold(f64::NEG_INFINITY, f64::max);
    let (mut above, mut below) = (0.0, 0.0);
    for i in -STEPS..=STEPS {
        let weight = (exponent(at(i)) - largest).exp();
        above += weight * (PI * (x - at(i))).sin();
        below += weight;
    }
    -above / below
}

impl Burgers {
    pub(super) fn solver() -> SolverConfig {
        SolverConfig {
            net: MlpConfig { width: 20, depth: 3, ..MlpConfig::default() },
            points: 4000,
            warm_up_steps: 500,
            steps: 4000,
            ..SolverConfig::default()
        }
    }

    pub(super) fn problem(&self) -> Result<Problem, CaseError> {
        let viscosity = self.viscosity;
        if !(1e-3..=1.0).contains(&viscosity) {
            return Err(InvalidValue::new("viscosity", viscosity, "must be between 0.001 and 1").into());
        }
        let inputs = vec![InputAxis::scaled('x', -1.0, 1.0), InputAxis::scaled('t', 0.0, 1.0)];
        let outputs = strings(&["u"]);
        let field: Field = Arc::new(move |at| vec![cole_hopf(at[0], at[1], viscosity)]);
        let ansatz = Arc::new(|at: &[Taylor]| vec![Some((-(at[0] * PI).sin(), at[1] * (-(at[0] * at[0]) + 1.0)))]);
        let equation = format!("u_t + u*u_x - {viscosity}*u_xx");
        let points = grid(&inputs, &[256, 21]);
        Ok(Problem {
            terms: vec![Term::new("residual", 1.0, &[&equation], Source::Sampled(Problem::domain(&inputs)))],
            scores: Problem::exact_scores(&outputs, &field, &points, 2, &[("u", Measure::Relative, 6.7e-4)]),
            inputs,
            outputs,
            ansatz: Some(ansatz),
            unknowns: Vec::new(),
            exact: Some(field),
            raster: Raster { axes: vec![(0, 201), (1, 51)], fixed: vec![0.0; 2] },
        })
    }
}
