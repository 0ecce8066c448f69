//! safetensors: named tensors and text metadata, as weights are kept.
//!
//! Written by ourselves so that the same tensors always give the same bytes (and hash): sorted
//! names, sorted metadata.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;

use half::f16;
use half::slice::HalfFloatSliceExt;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Map, Value, json};

use super::atomic::write_atomically;
use super::{FileError, Malformed, read_bytes};

const FORMAT: &str = "safetensors";

/// A tensor in memory.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// Sides, slowest first.
    pub shape: Vec<usize>,
    /// C-order values.
    pub data: Vec<f32>,
}

/// The content of a safetensors file.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tensors {
    /// Tensors by name.
    pub tensors: BTreeMap<String, Tensor>,
    /// Free text by key.
    pub metadata: BTreeMap<String, String>,
}

/// How numbers are kept in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// 32 bits, exact.
    F32,
    /// 16 bits: about three digits, largest value 65504.
    F16,
}

/// Tensors of a file. Reals of 16, 32 or 64 bits and bfloat16 become `f32`; other types are an
/// error.
///
/// # Errors
/// [`FileError::Read`] when the file cannot be read, [`FileError::Malformed`] when it is damaged.
pub fn read(path: &Path) -> Result<Tensors, FileError> {
    decode(&read_bytes(path)?).map_err(|error| error.at(path))
}

/// As [`read`], from the bytes of a file.
///
/// # Errors
/// [`Malformed`] when the content is damaged or of a type that is not read.
pub fn decode(bytes: &[u8]) -> Result<Tensors, Malformed> {
    let (file, metadata) = parse(bytes)?;
    let tensors = file.iter().map(|(name, view)| {
        let data = to_f32(&view).map_err(|error| Malformed { reason: format!("{name}: {}", error.reason), ..error })?;
        Ok((name.to_string(), Tensor { shape: view.shape().to_vec(), data }))
    });
    Ok(Tensors { tensors: tensors.collect::<Result<_, _>>()?, metadata })
}

/// Write tensors; the same content gives the same bytes.
///
/// # Errors
/// [`FileError::Write`] when the file cannot be written.
///
/// # Panics
/// if a tensor's shape does not match its values (programmer error).
pub fn write(path: &Path, content: &Tensors, precision: Precision) -> Result<(), FileError> {
    write_atomically(path, |writer| write_to(writer, content, precision))
}

/// As [`write()`], into memory.
///
/// # Panics
/// as [`write()`].
pub fn encode(content: &Tensors, precision: Precision) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_to(&mut bytes, content, precision).expect("memory takes every write");
    bytes
}

fn write_to(writer: &mut dyn Write, content: &Tensors, precision: Precision) -> io::Result<()> {
    let parts = content.tensors.iter().map(|(name, tensor)| Part::real(name, &tensor.shape, &tensor.data, precision));
    write_parts(writer, &parts.collect::<Vec<_>>(), &content.metadata)
}

/// One tensor as it lies in a file.
pub(super) struct Part<'a> {
    name: &'a str,
    kind: Dtype,
    shape: &'a [usize],
    bytes: Cow<'a, [u8]>,
}

impl<'a> Part<'a> {
    pub fn bytes(name: &'a str, shape: &'a [usize], bytes: &'a [u8]) -> Self {
        Self { name, kind: Dtype::U8, shape, bytes: bytes.into() }.checked()
    }

    pub fn real(name: &'a str, shape: &'a [usize], data: &[f32], precision: Precision) -> Self {
        let (kind, bytes) = match precision {
            Precision::F32 => (Dtype::F32, data.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>()),
            Precision::F16 => (Dtype::F16, data.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect()),
        };
        Self { name, kind, shape, bytes: bytes.into() }.checked()
    }

    fn checked(self) -> Self {
        let expected = self.shape.iter().product::<usize>() * self.kind.bitsize() / 8;
        assert_eq!(expected, self.bytes.len(), "values of {} do not match its shape {:?}", self.name, self.shape);
        self
    }
}

/// Write tensors one after another in the given order.
pub(super) fn write_parts(
    writer: &mut dyn Write,
    parts: &[Part],
    metadata: &BTreeMap<String, String>,
) -> io::Result<()> {
    let mut header = Map::new();
    if !metadata.is_empty() {
        header.insert("__metadata__".into(), json!(metadata));
    }
    let mut start = 0;
    for part in parts {
        let end = start + part.bytes.len();
        let entry: Value = json!({ "dtype": part.kind, "shape": part.shape, "data_offsets": [start, end] });
        header.insert(part.name.into(), entry);
        start = end;
    }
    let mut text = serde_json::to_string(&header)?;
    // Blanks bring the data to a multiple of eight bytes.
    text.extend(std::iter::repeat_n(' ', text.len().next_multiple_of(8) - text.len()));
    writer.write_all(&(text.len() as u64).to_le_bytes())?;
    writer.write_all(text.as_bytes())?;
    parts.iter().try_for_each(|part| writer.write_all(&part.bytes))
}

/// The checked layout of a file and its metadata.
pub(super) fn parse(bytes: &[u8]) -> Result<(SafeTensors<'_>, BTreeMap<String, String>), Malformed> {
    let damaged = |error: safetensors::SafeTensorError| Malformed::new(FORMAT, error.to_string());
    let file = SafeTensors::deserialize(bytes).map_err(damaged)?;
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(damaged)?;
    Ok((file, header.metadata().iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect()))
}

/// Values of a tensor as `f32`.
pub(super) fn to_f32(view: &TensorView) -> Result<Vec<f32>, Malformed> {
    let bytes = view.data();
    Ok(match view.dtype() {
        Dtype::F32 => bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect(),
        Dtype::F64 => bytes.as_chunks().0.iter().map(|&b| f64::from_le_bytes(b) as f32).collect(),
        Dtype::BF16 => bytes.as_chunks().0.iter().map(|&b| half::bf16::from_le_bytes(b).to_f32()).collect(),
        Dtype::F16 => {
            let halves: Vec<f16> = bytes.as_chunks().0.iter().map(|&b| f16::from_le_bytes(b)).collect();
            let mut values = vec![0.0; halves.len()];
            halves.convert_to_f32_slice(&mut values);
            values
        }
        other => return Err(Malformed::new(FORMAT, format!("values of type {other} are not read; save them as F32"))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> Tensors {
        let tensor = |shape: &[usize], data: &[f32]| Tensor { shape: shape.to_vec(), data: data.to_vec() };
        let tensors = [("b.weight", tensor(&[2, 2], &[1.0, -2.5, 0.0, 65504.0])), ("a.bias", tensor(&[], &[0.1]))];
        let metadata = [("z", "last"), ("a", "{\"x\": 1}")];
        Tensors {
            tensors: tensors.into_iter().map(|(k, v)| (k.into(), v)).collect(),
            metadata: metadata.into_iter().map(|(k, v)| (k.into(), v.into())).collect(),
        }
    }

    #[test]
    fn exact_in_32_bits_and_close_in_16() {
        let content = sample();
        assert_eq!(decode(&encode(&content, Precision::F32)).unwrap(), content);
        let rounded = decode(&encode(&content, Precision::F16)).unwrap();
        assert_eq!(rounded.tensors["b.weight"], content.tensors["b.weight"]);
        assert!((rounded.tensors["a.bias"].data[0] - 0.1).abs() < 1e-4);
        assert_eq!(encode(&content, Precision::F16).len() % 2, 0);
    }

    #[test]
    fn the_reference_library_reads_it() {
        let bytes = encode(&sample(), Precision::F32);
        let file = SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(file.tensor("b.weight").unwrap().shape(), [2, 2]);
        assert_eq!(bytes, encode(&sample(), Precision::F32));
    }

    #[test]
    fn files_round_trip_and_damage_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.safetensors");
        write(&path, &sample(), Precision::F32).unwrap();
        assert_eq!(read(&path).unwrap(), sample());
        std::fs::write(&path, b"nonsense").unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("w.safetensors"));
    }

    proptest! {
        #[test]
        fn mutants_never_panic(flips in prop::collection::vec((0usize..260, any::<u8>()), 1..8), cut in 0usize..260) {
            let mut bytes = encode(&sample(), Precision::F16);
            for (offset, value) in flips {
                if let Some(byte) = bytes.get_mut(offset) { *byte = value; }
            }
            let _ = decode(&bytes);
            let _ = decode(&bytes[..cut.min(bytes.len())]);
        }
    }
}
