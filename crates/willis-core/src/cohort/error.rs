//! Why a data set cannot be read.

use std::path::PathBuf;

use crate::files::FileError;

/// Why a data set cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CohortError {
    /// A table is not a CSV file.
    #[error("{path} is not a readable CSV table: {source}; export it again as UTF-8 with a header row")]
    Csv {
        /// The table.
        path: PathBuf,
        /// Cause reported by the parser.
        source: csv::Error,
    },
    /// A truth file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// A table lacks a column.
    #[error("{path} has no column `{column}`; it must have the columns of the challenge's table")]
    MissingColumn {
        /// The table.
        path: PathBuf,
        /// The column.
        column: String,
    },
    /// A cell of a table holds an invalid value.
    #[error("{path}, row {row}: `{value}` is not a valid {expected}; correct the row or remove it")]
    BadValue {
        /// The table.
        path: PathBuf,
        /// Row after the header, from 1.
        row: usize,
        /// Name of the value that belongs there.
        expected: &'static str,
        /// Content of the cell.
        value: String,
    },
}
