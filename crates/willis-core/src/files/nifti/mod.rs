//! NIfTI-1 and NIfTI-2 in one file, plain or gzipped. The only place where RAS and LPS meet.
//!
//! Read: both byte orders, all integer and real types, `scl_slope`, sform before qform before pixel
//! sizes, the first volume of a series of volumes. Not read: header and image in two files
//! (`.hdr`/`.img`), complex and colour voxels. Not-a-number voxels are kept.
//!
//! # Source
//! nifti1.h and nifti2.h of nifti.nimh.nih.gov.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;

use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;

use super::atomic::write_atomically;
use super::elements::{self, Element};
use super::{FileError, Malformed, open};
use crate::image::Image;
use crate::series::Finding;
use crate::space::Grid;

mod header;
mod place;

use header::Header;

const FORMAT: &str = "NIfTI";

/// An image from a NIfTI file, scaled as the header says, on a grid in LPS mm.
///
/// # Errors
/// [`FileError::Read`] when the file cannot be opened, [`FileError::Malformed`] when its content is
/// damaged or of a kind that is not read.
pub fn read(path: &Path) -> Result<Image<f32>, FileError> {
    read_with_notes(path).map(|(image, _)| image)
}

/// As [`read`], with everything that was odd, repaired or left out.
///
/// # Errors
/// As [`read`].
pub fn read_with_notes(path: &Path) -> Result<(Image<f32>, Vec<Finding>), FileError> {
    decode(open(path)?).map_err(|error| error.at(path))
}

/// As [`read`], for a map of labels.
///
/// # Errors
/// As [`read`]; [`FileError::Malformed`] also when a voxel is not a whole number from 0 to 255.
pub fn read_labels(path: &Path) -> Result<Image<u8>, FileError> {
    labels(read(path)?).map_err(|error| error.at(path))
}

/// An image and its oddities from the bytes of a NIfTI file, plain or gzipped.
///
/// # Errors
/// [`Malformed`] when the content is damaged or of a kind that is not read.
pub fn decode(reader: impl Read) -> Result<(Image<f32>, Vec<Finding>), Malformed> {
    let mut reader = BufReader::with_capacity(1 << 16, reader);
    let start = reader.fill_buf().map_err(|error| Malformed::from_io(FORMAT, &error))?;
    if start.starts_with(&[0x1f, 0x8b]) {
        decode_plain(&mut MultiGzDecoder::new(reader))
    } else {
        decode_plain(&mut reader)
    }
}

/// Write an image; gzipped when the name ends in `.gz`. NIfTI-2 when a side is above 32767 voxels,
/// else NIfTI-1.
///
/// The place is stored in single precision by NIfTI-1.
///
/// # Errors
/// [`FileError::Write`] when the file cannot be written.
pub fn write(path: &Path, image: &Image<f32>) -> Result<(), FileError> {
    write_voxels(path, &image.grid, Element::F32, |writer| elements::write_f32(writer, &image.voxels))
}

/// As [`write()`], for a map of labels.
///
/// # Errors
/// As [`write()`].
pub fn write_labels(path: &Path, image: &Image<u8>) -> Result<(), FileError> {
    write_voxels(path, &image.grid, Element::U8, |writer| writer.write_all(&image.voxels))
}

fn write_voxels(
    path: &Path,
    grid: &Grid,
    element: Element,
    voxels: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
) -> Result<(), FileError> {
    let header = Header::encode(grid, element);
    write_atomically(path, |writer| {
        if path.extension().is_some_and(|e| e.eq_ignore_ascii_case("gz")) {
            let mut encoder = GzEncoder::new(writer, Compression::new(3));
            encoder.write_all(&header)?;
            voxels(&mut encoder)?;
            encoder.finish().map(drop)
        } else {
            writer.write_all(&header)?;
            voxels(writer)
        }
    })
}

fn decode_plain(reader: &mut dyn Read) -> Result<(Image<f32>, Vec<Finding>), Malformed> {
    let (header, findings) = Header::read(reader)?;
    let gap = header.voxel_offset - header.length;
    let skipped = std::io::copy(&mut reader.take(gap), &mut std::io::sink());
    let skipped = skipped.map_err(|error| Malformed::from_io(FORMAT, &error))?;
    if skipped < gap {
        return Err(Malformed::new(FORMAT, "it ends before its voxels; copy or download it again"));
    }
    let count = header.grid.shape.len();
    let voxels = elements::read_f32(reader, count, header.element, header.order, header.scale, FORMAT)?;
    Ok((Image::new(header.grid, voxels), findings))
}

fn labels(image: Image<f32>) -> Result<Image<u8>, Malformed> {
    let label = |&value: &f32| match value as u8 {
        label if f32::from(label) == value => Ok(label),
        _ => Err(Malformed::new(FORMAT, format!("voxel value {value} is no label; labels are whole numbers 0 to 255"))),
    };
    let voxels = image.voxels.iter().map(label).collect::<Result<_, _>>()?;
    Ok(Image::new(image.grid, voxels))
}

#[cfg(test)]
mod tests;
