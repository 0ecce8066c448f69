//! Units of the stored values.

use willis_core::{Finding, Modality};

/// A volume of unknown modality with a value below this is taken for CT, HU.
const CT_LOWEST_HU: f32 = -200.0;

/// Units of the stored values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum IntensityUnits {
    /// Hounsfield units (CT).
    Hounsfield,
    /// Arbitrary units with air near 0 (MR).
    Arbitrary,
}

impl IntensityUnits {
    /// Units by modality; guessed from the lowest value, with a finding, when that is unknown.
    pub fn of(modality: Option<Modality>, lowest: f32, findings: &mut Vec<Finding>) -> Self {
        match modality {
            Some(Modality::Cta) => Self::Hounsfield,
            Some(_) => Self::Arbitrary,
            None => {
                let (units, name) =
                    if lowest < CT_LOWEST_HU { (Self::Hounsfield, "CT") } else { (Self::Arbitrary, "MR") };
                let message =
                    format!("the modality is unknown; the values look like {name} and were treated as {name}");
                findings.push(Finding::warning("guessed-intensity-kind", message));
                units
            }
        }
    }
}
