//! Standard scales as files of the Python package `intensity-normalization`.
//!
//! Version 3 writes `.npy`: `float64`, shape (2, landmarks), the scale followed by the
//! percentiles. Version 4 writes `.npz`: `standard_scale` and `landmark_percentiles`, both
//! `float32`, with the stamps `_method` ("nyul") and `_format_version` (1). Any number of landmarks
//! is read; the package's and our own default is eleven.

use std::io::{Cursor, Read, Seek, Write};
use std::path::Path;

use willis_core::files::atomic::write_atomically;
use willis_core::files::{FileError, Malformed, npy};
use zip::ZipArchive;
use zip::write::{SimpleFileOptions, ZipWriter};

use super::NyulError;
use super::standard::Standard;

const FORMAT: &str = "standard scale";
/// Size limit of one array in a `.npz`, bytes. Eleven landmarks take 172.
const MAX_ARRAY: u64 = 1 << 16;

impl Standard {
    /// Reads a standard scale, `.npy` or `.npz`; which one is told by the content.
    ///
    /// # Errors
    /// [`NyulError::File`] when the file is missing, damaged or of another shape, or its values do
    /// not rise.
    pub fn load(path: &Path) -> Result<Self, NyulError> {
        let read = |source| NyulError::File(FileError::Read { path: path.to_path_buf(), source });
        let mut bytes = Vec::new();
        std::fs::File::open(path).map_err(read)?.take(MAX_ARRAY).read_to_end(&mut bytes).map_err(read)?;
        let standard = if bytes.starts_with(b"PK") { Self::from_npz(&bytes) } else { Self::from_npy(&bytes) };
        standard.map_err(|source| NyulError::File(FileError::Malformed { path: path.to_path_buf(), source }))
    }

    /// A standard scale from the content of a `.npy` file.
    pub(super) fn from_npy(bytes: &[u8]) -> Result<Self, Malformed> {
        let (shape, values) = npy::parse_f64(bytes)?;
        let &[2, n] = &shape[..] else {
            return Err(Malformed::new(FORMAT, format!("its shape is {shape:?}, expected [2, 11]; fit it again")));
        };
        Self::checked(values[..n].to_vec(), values[n..].to_vec())
    }

    /// A standard scale from the content of a `.npz` file.
    fn from_npz(bytes: &[u8]) -> Result<Self, Malformed> {
        let damaged = |error: zip::result::ZipError| Malformed::new(FORMAT, format!("{error}; fit it again"));
        let mut archive = ZipArchive::new(Cursor::new(bytes)).map_err(damaged)?;
        Self::checked(array(&mut archive, "standard_scale")?, array(&mut archive, "landmark_percentiles")?)
    }

    fn checked(scale: Vec<f64>, percentiles: Vec<f64>) -> Result<Self, Malformed> {
        let finite = scale.iter().chain(&percentiles).all(|v| v.is_finite());
        let rising = scale.windows(2).all(|w| w[0] <= w[1]) && percentiles.windows(2).all(|w| w[0] < w[1]);
        let (Some(&first), Some(&last)) = (percentiles.first(), percentiles.last()) else {
            return Err(Malformed::new(FORMAT, "it has no landmarks; fit it again"));
        };
        if !finite || !rising || scale.len() != percentiles.len() || scale.len() < 2 || first < 0.0 || last > 100.0 {
            return Err(Malformed::new(FORMAT, "its values do not rise, or are not percentiles; fit it again"));
        }
        Ok(Self { scale, percentiles })
    }

    /// Writes a standard scale as version 4 of the package does if the path ends in `.npz`, and as
    /// version 3 does otherwise.
    ///
    /// # Errors
    /// [`NyulError::File`] when the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), NyulError> {
        if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("npz")) {
            let bytes = self.to_npz().map_err(|error| {
                let source = std::io::Error::other(error);
                NyulError::File(FileError::Write { path: path.to_path_buf(), source })
            })?;
            return Ok(write_atomically(path, |file| file.write_all(&bytes))?);
        }
        let values = [&self.scale[..], &self.percentiles].concat();
        Ok(npy::write_f64(path, &[2, self.scale.len()], &values)?)
    }

    fn to_npz(&self) -> zip::result::ZipResult<Vec<u8>> {
        let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
        let f32s = |values: &[f64]| values.iter().flat_map(|&v| (v as f32).to_le_bytes()).collect::<Vec<u8>>();
        // NumPy stores text as UTF-32.
        let method: Vec<u8> = "nyul".chars().flat_map(|c| u32::from(c).to_le_bytes()).collect();
        let sides = [self.scale.len()];
        for (name, kind, shape, bytes) in [
            ("_method", "<U4", &[][..], method),
            ("_format_version", "<i8", &[][..], 1i64.to_le_bytes().to_vec()),
            ("standard_scale", "<f4", &sides[..], f32s(&self.scale)),
            ("landmark_percentiles", "<f4", &sides[..], f32s(&self.percentiles)),
        ] {
            archive.start_file(format!("{name}.npy"), SimpleFileOptions::default())?;
            archive.write_all(&npy::header(kind, shape))?;
            archive.write_all(&bytes)?;
        }
        Ok(archive.finish()?.into_inner())
    }
}

/// One array of numbers of a `.npz`.
fn array(archive: &mut ZipArchive<impl Read + Seek>, name: &str) -> Result<Vec<f64>, Malformed> {
    let missing = |_| Malformed::new(FORMAT, format!("it has no array {name}; save it with NyulTransform.save"));
    let entry = archive.by_name(&format!("{name}.npy")).map_err(missing)?;
    let mut bytes = Vec::new();
    let read = entry.take(MAX_ARRAY).read_to_end(&mut bytes);
    read.map_err(|error| Malformed::new(FORMAT, format!("{error}; copy or download it again")))?;
    Ok(npy::parse_f64(&bytes)?.1)
}
