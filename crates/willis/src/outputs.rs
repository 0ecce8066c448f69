//! Files of one prediction. Each is written whole or not at all; `run.json` is written last and
//! marks the folder as complete.

use std::path::Path;

use serde::{Deserialize, Serialize};
use willis_core::files::{atomic::write_atomically, json, nifti};
use willis_core::{Candidate, Prediction};

use crate::line::SeriesResult;
use crate::report;
use crate::run::RunRecord;

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

/// Set of files to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// All files.
    Full,
    /// JSON tables and vessel map, for cohorts.
    Tables,
}

/// Writes the files of one prediction into `folder`; creates the folder if it is missing.
///
/// # Errors
/// when the folder or a file in it cannot be written; the message names it
pub fn write(folder: &Path, result: &SeriesResult, run: &RunRecord, detail: Detail) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder).map_err(|e| anyhow::anyhow!("cannot create {}: {e}", folder.display()))?;
    json::write(&folder.join("prediction.json"), &result.prediction)?;
    json::write(&folder.join("candidates.json"), &candidates_file(&result.candidates))?;
    nifti::write_labels(&folder.join("vessels.nii.gz"), &site_labels(result))?;
    if detail == Detail::Full {
        json::write(&folder.join("candidates.mrk.json"), &slicer_markups(result))?;
        json::write(&folder.join("graph.json"), &result.graph)?;
        let html = report::html(result, run);
        write_atomically(&folder.join("report.html"), |file| file.write_all(html.as_bytes()))?;
    }
    json::write(&folder.join("run.json"), run)?;
    Ok(())
}

/// Whether a folder holds a complete prediction made with this configuration and these weights.
pub fn is_complete(folder: &Path, config_sha256: &str, models: &[willis_core::ModelRef]) -> bool {
    let run: Result<RunRecord, _> = json::read(&folder.join("run.json"));
    let prediction: Result<Prediction, _> = json::read(&folder.join("prediction.json"));
    run.is_ok_and(|r| r.config_sha256 == config_sha256 && r.models == models) && prediction.is_ok()
}

fn candidates_file(candidates: &[Candidate]) -> CandidatesFile {
    CandidatesFile {
        schema: 1,
        frame: "LPS".into(),
        unit: "mm".into(),
        notice: report::RESEARCH_ONLY.into(),
        candidates: candidates.iter().map(CandidateRow::from).collect(),
    }
}

/// Site labels (mask values) where the vessel probability is at least one half.
fn site_labels(result: &SeriesResult) -> willis_core::Image<u8> {
    let site = &result.map.site;
    let label = |(&site, &p): (&u8, &f32)| if p >= 0.5 { site } else { 0 };
    willis_core::Image::new(site.grid, site.voxels.iter().zip(&result.map.vessel.voxels).map(label).collect())
}

/// Point list for 3D Slicer, markups schema 1.0.3, in LPS.
fn slicer_markups(result: &SeriesResult) -> serde_json::Value {
    let label = |c: &Candidate| match result.prediction.abstain {
        Some(_) => c.rank.to_string(),
        None => format!("{} ({:.0} %)", c.rank, 100.0 * c.probability),
    };
    let points: Vec<_> = result
        .candidates
        .iter()
        .map(|c| {
            serde_json::json!({
                "id": c.rank.to_string(),
                "label": label(c),
                "description": c.site.map_or("", |s| s.name()),
                "position": c.centre.xyz(),
                "positionStatus": "defined",
                "visibility": true,
                "selected": c.rank == 1,
                "locked": true,
            })
        })
        .collect();
    serde_json::json!({
        "@schema": "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/Resources/Schema/markups-schema-v1.0.3.json#",
        "markups": [{
            "type": "Fiducial",
            "coordinateSystem": "LPS",
            "coordinateUnits": "mm",
            "locked": true,
            "controlPoints": points,
        }]
    })
}
