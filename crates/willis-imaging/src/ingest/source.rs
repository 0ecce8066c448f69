//! Where bytes come from: a folder, an archive or a single file, and the format of each.
//!
//! Names inside archives are labels and never become paths. Declared sizes are not trusted.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::Path;

use willis_core::Finding;

use super::config::IngestConfig;
use super::error::IngestError;
use super::input::{InputFile, label};
use super::structure::looks_like_dicom;

/// Bytes at the start of a file from which its format is recognised.
const HEAD_BYTES: u64 = 1024;
/// Maximum compression ratio of DEFLATE (RFC 1951: 258 bytes from two bits), rounded up.
const MAX_DEFLATE_RATIO: u64 = 1032;
/// What an entry of an archive is that cannot be unpacked.
const DAMAGED: &str = "damaged";

/// Format of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileFormat {
    Dicom,
    Zip,
    Nifti,
    MetaImage,
    Other,
}

/// Recognises the format of a file by its first bytes, after decompression when it is gzip.
pub(super) fn format_of(path: &Path) -> io::Result<FileFormat> {
    let mut head = Vec::new();
    File::open(path)?.take(HEAD_BYTES).read_to_end(&mut head)?;
    if head.starts_with(&[0x1f, 0x8b]) {
        let mut inner = Vec::new();
        // A damaged stream is reported by the reader of the format, if its start can be recognised.
        let unpacked = flate2::read::MultiGzDecoder::new(File::open(path)?).take(HEAD_BYTES).read_to_end(&mut inner);
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
    } else if ["ObjectType", "NDims", "Comment"].iter().any(|key| text.trim_start().starts_with(key))
        && text.contains('=')
    {
        FileFormat::MetaImage
    } else if looks_like_dicom(head) {
        FileFormat::Dicom
    } else {
        FileFormat::Other
    }
}

/// All regular files below a folder, sorted by path.
///
/// Named pipes, sockets and devices are skipped with a finding: opening one may block for ever.
pub(super) fn folder(
    path: &Path,
    config: &IngestConfig,
    findings: &mut Vec<Finding>,
) -> Result<Vec<InputFile>, IngestError> {
    let (mut files, mut special, mut unreadable) = (Vec::new(), Vec::new(), 0);
    for entry in walkdir::WalkDir::new(path).follow_links(true).max_depth(16).sort_by_file_name() {
        match entry {
            Ok(entry) if entry.file_type().is_file() => files.push(InputFile::OnDisk(entry.into_path())),
            Ok(entry) if entry.file_type().is_dir() => {}
            Ok(entry) => special.push(label(&entry.file_name().to_string_lossy())),
            Err(_) => unreadable += 1,
        }
        if files.len() > config.max_files {
            return Err(IngestError::TooManyFiles { path: path.into(), limit: config.max_files });
        }
    }
    if let Some(first) = special.first() {
        let message = format!("{} named pipes, sockets or devices were skipped; the first: {first}", special.len());
        findings.push(Finding::warning("special-files", message));
    }
    if unreadable > 0 {
        findings.push(Finding::warning("unreadable-entries", format!("{unreadable} folder entries could not be read")));
    }
    Ok(files)
}

/// All files of an archive, unpacked into memory.
///
/// The sizes that the archive declares are checked against the limits before anything is inflated,
/// and no entry is inflated beyond its declared size. Of entries that are not DICOM files only the
/// first kilobyte is inflated, enough to say why they are skipped.
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
    let too_large = |limit, setting| IngestError::ArchiveTooLarge { path: path.into(), limit, setting };
    let mut total = 0u64;
    for index in 0..archive.len() {
        let Ok(entry) = archive.by_index_raw(index) else { continue };
        if entry.size() > config.max_file_bytes {
            return Err(too_large(config.max_file_bytes, "max_file_bytes"));
        }
        total = total.saturating_add(entry.size());
        if total > config.max_archive_bytes {
            return Err(too_large(config.max_archive_bytes, "max_archive_bytes"));
        }
    }
    let (mut files, mut unreadable) = (Vec::new(), BTreeMap::<String, usize>::new());
    for index in 0..archive.len() {
        match archive_entry(&mut archive, index) {
            Ok(file) => files.extend(file),
            Err(reason) => *unreadable.entry(reason).or_default() += 1,
        }
    }
    if !unreadable.is_empty() {
        let reasons: Vec<String> = unreadable.iter().map(|(reason, n)| format!("{n} entries are {reason}")).collect();
        let message = reasons.join(", ");
        if files.is_empty() {
            return Err(damaged(&message));
        }
        findings.push(Finding::warning("unreadable-entries", message + ", and were skipped"));
    }
    files.sort_by_key(InputFile::name);
    Ok(files)
}

/// An entry of an archive; `None` for folders and links.
///
/// # Errors
/// what the entry is that it cannot be read.
fn archive_entry(archive: &mut zip::ZipArchive<impl Read + Seek>, index: usize) -> Result<Option<InputFile>, String> {
    let raw = archive.by_index_raw(index).map_err(|_| DAMAGED)?;
    if !raw.is_file() {
        return Ok(None);
    }
    if raw.encrypted() {
        return Err("encrypted".into());
    }
    let method = raw.compression();
    drop(raw);
    let entry = match archive.by_index(index) {
        Err(zip::result::ZipError::CompressionMethodNotSupported(_)) => {
            return Err(format!("compressed by {method}, which is not supported"));
        }
        entry => entry.map_err(|_| DAMAGED)?,
    };
    let (name, declared, packed) = (entry.name().to_owned(), entry.size(), entry.compressed_size());
    let bytes = inflate(entry, declared, packed).map_err(|_| DAMAGED)?;
    Ok(Some(InputFile::Unpacked { name, bytes }))
}

/// Content of an archive entry, or its first bytes when it is not a DICOM file.
///
/// # Errors
/// when the entry cannot be inflated or holds more than the `declared` bytes.
fn inflate(mut entry: impl Read, declared: u64, packed: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    entry.by_ref().take(HEAD_BYTES).read_to_end(&mut bytes)?;
    if looks_like_dicom(&bytes) {
        let rest = declared.saturating_sub(bytes.len() as u64);
        bytes.reserve_exact(rest.min(packed.saturating_mul(MAX_DEFLATE_RATIO)) as usize);
        // One byte more than declared is enough to expose a wrong size.
        entry.take(rest + 1).read_to_end(&mut bytes)?;
    }
    if bytes.len() as u64 > declared {
        return Err(io::Error::other("larger than declared"));
    }
    Ok(bytes)
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
}
