//! Where an artifact came from.

use serde::{Deserialize, Serialize};

use crate::series::Finding;

/// Weights by name and content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelRef {
    /// Name of the model.
    pub name: String,
    /// SHA-256 of the weights file, hexadecimal.
    pub sha256: String,
}

/// What an artifact was made from and by what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    /// Version of the artifact's layout.
    pub schema: u32,
    /// SHA-256 of the parent artifact, if it has one.
    pub parent_sha256: Option<String>,
    /// SHA-256 of the resolved configuration.
    pub config_sha256: String,
    /// Weights that took part.
    pub models: Vec<ModelRef>,
    /// Version of the program.
    pub code_version: String,
    /// Everything odd, repaired or guessed.
    pub findings: Vec<Finding>,
}
