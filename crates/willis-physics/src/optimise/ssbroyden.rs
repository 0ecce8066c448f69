//! Self-scaled Broyden (SSBroyden): a quasi-Newton method with a dense inverse Hessian H.
//!
//! With step `s = α d`, change of gradient y, `ρ = 1/(yᵀs)`, `h = ρ yᵀHy`, `b = sᵀBs ρ = -αρ sᵀg`:
//!
//! ```text
//! a = h b - 1   c = √(|a|/(1+a))   ρ⁻ = min(1, h(1-c))   θ⁻ = (ρ⁻-1)/a   θ⁺ = 1/ρ⁻
//! θ = max(θ⁻, min(θ⁺, (1-b)/b))   σ = 1+θa   ρ_k = min(1, 1/b)   σ' = |σ|^(1/(1-N))
//! τ = min(ρ_k σ', σ) if θ ≤ 0, else ρ_k min(σ', 1/θ)   φ = (1-θ)/(1+aθ)   v = ρ s - Hy/(yᵀHy)
//! H ← [H - Hy yᵀH/(yᵀHy) + φ (yᵀHy) v vᵀ]/τ + ρ s sᵀ
//! ```
//!
//! H is a packed lower triangle. The update is of rank two in `Hy` and s and is applied in the same
//! pass over memory as the next product with H.
//!
//! Source: Al-Baali et al.; Urbán, Stefanou & Pons, JCP 523:113656 (2025).

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use willis_core::InvalidValue;

use super::{ObjectiveFn, Position, Saved, Step, save_vector, wolfe};
use crate::real::{Real, add_scaled, dot};

/// Bands of rows that are processed in parallel.
const BANDS: usize = 4;
/// Steps in a row without progress, each followed by a restart, after which the method stops.
const MAX_RESTARTS: usize = 2;

/// Configuration of [`SsBroyden`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SsBroydenConfig {
    /// Most parameters: H needs four bytes times their square.
    pub max_parameters: usize,
}

impl Default for SsBroydenConfig {
    fn default() -> Self {
        Self { max_parameters: 12_000 }
    }
}

impl SsBroydenConfig {
    /// Checks every value.
    ///
    /// # Errors
    /// [`InvalidValue`] names the first value that breaks its rule.
    pub fn validate(&self) -> Result<(), InvalidValue> {
        if self.max_parameters == 0 {
            return Err(InvalidValue::new("max_parameters", 0, "must be at least 1"));
        }
        Ok(())
    }
}

/// SSBroyden with its inverse Hessian.
#[derive(Debug, Clone)]
pub struct SsBroyden<F> {
    size: usize,
    /// Rows of the lower triangle; empty until the first update.
    inverse: Vec<F>,
    /// An update that is not yet applied to `inverse`.
    pending: Option<Update<F>>,
    /// `-H g` at the present position, if known.
    direction: Option<Vec<F>>,
    failures: usize,
}

/// `H ← k H + A p pᵀ + B (p sᵀ + s pᵀ) + C s sᵀ`.
#[derive(Debug, Clone)]
struct Update<F> {
    k: F,
    a: F,
    b: F,
    c: F,
    p: Vec<F>,
    s: Vec<F>,
}

impl<F: Real> SsBroyden<F> {
    /// A multiple of the identity.
    ///
    /// # Panics
    /// if there are more parameters than the configuration allows (programmer error; callers check)
    pub fn new(config: SsBroydenConfig, parameters: usize) -> Self {
        assert!(parameters <= config.max_parameters, "{parameters} parameters exceed {}", config.max_parameters);
        Self { size: parameters, inverse: Vec::new(), pending: None, direction: None, failures: 0 }
    }

    /// Discards the direction, because the objective has changed.
    pub fn objective_changed(&mut self) {
        self.direction = None;
        self.failures = 0;
    }

    /// Makes one step.
    pub fn step(&mut self, at: &mut Position<F>, objective: &mut ObjectiveFn<'_, F>) -> Step {
        let known = self.direction.take();
        let direction = known.unwrap_or_else(|| self.product(&at.gradient).into_iter().map(|v| -v).collect());
        let slope = dot(&at.gradient, &direction);
        if slope.as_f64().is_nan() || slope >= F::default() {
            return self.restart("the direction does not descend");
        }
        let one = F::of(1.0);
        let first_step = if self.inverse.is_empty() {
            let sum = at.gradient.iter().fold(F::default(), |sum, g| sum + g.abs());
            one.min(one / sum)
        } else {
            one
        };
        let old_gradient = at.gradient.clone();
        let Some(step) = wolfe::search(at, &direction, first_step, F::default(), objective) else {
            return self.restart("no step lowers the loss");
        };
        self.failures = 0;
        let s: Vec<F> = direction.iter().map(|&d| d * step).collect();
        let y: Vec<F> = at.gradient.iter().zip(&old_gradient).map(|(&new, &old)| new - old).collect();
        let ys = dot(&y, &s);
        if ys.as_f64().is_nan() || ys <= F::default() {
            return Step::Evaluated;
        }
        let (old_direction, step) = if self.inverse.is_empty() {
            // The step along -g is a shorter or longer one along -H g, where H is now scaled.
            let scale = ys / dot(&y, &y);
            self.start(scale);
            (old_gradient.iter().map(|&g| -scale * g).collect(), step / scale)
        } else {
            (direction, step)
        };
        let hg = self.product(&at.gradient);
        let p: Vec<F> = hg.iter().zip(&old_direction).map(|(&new, &old)| new + old).collect();
        let b = -step / ys * dot(&s, &old_gradient);
        if let Some(update) = self.update(p, s, &y, ys, b) {
            let (pg, sg) = (dot(&update.p, &at.gradient), dot(&update.s, &at.gradient));
            let mut next: Vec<F> = hg.iter().map(|&v| -update.k * v).collect();
            add_scaled(&mut next, -(update.a * pg + update.b * sg), &update.p);
            add_scaled(&mut next, -(update.b * pg + update.c * sg), &update.s);
            self.direction = Some(next);
            self.pending = Some(update);
        } else {
            self.direction = Some(hg.into_iter().map(|v| -v).collect());
        }
        Step::Evaluated
    }

    /// The update for a pair; `None` if rounding has made it meaningless.
    fn update(&self, p: Vec<F>, s: Vec<F>, y: &[F], ys: F, b: F) -> Option<Update<F>> {
        let (one, zero) = (F::of(1.0), F::default());
        let rho = one / ys;
        let yhy = dot(y, &p);
        let h = rho * yhy;
        if !(yhy > zero && b > zero && h > zero) {
            return None;
        }
        let a = h * b - one;
        let (theta, tau);
        if a.abs() < F::of(1e-10) {
            // H is already exact along s: BFGS without scaling.
            (theta, tau) = (zero, one.min(one / b));
        } else {
            let c = (a.abs() / (one + a)).sqrt();
            let rho_minus = one.min(h * (one - c));
            let theta_minus = (rho_minus - one) / a;
            let theta_plus = one / rho_minus;
            theta = theta_minus.max(theta_plus.min((one - b) / b));
            let sigma = one + theta * a;
            let rho_k = one.min(one / b);
            let root = sigma.abs().powf(one / F::of(1.0 - self.size.max(2) as f64));
            tau = if theta <= zero { (rho_k * root).min(sigma) } else { rho_k * root.min(one / theta) };
        }
        let phi = (one - theta) / (one + a * theta);
        let update = Update {
            k: one / tau,
            a: (phi - one) / (yhy * tau),
            b: -phi * rho / tau,
            c: phi * yhy * rho * rho / tau + rho,
            p,
            s,
        };
        [update.k, update.a, update.b, update.c].iter().all(|v| v.as_f64().is_finite()).then_some(update)
    }

    /// Starts from a multiple of the identity.
    fn start(&mut self, scale: F) {
        self.inverse = vec![F::default(); self.size * (self.size + 1) / 2];
        for row in 0..self.size {
            self.inverse[row * (row + 1) / 2 + row] = scale;
        }
    }

    fn restart(&mut self, reason: &'static str) -> Step {
        self.failures += 1;
        if self.inverse.is_empty() || self.failures > MAX_RESTARTS {
            return Step::Stopped(reason);
        }
        (self.inverse, self.pending) = (Vec::new(), None);
        Step::Evaluated
    }

    /// Applies the pending update and returns `H x`.
    fn product(&mut self, x: &[F]) -> Vec<F> {
        if self.inverse.is_empty() {
            return x.to_vec();
        }
        let pending = self.pending.take();
        let mut bands: Vec<(std::ops::Range<usize>, &mut [F])> = Vec::new();
        let mut rest: &mut [F] = &mut self.inverse;
        let mut start = 0;
        for band in 1..=BANDS {
            // Equal areas of the triangle.
            let end = (self.size as f64 * (band as f64 / BANDS as f64).sqrt()).round() as usize;
            let (rows, below) = rest.split_at_mut((start..end).map(|row| row + 1).sum());
            bands.push((start..end, rows));
            (rest, start) = (below, end);
        }
        let parts: Vec<Vec<F>> = bands
            .into_par_iter()
            .map(|(rows, values)| {
                let mut to = vec![F::default(); x.len()];
                pulp::Arch::new().dispatch(
                    #[inline(always)]
                    || band_product(rows, values, pending.as_ref(), x, &mut to),
                );
                to
            })
            .collect();
        let mut sum = vec![F::default(); x.len()];
        for part in parts {
            add_scaled(&mut sum, F::of(1.0), &part);
        }
        sum
    }

    pub(super) fn save(&self, to: &mut Vec<f64>) {
        to.push(self.failures as f64);
        save_vector(&self.inverse, to);
        save_vector(self.direction.as_deref().unwrap_or_default(), to);
        match &self.pending {
            Some(update) => {
                save_vector(&[update.k, update.a, update.b, update.c], to);
                save_vector(&update.p, to);
                save_vector(&update.s, to);
            }
            None => save_vector::<F>(&[], to),
        }
    }

    pub(super) fn load(&mut self, from: &mut Saved<'_>) -> Option<()> {
        self.failures = from.number()? as usize;
        self.inverse = from.vector()?;
        self.direction = Some(from.vector()?).filter(|direction: &Vec<F>| !direction.is_empty());
        self.pending = match from.vector::<F>()?.as_slice() {
            &[k, a, b, c] => Some(Update { k, a, b, c, p: from.vector()?, s: from.vector()? }),
            _ => None,
        };
        Some(())
    }
}

/// Updates some rows of the triangle and adds their part of `H x`.
#[inline(always)]
fn band_product<F: Real>(
    rows: std::ops::Range<usize>,
    values: &mut [F],
    pending: Option<&Update<F>>,
    x: &[F],
    to: &mut [F],
) {
    let mut start = 0;
    for i in rows {
        let row = &mut values[start..start + i + 1];
        start += i + 1;
        if let Some(update) = pending {
            let (p, s) = (&update.p[..=i], &update.s[..=i]);
            let (on_p, on_s) = (update.a * p[i] + update.b * s[i], update.b * p[i] + update.c * s[i]);
            for j in 0..row.len() {
                row[j] = update.k * row[j] + on_p * p[j] + on_s * s[j];
            }
        }
        to[i] += crate::real::dot_lanes(row, &x[..=i]);
        let factor = x[i];
        let to = &mut to[..i];
        for j in 0..i {
            to[j] += row[j] * factor;
        }
    }
}
