//! Logistic regression with an L2 penalty.
//!
//! Minimises `Σ log loss + ½ |w|² / C`; the intercept is not penalised.
//!
//! # Source
//! scikit-learn's `LogisticRegression` with `penalty="l2"`.

use serde::{Deserialize, Serialize};

use crate::table::FeatureTable;

/// A fitted logistic regression over standardised columns. A missing value is replaced by the mean
/// of its column.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Logistic {
    /// Mean of the present values of each column.
    pub means: Vec<f64>,
    /// Standard deviation of each column; 1 for a constant column.
    pub deviations: Vec<f64>,
    /// Weight of each standardised column.
    pub weights: Vec<f64>,
    /// Log odds at the mean of every column.
    pub intercept: f64,
}

impl Logistic {
    /// Fits the weights; `c` is the inverse penalty, 1 by default in scikit-learn.
    ///
    /// # Panics
    /// if rows and labels differ in number (programmer error).
    pub fn fit(table: &FeatureTable, labels: &[bool], c: f64) -> Self {
        let (means, deviations) = (0..table.n_columns()).map(|column| moments(table, column)).unzip();
        let mut model = Self { means, deviations, weights: Vec::new(), intercept: 0.0 };
        let rows: Vec<f64> = table.rows().flat_map(|row| model.standardise(row).collect::<Vec<_>>()).collect();
        let targets: Vec<f64> = labels.iter().map(|y| f64::from(*y)).collect();
        model.weights = minimise(&rows, table.n_columns(), &targets, 1.0 / c);
        model.intercept = model.weights.pop().expect("the intercept comes last");
        model
    }

    /// Log odds of each row.
    ///
    /// # Panics
    /// if the number of columns differs from the fitted table's (programmer error).
    pub fn log_odds(&self, table: &FeatureTable) -> Vec<f64> {
        assert_eq!(table.n_columns(), self.weights.len(), "columns as fitted");
        let logit = |row| self.standardise(row).zip(&self.weights).map(|(x, w)| x * w).sum::<f64>() + self.intercept;
        table.rows().map(logit).collect()
    }

    fn standardise<'a>(&'a self, row: &'a [f32]) -> impl Iterator<Item = f64> + 'a {
        let scaled = |(x, (mean, deviation)): (&f32, (&f64, &f64))| {
            if x.is_nan() { 0.0 } else { (f64::from(*x) - mean) / deviation }
        };
        row.iter().zip(self.means.iter().zip(&self.deviations)).map(scaled)
    }
}

/// Mean and standard deviation of the present values of a column.
fn moments(table: &FeatureTable, column: usize) -> (f64, f64) {
    let present: Vec<f64> = table.rows().map(|row| f64::from(row[column])).filter(|x| !x.is_nan()).collect();
    if present.is_empty() {
        return (0.0, 1.0);
    }
    let n = present.len() as f64;
    let mean = present.iter().sum::<f64>() / n;
    let deviation = (present.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n).sqrt();
    (mean, if deviation > 1e-9 { deviation } else { 1.0 })
}

/// `1 / (1 + exp(−x))`.
pub fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// Log odds of a probability, which is first clamped to [1e-6, 1 − 1e-6].
pub fn logit(p: f64) -> f64 {
    let p = p.clamp(1e-6, 1.0 - 1e-6);
    (p / (1.0 - p)).ln()
}

/// The weights, followed by the intercept, that minimise `Σ log loss + ½ l2 |w|²`. Targets may be
/// any probabilities.
///
/// Newton's method; a step is halved until the loss decreases.
///
/// # Shapes
/// rows `[targets.len(), n_columns]`, row-major
pub(crate) fn minimise(rows: &[f64], n_columns: usize, targets: &[f64], l2: f64) -> Vec<f64> {
    assert_eq!(rows.len(), n_columns * targets.len(), "one target per row");
    let size = n_columns + 1;
    let logit = |w: &[f64], row: usize| {
        let x = &rows[row * n_columns..][..n_columns];
        x.iter().zip(w).map(|(x, w)| x * w).sum::<f64>() + w[n_columns]
    };
    let loss = |w: &[f64]| -> f64 {
        let fit: f64 = targets.iter().enumerate().map(|(row, t)| softplus(logit(w, row)) - t * logit(w, row)).sum();
        fit + l2 / 2.0 * w[..n_columns].iter().map(|w| w * w).sum::<f64>()
    };
    let mut weights = vec![0.0; size];
    let mut current = loss(&weights);
    for _ in 0..100 {
        let mut gradient = vec![0.0; size];
        let mut hessian = vec![0.0; size * size];
        for (row, t) in targets.iter().enumerate() {
            let p = sigmoid(logit(&weights, row));
            let x = |j: usize| if j < n_columns { rows[row * n_columns + j] } else { 1.0 };
            for i in 0..size {
                gradient[i] += (p - t) * x(i);
                for j in 0..=i {
                    hessian[i * size + j] += p * (1.0 - p) * x(i) * x(j);
                }
            }
        }
        for i in 0..n_columns {
            gradient[i] += l2 * weights[i];
            hessian[i * size + i] += l2;
        }
        let step = solve(hessian, gradient);
        let tried = (0..40).map(|k| 0.5f64.powi(k)).find_map(|length| {
            let next: Vec<f64> = weights.iter().zip(&step).map(|(w, s)| w - length * s).collect();
            let value = loss(&next);
            (value < current).then_some((next, value))
        });
        let Some((next, value)) = tried else { break };
        let gain = current - value;
        (weights, current) = (next, value);
        if gain < 1e-15 * current.abs() {
            break;
        }
    }
    weights
}

fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

/// Solves `A x = b` for a symmetric positive definite matrix, given by its lower triangle, by
/// Cholesky factorisation. Tiny pivots are raised to a small positive value.
fn solve(mut a: Vec<f64>, mut b: Vec<f64>) -> Vec<f64> {
    let n = b.len();
    let floor = 1e-12 * (0..n).map(|i| a[i * n + i]).fold(1e-300, f64::max);
    for j in 0..n {
        let dot = |a: &[f64], i: usize| (0..j).map(|k| a[i * n + k] * a[j * n + k]).sum::<f64>();
        let pivot = (a[j * n + j] - dot(&a, j)).max(floor).sqrt();
        a[j * n + j] = pivot;
        for i in j + 1..n {
            a[i * n + j] = (a[i * n + j] - dot(&a, i)) / pivot;
        }
    }
    for i in 0..n {
        b[i] = (b[i] - (0..i).map(|k| a[i * n + k] * b[k]).sum::<f64>()) / a[i * n + i];
    }
    for i in (0..n).rev() {
        b[i] = (b[i] - (i + 1..n).map(|k| a[k * n + i] * b[k]).sum::<f64>()) / a[i * n + i];
    }
    b
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn solves_a_small_system() {
        // [[4, 2], [2, 3]] x = [10, 9] has the solution [1.5, 2].
        let x = solve(vec![4.0, 0.0, 2.0, 3.0], vec![10.0, 9.0]);
        assert!((x[0] - 1.5).abs() < 1e-12 && (x[1] - 2.0).abs() < 1e-12);
    }

    #[test]
    fn hand_worked_log_odds() {
        // One binary column and no penalty: each group gets its observed odds, 1/3 and 3.
        let rows = [0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0];
        let targets = [1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0];
        let w = minimise(&rows, 1, &targets, 0.0);
        assert!((w[1] + 3f64.ln()).abs() < 1e-9 && (w[0] - 9f64.ln()).abs() < 1e-9, "{w:?}");
    }

    #[test]
    fn the_gradient_is_zero_and_missing_values_count_as_the_mean() {
        let (x, y) = ([-3.0f32, 3.0, f32::NAN], [false, true, true]);
        let table = FeatureTable::new(1, x.to_vec());
        let model = Logistic::fit(&table, &y, 1.0);
        let p: Vec<f64> = model.log_odds(&table).into_iter().map(sigmoid).collect();
        let residual = |i: usize| p[i] - f64::from(y[i]);
        assert!((-residual(0) + residual(1) + model.weights[0]).abs() < 1e-9);
        assert!((residual(0) + residual(1) + residual(2)).abs() < 1e-9);
        assert!((p[2] - sigmoid(model.intercept)).abs() < 1e-15);
    }

    #[test]
    fn separable_and_constant_data_stay_finite() {
        let table = FeatureTable::new(2, vec![0.0, 5.0, 1.0, 5.0]);
        let model = Logistic::fit(&table, &[false, true], 1e6);
        assert!(model.weights.iter().all(|w| w.is_finite()) && model.weights[1] == 0.0);
        assert!(minimise(&[0.0, 1.0], 1, &[0.0, 1.0], 0.0).iter().all(|w| w.is_finite()));
    }
}
