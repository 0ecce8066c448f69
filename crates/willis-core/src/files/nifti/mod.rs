//! NIfTI-1 and NIfTI-2, plain or gzipped. The only module that converts RAS to LPS.
//!
//! Reads both byte orders, all integer and floating-point types, `scl_slope`, the sform or else the
//! qform or else the voxel sizes, and the first volume of several. A pair of header and voxels
//! (`.hdr`/`.img`) is read from either name. Not supported: complex and colour voxels. NaN voxels
//! are preserved.
//!
//! # Source
//! `nifti1.h` and `nifti2.h` from nifti.nimh.nih.gov.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::read::MultiGzDecoder;

use super::atomic::{Durability, write_durably};
use super::data_type::{self, DataType};
use super::gzip::GzipWriter;
use super::{FileError, Malformed, open};
use crate::image::Image;
use crate::series::Finding;
use crate::space::Grid;

mod header;
mod place;

use header::{NiftiHeader, NiftiLayout};

const FORMAT: &str = "NIfTI";

/// Reads a NIfTI file into an image on a grid in LPS mm, scaled by slope and intercept.
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
    let Some([header, voxels]) = pair(path) else { return decode(open(path)?).map_err(|error| error.at(path)) };
    match NiftiHeader::read(&mut open(&header)?).map_err(|error| error.at(&header))? {
        (NiftiHeader { layout: NiftiLayout::Single, .. }, _) => {
            decode(open(&header)?).map_err(|error| error.at(&header))
        }
        (head, findings) => {
            let mut reader = BufReader::with_capacity(1 << 16, open(&voxels)?);
            let image = read_voxels(&mut reader, head, 0).map_err(|error| error.at(&voxels))?;
            Ok((image, findings))
        }
    }
}

/// Header and voxels of a pair, from the name of either: the name itself and the one beside it that
/// ends in the other extension, in the same letter case. `None` when the name is not of a pair.
pub fn pair(path: &Path) -> Option<[PathBuf; 2]> {
    let with = |extension| path.with_extension(extension);
    match path.extension()?.to_str()? {
        "hdr" => Some([path.to_path_buf(), with("img")]),
        "HDR" => Some([path.to_path_buf(), with("IMG")]),
        "img" => Some([with("hdr"), path.to_path_buf()]),
        "IMG" => Some([with("HDR"), path.to_path_buf()]),
        _ => None,
    }
}

/// As [`read`], for a label map.
///
/// # Errors
/// As [`read`]; [`FileError::Malformed`] also when a voxel is not a whole number from 0 to 255.
pub fn read_labels(path: &Path) -> Result<Image<u8>, FileError> {
    labels(read(path)?).map_err(|error| error.at(path))
}

/// As [`read_with_notes`], from the bytes of a file, plain or gzipped.
///
/// # Errors
/// [`Malformed`] when the content is damaged or not supported.
pub fn decode(reader: impl Read) -> Result<(Image<f32>, Vec<Finding>), Malformed> {
    let mut reader = BufReader::with_capacity(1 << 16, reader);
    let start = reader.fill_buf().map_err(|error| Malformed::from_io(FORMAT, &error))?;
    if start.starts_with(&[0x1f, 0x8b]) {
        decode_plain(&mut MultiGzDecoder::new(reader))
    } else {
        decode_plain(&mut reader)
    }
}

/// Writes an image, gzipped if the name ends in `.gz`.
///
/// The format is NIfTI-1, which stores the affine in single precision, or NIfTI-2 if an axis has
/// more than 32767 voxels.
///
/// # Errors
/// [`FileError::Write`] when the file cannot be written.
pub fn write(path: &Path, image: &Image<f32>) -> Result<(), FileError> {
    let voxels = |writer: &mut dyn Write| data_type::write_f32(writer, &image.voxels);
    write_voxels(path, &image.grid, DataType::F32, Durability::Flushed, voxels)
}

/// As [`write()`], as 16-bit integers when every voxel is one: half the size, the same values. The
/// file is not flushed to the disk ([`Durability::Unflushed`]).
///
/// # Errors
/// As [`write()`].
pub fn write_compact(path: &Path, image: &Image<f32>) -> Result<(), FileError> {
    let mut fits = true;
    let written = write_voxels(path, &image.grid, DataType::I16, Durability::Unflushed, |writer| {
        fits = data_type::write_i16(writer, &image.voxels)?;
        if fits { Ok(()) } else { Err(std::io::Error::other("a voxel is not a 16-bit integer")) }
    });
    if fits {
        return written;
    }
    let voxels = |writer: &mut dyn Write| data_type::write_f32(writer, &image.voxels);
    write_voxels(path, &image.grid, DataType::F32, Durability::Unflushed, voxels)
}

/// As [`write()`], for a label map.
///
/// # Errors
/// As [`write()`].
pub fn write_labels(path: &Path, image: &Image<u8>) -> Result<(), FileError> {
    write_voxels(path, &image.grid, DataType::U8, Durability::Flushed, |writer| writer.write_all(&image.voxels))
}

fn write_voxels(
    path: &Path,
    grid: &Grid,
    element: DataType,
    durability: Durability,
    voxels: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
) -> Result<(), FileError> {
    let header = NiftiHeader::encode(grid, element);
    write_durably(path, durability, |writer| {
        if path.extension().is_some_and(|e| e.eq_ignore_ascii_case("gz")) {
            let mut zipped = GzipWriter::new(writer, Compression::new(3))?;
            zipped.write_all(&header)?;
            voxels(&mut zipped)?;
            zipped.finish()
        } else {
            writer.write_all(&header)?;
            voxels(writer)
        }
    })
}

fn decode_plain(reader: &mut dyn Read) -> Result<(Image<f32>, Vec<Finding>), Malformed> {
    let (header, findings) = NiftiHeader::read(reader)?;
    if header.layout == NiftiLayout::Pair {
        let reason = "its voxels are in another file; name header and voxels x.hdr and x.img and keep them together";
        return Err(Malformed::new(FORMAT, reason));
    }
    let read = header.length;
    Ok((read_voxels(reader, header, read)?, findings))
}

/// Reads the voxels after `read` bytes of their file.
fn read_voxels(reader: &mut dyn Read, header: NiftiHeader, read: u64) -> Result<Image<f32>, Malformed> {
    let gap = header.voxel_offset - read;
    let skipped = std::io::copy(&mut reader.take(gap), &mut std::io::sink());
    let skipped = skipped.map_err(|error| Malformed::from_io(FORMAT, &error))?;
    if skipped < gap {
        return Err(Malformed::new(FORMAT, "it ends before its voxels; copy or download it again"));
    }
    let count = header.grid.shape.len();
    let voxels = data_type::read_f32(reader, count, header.element, header.order, header.scale, FORMAT)?;
    Ok(Image::new(header.grid, voxels))
}

fn labels(image: Image<f32>) -> Result<Image<u8>, Malformed> {
    let label = |&value: &f32| match value as u8 {
        label if f32::from(label) == value => Ok(label),
        _ => Err(Malformed::new(
            FORMAT,
            format!("voxel value {value} is not a label; labels are whole numbers from 0 to 255"),
        )),
    };
    let voxels = image.voxels.iter().map(label).collect::<Result<_, _>>()?;
    Ok(Image::new(image.grid, voxels))
}

#[cfg(test)]
mod tests;
