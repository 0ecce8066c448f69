//! Metadata of a series, and findings about it.

use serde::{Deserialize, Serialize};

/// The four modalities of the challenge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Modality {
    /// CT angiography.
    #[serde(rename = "CTA")]
    Cta,
    /// Time-of-flight MR angiography.
    #[serde(rename = "MRA")]
    Mra,
    /// T1-weighted MR after contrast agent.
    #[serde(rename = "MRI T1post")]
    T1Post,
    /// T2-weighted MR, where flowing blood is dark.
    #[serde(rename = "MRI T2")]
    T2,
}

impl Modality {
    /// Every modality.
    pub const ALL: [Modality; 4] = [Modality::Cta, Modality::Mra, Modality::T1Post, Modality::T2];

    /// Name as in the challenge's `train.csv`.
    pub const fn name(self) -> &'static str {
        match self {
            Modality::Cta => "CTA",
            Modality::Mra => "MRA",
            Modality::T1Post => "MRI T1post",
            Modality::T2 => "MRI T2",
        }
    }

    /// Modality with a name as in `train.csv`. Letter case, separators and the prefix `MRI` are
    /// ignored: `t1post`, `MRI_T2`, `cta`.
    pub fn from_name(name: &str) -> Option<Modality> {
        let key = |s: &str| s.to_ascii_lowercase().replace("mri", "").replace([' ', '_', '-'], "");
        Self::ALL.into_iter().find(|m| key(m.name()) == key(name))
    }
}

/// Sex as recorded in the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Sex {
    /// Female.
    #[serde(rename = "Female")]
    Female,
    /// Male.
    #[serde(rename = "Male")]
    Male,
}

/// Metadata of a series from its header, the user, or a guess; `None` where unknown.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SeriesMeta {
    /// Series instance UID, or a name derived from the file's content hash for formats without
    /// UIDs.
    pub uid: String,
    /// Modality; guessed, with a finding, when the header does not say.
    pub modality: Option<Modality>,
    /// Whether [`Self::modality`] was guessed from voxels alone; the vessel net may correct it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub modality_from_voxels: bool,
    /// Age in years.
    pub age_years: Option<f32>,
    /// Sex.
    pub sex: Option<Sex>,
}

/// Severity of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// For information.
    Info,
    /// The result may be affected.
    Warning,
}

/// Something unusual, repaired or guessed. Never names a patient.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Stable identifier in kebab case (`missing-slice`).
    pub code: String,
    /// Severity.
    pub severity: Severity,
    /// One sentence for the user.
    pub message: String,
}

impl Finding {
    /// A finding for information.
    pub fn info(code: &str, message: impl Into<String>) -> Self {
        Self { code: code.into(), severity: Severity::Info, message: message.into() }
    }

    /// A finding that may affect the result.
    pub fn warning(code: &str, message: impl Into<String>) -> Self {
        Self { code: code.into(), severity: Severity::Warning, message: message.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modality_names_ignore_case_and_separators() {
        for (name, expected) in [
            ("CTA", Some(Modality::Cta)),
            ("mra", Some(Modality::Mra)),
            ("MRI T1post", Some(Modality::T1Post)),
            ("mri_t2", Some(Modality::T2)),
            ("PET", None),
        ] {
            assert_eq!(Modality::from_name(name), expected, "{name}");
        }
    }
}
