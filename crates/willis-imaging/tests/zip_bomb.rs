//! Archives that unpack to far more than they hold are refused with little memory. This test has a
//! process of its own because it measures the peak memory of the process.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use flate2::write::DeflateEncoder;
use willis_imaging::ingest::{IngestConfig, IngestError, ingest};

const ENTRIES: u32 = 6;
const BLOCKS: u32 = 120;
const BLOCK_BYTES: u32 = 16 << 20;

/// A self-contained piece of a DEFLATE stream, aligned to whole bytes.
fn deflated(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.flush().unwrap();
    encoder.get_ref().clone()
}

/// Writes a `.zip` of 11 MiB with six entries, each of which starts with `head` and inflates to
/// 1.9 GiB; `declared` is the inflated size that its directory claims.
fn write_bomb(path: &Path, head: &[u8], declared: u32) {
    let (start, zeros) = (deflated(head), deflated(&vec![0; BLOCK_BYTES as usize]));
    // A final empty block.
    let end = [0x03, 0x00];
    let packed = (start.len() + zeros.len() * BLOCKS as usize + end.len()) as u32;
    let mut zip = BufWriter::new(File::create(path).unwrap());
    // Version, flags, DEFLATE, time, date, CRC-32, sizes, length of the name, no extra field.
    let header = |version: &[u8]| {
        [version, &[0, 0, 8, 0], &[0; 8], &packed.to_le_bytes(), &declared.to_le_bytes(), &[1, 0, 0, 0]].concat()
    };
    let (mut offset, mut directory) = (0u32, Vec::new());
    for entry in 0..ENTRIES {
        let local = [b"PK\x03\x04", &header(&[20, 0])[..], &[b'a' + entry as u8]].concat();
        directory.extend([b"PK\x01\x02", &header(&[20, 0, 20, 0])[..], &[0; 10]].concat());
        directory.extend(offset.to_le_bytes());
        directory.push(b'a' + entry as u8);
        zip.write_all(&local).unwrap();
        zip.write_all(&start).unwrap();
        (0..BLOCKS).for_each(|_| zip.write_all(&zeros).unwrap());
        zip.write_all(&end).unwrap();
        offset += local.len() as u32 + packed;
    }
    zip.write_all(&directory).unwrap();
    let count = (ENTRIES as u16).to_le_bytes();
    let size = (directory.len() as u32).to_le_bytes();
    zip.write_all(&[b"PK\x05\x06", &[0; 4][..], &count, &count, &size, &offset.to_le_bytes(), &[0; 2]].concat())
        .unwrap();
}

/// Peak resident memory of this process, KiB; `None` where the system does not report it.
fn peak_kib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok())
}

#[test]
fn bombs_are_refused_before_they_take_memory() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bomb.zip");
    let dicom = [&[0; 128], &b"DICM"[..]].concat();
    let honest = |head: &[u8]| head.len() as u32 + BLOCKS * BLOCK_BYTES;
    for (head, declared) in [(&[][..], honest(&[])), (&dicom, honest(&dicom)), (&[], 4096), (&dicom, 4096)] {
        write_bomb(&path, head, declared);
        assert!(path.metadata().unwrap().len() < 13 << 20);
        let before = peak_kib();
        let error = ingest(&path, &IngestConfig::default()).unwrap_err();
        if declared != 4096 {
            assert!(matches!(error, IngestError::ArchiveTooLarge { setting: "max_archive_bytes", .. }), "{error}");
        } else if head.is_empty() {
            assert!(matches!(error, IngestError::NoImages { files: 6, .. }), "{error}");
        } else {
            assert!(matches!(error, IngestError::Archive { .. }), "{error}");
        }
        if let Some((before, after)) = before.zip(peak_kib()) {
            assert!(after - before < 16 << 10, "{error} took {} KiB", after - before);
        }
    }
}
