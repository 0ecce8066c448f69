//! Kovasznay's steady flow behind a grid on [-0.5, 1] × [-0.5, 1.5]:
//! `u = 1 - e^{λx} cos 2πy`, `v = λ/2π e^{λx} sin 2πy`, `p = (1 - e^{2λx}) / 2` with
//! `λ = Re/2 - √(Re²/4 + 4π²)`.
//!
//! Velocities on the boundary are hard conditions. The pressure is free of its mean.
//!
//! Source: Kovasznay 1948.

use std::f64::consts::{PI, TAU};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::blend::{Faces, blend};
use super::{CaseError, grid, positive, strings};
use crate::net::MlpConfig;
use crate::problem::{Field, InputAxis, Measure, Problem, Raster, Source, Term};
use crate::sample::SampleRegion;
use crate::solver::SolverConfig;
use crate::taylor::Taylor;

/// Settings of the case.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Kovasznay {
    /// Reynolds number.
    pub reynolds: f64,
}

impl Default for Kovasznay {
    fn default() -> Self {
        Self { reynolds: 40.0 }
    }
}

/// u, v, p.
pub(super) fn exact(at: &[Taylor], reynolds: f64) -> [Taylor; 3] {
    let rate = reynolds / 2.0 - (reynolds * reynolds / 4.0 + 4.0 * PI * PI).sqrt();
    let growth = (at[0] * rate).exp();
    let (s, c) = (at[1] * TAU).sin_cos();
    [-(growth * c) + 1.0, growth * s * (rate / TAU), (-(growth * growth) + 1.0) * 0.5]
}

impl Kovasznay {
    pub(super) fn solver() -> SolverConfig {
        SolverConfig {
            net: MlpConfig { width: 20, depth: 2, ..MlpConfig::default() },
            points: 1500,
            warm_up_steps: 300,
            steps: 1500,
            ..SolverConfig::default()
        }
    }

    pub(super) fn problem(&self) -> Result<Problem, CaseError> {
        positive("reynolds", self.reynolds)?;
        let reynolds = self.reynolds;
        let inputs = vec![InputAxis::scaled('x', -0.5, 1.0), InputAxis::scaled('y', -0.5, 1.5)];
        let outputs = strings(&["u", "v", "p"]);
        let field: Field = Arc::new(move |point| {
            let at: Vec<Taylor> = point.iter().map(|&x| Taylor::constant(x)).collect();
            exact(&at, reynolds).map(Taylor::value).to_vec()
        });
        let ansatz = Arc::new(move |at: &[Taylor]| {
            let velocity = |at: &[Taylor]| {
                let [u, v, _] = exact(at, reynolds);
                [u, v]
            };
            let ([u, v], bubble) = blend(&[Faces::Both(-0.5, 1.0), Faces::Both(-0.5, 1.5)], at, &velocity);
            vec![Some((u, bubble)), Some((v, bubble)), None]
        });
        let viscosity = 1.0 / reynolds;
        let momentum = |of: &str, axis: &str| format!("u*{of}_x + v*{of}_y + p_{axis} - {viscosity}*{of}_L");
        let equations = [momentum("u", "x"), momentum("v", "y"), "u_x + v_y".to_string()];
        let equations = equations.each_ref().map(String::as_str);
        let points = grid(&inputs, &[51, 51]);
        let wanted =
            [("u", Measure::Relative, 1e-3), ("v", Measure::Relative, 1e-3), ("p", Measure::RelativeCentred, 1e-3)];
        let gauge = Source::Drawn(SampleRegion::cuboid(&[0.0, 0.0], &[0.0, 0.0]), 1);
        Ok(Problem {
            terms: vec![
                Term::new("residual", 1.0, &equations, Source::Sampled(Problem::domain(&inputs))),
                Term::new("gauge", 1.0, &["p"], gauge),
            ],
            scores: Problem::exact_scores(&outputs, &field, &points, 2, &wanted),
            inputs,
            outputs,
            ansatz: Some(ansatz),
            unknowns: Vec::new(),
            exact: Some(field),
            raster: Raster { axes: vec![(0, 61), (1, 81)], fixed: vec![0.0; 2] },
        })
    }
}
