//! What is measured on the images of a series when it is predicted, for evaluations that no longer
//! have them.

use std::path::Path;

use serde::{Deserialize, Serialize};
use willis_core::files::{FileError, json};
use willis_core::{Candidate, Grid};
use willis_imaging::detect::blob::{self, BlobConfig};

use crate::line::SeriesResult;
use crate::outputs::CandidateRow;

/// Name of the file beside `prediction.json`.
const FILE_NAME: &str = "measured.json";

/// Content of `measured.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Version of this layout.
    pub schema: u32,
    /// The grid of the series as read. Without geometry in the header it is a guess.
    pub grid: Grid,
    /// Candidates of the blob detector on the harmonised intensities, best first.
    pub blobs: Vec<CandidateRow>,
}

impl Measured {
    /// Version of the layout that this code writes.
    const SCHEMA: u32 = 1;

    /// Measures what evaluations need.
    pub fn of(result: &SeriesResult) -> Self {
        let blobs = blob::candidates(&result.harmonised().image, None, &BlobConfig::default());
        Self {
            schema: Self::SCHEMA,
            grid: result.volume().image.grid,
            blobs: blobs.iter().map(CandidateRow::from).collect(),
        }
    }

    /// Reads the file of a prediction; `None` if it has none.
    pub fn read(folder: &Path) -> Option<Self> {
        json::read(&folder.join(FILE_NAME)).ok()
    }

    /// Writes the file into the folder of a prediction, which must exist.
    ///
    /// # Errors
    /// when the file cannot be written
    pub fn write(&self, folder: &Path) -> Result<(), FileError> {
        json::write(&folder.join(FILE_NAME), self)
    }

    /// The candidates of the blob detector.
    pub fn blob_candidates(&self) -> Vec<Candidate> {
        self.blobs.iter().map(Candidate::from).collect()
    }
}
