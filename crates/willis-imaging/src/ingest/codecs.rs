//! Decoders of compressed streams. All are pure Rust, run behind a panic barrier because they panic
//! on some damaged streams, and see only streams whose header fits that of the file.

use std::borrow::Cow;

use oxiarc_jpeg::DecodeLimits;

use super::colours::{jpeg_2000_is_transformed, jpeg_ls_components, jpeg_names_colours, jpeg_transform};
use super::file_error::DecodeError;
use super::panics;
use super::pixel_format::{Colour, PixelFormat};
use super::rle;
use super::streams::{Codec, StreamHeader, codestream};
use super::values::{FrameSamples, SampleKind};

/// Number of the start-of-frame marker of lossless JPEG.
const LOSSLESS: u8 = 3;

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
    // Decoding turns the colours of these into RGB; the others stay those of the header.
    let becomes_rgb = match header.codec {
        Codec::Jpeg { process } => process != LOSSLESS,
        Codec::Jpeg2000 => codestream(stream).is_some_and(jpeg_2000_is_transformed),
        Codec::JpegLs => false,
    };
    Ok(FrameSamples {
        data: Cow::Owned(data),
        bits,
        kind: SampleKind::Decoded { precision: header.precision, signed: header.signed },
        big_endian: false,
        planar: false,
        colour: if format.samples == 3 && becomes_rgb { Colour::Rgb } else { format.colour },
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
    let first = if process == LOSSLESS || (process < 3 && header.precision == 8) {
        let mut decoder = jpeg_decoder::Decoder::new(stream);
        if header.samples == 3 {
            decoder.set_color_transform(jpeg_transform(stream, colour));
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
    // The other decoder takes colours for YCbCr where the stream does not say what they are.
    if header.samples == 3 && !jpeg_names_colours(stream) {
        return Err(first.unwrap_or_else(|| "its colours are not stated".into()));
    }
    extended_jpeg(stream, header).map_err(|reason| first.unwrap_or(reason))
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
    let plane = |stream: &[u8]| {
        jpegls::decode(stream, header.columns as u32, header.rows as u32)
            .map(|(words, ..)| words)
            .map_err(|e| e.to_string())
    };
    let words = match header.samples {
        1 => plane(stream)?,
        samples => {
            let streams = jpeg_ls_components(stream, samples)?;
            let planes = streams.iter().map(|stream| plane(stream)).collect::<Result<Vec<_>, _>>()?;
            (0..planes[0].len()).flat_map(|pixel| planes.iter().map(move |plane| plane[pixel])).collect()
        }
    };
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
            subsampled: false,
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

    /// Red falls along the rows by 8 from 220, green rises along the columns by 10 from 40, and blue
    /// is 90. The stream has no segment that says that these are not YCbCr.
    #[test]
    fn colours_of_an_unmarked_jpeg_are_those_of_the_header() {
        let stream = include_bytes!("../../tests/fixtures/streams/libjpeg_rgb_unmarked.jpg");
        let header = StreamHeader::of(stream).unwrap().unwrap();
        let luminance = |colour| {
            let format = PixelFormat {
                rows: 16,
                columns: 24,
                samples: 3,
                bits_allocated: 8,
                bits_stored: 8,
                high_bit: 7,
                signed: false,
                planar: false,
                subsampled: false,
                colour,
                padding: None,
                palette: None,
                modality_lut: None,
            };
            let decoded = decode(stream, header, &format).unwrap();
            let mut out = vec![0.0; 16 * 24];
            write_values(&decoded, &format, &Slice { slope: 1.0, ..Slice::default() }, &mut out).unwrap();
            out
        };
        for (pixel, value) in luminance(Colour::Rgb).into_iter().enumerate() {
            let [down, right] = [(pixel / 24) as f32, (pixel % 24) as f32];
            let expected = 0.299 * (220.0 - 8.0 * right) + 0.587 * (40.0 + 10.0 * down) + 0.114 * 90.0;
            assert!((value - expected).abs() <= 2.0, "{pixel}: {value} {expected}");
        }
        // As YCbCr the first component is the luminance, but for colours that RGB cannot hold.
        assert!((luminance(Colour::Ybr)[5 * 24 + 12] - 124.0).abs() <= 3.0);
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
