//! The fourteen probabilities of one series, as written to `prediction.json`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::anatomy::{ANEURYSM_PRESENT, SITE_COUNT, Site};
use crate::provenance::ModelRef;
use crate::series::{Finding, Modality};

/// What a reader of the prediction must know of the series.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SeriesSummary {
    /// Series instance UID.
    pub uid: String,
    /// Kind of series.
    pub modality: Option<Modality>,
    /// Shape as read, `[z, y, x]`.
    pub shape_zyx: [usize; 3],
    /// Spacing as read, mm.
    pub spacing_zyx_mm: [f64; 3],
}

/// Prediction for one series.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Prediction {
    /// Version of this layout.
    pub schema: u32,
    /// The series.
    pub series: SeriesSummary,
    /// Probability by column name; all fourteen.
    pub probabilities: BTreeMap<String, f64>,
    /// Why the series should not be read by willis, if so.
    pub abstain: Option<String>,
    /// Everything odd, repaired or guessed.
    pub findings: Vec<Finding>,
    /// Weights that took part.
    pub models: Vec<ModelRef>,
}

impl Prediction {
    /// Version of the layout that this code writes.
    pub const SCHEMA: u32 = 1;

    /// Probability map from the site probabilities in column order and the probability of any
    /// aneurysm.
    pub fn probability_map(sites: [f64; SITE_COUNT], present: f64) -> BTreeMap<String, f64> {
        let names = Site::ALL.into_iter().map(|s| s.name().to_string());
        names.zip(sites).chain([(ANEURYSM_PRESENT.to_string(), present)]).collect()
    }

    /// Probability of an aneurysm anywhere.
    pub fn present(&self) -> Option<f64> {
        self.probabilities.get(ANEURYSM_PRESENT).copied()
    }
}
