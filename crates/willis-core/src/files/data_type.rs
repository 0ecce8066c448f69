//! Types, byte order and scale of numbers in binary files, for all array formats.

use std::io::{self, Read};

use super::{MAX_ELEMENTS, Malformed};
use crate::space::Shape;

/// Type of a number in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DataType {
    I8,
    U8,
    I16,
    U16,
    I32,
    U32,
    I64,
    U64,
    F32,
    F64,
}

/// Byte order of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ByteOrder {
    Little,
    Big,
}

/// Linear map of stored values: `stored * slope + intercept`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Scale {
    pub slope: f64,
    pub intercept: f64,
}

impl Scale {
    pub const NONE: Scale = Scale { slope: 1.0, intercept: 0.0 };
}

impl DataType {
    /// Bytes per number.
    pub const fn size(self) -> usize {
        match self {
            DataType::I8 | DataType::U8 => 1,
            DataType::I16 | DataType::U16 => 2,
            DataType::I32 | DataType::U32 | DataType::F32 => 4,
            DataType::I64 | DataType::U64 | DataType::F64 => 8,
        }
    }
}

/// A shape from sizes in a header, `[x, y, z]`, or the reason why it is rejected: no voxels, or
/// more than [`MAX_ELEMENTS`].
pub(super) fn checked_shape(xyz: [u64; 3]) -> Result<Shape, String> {
    let count = xyz.iter().try_fold(1u64, |product, &n| product.checked_mul(n));
    match count {
        Some(0) => Err(format!("its size {xyz:?} has no voxels")),
        Some(n) if n <= MAX_ELEMENTS as u64 => Ok(Shape::new(xyz[2] as usize, xyz[1] as usize, xyz[0] as usize)),
        _ => Err(format!("its size {xyz:?} is above the limit of {MAX_ELEMENTS} voxels; crop or downsample it")),
    }
}

/// Reads `count` numbers as `f32`.
///
/// Memory is reserved but not touched before data arrives, so a false `count` costs no memory.
pub(super) fn read_f32(
    reader: &mut dyn Read,
    count: usize,
    element: DataType,
    order: ByteOrder,
    scale: Scale,
    format: &'static str,
) -> Result<Vec<f32>, Malformed> {
    const PIECE: usize = 1 << 16;
    let mut values = Vec::new();
    values.try_reserve_exact(count).map_err(|error| Malformed::new(format, error.to_string()))?;
    let mut buffer = vec![0; PIECE.min(count) * element.size()];
    while values.len() < count {
        let bytes = &mut buffer[..PIECE.min(count - values.len()) * element.size()];
        reader.read_exact(bytes).map_err(|error| Malformed::from_io(format, &error))?;
        extend(&mut values, bytes, element, order, scale);
    }
    Ok(values)
}

fn extend(values: &mut Vec<f32>, bytes: &[u8], element: DataType, order: ByteOrder, scale: Scale) {
    macro_rules! decode {
        ($type:ty) => {{
            let number = |b: &[u8]| {
                let b = b.try_into().expect("chunks_exact yields chunks of the size of the type");
                match order {
                    ByteOrder::Little => <$type>::from_le_bytes(b),
                    ByteOrder::Big => <$type>::from_be_bytes(b),
                }
            };
            let numbers = bytes.chunks_exact(size_of::<$type>()).map(number);
            if scale == Scale::NONE {
                values.extend(numbers.map(|v| v as f32));
            } else {
                values.extend(numbers.map(|v| (v as f64 * scale.slope + scale.intercept) as f32));
            }
        }};
    }
    match element {
        DataType::I8 => decode!(i8),
        DataType::U8 => decode!(u8),
        DataType::I16 => decode!(i16),
        DataType::U16 => decode!(u16),
        DataType::I32 => decode!(i32),
        DataType::U32 => decode!(u32),
        DataType::I64 => decode!(i64),
        DataType::U64 => decode!(u64),
        DataType::F32 => decode!(f32),
        DataType::F64 => decode!(f64),
    }
}

/// Numbers that are converted at once: few enough for the processor's caches.
const WRITE_PIECE: usize = 1 << 17;

/// Writes `f32` numbers in little-endian order.
pub(super) fn write_f32(writer: &mut dyn io::Write, values: &[f32]) -> io::Result<()> {
    let mut buffer = vec![0u8; 4 * WRITE_PIECE.min(values.len())];
    for piece in values.chunks(WRITE_PIECE) {
        let bytes = &mut buffer[..4 * piece.len()];
        let (words, _) = bytes.as_chunks_mut::<4>();
        words.iter_mut().zip(piece).for_each(|(word, value)| *word = value.to_le_bytes());
        writer.write_all(bytes)?;
    }
    Ok(())
}

/// Added to a whole number of at most 22 bits, it leaves that number in the low bits of the sum:
/// three quarters of the way to the next power of two, where single precision has steps of 1.
const TO_LOW_BITS: f32 = (3u32 << 22) as f32;

/// Writes numbers as 16-bit integers in little-endian order, up to the first piece in which one is
/// not such an integer. Whether all were written.
pub(super) fn write_i16(writer: &mut dyn io::Write, values: &[f32]) -> io::Result<bool> {
    let mut buffer = vec![0u8; 2 * WRITE_PIECE.min(values.len())];
    for piece in values.chunks(WRITE_PIECE) {
        let bytes = &mut buffer[..2 * piece.len()];
        let (words, _) = bytes.as_chunks_mut::<2>();
        let mut misfit = 0;
        // One vectorised loop without branches. The conversion by `as` saturates, which is slower.
        for (word, &value) in words.iter_mut().zip(piece) {
            let shifted = value + TO_LOW_BITS;
            // Not equal is also true of NaN.
            misfit |= u32::from(shifted - TO_LOW_BITS != value);
            misfit |= u32::from(value < -32_768.0) | u32::from(value > 32_767.0);
            *word = (shifted.to_bits() as u16).to_le_bytes();
        }
        if misfit != 0 {
            return Ok(false);
        }
        writer.write_all(bytes)?;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_16_bit_integer_is_written_as_itself() {
        let values: Vec<f32> = (i16::MIN..=i16::MAX).map(f32::from).collect();
        let mut bytes = Vec::new();
        assert!(write_i16(&mut bytes, &values).unwrap());
        let expected: Vec<u8> = (i16::MIN..=i16::MAX).flat_map(i16::to_le_bytes).collect();
        assert!(bytes == expected);
        for other in [0.5, -0.001, 32_768.0, -32_769.0, 1e9, 3e38, f32::NAN, f32::INFINITY] {
            assert!(!write_i16(&mut Vec::new(), &[0.0, other]).unwrap(), "{other}");
        }
    }

    #[test]
    fn types_orders_and_scales() {
        let scale = Scale { slope: 2.0, intercept: -1.0 };
        for (bytes, element, order, scale, expected) in [
            (&[0xff, 0x01][..], DataType::I8, ByteOrder::Little, Scale::NONE, vec![-1.0, 1.0]),
            (&[0x01, 0x02], DataType::U16, ByteOrder::Big, Scale::NONE, vec![258.0]),
            (&[0x01, 0x02], DataType::I16, ByteOrder::Little, scale, vec![1025.0]),
            (&1.5f64.to_be_bytes(), DataType::F64, ByteOrder::Big, scale, vec![2.0]),
        ] {
            let count = bytes.len() / element.size();
            assert_eq!(read_f32(&mut &bytes[..], count, element, order, scale, "test").unwrap(), expected);
        }
        let short = read_f32(&mut &[0u8; 3][..], 2, DataType::U16, ByteOrder::Big, Scale::NONE, "test");
        assert!(short.unwrap_err().reason.contains("ends early"));
    }

    #[test]
    fn impossible_sizes_are_rejected() {
        assert_eq!(checked_shape([5, 3, 2]), Ok(Shape::new(2, 3, 5)));
        assert!(checked_shape([0, 3, 2]).is_err());
        assert!(checked_shape([u64::MAX, u64::MAX, 0]).is_err());
        assert!(checked_shape([1 << 20, 1 << 20, 1]).is_err());
    }
}
