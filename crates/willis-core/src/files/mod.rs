//! Files: one module per format.
//!
//! What holds for all of them: a file is written whole or not at all ([`atomic`]); sizes in a
//! header are never trusted; errors name the path and what to do; NIfTI's RAS and the program's LPS
//! meet in [`nifti`] and nowhere else.

use std::io;
use std::path::{Path, PathBuf};

pub mod atomic;
pub mod case;
mod elements;
pub mod hash;
pub mod json;
pub mod mha;
pub mod nifti;
pub mod npy;
pub mod tensors;

/// Most voxels (or numbers) that one array in a file may have: 2 GiB as `f32`.
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
        /// What the system said.
        source: io::Error,
    },
    /// The operating system refused to write, or the writer failed; nothing was left at `path`.
    #[error("cannot write {path}: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The content is not what it should be.
    #[error("{path}: {source}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Malformed,
    },
}

/// Content that is not what its format demands, or that willis does not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a readable {format} file: {reason}")]
pub struct Malformed {
    /// Name of the format.
    pub format: &'static str,
    /// What is wrong, and what to do about it.
    pub reason: String,
}

impl Malformed {
    /// A complaint about content.
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
