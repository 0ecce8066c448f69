//! What a data set is drawn from: modalities, planes, sizes, lesions, headers.

use std::fmt;
use std::sync::Arc;

use rand::Rng;
use serde::{Deserialize, Serialize};
use willis_core::cohort::HeaderContent;
use willis_core::{InvalidValue, SITE_COUNT};

use crate::anatomy::AnatomyLibrary;
use crate::appearance::{AppearanceModel, ModelShare};
use crate::random::Draw;
use crate::spec::{LesionPlan, Randomisation};

/// Size of the scans that [`crate::PhantomSpec::draw`] draws.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScanSize {
    /// Clinical sizes: about 200 to 700 pixels across.
    Clinical,
    /// Boxes of 160 pixels across around the circle of Willis, at most 160 slices.
    Small,
    /// Boxes of 256 pixels across around the circle of Willis, at most 256 slices.
    Fine,
    /// Whole heads of 512 x 512 pixels of 0.35 to 0.6 mm and slices of 0.5 to 5 mm.
    Whole,
    /// Small and larger boxes and whole heads of at most 256 pixels across, for training.
    Varied,
    /// Boxes of 48 pixels across around the circle of Willis, for tests.
    Tiny,
    /// [`crate::PhantomSpec::cta_512`], where only the number of lesions is drawn.
    Reference,
}

/// Distribution from which [`crate::PhantomSpec::draw`] draws.
///
/// The default has the modalities, planes and prevalence of the training set of the RSNA 2025
/// challenge. `cohort.json` records this struct as text, so a renamed field or type changes that
/// file. Fields that were added later are part of the text only where they differ from the default.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CohortMix {
    /// Weight of each modality, in the order of [`willis_core::Modality::ALL`].
    pub modalities: [f64; 4],
    /// Weight of axial, coronal and sagittal slices.
    pub planes: [f64; 3],
    /// Probability of at least one aneurysm.
    pub prevalence: f64,
    /// Number of aneurysms in an affected head; `None` draws it as [`LesionPlan::Random`] does.
    pub lesions: Option<usize>,
    /// Factor on the voxel size of [`ScanSize::Clinical`], at least 0.2. Larger values give
    /// smaller images.
    pub coarseness: f64,
    /// Size of the scans.
    pub size: ScanSize,
    /// Share of series with [`Randomisation::Wide`]; the others are realistic.
    pub wide_share: f64,
    /// Sites and sizes of the aneurysms.
    pub lesion_choice: LesionChoice,
    /// Vessels and tissues that resemble aneurysms.
    pub look_alikes: LookAlikes,
    /// What the DICOM headers say.
    pub header: HeaderContent,
    /// Models of the appearance and their shares; none stands for [`AppearanceModel::Plain`].
    pub models: Vec<ModelShare>,
    /// Heads of real people, for the other models.
    #[serde(skip)]
    pub library: Option<Arc<AnatomyLibrary>>,
}

impl fmt::Debug for CohortMix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let usual = Self::default();
        let mut text = f.debug_struct("CohortMix");
        text.field("modalities", &self.modalities)
            .field("planes", &self.planes)
            .field("prevalence", &self.prevalence)
            .field("lesions", &self.lesions)
            .field("coarseness", &self.coarseness)
            .field("size", &self.size)
            .field("wide_share", &self.wide_share);
        if self.lesion_choice != usual.lesion_choice {
            text.field("lesion_choice", &self.lesion_choice);
        }
        if self.look_alikes != usual.look_alikes {
            text.field("look_alikes", &self.look_alikes);
        }
        if self.header != usual.header {
            text.field("header", &self.header);
        }
        if self.models != usual.models {
            text.field("models", &self.models);
        }
        if let Some(library) = &self.library {
            text.field("library", &library.fingerprint());
        }
        text.finish()
    }
}

impl Default for CohortMix {
    fn default() -> Self {
        Self {
            modalities: [1808.0, 1252.0, 305.0, 983.0],
            planes: [0.965, 0.020, 0.015],
            prevalence: 1864.0 / 4348.0,
            lesions: None,
            coarseness: 1.0,
            size: ScanSize::Clinical,
            wide_share: 0.0,
            lesion_choice: LesionChoice::default(),
            look_alikes: LookAlikes::default(),
            header: HeaderContent::default(),
            models: Vec::new(),
            library: None,
        }
    }
}

impl CohortMix {
    /// Checks every field.
    ///
    /// # Errors
    /// The first field that breaks a rule.
    pub fn validate(&self) -> Result<(), InvalidValue> {
        for (field, weights) in [("modalities", &self.modalities[..]), ("planes", &self.planes[..])] {
            let valid = weights.iter().all(|w| w.is_finite() && *w >= 0.0) && weights.iter().sum::<f64>() > 0.0;
            if !valid {
                let rule = "must be finite, not negative and not all zero";
                return Err(InvalidValue::new(field, format!("{weights:?}"), rule));
            }
        }
        for (field, share) in [("prevalence", self.prevalence), ("wide_share", self.wide_share)] {
            if !(0.0..=1.0).contains(&share) {
                return Err(InvalidValue::new(field, share, "must be between 0 and 1"));
            }
        }
        if !(self.coarseness.is_finite() && self.coarseness >= 0.2) {
            return Err(InvalidValue::new("coarseness", self.coarseness, "must be finite and at least 0.2"));
        }
        for each in &self.models {
            if !(each.share.is_finite() && each.share >= 0.0) {
                return Err(InvalidValue::new("models.share", each.share, "must be finite and not negative"));
            }
            each.model.validate().map_err(|error| error.within("models.model"))?;
        }
        if !self.models.is_empty() && self.models.iter().all(|each| each.share == 0.0) {
            return Err(InvalidValue::new("models.share", 0, "must not be zero for all models"));
        }
        self.lesion_choice.validate()
    }

    /// Draws a model. Nothing is drawn where there is no choice, as in the first data sets.
    pub(crate) fn model(&self, rng: &mut (impl Rng + ?Sized)) -> AppearanceModel {
        let shares: Vec<f64> = self.models.iter().map(|each| each.share).collect();
        match shares.len() {
            0 => AppearanceModel::Plain,
            _ => self.models[rng.weighted(&shares)].model.clone(),
        }
    }

    pub(crate) fn lesions(&self, rng: &mut (impl Rng + ?Sized)) -> LesionPlan {
        match self.lesions {
            None => LesionPlan::Random { prevalence: self.prevalence },
            Some(count) if rng.chance(self.prevalence) => LesionPlan::Exact(count),
            Some(_) => LesionPlan::None,
        }
    }

    pub(crate) fn appearance(&self, rng: &mut (impl Rng + ?Sized)) -> Randomisation {
        if rng.chance(self.wide_share) { Randomisation::Wide } else { Randomisation::Realistic }
    }
}

/// Sites and sizes that aneurysms are drawn from; the default is that of the challenge.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LesionChoice {
    /// Weight of each site in the order of [`willis_core::Site::ALL`]; `None` has the frequencies
    /// of the challenge.
    pub sites: Option<[f64; SITE_COUNT]>,
    /// Smallest and largest diameter, mm, drawn uniformly; `None` draws as in surgical series.
    pub diameter_mm: Option<[f64; 2]>,
}

impl LesionChoice {
    /// Largest diameter that may be asked for, mm.
    const LARGEST_MM: f64 = 25.0;
    /// Smallest diameter that may be asked for, mm.
    const SMALLEST_MM: f64 = 1.0;

    fn validate(&self) -> Result<(), InvalidValue> {
        let valid = |w: &[f64; SITE_COUNT]| w.iter().all(|w| w.is_finite() && *w >= 0.0) && w.iter().sum::<f64>() > 0.0;
        if let Some(sites) = self.sites.filter(|sites| !valid(sites)) {
            let rule = "must be finite, not negative and not all zero";
            return Err(InvalidValue::new("sites", format!("{sites:?}"), rule));
        }
        match self.diameter_mm {
            Some([low, high]) if !(Self::SMALLEST_MM..=high).contains(&low) || high > Self::LARGEST_MM => {
                let rule = "must be a lower and an upper limit between 1 and 25";
                Err(InvalidValue::new("diameter_mm", format!("{:?}", [low, high]), rule))
            }
            _ => Ok(()),
        }
    }
}

/// How often vessels and tissues resemble aneurysms.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LookAlikes {
    /// As in a clinic.
    #[default]
    Usual,
    /// In every head several: infundibula, ectasias, stenoses, tumours.
    Many,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `cohort.json` of data sets made before must still match.
    #[test]
    fn the_text_of_a_mix_names_later_fields_only_where_they_differ() {
        let text = format!("{:?}", CohortMix::default());
        assert!(text.ends_with("size: Clinical, wide_share: 0.0 }"), "{text}");
        let many = format!("{:?}", CohortMix { look_alikes: LookAlikes::Many, ..CohortMix::default() });
        assert!(many.ends_with("wide_share: 0.0, look_alikes: Many }"), "{many}");
        let shares = vec![ModelShare { share: 1.0, model: AppearanceModel::Plain }];
        let models = format!("{:?}", CohortMix { models: shares, ..CohortMix::default() });
        assert!(models.ends_with("wide_share: 0.0, models: [ModelShare { share: 1.0, model: Plain }] }"), "{models}");
    }

    #[test]
    fn invalid_mixes_are_refused_with_their_field() {
        let mix = CohortMix::default;
        mix().validate().unwrap();
        for (mix, message) in [
            (
                CohortMix { models: vec![ModelShare { share: -1.0, model: AppearanceModel::Plain }], ..mix() },
                "models.share = -1 must be finite and not negative",
            ),
            (CohortMix { prevalence: 1.5, ..mix() }, "prevalence = 1.5 must be between 0 and 1"),
            (CohortMix { wide_share: f64::NAN, ..mix() }, "wide_share = NaN must be between 0 and 1"),
            (CohortMix { coarseness: 0.1, ..mix() }, "coarseness = 0.1 must be finite and at least 0.2"),
            (
                CohortMix { lesion_choice: LesionChoice { diameter_mm: Some([3.0, 1.5]), sites: None }, ..mix() },
                "diameter_mm = [3.0, 1.5] must be a lower and an upper limit between 1 and 25",
            ),
            (
                CohortMix { planes: [0.0; 3], ..mix() },
                "planes = [0.0, 0.0, 0.0] must be finite, not negative and not all zero",
            ),
        ] {
            assert_eq!(mix.validate().unwrap_err().to_string(), message);
        }
    }
}
