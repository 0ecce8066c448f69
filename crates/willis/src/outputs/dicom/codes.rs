//! Codes of concepts (PS3.16) and of the sites (SNOMED CT).

use willis_core::Site;

/// A coded concept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::outputs) struct Code {
    pub value: &'static str,
    pub scheme: &'static str,
    pub meaning: &'static str,
}

const fn dcm(value: &'static str, meaning: &'static str) -> Code {
    Code { value, scheme: "DCM", meaning }
}

const fn sct(value: &'static str, meaning: &'static str) -> Code {
    Code { value, scheme: "SCT", meaning }
}

pub(in crate::outputs) const ANEURYSM: Code = sct("85659009", "Aneurysm");
pub(in crate::outputs) const DIAMETER: Code = sct("81827009", "Diameter");
pub(super) const ANATOMICAL_STRUCTURE: Code = sct("91723000", "Anatomical Structure");
pub(super) const ALTERED_STRUCTURE: Code = sct("49755003", "Morphologically Altered Structure");
pub(super) const FINDING_SITE: Code = sct("363698007", "Finding Site");
pub(super) const LATERALITY: Code = sct("272741003", "Laterality");
pub(super) const IMAGING_PROCEDURE: Code = sct("363679005", "Imaging procedure");
pub(super) const CERTAINTY: Code = dcm("111012", "Certainty of Finding");
pub(super) const ARTIFICIAL_INTELLIGENCE: Code = dcm("123110", "Artificial Intelligence");
pub(super) const MEASUREMENT_REPORT: Code = dcm("126000", "Imaging Measurement Report");
pub(super) const LANGUAGE: Code = dcm("121049", "Language of Content Item and Descendants");
pub(super) const ENGLISH: Code = Code { value: "en", scheme: "RFC5646", meaning: "English" };
pub(super) const OBSERVER_TYPE: Code = dcm("121005", "Observer Type");
pub(super) const DEVICE: Code = dcm("121007", "Device");
pub(super) const DEVICE_UID: Code = dcm("121012", "Device Observer UID");
pub(super) const DEVICE_NAME: Code = dcm("121013", "Device Observer Name");
pub(super) const DEVICE_MANUFACTURER: Code = dcm("121014", "Device Observer Manufacturer");
pub(super) const DEVICE_MODEL: Code = dcm("121015", "Device Observer Model Name");
pub(super) const PROCEDURE_REPORTED: Code = dcm("121058", "Procedure Reported");
pub(super) const IMAGE_LIBRARY: Code = dcm("111028", "Image Library");
pub(super) const IMAGE_LIBRARY_GROUP: Code = dcm("126200", "Image Library Group");
pub(super) const IMAGING_MEASUREMENTS: Code = dcm("126010", "Imaging Measurements");
pub(super) const MEASUREMENT_GROUP: Code = dcm("125007", "Measurement Group");
pub(super) const QUALITATIVE: Code = Code { value: "C0034375", scheme: "UMLS", meaning: "Qualitative Evaluations" };
pub(super) const COMMENT: Code = dcm("121106", "Comment");
pub(super) const TRACKING_ID: Code = dcm("112039", "Tracking Identifier");
pub(super) const TRACKING_UID: Code = dcm("112040", "Tracking Unique Identifier");
pub(super) const FINDING: Code = dcm("121071", "Finding");
pub(super) const IMAGE_REGION: Code = dcm("111030", "Image Region");
pub(super) const ALGORITHM_NAME: Code = dcm("111001", "Algorithm Name");
pub(super) const ALGORITHM_VERSION: Code = dcm("111003", "Algorithm Version");
pub(super) const ALGORITHM_PARAMETERS: Code = dcm("111002", "Algorithm Parameters");
pub(super) const DERIVATION_SEGMENTATION: Code = dcm("113076", "Segmentation");
pub(super) const SOURCE_IMAGE: Code = dcm("121322", "Source Image for Image Processing Operation");
pub(super) const PERCENT: Code = Code { value: "%", scheme: "UCUM", meaning: "Percent" };
pub(super) const MILLIMETRE: Code = Code { value: "mm", scheme: "UCUM", meaning: "Millimeter" };

/// The artery of a site. Infraclinoid and supraclinoid carotid share one code, and so do the
/// posterior arteries other than the basilar one; the label tells them apart.
pub(in crate::outputs) const fn artery(site: Site) -> Code {
    match site {
        Site::LeftInfraclinoidIca
        | Site::RightInfraclinoidIca
        | Site::LeftSupraclinoidIca
        | Site::RightSupraclinoidIca => sct("86117002", "Internal carotid artery"),
        Site::LeftMca | Site::RightMca => sct("17232002", "Middle cerebral artery"),
        Site::Acom => sct("8012006", "Anterior communicating artery"),
        Site::LeftAca | Site::RightAca => sct("60176003", "Anterior cerebral artery"),
        Site::LeftPcom | Site::RightPcom => sct("43119007", "Posterior communicating artery"),
        Site::BasilarTip => sct("59011009", "Basilar artery"),
        Site::OtherPosterior => sct("88556005", "Cerebral artery"),
    }
}

/// The side of a site; `None` on the midline or on both sides.
pub(in crate::outputs) fn side(site: Site) -> Option<Code> {
    match site.name().split_once(' ') {
        Some(("Left", _)) => Some(sct("7771000", "Left")),
        Some(("Right", _)) => Some(sct("24028007", "Right")),
        _ => None,
    }
}
