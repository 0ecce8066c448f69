//! What the user overrides, and how much memory an input may ask for.

use serde::{Deserialize, Serialize};
use willis_core::{InvalidValue, Modality, Sex};

use super::error::IngestError;

/// Overrides of header values, and limits on untrusted input.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IngestConfig {
    /// Series to read when the input holds several.
    pub series_uid: Option<String>,
    /// Volume to read when a series holds several (echoes, time points, scouts): 1 is the largest.
    pub volume: Option<usize>,
    /// Minimum number of slices of a volume.
    pub min_slices: usize,
    /// Modality; overrides the header.
    pub modality: Option<Modality>,
    /// Age in years; overrides the header.
    pub age_years: Option<f32>,
    /// Sex; overrides the header.
    pub sex: Option<Sex>,
    /// Maximum number of files in a folder or archive.
    pub max_files: usize,
    /// Maximum size of a single file, bytes.
    pub max_file_bytes: u64,
    /// Maximum size of all files of an archive when unpacked, bytes.
    pub max_archive_bytes: u64,
    /// Maximum number of voxels of a volume; each takes four bytes of memory.
    pub max_voxels: u64,
}

impl Default for IngestConfig {
    fn default() -> Self {
        Self {
            series_uid: None,
            volume: None,
            min_slices: 2,
            modality: None,
            age_years: None,
            sex: None,
            max_files: 50_000,
            max_file_bytes: 2 << 30,
            max_archive_bytes: 3 << 30,
            max_voxels: 1 << 30,
        }
    }
}

impl IngestConfig {
    /// Checks every value once, when the configuration is loaded.
    ///
    /// # Errors
    /// [`InvalidValue`] for the first limit that is 0, or an age outside 0 to 130 years.
    pub fn validate(&self) -> Result<(), InvalidValue> {
        if let Some(age) = self.age_years.filter(|age| !(0.0..=130.0).contains(age)) {
            return Err(InvalidValue::new("age_years", age, "must lie between 0 and 130"));
        }
        if self.volume == Some(0) {
            return Err(InvalidValue::new("volume", 0, "must be at least 1"));
        }
        let limits = [
            ("min_slices", self.min_slices as u64),
            ("max_files", self.max_files as u64),
            ("max_file_bytes", self.max_file_bytes),
            ("max_archive_bytes", self.max_archive_bytes),
            ("max_voxels", self.max_voxels),
        ];
        match limits.into_iter().find(|(_, limit)| *limit == 0) {
            Some((field, limit)) => Err(InvalidValue::new(field, limit, "must be at least 1")),
            None => Ok(()),
        }
    }

    /// Checks that there are enough slices for a volume.
    ///
    /// # Errors
    /// `TooFewSlices` when there are not.
    pub(super) fn check_slices(&self, usable: usize) -> Result<(), IngestError> {
        if usable < self.min_slices.max(1) {
            return Err(IngestError::TooFewSlices { usable, needed: self.min_slices.max(1) });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_values_are_named() {
        let config = IngestConfig::default();
        assert_eq!(config.validate(), Ok(()));
        for (config, message) in [
            (IngestConfig { age_years: Some(-1.0), ..config.clone() }, "age_years = -1 must lie between 0 and 130"),
            (IngestConfig { volume: Some(0), ..config.clone() }, "volume = 0 must be at least 1"),
            (IngestConfig { max_voxels: 0, ..config }, "max_voxels = 0 must be at least 1"),
        ] {
            assert_eq!(config.validate().unwrap_err().to_string(), message);
        }
    }
}
