//! One input file: its name for messages, and its bytes: the whole, the start, or a range.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::PathBuf;

/// One input file.
#[derive(Debug, Clone)]
pub(super) enum InputFile {
    /// A file that is read when needed.
    OnDisk(PathBuf),
    /// An entry of an archive: its content, or its first bytes when it is not a DICOM file.
    Unpacked { name: String, bytes: Vec<u8> },
}

/// The start of a file.
#[derive(Debug)]
pub(super) struct FileStart<'a> {
    pub bytes: Cow<'a, [u8]>,
    /// Size of the file, bytes.
    pub total: u64,
}

impl FileStart<'_> {
    /// Whether it is the whole file.
    pub fn is_whole(&self) -> bool {
        self.bytes.len() as u64 == self.total
    }
}

impl InputFile {
    /// Name for messages: the last path component, at most 80 characters, without control
    /// characters.
    pub fn name(&self) -> String {
        match self {
            Self::OnDisk(path) => label(&path.file_name().unwrap_or_default().to_string_lossy()),
            Self::Unpacked { name, .. } => label(name.rsplit(['/', '\\']).next().unwrap_or_default()),
        }
    }

    /// The whole content.
    ///
    /// # Errors
    /// when the file cannot be read or is larger than `limit` bytes.
    pub fn read(&self, limit: u64) -> io::Result<Cow<'_, [u8]>> {
        self.start(limit, limit).map(|start| start.bytes)
    }

    /// The first `most` bytes; an entry of an archive is given whole.
    ///
    /// # Errors
    /// when the file cannot be read or is larger than `limit` bytes.
    pub fn start(&self, most: u64, limit: u64) -> io::Result<FileStart<'_>> {
        match self {
            Self::Unpacked { bytes, .. } => Ok(FileStart { bytes: Cow::Borrowed(bytes), total: bytes.len() as u64 }),
            Self::OnDisk(path) => {
                let mut file = File::open(path)?;
                let total = file.metadata()?.len();
                if total > limit {
                    return Err(io::Error::other(format!("larger than the limit of {limit} bytes")));
                }
                let mut bytes = vec![0; total.min(most) as usize];
                file.read_exact(&mut bytes).map_err(shrunk)?;
                Ok(FileStart { bytes: Cow::Owned(bytes), total })
            }
        }
    }

    /// Reads `buffer.len()` bytes from an offset of a file of `total` bytes.
    ///
    /// # Errors
    /// when the file cannot be read or has another size.
    pub fn read_at(&self, offset: u64, total: u64, buffer: &mut [u8]) -> io::Result<()> {
        match self {
            Self::Unpacked { bytes, .. } => {
                let range = offset as usize..(offset as usize).saturating_add(buffer.len());
                buffer.copy_from_slice(bytes.get(range).ok_or_else(changed)?);
                Ok(())
            }
            Self::OnDisk(path) => {
                let mut file = File::open(path)?;
                if file.metadata()?.len() != total {
                    return Err(changed());
                }
                file.seek(SeekFrom::Start(offset))?;
                file.read_exact(buffer).map_err(shrunk)
            }
        }
    }
}

/// A name without control characters, cut to 80 characters.
pub(super) fn label(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(80).collect()
}

fn changed() -> io::Error {
    io::Error::other("it changed while it was read; wait until it is complete and read it again")
}

fn shrunk(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::UnexpectedEof { changed() } else { error }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_labels() {
        let entry = InputFile::Unpacked { name: "../../etc/pass\nwd".into(), bytes: vec![] };
        assert_eq!(entry.name(), "passwd");
    }

    #[test]
    fn parts_of_files_and_entries_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        std::fs::write(&path, b"0123456789").unwrap();
        for input in
            [InputFile::OnDisk(path.clone()), InputFile::Unpacked { name: "a".into(), bytes: b"0123456789".into() }]
        {
            assert_eq!(&input.read(10).unwrap()[..], b"0123456789");
            let start = input.start(4, 10).unwrap();
            assert_eq!((&start.bytes[..4], start.total), (&b"0123"[..], 10));
            let mut part = [0; 3];
            input.read_at(7, 10, &mut part).unwrap();
            assert_eq!(&part, b"789");
            assert!(input.read_at(8, 10, &mut part).unwrap_err().to_string().contains("changed"));
        }
        let input = InputFile::OnDisk(path.clone());
        assert!(input.read(9).unwrap_err().to_string().contains("limit of 9"));
        std::fs::write(&path, b"0123").unwrap();
        assert!(input.read_at(0, 10, &mut [0; 3]).unwrap_err().to_string().contains("changed"));
    }
}
