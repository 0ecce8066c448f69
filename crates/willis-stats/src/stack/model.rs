//! The fitted stack, stored as one JSON document that contains XGBoost models.

use serde::{Deserialize, Serialize};
use willis_core::{Candidate, Candidates, Modality, SITE_COUNT};

use super::StackError;
use super::features::{
    CANDIDATE_PROBABILITIES, PRESENT_PROBABILITIES, SITE_PROBABILITIES, candidate_columns, candidate_rows,
    present_columns, present_row, site_columns, site_rows, with_logits,
};
use crate::boosting::{Booster, TRAINER};
use crate::calibration::{Platt, shift_prevalence};
use crate::logistic::Logistic;
use crate::table::FeatureTable;

/// Version of the JSON document.
const SCHEMA: u32 = 3;

/// The fitted models for candidates, sites and series.
#[derive(Debug, Clone)]
pub struct StackModel {
    /// One row per candidate.
    pub(super) candidate: StackMember,
    /// One row per series and site.
    pub(super) site: StackMember,
    /// One row per series.
    pub(super) present: StackMember,
}

/// A booster and a logistic regression with their common calibration.
#[derive(Debug, Clone)]
pub(super) struct StackMember {
    pub booster: Booster,
    /// From the mean log odds to probabilities.
    pub calibration: Platt,
    pub logistic: Logistic,
    /// Weight of the logistic regression's log odds in the mean with the booster's.
    pub linear_share: f64,
    /// Number of leading columns that are probabilities.
    pub n_probabilities: usize,
    /// Share of positives in the training rows.
    pub prevalence: f64,
}

impl StackMember {
    fn probabilities(&self, table: &FeatureTable) -> Result<Vec<f64>, StackError> {
        let boosted = self.booster.margins(table)?;
        let linear = self.logistic.log_odds(&with_logits(table, self.n_probabilities));
        let margins = boosted.iter().zip(&linear).map(|(b, l)| blend(*b, *l, self.linear_share));
        Ok(margins.map(|margin| self.calibration.apply(margin)).collect())
    }
}

/// Weighted mean of two log odds.
pub(super) fn blend(boosted: f64, linear: f64, linear_share: f64) -> f64 {
    (1.0 - linear_share) * boosted + linear_share * linear
}

/// The candidates with the calibrated probability that each is an aneurysm, most probable first.
///
/// # Errors
/// as [`probabilities`].
pub fn rank(model: &StackModel, candidates: Candidates, modality: Option<Modality>) -> Result<Candidates, StackError> {
    if candidates.is_empty() {
        return Ok(candidates);
    }
    let probabilities = model.candidate.probabilities(&candidate_rows(&candidates, modality))?;
    Ok(ranked(candidates, &probabilities))
}

/// Candidates with these probabilities, most probable first; the sort is stable.
pub(super) fn ranked(mut candidates: Candidates, probabilities: &[f64]) -> Candidates {
    candidates.iter_mut().zip(probabilities).for_each(|(candidate, &p)| candidate.probability = p);
    candidates.sort_by(|a, b| b.probability.total_cmp(&a.probability));
    (1..).zip(&mut candidates).for_each(|(rank, candidate)| candidate.rank = rank);
    candidates
}

/// Calibrated probabilities of a series from its candidates as ranked by [`rank`]: the sites in
/// column order, and "aneurysm present".
///
/// # Errors
/// `Boost` when the boosters do not fit this program's features; [`StackModel::from_json`] rejects
/// such a model.
pub fn probabilities(
    model: &StackModel,
    candidates: &[Candidate],
    modality: Option<Modality>,
) -> Result<([f64; SITE_COUNT], f64), StackError> {
    let sites = model.site.probabilities(&site_rows(candidates, modality))?;
    let present = model.present.probabilities(&present_row(candidates, modality))?;
    Ok((sites.try_into().expect("one row per site"), present[0]))
}

impl StackModel {
    /// Share of series with an aneurysm in the training set.
    pub fn prevalence(&self) -> f64 {
        self.present.prevalence
    }

    /// Probabilities at another prevalence, the share of series with an aneurysm, between 0 and 1.
    ///
    /// Assumes that the odds of each site change by the same factor as the odds of any aneurysm.
    pub fn at_prevalence(
        &self,
        (sites, present): ([f64; SITE_COUNT], f64),
        prevalence: f64,
    ) -> ([f64; SITE_COUNT], f64) {
        let shift = |p: f64| shift_prevalence(p, self.prevalence(), prevalence);
        (sites.map(shift), shift(present))
    }

    /// The model as one JSON document; `candidate.booster`, `site.booster` and `present.booster`
    /// are XGBoost models.
    ///
    /// # Errors
    /// `Boost` or `Json` when a number has no JSON representation.
    pub fn to_json(&self) -> Result<Vec<u8>, StackError> {
        let document = Document {
            schema: SCHEMA,
            trainer: TRAINER.to_string(),
            candidate: MemberDocument::of(&self.candidate, candidate_columns())?,
            site: MemberDocument::of(&self.site, site_columns())?,
            present: MemberDocument::of(&self.present, present_columns())?,
        };
        Ok(serde_json::to_vec(&document)?)
    }

    /// A model from its JSON document.
    ///
    /// # Errors
    /// `Json` when the bytes are not such a document, `Incompatible` when another version wrote it,
    /// `Boost` when a booster inside is damaged.
    pub fn from_json(bytes: &[u8]) -> Result<Self, StackError> {
        let document: Document = serde_json::from_slice(bytes)?;
        if document.schema != SCHEMA {
            let (expected, got) = (format!("schema {SCHEMA}"), format!("schema {}", document.schema));
            return Err(StackError::Incompatible { expected, got });
        }
        Ok(Self {
            candidate: document.candidate.member(&candidate_columns(), CANDIDATE_PROBABILITIES)?,
            site: document.site.member(&site_columns(), SITE_PROBABILITIES)?,
            present: document.present.member(&present_columns(), PRESENT_PROBABILITIES)?,
        })
    }
}

#[derive(Serialize, Deserialize)]
struct Document {
    schema: u32,
    trainer: String,
    candidate: MemberDocument,
    site: MemberDocument,
    present: MemberDocument,
}

#[derive(Serialize, Deserialize)]
struct MemberDocument {
    columns: Vec<String>,
    prevalence: f64,
    linear_share: f64,
    calibration: Platt,
    logistic: Logistic,
    booster: serde_json::Value,
}

impl MemberDocument {
    fn of(member: &StackMember, columns: Vec<String>) -> Result<Self, StackError> {
        Ok(Self {
            columns,
            prevalence: member.prevalence,
            linear_share: member.linear_share,
            calibration: member.calibration,
            logistic: member.logistic.clone(),
            booster: serde_json::from_slice(&member.booster.to_json()?)?,
        })
    }

    fn member(self, columns: &[String], n_probabilities: usize) -> Result<StackMember, StackError> {
        let booster = Booster::from_json(&serde_json::to_vec(&self.booster)?)?;
        let Self { logistic, calibration, prevalence, linear_share, .. } = self;
        let widths = [logistic.means.len(), logistic.deviations.len(), logistic.weights.len(), booster.n_columns()];
        if self.columns != columns || widths.iter().any(|n| *n != columns.len()) {
            let list = |names: &[String]| format!("the columns {}", names.join(", "));
            return Err(StackError::Incompatible { expected: list(columns), got: list(&self.columns) });
        }
        Ok(StackMember { booster, calibration, logistic, linear_share, n_probabilities, prevalence })
    }
}
