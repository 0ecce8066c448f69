//! SOAP: Adam in the eigenbasis of Shampoo's preconditioner.
//!
//! Per weight matrix, `L ← β L + (1-β) G Gᵀ` and `R ← β R + (1-β) Gᵀ G`; Adam's moments live in the
//! basis of their eigenvectors, which one step of orthogonal iteration refreshes every
//! `refresh_steps` steps. Vectors are not preconditioned. The first call only builds L and R.
//! Decompositions use the number type of the parameters; the published code uses f32.
//!
//! Source: Vyas et al., arXiv:2409.11321.

use nalgebra::DMatrix;
use serde::{Deserialize, Serialize};
use willis_core::InvalidValue;

use super::{ParameterBlock, Position, Saved, Step, below_one, positive, save_vector};
use crate::real::Real;

/// Configuration of [`Soap`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SoapConfig {
    /// Learning rate.
    pub learning_rate: f64,
    /// Decay of the moments and of L and R.
    pub beta: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Steps between two refreshes of the basis.
    pub refresh_steps: usize,
}

impl Default for SoapConfig {
    /// The published recipe.
    fn default() -> Self {
        Self { learning_rate: 3e-3, beta: 0.95, epsilon: 1e-8, weight_decay: 0.01, refresh_steps: 10 }
    }
}

impl SoapConfig {
    /// Checks every value.
    ///
    /// # Errors
    /// [`InvalidValue`] names the first value that breaks its rule.
    pub fn validate(&self) -> Result<(), InvalidValue> {
        positive("learning_rate", self.learning_rate)?;
        below_one("beta", self.beta)?;
        positive("epsilon", self.epsilon)?;
        below_one("weight_decay", self.weight_decay)?;
        positive("refresh_steps", self.refresh_steps as f64)
    }
}

/// SOAP with its moments and bases.
#[derive(Debug, Clone)]
pub struct Soap<F: Real> {
    config: SoapConfig,
    steps: usize,
    is_ready: bool,
    parts: Vec<SoapPart<F>>,
}

#[derive(Debug, Clone)]
struct SoapPart<F: Real> {
    part: ParameterBlock,
    /// Moments, in the basis for a matrix.
    first: DMatrix<F>,
    second: DMatrix<F>,
    /// Left and right preconditioner with its basis; empty for a vector.
    sides: Vec<SoapSide<F>>,
}

#[derive(Debug, Clone)]
struct SoapSide<F: Real> {
    matrix: DMatrix<F>,
    basis: DMatrix<F>,
}

impl<F: Real> SoapSide<F> {
    fn accumulate(&mut self, product: DMatrix<F>, beta: F) {
        self.matrix = &self.matrix * beta + product * (F::of(1.0) - beta);
    }

    /// Eigenvectors in descending order of eigenvalues.
    fn decompose(&mut self) {
        let eigen = self.matrix.clone().symmetric_eigen();
        let mut order: Vec<usize> = (0..eigen.eigenvalues.len()).collect();
        order.sort_by(|&a, &b| eigen.eigenvalues[b].as_f64().total_cmp(&eigen.eigenvalues[a].as_f64()));
        self.basis = eigen.eigenvectors.select_columns(&order);
    }

    /// One step of orthogonal iteration; returns the new order of the old columns.
    fn refresh(&mut self) -> Vec<usize> {
        let image = &self.matrix * &self.basis;
        let estimates: Vec<f64> =
            (0..image.ncols()).map(|j| self.basis.column(j).dot(&image.column(j)).as_f64()).collect();
        let mut order: Vec<usize> = (0..estimates.len()).collect();
        order.sort_by(|&a, &b| estimates[b].total_cmp(&estimates[a]));
        self.basis = image.select_columns(&order).qr().q();
        order
    }
}

impl<F: Real> SoapPart<F> {
    fn new(part: &ParameterBlock) -> Self {
        let length = part.range.len();
        let columns = part.columns.unwrap_or(1);
        let rows = length / columns;
        let side = |n: usize| SoapSide { matrix: DMatrix::zeros(n, n), basis: DMatrix::identity(n, n) };
        let sides = if part.columns.is_some() { vec![side(rows), side(columns)] } else { Vec::new() };
        Self { part: part.clone(), first: DMatrix::zeros(rows, columns), second: DMatrix::zeros(rows, columns), sides }
    }

    fn rotate(&self, matrix: &DMatrix<F>) -> DMatrix<F> {
        match self.sides.as_slice() {
            [left, right] => left.basis.transpose() * matrix * &right.basis,
            _ => matrix.clone(),
        }
    }

    fn rotate_back(&self, matrix: &DMatrix<F>) -> DMatrix<F> {
        match self.sides.as_slice() {
            [left, right] => &left.basis * matrix * right.basis.transpose(),
            _ => matrix.clone(),
        }
    }

    fn accumulate(&mut self, gradient: &DMatrix<F>, beta: F) {
        if let [left, right] = self.sides.as_mut_slice() {
            left.accumulate(gradient * gradient.transpose(), beta);
            right.accumulate(gradient.transpose() * gradient, beta);
        }
    }

    fn refresh(&mut self) {
        let first = self.rotate_back(&self.first);
        if let [left, right] = self.sides.as_mut_slice() {
            let (rows, columns) = (left.refresh(), right.refresh());
            self.second = self.second.select_rows(&rows).select_columns(&columns);
        }
        self.first = self.rotate(&first);
    }
}

impl<F: Real> Soap<F> {
    /// Zero moments.
    pub fn new(config: SoapConfig, parts: &[ParameterBlock]) -> Self {
        Self { config, steps: 0, is_ready: false, parts: parts.iter().map(SoapPart::new).collect() }
    }

    /// Makes one step.
    pub fn step(&mut self, at: &mut Position<F>) -> Step {
        let SoapConfig { learning_rate, beta, epsilon, weight_decay, refresh_steps } = self.config;
        let (beta_f, one) = (F::of(beta), F::of(1.0));
        let was_ready = std::mem::replace(&mut self.is_ready, true);
        if was_ready {
            self.steps += 1;
        }
        let corrected = 1.0 - beta.powi(self.steps as i32);
        let rate = F::of(learning_rate * corrected.sqrt() / corrected);
        for part in &mut self.parts {
            let range = part.part.range.clone();
            let (rows, columns) = part.first.shape();
            let gradient = DMatrix::from_row_slice(rows, columns, &at.gradient[range.clone()]);
            if !was_ready {
                part.accumulate(&gradient, beta_f);
                part.sides.iter_mut().for_each(SoapSide::decompose);
                continue;
            }
            let rotated = part.rotate(&gradient);
            part.first = &part.first * beta_f + &rotated * (one - beta_f);
            part.second = &part.second * beta_f + rotated.map(|g| g * g) * (one - beta_f);
            let direction = part.first.zip_map(&part.second, |m, v| m / (v.sqrt() + F::of(epsilon)));
            let direction = part.rotate_back(&direction);
            let decay = one - F::of(learning_rate * weight_decay);
            for (i, parameter) in at.parameters[range].iter_mut().enumerate() {
                *parameter -= rate * direction[(i / columns, i % columns)];
                *parameter *= decay;
            }
            part.accumulate(&gradient, beta_f);
            if self.steps.is_multiple_of(refresh_steps) {
                part.refresh();
            }
        }
        Step::Moved
    }

    pub(super) fn save(&self, to: &mut Vec<f64>) {
        to.push(self.steps as f64);
        to.push(f64::from(u8::from(self.is_ready)));
        for part in &self.parts {
            save_vector(part.first.as_slice(), to);
            save_vector(part.second.as_slice(), to);
            for side in &part.sides {
                save_vector(side.matrix.as_slice(), to);
                save_vector(side.basis.as_slice(), to);
            }
        }
    }

    pub(super) fn load(&mut self, from: &mut Saved<'_>) -> Option<()> {
        self.steps = from.number()? as usize;
        self.is_ready = from.number()? != 0.0;
        let mut fill = |matrix: &mut DMatrix<F>| {
            let values: Vec<F> = from.vector().filter(|values: &Vec<F>| values.len() == matrix.len())?;
            matrix.copy_from_slice(&values);
            Some(())
        };
        for part in &mut self.parts {
            fill(&mut part.first)?;
            fill(&mut part.second)?;
            for side in &mut part.sides {
                fill(&mut side.matrix)?;
                fill(&mut side.basis)?;
            }
        }
        Some(())
    }
}
