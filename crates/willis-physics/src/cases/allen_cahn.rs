//! Allen-Cahn equation `u_t = ε u_xx + 5 u - 5 u³` on [-1, 1] × [0, 1], periodic, with
//! `u(x, 0) = x² cos πx`, ε = 1e-4.
//!
//! The reference is a cosine spectral solution with exponential time differencing (ETDRK4), computed
//! at the start. Periodicity and the initial values are hard.
//!
//! Sources: Raissi et al., JCP 378:686; Kassam & Trefethen 2005 for ETDRK4.

use std::f64::consts::PI;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use willis_core::InvalidValue;

use super::{CaseError, strings};
use crate::net::MlpConfig;
use crate::problem::{InputAxis, Measure, Problem, Raster, Score, Source, Term};
use crate::real::dot;
use crate::solver::SolverConfig;
use crate::taylor::Taylor;

/// Settings of the case.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AllenCahn {
    /// ε, diffusion.
    pub diffusion: f64,
    /// Pairs of periodic features.
    pub harmonics: usize,
}

impl Default for AllenCahn {
    fn default() -> Self {
        Self { diffusion: 1e-4, harmonics: 10 }
    }
}

/// The solution at `x_j = j / (modes - 1)` for `snapshots + 1` equidistant times; it is even in x.
pub(super) fn reference(diffusion: f64, modes: usize, steps: usize, snapshots: usize) -> Vec<Vec<f64>> {
    let last = modes - 1;
    // Values from cosine coefficients and back (a discrete cosine transform of the first kind).
    let half = |k: usize| if k == 0 || k == last { 0.5 } else { 1.0 };
    let cosine = |j: usize, k: usize| (PI * (j * k % (2 * last)) as f64 / last as f64).cos();
    let to_values: Vec<f64> = (0..modes * modes).map(|i| cosine(i / modes, i % modes)).collect();
    let to_modes: Vec<f64> = (0..modes * modes)
        .map(|i| cosine(i / modes, i % modes) * half(i / modes) * half(i % modes) * 2.0 / last as f64)
        .collect();
    let apply = |matrix: &[f64], v: &[f64]| -> Vec<f64> { matrix.chunks(modes).map(|row| dot(row, v)).collect() };
    let nonlinear = |modes_of: &[f64]| {
        let values: Vec<f64> = apply(&to_values, modes_of).into_iter().map(|u| -5.0 * u * u * u).collect();
        apply(&to_modes, &values)
    };
    let h = 1.0 / (steps * snapshots) as f64;
    // Means over a circle avoid the cancellation of the φ functions near 0.
    const CIRCLE: usize = 32;
    let coefficients: Vec<[f64; 6]> = (0..modes)
        .map(|k| {
            let l = 5.0 - diffusion * (PI * k as f64).powi(2);
            let mut sums = [0.0; 4];
            for i in 0..CIRCLE {
                let angle = PI * (i as f64 + 0.5) / CIRCLE as f64;
                let r = nalgebra::Complex::new(h * l, 0.0) + nalgebra::Complex::from_polar(1.0, angle);
                let (e, e2) = (r.exp(), (r * 0.5).exp());
                let cube = r * r * r;
                let terms = [
                    (e2 - 1.0) / r,
                    (-r - 4.0 + e * (r * r - r * 3.0 + 4.0)) / cube,
                    (r + 2.0 + e * (r - 2.0)) / cube,
                    (-r * r - r * 3.0 - 4.0 + e * (-r + 4.0)) / cube,
                ];
                for (sum, term) in sums.iter_mut().zip(terms) {
                    *sum += h * term.re / CIRCLE as f64;
                }
            }
            [(h * l).exp(), (h * l / 2.0).exp(), sums[0], sums[1], sums[2], sums[3]]
        })
        .collect();
    let start: Vec<f64> = (0..modes).map(|j| j as f64 / last as f64).map(|x| x * x * (PI * x).cos()).collect();
    let mut v = apply(&to_modes, &start);
    let mut all = vec![start];
    for _ in 0..snapshots {
        for _ in 0..steps {
            let with = |f: &dyn Fn(usize, &[f64; 6]) -> f64| -> Vec<f64> {
                coefficients.iter().enumerate().map(|(k, c)| f(k, c)).collect()
            };
            let nv = nonlinear(&v);
            let a = with(&|k, c| c[1] * v[k] + c[2] * nv[k]);
            let na = nonlinear(&a);
            let b = with(&|k, c| c[1] * v[k] + c[2] * na[k]);
            let nb = nonlinear(&b);
            let c = with(&|k, c| c[1] * a[k] + c[2] * (2.0 * nb[k] - nv[k]));
            let nc = nonlinear(&c);
            v = with(&|k, c| c[0] * v[k] + c[3] * nv[k] + 2.0 * c[4] * (na[k] + nb[k]) + c[5] * nc[k]);
        }
        all.push(apply(&to_values, &v));
    }
    all
}

impl AllenCahn {
    pub(super) fn solver() -> SolverConfig {
        SolverConfig {
            net: MlpConfig { width: 30, depth: 2, ..MlpConfig::default() },
            points: 4000,
            warm_up_steps: 1000,
            steps: 5000,
            ..SolverConfig::default()
        }
    }

    pub(super) fn problem(&self) -> Result<Problem, CaseError> {
        if !(1e-5..=1.0).contains(&self.diffusion) {
            return Err(InvalidValue::new("diffusion", self.diffusion, "must be between 1e-5 and 1").into());
        }
        if !(1..=64).contains(&self.harmonics) {
            return Err(InvalidValue::new("harmonics", self.harmonics, "must be between 1 and 64").into());
        }
        let inputs = vec![InputAxis::periodic('x', -1.0, 1.0, self.harmonics), InputAxis::scaled('t', 0.0, 1.0)];
        let ansatz = Arc::new(|at: &[Taylor]| vec![Some((at[0] * at[0] * (at[0] * PI).cos(), at[1]))]);
        let equation = format!("u_t - {}*u_xx + 5*u^3 - 5*u", self.diffusion);
        let (modes, snapshots) = (257, 20);
        let (mut points, mut values) = (Vec::new(), Vec::new());
        for (i, row) in reference(self.diffusion, modes, 50, snapshots).into_iter().enumerate() {
            for (j, &value) in row.iter().enumerate() {
                let (x, t) = (j as f64 / (modes - 1) as f64, i as f64 / snapshots as f64);
                points.extend([x, t, -x, t]);
                values.extend([value, value]);
            }
        }
        let score = Score {
            name: "u".into(),
            expression: "u".into(),
            points,
            reference: values,
            measure: Measure::Relative,
            limit: 0.0083,
        };
        Ok(Problem {
            terms: vec![Term::new("residual", 1.0, &[&equation], Source::Sampled(Problem::domain(&inputs)))],
            inputs,
            outputs: strings(&["u"]),
            ansatz: Some(ansatz),
            unknowns: Vec::new(),
            scores: vec![score],
            exact: None,
            raster: Raster { axes: vec![(0, 201), (1, 101)], fixed: vec![0.0; 2] },
        })
    }
}
