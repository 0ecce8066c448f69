//! safetensors: named tensors with text metadata.
//!
//! The only module that knows the format. Equal content gives equal bytes: tensors are written in
//! the order given and metadata in the order of its keys, whereas the `safetensors` library writes
//! metadata in the random order of a hash map.
//!
//! # Source
//! <https://github.com/huggingface/safetensors>, section "Format".

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use safetensors::{Dtype, SafeTensorError, SafeTensors};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use super::atomic::write_atomically;
use super::{FileError, Malformed, read_bytes};

const FORMAT: &str = "safetensors";

/// Key of the metadata in a header.
const METADATA: &str = "__metadata__";

/// Alignment of the first tensor, bytes.
const ALIGNMENT: usize = 8;

/// A tensor in memory.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// Sizes of the axes, slowest first.
    pub shape: Vec<usize>,
    /// Values in C order.
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

/// Precision of floating-point values in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// 32 bits, exact.
    F32,
    /// 16 bits: about three decimal digits, largest value 65504.
    F16,
}

/// A tensor to be written.
#[derive(Debug, Clone, Copy)]
pub struct TensorRef<'a> {
    /// Name in the file.
    pub name: &'a str,
    /// Sizes of the axes, slowest first.
    pub shape: &'a [usize],
    /// Values in C order.
    pub values: ValuesRef<'a>,
}

/// Values of a tensor to be written.
#[derive(Debug, Clone, Copy)]
pub enum ValuesRef<'a> {
    /// Floating-point values and their precision in the file.
    Float(&'a [f32], Precision),
    /// Unsigned bytes.
    U8(&'a [u8]),
}

/// Reads a file. Floating-point values of 16, 32 or 64 bits and bfloat16 become `f32`.
///
/// # Errors
/// [`FileError::Read`] when the file cannot be read, [`FileError::Malformed`] when it is damaged or
/// holds another type.
pub fn read(path: &Path) -> Result<Tensors, FileError> {
    decode(&read_bytes(path)?).map_err(|error| error.at(path))
}

/// As [`read`], from the bytes of a file.
///
/// # Errors
/// [`Malformed`] when the content is damaged or of another type.
pub fn decode(bytes: &[u8]) -> Result<Tensors, Malformed> {
    let file = TensorFile::parse(bytes)?;
    let tensors = file.iter().map(|(name, stored)| {
        let data = stored.to_f32().ok_or_else(|| {
            let reason = format!("{name}: values of type {} are not read; save them as F32", stored.type_name());
            Malformed::new(FORMAT, reason)
        })?;
        Ok((name.to_string(), Tensor { shape: stored.shape().to_vec(), data }))
    });
    Ok(Tensors { tensors: tensors.collect::<Result<_, _>>()?, metadata: file.metadata })
}

/// Writes tensors with one precision for all of them.
///
/// # Errors
/// [`FileError::Write`] when the file cannot be written.
///
/// # Panics
/// if a tensor's shape does not match its values (programmer error).
pub fn write(path: &Path, content: &Tensors, precision: Precision) -> Result<(), FileError> {
    write_refs(path, &content.refs(precision), &content.metadata)
}

/// As [`write()`], into memory.
///
/// # Panics
/// as [`write()`].
pub fn encode(content: &Tensors, precision: Precision) -> Vec<u8> {
    encode_refs(&content.refs(precision), &content.metadata)
}

/// Writes tensors in the given order.
///
/// # Errors
/// [`FileError::Write`] when the file cannot be written.
///
/// # Panics
/// if a tensor's shape does not match its values (programmer error).
pub fn write_refs(path: &Path, tensors: &[TensorRef], metadata: &BTreeMap<String, String>) -> Result<(), FileError> {
    write_atomically(path, |writer| write_to(writer, tensors, metadata))
}

/// As [`write_refs`], into memory.
///
/// # Panics
/// as [`write_refs`].
pub fn encode_refs(tensors: &[TensorRef], metadata: &BTreeMap<String, String>) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_to(&mut bytes, tensors, metadata).expect("writing into memory cannot fail");
    bytes
}

impl Tensors {
    /// All tensors in the order of their names.
    fn refs(&self, precision: Precision) -> Vec<TensorRef<'_>> {
        self.tensors.iter().map(|(name, tensor)| TensorRef::float(name, tensor, precision)).collect()
    }
}

impl<'a> TensorRef<'a> {
    /// A tensor of floating-point values.
    pub fn float(name: &'a str, tensor: &'a Tensor, precision: Precision) -> Self {
        Self { name, shape: &tensor.shape, values: ValuesRef::Float(&tensor.data, precision) }
    }

    fn dtype(&self) -> Dtype {
        match self.values {
            ValuesRef::Float(_, Precision::F32) => Dtype::F32,
            ValuesRef::Float(_, Precision::F16) => Dtype::F16,
            ValuesRef::U8(_) => Dtype::U8,
        }
    }

    /// Number of bytes in the file.
    fn size(&self) -> usize {
        let count = match self.values {
            ValuesRef::Float(values, _) => values.len(),
            ValuesRef::U8(values) => values.len(),
        };
        assert_eq!(self.shape.iter().product::<usize>(), count, "values of {} do not fill {:?}", self.name, self.shape);
        count * self.dtype().bitsize() / 8
    }

    fn write_values(&self, writer: &mut dyn Write) -> io::Result<()> {
        match self.values {
            ValuesRef::Float(values, Precision::F32) => {
                writer.write_all(&values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>())
            }
            ValuesRef::Float(values, Precision::F16) => {
                writer.write_all(&values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect::<Vec<u8>>())
            }
            ValuesRef::U8(values) => writer.write_all(values),
        }
    }
}

fn write_to(writer: &mut dyn Write, tensors: &[TensorRef], metadata: &BTreeMap<String, String>) -> io::Result<()> {
    let mut header = serde_json::to_vec(&TensorIndex { tensors, metadata })?;
    header.resize(header.len().next_multiple_of(ALIGNMENT), b' ');
    writer.write_all(&(header.len() as u64).to_le_bytes())?;
    writer.write_all(&header)?;
    tensors.iter().try_for_each(|tensor| tensor.write_values(writer))
}

/// The header of a file: metadata, then type, shape and place of each tensor.
struct TensorIndex<'a> {
    tensors: &'a [TensorRef<'a>],
    metadata: &'a BTreeMap<String, String>,
}

#[derive(Serialize)]
struct TensorEntry<'a> {
    dtype: Dtype,
    shape: &'a [usize],
    data_offsets: [usize; 2],
}

impl Serialize for TensorIndex<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if !self.metadata.is_empty() {
            map.serialize_entry(METADATA, self.metadata)?;
        }
        let mut start = 0;
        for tensor in self.tensors {
            let end = start + tensor.size();
            let entry = TensorEntry { dtype: tensor.dtype(), shape: tensor.shape, data_offsets: [start, end] };
            map.serialize_entry(tensor.name, &entry)?;
            start = end;
        }
        map.end()
    }
}

/// A safetensors file in memory whose header was checked against its size.
#[derive(Debug)]
pub struct TensorFile<'a> {
    file: SafeTensors<'a>,
    /// Free text by key.
    pub metadata: BTreeMap<String, String>,
}

impl<'a> TensorFile<'a> {
    /// Parses the header of a file.
    ///
    /// # Errors
    /// [`Malformed`] when the content is damaged.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let damaged = |error: SafeTensorError| Malformed::new(FORMAT, error.to_string());
        let file = SafeTensors::deserialize(bytes).map_err(damaged)?;
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(damaged)?;
        let metadata = header.metadata().iter().flatten().map(|(key, text)| (key.clone(), text.clone())).collect();
        Ok(Self { file, metadata })
    }

    /// Names and tensors.
    pub fn iter(&self) -> impl Iterator<Item = (&str, StoredTensor<'_>)> {
        self.file.iter().map(|(name, view)| (name, StoredTensor(view)))
    }

    /// The tensor of a name.
    pub fn get(&self, name: &str) -> Option<StoredTensor<'a>> {
        self.file.tensor(name).ok().map(StoredTensor)
    }
}

/// A tensor as stored in a file.
#[derive(Debug)]
pub struct StoredTensor<'a>(safetensors::tensor::TensorView<'a>);

impl<'a> StoredTensor<'a> {
    /// Sizes of the axes, slowest first.
    pub fn shape(&self) -> &[usize] {
        self.0.shape()
    }

    /// Name of the value type, such as `F16`.
    pub fn type_name(&self) -> String {
        self.0.dtype().to_string()
    }

    /// Floating-point values; `None` when the tensor has another type.
    pub fn to_f32(&self) -> Option<Vec<f32>> {
        let bytes = self.0.data();
        Some(match self.0.dtype() {
            Dtype::F64 => values(bytes, |b| f64::from_le_bytes(b) as f32),
            Dtype::F32 => values(bytes, f32::from_le_bytes),
            Dtype::BF16 => values(bytes, |b| bf16::from_le_bytes(b).to_f32()),
            Dtype::F16 => values(bytes, f16::from_le_bytes).to_f32_vec(),
            _ => return None,
        })
    }

    /// Unsigned bytes; `None` when the tensor has another type.
    pub fn to_u8(&self) -> Option<&'a [u8]> {
        (self.0.dtype() == Dtype::U8).then(|| self.0.data())
    }
}

fn values<const N: usize, T>(bytes: &[u8], value: impl Fn([u8; N]) -> T) -> Vec<T> {
    bytes.as_chunks().0.iter().map(|&chunk| value(chunk)).collect()
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
    fn bytes_are_those_of_the_reference_library() {
        let (a, b) = ([1.5f32, -2.0], [3.0f32]);
        let refs = [("a.bias", &[2usize][..], &a[..]), ("b.weight", &[1, 1], &b)];
        for precision in [Precision::F32, Precision::F16] {
            let ours =
                refs.map(|(name, shape, data)| TensorRef { name, shape, values: ValuesRef::Float(data, precision) });
            let encoded = |data: &[f32]| -> Vec<u8> {
                match precision {
                    Precision::F32 => data.iter().flat_map(|v| v.to_le_bytes()).collect(),
                    Precision::F16 => data.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect(),
                }
            };
            let theirs = refs.map(|(name, shape, data)| (name, shape.to_vec(), encoded(data)));
            let views = theirs.iter().map(|(name, shape, bytes)| {
                (name, safetensors::tensor::TensorView::new(ours[0].dtype(), shape.clone(), bytes).unwrap())
            });
            for metadata in [BTreeMap::new(), [("willis".to_string(), "{\"x\": 1}".to_string())].into()] {
                let pairs = (!metadata.is_empty()).then(|| metadata.clone().into_iter().collect());
                let expected = safetensors::serialize(views.clone(), pairs).unwrap();
                assert_eq!(encode_refs(&ours, &metadata), expected);
            }
        }
    }

    #[test]
    fn shipped_weights_are_written_as_they_were() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models");
        for name in ["segment", "propose", "examine"] {
            let bytes = std::fs::read(folder.join(name).with_extension("safetensors")).unwrap();
            assert!(encode(&decode(&bytes).unwrap(), Precision::F16) == bytes, "{name}");
        }
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
