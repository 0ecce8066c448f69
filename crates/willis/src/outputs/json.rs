//! `candidates.json`, the table that `evaluate` and other programs read.

use serde::{Deserialize, Serialize};
use willis_core::Candidate;

use crate::report;

/// Content of `candidates.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CandidatesFile {
    /// Version of this layout.
    pub schema: u32,
    /// Always `LPS`.
    pub frame: String,
    /// Always `mm`.
    pub unit: String,
    /// The notice of every output.
    pub notice: String,
    /// Best first.
    pub candidates: Vec<CandidateRow>,
}

/// A candidate as written: points as `[x, y, z]`, sites by column name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CandidateRow {
    /// 1 for the most probable.
    pub rank: usize,
    /// Centre, LPS mm.
    pub centre: [f64; 3],
    /// Largest diameter, mm.
    pub diameter_mm: f64,
    /// Calibrated probability.
    pub probability: f64,
    /// Column name of the most probable site.
    pub site: Option<String>,
    /// Distance to the nearest vessel voxel outside the candidate, mm.
    pub distance_to_vessel_mm: Option<f64>,
    /// Measurements of the stages.
    pub evidence: willis_core::Evidence,
}

impl From<&Candidate> for CandidateRow {
    fn from(c: &Candidate) -> Self {
        Self {
            rank: c.rank,
            centre: c.centre.xyz(),
            diameter_mm: c.diameter_mm,
            probability: c.probability,
            site: c.site.map(|s| s.name().to_string()),
            distance_to_vessel_mm: c.distance_to_vessel_mm,
            evidence: c.evidence.clone(),
        }
    }
}

impl From<&CandidateRow> for Candidate {
    fn from(row: &CandidateRow) -> Self {
        let [x, y, z] = row.centre;
        Self {
            rank: row.rank,
            centre: willis_core::Point::new(x, y, z),
            diameter_mm: row.diameter_mm,
            probability: row.probability,
            site: row.site.as_deref().and_then(willis_core::Site::from_name),
            distance_to_vessel_mm: row.distance_to_vessel_mm,
            evidence: row.evidence.clone(),
        }
    }
}

/// The file of these candidates.
pub(super) fn candidates_file(candidates: &[Candidate]) -> CandidatesFile {
    CandidatesFile {
        schema: 1,
        frame: "LPS".into(),
        unit: "mm".into(),
        notice: report::RESEARCH_ONLY.into(),
        candidates: candidates.iter().map(CandidateRow::from).collect(),
    }
}
