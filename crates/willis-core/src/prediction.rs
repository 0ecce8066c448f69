//! The fourteen probabilities of a series, as written to `prediction.json`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::anatomy::{ANEURYSM_PRESENT, SITE_COUNT, Site};
use crate::series::{Finding, Modality};

/// The series that a prediction is about.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SeriesSummary {
    /// Series instance UID.
    pub uid: String,
    /// Modality.
    pub modality: Option<Modality>,
    /// Shape as read, `[z, y, x]`.
    pub shape_zyx: [usize; 3],
    /// Spacing as read, mm.
    pub spacing_zyx_mm: [f64; 3],
}

/// A weights file that was used, by name and content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelRef {
    /// Name of the model.
    pub name: String,
    /// SHA-256 of the weights file, hexadecimal.
    pub sha256: String,
}

/// Prediction for a series.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Prediction {
    /// Schema version.
    pub schema: u32,
    /// The series.
    pub series: SeriesSummary,
    /// Probability of each of the fourteen columns, by column name.
    pub probabilities: BTreeMap<String, f64>,
    /// Why willis cannot be used for the series, if so.
    pub abstain: Option<String>,
    /// Everything unusual, repaired or guessed.
    pub findings: Vec<Finding>,
    /// Weights files that were used.
    pub models: Vec<ModelRef>,
}

impl Prediction {
    /// Schema version written by this program.
    pub const SCHEMA: u32 = 1;

    /// Probabilities by column name from those of the sites, in column order, and of any aneurysm.
    pub fn probability_map(sites: [f64; SITE_COUNT], present: f64) -> BTreeMap<String, f64> {
        let names = Site::ALL.into_iter().map(|s| s.name().to_string());
        names.zip(sites).chain([(ANEURYSM_PRESENT.to_string(), present)]).collect()
    }

    /// Probability of an aneurysm anywhere.
    pub fn present(&self) -> Option<f64> {
        self.probabilities.get(ANEURYSM_PRESENT).copied()
    }
}
