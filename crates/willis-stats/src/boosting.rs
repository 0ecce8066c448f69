//! Gradient boosting for binary labels. Models are stored in XGBoost's JSON format.
//!
//! Trees are grown by `hessboost`, a Rust library that reads and writes XGBoost models and predicts
//! the same bits as XGBoost. Its training is similar to XGBoost's but not identical, so a model
//! records [`TRAINER`].

use hessboost::config::Monotone;
use hessboost::prelude::{
    BoostedModel, DMatrix, EvalMetric, HessboostError, ModelFormat, Objective, RegLoss, Trainer, TrainingParams,
};
use serde::{Deserialize, Serialize};
use willis_core::InvalidValue;

use crate::table::FeatureTable;

/// Library and version that grow the trees.
pub const TRAINER: &str = "hessboost 0.4.6";

/// Why boosting failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BoostError {
    /// A setting or the data was refused.
    #[error("boosting refused its input: {0}; correct the setting or the rows it names")]
    Refused(HessboostError),
    /// The bytes are not an XGBoost JSON model.
    #[error("not an XGBoost JSON model: {0}; train the model again")]
    Model(HessboostError),
    /// A fold has no rows to learn from or to test on.
    #[error("fold {fold} has no rows on one side; use fewer folds")]
    EmptyFold {
        /// The fold.
        fold: usize,
    },
}

/// Training options of a booster. The default suits hundreds to thousands of rows with tens of
/// columns.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BoostConfig {
    /// Factor by which each tree's output is scaled (`eta`).
    pub learning_rate: f64,
    /// Maximum depth of a tree.
    pub max_depth: usize,
    /// Maximum number of trees.
    pub max_rounds: usize,
    /// Fraction of the rows sampled for each tree.
    pub subsample: f64,
    /// Fraction of the columns sampled for each tree (`colsample_bytree`).
    pub column_sample: f64,
    /// Minimum sum of second derivatives in a leaf.
    pub min_child_weight: f64,
    /// L2 penalty on leaf values (`lambda`).
    pub l2: f64,
    /// Seed of the sampling.
    pub seed: u64,
    /// Number of worker threads; the model does not depend on it.
    pub threads: usize,
}

impl Default for BoostConfig {
    fn default() -> Self {
        Self {
            learning_rate: 0.05,
            max_depth: 3,
            max_rounds: 300,
            subsample: 0.8,
            column_sample: 0.8,
            min_child_weight: 5.0,
            l2: 2.0,
            seed: 0,
            threads: 2,
        }
    }
}

impl BoostConfig {
    /// Checks every value.
    ///
    /// # Errors
    /// [`InvalidValue`] names the first value that breaks its rule.
    pub fn validate(&self) -> Result<(), InvalidValue> {
        let fractions = [
            ("learning_rate", self.learning_rate),
            ("subsample", self.subsample),
            ("column_sample", self.column_sample),
        ];
        if let Some((field, value)) = fractions.into_iter().find(|&(_, value)| !(value > 0.0 && value <= 1.0)) {
            return Err(InvalidValue::new(field, value, "must be greater than 0 and at most 1"));
        }
        let penalties = [("min_child_weight", self.min_child_weight), ("l2", self.l2)];
        if let Some((field, value)) = penalties.into_iter().find(|(_, value)| !(value.is_finite() && *value >= 0.0)) {
            return Err(InvalidValue::new(field, value, "must be finite and at least 0"));
        }
        let counts = [("max_depth", self.max_depth), ("max_rounds", self.max_rounds)];
        if let Some((field, value)) = counts.into_iter().find(|&(_, value)| value == 0) {
            return Err(InvalidValue::new(field, value, "must be at least 1"));
        }
        Ok(())
    }
}

/// A fitted ensemble of trees.
#[derive(Debug, Clone)]
pub struct Booster(BoostedModel);

/// Out-of-fold predictions of a booster.
#[derive(Debug, Clone, PartialEq)]
pub struct CrossFit {
    /// Number of trees with the lowest mean log loss over the folds.
    pub rounds: usize,
    /// Log odds of each row, from the first `rounds` trees of the model fitted without its fold.
    pub margins: Vec<f64>,
}

impl Booster {
    /// Grows `rounds` trees.
    ///
    /// The prediction never decreases with a column of `increasing` (a monotone constraint).
    ///
    /// # Errors
    /// `Refused`.
    ///
    /// # Panics
    /// if rows and labels differ in number (programmer error).
    pub fn fit(
        table: &FeatureTable,
        labels: &[bool],
        increasing: &[usize],
        rounds: usize,
        config: &BoostConfig,
    ) -> Result<Self, BoostError> {
        let params = params(config, increasing, table.n_columns())?;
        let data = matrix(table, labels)?;
        Ok(Self(Trainer::new(&params, &data, rounds).train().map_err(BoostError::Refused)?.model))
    }

    /// Log odds of each row.
    ///
    /// # Errors
    /// `Refused` when the columns are not those of the fit.
    pub fn margins(&self, table: &FeatureTable) -> Result<Vec<f64>, BoostError> {
        self.first_margins(table, self.0.num_boost_rounds())
    }

    /// Number of columns of the table that was fitted.
    pub fn n_columns(&self) -> usize {
        self.0.n_features()
    }

    /// The model in the format of XGBoost's `save_model("model.json")`.
    ///
    /// # Errors
    /// `Model` when the model has no representation in that format.
    pub fn to_json(&self) -> Result<Vec<u8>, BoostError> {
        self.0.encode(ModelFormat::XgboostJson).map_err(BoostError::Model)
    }

    /// A model from XGBoost's JSON format.
    ///
    /// # Errors
    /// `Model`.
    pub fn from_json(bytes: &[u8]) -> Result<Self, BoostError> {
        BoostedModel::decode(bytes, ModelFormat::XgboostJson).map(Self).map_err(BoostError::Model)
    }

    fn first_margins(&self, table: &FeatureTable, rounds: usize) -> Result<Vec<f64>, BoostError> {
        let values = self.0.predict_margin_rows(table.values(), ..rounds).map_err(BoostError::Refused)?;
        Ok(values.as_slice().iter().map(|m| f64::from(*m)).collect())
    }
}

/// Fits one booster per fold on all other folds and chooses one number of trees for all of them.
///
/// All folds share the number, so that no fold alone chooses the trees that score its own rows.
///
/// # Errors
/// `EmptyFold`, `Refused`.
///
/// # Panics
/// if rows, labels and folds differ in number (programmer error).
pub fn cross_fit(
    table: &FeatureTable,
    labels: &[bool],
    folds: &[usize],
    increasing: &[usize],
    config: &BoostConfig,
) -> Result<CrossFit, BoostError> {
    assert!(labels.len() == table.n_rows() && folds.len() == table.n_rows(), "one label and one fold per row");
    let params = params(config, increasing, table.n_columns())?;
    let n_folds = folds.iter().max().map_or(0, |last| last + 1);
    let mut losses = vec![0.0; config.max_rounds];
    let mut models = Vec::with_capacity(n_folds);
    for fold in 0..n_folds {
        let (test, train): (Vec<usize>, Vec<usize>) = (0..folds.len()).partition(|row| folds[*row] == fold);
        if test.is_empty() || train.is_empty() {
            return Err(BoostError::EmptyFold { fold });
        }
        let part = |rows: &[usize]| {
            let labels: Vec<bool> = rows.iter().map(|row| labels[*row]).collect();
            matrix(&table.select(rows), &labels)
        };
        let (seen, unseen) = (part(&train)?, part(&test)?);
        let trainer = Trainer::new(&params, &seen, config.max_rounds).eval(&unseen, "unseen");
        let fitted = trainer.train().map_err(BoostError::Refused)?;
        let weight = test.len() as f64 / folds.len() as f64;
        for (sum, loss) in losses.iter_mut().zip(fitted.history.series("unseen", "logloss").into_iter().flatten()) {
            *sum += weight * loss;
        }
        models.push((Booster(fitted.model), test));
    }
    let best = (0..losses.len()).min_by(|a, b| losses[*a].total_cmp(&losses[*b])).unwrap_or(0);
    let rounds = best + 1;
    let mut margins = vec![0.0; folds.len()];
    for (model, test) in &models {
        for (row, margin) in test.iter().zip(model.first_margins(&table.select(test), rounds)?) {
            margins[*row] = margin;
        }
    }
    Ok(CrossFit { rounds, margins })
}

fn params(config: &BoostConfig, increasing: &[usize], n_columns: usize) -> Result<TrainingParams, BoostError> {
    let constraint = |column: usize| if increasing.contains(&column) { Monotone::Increasing } else { Monotone::None };
    TrainingParams::builder()
        .objective(Objective::BinaryLogistic(RegLoss::default()))
        .eval_metric(EvalMetric::LogLoss)
        .eta(config.learning_rate)
        .max_depth(config.max_depth)
        .subsample(config.subsample)
        .colsample_bytree(config.column_sample)
        .min_child_weight(config.min_child_weight)
        .lambda(config.l2)
        .seed(config.seed)
        .nthread(config.threads)
        .monotone_constraints((0..n_columns).map(constraint).collect::<Vec<_>>())
        .build()
        .map_err(BoostError::Refused)
}

fn matrix(table: &FeatureTable, labels: &[bool]) -> Result<DMatrix, BoostError> {
    assert_eq!(table.n_rows(), labels.len(), "one label per row");
    let labels: Vec<f32> = labels.iter().map(|y| f32::from(u8::from(*y))).collect();
    DMatrix::from_dense(table.values(), table.n_rows(), table.n_columns())
        .and_then(|data| data.with_labels(&labels))
        .map_err(BoostError::Refused)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::auroc;

    /// 300 rows. The label depends on the first column, which is missing in every seventh row; the
    /// second column is noise.
    fn data() -> (FeatureTable, Vec<bool>) {
        let value = |i: usize, k: usize| ((i * k) % 101) as f32 / 101.0;
        let row = |i: usize| [if i.is_multiple_of(7) { f32::NAN } else { value(i, 37) }, value(i, 59)];
        let labels = (0..300).map(|i| value(i, 37) + 0.3 * value(i, 13) > 0.65).collect();
        (FeatureTable::new(2, (0..300).flat_map(row).collect()), labels)
    }

    #[test]
    fn the_model_learns_does_not_depend_on_threads_and_survives_json() {
        let (table, labels) = data();
        let fit = |threads: usize| {
            let config = BoostConfig { threads, ..BoostConfig::default() };
            Booster::fit(&table, &labels, &[0], 40, &config).unwrap()
        };
        let booster = fit(1);
        let margins = booster.margins(&table).unwrap();
        assert!(auroc(&margins, &labels).unwrap() > 0.93);
        assert_eq!(booster.to_json().unwrap(), fit(2).to_json().unwrap());
        let again = Booster::from_json(&booster.to_json().unwrap()).unwrap();
        assert_eq!(again.margins(&table).unwrap(), margins);
        assert_eq!(again.to_json().unwrap(), booster.to_json().unwrap());
        assert!(Booster::from_json(b"{}").is_err());
        assert!(booster.margins(&FeatureTable::new(3, vec![0.0; 3])).is_err());
    }

    #[test]
    fn predictions_never_decrease_with_a_monotone_column() {
        let (table, labels) = data();
        let booster = Booster::fit(&table, &labels, &[0], 40, &BoostConfig::default()).unwrap();
        let line = FeatureTable::new(2, (0..50).flat_map(|i| [i as f32 / 50.0, 0.5]).collect());
        assert!(booster.margins(&line).unwrap().is_sorted());
    }

    #[test]
    fn cross_fitting_scores_rows_out_of_fold() {
        let (table, labels) = data();
        let folds: Vec<usize> = (0..300).map(|i| i % 5).collect();
        let config = BoostConfig { max_rounds: 120, ..BoostConfig::default() };
        let fit = cross_fit(&table, &labels, &folds, &[0], &config).unwrap();
        assert!((1..=120).contains(&fit.rounds));
        let out_of_fold = auroc(&fit.margins, &labels).unwrap();
        let seen = Booster::fit(&table, &labels, &[0], fit.rounds, &config).unwrap().margins(&table).unwrap();
        assert!(out_of_fold > 0.85 && out_of_fold <= auroc(&seen, &labels).unwrap());
        let gap: Vec<usize> = (0..300).map(|i| 2 * (i % 2)).collect();
        assert!(matches!(cross_fit(&table, &labels, &gap, &[], &config), Err(BoostError::EmptyFold { fold: 1 })));
    }
}
