//! Gradient boosting for binary labels; models are in XGBoost's JSON format.
//!
//! The trees are grown by `hessboost`, a Rust program that reads and writes XGBoost's models and
//! predicts the same bits; its training is similar to XGBoost's, not identical, so name [`TRAINER`]
//! where a model is described.

use hessboost::config::Monotone;
use hessboost::prelude::{
    BoostedModel, DMatrix, EvalMetric, HessboostError, ModelFormat, Objective, RegLoss, Trainer, TrainingParams,
};
use serde::{Deserialize, Serialize};

use crate::table::Table;

/// Program that grows the trees.
pub const TRAINER: &str = "hessboost 0.4.6";

/// Why boosting failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BoostError {
    /// A setting or the data was refused.
    #[error("boosting refused its input: {0}; correct the setting or the rows it names")]
    Refused(HessboostError),
    /// Bytes are no XGBoost JSON model.
    #[error("not an XGBoost JSON model: {0}; train the model again")]
    Model(HessboostError),
    /// A fold has no rows to learn from or to test on.
    #[error("fold {fold} has no rows on one side; use fewer folds")]
    EmptyFold {
        /// The fold.
        fold: usize,
    },
}

/// How trees are grown. The default suits hundreds to thousands of rows with tens of columns.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BoostConfig {
    /// Share of each tree's answer that is kept (eta).
    pub learning_rate: f64,
    /// Levels of a tree.
    pub max_depth: usize,
    /// Most trees.
    pub max_rounds: usize,
    /// Share of the rows each tree sees.
    pub subsample: f64,
    /// Share of the columns each tree sees.
    pub column_sample: f64,
    /// Least sum of second derivatives in a leaf.
    pub min_child_weight: f64,
    /// L2 penalty on leaf values (lambda).
    pub l2: f64,
    /// Seed of the sampling.
    pub seed: u64,
    /// Worker threads; the model is the same for any number.
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

/// A fitted ensemble of trees.
#[derive(Debug, Clone)]
pub struct Booster(BoostedModel);

/// How a booster does on rows it has not seen.
#[derive(Debug, Clone, PartialEq)]
pub struct CrossFit {
    /// Number of trees with the least mean log loss over the folds.
    pub rounds: usize,
    /// Log odds of each row, from the model that was fitted without its fold, with that many trees.
    pub margins: Vec<f64>,
}

impl Booster {
    /// Grows `rounds` trees.
    ///
    /// `rising` names the columns in which the prediction may only rise.
    ///
    /// # Errors
    /// `Refused`.
    ///
    /// # Panics
    /// if rows and labels differ in number (programmer error).
    pub fn fit(
        table: &Table,
        labels: &[bool],
        rising: &[usize],
        rounds: usize,
        config: &BoostConfig,
    ) -> Result<Self, BoostError> {
        let params = params(config, rising, table.n_columns())?;
        let data = matrix(table, labels)?;
        Ok(Self(Trainer::new(&params, &data, rounds).train().map_err(BoostError::Refused)?.model))
    }

    /// Probability of each row.
    ///
    /// # Errors
    /// `Refused` when the columns are not those of the fit.
    pub fn predict(&self, table: &Table) -> Result<Vec<f64>, BoostError> {
        let values = self.0.predict_rows(table.values(), ..).map_err(BoostError::Refused)?;
        Ok(values.as_slice().iter().map(|p| f64::from(*p)).collect())
    }

    /// Log odds of each row.
    ///
    /// # Errors
    /// `Refused` when the columns are not those of the fit.
    pub fn margins(&self, table: &Table) -> Result<Vec<f64>, BoostError> {
        self.first_margins(table, self.0.num_boost_rounds())
    }

    /// Number of trees.
    pub fn rounds(&self) -> usize {
        self.0.num_boost_rounds()
    }

    /// Number of columns the trees were grown on.
    pub fn n_columns(&self) -> usize {
        self.0.n_features()
    }

    /// The model as XGBoost's `save_model("….json")` writes it.
    ///
    /// # Errors
    /// `Model` when the format cannot hold it.
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

    fn first_margins(&self, table: &Table, rounds: usize) -> Result<Vec<f64>, BoostError> {
        let values = self.0.predict_margin_rows(table.values(), ..rounds).map_err(BoostError::Refused)?;
        Ok(values.as_slice().iter().map(|m| f64::from(*m)).collect())
    }
}

/// Fits one booster per fold on all other folds, and chooses one number of trees for all of them.
///
/// The choice is shared by the folds, so that no fold's rows pick the trees that score them alone.
///
/// # Errors
/// `EmptyFold`, `Refused`.
///
/// # Panics
/// if rows, labels and folds differ in number (programmer error).
pub fn cross_fit(
    table: &Table,
    labels: &[bool],
    folds: &[usize],
    rising: &[usize],
    config: &BoostConfig,
) -> Result<CrossFit, BoostError> {
    assert!(labels.len() == table.n_rows() && folds.len() == table.n_rows(), "one label and one fold per row");
    let params = params(config, rising, table.n_columns())?;
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

fn params(config: &BoostConfig, rising: &[usize], n_columns: usize) -> Result<TrainingParams, BoostError> {
    let constraint = |column: usize| if rising.contains(&column) { Monotone::Increasing } else { Monotone::None };
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

fn matrix(table: &Table, labels: &[bool]) -> Result<DMatrix, BoostError> {
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

    /// 300 rows: the label follows the first column, which is missing in every seventh row; the
    /// second is noise.
    fn data() -> (Table, Vec<bool>) {
        let value = |i: usize, k: usize| ((i * k) % 101) as f32 / 101.0;
        let row = |i: usize| [if i.is_multiple_of(7) { f32::NAN } else { value(i, 37) }, value(i, 59)];
        let labels = (0..300).map(|i| value(i, 37) + 0.3 * value(i, 13) > 0.65).collect();
        (Table::new(2, (0..300).flat_map(row).collect()), labels)
    }

    #[test]
    fn learns_repeats_itself_at_any_thread_count_and_survives_json() {
        let (table, labels) = data();
        let fit = |threads: usize| {
            let config = BoostConfig { threads, ..BoostConfig::default() };
            Booster::fit(&table, &labels, &[0], 40, &config).unwrap()
        };
        let booster = fit(1);
        let p = booster.predict(&table).unwrap();
        assert!(auroc(&p, &labels).unwrap() > 0.93);
        assert_eq!(booster.to_json().unwrap(), fit(2).to_json().unwrap());
        let again = Booster::from_json(&booster.to_json().unwrap()).unwrap();
        assert_eq!(again.predict(&table).unwrap(), p);
        assert_eq!((again.rounds(), again.to_json().unwrap()), (40, booster.to_json().unwrap()));
        assert!(Booster::from_json(b"{}").is_err());
        assert!(booster.predict(&Table::new(3, vec![0.0; 3])).is_err());
    }

    #[test]
    fn predictions_rise_where_they_must() {
        let (table, labels) = data();
        let booster = Booster::fit(&table, &labels, &[0], 40, &BoostConfig::default()).unwrap();
        let line = Table::new(2, (0..50).flat_map(|i| [i as f32 / 50.0, 0.5]).collect());
        assert!(booster.predict(&line).unwrap().is_sorted());
    }

    #[test]
    fn cross_fitting_scores_unseen_rows() {
        let (table, labels) = data();
        let folds: Vec<usize> = (0..300).map(|i| i % 5).collect();
        let config = BoostConfig { max_rounds: 120, ..BoostConfig::default() };
        let fit = cross_fit(&table, &labels, &folds, &[0], &config).unwrap();
        assert!((1..=120).contains(&fit.rounds));
        let honest = auroc(&fit.margins, &labels).unwrap();
        let seen = Booster::fit(&table, &labels, &[0], fit.rounds, &config).unwrap().margins(&table).unwrap();
        assert!(honest > 0.85 && honest <= auroc(&seen, &labels).unwrap());
        let gap: Vec<usize> = (0..300).map(|i| 2 * (i % 2)).collect();
        assert!(matches!(cross_fit(&table, &labels, &gap, &[], &config), Err(BoostError::EmptyFold { fold: 1 })));
    }
}
