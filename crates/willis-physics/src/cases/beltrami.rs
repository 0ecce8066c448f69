//! Ethier and Steinman's flow: an exact unsteady solution of the Navier-Stokes equations in three
//! dimensions, on [-1, 1]³ × [0, 1] with a = d = ν = 1.
//!
//! Boundary and initial velocities are exact by transfinite blending; the pressure is fixed by its
//! value at the origin.
//!
//! Source: Ethier & Steinman 1994; benchmark of NSFnets, JCP 426:109951.

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
pub struct Beltrami {
    /// ν, kinematic viscosity.
    pub viscosity: f64,
    /// Weight of the divergence.
    pub divergence_weight: f64,
}

impl Default for Beltrami {
    fn default() -> Self {
        Self { viscosity: 1.0, divergence_weight: 1.0 }
    }
}

/// u, v, w, p at (x, y, z, t) for a = d = 1.
pub(super) fn exact(at: &[Taylor], viscosity: f64) -> [Taylor; 4] {
    let [x, y, z, t] = [at[0], at[1], at[2], at[3]];
    let decay = (t * -viscosity).exp();
    let (ex, ey, ez) = (x.exp(), y.exp(), z.exp());
    let ((s_yz, c_yz), (s_zx, c_zx), (s_xy, c_xy)) = ((y + z).sin_cos(), (z + x).sin_cos(), (x + y).sin_cos());
    let velocity = |a: Taylor, b: Taylor| -(a + b) * decay;
    let p =
        (ex * ex + ey * ey + ez * ez) + (s_xy * c_zx * ey * ez + s_yz * c_xy * ez * ex + s_zx * c_yz * ex * ey) * 2.0;
    [
        velocity(ex * s_yz, ez * c_xy),
        velocity(ey * s_zx, ex * c_yz),
        velocity(ez * s_xy, ey * c_zx),
        p * decay * decay * -0.5,
    ]
}

impl Beltrami {
    pub(super) fn solver() -> SolverConfig {
        SolverConfig {
            net: MlpConfig { width: 40, depth: 2, ..MlpConfig::default() },
            points: 4000,
            redraw_every: 500,
            warm_up_steps: 500,
            steps: 5000,
            ..SolverConfig::default()
        }
    }

    pub(super) fn problem(&self) -> Result<Problem, CaseError> {
        positive("viscosity", self.viscosity)?;
        positive("divergence_weight", self.divergence_weight)?;
        let viscosity = self.viscosity;
        let inputs = vec!['x', 'y', 'z']
            .into_iter()
            .map(|letter| InputAxis::scaled(letter, -1.0, 1.0))
            .chain([InputAxis::scaled('t', 0.0, 1.0)]);
        let inputs: Vec<InputAxis> = inputs.collect();
        let outputs = strings(&["u", "v", "w", "p"]);
        let field: Field = Arc::new(move |point| {
            let at: Vec<Taylor> = point.iter().map(|&x| Taylor::constant(x)).collect();
            exact(&at, viscosity).map(Taylor::value).to_vec()
        });
        let faces = [Faces::Both(-1.0, 1.0), Faces::Both(-1.0, 1.0), Faces::Both(-1.0, 1.0), Faces::Start(0.0)];
        let ansatz = Arc::new(move |at: &[Taylor]| {
            let velocity = |at: &[Taylor]| {
                let [u, v, w, _] = exact(at, viscosity);
                [u, v, w]
            };
            let (a, bubble) = blend(&faces, at, &velocity);
            a.into_iter().map(|a| Some((a, bubble))).chain([None]).collect()
        });
        let momentum =
            |of: &str, axis: &str| format!("{of}_t + u*{of}_x + v*{of}_y + w*{of}_z + p_{axis} - {viscosity}*{of}_L");
        let divergence = self.divergence_weight.sqrt();
        let equations = [
            momentum("u", "x"),
            momentum("v", "y"),
            momentum("w", "z"),
            format!("{divergence}*u_x + {divergence}*v_y + {divergence}*w_z"),
        ];
        let residual = Term::new(
            "residual",
            1.0,
            &equations.each_ref().map(String::as_str),
            Source::Sampled(Problem::domain(&inputs)),
        );
        let pressure = field.clone();
        let gauge = Term::new(
            "gauge",
            1.0,
            &["p - p_given"],
            Source::Drawn(SampleRegion::cuboid(&[0.0, 0.0, 0.0, 0.0], &[0.0, 0.0, 0.0, 1.0]), 32),
        )
        .with_data(&["p_given"], Arc::new(move |point| vec![pressure(point)[3]]));
        let mut last = inputs.clone();
        last[3] = InputAxis { low: 1.0, ..last[3].clone() };
        let points = grid(&last, &[17, 17, 17, 1]).chunks(4).flat_map(|p| [p[0], p[1], p[2], 1.0]).collect::<Vec<_>>();
        let limit = 1e-5;
        let wanted = [
            ("u", Measure::Relative, limit),
            ("v", Measure::Relative, limit),
            ("w", Measure::Relative, limit),
            ("p", Measure::RelativeCentred, 1e-3),
        ];
        Ok(Problem {
            scores: Problem::exact_scores(&outputs, &field, &points, 4, &wanted),
            inputs,
            outputs,
            ansatz: Some(ansatz),
            unknowns: Vec::new(),
            terms: vec![residual, gauge],
            exact: Some(field),
            raster: Raster { axes: vec![(0, 25), (1, 25), (2, 25)], fixed: vec![0.0, 0.0, 0.0, 1.0] },
        })
    }
}
