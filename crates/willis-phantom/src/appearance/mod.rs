//! Models that give a head its appearance. Nets that train on several cannot learn one by heart.
//!
//! [`AppearanceModel::Plain`] is [`crate::scanner`], as of the first data sets, byte for byte. The
//! others share [`Scan`]: a brightness for every tissue, blood whose brightness depends on its flow,
//! and an [`acquisition`](acquire) of the whole volume. They differ in where the numbers come from.

mod acquire;
mod blood;
mod contrast;
mod metal;
mod random;
mod sacs;
mod scan;
mod textured;

use rand::Rng;
use serde::{Deserialize, Serialize};
use willis_core::{InvalidValue, Modality, Shape};

pub(crate) use self::blood::THROMBUS;
pub(crate) use self::sacs::dress;
pub(crate) use self::scan::{Scan, ScanInput};
use crate::random::Draw;
use crate::spec::PhantomSpec;

/// Model that gives a phantom its appearance.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum AppearanceModel {
    /// One scanner per modality. Sacs are darker the larger they are, whatever the modality.
    #[default]
    Plain,
    /// The acquisitions of a clinic, with their artefacts and with flow as each shows it.
    Scanner(ScannerConfig),
    /// Random intensities, blur, noise and resolution, as in SynthSeg.
    Random(RandomConfig),
    /// Intensities, texture and noise as measured in real heads.
    Textured(TexturedConfig),
}

/// Configuration of [`AppearanceModel::Scanner`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ScannerConfig {
    /// Probability of each artefact.
    pub artefacts: f64,
    /// Probability that an aneurysm is partly thrombosed or lobed, and that the head holds metal.
    pub pathology: f64,
}

/// Configuration of [`AppearanceModel::Random`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RandomConfig {
    /// Smallest difference between arteries and brain, relative to the range of brightness.
    pub least_contrast: f64,
    /// Largest blur, mm.
    pub blur_mm: f64,
    /// Probability that slices are thicker than drawn.
    pub thick: f64,
}

/// Configuration of [`AppearanceModel::Textured`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TexturedConfig {
    /// Factor on the measured amplitude of the texture.
    pub strength: f64,
}

impl Default for ScannerConfig {
    fn default() -> Self {
        Self { artefacts: 0.35, pathology: 0.15 }
    }
}

impl Default for RandomConfig {
    fn default() -> Self {
        Self { least_contrast: 0.12, blur_mm: 0.8, thick: 0.4 }
    }
}

impl Default for TexturedConfig {
    fn default() -> Self {
        Self { strength: 1.0 }
    }
}

impl AppearanceModel {
    /// Checks every value.
    ///
    /// # Errors
    /// The first field that breaks a rule.
    pub fn validate(&self) -> Result<(), InvalidValue> {
        let within = |field: &str, value: f64, high: f64| {
            let valid = (0.0..=high).contains(&value);
            valid.then_some(()).ok_or_else(|| InvalidValue::new(field, value, format!("must be between 0 and {high}")))
        };
        match self {
            Self::Plain => Ok(()),
            Self::Scanner(config) => {
                within("artefacts", config.artefacts, 1.0)?;
                within("pathology", config.pathology, 1.0)
            }
            Self::Random(config) => {
                within("least_contrast", config.least_contrast, 0.5)?;
                within("blur_mm", config.blur_mm, 5.0)?;
                within("thick", config.thick, 1.0)
            }
            Self::Textured(config) => within("strength", config.strength, 5.0),
        }
    }

    /// Probability that an aneurysm is thrombosed or lobed and that a head holds metal.
    pub(crate) fn pathology(&self) -> f64 {
        match self {
            Self::Plain => 0.0,
            Self::Scanner(config) => config.pathology,
            Self::Random(_) | Self::Textured(_) => ScannerConfig::default().pathology,
        }
    }

    /// Changes the slices of a drawn specification to those of the acquisitions that this model
    /// knows: two-dimensional T1 and T2 of 2.5 to 5 mm.
    pub(crate) fn choose_slices(&self, spec: &mut PhantomSpec, rng: &mut (impl Rng + ?Sized)) {
        let thick = match (self, spec.modality) {
            (Self::Plain, _) => return,
            (Self::Random(config), _) => rng.chance(config.thick).then(|| rng.uniform(0.8, 4.0)),
            (_, Modality::T2) => rng.chance(0.6).then(|| rng.uniform(2.5, 5.0)),
            (_, Modality::T1Post) => rng.chance(0.4).then(|| rng.uniform(3.0, 5.0)),
            (_, Modality::Cta) => rng.chance(0.1).then(|| rng.uniform(1.0, 2.5)),
            (_, Modality::Mra) => None,
        };
        let Some(mm) = thick.filter(|mm| *mm > spec.spacing.z) else { return };
        let along = spec.shape.z as f64 * spec.spacing.z;
        spec.shape = Shape::new(((along / mm) as usize).max(16), spec.shape.y, spec.shape.x);
        spec.spacing.z = mm;
    }
}

/// A model and its share of the series of a data set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelShare {
    /// Weight among the models of the data set.
    pub share: f64,
    /// The model.
    pub model: AppearanceModel,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::stream;

    #[test]
    fn invalid_models_are_refused_with_their_field() {
        AppearanceModel::Scanner(ScannerConfig::default()).validate().expect("the default is valid");
        let model = AppearanceModel::Scanner(ScannerConfig { artefacts: 1.5, ..ScannerConfig::default() });
        let message = model.validate().expect_err("it is too large").to_string();
        assert_eq!(message, "artefacts = 1.5 must be between 0 and 1");
        let model = AppearanceModel::Random(RandomConfig { blur_mm: f64::NAN, ..RandomConfig::default() });
        assert!(model.validate().is_err());
    }

    #[test]
    fn thick_slices_keep_the_extent_and_plain_slices_stay() {
        let mut rng = stream(1, "slices");
        let usual = PhantomSpec::low_resolution(Modality::T2);
        let model = AppearanceModel::Scanner(ScannerConfig::default());
        let mut thick = 0;
        for _ in 0..100 {
            let mut spec = usual.clone();
            model.choose_slices(&mut spec, &mut rng);
            let along = |spec: &PhantomSpec| spec.shape.z as f64 * spec.spacing.z;
            assert!((along(&spec) - along(&usual)).abs() <= spec.spacing.z);
            thick += usize::from(spec.spacing.z >= 2.5);
            let mut plain = usual.clone();
            AppearanceModel::Plain.choose_slices(&mut plain, &mut rng);
            assert_eq!(plain, usual);
        }
        assert!((40..80).contains(&thick), "{thick}");
    }
}
