//! What all objects share: identity, the modules of patient, study and equipment, references, codes
//! and the encoding.

use anyhow::Context;
use dicom_core::value::DataSetSequence;
use dicom_core::{DataElement, PrimitiveValue, Tag, VR};
use dicom_dictionary_std::{tags, uids};
use dicom_object::{FileMetaTableBuilder, InMemDicomObject};
use willis_core::files::hash::sha256_hex;
use willis_imaging::ingest::{SourceAttribute, SourceSeries, SourceSlice};

use super::codes::Code;
use crate::line::SeriesResult;
use crate::run::RunRecord;

/// Attributes that every object has, empty if the source has none (type 2).
const REQUIRED: [(Tag, VR); 9] = [
    (tags::STUDY_DATE, VR::DA),
    (tags::STUDY_TIME, VR::TM),
    (tags::ACCESSION_NUMBER, VR::SH),
    (tags::REFERRING_PHYSICIAN_NAME, VR::PN),
    (tags::PATIENT_NAME, VR::PN),
    (tags::PATIENT_ID, VR::LO),
    (tags::PATIENT_BIRTH_DATE, VR::DA),
    (tags::PATIENT_SEX, VR::CS),
    (tags::STUDY_ID, VR::SH),
];

/// Attributes of the source series and its images; the others belong to patient or study.
const NOT_COPIED: [Tag; 12] = [
    tags::SERIES_DATE,
    tags::SERIES_TIME,
    tags::ACQUISITION_DATE,
    tags::ACQUISITION_TIME,
    tags::CONTENT_DATE,
    tags::CONTENT_TIME,
    tags::MODALITY,
    tags::WINDOW_CENTER,
    tags::WINDOW_WIDTH,
    tags::SOP_CLASS_UID,
    tags::SERIES_INSTANCE_UID,
    tags::FRAME_OF_REFERENCE_UID,
];

/// Date and time of objects about a series without any.
const NO_DATE: (&str, &str) = ("19000101", "000000");

/// A result, and the study that it belongs to.
pub(super) struct Study<'a> {
    pub result: &'a SeriesResult,
    pub run: &'a RunRecord,
    pub source: &'a SourceSeries,
    /// Hash of all that decides the content.
    identity: String,
}

/// What distinguishes an object from the others.
pub(super) struct ObjectKind {
    pub sop_class: &'static str,
    pub modality: &'static str,
    pub series_number: u32,
    pub description: &'static str,
    /// Number of the instance in its series, from 1.
    pub instance: usize,
}

impl<'a> Study<'a> {
    pub fn new(result: &'a SeriesResult, run: &'a RunRecord, source: &'a SourceSeries) -> Self {
        let instances: Vec<_> = source.slices.iter().map(|s| (&s.sop_instance_uid, s.frame)).collect();
        let centres: Vec<_> = result.candidates.iter().map(|c| (c.centre, c.diameter_mm, c.probability)).collect();
        let content = format!(
            "{instances:?} {centres:?} {:?} {} {} {}",
            result.prediction,
            run.code_version,
            run.config_sha256,
            weights_hash(result)
        );
        Self { result, run, source, identity: sha256_hex(content.as_bytes()) }
    }

    /// A UID that depends on the content and on `role` only: `2.25.` and a UUID of version 8.
    pub fn uid(&self, role: &str) -> String {
        let digest = sha256_hex(format!("{} {role}", self.identity).as_bytes());
        let random = u128::from_str_radix(&digest[..32], 16).expect("a hash is hexadecimal");
        let uuid = random & !(0xf << 76) & !(0b11 << 62) | 0x8 << 76 | 0b10 << 62;
        format!("2.25.{uuid}")
    }

    /// Name, version and hash of the weights, for algorithm parameters.
    pub fn weights(&self) -> String {
        let models = self.result.prediction.models.iter().map(|model| format!("{} {}", model.name, model.sha256));
        models.collect::<Vec<_>>().join("; ")
    }

    pub fn frame_of_reference(&self) -> String {
        self.source.text(pair(tags::FRAME_OF_REFERENCE_UID))
    }

    pub fn series_uid(&self) -> String {
        self.source.text(pair(tags::SERIES_INSTANCE_UID))
    }

    /// Date and time of the source.
    pub fn date_and_time(&self) -> (String, String) {
        let stamp = |date, time| {
            let date =
                Some(self.source.text(pair(date))).filter(|d| d.len() == 8 && d.bytes().all(|b| b.is_ascii_digit()))?;
            let time = self.source.text(pair(time));
            let is_time = time.len() >= 6 && time.bytes().all(|b| b.is_ascii_digit() || b == b'.');
            Some((date, if is_time { time } else { NO_DATE.1.into() }))
        };
        stamp(tags::CONTENT_DATE, tags::CONTENT_TIME)
            .or_else(|| stamp(tags::ACQUISITION_DATE, tags::ACQUISITION_TIME))
            .or_else(|| stamp(tags::SERIES_DATE, tags::SERIES_TIME))
            .or_else(|| stamp(tags::STUDY_DATE, tags::STUDY_TIME))
            .unwrap_or((NO_DATE.0.into(), NO_DATE.1.into()))
    }

    /// An object with the modules of patient, study, series, equipment and SOP common.
    pub fn object(&self, kind: &ObjectKind) -> InMemDicomObject {
        let mut object = InMemDicomObject::new_empty();
        for (tag, vr) in REQUIRED {
            object.put(DataElement::empty(tag, vr));
        }
        let copied = |a: &&SourceAttribute| !NOT_COPIED.iter().any(|&tag| pair(tag) == a.tag) && is_well_formed(a);
        for attribute in self.source.attributes.iter().filter(copied) {
            object.put(copy(attribute));
        }
        // A position reference belongs to the frame of reference, which not every object has.
        object.remove_element(tags::POSITION_REFERENCE_INDICATOR);
        let (date, time) = self.date_and_time();
        let role = format!("{} {}", kind.sop_class, kind.instance);
        put(&mut object, tags::SOP_CLASS_UID, VR::UI, kind.sop_class);
        put(&mut object, tags::SOP_INSTANCE_UID, VR::UI, &self.uid(&role));
        put(&mut object, tags::SERIES_INSTANCE_UID, VR::UI, &self.uid(&format!("{} series", kind.sop_class)));
        put(&mut object, tags::MODALITY, VR::CS, kind.modality);
        put(&mut object, tags::SERIES_NUMBER, VR::IS, &kind.series_number.to_string());
        put(&mut object, tags::SERIES_DESCRIPTION, VR::LO, kind.description);
        put(&mut object, tags::SERIES_DATE, VR::DA, &date);
        put(&mut object, tags::SERIES_TIME, VR::TM, &time);
        put(&mut object, tags::CONTENT_DATE, VR::DA, &date);
        put(&mut object, tags::CONTENT_TIME, VR::TM, &time);
        put(&mut object, tags::INSTANCE_NUMBER, VR::IS, &kind.instance.to_string());
        put(&mut object, tags::MANUFACTURER, VR::LO, "willis");
        put(&mut object, tags::MANUFACTURER_MODEL_NAME, VR::LO, "willis");
        // The weights decide what this device computes.
        put(&mut object, tags::DEVICE_SERIAL_NUMBER, VR::LO, &weights_hash(self.result));
        put(&mut object, tags::SOFTWARE_VERSIONS, VR::LO, &self.run.code_version);
        object
    }

    /// Puts the frame of reference of the source.
    pub fn put_frame_of_reference(&self, object: &mut InMemDicomObject) {
        put(object, tags::FRAME_OF_REFERENCE_UID, VR::UI, &self.frame_of_reference());
        put(object, tags::POSITION_REFERENCE_INDICATOR, VR::LO, "");
    }

    /// The source series with its instances, each once, under the tag of their sequence.
    pub fn referenced_series(&self, instances: Tag) -> InMemDicomObject {
        let mut seen = std::collections::BTreeSet::new();
        let first = self.source.slices.iter().filter(|slice| seen.insert(slice.sop_instance_uid.as_str()));
        let items = first.map(|slice| referenced_instance(slice, WholeFile::Yes)).collect();
        let mut series = InMemDicomObject::new_empty();
        put(&mut series, tags::SERIES_INSTANCE_UID, VR::UI, &self.series_uid());
        put_sequence(&mut series, instances, items);
        series
    }

    /// How an algorithm is identified in a segment (PS3.3 table 10-19).
    pub fn algorithm(&self) -> InMemDicomObject {
        let mut item = InMemDicomObject::new_empty();
        put_code(&mut item, tags::ALGORITHM_FAMILY_CODE_SEQUENCE, super::codes::ARTIFICIAL_INTELLIGENCE);
        put(&mut item, tags::ALGORITHM_NAME, VR::LO, "willis");
        put(&mut item, tags::ALGORITHM_VERSION, VR::LO, &self.run.code_version);
        put(&mut item, tags::ALGORITHM_PARAMETERS, VR::LT, &self.weights());
        item
    }
}

/// Whether a reference means all frames of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WholeFile {
    Yes,
    No,
}

/// A reference to the instance of a slice.
pub(super) fn referenced_instance(slice: &SourceSlice, whole: WholeFile) -> InMemDicomObject {
    let mut item = InMemDicomObject::new_empty();
    put(&mut item, tags::REFERENCED_SOP_CLASS_UID, VR::UI, &slice.sop_class_uid);
    put(&mut item, tags::REFERENCED_SOP_INSTANCE_UID, VR::UI, &slice.sop_instance_uid);
    if let (Some(frame), WholeFile::No) = (slice.frame, whole) {
        put(&mut item, tags::REFERENCED_FRAME_NUMBER, VR::IS, &frame.to_string());
    }
    item
}

/// SHA-256 over the names and hashes of all weights.
fn weights_hash(result: &SeriesResult) -> String {
    let lines: Vec<String> = result.prediction.models.iter().map(|m| format!("{} {}\n", m.name, m.sha256)).collect();
    sha256_hex(lines.concat().as_bytes())
}

const fn pair(tag: Tag) -> (u16, u16) {
    (tag.0, tag.1)
}

/// Whether a value has the form of its type (PS3.5 table 6.2-1). Others are left out: archives refuse
/// objects with an age of `42` or a date of `2026-01-02`.
fn is_well_formed(attribute: &SourceAttribute) -> bool {
    let value = &attribute.value[..];
    let digits = |bytes: &[u8]| bytes.iter().all(u8::is_ascii_digit);
    value.is_empty()
        || match attribute.vr {
            "AS" => value.len() == 4 && digits(&value[..3]) && b"DWMY".contains(&value[3]),
            "DA" => value.len() == 8 && digits(value),
            "TM" => {
                let (whole, fraction) = value.split_at(value.iter().position(|&b| b == b'.').unwrap_or(value.len()));
                let is_fraction = matches!(fraction, [] | [b'.', ..]) && digits(fraction.get(1..).unwrap_or_default());
                matches!(whole.len(), 2 | 4 | 6) && digits(whole) && is_fraction && fraction.len() <= 7
            }
            "DS" => std::str::from_utf8(value).is_ok_and(|text| text.len() <= 16 && text.trim().parse::<f64>().is_ok()),
            "UI" => value.len() <= 64 && value.iter().all(|b| b.is_ascii_digit() || *b == b'.'),
            // Character sets have several values; a leading one may be empty.
            "CS" => value.split(|&b| b == b'\\').all(|v| {
                v.len() <= 16 && v.iter().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b"_ ".contains(b))
            }),
            "SH" => value.len() <= 3 * 16,
            _ => true,
        }
}

/// The attribute with the bytes of the source, in its character set.
fn copy(attribute: &SourceAttribute) -> DataElement<InMemDicomObject> {
    let (tag, value) = (Tag(attribute.tag.0, attribute.tag.1), attribute.value.clone());
    match attribute.vr {
        // Free text is written as it is; the encoder pads other types with the right byte.
        "LO" | "PN" | "SH" => {
            let mut value = value;
            if value.len() % 2 == 1 {
                value.push(b' ');
            }
            let vr = match attribute.vr {
                "LO" => VR::LO,
                "PN" => VR::PN,
                _ => VR::SH,
            };
            DataElement::new(tag, vr, PrimitiveValue::U8(value.into()))
        }
        other => {
            let vr = match other {
                "AS" => VR::AS,
                "DA" => VR::DA,
                "DS" => VR::DS,
                "TM" => VR::TM,
                "UI" => VR::UI,
                _ => VR::CS,
            };
            DataElement::new(tag, vr, PrimitiveValue::from(ascii(&String::from_utf8_lossy(&value))))
        }
    }
}

/// Text in the characters that every character set has.
pub(super) fn ascii(text: &str) -> String {
    let plain = |c: char| match c {
        '²' => "2".into(),
        '³' => "3".into(),
        '×' => "x".into(),
        '–' | '—' => "-".into(),
        c if c.is_ascii() && !c.is_ascii_control() => c.to_string(),
        _ => "?".to_string(),
    };
    text.chars().map(plain).collect()
}

/// Puts text.
pub(super) fn put(object: &mut InMemDicomObject, tag: Tag, vr: VR, value: &str) {
    let element = match value {
        "" => DataElement::empty(tag, vr),
        value => DataElement::new(tag, vr, PrimitiveValue::from(value)),
    };
    object.put(element);
}

/// Puts numbers as decimal strings.
pub(super) fn put_decimals(object: &mut InMemDicomObject, tag: Tag, values: &[f64]) {
    let texts: Vec<String> = values.iter().map(|&v| decimal(v)).collect();
    object.put(DataElement::new(tag, VR::DS, PrimitiveValue::Strs(texts.into())));
}

/// Puts one 16-bit number.
pub(super) fn put_short(object: &mut InMemDicomObject, tag: Tag, value: usize) {
    let value = u16::try_from(value).unwrap_or(u16::MAX);
    object.put(DataElement::new(tag, VR::US, PrimitiveValue::from(value)));
}

/// Puts a sequence.
pub(super) fn put_sequence(object: &mut InMemDicomObject, tag: Tag, items: Vec<InMemDicomObject>) {
    object.put(DataElement::new(tag, VR::SQ, DataSetSequence::from(items)));
}

/// Puts a sequence of one code.
pub(super) fn put_code(object: &mut InMemDicomObject, tag: Tag, code: Code) {
    put_sequence(object, tag, vec![code_item(code)]);
}

/// The item of a code.
pub(super) fn code_item(code: Code) -> InMemDicomObject {
    let mut item = InMemDicomObject::new_empty();
    put(&mut item, tags::CODE_VALUE, VR::SH, code.value);
    put(&mut item, tags::CODING_SCHEME_DESIGNATOR, VR::SH, code.scheme);
    put(&mut item, tags::CODE_MEANING, VR::LO, code.meaning);
    item
}

/// The most precise decimal string, which has at most 16 characters.
pub(super) fn decimal(value: f64) -> String {
    let trim = |text: String| {
        if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_string() } else { text }
    };
    let fixed = (0..=12).rev().map(|digits| trim(format!("{value:.digits$}"))).find(|text| text.len() <= 16);
    fixed.map_or_else(|| format!("{value:.8e}"), |text| if text == "-0" { "0".into() } else { text })
}

/// The object as a file, explicit VR little endian.
///
/// # Errors
/// when an attribute cannot be encoded
pub(super) fn encode(object: InMemDicomObject) -> anyhow::Result<Vec<u8>> {
    let meta = FileMetaTableBuilder::new().transfer_syntax(uids::EXPLICIT_VR_LITTLE_ENDIAN);
    let mut bytes = Vec::new();
    // The errors of the encoder could quote a value.
    let file = object.with_meta(meta).ok().context("a DICOM object has no identity")?;
    file.write_all(&mut bytes).ok().context("an attribute of the source cannot be encoded as DICOM")?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_break_their_type_are_left_out() {
        for (vr, value, expected) in [
            ("AS", "042Y", true),
            ("AS", "42", false),
            ("DA", "20260102", true),
            ("DA", "2026-01-02", false),
            ("TM", "101112.25", true),
            ("TM", "1011", true),
            ("TM", "10:11", false),
            ("DS", "71.5", true),
            ("DS", "71,5", false),
            ("CS", "F", true),
            ("CS", "female", false),
            ("CS", "\\ISO 2022 IR 87", true),
            ("UI", "1.2.840", true),
            ("UI", "1.2.x", false),
            ("PN", "Doe^Jane", true),
            ("DA", "", true),
        ] {
            let attribute = SourceAttribute { tag: (0x10, 0x10), vr, value: value.into() };
            assert_eq!(is_well_formed(&attribute), expected, "{vr} {value}");
        }
    }

    #[test]
    fn decimals_have_at_most_sixteen_characters() {
        for (value, expected) in
            [(0.5, "0.5"), (-0.0, "0"), (-123.45678901234567, "-123.45678901235"), (1e20, "1.00000000e20")]
        {
            assert_eq!(decimal(value), expected);
        }
    }
}
