//! Flow between two plates: `u = 1 - y²`, v = 0, `p = 2 (L - x) / Re` on [0, L] × [-1, 1].
//!
//! No-slip at the walls and the outlet pressure are hard conditions; the inlet profile and the
//! direction of the outflow are terms of the loss.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{CaseError, grid, positive, strings};
use crate::net::MlpConfig;
use crate::problem::{Field, InputAxis, Measure, Problem, Raster, Source, Term};
use crate::sample::SampleRegion;
use crate::solver::SolverConfig;
use crate::taylor::Taylor;

/// Settings of the case.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Poiseuille {
    /// Reynolds number of the largest velocity and half the height.
    pub reynolds: f64,
    /// Length in half heights.
    pub length: f64,
}

impl Default for Poiseuille {
    fn default() -> Self {
        Self { reynolds: 20.0, length: 3.0 }
    }
}

impl Poiseuille {
    pub(super) fn solver() -> SolverConfig {
        SolverConfig {
            net: MlpConfig { width: 12, depth: 2, ..MlpConfig::default() },
            points: 500,
            warm_up_steps: 200,
            steps: 600,
            ..SolverConfig::default()
        }
    }

    pub(super) fn problem(&self) -> Result<Problem, CaseError> {
        positive("reynolds", self.reynolds)?;
        positive("length", self.length)?;
        let Self { reynolds, length } = *self;
        let inputs = vec![InputAxis::scaled('x', 0.0, length), InputAxis::scaled('y', -1.0, 1.0)];
        let outputs = strings(&["u", "v", "p"]);
        let field: Field = Arc::new(move |at| vec![1.0 - at[1] * at[1], 0.0, 2.0 * (length - at[0]) / reynolds]);
        let ansatz = Arc::new(move |at: &[Taylor]| {
            let wall = -(at[1] * at[1]) + 1.0;
            let zero = Taylor::constant(0.0);
            vec![Some((zero, wall)), Some((zero, wall)), Some((zero, -at[0] + length))]
        });
        let viscosity = 1.0 / reynolds;
        let momentum = |of: &str, axis: &str| format!("u*{of}_x + v*{of}_y + p_{axis} - {viscosity}*{of}_L");
        let equations = [momentum("u", "x"), momentum("v", "y"), "u_x + v_y".to_string()];
        let equations = equations.each_ref().map(String::as_str);
        let end = |x: f64| Source::Drawn(SampleRegion::cuboid(&[x, -1.0], &[x, 1.0]), 50);
        let inlet: Field = Arc::new(|at| vec![1.0 - at[1] * at[1]]);
        let points = grid(&inputs, &[41, 21]);
        let wanted = [("u", Measure::Relative, 1e-3), ("p", Measure::Relative, 1e-3)];
        Ok(Problem {
            terms: vec![
                Term::new("residual", 1.0, &equations, Source::Sampled(Problem::domain(&inputs))),
                Term::new("inlet", 1.0, &["u - profile", "v"], end(0.0)).with_data(&["profile"], inlet),
                Term::new("outlet", 1.0, &["v"], end(length)),
            ],
            scores: Problem::exact_scores(&outputs, &field, &points, 2, &wanted),
            inputs,
            outputs,
            ansatz: Some(ansatz),
            unknowns: Vec::new(),
            exact: Some(field),
            raster: Raster { axes: vec![(0, 61), (1, 41)], fixed: vec![0.0, 0.0] },
        })
    }
}
