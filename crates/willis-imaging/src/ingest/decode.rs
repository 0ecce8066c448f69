//! From pixel data to one grey value per voxel.
//!
//! Native pixels are read here and RLE in `rle`. JPEG and JPEG 2000 streams are decoded by
//! dicom-rs, one frame at a time and behind a panic barrier, because its decoders panic on damaged
//! streams.

use std::borrow::Cow;
use std::ops::Range;

use dicom_core::value::C;
use dicom_dictionary_std::uids;
use dicom_encoding::adapters::{PixelDataObject, RawPixelData};
use dicom_encoding::transfer_syntax::{Codec, TransferSyntaxIndex};
use dicom_transfer_syntax_registry::TransferSyntaxRegistry;

use super::header::{Colour, PixelFormat, Slice};
use super::panics;
use super::rle;
use super::structure::{DicomStructure, Pixels};

/// Why a frame cannot be decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum DecodeError {
    #[error(
        "its transfer syntax {name} cannot be decoded; convert the series to uncompressed (dcmdjpeg, gdcmconv --raw)"
    )]
    UnsupportedSyntax { name: String },
    #[error("its pixels ({what}) are not supported; export the series as greyscale of 8, 16 or 32 bits")]
    UnsupportedPixels { what: String },
    #[error("its pixel data cannot be decoded ({reason}); export the file again, uncompressed")]
    Damaged { reason: String },
    #[error("frame {frame} holds {got} bytes where {expected} are needed; the file is truncated, copy it again")]
    Short { frame: usize, expected: u64, got: u64 },
}

/// Decodes one frame into `out`: rows x columns values after slope and intercept.
///
/// # Errors
/// [`DecodeError`] when the frame is damaged, too short or in an unsupported format.
pub(super) fn decode_frame(
    structure: &DicomStructure,
    format: &PixelFormat,
    slice: &Slice,
    frames: usize,
    out: &mut [f32],
) -> Result<(), DecodeError> {
    let bytes = frame_bytes(structure, format, slice.frame, frames)?;
    if (bytes.data.len() as u64) < format.frame_bytes() {
        let got = bytes.data.len() as u64;
        return Err(DecodeError::Short { frame: slice.frame, expected: format.frame_bytes(), got });
    }
    write_values(&bytes, format, slice, out)
}

/// Uncompressed samples of one frame.
struct FrameSamples<'a> {
    data: Cow<'a, [u8]>,
    big_endian: bool,
    planar: bool,
    float: bool,
    colour: Colour,
}

/// The uncompressed samples of one frame.
fn frame_bytes<'a>(
    structure: &'a DicomStructure,
    format: &PixelFormat,
    frame: usize,
    frames: usize,
) -> Result<FrameSamples<'a>, DecodeError> {
    let size = format.frame_bytes() as usize;
    let native = |range: &Range<usize>| {
        let start = frame.saturating_mul(size).saturating_add(range.start).min(range.end);
        Cow::Borrowed(&structure.dataset[start..start.saturating_add(size).min(range.end)])
    };
    let samples = |data, float, big_endian| FrameSamples {
        data,
        big_endian,
        planar: format.planar,
        float,
        colour: format.colour,
    };
    match &structure.pixels {
        Pixels::Absent => Err(DecodeError::Damaged { reason: "no pixel data".into() }),
        Pixels::Float { range, .. } => Ok(samples(native(range), true, structure.encoding.big_endian)),
        Pixels::Native { range, words } => {
            let mut data = native(range);
            let big_endian = structure.encoding.big_endian;
            // Bytes written as big-endian words are swapped in pairs.
            if big_endian && *words && format.bits_allocated == 8 {
                data.to_mut().chunks_exact_mut(2).for_each(|pair| pair.swap(0, 1));
            }
            Ok(samples(data, false, big_endian))
        }
        Pixels::Encapsulated { offsets, fragments } => {
            let stream = frame_stream(&structure.dataset, offsets, fragments, frame, frames)?;
            encapsulated(&structure.syntax, stream, format)
        }
    }
}

/// The compressed bytes of one frame, joined from its fragments.
fn frame_stream<'a>(
    data: &'a [u8],
    offsets: &[u32],
    fragments: &[Range<usize>],
    frame: usize,
    frames: usize,
) -> Result<Cow<'a, [u8]>, DecodeError> {
    let damaged = |reason: &str| DecodeError::Damaged { reason: reason.into() };
    if fragments.len() == frames {
        let range = fragments.get(frame).ok_or_else(|| damaged("a frame is missing"))?;
        return Ok(Cow::Borrowed(&data[range.clone()]));
    }
    let own: Vec<&Range<usize>> = if frames == 1 {
        fragments.iter().collect()
    } else if offsets.len() == frames {
        // Offsets count from the first fragment's item header (PS3.5 A.4).
        let origin = fragments.first().map_or(0, |f| f.start);
        let from = offsets[frame] as usize;
        let to = offsets.get(frame + 1).map_or(usize::MAX, |&o| o as usize);
        fragments.iter().filter(|f| (from..to).contains(&(f.start - origin))).collect()
    } else {
        return Err(damaged("its frames cannot be separated without an offset table"));
    };
    if own.is_empty() {
        return Err(damaged("a frame is missing"));
    }
    Ok(Cow::Owned(own.into_iter().flat_map(|r| &data[r.clone()]).copied().collect()))
}

/// Decompresses one frame of encapsulated pixel data.
fn encapsulated<'a>(
    syntax: &str,
    stream: Cow<'a, [u8]>,
    format: &PixelFormat,
) -> Result<FrameSamples<'a>, DecodeError> {
    if syntax == uids::RLE_LOSSLESS {
        let data = rle::decode(&stream, format).map_err(|reason| DecodeError::Damaged { reason: reason.into() })?;
        // RLE stores one plane after the other.
        return Ok(FrameSamples {
            data: data.into(),
            big_endian: false,
            planar: true,
            float: false,
            colour: format.colour,
        });
    }
    let unsupported = || DecodeError::UnsupportedSyntax { name: syntax_name(syntax) };
    let known = TransferSyntaxRegistry.get(syntax).ok_or_else(unsupported)?;
    let colour = if format.samples == 3 { Colour::Rgb } else { format.colour };
    match known.codec() {
        Codec::EncapsulatedPixelData(Some(reader), _) => {
            let source = OneFrame { syntax, stream: &stream, format };
            let mut data = Vec::new();
            panics::catch(|| reader.decode_frame(&source, 0, &mut data))
                .map_err(|reason| DecodeError::Damaged { reason })?
                .map_err(|error| DecodeError::Damaged { reason: innermost(&error) })?;
            Ok(FrameSamples { data: data.into(), big_endian: false, planar: false, float: false, colour })
        }
        // Encapsulated, but uncompressed.
        Codec::None => {
            let (planar, colour) = (format.planar, format.colour);
            Ok(FrameSamples { data: stream, big_endian: false, planar, float: false, colour })
        }
        _ => Err(unsupported()),
    }
}

/// Name and UID of a transfer syntax.
fn syntax_name(uid: &str) -> String {
    TransferSyntaxRegistry.get(uid).map_or_else(|| format!("{uid:.64}"), |ts| format!("{} ({uid})", ts.name()))
}

/// Message of the root cause of an error.
fn innermost(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), innermost)
}

/// One compressed frame as input of the dicom-rs decoders.
struct OneFrame<'a> {
    syntax: &'a str,
    stream: &'a [u8],
    format: &'a PixelFormat,
}

impl PixelDataObject for OneFrame<'_> {
    fn transfer_syntax_uid(&self) -> &str {
        self.syntax
    }
    fn rows(&self) -> Option<u16> {
        u16::try_from(self.format.rows).ok()
    }
    fn cols(&self) -> Option<u16> {
        u16::try_from(self.format.columns).ok()
    }
    fn samples_per_pixel(&self) -> Option<u16> {
        u16::try_from(self.format.samples).ok()
    }
    fn bits_allocated(&self) -> Option<u16> {
        u16::try_from(self.format.bits_allocated).ok()
    }
    fn bits_stored(&self) -> Option<u16> {
        u16::try_from(self.format.bits_stored).ok()
    }
    fn photometric_interpretation(&self) -> Option<&str> {
        Some(match self.format.colour {
            Colour::Monochrome1 => "MONOCHROME1",
            Colour::Rgb => "RGB",
            Colour::Ybr => "YBR_FULL",
            Colour::Monochrome2 | Colour::Unsupported => "MONOCHROME2",
        })
    }
    fn number_of_frames(&self) -> Option<u32> {
        Some(1)
    }
    fn number_of_fragments(&self) -> Option<u32> {
        Some(1)
    }
    fn fragment(&self, fragment: usize) -> Option<Cow<'_, [u8]>> {
        (fragment == 0).then_some(Cow::Borrowed(self.stream))
    }
    fn offset_table(&self) -> Option<Cow<'_, [u32]>> {
        Some(Cow::Borrowed(&[]))
    }
    fn raw_pixel_data(&self) -> Option<RawPixelData> {
        Some(RawPixelData { fragments: C::from_elem(self.stream.to_vec(), 1), offset_table: C::new() })
    }
}

/// Converts samples to grey values after slope and intercept.
fn write_values(
    samples: &FrameSamples,
    format: &PixelFormat,
    slice: &Slice,
    out: &mut [f32],
) -> Result<(), DecodeError> {
    if samples.colour == Colour::Unsupported {
        return Err(DecodeError::UnsupportedPixels { what: "palette colour".into() });
    }
    let bits = format.bits_stored.min(format.bits_allocated) as u32;
    // A signed value may be stored without sign extension above `bits`.
    let wrap =
        |v: i64| if format.signed && bits < 63 && v >= 1 << (bits - 1) && v < 1 << bits { v - (1 << bits) } else { v };
    let order = SampleOrder { big_endian: samples.big_endian, planar: samples.planar, samples: format.samples };
    let data = &samples.data[..];
    macro_rules! convert {
        ($kind:ty, $value:expr) => {{
            const N: usize = size_of::<$kind>();
            let read = |b: [u8; N]| {
                $value(if order.big_endian { <$kind>::from_be_bytes(b) } else { <$kind>::from_le_bytes(b) })
            };
            order.convert::<N>(data, samples.colour, out, read);
        }};
    }
    match (samples.float, format.bits_allocated, format.signed) {
        (true, 32, _) => convert!(f32, |v| v as f64),
        (true, 64, _) => convert!(f64, |v| v),
        (false, 8, false) => convert!(u8, |v| v as f64),
        (false, 8, true) => convert!(i8, |v| wrap(i64::from(v)) as f64),
        (false, 16, false) => convert!(u16, |v| v as f64),
        (false, 16, true) => convert!(i16, |v| wrap(i64::from(v)) as f64),
        (false, 32, false) => convert!(u32, |v| v as f64),
        (false, 32, true) => convert!(i32, |v| wrap(i64::from(v)) as f64),
        (_, bits, _) => return Err(DecodeError::UnsupportedPixels { what: format!("{bits} bits") }),
    }
    if samples.colour == Colour::Monochrome1 && !samples.float {
        let full = (1i64 << bits.min(62)) - 1;
        let ends = if format.signed { -1.0 } else { full as f64 };
        out.iter_mut().for_each(|v| *v = (ends - f64::from(*v)) as f32);
    }
    if (slice.slope, slice.intercept) != (1.0, 0.0) {
        let (slope, intercept) = (slice.slope, slice.intercept);
        out.iter_mut().for_each(|v| *v = (f64::from(*v) * slope + intercept) as f32);
    }
    Ok(())
}

/// Layout of the samples of a frame.
struct SampleOrder {
    big_endian: bool,
    planar: bool,
    samples: usize,
}

impl SampleOrder {
    /// Grey value of every pixel: the sample itself, the luminance of RGB (ITU-R BT.601), or the Y
    /// of YBR.
    fn convert<const N: usize>(&self, data: &[u8], colour: Colour, out: &mut [f32], read: impl Fn([u8; N]) -> f64) {
        let (values, _) = data.as_chunks::<N>();
        if self.samples == 1 {
            out.iter_mut().zip(values).for_each(|(o, &b)| *o = read(b) as f32);
            return;
        }
        let pixels = out.len();
        let at = |pixel: usize, sample: usize| {
            read(values[if self.planar { sample * pixels + pixel } else { pixel * self.samples + sample }])
        };
        for (pixel, o) in out.iter_mut().enumerate() {
            *o = match colour {
                Colour::Ybr => at(pixel, 0),
                _ => 0.299 * at(pixel, 0) + 0.587 * at(pixel, 1) + 0.114 * at(pixel, 2),
            } as f32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn format(bits: usize, samples: usize) -> PixelFormat {
        let colour = if samples == 3 { Colour::Rgb } else { Colour::Monochrome2 };
        PixelFormat {
            rows: 1,
            columns: 2,
            samples,
            bits_allocated: bits,
            bits_stored: bits,
            signed: false,
            planar: false,
            colour,
        }
    }

    fn values(data: &[u8], format: &PixelFormat, slope: f64, intercept: f64) -> Vec<f32> {
        let samples =
            FrameSamples { data: data.into(), big_endian: false, planar: false, float: false, colour: format.colour };
        let mut out = vec![0.0; 2];
        write_values(&samples, format, &Slice { slope, intercept, ..Slice::default() }, &mut out).unwrap();
        out
    }

    #[test]
    fn integers_of_each_width() {
        assert_eq!(values(&[1, 255], &format(8, 1), 2.0, -1.0), [1.0, 509.0]);
        assert_eq!(values(&[1, 0, 0, 1], &format(16, 1), 1.0, 0.0), [1.0, 256.0]);
        let twelve = PixelFormat { bits_stored: 12, signed: true, ..format(16, 1) };
        assert_eq!(values(&[0xff, 0x0f, 0xfe, 0xff], &twelve, 1.0, 0.0), [-1.0, -2.0]);
    }

    #[test]
    fn monochrome1_is_inverted_and_rgb_becomes_luminance() {
        let inverted = PixelFormat { colour: Colour::Monochrome1, ..format(8, 1) };
        assert_eq!(values(&[0, 200], &inverted, 1.0, 0.0), [255.0, 55.0]);
        assert_eq!(values(&[100, 100, 100, 0, 200, 0], &format(8, 3), 1.0, 0.0), [100.0, 117.4]);
    }

    #[test]
    fn fragments_are_joined_by_the_offset_table() {
        let data: Vec<u8> = (0..60).collect();
        let fragments = [8..10, 18..20, 28..30];
        let stream = |frame| frame_stream(&data, &[0, 20], &fragments, frame, 2).unwrap().to_vec();
        assert_eq!(stream(0), [8, 9, 18, 19]);
        assert_eq!(stream(1), [28, 29]);
    }
}
