//! What the colours of a compressed stream are, where the stream says so.

use jpeg_decoder::ColorTransform;

use super::pixel_format::Colour;

/// Start-of-image marker.
const SOI: [u8; 2] = [0xFF, 0xD8];
/// Length of the content of an Adobe segment with a colour transform, bytes.
const ADOBE_BYTES: usize = 12;

/// A marker segment of a JPEG or JPEG-LS stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct JpegSegment<'a> {
    pub marker: u8,
    /// Without the length.
    pub content: &'a [u8],
    /// With the marker and the length.
    pub whole: &'a [u8],
    /// Where it ends in the stream.
    pub end: usize,
}

/// The segments from `at` to the first start of a scan, with it.
pub(super) fn segments(stream: &[u8], mut at: usize) -> impl Iterator<Item = JpegSegment<'_>> {
    let mut ended = false;
    std::iter::from_fn(move || {
        while stream.get(at..at + 2) == Some(&[0xFF; 2]) {
            at += 1;
        }
        let [0xFF, marker, high, low] = *stream.get(at..at.checked_add(4)?)? else { return None };
        let length = usize::from(u16::from_be_bytes([high, low]));
        let whole = stream.get(at..at + 2 + length).filter(|_| length >= 2 && !ended)?;
        at += whole.len();
        ended = marker == 0xDA;
        Some(JpegSegment { marker, content: &whole[4..], whole, end: at })
    })
}

/// How the three colours of a JPEG stream are stored: as its Adobe or JFIF segment says, or the
/// letters that name its components, or else as the header of the file does.
pub(super) fn jpeg_transform(stream: &[u8], header: Colour) -> ColorTransform {
    let (mut is_jfif, mut has_letters) = (false, false);
    for JpegSegment { marker, content, .. } in segments(stream, SOI.len()) {
        match marker {
            0xE0 => is_jfif |= content.starts_with(b"JFIF\0"),
            0xEE if content.starts_with(b"Adobe") && content.len() >= ADOBE_BYTES => {
                return if content[ADOBE_BYTES - 1] == 0 { ColorTransform::RGB } else { ColorTransform::YCbCr };
            }
            0xC0..=0xC2 => {
                let names = content.get(6..).unwrap_or_default().iter().step_by(3);
                has_letters = names.eq(b"RGB");
            }
            _ => {}
        }
    }
    match (is_jfif, has_letters || header == Colour::Rgb) {
        (false, true) => ColorTransform::RGB,
        _ => ColorTransform::YCbCr,
    }
}

/// Whether a JPEG stream has a segment that says what its colours are.
pub(super) fn jpeg_names_colours(stream: &[u8]) -> bool {
    segments(stream, SOI.len()).any(|segment| match segment.marker {
        0xE0 => segment.content.starts_with(b"JFIF\0"),
        0xEE => segment.content.starts_with(b"Adobe") && segment.content.len() >= ADOBE_BYTES,
        _ => false,
    })
}

/// Whether the components of a JPEG 2000 codestream are transformed, so that decoding gives RGB:
/// the COD segment of its main header.
pub(super) fn jpeg_2000_is_transformed(codestream: &[u8]) -> bool {
    // The main header ends at the first tile (FF90), which has a length too.
    let mut main = segments(codestream, SOI.len()).take_while(|segment| segment.marker != 0x90);
    main.any(|segment| segment.marker == 0x52 && segment.content.get(4) == Some(&1))
}

/// The components of a JPEG-LS stream with one scan for each, as streams of one component.
///
/// # Errors
/// The reason when the stream is damaged or its components are interleaved.
pub(super) fn jpeg_ls_components(stream: &[u8], components: usize) -> Result<Vec<Vec<u8>>, &'static str> {
    const DAMAGED: &str = "the JPEG-LS stream is damaged";
    let mut at = SOI.len();
    // Segments that concern all scans that follow.
    let mut common: Vec<u8> = SOI.to_vec();
    let mut streams = Vec::new();
    while streams.len() < components {
        let mut scan = None;
        for segment in segments(stream, at) {
            at = segment.end;
            match segment.marker {
                0xF7 => {
                    // The same frame of one component.
                    let size = segment.content.get(..5).ok_or(DAMAGED)?;
                    common.extend([&[0xFF, 0xF7, 0, 11][..], size, &[1, 1, 0x11, 0]].concat());
                }
                0xDA => scan = Some(segment.content),
                // Application data and comments are not needed.
                0xE0..=0xEF | 0xFE => {}
                _ => common.extend(segment.whole),
            }
        }
        let scan = scan.ok_or(DAMAGED)?;
        let [1, _, table, near, 0, point] = *scan else {
            return Err("interleaved colours of JPEG-LS are not supported");
        };
        // A marker ends the scan: in its data, the highest bit after a byte FF is 0.
        let data = stream.get(at..).ok_or(DAMAGED)?;
        let length = data.windows(2).position(|pair| pair[0] == 0xFF && pair[1] >= 0x80).ok_or(DAMAGED)?;
        at += length;
        let start = [0xFF, 0xDA, 0, 8, 1, 1, table, near, 0, point];
        streams.push([&common[..], &start, &data[..length], &[0xFF, 0xD9]].concat());
    }
    Ok(streams)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jpeg(segments: &[&[u8]]) -> Vec<u8> {
        [&SOI[..], &segments.concat(), b"\xff\xda\x00\x02\x12\x34"].concat()
    }

    #[test]
    fn the_stream_decides_before_the_header() {
        let jfif = &b"\xff\xe0\x00\x07JFIF\0"[..];
        let adobe = |transform: u8| [&b"\xff\xee\x00\x0eAdobe\0\0\0\0\0\0"[..], &[transform]].concat();
        let frame = |names: [u8; 3]| {
            let [a, b, c] = names;
            [&b"\xff\xc0\x00\x11\x08\0\x04\0\x04\x03"[..], &[a, 0x11, 0, b, 0x11, 1, c, 0x11, 1]].concat()
        };
        let (numbers, letters) = (frame([1, 2, 3]), frame(*b"RGB"));
        let (rgb, ybr) = (ColorTransform::RGB, ColorTransform::YCbCr);
        for (parts, with_rgb, with_ybr) in [
            (vec![&numbers[..]], rgb, ybr),
            (vec![&letters], rgb, rgb),
            (vec![jfif, &numbers], ybr, ybr),
            (vec![&adobe(0), &numbers], rgb, rgb),
            (vec![&adobe(1), &numbers], ybr, ybr),
            // An Adobe segment too short for a transform.
            (vec![b"\xff\xee\x00\x0cAdobe\0\0\0\0\0", &numbers], rgb, ybr),
            // The name elsewhere.
            (vec![b"\xff\xfe\x00\x10Adobe\0\0\0\0\0\0\x01ab"], rgb, ybr),
        ] {
            let stream = jpeg(&parts);
            let got = [Colour::Rgb, Colour::Ybr].map(|header| jpeg_transform(&stream, header));
            assert_eq!(format!("{got:?}"), format!("{:?}", [with_rgb, with_ybr]), "{parts:?}");
        }
    }

    #[test]
    fn the_transform_of_jpeg_2000_is_in_its_main_header() {
        let siz = b"\xff\x51\x00\x04ab";
        for (cod, transformed) in [(b"\xff\x52\x00\x07\0\0\0\x01\x01", true), (b"\xff\x52\x00\x07\0\0\0\x01\0", false)]
        {
            let stream = [&b"\xff\x4f"[..], siz, cod, b"\xff\x90\x00\x04ab"].concat();
            assert_eq!(jpeg_2000_is_transformed(&stream), transformed);
        }
        assert!(!jpeg_2000_is_transformed(b"\xff\x4f\xff\x90\x00\x04ab\xff\x52\x00\x07\0\0\0\x01\x01"));
    }

    #[test]
    fn scans_of_jpeg_ls_become_streams() {
        let planes = [[7u16; 12], std::array::from_fn(|i| i as u16 * 19 % 200), [200; 12]];
        let coded = planes.map(|plane| {
            let mut stream = Vec::new();
            jpegls::encode(&plane, 4, 3, &mut stream).unwrap();
            stream
        });
        // The parameters and the scan of a stream of one component.
        let scan = |stream: &[u8]| {
            let before: Vec<JpegSegment> = segments(stream, 2).take_while(|s| s.marker != 0xDA).collect();
            let parameters: Vec<u8> =
                before.iter().filter(|s| s.marker == 0xF8).flat_map(|s| s.whole).copied().collect();
            [&parameters, &stream[before[before.len() - 1].end..stream.len() - 2]].concat()
        };
        let frame = b"\xff\xf7\x00\x11\x08\0\x03\0\x04\x03\x01\x11\0\x02\x11\0\x03\x11\0";
        let scans = coded.map(|stream| scan(&stream)).concat();
        let stream = [&SOI[..], b"\xff\xe8\x00\x04ab", frame, &scans, b"\xff\xd9"].concat();
        let streams = jpeg_ls_components(&stream, 3).unwrap();
        for (stream, plane) in streams.iter().zip(planes) {
            assert_eq!(jpegls::decode(stream, 4, 3).unwrap().0, plane);
        }
        assert!(jpeg_ls_components(&stream, 4).is_err());
        let interleaved = [&SOI[..], frame, b"\xff\xda\x00\x0c\x03\x01\0\x02\0\x03\0\0\x02\0\x12\x34\xff\xd9"].concat();
        assert!(jpeg_ls_components(&interleaved, 3).unwrap_err().contains("interleaved"));
        for end in 0..stream.len() - 2 {
            assert!(jpeg_ls_components(&stream[..end], 3).is_err(), "{end}");
        }
    }
}
