//! What the headers of a DICOM series say about its origin: the instances of its slices, and the
//! attributes of patient and study, for objects that are written about the series.
//!
//! This is the only place that reads names and identifiers of patients. They are kept as the bytes
//! of the file, which `Debug` does not print.

use std::fmt;
use std::path::Path;

use dicom_core::Tag;
use dicom_dictionary_std::tags;

use super::attributes::{DataSet, bytes, text};
use super::config::IngestConfig;
use super::error::IngestError;
use super::geometry::stack;
use super::group::{SeriesSlice, choose_series, members};
use super::header::Instance;
use super::input::InputFile;
use super::structure::DicomStructure;
use super::volumes::choose_volume;
use super::{Input, open, series};

/// Maximum length of a copied value, bytes.
const MAX_VALUE_BYTES: usize = 1024;
/// Distance of two first pixels below which slices are at one place, mm.
const ONE_PLACE_MM: f64 = 0.01;

/// Attributes that are copied: those of the modules Patient, General Study, Patient Study and Frame
/// of Reference that are not sequences, and the dates of the series.
const COPIED: [(Tag, &str); 31] = [
    (tags::SPECIFIC_CHARACTER_SET, "CS"),
    (tags::STUDY_DATE, "DA"),
    (tags::SERIES_DATE, "DA"),
    (tags::ACQUISITION_DATE, "DA"),
    (tags::CONTENT_DATE, "DA"),
    (tags::STUDY_TIME, "TM"),
    (tags::SERIES_TIME, "TM"),
    (tags::ACQUISITION_TIME, "TM"),
    (tags::CONTENT_TIME, "TM"),
    (tags::ACCESSION_NUMBER, "SH"),
    (tags::MODALITY, "CS"),
    (tags::REFERRING_PHYSICIAN_NAME, "PN"),
    (tags::STUDY_DESCRIPTION, "LO"),
    (tags::PATIENT_NAME, "PN"),
    (tags::PATIENT_ID, "LO"),
    (tags::ISSUER_OF_PATIENT_ID, "LO"),
    (tags::PATIENT_BIRTH_DATE, "DA"),
    (tags::PATIENT_SEX, "CS"),
    (tags::PATIENT_AGE, "AS"),
    (tags::PATIENT_SIZE, "DS"),
    (tags::PATIENT_WEIGHT, "DS"),
    (tags::PATIENT_IDENTITY_REMOVED, "CS"),
    (tags::DEIDENTIFICATION_METHOD, "LO"),
    (tags::STUDY_INSTANCE_UID, "UI"),
    (tags::STUDY_ID, "SH"),
    (tags::FRAME_OF_REFERENCE_UID, "UI"),
    (tags::POSITION_REFERENCE_INDICATOR, "LO"),
    (tags::WINDOW_CENTER, "DS"),
    (tags::WINDOW_WIDTH, "DS"),
    (tags::SOP_CLASS_UID, "UI"),
    (tags::SERIES_INSTANCE_UID, "UI"),
];

/// The origin of a volume that was read from DICOM.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceSeries {
    /// Attributes of the first file of the series, in no particular order.
    pub attributes: Vec<SourceAttribute>,
    /// The slices of the volume in its order, without those that were left out.
    pub slices: Vec<SourceSlice>,
}

/// A copied attribute: text of the given VR in the character set of the file.
#[derive(Clone, PartialEq)]
pub struct SourceAttribute {
    /// Group and element.
    pub tag: (u16, u16),
    /// Two letters.
    pub vr: &'static str,
    /// The value without padding.
    pub value: Vec<u8>,
}

impl fmt::Debug for SourceAttribute {
    /// Without the value, which may be a patient's name.
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "({:04X},{:04X}) {}", self.tag.0, self.tag.1, self.vr)
    }
}

/// Instance and place of one slice.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceSlice {
    /// SOP class UID of the file.
    pub sop_class_uid: String,
    /// SOP instance UID of the file.
    pub sop_instance_uid: String,
    /// Number of the frame, from 1; `None` in a file of one frame.
    pub frame: Option<usize>,
    /// Size of the slice in pixels.
    pub rows: usize,
    /// Size of the slice in pixels.
    pub columns: usize,
    /// Row and column of the slice's first pixel in its frame: not zero in mosaics only.
    pub first_pixel: [usize; 2],
    /// Centre of the first pixel, LPS mm.
    pub position: [f64; 3],
    /// Unit vectors along a row and along a column.
    pub directions: [[f64; 3]; 2],
    /// Distance between rows, then between columns, mm.
    pub pixel_spacing: [f64; 2],
    /// Thickness, mm.
    pub thickness_mm: Option<f64>,
    /// Slope and intercept from stored values to those of the volume.
    pub rescale: (f64, f64),
}

/// Why the origin of a series cannot be stated.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OriginError {
    /// The series cannot be read.
    #[error(transparent)]
    Ingest(#[from] IngestError),
    /// The input is not DICOM.
    #[error("the input is not DICOM, so there is no study that DICOM objects could belong to")]
    NotDicom,
    /// A header lacks an attribute.
    #[error("its headers have no {name} ({:04X},{:04X}), to which DICOM objects must refer; restore it", tag.0, tag.1)]
    Missing {
        /// Name of the attribute.
        name: &'static str,
        /// Group and element.
        tag: (u16, u16),
    },
    /// Several slices at one place.
    #[error("several slices have the same ImagePositionPatient (0020,0032), so results have no place; restore it")]
    OnePlace,
    /// The file was there before and cannot be read any more.
    #[error("a file of the series cannot be read again ({reason})")]
    Read {
        /// Why.
        reason: String,
    },
}

/// Reads the origin of the volume that [`super::ingest`] reads from the same path with the same
/// configuration. No pixel is decoded.
///
/// # Errors
/// [`OriginError`] when the input is not DICOM, or its headers lack what objects must refer to.
pub fn source_series(path: &Path, config: &IngestConfig) -> Result<SourceSeries, OriginError> {
    let Input::Dicom(files, mut findings) = open(path, config)? else { return Err(OriginError::NotDicom) };
    let (files, instances) = series::read_headers(path, files, config, &mut findings)?;
    let chosen = choose_series(&instances, config.series_uid.as_deref(), &mut findings)?;
    let members = choose_volume(members(&instances, &chosen), config, &mut findings)?;
    let slices: Vec<_> = members.iter().map(|member| member.slice.clone()).collect();
    let ordered = stack(&slices)?.order;
    let ordered: Vec<&SeriesSlice> = ordered.iter().map(|&i| &members[i]).collect();
    let attributes = attributes(&files[ordered[0].instance], config)?;
    for (name, tag) in [
        ("study instance UID", tags::STUDY_INSTANCE_UID),
        ("series instance UID", tags::SERIES_INSTANCE_UID),
        ("SOP class UID", tags::SOP_CLASS_UID),
        ("frame of reference UID", tags::FRAME_OF_REFERENCE_UID),
    ] {
        let tag = (tag.group(), tag.element());
        if !attributes.iter().any(|attribute| attribute.tag == tag && !attribute.value.is_empty()) {
            return Err(OriginError::Missing { name, tag });
        }
    }
    let slices = ordered.iter().map(|member| slice_of(member, &instances)).collect::<Result<Vec<_>, _>>()?;
    let is_at = |a: &SourceSlice, b: &SourceSlice| {
        a.position.iter().zip(b.position).all(|(a, b)| (a - b).abs() < ONE_PLACE_MM) && a.first_pixel == b.first_pixel
    };
    if slices.windows(2).any(|pair| is_at(&pair[0], &pair[1])) {
        return Err(OriginError::OnePlace);
    }
    Ok(SourceSeries { attributes, slices })
}

impl SourceSeries {
    /// Text of a copied attribute; empty if it has no value. Bytes that are not ASCII become `?`.
    pub fn text(&self, (group, element): (u16, u16)) -> String {
        let found = self.attributes.iter().find(|attribute| attribute.tag == (group, element));
        found.map_or(String::new(), |a| {
            a.value.iter().map(|&b| if b.is_ascii_graphic() || b == b' ' { char::from(b) } else { '?' }).collect()
        })
    }
}

fn slice_of(member: &SeriesSlice, instances: &[Instance]) -> Result<SourceSlice, OriginError> {
    let missing = |name, tag: Tag| OriginError::Missing { name, tag: (tag.group(), tag.element()) };
    let (slice, instance) = (&member.slice, &instances[member.instance]);
    let [a, b, c, d, e, f] = slice.orientation.ok_or(missing("image orientation", tags::IMAGE_ORIENTATION_PATIENT))?;
    if instance.sop_uid.is_empty() || instance.sop_class.is_empty() {
        return Err(missing("SOP instance UID", tags::SOP_INSTANCE_UID));
    }
    let frames = instance.slices.last().map_or(0, |last| last.frame + 1);
    Ok(SourceSlice {
        sop_class_uid: instance.sop_class.clone(),
        sop_instance_uid: instance.sop_uid.clone(),
        frame: (frames > 1).then_some(slice.frame + 1),
        rows: slice.rows,
        columns: slice.columns,
        first_pixel: slice.tile.unwrap_or([0, 0]),
        position: slice.position.ok_or(missing("image position", tags::IMAGE_POSITION_PATIENT))?,
        directions: [[a, b, c], [d, e, f]],
        pixel_spacing: slice.pixel_spacing.ok_or(missing("pixel spacing", tags::PIXEL_SPACING))?,
        thickness_mm: slice.thickness_mm,
        rescale: (slice.slope, slice.intercept),
    })
}

fn attributes(file: &InputFile, config: &IngestConfig) -> Result<Vec<SourceAttribute>, OriginError> {
    let failed = |reason: String| OriginError::Read { reason };
    let content = file.read(config.max_file_bytes).map_err(|e| failed(e.to_string()))?;
    let structure = DicomStructure::of(&content, config.max_file_bytes).map_err(|e| failed(e.to_string()))?;
    let set = structure.header();
    Ok(COPIED.iter().filter_map(|&(tag, vr)| attribute(&set, tag, vr)).collect())
}

fn attribute(set: &DataSet, tag: Tag, vr: &'static str) -> Option<SourceAttribute> {
    let value = bytes(set, tag)?;
    let end = value.iter().rposition(|b| !matches!(b, 0 | b' ')).map_or(0, |last| last + 1);
    let value = match vr {
        // A window has several values in some files, and a UID may be padded at both ends.
        "UI" => text(set, tag)?.into_bytes(),
        _ => value[..end].to_vec(),
    };
    (value.len() <= MAX_VALUE_BYTES).then(|| SourceAttribute { tag: (tag.group(), tag.element()), vr, value })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_not_printed() {
        let name = SourceAttribute { tag: (0x10, 0x10), vr: "PN", value: b"Doe^Jane".to_vec() };
        let series = SourceSeries { attributes: vec![name], slices: Vec::new() };
        let printed = format!("{series:?} {series:#?}");
        assert!(printed.contains("(0010,0010) PN") && !printed.contains("Doe"), "{printed}");
        assert_eq!(series.text((0x10, 0x10)), "Doe^Jane");
        assert_eq!(series.text((0x10, 0x20)), "");
    }
}
