//! Decoders of compressed streams. All are pure Rust, run behind a panic barrier because they panic
//! on some damaged streams, and see only streams whose header fits that of the file.

use std::borrow::Cow;

use oxiarc_jpeg::DecodeLimits;

use super::file_error::DecodeError;
use super::panics;
use super::pixel_format::{Colour, PixelFormat};
use super::rle;
use super::streams::{Codec, StreamHeader};
use super::values::{FrameSamples, SampleKind};

/// Where the markers of a JPEG stream are searched for its colours, bytes.
const HEADER_BYTES: usize = 4096;

/// Decodes a stream with the given header.
///
/// # Errors
/// `Damaged` when the stream does not hold the frame that `format` describes.
pub(super) fn decode(
    stream: &[u8],
    header: StreamHeader,
    format: &PixelFormat,
) -> Result<FrameSamples<'static>, DecodeError> {
    let damaged = |reason| DecodeError::Damaged { reason };
    header.check(format, stream.len()).map_err(damaged)?;
    let decoded = panics::catch(|| match header.codec {
        Codec::Jpeg { process } => jpeg(stream, process, &header, format.colour),
        Codec::JpegLs => jpeg_ls(stream, &header),
        Codec::Jpeg2000 => jpeg_2000(stream, &header),
    });
    let (data, bits) = decoded.map_err(damaged)?.map_err(damaged)?;
    Ok(FrameSamples {
        data: Cow::Owned(data),
        bits,
        kind: SampleKind::Decoded { precision: header.precision, signed: header.signed },
        big_endian: false,
        planar: false,
        colour: if format.samples == 3 { Colour::Rgb } else { format.colour },
    })
}

/// Decodes an RLE stream, which stores one plane after the other.
///
/// # Errors
/// `Damaged` when the stream does not hold the frame that `format` describes.
pub(super) fn decode_rle(stream: &[u8], format: &PixelFormat) -> Result<FrameSamples<'static>, DecodeError> {
    let data = rle::decode(stream, format).map_err(|reason| DecodeError::Damaged { reason: reason.into() })?;
    Ok(FrameSamples {
        data: Cow::Owned(data),
        bits: format.bits_allocated,
        kind: SampleKind::Native,
        big_endian: false,
        planar: true,
        colour: format.colour,
    })
}

/// Little-endian samples, interleaved by pixel, and the bits of each.
type DecodedSamples = Result<(Vec<u8>, usize), String>;

/// JPEG. `jpeg-decoder` decodes 8 bits and lossless processes; `oxiarc-jpeg` the others (12 bits,
/// arithmetic coding), and what the first refuses.
fn jpeg(stream: &[u8], process: u8, header: &StreamHeader, colour: Colour) -> DecodedSamples {
    let lossless = process == 3;
    let first = if lossless || (process < 3 && header.precision == 8) {
        let mut decoder = jpeg_decoder::Decoder::new(stream);
        // A stream that does not say what its colours are has those of the header.
        if header.samples == 3 && colour == Colour::Rgb && !names_colours(stream) {
            decoder.set_color_transform(jpeg_decoder::ColorTransform::None);
        }
        let decoded = panics::catch(|| decoder.decode());
        let expected = header.rows * header.columns * header.samples;
        match decoded.and_then(|data| data.map_err(|e| e.to_string())) {
            Ok(data) if data.len() == expected => return Ok((data, 8)),
            Ok(data) if data.len() == 2 * expected => return Ok((data, 16)),
            Ok(data) => Some(format!("{} bytes for {expected} samples", data.len())),
            Err(reason) => Some(reason),
        }
    } else {
        None
    };
    extended_jpeg(stream, header).map_err(|reason| first.unwrap_or(reason))
}

/// Whether a JPEG stream has a JFIF or Adobe marker, which say what its colours are.
fn names_colours(stream: &[u8]) -> bool {
    let head = &stream[..stream.len().min(HEADER_BYTES)];
    head.windows(5).any(|name| name == b"JFIF\0" || name == b"Adobe")
}

fn extended_jpeg(stream: &[u8], header: &StreamHeader) -> DecodedSamples {
    let samples = (header.rows * header.columns * header.samples) as u64;
    let limits = DecodeLimits {
        max_pixels: (header.rows * header.columns) as u64,
        // Coefficients of progressive images are kept, in blocks of 8 x 8.
        max_coefficient_bytes: 8 * samples + (1 << 20),
        max_output_bytes: 2 * samples,
        ..DecodeLimits::strict()
    };
    let options = oxiarc_jpeg::DecodeOptions { limits, ..oxiarc_jpeg::DecodeOptions::default() };
    let mut decoder = oxiarc_jpeg::Decoder::with_options(stream, options);
    let info = decoder.read_info().map_err(|e| e.to_string())?;
    if info.output_components() != header.samples {
        return Err(format!("{} colours", info.output_components()));
    }
    if header.precision > 8 {
        let words = decoder.decode_u16().map_err(|e| e.to_string())?;
        Ok((words.into_iter().flat_map(u16::to_le_bytes).collect(), 16))
    } else {
        Ok((decoder.decode().map_err(|e| e.to_string())?, 8))
    }
}

fn jpeg_ls(stream: &[u8], header: &StreamHeader) -> DecodedSamples {
    let (words, _, _) = jpegls::decode(stream, header.columns as u32, header.rows as u32).map_err(|e| e.to_string())?;
    Ok((words.into_iter().flat_map(u16::to_le_bytes).collect(), 16))
}

fn jpeg_2000(stream: &[u8], header: &StreamHeader) -> DecodedSamples {
    let image = jpeg2k::Image::from_bytes(stream).map_err(|e| e.to_string())?;
    let pixels = header.rows * header.columns;
    let planes: Vec<&[i32]> = image.components().iter().map(|component| component.data()).collect();
    if planes.len() != header.samples || planes.iter().any(|plane| plane.len() != pixels) {
        return Err("its components do not match its header".into());
    }
    let mut data = Vec::with_capacity(4 * pixels * planes.len());
    for pixel in 0..pixels {
        planes.iter().for_each(|plane| data.extend(plane[pixel].to_le_bytes()));
    }
    Ok((data, 32))
}

#[cfg(test)]
mod tests {
    use super::super::notes::{Note, Notes};
    use super::super::slices::Slice;
    use super::super::values::write_values;
    use super::*;

    /// Values of a stream that another implementation wrote, with an unsigned header of 16 bits.
    fn read(stream: &[u8]) -> (Vec<f32>, Notes) {
        let header = StreamHeader::of(stream).unwrap().unwrap();
        let format = PixelFormat {
            rows: header.rows,
            columns: header.columns,
            samples: 1,
            bits_allocated: 16,
            bits_stored: 16,
            high_bit: 15,
            signed: false,
            planar: false,
            colour: Colour::Monochrome2,
            padding: None,
            palette: None,
            modality_lut: None,
        };
        let samples = decode(stream, header, &format).unwrap();
        let mut out = vec![0.0; format.samples_per_frame()];
        let notes = write_values(&samples, &format, &Slice { slope: 1.0, ..Slice::default() }, &mut out).unwrap();
        (out, notes)
    }

    /// Sixteen columns and twelve rows: four rows of 900, which are coded as runs, then noise.
    fn pattern() -> Vec<f32> {
        (0..192).map(|i: u32| if i < 64 { 900.0 } else { ((i * i * 7 + i * 53) % 4096) as f32 }).collect()
    }

    #[test]
    fn jpeg_ls_of_charls_is_read() {
        let (lossless, notes) = read(include_bytes!("../../tests/fixtures/streams/charls_lossless_12.jls"));
        assert_eq!((lossless, notes), (pattern(), Notes::new()));
        let (near, _) = read(include_bytes!("../../tests/fixtures/streams/charls_near_3.jls"));
        let largest = near.iter().zip(pattern()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!((1.0..=3.0).contains(&largest), "{largest}");
    }

    #[test]
    fn signed_jpeg_2000_of_openjpeg_is_read_under_an_unsigned_header() {
        let expected: Vec<f32> = (0..48 * 64).map(|i: i32| ((i % 64).pow(2) + (i / 64).pow(2) - 1000) as f32).collect();
        let (values, notes) = read(include_bytes!("../../tests/fixtures/streams/openjpeg_signed_16.j2k"));
        assert_eq!((values, notes), (expected, Notes::from([Note::SignedStream])));
    }

    #[test]
    fn damaged_streams_are_errors() {
        let sound = include_bytes!("../../tests/fixtures/streams/charls_lossless_12.jls");
        let header = StreamHeader::of(sound).unwrap().unwrap();
        assert!(jpeg_ls(&sound[..200], &header).is_err());
        let sound = include_bytes!("../../tests/fixtures/streams/openjpeg_signed_16.j2k");
        assert!(jpeg_2000(&sound[..60], &StreamHeader::of(sound).unwrap().unwrap()).is_err());
    }
}
