//! File formats, one module each.
//!
//! In all of them, files are written atomically ([`atomic`]), sizes in a header are never trusted,
//! and errors name the path and the cure. NIfTI's RAS coordinates are converted to LPS in [`nifti`]
//! and nowhere else.

use std::io;
use std::path::{Path, PathBuf};

pub mod atomic;
pub mod case;
mod data_type;
mod gzip;
pub mod hash;
pub mod json;
pub mod mha;
pub mod nifti;
pub mod npy;
pub mod tensors;

/// Maximum number of voxels (or numbers) of an array in a file: 2 GiB as `f32`.
pub const MAX_ELEMENTS: usize = 1 << 29;

/// Why a file could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// The operating system refused to read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The operating system refused to write, or the writer failed. An old file at `path` is
    /// unchanged.
    #[error("cannot write {path}: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The content is damaged or not supported.
    #[error("{path}: {source}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with the content.
        source: Malformed,
    },
}

/// Content that violates its format, or that willis does not support.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a readable {format} file: {reason}")]
pub struct Malformed {
    /// Name of the format.
    pub format: &'static str,
    /// What is wrong and how to fix it.
    pub reason: String,
}

impl Malformed {
    /// An error about content in a format.
    pub fn new(format: &'static str, reason: impl Into<String>) -> Self {
        Self { format, reason: reason.into() }
    }

    fn from_io(format: &'static str, error: &io::Error) -> Self {
        let reason = match error.kind() {
            io::ErrorKind::UnexpectedEof => "it ends early; copy or download it again".to_string(),
            _ => error.to_string(),
        };
        Self { format, reason }
    }

    fn at(self, path: &Path) -> FileError {
        FileError::Malformed { path: path.to_path_buf(), source: self }
    }
}

fn open(path: &Path) -> Result<std::fs::File, FileError> {
    std::fs::File::open(path).map_err(|source| FileError::Read { path: path.to_path_buf(), source })
}

fn read_bytes(path: &Path) -> Result<Vec<u8>, FileError> {
    std::fs::read(path).map_err(|source| FileError::Read { path: path.to_path_buf(), source })
}
