//! NumPy's `.npy`: arrays of numbers. Written as version 1.0.
//!
//! Reads versions 1 to 3, integers and floating-point numbers of both byte orders, C and Fortran
//! order (returned in C order). `ndarray-npy` is not used because it allocates the size that the
//! header declares.
//!
//! # Source
//! `numpy.lib.format` in the NumPy manual.

use std::io::Read;
use std::path::Path;

use super::atomic::write_atomically;
use super::data_type::{self, ByteOrder, DataType, Scale};
use super::{FileError, MAX_ELEMENTS, Malformed, open};

const FORMAT: &str = "npy";
const MAGIC: &[u8; 6] = b"\x93NUMPY";

/// Reads an array: shape and C-order values, converted to `f32`.
///
/// # Errors
/// [`FileError::Read`] when the file cannot be opened, [`FileError::Malformed`] when it is damaged
/// or holds neither integers nor floating-point numbers.
pub fn read_f32(path: &Path) -> Result<(Vec<usize>, Vec<f32>), FileError> {
    decode(open(path)?, |reader, count, element, order| {
        data_type::read_f32(reader, count, element, order, Scale::NONE, FORMAT)
    })
    .map_err(|error| error.at(path))
}

/// An array of floating-point numbers from the content of a file: shape and C-order values, exact.
///
/// # Errors
/// when the content is damaged or its values are not floating-point numbers
pub fn parse_f64(content: &[u8]) -> Result<(Vec<usize>, Vec<f64>), Malformed> {
    decode(content, read_doubles)
}

/// Writes a C-order array of `float32`.
///
/// # Errors
/// [`FileError::Write`] when the file cannot be written.
///
/// # Panics
/// if the number of values differs from the shape's (programmer error).
pub fn write_f32(path: &Path, shape: &[usize], values: &[f32]) -> Result<(), FileError> {
    assert_eq!(shape.iter().product::<usize>(), values.len(), "value count does not match shape {shape:?}");
    write_atomically(path, |writer| {
        writer.write_all(&header("<f4", shape))?;
        data_type::write_f32(writer, values)
    })
}

/// Writes a C-order array of `float64`.
///
/// # Errors
/// [`FileError::Write`] when the file cannot be written.
///
/// # Panics
/// if the number of values differs from the shape's (programmer error).
pub fn write_f64(path: &Path, shape: &[usize], values: &[f64]) -> Result<(), FileError> {
    assert_eq!(shape.iter().product::<usize>(), values.len(), "value count does not match shape {shape:?}");
    write_atomically(path, |writer| {
        writer.write_all(&header("<f8", shape))?;
        values.iter().try_for_each(|v| writer.write_all(&v.to_le_bytes()))
    })
}

/// Everything before the values, for a C-order array of a NumPy type (`<f4`).
pub fn header(kind: &str, shape: &[usize]) -> Vec<u8> {
    // A tuple of one number ends in a comma.
    let sides: String = shape.iter().map(|n| format!("{n}, ")).collect();
    let sides = if shape.len() > 1 { sides.trim_end_matches(", ") } else { sides.trim_end() };
    let mut text = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': ({sides}), }}");
    // Magic, version and length take 10 bytes; the values start at a multiple of 64 bytes.
    let padded = (10 + text.len() + 1).next_multiple_of(64) - 10;
    text.extend(std::iter::repeat_n(' ', padded - 1 - text.len()));
    text.push('\n');
    let length = u16::try_from(text.len()).expect("a shape has few numbers").to_le_bytes();
    [&MAGIC[..], &[1, 0], &length, text.as_bytes()].concat()
}

fn decode<T: Copy + Default>(
    mut reader: impl Read,
    values: impl FnOnce(&mut dyn Read, usize, DataType, ByteOrder) -> Result<Vec<T>, Malformed>,
) -> Result<(Vec<usize>, Vec<T>), Malformed> {
    let text = header_text(&mut reader)?;
    let (element, order) = element(quoted_after(&text, "'descr'").unwrap_or_default())?;
    let (shape, count) = shape(&text).ok_or_else(|| Malformed::new(FORMAT, "its shape is missing or too large"))?;
    let fortran = text
        .split_once("'fortran_order'")
        .is_some_and(|(_, rest)| rest.trim_start_matches([':', ' ']).starts_with("True"));
    let values = values(&mut reader, count, element, order)?;
    let values = if fortran { to_c_order(&shape, &values) } else { values };
    Ok((shape, values))
}

fn header_text(reader: &mut impl Read) -> Result<String, Malformed> {
    let damaged = |error: std::io::Error| Malformed::from_io(FORMAT, &error);
    let mut start = [0; 8];
    reader.read_exact(&mut start).map_err(damaged)?;
    if &start[..6] != MAGIC {
        return Err(Malformed::new(FORMAT, "it does not start with the signature of NumPy"));
    }
    let mut length = [0; 4];
    let used = if start[6] == 1 { 2 } else { 4 };
    reader.read_exact(&mut length[..used]).map_err(damaged)?;
    let length = u32::from_le_bytes(length) as usize;
    if length > 1 << 16 {
        return Err(Malformed::new(FORMAT, "its header is too long"));
    }
    let mut text = vec![0; length];
    reader.read_exact(&mut text).map_err(damaged)?;
    String::from_utf8(text).map_err(|_| Malformed::new(FORMAT, "its header is not text"))
}

fn quoted_after<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.split_once(key)?.1.split('\'').nth(1)
}

fn element(kind: &str) -> Result<(DataType, ByteOrder), Malformed> {
    let order = if kind.starts_with('>') { ByteOrder::Big } else { ByteOrder::Little };
    let element = match kind.trim_start_matches(['<', '>', '|', '=']) {
        "i1" => DataType::I8,
        "u1" | "b1" => DataType::U8,
        "i2" => DataType::I16,
        "u2" => DataType::U16,
        "i4" => DataType::I32,
        "u4" => DataType::U32,
        "i8" => DataType::I64,
        "u8" => DataType::U64,
        "f4" => DataType::F32,
        "f8" => DataType::F64,
        _ => {
            return Err(Malformed::new(FORMAT, format!("values of type '{kind}' are not read; save it as float32")));
        }
    };
    Ok((element, order))
}

fn shape(text: &str) -> Option<(Vec<usize>, usize)> {
    let (_, rest) = text.split_once("'shape'")?;
    let inside = rest.split_once('(')?.1.split_once(')')?.0;
    let words = inside.split(',').map(str::trim).filter(|word| !word.is_empty());
    let shape = words.map(|word| word.parse().ok()).collect::<Option<Vec<usize>>>()?;
    let count = shape.iter().try_fold(1usize, |product, &n| product.checked_mul(n))?;
    (count <= MAX_ELEMENTS && shape.len() <= 32).then_some((shape, count))
}

fn read_doubles(
    reader: &mut dyn Read,
    count: usize,
    element: DataType,
    order: ByteOrder,
) -> Result<Vec<f64>, Malformed> {
    match (element, order) {
        (DataType::F64, ByteOrder::Little) => {}
        (DataType::F32, _) => {
            let values = data_type::read_f32(reader, count, element, order, Scale::NONE, FORMAT)?;
            return Ok(values.into_iter().map(f64::from).collect());
        }
        _ => return Err(Malformed::new(FORMAT, "its values are neither float32 nor little-endian float64")),
    }
    let mut values = Vec::new();
    let mut bytes = [0; 8];
    for _ in 0..count {
        reader.read_exact(&mut bytes).map_err(|error| Malformed::from_io(FORMAT, &error))?;
        values.push(f64::from_le_bytes(bytes));
    }
    Ok(values)
}

fn to_c_order<T: Copy + Default>(shape: &[usize], values: &[T]) -> Vec<T> {
    let mut position = vec![0; shape.len()];
    let mut ordered = vec![T::default(); values.len()];
    for &value in values {
        let offset = position.iter().zip(shape).fold(0, |offset, (&p, &n)| offset * n + p);
        ordered[offset] = value;
        for (p, &n) in position.iter_mut().zip(shape) {
            *p += 1;
            if *p < n {
                break;
            }
            *p = 0;
        }
    }
    ordered
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode_f32(bytes: &[u8]) -> Result<(Vec<usize>, Vec<f32>), Malformed> {
        decode(bytes, |reader, count, element, order| {
            data_type::read_f32(reader, count, element, order, Scale::NONE, FORMAT)
        })
    }

    #[test]
    fn the_header_equals_numpys() {
        // np.save of np.zeros((2, 11)) with NumPy 2.
        let expected = format!("{:<117}\n", "{'descr': '<f8', 'fortran_order': False, 'shape': (2, 11), }");
        assert_eq!(header("<f8", &[2, 11])[10..], *expected.as_bytes());
        assert!(String::from_utf8_lossy(&header("<f4", &[3])).contains("(3,)"));
        assert!(String::from_utf8_lossy(&header("<f4", &[])).contains("()"));
    }

    #[test]
    fn fortran_order_and_integers_become_c_order_f32() {
        let head = String::from_utf8_lossy(&header("<i2", &[2, 3])[10..]).replace("False", "True ");
        let values = [1i16, 4, 2, 5, 3, 6].into_iter().flat_map(i16::to_le_bytes).collect::<Vec<_>>();
        let length = (head.len() as u16).to_le_bytes();
        let bytes = [&MAGIC[..], &[1, 0], &length, head.as_bytes(), &values].concat();
        assert_eq!(decode_f32(&bytes).unwrap(), (vec![2, 3], vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]));
    }

    #[test]
    fn files_round_trip_in_both_precisions() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.npy");
        write_f32(&path, &[2, 1, 2], &[1.5, -2.0, 0.1, 4.0]).unwrap();
        assert_eq!(read_f32(&path).unwrap(), (vec![2, 1, 2], vec![1.5, -2.0, 0.1, 4.0]));
        let content = std::fs::read(&path).unwrap();
        assert_eq!(parse_f64(&content).unwrap(), (vec![2, 1, 2], vec![1.5, -2.0, f64::from(0.1f32), 4.0]));
        write_f64(&path, &[3], &[0.1, 0.2, 0.3]).unwrap();
        let content = std::fs::read(&path).unwrap();
        assert_eq!(parse_f64(&content).unwrap(), (vec![3], vec![0.1, 0.2, 0.3]));
        let integers = [&header("<i2", &[1])[..], &[7, 0]].concat();
        assert!(parse_f64(&integers).unwrap_err().to_string().contains("neither float32"));
        assert!(parse_f64(&content[..content.len() - 1]).unwrap_err().to_string().contains("ends early"));
    }

    proptest! {
        #[test]
        fn mutants_never_panic(flips in prop::collection::vec((0usize..160, any::<u8>()), 1..8), cut in 0usize..160) {
            let mut bytes = header("<f4", &[2, 3]);
            bytes.extend([0; 24]);
            for (offset, value) in flips {
                if let Some(byte) = bytes.get_mut(offset) { *byte = value; }
            }
            let _ = decode_f32(&bytes);
            let _ = decode_f32(&bytes[..cut.min(bytes.len())]);
        }
    }
}
