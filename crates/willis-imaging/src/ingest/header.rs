//! The header of one DICOM file: pixel format, frames, and attributes of the series and the
//! patient.
//!
//! Classic files have one frame; enhanced files have many, described by the shared and per-frame
//! functional groups (PS3.3 C.7.6.16). No value is guessed here: a missing one stays `None`.

use dicom_core::Tag;
use dicom_dictionary_std::tags;
use willis_core::Sex;

use super::attributes::{DataSet, bytes, integer, item, number, private_decimal, private_short, text};
use super::file_error::HeaderError;
use super::mosaic::Mosaic;
use super::notes::{Note, Notes};
use super::pixel_format::{Colour, PixelFormat};
use super::slices::{FunctionalGroups, Slice, slice};
use super::structure::{DicomStructure, Pixels};
use super::syntax::PixelEncoding;

/// A file may have this many frames whatever its size, and one more for each [`FRAME_BYTES`].
const MAX_SMALL_FRAMES: u64 = 1024;
/// Minimum size of a frame of a file of many frames, with what the header says about it, bytes.
const FRAME_BYTES: u64 = 512;

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
    pub sop_class: String,
    pub pixels: PixelFormat,
    /// Where the frames are, if they can be read without the rest of the file.
    pub place: Option<FramePlace>,
    /// Whether its values are floating point.
    pub is_float: bool,
    pub slices: Vec<Slice>,
    pub hints: Hints,
    /// What was repaired or assumed.
    pub notes: Notes,
}

/// Where the frames of a file are that are stored uncompressed, one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FramePlace {
    /// Offset of the first frame in the file.
    pub start: u64,
    pub big_endian: bool,
    pub file_bytes: u64,
}

impl FramePlace {
    fn of(structure: &DicomStructure, format: &PixelFormat) -> Option<Self> {
        let Pixels::Native { range, words } = &structure.pixels else { return None };
        // Bytes that were written as big-endian words are swapped in pairs, across frames.
        let swapped = structure.big_endian && *words && format.bits_allocated == 8;
        if swapped || format.subsampled || !format.bits_allocated.is_multiple_of(8) {
            return None;
        }
        let dataset_start = structure.dataset_start?;
        Some(Self {
            start: (dataset_start + range.start) as u64,
            big_endian: structure.big_endian,
            file_bytes: (dataset_start + structure.dataset_bytes) as u64,
        })
    }
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

impl Instance {
    /// Reads the header of a file.
    ///
    /// # Errors
    /// [`HeaderError`] when it does not describe usable pixel data.
    pub fn of(structure: &DicomStructure) -> Result<Self, HeaderError> {
        let set = structure.header();
        let mut notes = Notes::new();
        let pixels = PixelFormat::of(&set, &structure.pixels, &mut notes)?;
        let encoding = PixelEncoding::of(structure).map_err(|name| HeaderError::Syntax { name })?;
        let frames = frame_count(&set, &pixels, &structure.pixels)?;
        if frames as u64 > MAX_SMALL_FRAMES + structure.dataset_bytes as u64 / FRAME_BYTES {
            return Err(HeaderError::TooManyFrames { declared: frames });
        }
        let shared = item(&set, tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE);
        let slices: Vec<Slice> = (0..frames)
            .map(|frame| {
                let own = set.item(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE, frame);
                slice(&FunctionalGroups { top: set, shared, own }, frame, frames, &pixels, &mut notes)
            })
            .collect();
        let slices = match mosaic(&set)? {
            None => slices,
            Some(mosaic) => {
                let tiles = slices.iter().map(|frame| mosaic.slices(frame));
                tiles.collect::<Result<Vec<_>, _>>().map_err(|name| HeaderError::Mosaic { name })?.concat()
            }
        };
        let hints = hints(&set);
        let repairs = [
            (Note::Mislabelled, structure.is_mislabelled),
            (Note::OtherCodec, encoding == PixelEncoding::NativeDespiteSyntax),
            (Note::DecimalComma, set.has_decimal_comma()),
            (Note::Monochrome1Ct, hints.modality == "CT" && pixels.colour == Colour::Monochrome1),
        ];
        notes.extend(repairs.into_iter().filter(|(_, applies)| *applies).map(|(note, _)| note));
        Ok(Self {
            series_uid: text(&set, tags::SERIES_INSTANCE_UID).unwrap_or_default(),
            sop_uid: text(&set, tags::SOP_INSTANCE_UID).unwrap_or_default(),
            sop_class: text(&set, tags::SOP_CLASS_UID).unwrap_or_default(),
            place: FramePlace::of(structure, &pixels),
            is_float: matches!(structure.pixels, Pixels::Float { .. }),
            pixels: without_inversion(pixels, &hints),
            hints,
            slices,
            notes,
        })
    }
}

/// MONOCHROME1 says that small values are displayed white. It does not change the values (PS3.3
/// C.7.6.3.1.2), so HU stay as they are. Other modalities have no such scale, and their values are
/// inverted so that tissue is as bright as on the display.
fn without_inversion(pixels: PixelFormat, hints: &Hints) -> PixelFormat {
    match (pixels.colour, hints.modality.as_str()) {
        (Colour::Monochrome1, "CT") => PixelFormat { colour: Colour::Monochrome2, ..pixels },
        _ => pixels,
    }
}

/// Number of frames: from the header if the pixel data is large enough, else from its size.
fn frame_count(obj: &DataSet, format: &PixelFormat, pixels: &Pixels) -> Result<usize, HeaderError> {
    let declared = integer(obj, tags::NUMBER_OF_FRAMES).filter(|&n| n > 0).map(|n| n as u64);
    // Uncompressed frames are counted in bits, compressed ones in fragments.
    let (available, frame_size) = match pixels {
        Pixels::Native { range, .. } | Pixels::Float { range, .. } => (range.len() as u64 * 8, format.frame_bits()),
        Pixels::Encapsulated { fragments, .. } => (fragments.len() as u64, 1),
        Pixels::Absent => (0, 1),
    };
    let held = available / frame_size.max(1);
    match declared {
        Some(n) if n <= held => Ok(n as usize),
        // Without a frame count, a compressed stream is one frame in any number of fragments,
        // unless the header describes more frames.
        None if matches!(pixels, Pixels::Encapsulated { .. }) && held >= 1 => {
            let listed = obj.item_count(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE);
            Ok(listed.clamp(1, held as usize))
        }
        None if held >= 1 => Ok(held as usize),
        Some(declared) if matches!(pixels, Pixels::Encapsulated { .. }) => {
            Err(HeaderError::MissingFrames { declared, held })
        }
        _ => {
            let expected = declared.unwrap_or(1).saturating_mul(frame_size).div_ceil(8);
            Err(HeaderError::Short { expected, available: available / 8 })
        }
    }
}

/// The mosaic that the frames of a file are, if they are one.
fn mosaic(obj: &DataSet) -> Result<Option<Mosaic>, HeaderError> {
    let missing = |name| HeaderError::Mosaic { name };
    if private_decimal(obj, UIH_GRID_SLICES).is_some_and(|n| n > 1.0) {
        return Err(missing("the layout of United Imaging's grids"));
    }
    let image_type = text(obj, tags::IMAGE_TYPE).unwrap_or_default();
    if !image_type.split('\\').any(|value| value == "MOSAIC") {
        return Ok(None);
    }
    let number = private_short(obj, SIEMENS_MOSAIC_SLICES).map(i64::from);
    Mosaic::of(number, bytes(obj, SIEMENS_CSA_IMAGE)).map(Some).map_err(missing)
}

/// Attributes of the series and the patient.
fn hints(obj: &DataSet) -> Hints {
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
}
