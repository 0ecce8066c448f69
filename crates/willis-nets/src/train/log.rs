//! The log of a run: a CSV file with one row per optimiser step.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use super::TrainError;

/// Name of the log in a run's folder.
pub const LOG: &str = "log.csv";

/// Writes rows `step,loss,term...`.
pub(super) struct TrainLog {
    path: PathBuf,
    file: fs::File,
    has_header: bool,
}

impl TrainLog {
    /// Opens the log of a run that resumes after `step` steps; rows after that step are dropped.
    pub fn open(path: &Path, step: usize) -> Result<Self, TrainError> {
        let fail = |source| TrainError::Io { path: path.to_path_buf(), source };
        let old = if step > 0 { fs::read_to_string(path).unwrap_or_default() } else { String::new() };
        let rows: Vec<&str> = old.lines().take(step + 1).collect();
        let mut file = fs::File::create(path).map_err(fail)?;
        rows.iter().try_for_each(|row| writeln!(file, "{row}")).map_err(fail)?;
        Ok(Self { path: path.to_path_buf(), file, has_header: !rows.is_empty() })
    }

    /// Adds the row of a step, after the header if it is the first row.
    pub fn write(&mut self, step: usize, loss: f64, terms: &[(&'static str, f64)]) -> Result<(), TrainError> {
        let row = |first: String, rest: Vec<String>| [vec![first], rest].concat().join(",");
        let header = row("step,loss".into(), terms.iter().map(|(name, _)| name.to_string()).collect());
        let values = row(format!("{step},{loss}"), terms.iter().map(|(_, value)| value.to_string()).collect());
        let header = (!std::mem::replace(&mut self.has_header, true)).then_some(header);
        let mut lines = header.into_iter().chain([values]);
        lines
            .try_for_each(|line| writeln!(self.file, "{line}"))
            .map_err(|source| TrainError::Io { path: self.path.clone(), source })
    }
}
