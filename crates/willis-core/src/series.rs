//! What is known of a series, and what was odd about it.

use serde::{Deserialize, Serialize};

/// The four kinds of series of the challenge.
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

    /// Modality with a name as in `train.csv`; letter case and the blank do not matter (`t1post`,
    /// `MRI_T2`, `cta`).
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

/// What the header, the user, or a guess says of a series; missing is missing.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SeriesMeta {
    /// Series instance UID, or a name made of the file's content hash for formats without one.
    pub uid: String,
    /// Kind of series; guessed when the header does not say (then a finding says so).
    pub modality: Option<Modality>,
    /// Whether [`Self::modality`] is a guess from voxels alone, which the vessel net may correct.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub modality_from_voxels: bool,
    /// Age in years.
    pub age_years: Option<f32>,
    /// Sex.
    pub sex: Option<Sex>,
}

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// The result may suffer.
    Warning,
}

/// Something odd, repaired or guessed. Never names a patient.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Stable name of the kind of finding, in kebab case (`missing-slice`).
    pub code: String,
    /// How much it matters.
    pub severity: Severity,
    /// One sentence for a person.
    pub message: String,
}

impl Finding {
    /// A finding worth knowing.
    pub fn info(code: &str, message: impl Into<String>) -> Self {
        Self { code: code.into(), severity: Severity::Info, message: message.into() }
    }

    /// A finding from which the result may suffer.
    pub fn warning(code: &str, message: impl Into<String>) -> Self {
        Self { code: code.into(), severity: Severity::Warning, message: message.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modality_names_are_forgiving() {
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
