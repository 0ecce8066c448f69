//! Reading of published checkpoints, safetensors or PyTorch files, into f32 tensors under their
//! official names.

use std::path::{Path, PathBuf};

use half::{bf16, f16};
use pytorch_reader::{DType, PytorchReader};

use willis_core::files::tensors::{StoredTensor, TensorFile};

use crate::weights::Weights;

/// Why a checkpoint cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The file cannot be read.
    #[error("cannot read checkpoint {}; check the path", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is neither a safetensors nor a PyTorch file.
    #[error("{} is not a readable safetensors or PyTorch checkpoint ({reason}); download it again", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What the reader said.
        reason: String,
    },
}

/// Prefixes of names: keys under which training scripts store a state dict, and module wrappers.
const WRAPPERS: [&str; 4] = ["model_state_dict.", "state_dict.", "model.", "module."];
/// Suffixes of buffers that a net computes itself.
const BUFFERS: [&str; 2] = ["num_batches_tracked", "relative_position_index"];

/// Reads the floating-point tensors of a checkpoint, under their names without wrappers. Integer
/// tensors (counters, index tables) are skipped.
///
/// # Errors
/// [`CheckpointError`]
pub fn read(path: &Path) -> Result<Weights, CheckpointError> {
    let safe = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("safetensors"));
    let tensors = if safe { safetensors(path)? } else { pytorch(path)? };
    let mut weights = Weights::default();
    for (name, shape, values) in unwrapped(tensors) {
        if !BUFFERS.iter().any(|buffer| name.ends_with(buffer)) {
            weights.insert(name, shape, values);
        }
    }
    Ok(weights)
}

/// Name, shape and values.
type Entry = (String, Vec<usize>, Vec<f32>);

/// Removes each wrapper that any name has, and the entries outside of it.
fn unwrapped(mut entries: Vec<Entry>) -> Vec<Entry> {
    for wrapper in WRAPPERS {
        if entries.iter().any(|(name, ..)| name.starts_with(wrapper)) {
            let inner = |(name, shape, values): Entry| Some((name.strip_prefix(wrapper)?.to_string(), shape, values));
            entries = entries.into_iter().filter_map(inner).collect();
        }
    }
    entries
}

fn safetensors(path: &Path) -> Result<Vec<Entry>, CheckpointError> {
    let bytes = std::fs::read(path).map_err(|source| CheckpointError::Io { path: path.to_path_buf(), source })?;
    let file = TensorFile::parse(&bytes).map_err(|error| format(path, &error))?;
    let entry =
        |(name, stored): (&str, StoredTensor)| Some((name.to_string(), stored.shape().to_vec(), stored.to_f32()?));
    Ok(file.iter().filter_map(entry).collect())
}

fn pytorch(path: &Path) -> Result<Vec<Entry>, CheckpointError> {
    std::fs::File::open(path).map_err(|source| CheckpointError::Io { path: path.to_path_buf(), source })?;
    let reader = PytorchReader::new(path).map_err(|error| format(path, &error))?;
    let mut entries = Vec::new();
    for (name, tensor) in reader.into_tensors() {
        let is_real = matches!(tensor.dtype(), DType::F64 | DType::F32 | DType::F16 | DType::BF16);
        if !is_real {
            continue;
        }
        let data = tensor.read().map_err(|error| format(path, &error))?;
        let values = match tensor.dtype() {
            DType::F64 => reals(&data, |b: [u8; 8]| f64::from_ne_bytes(b) as f32),
            DType::F32 => reals(&data, f32::from_ne_bytes),
            DType::F16 => reals(&data, |b| f16::from_ne_bytes(b).to_f32()),
            _ => reals(&data, |b| bf16::from_ne_bytes(b).to_f32()),
        };
        entries.push((name, tensor.shape().to_vec(), values));
    }
    Ok(entries)
}

/// Values of `N` bytes each.
fn reals<const N: usize>(data: &[u8], real: impl Fn([u8; N]) -> f32) -> Vec<f32> {
    data.as_chunks().0.iter().map(|&bytes| real(bytes)).collect()
}

fn format(path: &Path, error: &dyn std::error::Error) -> CheckpointError {
    CheckpointError::Format { path: path.to_path_buf(), reason: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::Precision;

    fn weights(names: &[(&str, &[usize])]) -> Weights {
        let mut weights = Weights::default();
        for (name, shape) in names {
            weights.insert(*name, shape.to_vec(), vec![0.5; shape.iter().product()]);
        }
        weights
    }

    #[test]
    fn wrappers_and_buffers_are_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("net.safetensors");
        let wrapped = [
            ("model.module.a.weight", &[2, 3][..]),
            ("model.module.a.num_batches_tracked", &[1]),
            ("optimizer.state", &[4]),
        ];
        weights(&wrapped).save(&path, Precision::F16).unwrap();
        let read = read(&path).unwrap();
        assert_eq!(read.shapes().collect::<Vec<_>>(), [("a.weight", &[2, 3][..])]);
    }

    #[test]
    fn an_unreadable_checkpoint_is_named_in_the_error() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a.safetensors", "a.pt"] {
            let path = folder.path().join(name);
            std::fs::write(&path, b"no checkpoint").unwrap();
            assert!(read(&path).unwrap_err().to_string().contains(name));
        }
        assert!(read(&folder.path().join("none.pt")).is_err());
    }
}
