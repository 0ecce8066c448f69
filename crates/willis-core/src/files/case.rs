//! Training cases: one folder per case, which contains one safetensors file.
//!
//! `case.safetensors` holds `image` (F16), `sites` and `aneurysm` (U8), all `[z, y, x]`. Its
//! metadata key `case` is JSON with the schema version, grid, lesions and series.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::tensors::{Precision, StoredTensor, TensorFile, TensorRef, ValuesRef, write_refs};
use super::{FileError, Malformed, read_bytes};
use crate::case::TrainingCase;
use crate::image::Image;
use crate::lesion::Lesion;
use crate::series::SeriesMeta;
use crate::space::Grid;

/// Name of the file in the folder of a case.
pub const FILE_NAME: &str = "case.safetensors";

const SCHEMA: u32 = 1;
const FORMAT: &str = "training case";

#[derive(Debug, Serialize, Deserialize)]
struct CaseHeader {
    schema: u32,
    grid: Grid,
    lesions: Vec<Lesion>,
    meta: SeriesMeta,
}

/// Writes a case into a folder, which is created if it is missing.
///
/// Intensities are rounded to 16-bit floating point (about three decimal digits).
///
/// # Errors
/// [`FileError::Write`] when the folder or the file cannot be written.
///
/// # Panics
/// if the masks are not on the image's shape (programmer error).
pub fn save(folder: &Path, case: &TrainingCase) -> Result<(), FileError> {
    std::fs::create_dir_all(folder).map_err(|source| FileError::Write { path: folder.to_path_buf(), source })?;
    let grid = case.image.grid;
    let description = CaseHeader { schema: SCHEMA, grid, lesions: case.lesions.clone(), meta: case.meta.clone() };
    let shape = grid.shape.zyx();
    let path = folder.join(FILE_NAME);
    let text = serde_json::to_string(&description)
        .map_err(|error| FileError::Write { path: path.clone(), source: error.into() })?;
    let tensor = |name, values| TensorRef { name, shape: &shape, values };
    let tensors = [
        tensor("image", ValuesRef::Float(&case.image.voxels, Precision::F16)),
        tensor("sites", ValuesRef::U8(&case.sites.voxels)),
        tensor("aneurysm", ValuesRef::U8(&case.aneurysm.voxels)),
    ];
    write_refs(&path, &tensors, &BTreeMap::from([("case".to_string(), text)]))
}

/// Reads the case in a folder.
///
/// # Errors
/// [`FileError::Read`] when there is none, [`FileError::Malformed`] when it is damaged or has
/// another schema version.
pub fn load(folder: &Path) -> Result<TrainingCase, FileError> {
    let path = folder.join(FILE_NAME);
    decode(&read_bytes(&path)?).map_err(|error| error.at(&path))
}

fn decode(bytes: &[u8]) -> Result<TrainingCase, Malformed> {
    let file = TensorFile::parse(bytes)?;
    let text = file.metadata.get("case").ok_or_else(|| Malformed::new(FORMAT, "its description is missing"))?;
    let description: CaseHeader =
        serde_json::from_str(text).map_err(|error| Malformed::new(FORMAT, error.to_string()))?;
    if description.schema != SCHEMA {
        let reason = format!(
            "its schema version is {}, this program reads {SCHEMA}; prepare the training data again",
            description.schema
        );
        return Err(Malformed::new(FORMAT, reason));
    }
    let grid = description.grid;
    Ok(TrainingCase {
        image: image(&file, "image", "F16", grid, StoredTensor::to_f32)?,
        sites: image(&file, "sites", "U8", grid, |stored| stored.to_u8().map(<[u8]>::to_vec))?,
        aneurysm: image(&file, "aneurysm", "U8", grid, |stored| stored.to_u8().map(<[u8]>::to_vec))?,
        lesions: description.lesions,
        meta: description.meta,
    })
}

/// An image from a tensor of the expected type and of the grid's shape.
fn image<'a, T>(
    file: &TensorFile<'a>,
    name: &str,
    expected: &str,
    grid: Grid,
    values: impl Fn(&StoredTensor<'a>) -> Option<Vec<T>>,
) -> Result<Image<T>, Malformed> {
    let stored = file.get(name).ok_or_else(|| Malformed::new(FORMAT, format!("{name} is missing")))?;
    let shape = grid.shape.zyx();
    match values(&stored) {
        Some(values) if stored.shape() == shape && stored.type_name() == expected => Ok(Image::new(grid, values)),
        _ => {
            let got = stored.type_name();
            let reason = format!("{name} is {got} {:?}, expected {expected} {shape:?}", stored.shape());
            Err(Malformed::new(FORMAT, reason))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::anatomy::Site;
    use crate::series::Modality;
    use crate::space::{Affine, Point, Shape, Spacing};

    fn sample() -> TrainingCase {
        let affine = Affine::axis_aligned(Spacing::new(0.6, 0.5, 0.5), Point::new(-10.0, 20.0, 30.0));
        let grid = Grid::new(Shape::new(2, 3, 4), affine);
        let lesion = Lesion {
            centre: Point::new(1.0, 2.0, 3.0),
            diameter_mm: Some(4.5),
            site: Site::Acom,
            neck: None,
            neck_width_mm: None,
        };
        TrainingCase {
            image: Image::new(grid, (0..24).map(|i| i as f32 / 8.0 - 1.0).collect()),
            sites: Image::new(grid, (0..24).map(|i| i % 14).collect()),
            aneurysm: Image::new(grid, (0..24).map(|i| u8::from(i > 20)).collect()),
            lesions: vec![lesion],
            meta: SeriesMeta { uid: "1.2.3".into(), modality: Some(Modality::Mra), ..SeriesMeta::default() },
        }
    }

    #[test]
    fn cases_round_trip() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("made").join("here");
        let case = sample();
        save(&folder, &case).unwrap();
        let back = load(&folder).unwrap();
        assert_eq!(back.image, case.image);
        assert_eq!((back.sites, back.aneurysm), (case.sites, case.aneurysm));
        assert_eq!((back.lesions, back.meta), (case.lesions, case.meta));
    }

    #[test]
    fn a_wrong_shape_or_version_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        save(folder.path(), &sample()).unwrap();
        let path = folder.path().join(FILE_NAME);
        let text = std::fs::read(&path).unwrap();
        let replace = |from: &[u8], to: &[u8]| {
            let at = text.windows(from.len()).position(|w| w == from).unwrap();
            [&text[..at], to, &text[at + from.len()..]].concat()
        };
        let message = decode(&replace(b"\\\"schema\\\":1", b"\\\"schema\\\":7")).unwrap_err().reason;
        assert!(message.contains("version is 7"), "{message}");
        let message = decode(&replace(b"\\\"y\\\":3", b"\\\"y\\\":4")).unwrap_err().reason;
        assert!(message.contains("expected"), "{message}");
        assert!(load(&folder.path().join("none")).is_err());
    }
}
