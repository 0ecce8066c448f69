//! Reading a series: DICOM (folder, archive, multi-frame file), NIfTI or MetaImage in, one
//! [`Volume`] out.
//!
//! The format of a file is recognised by its content. An unusable file among usable ones is a
//! finding; an input that gives no volume is an error. Neither ever carries a name or an identifier
//! of a patient; `origin` alone reads these.
//!
//! In reading order: `source` finds the files (`input` is one of them), `structure` and `elements`
//! find the parts of a DICOM file, `header`, `pixel_format`, `slices` and `attributes` read what is
//! needed (`mosaic` that of slices that share a frame), `group` selects the series and `volumes`
//! the volume, `geometry` orders its slices in space, `planes` and `decode` (with `frames`,
//! `streams`, `codecs`, `colours` and `values`) turn pixels into values, `place` puts them on the
//! grid, and `series` joins these steps. What was repaired in single files is collected as `notes`.
//! `origin` reads what objects about the series must refer to.

mod attributes;
mod codecs;
mod colours;
mod config;
mod decode;
mod elements;
mod error;
mod file_error;
mod frames;
mod geometry;
mod group;
mod header;
mod hounsfield;
mod input;
mod lookup;
mod modality;
mod mosaic;
mod notes;
mod origin;
mod panics;
mod pixel_format;
mod place;
mod planes;
mod rle;
mod series;
mod slices;
mod source;
mod streams;
mod structure;
mod syntax;
mod values;
mod volumes;

use std::fs::metadata;
use std::path::Path;

use willis_core::files::{hash, mha, nifti};
use willis_core::{Finding, Volume};

pub use config::IngestConfig;
pub use error::IngestError;
use input::InputFile;
pub use origin::{OriginError, SourceAttribute, SourceSeries, SourceSlice, source_series};
use source::FileFormat;

/// Reads a series from a DICOM folder (with its subfolders), a `.zip` archive of one, or a `.dcm`,
/// `.nii`, `.nii.gz` or `.mha` file.
///
/// If the input holds several series, the one with the most slices is read unless
/// `config.series_uid` names another; of several volumes in a series, the largest unless
/// `config.volume` numbers another. Voxels are the stored values after slope and intercept (HU
/// for CT), with slices sorted along their normal; the affine maps to LPS mm.
///
/// # Errors
/// [`IngestError`] when no volume of at least two slices can be made. Every other irregularity is
/// reported in `Volume::findings`.
pub fn ingest(path: &Path, config: &IngestConfig) -> Result<Volume, IngestError> {
    let (files, mut findings) = match open(path, config)? {
        Input::Dicom(files, findings) => (files, findings),
        Input::Image(format) => return read_image_file(path, format, config),
    };
    let (files, instances) = series::read_headers(path, files, config, &mut findings)?;
    series::read_volume(&files, &instances, config, findings)
}

/// An input whose format is known.
enum Input {
    Dicom(Vec<InputFile>, Vec<Finding>),
    Image(FileFormat),
}

/// Lists the files of a folder or archive, or recognises the format of a single file.
fn open(path: &Path, config: &IngestConfig) -> Result<Input, IngestError> {
    let io = |source| IngestError::Io { path: path.into(), source };
    let metadata = metadata(path).map_err(io)?;
    let mut findings = Vec::new();
    let files = if metadata.is_dir() {
        source::folder(path, config, &mut findings)?
    } else if metadata.is_file() {
        // Only the header of a pair has a format of its own.
        let header = nifti::pair(path).map(|[header, _]| header).filter(|header| header.is_file());
        match source::format_of(header.as_deref().unwrap_or(path)).map_err(io)? {
            FileFormat::Zip => source::archive(path, config, &mut findings)?,
            FileFormat::Dicom => vec![InputFile::OnDisk(path.into())],
            format @ (FileFormat::Nifti | FileFormat::MetaImage) => return Ok(Input::Image(format)),
            FileFormat::Other => {
                return Err(IngestError::UnknownFormat { path: path.into(), hint: hint(path, metadata.len()) });
            }
        }
    } else {
        return Err(IngestError::SpecialFile { path: path.into() });
    };
    if files.is_empty() {
        return Err(IngestError::Empty { path: path.into() });
    }
    Ok(Input::Dicom(files, findings))
}

/// Advice on a file of unknown format, for the end of the error message.
fn hint(path: &Path, bytes: u64) -> &'static str {
    let name = path.to_string_lossy().to_lowercase();
    if name.ends_with(".tar.gz") || name.ends_with(".tgz") {
        "; unpack the archive and give the folder"
    } else if bytes == 0 {
        "; it is empty, copy it again"
    } else {
        ""
    }
}

/// Reads one NIfTI or MetaImage file; the SHA-256 of its content serves as UID.
fn read_image_file(path: &Path, format: FileFormat, config: &IngestConfig) -> Result<Volume, IngestError> {
    let (mut image, mut findings) = match format {
        FileFormat::MetaImage => mha::read_with_notes(path)?,
        _ => nifti::read_with_notes(path)?,
    };
    config.check_slices(image.grid.shape.z)?;
    let uid = match nifti::pair(path).filter(|pair| pair.iter().all(|path| path.is_file())) {
        Some([header, voxels]) => {
            hash::sha256_hex([hash::sha256_file(&header)?, hash::sha256_file(&voxels)?].concat().as_bytes())
        }
        None => hash::sha256_file(path)?,
    };
    series::repair_not_finite(&mut image.voxels, &mut findings);
    Ok(series::finish(image, uid, None, config, findings))
}

#[cfg(test)]
mod encodings;
#[cfg(test)]
mod field_reports;
#[cfg(test)]
mod kinds;
#[cfg(test)]
mod mutations;
#[cfg(test)]
mod real;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
