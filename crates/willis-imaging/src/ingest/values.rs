//! From uncompressed samples to one grey value per voxel.

use std::borrow::Cow;

use super::file_error::DecodeError;
use super::lookup::luminance;
use super::notes::{Note, Notes};
use super::pixel_format::{Colour, PixelFormat};
use super::slices::Slice;

/// Whole intercepts below this, added to a 16-bit value, are exact in single precision.
const MAX_WHOLE_INTERCEPT: f64 = (1u32 << 23) as f64;

/// Uncompressed samples of one frame.
pub(super) struct FrameSamples<'a> {
    pub data: Cow<'a, [u8]>,
    /// Bits of a sample in `data`: 8, 16, 32 or 64.
    pub bits: usize,
    pub kind: SampleKind,
    pub big_endian: bool,
    /// Whether there is one plane for each colour.
    pub planar: bool,
    pub colour: Colour,
}

/// What the bits of a sample are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SampleKind {
    Float,
    /// An integer as the header describes it.
    Native,
    /// An integer from a compressed stream of the given precision.
    Decoded {
        precision: usize,
        signed: bool,
    },
}

/// Where the value is in the bits of an integer sample.
#[derive(Debug, Clone, Copy)]
struct StoredBits {
    /// Bits of the sample.
    width: u32,
    shift: u32,
    count: u32,
    signed: bool,
}

impl StoredBits {
    fn of(samples: &FrameSamples, format: &PixelFormat) -> Self {
        let stored = format.bits_stored.min(samples.bits);
        let shift = format.high_bit + 1 - format.bits_stored;
        let (count, shift, signed) = match samples.kind {
            // The values of a stream of no more than the stored bits are not shifted.
            SampleKind::Decoded { precision, signed } => {
                let shift = if precision > format.bits_stored { shift } else { 0 };
                (stored.min(precision), shift, signed || format.signed)
            }
            SampleKind::Native | SampleKind::Float => (stored, shift, format.signed),
        };
        let shift = shift.min(samples.bits - count);
        Self { width: samples.bits as u32, shift: shift as u32, count: count as u32, signed }
    }

    /// The value of a sample.
    #[inline(always)]
    fn value(self, sample: u64) -> i64 {
        // The stored bits are moved to the top and back, which extends the sign.
        let top = sample << (64 - self.shift - self.count);
        if self.signed { (top as i64) >> (64 - self.count) } else { (top >> (64 - self.count)) as i64 }
    }

    /// Values of little-endian 16-bit samples that are not shifted, plus `added`; returns their
    /// stray bits. As [`Self::value`] and [`Self::stray`], in loops that are vectorised.
    fn words(self, data: &[u8], added: f32, out: &mut [f32]) -> u16 {
        let (words, _) = data.as_chunks::<2>();
        let unused = 16 - self.count;
        let mask = u16::MAX >> unused;
        let mut stray = 0;
        for (value, &word) in out.iter_mut().zip(words) {
            let sample = u16::from_le_bytes(word);
            let signed = ((sample << unused) as i16) >> unused;
            let (integer, extended) = if self.signed {
                (i32::from(signed), signed as u16)
            } else {
                (i32::from(sample & mask), sample & mask)
            };
            stray |= if sample == extended { 0 } else { sample & !mask };
            *value = integer as f32 + added;
        }
        stray
    }

    /// Bits that are set outside the value and are not the extension of its sign.
    #[inline(always)]
    fn stray(self, sample: u64) -> u64 {
        let all = u64::MAX >> (64 - self.width);
        let extended = (self.value(sample) as u64) << self.shift & all;
        let value = extended & (u64::MAX >> (64 - self.shift - self.count));
        if sample == extended { 0 } else { sample ^ value }
    }
}

/// Converts samples to grey values after rescaling.
///
/// # Errors
/// `UnsupportedPixels` for samples of another width.
pub(super) fn write_values(
    samples: &FrameSamples,
    format: &PixelFormat,
    slice: &Slice,
    out: &mut [f32],
) -> Result<Notes, DecodeError> {
    let order = SampleOrder { planar: samples.planar, samples: format.samples, colour: samples.colour };
    let data = &samples.data[..];
    let mut stray = 0u64;
    macro_rules! float {
        ($kind:ty) => {
            order.convert(data, out, |b| {
                (if samples.big_endian { <$kind>::from_be_bytes(b) } else { <$kind>::from_le_bytes(b) }) as f64
            })
        };
    }
    macro_rules! integer {
        ($kind:ty) => {{
            let stored = StoredBits::of(samples, format);
            let big_endian = samples.big_endian;
            let mut read = |b| {
                let sample = u64::from(if big_endian { <$kind>::from_be_bytes(b) } else { <$kind>::from_le_bytes(b) });
                stray |= stored.stray(sample);
                stored.value(sample)
            };
            match (&format.palette, &format.modality_lut) {
                (Some(palette), _) => order.convert(data, out, |b| f64::from(palette.at(read(b)))),
                (None, Some(table)) => order.convert(data, out, |b| f64::from(table.at(read(b)))),
                (None, None) => order.convert(data, out, |b| read(b) as f64),
            }
        }};
    }
    let is_float = samples.kind == SampleKind::Float;
    let is_plain = format.samples == 1 && format.palette.is_none() && format.modality_lut.is_none();
    let words = (is_plain && !is_float && !samples.big_endian && samples.bits == 16)
        .then(|| StoredBits::of(samples, format))
        .filter(|stored| stored.shift == 0);
    let is_rescaled = format.modality_lut.is_none() && format.palette.is_none();
    let (slope, intercept) = if is_rescaled { (slice.slope, slice.intercept) } else { (1.0, 0.0) };
    // Whole numbers of this size are exact in single precision.
    let is_whole = slope == 1.0 && intercept.fract() == 0.0 && intercept.abs() < MAX_WHOLE_INTERCEPT;
    let is_added = words.is_some() && is_whole && samples.colour != Colour::Monochrome1;
    let added = if is_added { intercept as f32 } else { 0.0 };
    match (samples.kind, samples.bits) {
        (_, 16) if let Some(stored) = words => stray |= u64::from(stored.words(data, added, out)),
        (SampleKind::Float, 32) => float!(f32),
        (SampleKind::Float, 64) => float!(f64),
        (SampleKind::Float, bits) => return Err(unsupported(bits)),
        (_, 8) => integer!(u8),
        (_, 16) => integer!(u16),
        (_, 32) => integer!(u32),
        (_, bits) => return Err(unsupported(bits)),
    }
    if samples.colour == Colour::Monochrome1 && !is_float {
        let full = (1i64 << format.bits_stored.min(62)) - 1;
        let ends = if format.signed { -1.0 } else { full as f64 };
        out.iter_mut().for_each(|v| *v = (ends - f64::from(*v)) as f32);
    }
    if !is_added && (slope, intercept) != (1.0, 0.0) {
        out.iter_mut().for_each(|v| *v = (f64::from(*v) * slope + intercept) as f32);
    }
    let signed_stream = matches!(samples.kind, SampleKind::Decoded { signed: true, .. }) && !format.signed;
    let notes = [(Note::StrayBits, stray != 0), (Note::SignedStream, signed_stream)];
    Ok(notes.into_iter().filter(|(_, applies)| *applies).map(|(note, _)| note).collect())
}

fn unsupported(bits: usize) -> DecodeError {
    DecodeError::UnsupportedPixels { what: format!("{bits} bits") }
}

/// Order of the samples of a frame.
struct SampleOrder {
    planar: bool,
    samples: usize,
    colour: Colour,
}

impl SampleOrder {
    /// Grey value of every pixel: the sample itself, the luminance of RGB, or the Y of YBR.
    fn convert<const N: usize>(&self, data: &[u8], out: &mut [f32], mut read: impl FnMut([u8; N]) -> f64) {
        let (values, _) = data.as_chunks::<N>();
        if self.samples == 1 {
            out.iter_mut().zip(values).for_each(|(o, &b)| *o = read(b) as f32);
            return;
        }
        let pixels = out.len();
        for (pixel, o) in out.iter_mut().enumerate() {
            let mut at = |sample: usize| {
                read(values[if self.planar { sample * pixels + pixel } else { pixel * self.samples + sample }])
            };
            *o = match self.colour {
                Colour::Ybr => at(0),
                _ => luminance([at(0), at(1), at(2)]),
            } as f32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_the_values_and_stray_bits_of_single_samples() {
        for (count, signed) in [(1, false), (8, true), (12, false), (12, true), (15, true), (16, false), (16, true)] {
            let stored = StoredBits { width: 16, shift: 0, count, signed };
            for sample in (0..=u16::MAX).step_by(3) {
                let mut value = [0.0];
                let stray = stored.words(&sample.to_le_bytes(), -24.0, &mut value);
                assert_eq!(value[0], stored.value(sample.into()) as f32 - 24.0, "{stored:?} {sample}");
                assert_eq!(stray != 0, stored.stray(sample.into()) != 0, "{stored:?} {sample}");
            }
        }
    }

    fn format(bits: usize, samples: usize) -> PixelFormat {
        let colour = if samples == 3 { Colour::Rgb } else { Colour::Monochrome2 };
        PixelFormat {
            rows: 1,
            columns: 2,
            samples,
            bits_allocated: bits,
            bits_stored: bits,
            high_bit: bits - 1,
            signed: false,
            planar: false,
            subsampled: false,
            colour,
            padding: None,
            palette: None,
            modality_lut: None,
        }
    }

    fn read(data: &[u8], format: &PixelFormat, kind: SampleKind, slice: &Slice) -> (Vec<f32>, Notes) {
        let samples = FrameSamples {
            data: data.into(),
            bits: format.bits_allocated,
            kind,
            big_endian: false,
            planar: false,
            colour: format.colour,
        };
        let mut out = vec![0.0; 2];
        let notes = write_values(&samples, format, slice, &mut out).unwrap();
        (out, notes)
    }

    fn values(data: &[u8], format: &PixelFormat) -> Vec<f32> {
        let (values, notes) = read(data, format, SampleKind::Native, &Slice { slope: 1.0, ..Slice::default() });
        assert_eq!(notes, Notes::new());
        values
    }

    #[test]
    fn integers_of_each_width() {
        assert_eq!(values(&[1, 255], &format(8, 1)), [1.0, 255.0]);
        assert_eq!(values(&[1, 0, 0, 1], &format(16, 1)), [1.0, 256.0]);
        assert_eq!(values(&[1, 0, 0, 128, 255, 255, 255, 127], &format(32, 1)), [2_147_483_649.0, 2_147_483_647.0]);
        // Signed values are stored with and without extension of the sign.
        let twelve = PixelFormat { bits_stored: 12, high_bit: 11, signed: true, ..format(16, 1) };
        assert_eq!(values(&[0xff, 0x0f, 0xfe, 0xff], &twelve), [-1.0, -2.0]);
    }

    #[test]
    fn slope_and_intercept_are_applied() {
        let slice = Slice { slope: 2.0, intercept: -1.0, ..Slice::default() };
        assert_eq!(read(&[1, 255], &format(8, 1), SampleKind::Native, &slice).0, [1.0, 509.0]);
    }

    /// Overlays are stored in bits above or below the value, of which the header says where it is.
    #[test]
    fn bits_outside_the_value_are_cleared() {
        let slice = Slice { slope: 1.0, ..Slice::default() };
        for (stored, high_bit, signed, words, expected) in [
            (12, 11, false, [0x1005u16, 0x0006], [5.0, 6.0]),
            (12, 11, false, [0xffff, 0x0fff], [4095.0, 4095.0]),
            (12, 11, true, [0x1005, 0x0ffe], [5.0, -2.0]),
            (12, 15, false, [0x0051, 0x0060], [5.0, 6.0]),
            (12, 15, true, [0xffe1, 0x0060], [-2.0, 6.0]),
            (10, 12, false, [0xe02f, 0x0030], [5.0, 6.0]),
        ] {
            let format = PixelFormat { bits_stored: stored, high_bit, signed, ..format(16, 1) };
            let data: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
            let (values, notes) = read(&data, &format, SampleKind::Native, &slice);
            assert_eq!(values, expected, "{stored} {high_bit} {signed}");
            assert_eq!(notes, Notes::from([Note::StrayBits]), "{stored} {high_bit} {signed}");
        }
        let shifted = PixelFormat { bits_stored: 12, high_bit: 15, ..format(16, 1) };
        assert_eq!(values(&[0x50, 0, 0x60, 0], &shifted), [5.0, 6.0]);
    }

    #[test]
    fn signs_of_compressed_values_are_those_of_the_stream() {
        let slice = Slice { slope: 1.0, ..Slice::default() };
        for (signed, precision, stream_signed, words, expected, notes) in [
            (false, 16, true, [0xfc18u16, 3], [-1000.0, 3.0], Notes::from([Note::SignedStream])),
            // A signed header over a stream that knows no signs: the highest bit of its precision.
            (true, 12, false, [0x0fff, 0x07ff], [-1.0, 2047.0], Notes::new()),
            (true, 16, true, [0xffff, 0x7fff], [-1.0, 32767.0], Notes::new()),
        ] {
            let format = PixelFormat { signed, ..format(16, 1) };
            let data: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
            let kind = SampleKind::Decoded { precision, signed: stream_signed };
            assert_eq!(read(&data, &format, kind, &slice), (expected.to_vec(), notes));
        }
    }

    #[test]
    fn monochrome1_is_inverted_and_rgb_becomes_luminance() {
        let inverted = PixelFormat { colour: Colour::Monochrome1, ..format(8, 1) };
        assert_eq!(values(&[0, 200], &inverted), [255.0, 55.0]);
        assert_eq!(values(&[100, 100, 100, 0, 200, 0], &format(8, 3)), [100.0, 117.4]);
    }
}
