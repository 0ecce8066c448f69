//! Where bytes come from: a folder, an archive or a file; and what kind of file it is, by content.
//!
//! Names inside archives are labels and never become paths; declared sizes are not trusted.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use willis_core::Finding;

use super::structure::looks_like_dicom;
use super::{IngestConfig, IngestError};

/// One file, on disk or unpacked from an archive.
#[derive(Debug, Clone)]
pub(super) enum InputFile {
    File(PathBuf),
    Entry { name: String, bytes: Vec<u8> },
}

impl InputFile {
    /// Name for messages: the last part only, cut short, without control characters.
    pub fn name(&self) -> String {
        let name = match self {
            InputFile::File(path) => {
                path.file_name().map_or_else(Default::default, |n| n.to_string_lossy().into_owned())
            }
            InputFile::Entry { name, .. } => name.rsplit(['/', '\\']).next().unwrap_or_default().to_owned(),
        };
        name.chars().filter(|c| !c.is_control()).take(80).collect()
    }

    /// All bytes, refused beyond `limit`.
    pub fn read(&self, limit: u64) -> io::Result<Cow<'_, [u8]>> {
        match self {
            InputFile::Entry { bytes, .. } => Ok(Cow::Borrowed(bytes)),
            InputFile::File(path) => {
                let file = File::open(path)?;
                let declared = file.metadata()?.len();
                let mut bytes = Vec::with_capacity(declared.min(limit) as usize);
                match read_up_to(file, limit, &mut bytes)? {
                    true => Ok(Cow::Owned(bytes)),
                    false => Err(io::Error::other(format!("larger than the limit of {limit} bytes"))),
                }
            }
        }
    }
}

/// Reads everything; false when there is more than `limit`.
fn read_up_to(reader: impl Read, limit: u64, bytes: &mut Vec<u8>) -> io::Result<bool> {
    reader.take(limit.saturating_add(1)).read_to_end(bytes)?;
    Ok(bytes.len() as u64 <= limit)
}

/// Kind of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileFormat {
    Dicom,
    Zip,
    Nifti,
    MetaImage,
    Other,
}

/// Looks at the first bytes of a file (of the unpacked file when it is gzip).
pub(super) fn format_of(path: &Path) -> io::Result<FileFormat> {
    let mut head = Vec::new();
    File::open(path)?.take(1024).read_to_end(&mut head)?;
    if head.starts_with(&[0x1f, 0x8b]) {
        let mut inner = Vec::new();
        // A damaged stream is told by the reader of the format, if the beginning shows one.
        let unpacked = flate2::read::MultiGzDecoder::new(File::open(path)?).take(1024).read_to_end(&mut inner);
        return Ok(match (unpacked, format_of_bytes(&inner)) {
            (_, FileFormat::Nifti) => FileFormat::Nifti,
            _ => FileFormat::Other,
        });
    }
    Ok(format_of_bytes(&head))
}

fn format_of_bytes(head: &[u8]) -> FileFormat {
    let word = |b: &[u8]| [i32::from_le_bytes([b[0], b[1], b[2], b[3]]), i32::from_be_bytes([b[0], b[1], b[2], b[3]])];
    let nifti = head.len() >= 348 && word(head).iter().any(|&size| size == 348 || size == 540);
    let text = String::from_utf8_lossy(&head[..head.len().min(256)]);
    if head.starts_with(b"PK\x03\x04") || head.starts_with(b"PK\x05\x06") {
        FileFormat::Zip
    } else if nifti {
        FileFormat::Nifti
    } else if ["ObjectType", "NDims", "Comment"].iter().any(|key| text.starts_with(key)) && text.contains('=') {
        FileFormat::MetaImage
    } else if looks_like_dicom(head) {
        FileFormat::Dicom
    } else {
        FileFormat::Other
    }
}

/// All files below a folder, sorted by path.
pub(super) fn folder(
    path: &Path,
    config: &IngestConfig,
    findings: &mut Vec<Finding>,
) -> Result<Vec<InputFile>, IngestError> {
    let mut sources = Vec::new();
    let mut unreadable = 0;
    for entry in walkdir::WalkDir::new(path).follow_links(true).max_depth(16).sort_by_file_name() {
        match entry {
            Ok(entry) if entry.file_type().is_file() => sources.push(InputFile::File(entry.into_path())),
            Ok(_) => {}
            Err(_) => unreadable += 1,
        }
        if sources.len() > config.max_files {
            return Err(IngestError::TooManyFiles { path: path.into(), limit: config.max_files });
        }
    }
    if unreadable > 0 {
        findings.push(Finding::warning("unreadable-entries", format!("{unreadable} folder entries could not be read")));
    }
    Ok(sources)
}

/// All files of an archive, unpacked into memory within the limits.
pub(super) fn archive(
    path: &Path,
    config: &IngestConfig,
    findings: &mut Vec<Finding>,
) -> Result<Vec<InputFile>, IngestError> {
    let damaged = |e: &dyn std::fmt::Display| IngestError::Archive { path: path.into(), reason: e.to_string() };
    let file = File::open(path).map_err(|source| IngestError::Io { path: path.into(), source })?;
    let mut archive = zip::ZipArchive::new(io::BufReader::new(file)).map_err(|e| damaged(&e))?;
    if archive.len() > config.max_files {
        return Err(IngestError::TooManyFiles { path: path.into(), limit: config.max_files });
    }
    let (mut sources, mut left, mut bad) = (Vec::new(), config.max_archive_bytes, 0);
    for index in 0..archive.len() {
        let Ok(entry) = archive.by_index(index) else {
            bad += 1;
            continue;
        };
        if !entry.is_file() {
            continue;
        }
        let name = entry.name().to_owned();
        let mut bytes = Vec::new();
        match read_up_to(entry, left.min(config.max_file_bytes), &mut bytes) {
            Ok(true) => left -= bytes.len() as u64,
            Ok(false) => {
                return Err(IngestError::ArchiveTooLarge { path: path.into(), limit: config.max_archive_bytes });
            }
            Err(_) => {
                bad += 1;
                continue;
            }
        }
        sources.push(InputFile::Entry { name, bytes });
    }
    if bad > 0 {
        let message = format!(
            "{bad} entries of the archive are damaged, encrypted or packed in an unknown way, and were skipped"
        );
        findings.push(Finding::warning("unreadable-entries", message));
    }
    sources.sort_by_key(InputFile::name);
    Ok(sources)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_decides() {
        let mut nifti = vec![0u8; 352];
        nifti[..4].copy_from_slice(&348i32.to_le_bytes());
        let mut dicom = vec![0u8; 140];
        dicom[128..132].copy_from_slice(b"DICM");
        for (head, format) in [
            (&nifti[..], FileFormat::Nifti),
            (&dicom, FileFormat::Dicom),
            (b"PK\x03\x04....", FileFormat::Zip),
            (b"ObjectType = Image\nNDims = 3\n", FileFormat::MetaImage),
            (b"\x89PNG\r\n", FileFormat::Other),
            (b"", FileFormat::Other),
        ] {
            assert_eq!(format_of_bytes(head), format);
        }
    }

    #[test]
    fn names_are_labels() {
        let entry = InputFile::Entry { name: "../../etc/pass\nwd".into(), bytes: vec![] };
        assert_eq!(entry.name(), "passwd");
    }
}
