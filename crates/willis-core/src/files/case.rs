//! Training cases: one folder each, one safetensors file in it.
//!
//! `case.safetensors` holds `image` (16-bit reals), `sites` and `aneurysm` (bytes), all
//! `[z, y, x]`; its metadata key `case` is JSON with the layout's version, grid, lesions and
//! series.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};

use super::atomic::write_atomically;
use super::tensors::{Part, Precision, parse, to_f32, write_parts};
use super::{FileError, Malformed, read_bytes};
use crate::case::TrainingCase;
use crate::image::Image;
use crate::lesion::Lesion;
use crate::series::SeriesMeta;
use crate::space::Grid;

/// Name of the file in a case's folder.
pub const FILE_NAME: &str = "case.safetensors";

const SCHEMA: u32 = 1;
const FORMAT: &str = "training case";

#[derive(Debug, Serialize, Deserialize)]
struct Description {
    schema: u32,
    grid: Grid,
    lesions: Vec<Lesion>,
    meta: SeriesMeta,
}

/// Save a case into a folder, which is made when missing.
///
/// Intensities are rounded to 16-bit reals (about three digits).
///
/// # Errors
/// [`FileError::Write`] when the folder or the file cannot be written.
///
/// # Panics
/// if the masks are not on the image's shape (programmer error).
pub fn save(folder: &Path, case: &TrainingCase) -> Result<(), FileError> {
    std::fs::create_dir_all(folder).map_err(|source| FileError::Write { path: folder.to_path_buf(), source })?;
    let grid = case.image.grid;
    let description = Description { schema: SCHEMA, grid, lesions: case.lesions.clone(), meta: case.meta.clone() };
    let shape = grid.shape.zyx();
    write_atomically(&folder.join(FILE_NAME), |writer| {
        let metadata = BTreeMap::from([("case".to_string(), serde_json::to_string(&description)?)]);
        let parts = [
            Part::real("image", &shape, &case.image.voxels, Precision::F16),
            Part::bytes("sites", &shape, &case.sites.voxels),
            Part::bytes("aneurysm", &shape, &case.aneurysm.voxels),
        ];
        write_parts(writer, &parts, &metadata)
    })
}

/// The case in a folder.
///
/// # Errors
/// [`FileError::Read`] when there is none, [`FileError::Malformed`] when it is damaged or of
/// another version.
pub fn load(folder: &Path) -> Result<TrainingCase, FileError> {
    let path = folder.join(FILE_NAME);
    decode(&read_bytes(&path)?).map_err(|error| error.at(&path))
}

fn decode(bytes: &[u8]) -> Result<TrainingCase, Malformed> {
    let (file, metadata) = parse(bytes)?;
    let text = metadata.get("case").ok_or_else(|| Malformed::new(FORMAT, "its description is missing"))?;
    let description: Description =
        serde_json::from_str(text).map_err(|error| Malformed::new(FORMAT, error.to_string()))?;
    if description.schema != SCHEMA {
        let reason =
            format!("its layout is version {}, this program reads {SCHEMA}; make it again", description.schema);
        return Err(Malformed::new(FORMAT, reason));
    }
    let grid = description.grid;
    Ok(TrainingCase {
        image: Image::new(grid, to_f32(&tensor(&file, "image", Dtype::F16, &grid)?)?),
        sites: Image::new(grid, tensor(&file, "sites", Dtype::U8, &grid)?.data().to_vec()),
        aneurysm: Image::new(grid, tensor(&file, "aneurysm", Dtype::U8, &grid)?.data().to_vec()),
        lesions: description.lesions,
        meta: description.meta,
    })
}

/// A tensor that must have the type and the grid's shape; its length then follows from the checks
/// of the format.
fn tensor<'a>(
    file: &SafeTensors<'a>,
    name: &str,
    kind: Dtype,
    grid: &Grid,
) -> Result<safetensors::tensor::TensorView<'a>, Malformed> {
    let view = file.tensor(name).map_err(|error| Malformed::new(FORMAT, error.to_string()))?;
    if view.dtype() != kind || view.shape() != grid.shape.zyx() {
        let reason = format!("{name} is {} {:?}, expected {kind} {:?}", view.dtype(), view.shape(), grid.shape.zyx());
        return Err(Malformed::new(FORMAT, reason));
    }
    Ok(view)
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
        assert!(message.contains("version 7"), "{message}");
        let message = decode(&replace(b"\\\"y\\\":3", b"\\\"y\\\":4")).unwrap_err().reason;
        assert!(message.contains("expected"), "{message}");
        assert!(load(&folder.path().join("none")).is_err());
    }
}
