//! The stack: evidence of all candidates to fourteen calibrated probabilities.
//!
//! | model | one row per | input |
//! |---|---|---|
//! | candidate | candidate | its evidence; the probability ranks the candidates |
//! | site | series and site | candidates' probabilities and evidence; shared by all sites |
//! | present | series | candidates' probabilities and evidence |
//!
//! Each model averages, in log odds, a gradient booster and a logistic regression over the same
//! features, and is calibrated on its own out-of-fold scores. The candidates' evidence must also be
//! out of fold, that is, measured by nets that were not trained on the series.

pub mod features;
mod fit;
mod model;

use willis_core::{Candidates, InvalidValue, Modality, SITE_COUNT};

use crate::boosting::{BoostConfig, BoostError};
use crate::calibration::CalibrationError;
use crate::folds::FoldError;

pub use fit::fit;
pub use model::{StackModel, probabilities, rank};

/// One series of the training set.
#[derive(Debug, Clone, PartialEq)]
pub struct StackCase {
    /// Patient. All series of a patient are in one fold.
    pub patient: String,
    /// Modality.
    pub modality: Option<Modality>,
    /// Candidates with out-of-fold evidence.
    pub candidates: Candidates,
    /// Whether each candidate is an aneurysm.
    pub is_aneurysm: Vec<bool>,
    /// Whether there is an aneurysm at each site, column order.
    pub sites: [bool; SITE_COUNT],
    /// Whether there is an aneurysm anywhere.
    pub present: bool,
}

/// Training options of the stack.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StackTraining {
    /// Number of folds that choose the number of trees and give the scores for calibration; reduced
    /// when there are fewer patients or series of a class.
    pub folds: usize,
    /// Training options of the boosters.
    pub boosting: BoostConfig,
    /// Inverse penalty of the logistic regression.
    pub logistic_c: f64,
    /// Weight of the logistic regression's log odds in the mean with the booster's; 0 uses the
    /// booster alone.
    pub linear_share: f64,
}

impl Default for StackTraining {
    fn default() -> Self {
        Self { folds: 5, boosting: BoostConfig::default(), logistic_c: 1.0, linear_share: 0.5 }
    }
}

impl StackTraining {
    /// Checks every value.
    ///
    /// # Errors
    /// [`InvalidValue`] names the first value that breaks its rule.
    pub fn validate(&self) -> Result<(), InvalidValue> {
        if self.folds < 2 {
            return Err(InvalidValue::new("folds", self.folds, "must be at least 2"));
        }
        self.boosting.validate().map_err(|e| e.within("boosting"))?;
        if !(self.logistic_c.is_finite() && self.logistic_c > 0.0) {
            return Err(InvalidValue::new("logistic_c", self.logistic_c, "must be finite and greater than 0"));
        }
        if !(0.0..=1.0).contains(&self.linear_share) {
            return Err(InvalidValue::new("linear_share", self.linear_share, "must lie between 0 and 1"));
        }
        Ok(())
    }
}

/// A fitted stack with its out-of-fold probabilities.
#[derive(Debug, Clone)]
pub struct StackFit {
    /// The model, fitted on all series.
    pub model: StackModel,
    /// Out-of-fold probability of each candidate of each series.
    pub out_of_fold_candidates: Vec<Vec<f64>>,
    /// Out-of-fold probabilities, one row per series, "aneurysm present" last.
    pub out_of_fold: Vec<[f64; SITE_COUNT + 1]>,
    /// As `out_of_fold`, from the boosters alone, calibrated.
    pub out_of_fold_boosted: Vec<[f64; SITE_COUNT + 1]>,
    /// As `out_of_fold`, from the logistic regressions alone.
    pub out_of_fold_logistic: Vec<[f64; SITE_COUNT + 1]>,
}

/// Why a stack cannot be fitted or loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StackError {
    /// The series cannot be split by patient.
    #[error("the series cannot be split by patient: {0}")]
    Folds(#[from] FoldError),
    /// A booster failed.
    #[error(transparent)]
    Boost(#[from] BoostError),
    /// A calibration failed.
    #[error("{target}: {source}")]
    Calibration {
        /// The model that was to be calibrated.
        target: &'static str,
        /// Why it failed.
        source: CalibrationError,
    },
    /// The bytes are not a stack model.
    #[error("not a stack model: {0}; fit it again with `willis train stack`")]
    Json(#[from] serde_json::Error),
    /// The model was written by another version.
    #[error("the stack model has {got}, this program expects {expected}; fit it again with `willis train stack`")]
    Incompatible {
        /// The schema or columns that this program expects.
        expected: String,
        /// The schema or columns of the model.
        got: String,
    },
}
