//! DICOM objects about a series: they belong to its study, refer to its instances and are in its
//! frame of reference.
//!
//! UIDs are derived from the content, and dates are those of the series, so equal input gives equal
//! bytes.

pub(super) mod codes;
mod glyphs;
mod key_images;
mod object;
mod presentation;
mod report;
mod segmentation;

use willis_imaging::ingest::SourceSeries;

use super::{OutputFile, OutputFormat};
use crate::line::SeriesResult;
use crate::run::RunRecord;
use object::Study;

/// Number of candidates with a key image and marks on the slices.
const SHOWN: usize = 6;

/// The files of a DICOM format.
///
/// # Errors
/// when an attribute of the source cannot be encoded
pub(super) fn files(
    result: &SeriesResult,
    run: &RunRecord,
    source: &SourceSeries,
    format: OutputFormat,
) -> anyhow::Result<Vec<OutputFile>> {
    let study = Study::new(result, run, source);
    let one = |object| Ok(vec![OutputFile::new(format.first_file(), object::encode(object)?)]);
    match format {
        OutputFormat::DicomSeg => one(segmentation::segmentation(&study)),
        OutputFormat::DicomSr => one(report::measurement_report(&study)),
        OutputFormat::DicomGsps => one(presentation::presentation_state(&study)),
        _ => key_images::key_images(&study)
            .into_iter()
            .enumerate()
            .map(|(i, image)| Ok(OutputFile::new(&format!("key-image-{}.sc.dcm", i + 1), object::encode(image)?)))
            .collect(),
    }
}
