//! The last stage: evidence of all candidates to fourteen calibrated probabilities.
//!
//! Three gradient boosters: one over candidates, whose probability ranks them; then, over those
//! probabilities, one for (series, site) rows shared by all sites and one over series for "aneurysm
//! present". Each is averaged, in log odds, with a logistic regression over the same features,
//! which is also the baseline of every comparison, and calibrated on its own out-of-fold scores.
//! The candidates' evidence must itself be out-of-fold: measured by nets that did not train on the
//! series.

pub mod features;
mod fit;
mod model;

use willis_core::{Candidates, Modality, SITE_COUNT};

use crate::boosting::{BoostConfig, BoostError};
use crate::calibration::CalibrationError;
use crate::folds::FoldError;
use crate::metrics::ChallengeScore;

pub use fit::fit;
pub use model::{StackModel, predict, predict_logistic, rank};

/// One series to learn from.
#[derive(Debug, Clone, PartialEq)]
pub struct StackCase {
    /// Patient; all series of a patient share a fold.
    pub patient: String,
    /// Kind of series.
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

/// How the stack is fitted.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StackConfig {
    /// Folds for the number of trees and the calibration; fewer are used when patients or positives
    /// are fewer.
    pub folds: usize,
    /// How trees are grown.
    pub boosting: BoostConfig,
    /// Inverse penalty of the logistic regression.
    pub logistic_c: f64,
    /// Share of the logistic regression's log odds beside the booster's: 0 is boosting alone.
    pub linear_share: f64,
}

impl Default for StackConfig {
    fn default() -> Self {
        Self { folds: 5, boosting: BoostConfig::default(), logistic_c: 1.0, linear_share: 0.5 }
    }
}

/// A fitted stack and how it does on series it has not seen.
#[derive(Debug, Clone)]
pub struct StackFit {
    /// The model, fitted on all series.
    pub model: StackModel,
    /// Out-of-fold probability of each candidate of each series.
    pub out_of_fold_candidates: Vec<Vec<f64>>,
    /// Out-of-fold probabilities: one row per series, "aneurysm present" last.
    pub out_of_fold: Vec<[f64; SITE_COUNT + 1]>,
    /// The same of the boosters alone, calibrated.
    pub out_of_fold_boosted: Vec<[f64; SITE_COUNT + 1]>,
    /// The same of the logistic regressions alone.
    pub out_of_fold_logistic: Vec<[f64; SITE_COUNT + 1]>,
    /// Score of the out-of-fold probabilities.
    pub score: ChallengeScore,
    /// Score of the logistic regressions' out-of-fold probabilities.
    pub score_logistic: ChallengeScore,
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
        /// What was to be calibrated.
        target: &'static str,
        /// What went wrong.
        source: CalibrationError,
    },
    /// The bytes are no stack.
    #[error("not a stack model: {0}; fit it again with `willis train stack`")]
    Json(#[from] serde_json::Error),
    /// The stack was made by another version.
    #[error("the stack model has {got}, this program expects {expected}; fit it again with `willis train stack`")]
    Incompatible {
        /// What this program expects.
        expected: String,
        /// What the model has.
        got: String,
    },
}
