//! Parameters of a net by path, and their safetensors files.

pub mod transfer;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Tensor, TensorData};
use serde::de::DeserializeOwned;
use willis_core::files::tensors::{self, TensorFile, TensorRef};
use willis_core::files::{FileError, Malformed};

pub use willis_core::files::tensors::Precision;

/// Why parameters cannot be read, written or given to a net.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WeightsError {
    /// The file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The bytes are not a safetensors file.
    #[error("weights are not a valid safetensors file; fetch or train them again")]
    Format(#[from] Malformed),
    /// A value type that willis does not read.
    #[error("tensor {name} has type {got}, expected reals; convert the weights")]
    Type {
        /// Path of the tensor.
        name: String,
        /// Its type.
        got: String,
    },
    /// The net has a parameter that the weights lack.
    #[error("weights lack {name}; they belong to another net or configuration")]
    Missing {
        /// Path of the parameter.
        name: String,
    },
    /// The weights have a tensor that the net lacks.
    #[error("weights hold {name}, which the net lacks; they belong to another net or configuration")]
    Unknown {
        /// Path of the tensor.
        name: String,
    },
    /// Several things do not fit.
    #[error("the weights do not fit the net; check the configuration\n{mismatch}")]
    Mismatch {
        /// All of them.
        mismatch: crate::backbones::published::state_dict::Mismatch,
    },
    /// The net computes something else with these parameters than when they were trained.
    #[error(
        "weights are of revision {got:?} of their net and this willis computes revision {expected:?}; train them again"
    )]
    Revision {
        /// In the header; `None` before revisions were counted.
        got: Option<String>,
        /// Of this code.
        expected: &'static str,
    },
    /// The header does not say which net the weights are of.
    #[error("weights carry no valid net configuration; write them with `willis train`")]
    Configuration {
        /// What is wrong with it; `None` when it is absent.
        source: Option<serde_json::Error>,
    },
    /// Same path, different shape.
    #[error("{name} has shape {got:?}, expected {expected:?}; the weights belong to another configuration")]
    Shape {
        /// Path of the parameter.
        name: String,
        /// Shape in the net.
        expected: Vec<usize>,
        /// Shape in the weights.
        got: Vec<usize>,
    },
}

/// Key of a file's header under which all metadata is stored, as JSON.
const METADATA_KEY: &str = "willis";

/// Named f32 tensors.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Weights {
    tensors: BTreeMap<String, tensors::Tensor>,
    /// Free text pairs of the file's header.
    pub metadata: BTreeMap<String, String>,
}

impl Weights {
    /// Every parameter of a net, by its path.
    pub fn of<M: Module>(net: &M) -> Self {
        let mut reader = Reader::default();
        net.visit(&mut reader);
        reader.weights
    }

    /// The configuration of the net, from the metadata key `config`.
    ///
    /// # Errors
    /// `Configuration` when there is none or it is of another net
    pub fn config<T: DeserializeOwned>(&self) -> Result<T, WeightsError> {
        let text = self.metadata.get("config").ok_or(WeightsError::Configuration { source: None })?;
        serde_json::from_str(text).map_err(|error| WeightsError::Configuration { source: Some(error) })
    }

    /// Whether the metadata key `revision` names this revision of the net.
    ///
    /// # Errors
    /// `Revision` when it does not
    pub fn check_revision(&self, expected: &'static str) -> Result<(), WeightsError> {
        match self.metadata.get("revision") {
            Some(revision) if revision == expected => Ok(()),
            other => Err(WeightsError::Revision { got: other.cloned(), expected }),
        }
    }

    /// Adds a tensor.
    ///
    /// # Panics
    /// if the number of values differs from the shape's (programmer error)
    pub fn insert(&mut self, name: impl Into<String>, shape: Vec<usize>, values: Vec<f32>) {
        assert_eq!(shape.iter().product::<usize>(), values.len(), "values do not fill shape {shape:?}");
        self.tensors.insert(name.into(), tensors::Tensor { shape, data: values });
    }

    /// Values of a tensor.
    pub fn get(&self, name: &str) -> Option<&[f32]> {
        self.tensors.get(name).map(|t| t.data.as_slice())
    }

    /// Values of a tensor, to change.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut [f32]> {
        self.tensors.get_mut(name).map(|t| t.data.as_mut_slice())
    }

    /// Multiplies every value.
    pub fn scale(&mut self, factor: f32) {
        self.tensors.values_mut().flat_map(|t| &mut t.data).for_each(|v| *v *= factor);
    }

    /// Adds the tensors of `other` times `factor`; those that are not here yet are taken over.
    ///
    /// # Panics
    /// if a shape differs (programmer error)
    pub fn add_scaled(&mut self, other: &Self, factor: f32) {
        for (name, added) in &other.tensors {
            let zero = || tensors::Tensor { shape: added.shape.clone(), data: vec![0.0; added.data.len()] };
            let sum = self.tensors.entry(name.clone()).or_insert_with(zero);
            assert_eq!(sum.shape, added.shape, "{name} has two shapes");
            sum.data.iter_mut().zip(&added.data).for_each(|(s, &a)| *s += a * factor);
        }
    }

    /// Names and shapes, in order of names.
    pub fn shapes(&self) -> impl Iterator<Item = (&str, &[usize])> {
        self.tensors.iter().map(|(name, t)| (name.as_str(), t.shape.as_slice()))
    }

    /// Names, shapes and values, in order of names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[usize], &[f32])> {
        self.tensors.iter().map(|(name, t)| (name.as_str(), t.shape.as_slice(), t.data.as_slice()))
    }

    /// The same names and shapes with other values.
    pub fn map(self, mut f: impl FnMut(&str, &[usize]) -> Vec<f32>) -> Self {
        let metadata = self.metadata;
        let mut mapped = Self { metadata, ..Self::default() };
        for (name, t) in self.tensors {
            let values = f(&name, &t.shape);
            mapped.insert(name, t.shape, values);
        }
        mapped
    }

    /// The same tensors with prefixes replaced, given as (old, new).
    pub fn renamed(self, prefixes: &[(&str, &str)]) -> Self {
        let rename = |name: String| {
            let found = prefixes.iter().find_map(|(old, new)| Some(format!("{new}{}", name.strip_prefix(old)?)));
            found.unwrap_or(name)
        };
        Self { tensors: self.tensors.into_iter().map(|(n, t)| (rename(n), t)).collect(), metadata: self.metadata }
    }

    /// The tensors whose names start with `prefix`, named without it.
    pub fn under(&self, prefix: &str) -> Self {
        let tensors = self.tensors.iter().filter_map(|(n, t)| Some((n.strip_prefix(prefix)?.to_string(), t.clone())));
        Self { tensors: tensors.collect(), metadata: BTreeMap::new() }
    }

    /// The net with these parameters.
    ///
    /// # Errors
    /// `Missing`, `Unknown`, `Shape` when the weights are not exactly the net's
    pub fn apply<M: Module>(self, net: M) -> Result<M, WeightsError> {
        let mut writer = Writer { path: Vec::new(), tensors: self.tensors, error: None };
        let net = net.map(&mut writer);
        if let Some(error) = writer.error {
            return Err(error);
        }
        match writer.tensors.into_keys().find(|name| !name.ends_with("num_batches_tracked")) {
            Some(name) => Err(WeightsError::Unknown { name }),
            None => Ok(net),
        }
    }

    /// The bytes of a safetensors file; equal weights give equal bytes.
    pub fn to_bytes(&self, precision: Precision) -> Vec<u8> {
        tensors::encode_refs(&self.refs(precision), &self.header())
    }

    /// Weights from the bytes of a safetensors file.
    ///
    /// # Errors
    /// `Format`, `Type`
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, WeightsError> {
        let file = TensorFile::parse(bytes)?;
        let metadata = file.metadata.get(METADATA_KEY).and_then(|text| serde_json::from_str(text).ok());
        let mut weights = Self { metadata: metadata.unwrap_or_default(), ..Self::default() };
        for (name, stored) in file.iter() {
            let values = match stored.to_f32() {
                Some(values) => values,
                None if name.ends_with("num_batches_tracked") => continue,
                None => return Err(WeightsError::Type { name: name.to_string(), got: stored.type_name() }),
            };
            weights.insert(name, stored.shape().to_vec(), values);
        }
        Ok(weights)
    }

    /// Writes a safetensors file.
    ///
    /// # Errors
    /// `File`
    pub fn save(&self, path: &Path, precision: Precision) -> Result<(), WeightsError> {
        Ok(tensors::write_refs(path, &self.refs(precision), &self.header())?)
    }

    /// Reads a safetensors file.
    ///
    /// # Errors
    /// `File`, `Format`, `Type`
    pub fn load(path: &Path) -> Result<Self, WeightsError> {
        let bytes = fs::read(path).map_err(|source| FileError::Read { path: path.to_path_buf(), source })?;
        Self::from_bytes(&bytes)
    }

    fn refs(&self, precision: Precision) -> Vec<TensorRef<'_>> {
        self.tensors.iter().map(|(name, tensor)| TensorRef::float(name, tensor, precision)).collect()
    }

    /// The metadata as one pair of a file's header.
    fn header(&self) -> BTreeMap<String, String> {
        let text = || serde_json::to_string(&self.metadata).expect("a map of strings is valid JSON");
        (!self.metadata.is_empty()).then(|| (METADATA_KEY.to_string(), text())).into_iter().collect()
    }
}

#[derive(Default)]
struct Reader {
    path: Vec<String>,
    weights: Weights,
}

impl ModuleVisitor for Reader {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let value = param.val();
        let shape = value.dims().to_vec();
        let values = value.into_data().convert::<f32>().try_to_vec::<f32>().expect("data was just converted to f32");
        self.weights.insert(self.path.join("."), shape, values);
    }
}

struct Writer {
    path: Vec<String>,
    tensors: BTreeMap<String, tensors::Tensor>,
    error: Option<WeightsError>,
}

impl ModuleMapper for Writer {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let name = self.path.join(".");
        let (old, expected) = (param.val(), param.val().dims().to_vec());
        let error = match self.tensors.remove(&name) {
            Some(t) if t.shape == expected => {
                return param.map(|_| {
                    let new = Tensor::from_data(TensorData::new(t.data, t.shape), &old.device());
                    new.set_require_grad(old.is_require_grad())
                });
            }
            Some(t) => WeightsError::Shape { name, expected, got: t.shape },
            None => WeightsError::Missing { name },
        };
        self.error.get_or_insert(error);
        param
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::layers::{Init, Linear, LinearConfig};

    fn net(seed: u64) -> Linear {
        LinearConfig::new(3, 2).init(&mut Init::new(seed, &Device::flex()))
    }

    #[test]
    fn files_keep_names_shapes_and_values() {
        let mut weights = Weights::of(&net(1));
        weights.metadata.insert("licence".into(), "research use".into());
        assert_eq!(weights.shapes().collect::<Vec<_>>(), [("bias", &[2][..]), ("weight", &[2, 3][..])]);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("net.safetensors");
        weights.save(&path, Precision::F32).unwrap();
        assert_eq!(Weights::load(&path).unwrap(), weights);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        let half = Weights::from_bytes(&weights.to_bytes(Precision::F16)).unwrap();
        for (a, b) in half.get("weight").unwrap().iter().zip(weights.get("weight").unwrap()) {
            assert!((a - b).abs() <= b.abs() / 1024.0 + 1e-7);
        }
    }

    #[test]
    fn a_net_takes_only_its_own_weights() {
        let weights = Weights::of(&net(1));
        let taken = weights.clone().apply(net(2)).unwrap();
        assert_eq!(Weights::of(&taken), weights);
        let mut extra = weights.clone();
        extra.insert("scale", vec![1], vec![1.0]);
        assert!(matches!(extra.apply(net(2)), Err(WeightsError::Unknown { name }) if name == "scale"));
        assert!(matches!(Weights::default().apply(net(2)), Err(WeightsError::Missing { .. })));
        let mut reshaped = weights;
        reshaped.insert("bias", vec![1], vec![1.0]);
        assert!(matches!(reshaped.apply(net(2)), Err(WeightsError::Shape { .. })));
    }

    #[test]
    fn broken_files_are_errors() {
        let bytes = Weights::of(&net(1)).to_bytes(Precision::F32);
        for cut in [0, 7, 8, 40, bytes.len() - 1] {
            assert!(Weights::from_bytes(&bytes[..cut]).is_err());
        }
    }
}
