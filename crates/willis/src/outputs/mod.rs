//! Files of one prediction, one format per module. Each format is a function from the result to the
//! content of its files; only this module writes. Every file is written whole or not at all, and
//! `run.json`, written last, marks the folder as complete.

mod csv;
mod dicom;
mod fhir;
mod graphml;
mod json;
mod pdf;
mod slicer;
mod swc;
mod vtk;

use std::path::Path;

use clap::ValueEnum;
use willis_core::Prediction;
use willis_core::files::{atomic::write_atomically, json as json_files, nifti};
use willis_imaging::ingest::{IngestConfig, OriginError, SourceSeries, source_series};

use crate::line::SeriesResult;
use crate::report;
use crate::run::RunRecord;

pub use json::{CandidateRow, CandidatesFile};

/// A format that `--write` names. The JSON tables are written in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum OutputFormat {
    /// vessels.nii.gz: arteries by site, values of the challenge's masks.
    Nifti,
    /// candidates.mrk.json: points for 3D Slicer.
    Slicer,
    /// graph.json: the vessel graph.
    Graph,
    /// report.html: the report, readable offline.
    Html,
    /// report.pdf: the report for printing and mailing.
    Pdf,
    /// candidates.csv: one row per candidate.
    Csv,
    /// graph.graphml: the vessel graph for graph libraries.
    Graphml,
    /// graph.vtp: centrelines as VTK PolyData.
    Vtk,
    /// graph.swc: centrelines as trees.
    Swc,
    /// fhir.json: FHIR R4 DiagnosticReport with Observations.
    Fhir,
    /// vessels.seg.dcm: DICOM Segmentation of sites and candidates.
    DicomSeg,
    /// report.sr.dcm: DICOM Measurement Report (TID 1500).
    DicomSr,
    /// key-image-N.sc.dcm: Secondary Capture images of the first candidates.
    DicomSc,
    /// candidates.gsps.dcm: Presentation State with marks on the source slices.
    DicomGsps,
}

impl OutputFormat {
    /// The formats of a single series when none are named.
    pub const DEFAULT: [OutputFormat; 4] = [Self::Nifti, Self::Slicer, Self::Graph, Self::Html];
    /// The formats of cohorts when none are named.
    pub const TABLES: [OutputFormat; 1] = [Self::Nifti];

    /// Name of the only file, or of the first one.
    const fn first_file(self) -> &'static str {
        match self {
            Self::Nifti => "vessels.nii.gz",
            Self::Slicer => "candidates.mrk.json",
            Self::Graph => "graph.json",
            Self::Html => "report.html",
            Self::Pdf => "report.pdf",
            Self::Csv => "candidates.csv",
            Self::Graphml => "graph.graphml",
            Self::Vtk => "graph.vtp",
            Self::Swc => "graph.swc",
            Self::Fhir => "fhir.json",
            Self::DicomSeg => "vessels.seg.dcm",
            Self::DicomSr => "report.sr.dcm",
            Self::DicomSc => "key-image-1.sc.dcm",
            Self::DicomGsps => "candidates.gsps.dcm",
        }
    }

    /// Whether the format is written about a DICOM study and cannot be without one.
    const fn needs_source(self) -> bool {
        matches!(self, Self::DicomSeg | Self::DicomSr | Self::DicomSc | Self::DicomGsps)
    }
}

/// What the formats are made from.
pub struct OutputContent<'a> {
    /// The artifacts of the line.
    pub result: &'a SeriesResult,
    /// The record of the run.
    pub run: &'a RunRecord,
    /// The DICOM study of the series; `None` unless a format uses it.
    pub source: Option<&'a SourceSeries>,
}

/// One file.
struct OutputFile {
    name: String,
    content: Vec<u8>,
}

impl OutputFile {
    fn new(name: &str, content: impl Into<Vec<u8>>) -> Self {
        Self { name: name.into(), content: content.into() }
    }
}

/// The DICOM study that the formats refer to, read before a run starts. FHIR names the study if
/// there is one; DICOM objects need one.
///
/// # Errors
/// when a DICOM format is named and the input is not DICOM or lacks what objects must refer to
pub fn source_of(
    input: &Path,
    formats: &[OutputFormat],
    config: &IngestConfig,
) -> Result<Option<SourceSeries>, OriginError> {
    let is_needed = formats.iter().any(|format| format.needs_source());
    match source_series(input, config) {
        _ if !is_needed && !formats.contains(&OutputFormat::Fhir) => Ok(None),
        Ok(source) => Ok(Some(source)),
        Err(error) if is_needed => Err(error),
        Err(_) => Ok(None),
    }
}

/// Writes the JSON tables and the files of the named formats into `folder`; creates the folder if
/// it is missing.
///
/// # Errors
/// when the folder or a file in it cannot be written; the message names it
pub fn write(folder: &Path, content: &OutputContent, formats: &[OutputFormat]) -> anyhow::Result<()> {
    let OutputContent { result, run, .. } = content;
    std::fs::create_dir_all(folder).map_err(|e| anyhow::anyhow!("cannot create {}: {e}", folder.display()))?;
    json_files::write(&folder.join("prediction.json"), &result.prediction)?;
    json_files::write(&folder.join("candidates.json"), &json::candidates_file(&result.candidates))?;
    for &format in formats {
        let path = folder.join(format.first_file());
        match format {
            OutputFormat::Nifti => nifti::write_labels(&path, &site_labels(result))?,
            OutputFormat::Slicer => json_files::write(&path, &slicer::markups(result))?,
            OutputFormat::Graph => json_files::write(&path, &result.graph)?,
            _ => {
                for file in files(content, format)? {
                    write_atomically(&folder.join(&file.name), |to| to.write_all(&file.content))?;
                }
            }
        }
    }
    json_files::write(&folder.join("run.json"), run)?;
    Ok(())
}

/// The files of a format that is made in memory.
fn files(content: &OutputContent, format: OutputFormat) -> anyhow::Result<Vec<OutputFile>> {
    let OutputContent { result, run, source } = content;
    let graph = &result.graph;
    let one = |bytes: Vec<u8>| Ok(vec![OutputFile::new(format.first_file(), bytes)]);
    match format {
        OutputFormat::Html => one(report::html(result, run).into_bytes()),
        OutputFormat::Pdf => one(pdf::report(result, run)),
        OutputFormat::Csv => one(csv::table(result)),
        OutputFormat::Graphml => one(graphml::graphml(graph).into_bytes()),
        OutputFormat::Vtk => one(vtk::poly_data(graph).into_bytes()),
        OutputFormat::Swc => one(swc::swc(graph).into_bytes()),
        OutputFormat::Fhir => one(serde_json::to_vec_pretty(&fhir::bundle(content))?),
        _ => {
            let source = source.ok_or(OriginError::NotDicom)?;
            dicom::files(result, run, source, format)
        }
    }
}

/// Whether a folder holds a complete prediction made with this configuration and these weights, and
/// has the files of the formats.
pub fn is_complete(
    folder: &Path,
    config_sha256: &str,
    models: &[willis_core::ModelRef],
    formats: &[OutputFormat],
) -> bool {
    let run: Result<RunRecord, _> = json_files::read(&folder.join("run.json"));
    let prediction: Result<Prediction, _> = json_files::read(&folder.join("prediction.json"));
    run.is_ok_and(|r| r.config_sha256 == config_sha256 && r.models == models)
        && prediction.is_ok()
        && formats.iter().all(|format| folder.join(format.first_file()).exists())
}

/// Site labels (mask values) where the vessel probability is at least one half.
fn site_labels(result: &SeriesResult) -> willis_core::Image<u8> {
    let site = &result.map.site;
    let label = |(&site, &p): (&u8, &f32)| if p >= 0.5 { site } else { 0 };
    willis_core::Image::new(site.grid, site.voxels.iter().zip(&result.map.vessel.voxels).map(label).collect())
}

#[cfg(test)]
mod tests;
