//! Pulsating flow in a pipe of radius 1: `u_t = cos t + α⁻² (u_yy + u_zz)`, no-slip at the wall,
//! periodic in t.
//!
//! The exact solution is `Re{ -i [1 - J₀(i^{3/2} α r) / J₀(i^{3/2} α)] e^{it} }`.
//!
//! Source: Womersley 1955.

use std::f64::consts::TAU;
use std::sync::Arc;

use nalgebra::Complex;
use serde::{Deserialize, Serialize};
use willis_core::InvalidValue;

use super::{CaseError, positive, strings};
use crate::net::MlpConfig;
use crate::problem::{Field, InputAxis, Measure, Problem, Raster, Source, Term};
use crate::sample::SampleRegion;
use crate::solver::SolverConfig;
use crate::taylor::Taylor;

/// Settings of the case.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Womersley {
    /// α, Womersley number: 3 for a cerebral artery of radius 2 mm.
    pub alpha: f64,
}

impl Default for Womersley {
    fn default() -> Self {
        Self { alpha: 3.0 }
    }
}

/// `J₀(i^{3/2} α r)` by its power series.
fn bessel(alpha: f64, r: f64) -> Complex<f64> {
    let q = Complex::new(0.0, alpha * alpha * r * r / 4.0);
    let (mut term, mut sum) = (Complex::new(1.0, 0.0), Complex::new(1.0, 0.0));
    for k in 1..200 {
        term *= q / f64::from(k * k);
        sum += term;
    }
    sum
}

impl Womersley {
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
        positive("alpha", self.alpha)?;
        if self.alpha > 20.0 {
            return Err(InvalidValue::new("alpha", self.alpha, "must be at most 20").into());
        }
        let alpha = self.alpha;
        let inputs = vec![
            InputAxis::scaled('y', -1.0, 1.0),
            InputAxis::scaled('z', -1.0, 1.0),
            InputAxis::periodic('t', 0.0, TAU, 1),
        ];
        let outputs = strings(&["u"]);
        let wall = bessel(alpha, 1.0);
        let field: Field = Arc::new(move |at| {
            let profile = Complex::new(1.0, 0.0) - bessel(alpha, at[0].hypot(at[1])) / wall;
            vec![(Complex::new(0.0, -1.0) * profile * Complex::from_polar(1.0, at[2])).re]
        });
        let ansatz =
            Arc::new(|at: &[Taylor]| vec![Some((Taylor::constant(0.0), -(at[0] * at[0] + at[1] * at[1]) + 1.0))]);
        let disc = SampleRegion::image(3, |unit, point| {
            let (radius, angle) = (unit[0].sqrt(), TAU * unit[1]);
            point.extend([radius * angle.cos(), radius * angle.sin(), TAU * unit[2]]);
        });
        let diffusion = 1.0 / (alpha * alpha);
        let equation = format!("u_t - drive - {diffusion}*u_yy - {diffusion}*u_zz");
        let residual = Term::new("residual", 1.0, &[&equation], Source::Sampled(disc))
            .with_data(&["drive"], Arc::new(|at| vec![at[2].cos()]));
        let mut points = Vec::new();
        for ring in 0..=10 {
            for step in 0..32 {
                let (radius, angle) = (f64::from(ring) / 10.0, f64::from(ring * 7 + step));
                points.extend([radius * angle.cos(), radius * angle.sin(), TAU * f64::from(step) / 32.0]);
            }
        }
        Ok(Problem {
            scores: Problem::exact_scores(&outputs, &field, &points, 3, &[("u", Measure::Relative, 1e-3)]),
            inputs,
            outputs,
            ansatz: Some(ansatz),
            unknowns: Vec::new(),
            terms: vec![residual],
            exact: Some(field),
            raster: Raster { axes: vec![(0, 41), (1, 41), (2, 17)], fixed: vec![0.0; 3] },
        })
    }
}
