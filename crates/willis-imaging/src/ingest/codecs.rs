//! Decoders of compressed streams. All are pure Rust, run behind a panic barrier because they panic
//! on some damaged streams, and see only streams whose header fits that of the file.

use std::borrow::Cow;

use oxiarc_jpeg::DecodeLimits;

use super::decode::DecodeError;
use super::header::{Colour, PixelFormat};
use super::panics;
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
