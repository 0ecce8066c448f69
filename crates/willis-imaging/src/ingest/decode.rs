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
            let all = &structure.dataset[range.clone()];
            // Bytes written as big-endian words are swapped in pairs, which may reach across
            // frames.
            let is_swapped = structure.big_endian && *words && format.bits_allocated <= 8;
            let byte = |i: usize| all.get(if is_swapped { i ^ 1 } else { i }).copied().unwrap_or_default();
            if format.bits_allocated == 1 {
                let (first, count) = (frame.saturating_mul(format.samples_per_frame()), format.samples_per_frame());
                let bits = (first..first.saturating_add(count)).map(|i| byte(i / 8) >> (i % 8) & 1).collect();
                return Ok(FrameSamples { bits: 8, ..samples(bits, SampleKind::Native, false) });
            }
            let data = if is_swapped {
                let start = frame.saturating_mul(size);
                (start..start.saturating_add(size).min(all.len())).map(byte).collect()
            } else {
                native(range)
            };
            let data = if format.subsampled { expanded(&data, format) } else { data };
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

/// Y, Cb and Cr of every pixel, from two Y, one Cb and one Cr for each two pixels of a row.
fn expanded<'a>(data: &[u8], format: &PixelFormat) -> Cow<'a, [u8]> {
    let mut out = Vec::with_capacity(format.samples_per_frame());
    for row in data.chunks(2 * format.columns.next_multiple_of(2)) {
        for pixel in 0..format.columns {
            let at = |i: usize| row.get(4 * (pixel / 2) + i).copied().unwrap_or_default();
            out.extend([at(pixel % 2), at(2), at(3)]);
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::super::pixel_format::Colour;
    use super::*;

    fn format(bits_allocated: usize, samples: usize, columns: usize) -> PixelFormat {
        PixelFormat {
            rows: 2,
            columns,
            samples,
            bits_allocated,
            bits_stored: bits_allocated,
            high_bit: bits_allocated - 1,
            signed: false,
            planar: false,
            subsampled: samples == 3,
            colour: if samples == 3 { Colour::Ybr } else { Colour::Monochrome2 },
            padding: None,
            palette: None,
            modality_lut: None,
        }
    }

    /// A frame of a file whose pixels are the given bytes.
    fn frame(pixels: &[u8], format: &PixelFormat, frame: usize, big_endian: bool) -> Vec<f32> {
        let syntax = if big_endian { super::super::structure::BIG_ENDIAN } else { uids::EXPLICIT_VR_LITTLE_ENDIAN };
        let mut file = [&[0; 128], &b"DICM\x02\x00\x10\x00UI"[..], &(syntax.len() as u16).to_le_bytes()].concat();
        file.extend(syntax.bytes());
        let length = pixels.len() as u32;
        if big_endian {
            file.extend([&b"\x7f\xe0\x00\x10OW\0\0"[..], &length.to_be_bytes()].concat());
        } else {
            file.extend([&b"\xe0\x7f\x10\x00OW\0\0"[..], &length.to_le_bytes()].concat());
        }
        file.extend(pixels);
        let structure = DicomStructure::of(&file, 1000).unwrap();
        let mut out = vec![-1.0; format.rows * format.columns];
        let slice = Slice { frame, slope: 1.0, ..Slice::default() };
        decode_frame(&structure, format, &slice, 2, &mut out).unwrap();
        out
    }

    #[test]
    fn single_bits_are_read_from_the_lowest_across_bytes() {
        let format = format(1, 1, 5);
        // Frames of ten bits.
        let bytes = [0b1010_0110, 0b0000_0101, 0b0000_1111, 0];
        let swapped = [bytes[1], bytes[0], bytes[3], bytes[2]];
        for (bytes, big_endian) in [(bytes, false), (swapped, true)] {
            assert_eq!(frame(&bytes, &format, 0, big_endian), [0., 1., 1., 0., 0., 1., 0., 1., 1., 0.]);
            assert_eq!(frame(&bytes, &format, 1, big_endian), [1., 0., 0., 0., 0., 0., 1., 1., 1., 1.]);
        }
    }

    #[test]
    fn pixels_that_share_colours_keep_their_own_luminance() {
        let even = [10, 20, 128, 129, 30, 40, 130, 131];
        assert_eq!(frame(&even, &format(8, 3, 2), 0, false), [10., 20., 30., 40.]);
        let odd = [1, 2, 128, 128, 3, 0, 128, 128, 4, 5, 128, 128, 6, 0, 128, 128];
        assert_eq!(frame(&odd, &format(8, 3, 3), 0, false), [1., 2., 3., 4., 5., 6.]);
    }
}
