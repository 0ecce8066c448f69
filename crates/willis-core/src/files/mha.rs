//! MetaImage (`.mha`): text header and voxels in one file, as written by ITK.
//!
//! World coordinates are LPS mm. Each triple of `TransformMatrix` is the direction of one voxel
//! axis. Not supported: voxels in another file (`.mhd` + `.raw`), voxels as text, several channels.
//!
//! # Source
//! MetaIO documentation, itk.org/Wiki/MetaIO.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use flate2::read::ZlibDecoder;

use super::atomic::write_atomically;
use super::data_type::{self, ByteOrder, DataType, Scale, checked_shape};
use super::{FileError, Malformed, open};
use crate::image::Image;
use crate::series::Finding;
use crate::space::{Affine, Grid};

const FORMAT: &str = "MetaImage";
/// Maximum size of the text header, bytes.
const MAX_HEADER: u64 = 1 << 16;

/// Reads a MetaImage file into an image on a grid in LPS mm.
///
/// # Errors
/// [`FileError::Read`] when the file cannot be opened, [`FileError::Malformed`] when its content is
/// damaged or not supported.
pub fn read(path: &Path) -> Result<Image<f32>, FileError> {
    read_with_notes(path).map(|(image, _)| image)
}

/// As [`read`], with findings about everything unusual, repaired or ignored.
///
/// # Errors
/// As [`read`].
pub fn read_with_notes(path: &Path) -> Result<(Image<f32>, Vec<Finding>), FileError> {
    decode(open(path)?).map_err(|error| error.at(path))
}

/// As [`read_with_notes`], from the bytes of a file.
///
/// # Errors
/// [`Malformed`] when the content is damaged or not supported.
pub fn decode(reader: impl Read) -> Result<(Image<f32>, Vec<Finding>), Malformed> {
    let mut reader = BufReader::with_capacity(1 << 16, reader);
    let header = MhaHeader::read(&mut reader)?;
    let mut findings = Vec::new();
    let grid = header.grid(&mut findings)?;
    let element = header.element()?;
    let is_big_endian = header.flag(&["BinaryDataByteOrderMSB", "ElementByteOrderMSB"]);
    let order = if is_big_endian { ByteOrder::Big } else { ByteOrder::Little };
    let mut inflated;
    let source: &mut dyn Read = if header.flag(&["CompressedData"]) {
        inflated = ZlibDecoder::new(reader);
        &mut inflated
    } else {
        &mut reader
    };
    let voxels = data_type::read_f32(source, grid.shape.len(), element, order, Scale::NONE, FORMAT)?;
    Ok((Image::new(grid, voxels), findings))
}

/// Writes an image as uncompressed `f32` voxels.
///
/// # Errors
/// [`FileError::Write`] when the file cannot be written.
pub fn write(path: &Path, image: &Image<f32>) -> Result<(), FileError> {
    let grid = &image.grid;
    let spacing = grid.spacing();
    let sizes = [spacing.x, spacing.y, spacing.z];
    let rows = grid.affine.0;
    let words = |numbers: &[f64]| numbers.iter().map(f64::to_string).collect::<Vec<_>>().join(" ");
    let directions: [f64; 9] = std::array::from_fn(|i| rows[i % 3][i / 3] / sizes[i / 3]);
    let header = format!(
        "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\n\
         CompressedData = False\nTransformMatrix = {}\nOffset = {}\nCenterOfRotation = 0 0 0\n\
         AnatomicalOrientation = RAI\nElementSpacing = {}\nDimSize = {} {} {}\n\
         ElementType = MET_FLOAT\nElementDataFile = LOCAL\n",
        words(&directions),
        words(&rows.map(|row| row[3])),
        words(&sizes),
        grid.shape.x,
        grid.shape.y,
        grid.shape.z,
    );
    write_atomically(path, |writer| {
        writer.write_all(header.as_bytes())?;
        data_type::write_f32(writer, &image.voxels)
    })
}

/// The `Key = Value` lines of the header.
struct MhaHeader(HashMap<String, String>);

impl MhaHeader {
    fn read(reader: &mut impl BufRead) -> Result<Self, Malformed> {
        let mut reader = reader.take(MAX_HEADER);
        let mut fields = HashMap::new();
        let mut line = Vec::new();
        loop {
            line.clear();
            reader.read_until(b'\n', &mut line).map_err(|error| Malformed::from_io(FORMAT, &error))?;
            let text = String::from_utf8_lossy(&line);
            let Some((key, value)) = text.split_once('=') else {
                return Err(Malformed::new(FORMAT, "its header does not end in an ElementDataFile line"));
            };
            let (key, value) = (key.trim().to_string(), value.trim().to_string());
            if key == "ElementDataFile" {
                return match value.to_ascii_uppercase().as_str() {
                    "LOCAL" => Ok(Self(fields)),
                    _ => Err(Malformed::new(FORMAT, "its voxels are in another file; convert it to one .mha file")),
                };
            }
            fields.insert(key, value);
        }
    }

    /// Value of the first of several names for one thing.
    fn get(&self, keys: &[&str]) -> Option<&str> {
        keys.iter().find_map(|&key| self.0.get(key)).map(String::as_str)
    }

    fn flag(&self, keys: &[&str]) -> bool {
        self.get(keys).is_some_and(|value| value.eq_ignore_ascii_case("true") || value == "1")
    }

    /// At least `count` numbers.
    fn numbers(&self, keys: &[&str], count: usize) -> Option<Vec<f64>> {
        let numbers = self.get(keys)?.split_whitespace().map(|word| word.parse().ok().filter(|v: &f64| v.is_finite()));
        numbers.collect::<Option<Vec<f64>>>().filter(|numbers| numbers.len() >= count)
    }

    fn element(&self) -> Result<DataType, Malformed> {
        if self.get(&["BinaryData"]).is_some() && !self.flag(&["BinaryData"]) {
            return Err(Malformed::new(FORMAT, "its voxels are text; save it as binary"));
        }
        // Readers disagree on what is skipped before voxels in the same file.
        if self.get(&["HeaderSize"]).is_some_and(|size| size != "0") {
            return Err(Malformed::new(FORMAT, "it skips bytes (HeaderSize); save it again with ITK"));
        }
        if self.numbers(&["ElementNumberOfChannels"], 1).is_some_and(|n| n[0] != 1.0) {
            return Err(Malformed::new(FORMAT, "it has several channels; keep one"));
        }
        Ok(match self.get(&["ElementType"]).unwrap_or("none") {
            "MET_CHAR" => DataType::I8,
            "MET_UCHAR" => DataType::U8,
            "MET_SHORT" => DataType::I16,
            "MET_USHORT" => DataType::U16,
            "MET_INT" | "MET_LONG" => DataType::I32,
            "MET_UINT" | "MET_ULONG" => DataType::U32,
            "MET_LONG_LONG" => DataType::I64,
            "MET_ULONG_LONG" => DataType::U64,
            "MET_FLOAT" => DataType::F32,
            "MET_DOUBLE" => DataType::F64,
            other => {
                return Err(Malformed::new(FORMAT, format!("voxel type {other} is not read; convert it to MET_FLOAT")));
            }
        })
    }

    fn grid(&self, findings: &mut Vec<Finding>) -> Result<Grid, Malformed> {
        let wrong = |what: &str| Malformed::new(FORMAT, format!("its {what} is missing or invalid"));
        let sides = self.numbers(&["DimSize"], 1).ok_or_else(|| wrong("DimSize"))?;
        let rank = self.numbers(&["NDims"], 1).map_or(sides.len(), |n| n[0] as usize).min(sides.len());
        if !(2..=4).contains(&rank) {
            return Err(wrong("NDims"));
        }
        let side = |axis: usize| if axis < rank { sides[axis] as u64 } else { 1 };
        let shape = checked_shape([side(0), side(1), side(2)]).map_err(|reason| Malformed::new(FORMAT, reason))?;
        if side(3) > 1 {
            let message = format!("the file holds {} volumes; only the first was read", side(3));
            findings.push(Finding::warning("first-volume-only", message));
        }
        let spacing = self.numbers(&["ElementSpacing", "ElementSize"], rank).unwrap_or_else(|| {
            findings.push(Finding::warning("mha-voxel-size", "the file has no voxel size; assumed 1 mm"));
            vec![1.0; rank]
        });
        let offset = self.numbers(&["Offset", "Position", "Origin"], rank).unwrap_or(vec![0.0; rank]);
        let matrix = self.numbers(&["TransformMatrix", "Rotation", "Orientation"], rank * rank);
        let direction = |row: usize, column: usize| match &matrix {
            Some(m) if row < rank && column < rank => m[column * rank + row],
            _ => f64::from(row == column),
        };
        let at = |values: &[f64], axis: usize, other: f64| if axis < rank { values[axis] } else { other };
        let affine = Affine(std::array::from_fn(|row| {
            std::array::from_fn(|column| match column {
                3 => at(&offset, row, 0.0),
                _ => direction(row, column) * at(&spacing, column, 1.0),
            })
        }));
        match affine.inverse() {
            Some(_) => Ok(Grid::new(shape, affine)),
            None => Err(wrong("TransformMatrix or ElementSpacing")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write;
    use std::path::PathBuf;

    const HEADER: &str = "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\n\
        TransformMatrix = 0 1 0 -1 0 0 0 0 1\nOffset = 10 20 30\nElementSpacing = 0.5 0.7 2\nDimSize = 3 2 1\n\
        ElementType = MET_SHORT\n";

    fn file(header: &str, voxels: &[u8]) -> Vec<u8> {
        [header.as_bytes(), b"ElementDataFile = LOCAL\n", voxels].concat()
    }

    fn voxels(to_bytes: fn(i16) -> [u8; 2]) -> Vec<u8> {
        (0..6).flat_map(|v| to_bytes(v * 100 - 300)).collect()
    }

    #[test]
    fn plain_big_endian_and_compressed_agree() {
        let plain = decode(&file(HEADER, &voxels(i16::to_le_bytes))[..]).unwrap().0;
        assert_eq!(plain.voxels, [-300.0, -200.0, -100.0, 0.0, 100.0, 200.0]);
        // The first voxel axis runs along +y, the second along -x.
        assert_eq!(plain.grid.affine.0, [[0.0, -0.7, 0.0, 10.0], [0.5, 0.0, 0.0, 20.0], [0.0, 0.0, 2.0, 30.0]]);
        let header = HEADER.replace("MSB = False", "MSB = True");
        assert_eq!(decode(&file(&header, &voxels(i16::to_be_bytes))[..]).unwrap().0, plain);
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&voxels(i16::to_le_bytes)).unwrap();
        let header = format!("{HEADER}CompressedData = True\n");
        assert_eq!(decode(&file(&header, &encoder.finish().unwrap())[..]).unwrap().0, plain);
    }

    #[test]
    fn spellings_of_other_writers_are_read() {
        let plain = decode(&file(HEADER, &voxels(i16::to_le_bytes))[..]).unwrap().0;
        for word in ["Local", "local", "LOCAL\r"] {
            let bytes = [HEADER.as_bytes(), format!("ElementDataFile = {word}\n").as_bytes()].concat();
            assert_eq!(decode(&[bytes, voxels(i16::to_le_bytes)].concat()[..]).unwrap().0, plain, "{word}");
        }
        let spaced = format!("  {}", HEADER.replace('\n', "\n \t"));
        assert_eq!(decode(&file(&spaced, &voxels(i16::to_le_bytes))[..]).unwrap().0, plain);
        let other = [HEADER.as_bytes(), b"ElementDataFile = local.raw\n"].concat();
        assert!(decode(&other[..]).unwrap_err().reason.contains("another file"));
    }

    #[test]
    fn a_written_image_is_read_back() {
        let affine = Affine([[0.5, 0.1, 0.0, -71.25], [-0.1, 0.5, 0.2, 33.5], [0.0, -0.1, 0.9, 11.0]]);
        let grid = Grid::new(crate::space::Shape::new(2, 3, 4), affine);
        let image = Image::new(grid, (0..24).map(|i| i as f32 / 3.0).collect());
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.mha");
        write(&path, &image).unwrap();
        let (back, findings) = read_with_notes(&path).unwrap();
        assert_eq!((&back.voxels, back.grid.shape, findings), (&image.voxels, grid.shape, vec![]));
        for (a, b) in back.grid.affine.0.iter().flatten().zip(affine.0.iter().flatten()) {
            assert!((a - b).abs() < 1e-12);
        }
    }

    #[test]
    fn damage_is_named() {
        for (from, to, expected) in [
            ("MET_SHORT", "MET_OTHER", "MET_OTHER"),
            ("DimSize = 3 2 1", "DimSize = 3000000 2000000 1", "limit"),
            ("DimSize = 3 2 1", "DimSize = 3 x 1", "DimSize"),
            ("DimSize = 3 2 1", "DimSize = 4 2 1", "ends early"),
            ("0 1 0 -1 0 0", "0 1 0 0 1 0", "TransformMatrix"),
            ("BinaryData = True", "BinaryData = False", "text"),
            ("BinaryData = True", "BinaryData = True\nHeaderSize = 7", "HeaderSize"),
        ] {
            let reason = decode(&file(&HEADER.replace(from, to), &voxels(i16::to_le_bytes))[..]).unwrap_err().reason;
            assert!(reason.contains(expected), "{expected}: {reason}");
        }
        assert!(decode(&b"nothing"[..]).is_err());
    }

    #[test]
    fn a_topcow_crop_has_its_shape_and_spacing() {
        let path =
            PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/04_topcow_crops/topcow_mra.mha");
        if !path.exists() {
            // Not captured by the test harness, unlike `println!`.
            writeln!(std::io::stderr(), "skipped: no {}", path.display()).unwrap();
            return;
        }
        let image = read(&path).unwrap();
        assert_eq!(image.grid.shape.zyx(), [34, 123, 140]);
        assert!((image.grid.spacing().z - 0.6).abs() < 0.01 && (image.grid.spacing().x - 0.297).abs() < 0.001);
    }

    proptest! {
        #[test]
        fn mutants_never_panic(flips in prop::collection::vec((0usize..300, any::<u8>()), 1..8), cut in 0usize..300) {
            let mut bytes = file(HEADER, &voxels(i16::to_le_bytes));
            for (offset, value) in flips {
                if let Some(byte) = bytes.get_mut(offset) { *byte = value; }
            }
            let _ = decode(&bytes[..]);
            let _ = decode(&bytes[..cut.min(bytes.len())]);
        }
    }
}
