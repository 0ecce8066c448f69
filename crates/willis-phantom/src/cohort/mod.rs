//! Data sets in the layout of the RSNA 2025 challenge: written from phantoms, read for training and
//! evaluation.
//!
//! ```text
//! train.csv                                one row per series: age, sex, modality, fourteen labels
//! train_localizers.csv                     one row per lesion: slice, pixel, site
//! series/<series uid>/<instance uid>.dcm   one slice per file
//! segmentations/<series uid>_cowseg.nii.gz      site of each arterial voxel, as mask value
//! segmentations/<series uid>_aneurysm.nii.gz    1 inside an aneurysm sac
//! truth/<series uid>.json  lesions in patient millimetres (not part of the challenge's layout)
//! cohort.json                              seed and mix (neither)
//! ```
//!
//! The heads themselves are made elsewhere in this crate; nothing here draws a random number except
//! identifiers.

pub mod dicom;
pub mod read;
pub mod series;
mod synthesise;
pub mod tables;
pub mod uid;

use std::path::{Path, PathBuf};

use willis_core::files::FileError;

pub use read::{Cohort, CohortSeries, read};
pub use series::{Localizer, SeriesToWrite, SeriesTruth, write_instances, write_series};
pub use synthesise::synthesise_cohort;
pub use uid::SeriesUids;

/// Why a cohort cannot be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CohortError {
    /// A file or folder cannot be read or written.
    #[error("cannot read or write {path}: {source}; check that it exists, its permissions and the free space")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A table is not a CSV file.
    #[error("{path} is not a readable CSV table: {source}; export it again as UTF-8 with a header row")]
    Csv {
        /// The table.
        path: PathBuf,
        /// What the parser said.
        source: csv::Error,
    },
    /// A DICOM instance cannot be written.
    #[error("cannot write the DICOM instance {path}: {reason}; check the free space")]
    Dicom {
        /// The instance.
        path: PathBuf,
        /// What the encoder said.
        reason: String,
    },
    /// A label map or JSON file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The voxel axes do not fit DICOM's image plane.
    #[error("series {uid} has rows and columns that are not at right angles; DICOM cannot hold it, resample it first")]
    SkewedPlane {
        /// The series.
        uid: String,
    },
    /// A slice is larger than DICOM allows, or empty.
    #[error("slices of {rows} x {columns} pixels do not fit DICOM (1 to 65535 each); choose another shape")]
    SliceSize {
        /// Pixels from top to bottom.
        rows: usize,
        /// Pixels from left to right.
        columns: usize,
    },
    /// A lesion lies outside the volume.
    #[error(
        "lesion {lesion} of series {uid} lies outside its volume, so no slice can show it; enlarge the field of view"
    )]
    LesionOutside {
        /// The series.
        uid: String,
        /// Position in the list of lesions, from 0.
        lesion: usize,
    },
    /// The folder holds another data set.
    #[error("{path} describes a data set of another seed or mix; choose an empty folder, or the same seed and mix")]
    OtherCohort {
        /// The file that says so.
        path: PathBuf,
    },
    /// A table lacks a column.
    #[error("{path} has no column `{column}`; it must have the columns of the challenge's table")]
    MissingColumn {
        /// The table.
        path: PathBuf,
        /// The column.
        column: String,
    },
    /// A table holds a value that makes no sense.
    #[error("{path}, row {row}: `{value}` is no valid {column}; correct the row or remove it")]
    BadValue {
        /// The table.
        path: PathBuf,
        /// Row after the header, from 1.
        row: usize,
        /// The column.
        column: String,
        /// What was found.
        value: String,
    },
}

/// `map_err` for file errors: keeps the path.
pub(crate) fn at(path: &Path) -> impl FnOnce(std::io::Error) -> CohortError + '_ {
    move |source| CohortError::Io { path: path.to_path_buf(), source }
}
