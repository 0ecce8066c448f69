//! Decoder of RLE compressed frames (PS3.5 annex G). The decoder of dicom-rs panics on damaged
//! streams and supports at most 16 bits.

use super::pixel_format::PixelFormat;

/// Decodes one RLE frame into plane after plane of little-endian samples.
///
/// A frame has one PackBits segment per byte of a sample, most significant byte first.
///
/// # Errors
/// The reason when the stream is damaged or does not match the pixel format.
pub(super) fn decode(stream: &[u8], format: &PixelFormat) -> Result<Vec<u8>, &'static str> {
    let pixels = format.rows * format.columns;
    let width = format.bits_allocated / 8;
    let word = |i: usize| -> Result<usize, &'static str> {
        let b = stream.get(i * 4..i * 4 + 4).ok_or("RLE header is short")?;
        Ok(u32::from_le_bytes([b[0], b[1], b[2], b[3]]) as usize)
    };
    let count = word(0)?;
    if count != width * format.samples || count > 15 || width == 0 {
        return Err("RLE segments do not match the bit depth");
    }
    // Two bytes expand to at most 128, so an impossible size is refused before it is allocated.
    if stream.len().saturating_mul(64) < pixels * count {
        return Err("RLE frame is short");
    }
    let mut out = vec![0u8; pixels * count];
    for segment in 0..count {
        let start = word(1 + segment)?;
        let end = if segment + 1 < count { word(2 + segment)? } else { stream.len() };
        let packed = stream.get(start..end).ok_or("RLE segment is outside the frame")?;
        let (plane, byte) = (segment / width, width - 1 - segment % width);
        let targets = out[plane * pixels * width..(plane + 1) * pixels * width].iter_mut().skip(byte).step_by(width);
        if unpack_bits(packed, targets) < pixels {
            return Err("RLE segment is short");
        }
    }
    Ok(out)
}

/// Writes unpacked bytes to the targets; returns the number written.
fn unpack_bits<'a>(packed: &[u8], mut targets: impl Iterator<Item = &'a mut u8>) -> usize {
    let (mut at, mut written) = (0, 0);
    let mut put = |byte: u8| match targets.next() {
        Some(target) => {
            *target = byte;
            written += 1;
            true
        }
        None => false,
    };
    while let Some(&control) = packed.get(at) {
        let control = control as usize;
        at += 1;
        let has_room = match control {
            0..=127 => {
                let literal = &packed[at.min(packed.len())..(at + control + 1).min(packed.len())];
                at += control + 1;
                literal.iter().all(|&byte| put(byte))
            }
            128 => true,
            _ => {
                let Some(&byte) = packed.get(at) else { break };
                at += 1;
                (0..257 - control).all(|_| put(byte))
            }
        };
        if !has_room {
            break;
        }
    }
    written
}

#[cfg(test)]
mod tests {
    use super::super::pixel_format::Colour;
    use super::*;

    #[test]
    fn two_segments_make_sixteen_bits() {
        let format = PixelFormat {
            rows: 1,
            columns: 2,
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
        // High bytes 1 1, low bytes 2 3.
        let mut stream = vec![0u8; 64];
        stream[0] = 2;
        stream[4] = 64;
        stream[8] = 66;
        stream.extend([0xff, 1, 1, 2, 3]);
        assert_eq!(decode(&stream, &format).unwrap(), [2, 1, 3, 1]);
        assert!(decode(&stream[..66], &format).is_err());
        assert!(decode(&[0xff; 3], &format).is_err());
    }
}
