//! Why a data set cannot be written.

use std::path::{Path, PathBuf};

use willis_core::InvalidValue;
use willis_core::files::FileError;

/// Why a data set cannot be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteCohortError {
    /// The mix of the data set is invalid.
    #[error(transparent)]
    InvalidMix(#[from] InvalidValue),
    /// A file or folder cannot be written.
    #[error("cannot write {path}: {source}; check its permissions and the free space")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Cause reported by the operating system.
        source: std::io::Error,
    },
    /// A DICOM instance cannot be written.
    #[error("cannot write the DICOM instance {path}: {reason}; check the free space")]
    Dicom {
        /// The instance.
        path: PathBuf,
        /// Cause reported by the encoder.
        reason: String,
    },
    /// A table, label map or JSON file cannot be written, or an earlier one cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The voxel axes do not fit a DICOM image plane.
    #[error("rows and columns of series {uid} are not at right angles, which DICOM cannot store; resample it first")]
    SkewedPlane {
        /// The series.
        uid: String,
    },
    /// A slice is empty or larger than DICOM allows.
    #[error("slices of {rows} x {columns} pixels do not fit DICOM (1 to 65535 each); choose another shape")]
    SliceSize {
        /// Number of rows.
        rows: usize,
        /// Number of columns.
        columns: usize,
    },
    /// A lesion is outside the volume.
    #[error("lesion {lesion} of series {uid} is outside the volume, so no slice shows it; enlarge the field of view")]
    LesionOutside {
        /// The series.
        uid: String,
        /// Position in the list of lesions, from 0.
        lesion: usize,
    },
    /// The folder holds another data set.
    #[error("{path} describes a data set of another seed or mix; choose an empty folder, or the same seed and mix")]
    OtherCohort {
        /// The file that describes the data set.
        path: PathBuf,
    },
}

/// Adds the path to an I/O error; for `map_err`.
pub(super) fn at(path: &Path) -> impl FnOnce(std::io::Error) -> WriteCohortError + '_ {
    move |source| WriteCohortError::Io { path: path.to_path_buf(), source }
}
