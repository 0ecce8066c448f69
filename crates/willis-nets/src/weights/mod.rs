//! Named parameters of nets: their names, their files, and the metadata of these files.
//!
//! The file format is [`willis_core::files::tensors`]. Every weights file of a net carries the
//! net's configuration and the revision of its code.

mod error;
mod mismatch;
mod module;
pub mod transfer;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;
use willis_core::files::FileError;
use willis_core::files::tensors::{self, TensorFile, TensorRef};

pub use error::WeightsError;
pub use mismatch::Mismatch;
pub use willis_core::files::tensors::Precision;

/// Key of a file's header under which all metadata is stored, as JSON.
const METADATA_KEY: &str = "willis";
/// Key of the net's configuration, as JSON.
const CONFIG_KEY: &str = "config";
/// Key of the revision of the net's code.
const REVISION_KEY: &str = "revision";

/// Named f32 tensors.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Weights {
    tensors: BTreeMap<String, tensors::Tensor>,
    /// Metadata of the file: free text by key.
    pub metadata: BTreeMap<String, String>,
}

impl Weights {
    /// The same weights with the configuration of their net and the revision of its code in the
    /// metadata.
    ///
    /// # Panics
    /// if the configuration is not valid JSON (programmer error)
    #[must_use]
    pub fn described(mut self, config: &impl Serialize, revision: &str) -> Self {
        let config = serde_json::to_string(config).expect("configurations of nets are valid JSON");
        self.metadata.insert(CONFIG_KEY.into(), config);
        self.metadata.insert(REVISION_KEY.into(), revision.into());
        self
    }

    /// Returns the configuration of the net, from the metadata.
    ///
    /// # Errors
    /// [`WeightsError::Configuration`] if the metadata has none, or one of another net
    pub fn config<T: DeserializeOwned>(&self) -> Result<T, WeightsError> {
        let text = self.metadata.get(CONFIG_KEY).ok_or(WeightsError::Configuration { source: None })?;
        serde_json::from_str(text).map_err(|error| WeightsError::Configuration { source: Some(error) })
    }

    /// Checks that the weights were trained with this revision of the net's code.
    ///
    /// # Errors
    /// [`WeightsError::Revision`] if the metadata has another revision or none
    pub fn check_revision(&self, expected: &'static str) -> Result<(), WeightsError> {
        match self.metadata.get(REVISION_KEY) {
            Some(revision) if revision == expected => Ok(()),
            other => Err(WeightsError::Revision { got: other.cloned(), expected }),
        }
    }

    /// Adds a tensor or replaces the one of this name.
    ///
    /// # Panics
    /// if the values do not fill the shape (programmer error)
    pub fn insert(&mut self, name: impl Into<String>, shape: Vec<usize>, values: Vec<f32>) {
        assert_eq!(shape.iter().product::<usize>(), values.len(), "values do not fill shape {shape:?}");
        self.tensors.insert(name.into(), tensors::Tensor { shape, data: values });
    }

    /// Shape of a tensor.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(|t| t.shape.as_slice())
    }

    /// Values of a tensor.
    pub fn get(&self, name: &str) -> Option<&[f32]> {
        self.tensors.get(name).map(|t| t.data.as_slice())
    }

    /// Mutable values of a tensor.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut [f32]> {
        self.tensors.get_mut(name).map(|t| t.data.as_mut_slice())
    }

    /// Removes a tensor and returns its shape and values.
    fn remove(&mut self, name: &str) -> Option<(Vec<usize>, Vec<f32>)> {
        self.tensors.remove(name).map(|t| (t.shape, t.data))
    }

    /// Multiplies every value by `factor`.
    pub fn scale(&mut self, factor: f32) {
        self.tensors.values_mut().flat_map(|t| &mut t.data).for_each(|v| *v *= factor);
    }

    /// Adds `factor` times the tensors of `other`; missing tensors count as 0.
    ///
    /// # Panics
    /// if two shapes differ (programmer error)
    pub fn add_scaled(&mut self, other: &Self, factor: f32) {
        for (name, added) in &other.tensors {
            let zero = || tensors::Tensor { shape: added.shape.clone(), data: vec![0.0; added.data.len()] };
            let sum = self.tensors.entry(name.clone()).or_insert_with(zero);
            assert_eq!(sum.shape, added.shape, "shapes of {name} differ");
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

    /// The same names and shapes with the values that `f` returns.
    pub fn map(self, mut f: impl FnMut(&str, &[usize]) -> Vec<f32>) -> Self {
        let metadata = self.metadata;
        let mut mapped = Self { metadata, ..Self::default() };
        for (name, t) in self.tensors {
            let values = f(&name, &t.shape);
            mapped.insert(name, t.shape, values);
        }
        mapped
    }

    /// The same tensors with other prefixes of names, given as (old, new); the first match counts.
    pub fn renamed(self, prefixes: &[(&str, &str)]) -> Self {
        let rename = |name: String| {
            let found = prefixes.iter().find_map(|(old, new)| Some(format!("{new}{}", name.strip_prefix(old)?)));
            found.unwrap_or(name)
        };
        Self { tensors: self.tensors.into_iter().map(|(n, t)| (rename(n), t)).collect(), metadata: self.metadata }
    }

    /// The tensors whose names start with `prefix`, with the prefix removed and without metadata.
    pub fn under(&self, prefix: &str) -> Self {
        let tensors = self.tensors.iter().filter_map(|(n, t)| Some((n.strip_prefix(prefix)?.to_string(), t.clone())));
        Self { tensors: tensors.collect(), metadata: BTreeMap::new() }
    }

    /// Encodes a safetensors file; equal weights give equal bytes.
    pub fn to_bytes(&self, precision: Precision) -> Vec<u8> {
        tensors::encode_refs(&self.refs(precision), &self.header())
    }

    /// Decodes a safetensors file of floating-point tensors.
    ///
    /// # Errors
    /// [`WeightsError::Format`], [`WeightsError::Type`]
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, WeightsError> {
        let file = TensorFile::parse(bytes)?;
        let metadata = file.metadata.get(METADATA_KEY).and_then(|text| serde_json::from_str(text).ok());
        let mut weights = Self { metadata: metadata.unwrap_or_default(), ..Self::default() };
        for (name, stored) in file.iter() {
            let values = match stored.to_f32() {
                Some(values) => values,
                None if name.ends_with(module::BATCH_COUNTER) => continue,
                None => return Err(WeightsError::Type { name: name.to_string(), got: stored.type_name() }),
            };
            weights.insert(name, stored.shape().to_vec(), values);
        }
        Ok(weights)
    }

    /// Writes a safetensors file.
    ///
    /// # Errors
    /// [`WeightsError::File`]
    pub fn save(&self, path: &Path, precision: Precision) -> Result<(), WeightsError> {
        Ok(tensors::write_refs(path, &self.refs(precision), &self.header())?)
    }

    /// Reads a safetensors file of floating-point tensors.
    ///
    /// # Errors
    /// [`WeightsError::File`], [`WeightsError::InFile`]
    pub fn load(path: &Path) -> Result<Self, WeightsError> {
        let bytes = fs::read(path).map_err(|source| FileError::Read { path: path.to_path_buf(), source })?;
        Self::from_bytes(&bytes).map_err(|error| error.in_file(path))
    }

    fn refs(&self, precision: Precision) -> Vec<TensorRef<'_>> {
        self.tensors.iter().map(|(name, tensor)| TensorRef::float(name, tensor, precision)).collect()
    }

    /// The metadata as one entry of a file's header.
    fn header(&self) -> BTreeMap<String, String> {
        let text = || serde_json::to_string(&self.metadata).expect("a map of strings is valid JSON");
        (!self.metadata.is_empty()).then(|| (METADATA_KEY.to_string(), text())).into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weights() -> Weights {
        let mut weights = Weights::default();
        weights.insert("bias", vec![2], vec![0.5, -0.25]);
        weights.insert("weight", vec![2, 3], (0..6).map(|i| 0.1 * i as f32).collect());
        weights
    }

    #[test]
    fn files_keep_names_shapes_values_and_metadata() {
        let mut weights = weights();
        weights.metadata.insert("licence".into(), "research use".into());
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
    fn broken_files_are_errors_that_name_the_file() {
        let bytes = weights().to_bytes(Precision::F32);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("net.safetensors");
        for cut in [0, 7, 8, 40, bytes.len() - 1] {
            fs::write(&path, &bytes[..cut]).unwrap();
            let error = Weights::load(&path).unwrap_err();
            assert!(error.to_string().contains("net.safetensors"), "{error}");
            let cause = std::error::Error::source(&error).unwrap().to_string();
            assert!(cause.contains("download or train"), "{cause}");
        }
        fs::remove_file(&path).unwrap();
        assert!(Weights::load(&path).unwrap_err().to_string().contains("net.safetensors"));
    }

    #[test]
    fn configuration_and_revision_are_read_back_and_checked() {
        let weights = weights();
        assert!(matches!(weights.config::<Vec<usize>>(), Err(WeightsError::Configuration { source: None })));
        assert!(matches!(weights.check_revision("2"), Err(WeightsError::Revision { got: None, .. })));
        let weights = Weights::from_bytes(&weights.described(&vec![1, 2], "2").to_bytes(Precision::F32)).unwrap();
        assert_eq!(weights.config::<Vec<usize>>().unwrap(), [1, 2]);
        assert!(matches!(weights.config::<String>(), Err(WeightsError::Configuration { source: Some(_) })));
        assert!(weights.check_revision("2").is_ok());
        let error = weights.check_revision("3").unwrap_err().to_string();
        assert!(error.contains("revision 2") && error.contains("revision 3") && error.contains("train"), "{error}");
    }

    #[test]
    fn sums_count_missing_tensors_as_zero() {
        let mut sum = Weights::default();
        sum.add_scaled(&weights(), 2.0);
        sum.add_scaled(&weights(), -1.0);
        sum.scale(0.5);
        assert_eq!(sum.get("bias").unwrap(), [0.25, -0.125]);
    }

    #[test]
    fn prefixes_are_replaced_and_selected() {
        let renamed = weights().renamed(&[("wei", "a.wei"), ("", "b.")]);
        assert_eq!(renamed.shapes().map(|(name, _)| name).collect::<Vec<_>>(), ["a.weight", "b.bias"]);
        assert_eq!(renamed.under("b.").shapes().collect::<Vec<_>>(), [("bias", &[2][..])]);
    }
}
