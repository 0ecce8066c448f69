//! What the generator of training images draws from.

use serde::{Deserialize, Serialize};
use willis_core::{InvalidValue, Switch};

use crate::rules::{at_least_one, fraction, non_negative, positive};

/// Ranges of the generator of training images.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HeadGeneratorConfig {
    /// Voxels of an image along the axes to Left, Inferior and Anterior.
    pub patch: [usize; 3],
    /// Largest shift of the head along each axis, mm.
    pub shift_mm: f64,
    /// Largest rotation about each axis, degrees.
    pub rotation_deg: f64,
    /// Largest relative change of size along each axis.
    pub scale: f64,
    /// Largest standard deviation of the smooth deformation, mm.
    pub deformation_mm: f64,
    /// Mirror half of the heads.
    pub mirror: Switch,
    /// Share of contrasts that resemble those of real sequences; all others are random.
    pub plausible_share: f64,
    /// Largest standard deviation of the brightness within a class.
    pub class_deviation: f64,
    /// Largest standard deviation of the logarithm of the bias field.
    pub bias: f64,
    /// Largest standard deviation of the blur, voxels.
    pub blur_vox: f64,
    /// Largest slice thickness, mm.
    pub thickest_mm: f64,
    /// Share of images with thick slices.
    pub thick_share: f64,
    /// Largest standard deviation of the noise.
    pub noise: f64,
    /// Largest length that is cropped from a side of the field of view, mm.
    pub crop_mm: f64,
    /// Share of axes that are cropped.
    pub crop_share: f64,
    /// Largest absolute logarithm of the exponent.
    pub gamma: f64,
    /// Largest number of vessels.
    pub vessels: usize,
    /// Share of heads with a tumour.
    pub tumour_share: f64,
}

impl Default for HeadGeneratorConfig {
    fn default() -> Self {
        Self {
            patch: [80, 96, 96],
            shift_mm: 25.0,
            rotation_deg: 25.0,
            scale: 0.2,
            deformation_mm: 3.0,
            mirror: Switch::On,
            plausible_share: 0.5,
            class_deviation: 0.1,
            bias: 0.5,
            blur_vox: 1.0,
            thickest_mm: 7.0,
            thick_share: 0.3,
            noise: 0.08,
            crop_mm: 50.0,
            crop_share: 0.15,
            gamma: 0.4,
            vessels: 12,
            tumour_share: 0.15,
        }
    }
}

impl HeadGeneratorConfig {
    /// Checks every value.
    ///
    /// # Errors
    /// [`InvalidValue`] names the first value that breaks its rule.
    pub fn validate(&self) -> Result<(), InvalidValue> {
        self.patch.iter().try_for_each(|&side| at_least_one("patch", side))?;
        for (field, value) in [
            ("shift_mm", self.shift_mm),
            ("rotation_deg", self.rotation_deg),
            ("deformation_mm", self.deformation_mm),
            ("class_deviation", self.class_deviation),
            ("bias", self.bias),
            ("blur_vox", self.blur_vox),
            ("noise", self.noise),
            ("crop_mm", self.crop_mm),
            ("gamma", self.gamma),
        ] {
            non_negative(field, value)?;
        }
        positive("thickest_mm", self.thickest_mm)?;
        for (field, value) in [
            ("scale", self.scale),
            ("plausible_share", self.plausible_share),
            ("thick_share", self.thick_share),
            ("crop_share", self.crop_share),
            ("tumour_share", self.tumour_share),
        ] {
            fraction(field, value)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_values_are_named() {
        HeadGeneratorConfig::default().validate().unwrap();
        let error = HeadGeneratorConfig { bias: -1.0, ..HeadGeneratorConfig::default() }.validate().unwrap_err();
        assert_eq!(error.to_string(), "bias = -1 must be finite and at least 0");
    }
}
