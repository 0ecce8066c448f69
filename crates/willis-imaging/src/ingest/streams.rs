//! Headers of compressed streams: what a stream says about itself, before a decoder may allocate
//! anything for it.

use super::pixel_format::PixelFormat;

/// Frames of up to this many pixels are decoded whatever the size of their stream.
const SMALL_FRAME_PIXELS: usize = 1 << 22;
/// Larger ones need a byte for this many pixels. An empty image of JPEG-LS has one for about 4000.
const MAX_PIXELS_PER_BYTE: usize = 4096;

/// Maximum number of JPEG 2000 tiles; the decoder takes several kilobytes for each.
const MAX_TILES: usize = 4096;

/// Compression of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Codec {
    /// JPEG (ISO 10918), with the number of its start-of-frame marker.
    Jpeg { process: u8 },
    /// JPEG-LS (ISO 14495).
    JpegLs,
    /// JPEG 2000 (ISO 15444), also as high-throughput and inside a JP2 file.
    Jpeg2000,
}

/// Header of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StreamHeader {
    pub codec: Codec,
    pub rows: usize,
    pub columns: usize,
    pub samples: usize,
    /// Bits of each sample.
    pub precision: usize,
    pub signed: bool,
}

/// Whether bytes begin with the signature of a compressed stream.
pub(super) fn starts_stream(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0xFF, 0xD8, 0xFF]) || is_jpeg_2000(bytes)
}

fn is_jpeg_2000(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0xFF, 0x4F, 0xFF, 0x51]) || bytes.get(4..8) == Some(b"jP  ")
}

impl StreamHeader {
    /// Reads the header of a stream; `None` if it is not JPEG, JPEG-LS or JPEG 2000.
    ///
    /// # Errors
    /// The reason when the stream ends before its frame header.
    pub fn of(stream: &[u8]) -> Option<Result<Self, &'static str>> {
        if is_jpeg_2000(stream) {
            Some(jpeg_2000(stream).ok_or("the JPEG 2000 stream has no valid header"))
        } else if stream.starts_with(&[0xFF, 0xD8]) {
            Some(jpeg(stream).ok_or("the JPEG stream has no valid frame header"))
        } else {
            None
        }
    }

    /// Checks that the stream holds the frame that the header of the file declares, and is long
    /// enough to.
    ///
    /// # Errors
    /// The difference.
    pub fn check(&self, format: &PixelFormat, bytes: usize) -> Result<(), String> {
        let (got, expected) = ([self.rows, self.columns, self.samples], [format.rows, format.columns, format.samples]);
        if got != expected {
            let text = |[rows, columns, samples]: [usize; 3]| format!("{rows} x {columns} x {samples}");
            return Err(format!("the stream holds {} where {} are declared", text(got), text(expected)));
        }
        let pixels = self.rows * self.columns;
        if pixels > SMALL_FRAME_PIXELS && pixels > bytes.saturating_mul(MAX_PIXELS_PER_BYTE) {
            return Err(format!("a stream of {bytes} bytes cannot hold {pixels} pixels"));
        }
        Ok(())
    }
}

fn be16(bytes: &[u8], at: usize) -> Option<usize> {
    let b = bytes.get(at..at.checked_add(2)?)?;
    Some(usize::from(u16::from_be_bytes([b[0], b[1]])))
}

fn be32(bytes: &[u8], at: usize) -> Option<usize> {
    Some(be16(bytes, at)? << 16 | be16(bytes, at.checked_add(2)?)?)
}

/// Header of a JPEG or JPEG-LS stream: its first frame header.
fn jpeg(stream: &[u8]) -> Option<StreamHeader> {
    let mut at = 2;
    loop {
        // Markers may be preceded by any number of fill bytes.
        while stream.get(at) == Some(&0xFF) && stream.get(at + 1) == Some(&0xFF) {
            at += 1;
        }
        let [0xFF, marker] = *stream.get(at..at + 2)? else { return None };
        let codec = match marker {
            0xF7 => Some(Codec::JpegLs),
            0xC0..=0xCF if !matches!(marker, 0xC4 | 0xC8 | 0xCC) => Some(Codec::Jpeg { process: marker - 0xC0 }),
            // The end of the image, or data before a frame header.
            0xD9 | 0xDA => return None,
            // Markers without a length.
            0x01 | 0xD0..=0xD8 => {
                at += 2;
                continue;
            }
            _ => None,
        };
        if let Some(codec) = codec {
            return Some(StreamHeader {
                codec,
                precision: usize::from(*stream.get(at + 4)?),
                rows: be16(stream, at + 5)?,
                columns: be16(stream, at + 7)?,
                samples: usize::from(*stream.get(at + 9)?),
                signed: false,
            });
        }
        at += 2 + be16(stream, at + 2)?.max(2);
    }
}

/// The codestream of a JP2 file: the content of its `jp2c` box; a codestream is its own.
pub(super) fn codestream(stream: &[u8]) -> Option<&[u8]> {
    if stream.starts_with(&[0xFF, 0x4F]) {
        return Some(stream);
    }
    let mut at = 0usize;
    loop {
        let (length, kind) = (be32(stream, at)?, stream.get(at + 4..at + 8)?);
        let head = if length == 1 { 16 } else { 8 };
        if kind == b"jp2c" {
            return stream.get(at + head..);
        }
        // A length of 1 means 64 bits, which only the codestream may need; 0 means the last box.
        at = at.checked_add(length).filter(|_| length >= 8)?;
    }
}

/// Header of a JPEG 2000 codestream, or of a JP2 file that holds one: the SIZ marker segment.
fn jpeg_2000(stream: &[u8]) -> Option<StreamHeader> {
    let siz = codestream(stream)?.strip_prefix(&[0xFF, 0x4F])?;
    if !siz.starts_with(&[0xFF, 0x51]) {
        return None;
    }
    let size = |end: usize, begin: usize| be32(siz, end)?.checked_sub(be32(siz, begin)?);
    let (columns, rows) = (size(6, 14)?, size(10, 18)?);
    let tiles = |pixels: usize, at: usize| Some(pixels.div_ceil(be32(siz, at)?.max(1)) + 1);
    let samples = be16(siz, 38)?;
    let components = siz.get(40..40 + samples.checked_mul(3)?)?;
    let depth = *components.first()?;
    // Every component has the depth of the first, and no component is subsampled.
    let uniform = components.chunks_exact(3).all(|c| c == [depth, 1, 1]);
    let few_tiles = tiles(columns, 22)?.checked_mul(tiles(rows, 26)?)? <= MAX_TILES;
    let precision = usize::from(depth & 0x7F) + 1;
    let header = StreamHeader { codec: Codec::Jpeg2000, rows, columns, samples, precision, signed: depth & 0x80 != 0 };
    (uniform && few_tiles).then_some(header)
}

#[cfg(test)]
mod tests {
    use super::super::pixel_format::Colour;
    use super::*;

    #[test]
    fn frame_headers_are_found() {
        let jls = b"\xff\xd8\xff\xe0\x00\x04ab\xff\xff\xff\xf7\x00\x0b\x0c\x00\x10\x00\x20\x01\x01\x11\x00";
        let expected =
            StreamHeader { codec: Codec::JpegLs, rows: 16, columns: 32, samples: 1, precision: 12, signed: false };
        assert_eq!(StreamHeader::of(jls), Some(Ok(expected)));
        assert!(StreamHeader::of(&jls[..15]).unwrap().is_err());
        assert!(StreamHeader::of(b"\xff\xd8\xff\xda\x00\x02").unwrap().is_err());
        assert_eq!(StreamHeader::of(b"\x01\x02\x03\x04"), None);
        let mut siz = b"\xff\x4f\xff\x51\x00\x29\x00\x00".to_vec();
        for value in [32u32, 16, 0, 0, 32, 16, 0, 0] {
            siz.extend(value.to_be_bytes());
        }
        siz.extend(b"\x00\x01\x8f\x01\x01");
        let expected = StreamHeader { codec: Codec::Jpeg2000, precision: 16, signed: true, ..expected };
        assert_eq!(StreamHeader::of(&siz), Some(Ok(expected)));
        let boxed = [b"\0\0\0\x0cjP  \x0d\x0a\x87\x0a\0\0\0\x0bftypabc\0\0\0\0jp2c", &siz[..]].concat();
        assert_eq!(StreamHeader::of(&boxed), Some(Ok(expected)));
        // Tiles of one pixel.
        siz[24..32].copy_from_slice(&[0, 0, 0, 1, 0, 0, 0, 1]);
        assert_eq!(StreamHeader::of(&siz), Some(Ok(expected)));
        siz[8..16].copy_from_slice(&[0, 0, 8, 0, 0, 0, 8, 0]);
        assert!(StreamHeader::of(&siz).unwrap().is_err());
    }

    #[test]
    fn frames_of_other_sizes_are_refused() {
        let format = |rows, columns| PixelFormat {
            rows,
            columns,
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
        let header = |rows, columns| StreamHeader {
            codec: Codec::JpegLs,
            rows,
            columns,
            samples: 1,
            precision: 16,
            signed: false,
        };
        assert_eq!(header(16, 16).check(&format(16, 16), 20), Ok(()));
        assert!(header(16, 16).check(&format(16, 17), 20).unwrap_err().contains("16 x 16 x 1 where 16 x 17 x 1"));
        assert!(header(9000, 9000).check(&format(9000, 9000), 100).is_err());
    }
}
