//! Convection `u_t + β u_x = 0` on [0, 2π] × [0, 1], periodic in x, `u(x, 0) = sin x`. The solution
//! is `sin(x - βt)`.
//!
//! Nets fail on it for large β in f32 when L-BFGS stops early; in f64 they do not.
//!
//! Sources: Krishnapriyan et al. 2021; Xu et al., arXiv:2505.10949.

use std::f64::consts::TAU;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use willis_core::{InvalidValue, Switch};

use super::{CaseError, grid, strings};
use crate::net::MlpConfig;
use crate::problem::{Field, InputAxis, Measure, Problem, Raster, Source, Term};
use crate::sample::SampleRegion;
use crate::solver::SolverConfig;
use crate::taylor::Taylor;

/// Settings of the case.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Convection {
    /// β, speed.
    pub beta: f64,
    /// Whether initial values and periodicity are built into the solution; otherwise they are terms
    /// of the loss.
    pub hard: Switch,
    /// Weight of the terms if they are not built in.
    pub boundary_weight: f64,
}

impl Default for Convection {
    fn default() -> Self {
        Self { beta: 30.0, hard: Switch::On, boundary_weight: 100.0 }
    }
}

impl Convection {
    pub(super) fn solver() -> SolverConfig {
        SolverConfig {
            net: MlpConfig { width: 30, depth: 3, ..MlpConfig::default() },
            points: 3000,
            warm_up_steps: 1000,
            steps: 4000,
            ..SolverConfig::default()
        }
    }

    pub(super) fn problem(&self) -> Result<Problem, CaseError> {
        if !self.beta.is_finite() {
            return Err(InvalidValue::new("beta", self.beta, "must be finite").into());
        }
        super::positive("boundary_weight", self.boundary_weight)?;
        let beta = self.beta;
        let x = match self.hard {
            Switch::On => InputAxis::periodic('x', 0.0, TAU, 1),
            Switch::Off => InputAxis::scaled('x', 0.0, TAU),
        };
        let inputs = vec![x, InputAxis::scaled('t', 0.0, 1.0)];
        let outputs = strings(&["u"]);
        let field: Field = Arc::new(move |at| vec![(at[0] - beta * at[1]).sin()]);
        let equation = format!("u_t + {beta}*u_x");
        let mut terms = vec![Term::new("residual", 1.0, &[&equation], Source::Sampled(Problem::domain(&inputs)))];
        let ansatz: Option<crate::hard::Ansatz> = match self.hard {
            Switch::On => Some(Arc::new(|at: &[Taylor]| vec![Some((at[0].sin(), at[1]))])),
            Switch::Off => None,
        };
        if self.hard == Switch::Off {
            let weight = self.boundary_weight;
            let start = Source::Drawn(SampleRegion::cuboid(&[0.0, 0.0], &[TAU, 0.0]), 256);
            terms.push(
                Term::new("initial", weight, &["u - start"], start)
                    .with_data(&["start"], Arc::new(|at| vec![at[0].sin()])),
            );
            // Both ends have the value of the exact solution, which is the same.
            let ends = SampleRegion::image(2, |unit, point| {
                point.extend([if unit[0] < 0.5 { 0.0 } else { TAU }, unit[1]]);
            });
            terms.push(
                Term::new("ends", weight, &["u - end"], Source::Drawn(ends, 256))
                    .with_data(&["end"], Arc::new(move |at| vec![(-beta * at[1]).sin()])),
            );
        }
        let points = grid(&inputs, &[101, 101]);
        let limit = if beta.abs() <= 30.0 { 0.015 } else { 0.0072 };
        Ok(Problem {
            scores: Problem::exact_scores(&outputs, &field, &points, 2, &[("u", Measure::Relative, limit)]),
            inputs,
            outputs,
            ansatz,
            unknowns: Vec::new(),
            terms,
            exact: Some(field),
            raster: Raster { axes: vec![(0, 129), (1, 129)], fixed: vec![0.0; 2] },
        })
    }
}
