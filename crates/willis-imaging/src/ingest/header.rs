//! Attributes of one DICOM file: pixel format, and position, rescaling and time of each frame.
//!
//! Classic files have one frame; enhanced files have many, described by the shared and per-frame
//! functional groups (PS3.3 C.7.6.16). No value is guessed here: a missing one stays `None`.

use dicom_core::{DicomValue, Tag};
use dicom_dictionary_std::tags;
use dicom_object::InMemDicomObject;
use dicom_object::mem::InMemElement;
use dicom_transfer_syntax_registry::entries;
use willis_core::Sex;

use super::mosaic::Mosaic;
use super::panics;
use super::structure::{DataSetEncoding, DicomStructure, Pixels};

/// Number of slices in a mosaic, private to Siemens.
const SIEMENS_MOSAIC_SLICES: Tag = Tag(0x0019, 0x100A);
/// CSA header of an image, private to Siemens.
const SIEMENS_CSA_IMAGE: Tag = Tag(0x0029, 0x1010);
/// Number of slices in a grid, private to United Imaging.
const UIH_GRID_SLICES: Tag = Tag(0x0065, 0x1050);

/// One file with pixel data.
#[derive(Debug, Clone)]
pub(super) struct Instance {
    pub series_uid: String,
    pub sop_uid: String,
    pub pixels: PixelFormat,
    pub slices: Vec<Slice>,
    pub hints: Hints,
}

/// How pixel values are stored.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct PixelFormat {
    pub rows: usize,
    pub columns: usize,
    pub samples: usize,
    pub bits_allocated: usize,
    pub bits_stored: usize,
    pub signed: bool,
    pub planar: bool,
    pub colour: Colour,
}

/// Photometric interpretation, reduced to the cases that differ in conversion to grey.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Colour {
    Monochrome1,
    Monochrome2,
    Rgb,
    Ybr,
    Unsupported,
}

/// Position, rescaling and time of one frame.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Slice {
    /// Index of the frame in its file, from 0.
    pub frame: usize,
    pub rows: usize,
    pub columns: usize,
    /// Centre of the first voxel, LPS mm.
    pub position: Option<[f64; 3]>,
    /// Unit vector along a row, then along a column.
    pub orientation: Option<[f64; 6]>,
    /// How far the direction cosines in the file were from orthogonal unit vectors: the largest
    /// deviation of a length from 1 or of their product from 0.
    pub direction_error: f64,
    /// Distance between rows, then between columns, mm.
    pub pixel_spacing: Option<[f64; 2]>,
    pub slice_location: Option<f64>,
    pub slice_step_mm: Option<f64>,
    pub thickness_mm: Option<f64>,
    /// Row and column of the first pixel in its frame, when the frame is a mosaic of slices.
    pub tile: Option<[usize; 2]>,
    pub slope: f64,
    pub intercept: f64,
    pub instance_number: Option<i64>,
    pub time: TimeKeys,
}

/// Attributes that distinguish the volumes of one series.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TimeKeys {
    pub image_type: String,
    /// Hundredths of a millisecond.
    pub echo_time: Option<i64>,
    pub echo_number: Option<i64>,
    /// s/mm².
    pub b_value: Option<i64>,
    /// Tube voltage, tenths of a kilovolt.
    pub kvp: Option<i64>,
    /// Whether a contrast agent is named.
    pub contrast: bool,
    pub series_number: Option<i64>,
    pub temporal_position: Option<i64>,
    /// Hundredths of a millisecond.
    pub trigger_time: Option<i64>,
    pub stack: String,
    pub acquisition: Option<i64>,
}

/// Attributes of the series and the patient. Free text serves only to guess the modality and never
/// enters a message.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Hints {
    pub modality: String,
    /// Series description, protocol name, sequence name and acquisition contrast, in lower case.
    pub text: String,
    pub scanning_sequence: String,
    pub contrast: bool,
    pub angio: bool,
    pub echo_time_ms: Option<f64>,
    pub repetition_time_ms: Option<f64>,
    pub inversion_time_ms: Option<f64>,
    pub age_years: Option<f32>,
    pub sex: Option<Sex>,
}

/// Why a file has no usable image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum HeaderError {
    #[error("its header cannot be parsed ({reason}); export the file again")]
    Parse { reason: String },
    #[error("it has no pixel data")]
    NoPixels,
    #[error("its header lacks {name} or has an invalid value of it")]
    Attribute { name: &'static str },
    #[error(
        "it holds {available} bytes of pixel data where {expected} are declared; the file is truncated, copy it again"
    )]
    Short { expected: u64, available: u64 },
    #[error("its frame is a mosaic of slices, which cannot be taken apart without {name}; export it as single slices")]
    Mosaic { name: &'static str },
    #[error("it holds {held} of {declared} declared frames; the file is truncated, copy it again")]
    MissingFrames { declared: u64, held: u64 },
}

impl Instance {
    /// Reads the header of a file.
    ///
    /// # Errors
    /// [`HeaderError`] when it cannot be parsed, or does not describe usable pixel data.
    pub fn of(structure: &DicomStructure) -> Result<Self, HeaderError> {
        if structure.pixels == Pixels::Absent {
            return Err(HeaderError::NoPixels);
        }
        let obj = parse(structure.header(), structure.encoding)?;
        let pixels = pixel_format(&obj, &structure.pixels)?;
        let frames = frame_count(&obj, &pixels, &structure.pixels)?;
        let shared = item(&obj, tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE);
        let per_frame = obj.get(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE).and_then(|e| e.items());
        let slices: Vec<Slice> = (0..frames)
            .map(|frame| {
                let own = per_frame.and_then(|items| items.get(frame));
                slice(&FunctionalGroups { top: &obj, shared, own }, frame, frames, &pixels)
            })
            .collect();
        let slices = match mosaic(&obj)? {
            None => slices,
            Some(mosaic) => {
                let tiles = slices.iter().map(|frame| mosaic.slices(frame));
                tiles.collect::<Result<Vec<_>, _>>().map_err(|name| HeaderError::Mosaic { name })?.concat()
            }
        };
        Ok(Self {
            series_uid: text(&obj, tags::SERIES_INSTANCE_UID).unwrap_or_default(),
            sop_uid: text(&obj, tags::SOP_INSTANCE_UID).unwrap_or_default(),
            hints: hints(&obj),
            pixels,
            slices,
        })
    }
}

impl PixelFormat {
    /// Size of an uncompressed frame, bytes.
    pub fn frame_bytes(&self) -> u64 {
        (self.rows * self.columns) as u64 * self.samples as u64 * self.bits_allocated as u64 / 8
    }
}

/// Parses a header.
fn parse(header: &[u8], encoding: DataSetEncoding) -> Result<InMemDicomObject, HeaderError> {
    let syntax = match (encoding.explicit, encoding.big_endian) {
        (false, _) => entries::IMPLICIT_VR_LITTLE_ENDIAN.erased(),
        (true, false) => entries::EXPLICIT_VR_LITTLE_ENDIAN.erased(),
        (true, true) => entries::EXPLICIT_VR_BIG_ENDIAN.erased(),
    };
    panics::catch(|| InMemDicomObject::read_dataset_with_ts(header, &syntax))
        .map_err(|reason| HeaderError::Parse { reason })?
        .map_err(|e| HeaderError::Parse { reason: e.to_string() })
}

/// Pixel format from the header; floating-point pixel data determines its own depth.
fn pixel_format(obj: &InMemDicomObject, pixels: &Pixels) -> Result<PixelFormat, HeaderError> {
    let count = |tag: Tag, name: &'static str, most: i64| {
        integer(obj, tag).filter(|&n| n > 0 && n <= most).map(|n| n as usize).ok_or(HeaderError::Attribute { name })
    };
    let samples = integer(obj, tags::SAMPLES_PER_PIXEL).unwrap_or(1);
    let samples = match samples {
        1 | 3 => samples as usize,
        _ => return Err(HeaderError::Attribute { name: "SamplesPerPixel (1 or 3)" }),
    };
    let bits_allocated = match pixels {
        Pixels::Float { bytes, .. } => bytes * 8,
        _ => count(tags::BITS_ALLOCATED, "BitsAllocated", 64)?,
    };
    let bits_stored = integer(obj, tags::BITS_STORED).filter(|n| (1..=bits_allocated as i64).contains(n));
    let colour = match text(obj, tags::PHOTOMETRIC_INTERPRETATION).unwrap_or_default().as_str() {
        "MONOCHROME1" => Colour::Monochrome1,
        "RGB" | "YBR_RCT" | "YBR_ICT" => Colour::Rgb,
        name if name.starts_with("YBR") => Colour::Ybr,
        "PALETTE COLOR" => Colour::Unsupported,
        _ if samples == 3 => Colour::Rgb,
        _ => Colour::Monochrome2,
    };
    Ok(PixelFormat {
        rows: count(tags::ROWS, "Rows", 65_535)?,
        columns: count(tags::COLUMNS, "Columns", 65_535)?,
        samples,
        bits_allocated,
        bits_stored: bits_stored.unwrap_or(bits_allocated as i64) as usize,
        signed: integer(obj, tags::PIXEL_REPRESENTATION) == Some(1),
        planar: integer(obj, tags::PLANAR_CONFIGURATION) == Some(1),
        colour,
    })
}

/// Number of frames: from the header if the pixel data is large enough, else from its size.
fn frame_count(obj: &InMemDicomObject, format: &PixelFormat, pixels: &Pixels) -> Result<usize, HeaderError> {
    let declared = integer(obj, tags::NUMBER_OF_FRAMES).filter(|&n| n > 0).map(|n| n as u64);
    let (available, frame_bytes) = match pixels {
        Pixels::Native { range, .. } | Pixels::Float { range, .. } => (range.len() as u64, format.frame_bytes()),
        Pixels::Encapsulated { fragments, .. } => (fragments.len() as u64, 1),
        Pixels::Absent => (0, 1),
    };
    let held = available / frame_bytes.max(1);
    match declared {
        Some(n) if n <= held => Ok(n as usize),
        // Without a frame count, a compressed stream is one frame in any number of fragments,
        // unless the header describes more frames.
        None if matches!(pixels, Pixels::Encapsulated { .. }) && held >= 1 => {
            let listed =
                obj.get(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE).and_then(|e| e.items()).map_or(1, |i| i.len());
            Ok(listed.clamp(1, held as usize))
        }
        None if held >= 1 => Ok(held as usize),
        Some(declared) if matches!(pixels, Pixels::Encapsulated { .. }) => {
            Err(HeaderError::MissingFrames { declared, held })
        }
        _ => Err(HeaderError::Short { expected: declared.unwrap_or(1).saturating_mul(frame_bytes), available }),
    }
}

/// The mosaic that the frames of a file are, if they are one.
fn mosaic(obj: &InMemDicomObject) -> Result<Option<Mosaic>, HeaderError> {
    let missing = |name| HeaderError::Mosaic { name };
    if integer(obj, UIH_GRID_SLICES).is_some_and(|n| n > 1) {
        return Err(missing("the layout of United Imaging's grids"));
    }
    let image_type = text(obj, tags::IMAGE_TYPE).unwrap_or_default();
    if !image_type.split('\\').any(|value| value == "MOSAIC") {
        return Ok(None);
    }
    let csa = primitive(obj, SIEMENS_CSA_IMAGE).and_then(|e| e.to_bytes().ok());
    Mosaic::of(integer(obj, SIEMENS_MOSAIC_SLICES), csa.as_deref()).map(Some).map_err(missing)
}

/// The three data sets in which an attribute of a frame may be, most specific first.
struct FunctionalGroups<'a> {
    own: Option<&'a InMemDicomObject>,
    shared: Option<&'a InMemDicomObject>,
    top: &'a InMemDicomObject,
}

impl FunctionalGroups<'_> {
    /// The attribute from the functional group, or else from the top level.
    fn find<T>(&self, group: Tag, get: impl Fn(&InMemDicomObject) -> Option<T>) -> Option<T> {
        let inside = |set: Option<&InMemDicomObject>| set.and_then(|s| item(s, group)).and_then(&get);
        inside(self.own).or_else(|| inside(self.shared)).or_else(|| get(self.top))
    }
}

/// Position, rescaling and time of one frame.
fn slice(groups: &FunctionalGroups, frame: usize, frames: usize, pixels: &PixelFormat) -> Slice {
    let transformation = |tag| groups.find(tags::PIXEL_VALUE_TRANSFORMATION_SEQUENCE, |s| number(s, tag));
    let content = |tag| groups.find(tags::FRAME_CONTENT_SEQUENCE, |s| integer(s, tag));
    let measures = |tag| groups.find(tags::PIXEL_MEASURES_SEQUENCE, |s| number(s, tag));
    let positive = |v: &f64| *v > 0.0 && *v < 1e4;
    let spacing = groups
        .find(tags::PIXEL_MEASURES_SEQUENCE, |s| numbers::<2>(s, tags::PIXEL_SPACING))
        .or_else(|| numbers::<2>(groups.top, tags::IMAGER_PIXEL_SPACING));
    let echo = groups
        .find(tags::MR_ECHO_SEQUENCE, |s| number(s, tags::EFFECTIVE_ECHO_TIME))
        .or_else(|| number(groups.top, tags::ECHO_TIME));
    let image_type = groups
        .find(tags::MR_IMAGE_FRAME_TYPE_SEQUENCE, |s| {
            let frame_type = text(s, tags::FRAME_TYPE)?;
            Some(frame_type + "\\" + &text(s, tags::COMPLEX_IMAGE_COMPONENT).unwrap_or_default())
        })
        .or_else(|| text(groups.top, tags::IMAGE_TYPE));
    // A multi-frame file without functional groups has one position, that of its first frame.
    let position = match (groups.own, frames) {
        (None, 2..) => None,
        _ => groups.find(tags::PLANE_POSITION_SEQUENCE, |s| numbers::<3>(s, tags::IMAGE_POSITION_PATIENT)),
    };
    let trigger = groups
        .find(tags::CARDIAC_SYNCHRONIZATION_SEQUENCE, |s| number(s, tags::NOMINAL_CARDIAC_TRIGGER_DELAY_TIME))
        .or_else(|| number(groups.top, tags::TRIGGER_TIME));
    let b_value = groups.find(tags::MR_DIFFUSION_SEQUENCE, |s| number(s, tags::DIFFUSION_B_VALUE));
    let cosines = groups.find(tags::PLANE_ORIENTATION_SEQUENCE, |s| numbers::<6>(s, tags::IMAGE_ORIENTATION_PATIENT));
    let hundredths = |ms: f64| (ms * 100.0).round() as i64;
    Slice {
        frame,
        rows: pixels.rows,
        columns: pixels.columns,
        position,
        orientation: cosines.and_then(orthonormal),
        direction_error: cosines.map_or(0.0, direction_error),
        pixel_spacing: spacing.filter(|s| s.iter().all(positive)),
        slice_location: if frames == 1 { number(groups.top, tags::SLICE_LOCATION) } else { None },
        slice_step_mm: measures(tags::SPACING_BETWEEN_SLICES)
            .map(f64::abs)
            .filter(positive)
            .or_else(|| measures(tags::SLICE_THICKNESS).filter(positive)),
        thickness_mm: measures(tags::SLICE_THICKNESS).filter(positive),
        tile: None,
        slope: transformation(tags::RESCALE_SLOPE).filter(|&s| s != 0.0).unwrap_or(1.0),
        intercept: transformation(tags::RESCALE_INTERCEPT).unwrap_or(0.0),
        instance_number: integer(groups.top, tags::INSTANCE_NUMBER),
        time: TimeKeys {
            image_type: image_type.unwrap_or_default(),
            echo_time: echo.map(hundredths),
            echo_number: integer(groups.top, tags::ECHO_NUMBERS),
            b_value: b_value.map(|b| b.round() as i64),
            kvp: number(groups.top, tags::KVP).map(|kv| (kv * 10.0).round() as i64),
            contrast: text(groups.top, tags::CONTRAST_BOLUS_AGENT).is_some_and(|agent| !agent.is_empty()),
            series_number: integer(groups.top, tags::SERIES_NUMBER),
            trigger_time: trigger.map(hundredths),
            temporal_position: content(tags::TEMPORAL_POSITION_INDEX)
                .or_else(|| integer(groups.top, tags::TEMPORAL_POSITION_IDENTIFIER)),
            stack: groups.find(tags::FRAME_CONTENT_SEQUENCE, |s| text(s, tags::STACK_ID)).unwrap_or_default(),
            acquisition: content(tags::FRAME_ACQUISITION_NUMBER)
                .or_else(|| integer(groups.top, tags::ACQUISITION_NUMBER)),
        },
    }
}

/// The largest deviation of two vectors from orthogonal unit vectors.
fn direction_error(v: [f64; 6]) -> f64 {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let (row, column) = v.split_at(3);
    let off_unit = |a: &[f64]| (dot(a, a).sqrt() - 1.0).abs();
    off_unit(row).max(off_unit(column)).max(dot(row, column).abs())
}

/// The two vectors normalised, or `None` unless they have a length and are nearly orthogonal.
fn orthonormal(v: [f64; 6]) -> Option<[f64; 6]> {
    let unit = |a: [f64; 3]| {
        let length = a.iter().map(|x| x * x).sum::<f64>().sqrt();
        (1e-3..1e3).contains(&length).then(|| a.map(|x| x / length))
    };
    let row = unit([v[0], v[1], v[2]])?;
    let column = unit([v[3], v[4], v[5]])?;
    let cosine: f64 = row.iter().zip(column).map(|(a, b)| a * b).sum();
    // Beyond rounding, the row is kept and the column made orthogonal to it.
    let column = if cosine.abs() > 1e-4 { unit(std::array::from_fn(|i| column[i] - cosine * row[i]))? } else { column };
    (cosine.abs() < 0.05).then(|| [row[0], row[1], row[2], column[0], column[1], column[2]])
}

/// Attributes of the series and the patient.
fn hints(obj: &InMemDicomObject) -> Hints {
    let texts = [tags::SERIES_DESCRIPTION, tags::PROTOCOL_NAME, tags::SEQUENCE_NAME, tags::ACQUISITION_CONTRAST];
    let texts: Vec<String> = texts.iter().filter_map(|&tag| text(obj, tag)).collect();
    Hints {
        modality: text(obj, tags::MODALITY).unwrap_or_default(),
        text: texts.join(" ").to_lowercase(),
        scanning_sequence: text(obj, tags::SCANNING_SEQUENCE).unwrap_or_default(),
        contrast: text(obj, tags::CONTRAST_BOLUS_AGENT).is_some_and(|agent| !agent.is_empty()),
        angio: text(obj, tags::ANGIO_FLAG).as_deref() == Some("Y"),
        echo_time_ms: number(obj, tags::ECHO_TIME),
        repetition_time_ms: number(obj, tags::REPETITION_TIME),
        inversion_time_ms: number(obj, tags::INVERSION_TIME),
        age_years: text(obj, tags::PATIENT_AGE).and_then(|age| parse_age(&age)),
        sex: match text(obj, tags::PATIENT_SEX).as_deref() {
            Some("F") => Some(Sex::Female),
            Some("M") => Some(Sex::Male),
            _ => None,
        },
    }
}

/// Age in years from a string such as `045Y`, `18M`, `003W` or `010D`; a number without a unit is
/// in years.
pub(super) fn parse_age(age: &str) -> Option<f32> {
    let age = age.trim();
    let digits = age.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let per_year = match &age[digits.len()..] {
        "Y" | "" => 1.0,
        "M" => 12.0,
        "W" => 52.18,
        "D" => 365.25,
        _ => return None,
    };
    let years = digits.parse::<u16>().ok()? as f32 / per_year;
    (years <= 130.0).then_some(years)
}

/// First item of a sequence.
fn item(obj: &InMemDicomObject, tag: Tag) -> Option<&InMemDicomObject> {
    obj.get(tag)?.items()?.first()
}

/// An element that is not a sequence.
fn primitive(obj: &InMemDicomObject, tag: Tag) -> Option<&InMemElement> {
    obj.get(tag).filter(|e| matches!(e.value(), DicomValue::Primitive(_)))
}

fn text(obj: &InMemDicomObject, tag: Tag) -> Option<String> {
    let text = primitive(obj, tag)?.to_str().ok()?;
    Some(text.trim_matches(['\0', ' ']).to_owned())
}

fn integer(obj: &InMemDicomObject, tag: Tag) -> Option<i64> {
    let element = primitive(obj, tag)?;
    element.to_int::<i64>().ok().or_else(|| number(obj, tag).map(|v| v as i64))
}

fn number(obj: &InMemDicomObject, tag: Tag) -> Option<f64> {
    primitive(obj, tag)?.to_float64().ok().filter(|v| v.is_finite())
}

fn numbers<const N: usize>(obj: &InMemDicomObject, tag: Tag) -> Option<[f64; N]> {
    let values = primitive(obj, tag)?.to_multi_float64().ok()?;
    <[f64; N]>::try_from(values).ok().filter(|v| v.iter().all(|x| x.is_finite()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages() {
        for (age, years) in [("045Y", Some(45.0)), ("018M", Some(1.5)), ("67", Some(67.0)), ("", None), ("999Y", None)]
        {
            assert_eq!(parse_age(age), years, "{age}");
        }
    }

    #[test]
    fn orientation_must_be_two_orthogonal_unit_vectors() {
        assert!(orthonormal([1.0, 0.0, 0.0, 0.0, 1.0, 0.0]).is_some());
        assert!(orthonormal([1.0, 0.0, 0.0, 1.0, 0.0, 0.0]).is_none());
        assert!(orthonormal([0.0; 6]).is_none());
    }
}
