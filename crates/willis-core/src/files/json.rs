//! Indented JSON files.

use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::atomic::write_atomically;
use super::{FileError, Malformed, read_bytes};

/// Reads a value from a JSON file.
///
/// # Errors
/// [`FileError::Read`] when the file cannot be read, [`FileError::Malformed`] with line and column
/// when the content is not such a value.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<T, FileError> {
    serde_json::from_slice(&read_bytes(path)?).map_err(|error| Malformed::new("JSON", error.to_string()).at(path))
}

/// Writes a value as an indented JSON file, atomically.
///
/// # Errors
/// [`FileError::Write`] when the file cannot be written or the value has no JSON representation.
pub fn write<T: Serialize + ?Sized>(path: &Path, value: &T) -> Result<(), FileError> {
    write_atomically(path, |writer| {
        serde_json::to_writer_pretty(&mut *writer, value)?;
        writer.write_all(b"\n")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_round_trip_and_errors_name_the_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        write(&path, &vec![1.5, 2.0]).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "[\n  1.5,\n  2.0\n]\n");
        assert_eq!(read::<Vec<f64>>(&path).unwrap(), [1.5, 2.0]);
        std::fs::write(&path, "[1, oops]").unwrap();
        let message = read::<Vec<f64>>(&path).unwrap_err().to_string();
        assert!(message.contains("a.json") && message.contains("line 1"), "{message}");
    }
}
