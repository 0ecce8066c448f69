//! Configuration: one TOML file with one table per stage. The defaults are the published
//! configuration, and a file holds only the values that differ.

use std::path::Path;

use serde::{Deserialize, Serialize};
use willis_core::InvalidValue;
use willis_core::files::hash::sha256_hex;
use willis_imaging::detect::blob::BlobConfig;
use willis_imaging::harmonise::HarmoniseConfig;
use willis_imaging::ingest::IngestConfig;
use willis_imaging::trace::TraceConfig;
use willis_nets::brain::BrainTraining;
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
    /// Patient axes, region of interest, working spacing and intensities.
    pub harmonise: HarmoniseConfig,
    /// Vessel map.
    pub segment: SegmentConfig,
    /// Vessel graph.
    pub trace: TraceConfig,
    /// Blob detector on the vessel map; its candidates are proposed beside those of the nets.
    pub blob: BlobConfig,
    /// Candidates.
    pub propose: ProposeConfig,
    /// Evidence.
    pub examine: ExamineConfig,
    /// Probabilities.
    pub stack: StackTable,
    /// Pre-training; no prediction depends on it.
    pub pretrain: PretrainConfig,
    /// Training of the learned stages; no prediction depends on it.
    pub train: TrainTables,
}

/// Population that the calibrated probabilities refer to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StackTable {
    /// Share of series with an aneurysm where the predictions are used, between 0 and 1, both
    /// excluded. The default is the challenge's.
    pub prevalence: f64,
}

impl StackTable {
    /// Checks every value.
    ///
    /// # Errors
    /// [`InvalidValue`] names the first value that breaks its rule.
    pub fn validate(&self) -> Result<(), InvalidValue> {
        let prevalence = self.prevalence;
        if prevalence > 0.0 && prevalence < 1.0 {
            return Ok(());
        }
        Err(InvalidValue::new("prevalence", prevalence, "must be greater than 0 and less than 1"))
    }
}

impl Default for StackTable {
    fn default() -> Self {
        Self { prevalence: 0.43 }
    }
}

/// Configuration of `willis train`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainTables {
    /// Number of series of the left-out fold that the nets are scored on after training.
    pub validation_cases: usize,
    /// Net that finds the brain.
    pub brain: BrainTraining,
    /// Segmentation net.
    pub segment: SegmentTraining,
    /// Graph net.
    pub propose: ProposeTraining,
    /// Classifier.
    pub examine: ExamineTraining,
    /// Stack.
    pub stack: StackTraining,
}

impl Default for TrainTables {
    fn default() -> Self {
        Self {
            validation_cases: 8,
            brain: BrainTraining::default(),
            segment: SegmentTraining::default(),
            propose: ProposeTraining::default(),
            examine: ExamineTraining::default(),
            stack: StackTraining::default(),
        }
    }
}

impl TrainTables {
    /// Checks every value.
    ///
    /// # Errors
    /// [`InvalidValue`] names the first value that breaks its rule.
    pub fn validate(&self) -> Result<(), InvalidValue> {
        self.brain.validate().map_err(|e| e.within("brain"))?;
        self.segment.validate().map_err(|e| e.within("segment"))?;
        self.propose.validate().map_err(|e| e.within("propose"))?;
        self.examine.validate().map_err(|e| e.within("examine"))?;
        self.stack.validate().map_err(|e| e.within("stack"))
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
    /// The file is not TOML, or has an unknown key or a value of another type.
    #[error("configuration {path}: {message}; `willis config --resolved` prints every key")]
    Parse {
        /// The file.
        path: String,
        /// Where and why.
        message: String,
    },
    /// A value breaks a rule.
    #[error("configuration {path}: {invalid}")]
    Invalid {
        /// The file.
        path: String,
        /// Field, value and rule.
        invalid: InvalidValue,
    },
}

impl Config {
    /// The defaults with the values of a TOML file laid over them, if one is given.
    ///
    /// # Errors
    /// when the file cannot be read, is not TOML, has an unknown key or a value that breaks a rule.
    pub fn load(path: Option<&Path>) -> Result<Self, ConfigError> {
        let Some(path) = path else { return Ok(Self::default()) };
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: name.clone(), source })?;
        let config: Self =
            toml::from_str(&text).map_err(|e| ConfigError::Parse { path: name.clone(), message: e.to_string() })?;
        config.validate().map_err(|invalid| ConfigError::Invalid { path: name, invalid })?;
        Ok(config)
    }

    /// Checks every value.
    ///
    /// # Errors
    /// [`InvalidValue`] names the first value that breaks its rule.
    pub fn validate(&self) -> Result<(), InvalidValue> {
        self.ingest.validate().map_err(|e| e.within("ingest"))?;
        self.harmonise.validate().map_err(|e| e.within("harmonise"))?;
        self.segment.validate().map_err(|e| e.within("segment"))?;
        self.trace.validate().map_err(|e| e.within("trace"))?;
        self.blob.validate().map_err(|e| e.within("blob"))?;
        self.propose.validate().map_err(|e| e.within("propose"))?;
        self.examine.validate().map_err(|e| e.within("examine"))?;
        self.stack.validate().map_err(|e| e.within("stack"))?;
        self.pretrain.validate().map_err(|e| e.within("pretrain"))?;
        self.train.validate().map_err(|e| e.within("train"))
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
        // The folders inside hold benchmarks and mixes of phantoms.
        let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let files: Vec<_> = entries.filter(|path| path.is_file()).collect();
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
    fn an_invalid_value_is_named_with_its_table_and_rule() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("odd.toml");
        for (table, assignment, invalid) in [
            ("stack", "prevalence = 1.0", "stack.prevalence = 1 must be greater than 0 and less than 1"),
            ("train.stack", "linear_share = 1.5", "train.stack.linear_share = 1.5 must lie between 0 and 1"),
            ("train.stack", "folds = 1", "train.stack.folds = 1 must be at least 2"),
            ("train.stack.boosting", "subsample = 0.0", "train.stack.boosting.subsample = 0 "),
            ("ingest", "age_years = 131", "ingest.age_years = 131 "),
            ("harmonise.spacing_mm", "z = 0\ny = 1\nx = 1", "harmonise.spacing_mm.z = 0 "),
            ("segment", "overlap = 1.0", "segment.overlap = 1 "),
            ("trace", "radius_window = 4", "trace.radius_window = 4 "),
            ("trace", "low_threshold = 0.9", "trace.low_threshold = 0.9 "),
            ("blob", "min_diameter_mm = 0.0", "blob.min_diameter_mm = 0 "),
            ("propose", "max_candidates = 8", "propose."),
            ("examine", "batch = 0", "examine.batch = 0 "),
            (
                "pretrain.backbone",
                "kind = \"waveformer\"\nsize = [32, 32, 32]",
                "pretrain.backbone.size = [32, 32, 32] must be [64, 64, 64], the sides of the patches",
            ),
            (
                "train.segment.net",
                "kind = \"branched\"\nbackbone.heads = [1, 2, 5, 5]",
                "train.segment.net.backbone.heads[2] = 5 does not divide embed_dims[2] = 96",
            ),
            ("pretrain.train", "accumulate = 0", "pretrain.train.accumulate = 0 "),
            ("train.segment.train", "accumulate = 0", "train.segment.train.accumulate = 0 "),
            ("train.segment.loss", "focal = -1.0", "train.segment.loss.focal = -1 "),
            ("train.segment.loss.tversky", "gamma = 0.0", "train.segment.loss.tversky.gamma = 0 "),
            ("train.examine", "batch = 0", "train.examine.batch = 0 "),
        ] {
            std::fs::write(&path, format!("[{table}]\n{assignment}\n")).unwrap();
            let message = Config::load(Some(&path)).unwrap_err().to_string();
            let expected = format!("configuration {}: {invalid}", path.display());
            assert!(message.starts_with(&expected), "{message}\nis not\n{expected}");
        }
    }
}
