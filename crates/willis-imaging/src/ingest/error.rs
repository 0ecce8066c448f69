//! Why an input gives no volume.

use std::path::PathBuf;

use willis_core::files::FileError;

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
    /// A named pipe, socket or device; opening one may block for ever.
    #[error("{} is neither a regular file nor a folder; named pipes, sockets and devices are not read", path.display())]
    SpecialFile {
        /// The path.
        path: PathBuf,
    },
    /// A folder or archive without files.
    #[error("{} holds no regular files; give the folder of one DICOM series", path.display())]
    Empty {
        /// The path.
        path: PathBuf,
    },
    /// A file of unknown format.
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
        /// Number of files examined.
        files: usize,
        /// Name of the first file.
        first: String,
        /// Why it is not usable.
        reason: String,
    },
    /// The requested series is not in the input.
    #[error("series {uid} is not among the {found} series of the input; omit the UID to read the largest")]
    NoSuchSeries {
        /// UID asked for.
        uid: String,
        /// Number of series.
        found: usize,
    },
    /// Too few slices for a volume.
    #[error(
        "the series has {usable} usable slice(s), a volume needs at least {needed}; give the folder of the whole series, not one file of it"
    )]
    TooFewSlices {
        /// Slices left after everything unusable was dropped.
        usable: usize,
        /// Least number of slices.
        needed: usize,
    },
    /// Several slices at one position.
    #[error(
        "all {slices} slices are at one position: a time series of one slice is not a volume; give a series with slices at different positions"
    )]
    OnePlace {
        /// Number of slices.
        slices: usize,
    },
    /// The requested volume is not in the series.
    #[error("volume {number} is not among the {found} volumes of the series; omit it to read the largest")]
    NoSuchVolume {
        /// Number asked for, from 1.
        number: usize,
        /// Number of volumes.
        found: usize,
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
        /// Why it cannot be opened.
        reason: String,
    },
    /// An archive that unpacks beyond a limit.
    #[error("{} unpacks to more than {limit} bytes; unpack it and give the folder, or raise {setting}", path.display())]
    ArchiveTooLarge {
        /// The path.
        path: PathBuf,
        /// The limit.
        limit: u64,
        /// Configuration field of the limit.
        setting: &'static str,
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
