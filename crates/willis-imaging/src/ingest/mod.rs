//! Reading a series: DICOM (folder, archive, multi-frame file), NIfTI or MetaImage in, one
//! [`Volume`] out.
//!
//! A file is recognised by its content. A file that cannot be used among others that can is a
//! finding; an input from which no volume can be made is an error. Findings and errors never carry
//! names or identifiers of a patient.
//!
//! In reading order: `source` finds bytes, `structure` checks them and locates the parts, `header`
//! reads attributes, `group` picks the slices, `geometry` places them, `decode` turns pixels into
//! values, `series` joins it all.

mod decode;
mod geometry;
mod group;
mod header;

mod modality;
mod rle;
mod series;
mod source;
mod structure;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use willis_core::files::{FileError, hash, mha, nifti};
use willis_core::{Finding, Modality, Sex, Volume};

use source::FileFormat;

/// What the user knows better than the file, and how much a file may ask for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IngestConfig {
    /// Series to take when the input holds several.
    pub series_uid: Option<String>,
    /// Kind of series, instead of what the header says.
    pub modality: Option<Modality>,
    /// Age in years, instead of what the header says.
    pub age_years: Option<f32>,
    /// Sex, instead of what the header says.
    pub sex: Option<Sex>,
    /// Most files in a folder or archive.
    pub max_files: usize,
    /// Largest single file, bytes.
    pub max_file_bytes: u64,
    /// Most bytes unpacked from an archive.
    pub max_archive_bytes: u64,
    /// Most voxels of a volume; four bytes of memory each.
    pub max_voxels: u64,
}

impl Default for IngestConfig {
    fn default() -> Self {
        Self {
            series_uid: None,
            modality: None,
            age_years: None,
            sex: None,
            max_files: 50_000,
            max_file_bytes: 2 << 30,
            max_archive_bytes: 3 << 30,
            max_voxels: 1 << 30,
        }
    }
}

/// Why no volume can be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IngestError {
    /// The path cannot be read.
    #[error("cannot read {}", path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// Reason given by the system.
        source: std::io::Error,
    },
    /// A folder or archive without files.
    #[error("{} holds no files; give the folder of one DICOM series", path.display())]
    Empty {
        /// The path.
        path: PathBuf,
    },
    /// A file of no known format.
    #[error("{} is neither DICOM, NIfTI, MetaImage nor a .zip of DICOM files{hint}", path.display())]
    UnknownFormat {
        /// The path.
        path: PathBuf,
        /// What it might be.
        hint: &'static str,
    },
    /// Files, but no DICOM image among them.
    #[error("none of the {files} files of {} is a usable DICOM image; the first, {first}: {reason}", path.display())]
    NoImages {
        /// The path.
        path: PathBuf,
        /// Files looked at.
        files: usize,
        /// Name of the first file.
        first: String,
        /// Why it is not usable.
        reason: String,
    },
    /// The wanted series is not in the input.
    #[error("series {uid} is not among the {found} series of the input; leave the UID out to take the largest")]
    NoSuchSeries {
        /// UID asked for.
        uid: String,
        /// Number of series.
        found: usize,
    },
    /// Too few slices for a volume.
    #[error(
        "the series has {usable} usable slice(s), a volume needs at least 2; give the folder of the whole series, not one file of it"
    )]
    TooFewSlices {
        /// Slices left after everything unusable was dropped.
        usable: usize,
    },
    /// More files than the limit.
    #[error("{} holds more than {limit} files; give the folder of one series or raise max_files", path.display())]
    TooManyFiles {
        /// The path.
        path: PathBuf,
        /// The limit.
        limit: usize,
    },
    /// An archive that cannot be opened.
    #[error("{} is not a readable .zip archive ({reason}); unpack it and give the folder", path.display())]
    Archive {
        /// The path.
        path: PathBuf,
        /// Reason.
        reason: String,
    },
    /// An archive that unpacks beyond the limit.
    #[error("{} unpacks to more than {limit} bytes; unpack it, or raise max_archive_bytes", path.display())]
    ArchiveTooLarge {
        /// The path.
        path: PathBuf,
        /// The limit.
        limit: u64,
    },
    /// A volume beyond the limit.
    #[error("the series declares {voxels} voxels, more than the limit of {limit}; raise max_voxels if that is right")]
    TooManyVoxels {
        /// Voxels declared.
        voxels: u64,
        /// The limit.
        limit: u64,
    },
    /// A NIfTI or MetaImage file that cannot be read; the message names it.
    #[error(transparent)]
    ImageFile(#[from] FileError),
}

/// One series of an input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeriesListing {
    /// Series instance UID; empty when the files have none.
    pub uid: String,
    /// DICOM modality (`CT`, `MR`), empty when missing.
    pub modality: String,
    /// Files.
    pub files: usize,
    /// Slices, counting the frames of multi-frame files.
    pub slices: usize,
}

/// Reads a series from a DICOM folder (with its subfolders), a `.zip` of one, a `.dcm`, `.nii`,
/// `.nii.gz` or `.mha` file.
///
/// Of several series the one with the most slices is taken unless `config.series_uid` names
/// another. Voxels are the stored values after slope and intercept (HU for CT), sorted along the
/// slice normal; the affine is in LPS mm.
///
/// # Errors
/// [`IngestError`] when no volume of at least two slices can be made. Everything else odd is in
/// `Volume::findings`.
pub fn ingest(path: &Path, config: &IngestConfig) -> Result<Volume, IngestError> {
    let (sources, mut findings) = match open(path, config)? {
        Input::Dicom(sources, findings) => (sources, findings),
        Input::Image(format) => return read_image_file(path, format, config),
    };
    let (sources, instances) = series::read_headers(path, sources, config, &mut findings)?;
    series::read_volume(&sources, &instances, config, findings)
}

/// Lists the series of a DICOM folder, archive or file, most slices first.
///
/// # Errors
/// As [`ingest`], as far as headers are concerned; NIfTI and MetaImage files hold no series and are
/// `UnknownFormat`.
pub fn series_in(path: &Path) -> Result<Vec<SeriesListing>, IngestError> {
    let config = IngestConfig::default();
    let Input::Dicom(sources, mut findings) = open(path, &config)? else {
        return Err(IngestError::UnknownFormat { path: path.into(), hint: ": it holds one image, no DICOM series" });
    };
    let (_, instances) = series::read_headers(path, sources, &config, &mut findings)?;
    let mut listings: Vec<SeriesListing> = group::by_series(&instances)
        .into_iter()
        .map(|(uid, members)| SeriesListing {
            uid: uid.to_owned(),
            modality: members.first().map(|&i| instances[i].hints.modality.clone()).unwrap_or_default(),
            files: members.len(),
            slices: members.iter().map(|&i| instances[i].slices.len()).sum(),
        })
        .collect();
    listings.sort_by(|a, b| b.slices.cmp(&a.slices).then_with(|| a.uid.cmp(&b.uid)));
    Ok(listings)
}

enum Input {
    Dicom(Vec<source::InputFile>, Vec<Finding>),
    Image(FileFormat),
}

/// Finds out what the path is.
fn open(path: &Path, config: &IngestConfig) -> Result<Input, IngestError> {
    let io = |source| IngestError::Io { path: path.into(), source };
    let mut findings = Vec::new();
    let sources = if std::fs::metadata(path).map_err(io)?.is_dir() {
        source::folder(path, config, &mut findings)?
    } else {
        match source::format_of(path).map_err(io)? {
            FileFormat::Zip => source::archive(path, config, &mut findings)?,
            FileFormat::Dicom => vec![source::InputFile::File(path.into())],
            format @ (FileFormat::Nifti | FileFormat::MetaImage) => return Ok(Input::Image(format)),
            FileFormat::Other => {
                let name = path.to_string_lossy().to_lowercase();
                let hint = match () {
                    () if name.ends_with(".tar.gz") || name.ends_with(".tgz") => {
                        "; unpack the archive and give the folder"
                    }
                    () if std::fs::metadata(path).map_err(io)?.len() == 0 => "; it is empty, copy it again",
                    () => "",
                };
                return Err(IngestError::UnknownFormat { path: path.into(), hint });
            }
        }
    };
    if sources.is_empty() {
        return Err(IngestError::Empty { path: path.into() });
    }
    Ok(Input::Dicom(sources, findings))
}

/// Reads one image file; its name is its content's hash.
fn read_image_file(path: &Path, format: FileFormat, config: &IngestConfig) -> Result<Volume, IngestError> {
    let (image, findings) = match format {
        FileFormat::MetaImage => mha::read_with_notes(path)?,
        _ => nifti::read_with_notes(path)?,
    };
    if image.grid.shape.z < 2 {
        return Err(IngestError::TooFewSlices { usable: image.grid.shape.z });
    }
    let uid = hash::sha256_file(path)?;
    Ok(series::finish(image, uid, None, config, findings))
}

/// Runs code of a third party that may panic on damaged data; a panic becomes its message.
fn contain<T>(f: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(f)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
        format!("the decoder gave up: {:.120}", text.unwrap_or("no reason given"))
    })
}

#[cfg(test)]
mod real;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
