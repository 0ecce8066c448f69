//! From pixel data to one grey value per voxel.
//!
//! Native pixels are read here, RLE in `rle`, and other compressed streams in `codecs`. How a
//! stream is compressed is decided by the stream itself; the transfer syntax only decides between
//! RLE and uncompressed fragments, which have no signature.

use std::borrow::Cow;
use std::ops::Range;

use dicom_dictionary_std::uids;

use super::codecs;
use super::file_error::DecodeError;
use super::frames::{Division, frame_stream};
use super::notes::{Note, Notes};
use super::pixel_format::PixelFormat;
use super::slices::Slice;
use super::streams::StreamHeader;
use super::structure::{DicomStructure, Pixels};
use super::syntax::{is_native, syntax_name};
use super::values::{FrameSamples, SampleKind, write_values};

/// Decodes one frame into `out`: rows x columns values after slope and intercept. Returns what was
/// repaired.
///
/// # Errors
/// [`DecodeError`] when the frame is damaged, too short or in an unsupported format.
pub(super) fn decode_frame(
    structure: &DicomStructure,
    format: &PixelFormat,
    slice: &Slice,
    frames: usize,
    out: &mut [f32],
) -> Result<Notes, DecodeError> {
    let mut notes = Notes::new();
    let samples = frame_samples(structure, format, slice.frame, frames, &mut notes)?;
    notes.extend(write_frame(&samples, format, slice, out)?);
    Ok(notes)
}

/// As [`decode_frame`], from the bytes of an uncompressed frame.
///
/// # Errors
/// As [`decode_frame`].
pub(super) fn decode_native(
    data: &[u8],
    big_endian: bool,
    format: &PixelFormat,
    slice: &Slice,
    out: &mut [f32],
) -> Result<Notes, DecodeError> {
    let samples = FrameSamples {
        data: Cow::Borrowed(data),
        bits: format.bits_allocated,
        kind: SampleKind::Native,
        big_endian,
        planar: format.planar,
        colour: format.colour,
    };
    write_frame(&samples, format, slice, out)
}

fn write_frame(
    samples: &FrameSamples,
    format: &PixelFormat,
    slice: &Slice,
    out: &mut [f32],
) -> Result<Notes, DecodeError> {
    let expected = (format.samples_per_frame() * samples.bits / 8) as u64;
    if (samples.data.len() as u64) < expected {
        let got = samples.data.len() as u64;
        return Err(DecodeError::Short { frame: slice.frame, expected, got });
    }
    write_values(samples, format, slice, out)
}

/// The uncompressed samples of one frame.
fn frame_samples<'a>(
    structure: &'a DicomStructure,
    format: &PixelFormat,
    frame: usize,
    frames: usize,
    notes: &mut Notes,
) -> Result<FrameSamples<'a>, DecodeError> {
    let size = format.frame_bytes() as usize;
    let native = |range: &Range<usize>| {
        let start = frame.saturating_mul(size).saturating_add(range.start).min(range.end);
        Cow::Borrowed(&structure.dataset[start..start.saturating_add(size).min(range.end)])
    };
    let samples = |data, kind, big_endian| FrameSamples {
        data,
        bits: format.bits_allocated,
        kind,
        big_endian,
        planar: format.planar,
        colour: format.colour,
    };
    match &structure.pixels {
        Pixels::Absent => Err(DecodeError::Damaged { reason: "no pixel data".into() }),
        Pixels::Float { range, .. } => Ok(samples(native(range), SampleKind::Float, structure.big_endian)),
        Pixels::Native { range, words } => {
            let data = native(range);
            // Bytes written as big-endian words are swapped in pairs, which may reach across
            // frames.
            let data = if structure.big_endian && *words && format.bits_allocated == 8 {
                let (all, start) = (&structure.dataset[range.clone()], frame.saturating_mul(size));
                (start..start + data.len()).map(|i| all.get(i ^ 1).copied().unwrap_or_default()).collect()
            } else {
                data
            };
            Ok(samples(data, SampleKind::Native, structure.big_endian))
        }
        Pixels::Encapsulated { offsets, fragments } => {
            let joined = frame_stream(&structure.dataset, offsets, fragments, frame, frames);
            let (stream, division) = joined.map_err(|e| DecodeError::Damaged { reason: e.to_string() })?;
            if division == Division::ByStreams {
                notes.insert(Note::NoOffsetTable);
            }
            let syntax = structure.syntax.as_str();
            let is_uncompressed = syntax == uids::ENCAPSULATED_UNCOMPRESSED_EXPLICIT_VR_LITTLE_ENDIAN;
            match (StreamHeader::of(&stream), syntax) {
                _ if is_uncompressed => Ok(samples(stream, SampleKind::Native, false)),
                (Some(header), _) => {
                    let header = header.map_err(|reason| DecodeError::Damaged { reason: reason.into() })?;
                    if is_native(syntax) || syntax == uids::RLE_LOSSLESS {
                        notes.insert(Note::OtherCodec);
                    }
                    codecs::decode(&stream, header, format)
                }
                (None, uids::RLE_LOSSLESS) => codecs::decode_rle(&stream, format),
                (None, _) => Err(DecodeError::UnsupportedSyntax { name: syntax_name(syntax) }),
            }
        }
    }
}
