//! One TOML file, one table per stage; the defaults are the published recipe and a file holds only
//! what differs.

use std::path::Path;

use serde::{Deserialize, Serialize};
use willis_core::files::hash::sha256_hex;
use willis_imaging::detect::blob::BlobConfig;
use willis_imaging::harmonise::HarmoniseConfig;
use willis_imaging::ingest::IngestConfig;
use willis_imaging::trace::TraceConfig;
use willis_nets::examine::{ExamineConfig, ExamineTraining};
use willis_nets::pretrain::PretrainConfig;
use willis_nets::propose::{ProposeConfig, ProposeTraining};
use willis_nets::segment::{SegmentConfig, SegmentTraining};
use willis_stats::stack::StackTraining;

/// Configuration of the whole line.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Reading a series.
    pub ingest: IngestConfig,
    /// Canonical axes, region of interest, working spacing, intensities.
    pub harmonise: HarmoniseConfig,
    /// Vessel map.
    pub segment: SegmentConfig,
    /// Vessel graph.
    pub trace: TraceConfig,
    /// Blob detector on the vessel map, whose finds are proposed beside those of the nets.
    pub blob: BlobConfig,
    /// Candidates.
    pub propose: ProposeConfig,
    /// Expert classifier.
    pub examine: ExamineConfig,
    /// Stacking.
    pub stack: StackTable,
    /// Pre-training; no prediction depends on it.
    pub pretrain: PretrainConfig,
    /// Training of the learned stages; no prediction depends on it.
    pub train: TrainTables,
}

/// What the calibrated probabilities refer to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StackTable {
    /// Share of series with an aneurysm where the predictions are used, between 0 and 1; the
    /// default is the challenge's.
    pub prevalence: f64,
}

impl Default for StackTable {
    fn default() -> Self {
        Self { prevalence: 0.43 }
    }
}

/// The recipes of `willis train`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainTables {
    /// Cases of the left-out fold that the vessel net is scored on at the end.
    pub validation_cases: usize,
    /// Vessel net.
    pub segment: SegmentTraining,
    /// Graph node scorer.
    pub propose: ProposeTraining,
    /// Expert classifier.
    pub examine: ExamineTraining,
    /// Stack.
    pub stack: StackTraining,
}

impl Default for TrainTables {
    fn default() -> Self {
        Self {
            validation_cases: 8,
            segment: SegmentTraining::default(),
            propose: ProposeTraining::default(),
            examine: ExamineTraining::default(),
            stack: StackTraining::default(),
        }
    }
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read configuration {path}: {source}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not TOML, or names something that does not exist.
    #[error("configuration {path}: {message}; `willis config --resolved` prints every key there is")]
    Parse {
        /// The file.
        path: String,
        /// Where and why.
        message: String,
    },
    /// A value that cannot work.
    #[error("configuration {path}: {message}")]
    Value {
        /// The file.
        path: String,
        /// Key, value and what is allowed.
        message: String,
    },
}

impl Config {
    /// Defaults, overlaid with a TOML file if one is given.
    ///
    /// # Errors
    /// when the file cannot be read, is no TOML, has an unknown key or a value that cannot work.
    pub fn load(path: Option<&Path>) -> Result<Self, ConfigError> {
        let Some(path) = path else { return Ok(Self::default()) };
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: name.clone(), source })?;
        let config: Self =
            toml::from_str(&text).map_err(|e| ConfigError::Parse { path: name.clone(), message: e.to_string() })?;
        config.check().map_err(|message| ConfigError::Value { path: name, message })?;
        Ok(config)
    }

    /// What is wrong with the first value that cannot work.
    fn check(&self) -> Result<(), String> {
        self.ingest.validate().map_err(|e| e.within("ingest").to_string())?;
        self.harmonise.validate().map_err(|e| e.within("harmonise").to_string())?;
        self.trace.validate().map_err(|e| e.within("trace").to_string())?;
        self.blob.validate().map_err(|e| e.within("blob").to_string())?;
        self.segment.validate().map_err(|e| e.within("segment").to_string())?;
        self.train.segment.validate().map_err(|e| e.within("train.segment").to_string())?;
        self.propose.validate().map_err(|e| e.within("propose").to_string())?;
        self.train.propose.validate().map_err(|e| e.within("train.propose").to_string())?;
        self.examine.validate().map_err(|e| e.within("examine").to_string())?;
        self.train.examine.validate().map_err(|e| e.within("train.examine").to_string())?;
        self.pretrain.train.validate().map_err(|e| e.within("pretrain.train").to_string())?;
        let linear_share = self.train.stack.linear_share;
        if !(0.0..=1.0).contains(&linear_share) {
            return Err(format!("train.stack.linear_share is {linear_share}; it must lie between 0 and 1"));
        }
        let prevalence = self.stack.prevalence;
        if prevalence > 0.0 && prevalence < 1.0 {
            return Ok(());
        }
        Err(format!("stack.prevalence is {prevalence}; it must lie between 0 and 1, both excluded"))
    }

    /// Every key with its value, as TOML.
    pub fn resolved(&self) -> String {
        toml::to_string_pretty(self).expect("plain structs of numbers and names always serialise")
    }

    /// SHA-256 of the resolved configuration.
    pub fn sha256(&self) -> String {
        sha256_hex(self.resolved().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_configuration_of_the_repository_loads() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../configs");
        let files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(!files.is_empty());
        for file in files {
            Config::load(Some(&file)).unwrap();
        }
    }

    #[test]
    fn resolved_configuration_reads_back() {
        let config = Config::default();
        assert_eq!(toml::from_str::<Config>(&config.resolved()).unwrap(), config);
    }

    #[test]
    fn unknown_keys_are_errors() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("typo.toml");
        std::fs::write(&path, "[harmonise]\nspacing_cm = 1\n").unwrap();
        let message = Config::load(Some(&path)).unwrap_err().to_string();
        assert!(message.contains("spacing_cm") && message.contains("typo.toml"), "{message}");
    }

    #[test]
    fn values_that_cannot_work_are_errors_before_any_work() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("odd.toml");
        for (table, key, value) in [
            ("stack", "prevalence", "1.0"),
            ("trace", "radius_window", "4"),
            ("trace", "low_threshold", "0.9"),
            ("train.segment.loss", "focal", "-1.0"),
            ("train.segment.loss.tversky", "gamma", "0.0"),
        ] {
            std::fs::write(&path, format!("[{table}]\n{key} = {value}\n")).unwrap();
            let message = Config::load(Some(&path)).unwrap_err().to_string();
            assert!(message.contains(key) && message.contains("odd.toml"), "{message}");
        }
    }
}
