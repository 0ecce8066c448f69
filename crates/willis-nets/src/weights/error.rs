//! Why weights cannot be used.

use std::path::{Path, PathBuf};

use willis_core::files::{FileError, Malformed};

use super::Mismatch;

/// Why weights cannot be read, written or loaded into a net.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WeightsError {
    /// The file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A weights file cannot be used.
    #[error("cannot use weights {}", path.display())]
    InFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with its content.
        source: Box<Self>,
    },
    /// The bytes are not a safetensors file.
    #[error("weights are not a valid safetensors file; download or train them again")]
    Format(#[from] Malformed),
    /// A tensor holds values of a type that is not read.
    #[error("tensor {name} has values of type {got}; save it as F32")]
    Type {
        /// Name of the tensor.
        name: String,
        /// Type of its values.
        got: String,
    },
    /// Names or shapes differ from those of the net.
    #[error("the weights do not fit the net; they belong to another net or configuration\n{mismatch}")]
    Mismatch {
        /// All differences.
        mismatch: Mismatch,
    },
    /// The code of the net has changed since the weights were trained, although their names and
    /// shapes still fit.
    #[error(
        "weights are of revision {} of their net, and this willis computes revision {expected}; train them again",
        got.as_deref().unwrap_or("(none)")
    )]
    Revision {
        /// Revision in the metadata; `None` if there is none.
        got: Option<String>,
        /// Revision of the code.
        expected: &'static str,
    },
    /// The metadata does not hold a configuration of this net.
    #[error("weights carry no valid configuration of this net; train them again with `willis train`")]
    Configuration {
        /// What is wrong with it; `None` if it is absent or its values are invalid.
        source: Option<serde_json::Error>,
    },
}

impl WeightsError {
    /// The same error with the name of the file; errors that name a file stay as they are.
    pub fn in_file(self, path: &Path) -> Self {
        match self {
            Self::File(_) | Self::InFile { .. } => self,
            other => Self::InFile { path: path.to_path_buf(), source: Box::new(other) },
        }
    }
}

impl From<Mismatch> for WeightsError {
    fn from(mismatch: Mismatch) -> Self {
        Self::Mismatch { mismatch }
    }
}
