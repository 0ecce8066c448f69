//! One series in every form that it can be stored in: the same volume, to the byte.

use std::io::Write;
use std::path::Path;

use dicom_core::value::{DataSetSequence, PixelFragmentSequence};
use dicom_core::{DataElement, PrimitiveValue, VR};
use dicom_dictionary_std::{tags, uids};
use dicom_object::{FileMetaTableBuilder, InMemDicomObject};
use willis_core::Volume;

use super::header::Instance;
use super::structure::DicomStructure;
use super::testing::{TestSlice, put_decimals, put_text};
use super::{IngestConfig, ingest};

const SLICES: usize = 7;

fn slices() -> Vec<TestSlice> {
    let (s, c) = 0.2f64.sin_cos();
    let slice = |k: usize| TestSlice {
        orientation: Some([1.0, 0.0, 0.0, 0.0, c, s]),
        position: Some([-1.25, 2.5 - 1.5 * s * k as f64, 1.5 * c * k as f64]),
        intercept: -24.0,
        values: (0..12).map(|i| (i * i * 37 + 911 * k as i16) % 2000 - 300).collect(),
        ..TestSlice::axial(k as i32 + 1, 0.0)
    };
    (0..SLICES).map(slice).collect()
}

fn write(obj: InMemDicomObject, syntax: &str, path: &Path) {
    let meta = FileMetaTableBuilder::new()
        .transfer_syntax(syntax)
        .media_storage_sop_class_uid(uids::CT_IMAGE_STORAGE)
        .media_storage_sop_instance_uid("1.9");
    obj.with_meta(meta).unwrap().write_to_file(path).unwrap();
}

/// The series as single files in a syntax, named so that their order is not that of the slices.
fn series_in(syntax: &str, pixels: impl Fn(&[u8]) -> Option<Vec<u8>>) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (k, slice) in slices().iter().enumerate() {
        let mut obj = slice.object();
        let plain: Vec<u8> = slice.values.iter().flat_map(|v| v.to_le_bytes()).collect();
        if let Some(packed) = pixels(&plain) {
            let fragments = PixelFragmentSequence::new(Vec::<u32>::new(), vec![packed]);
            obj.put(DataElement::new(tags::PIXEL_DATA, VR::OB, fragments));
        }
        write(obj, syntax, &folder.path().join(format!("{}", k * 5 % SLICES)));
    }
    folder
}

/// PS3.5 annex G: the high bytes, then the low bytes, as literal runs.
fn rle(plain: &[u8]) -> Vec<u8> {
    let segment = |odd: usize| {
        let bytes: Vec<u8> = plain.iter().copied().skip(odd).step_by(2).collect();
        let mut packed: Vec<u8> =
            bytes.chunks(128).flat_map(|run| [&[run.len() as u8 - 1][..], run].concat()).collect();
        packed.resize(packed.len().next_multiple_of(2), 128);
        packed
    };
    let (high, low) = (segment(1), segment(0));
    let mut header = vec![0u8; 64];
    for (i, word) in [2u32, 64, 64 + high.len() as u32].into_iter().enumerate() {
        header[4 * i..4 * i + 4].copy_from_slice(&word.to_le_bytes());
    }
    [header, high, low].concat()
}

fn read(path: &Path) -> Volume {
    ingest(path, &IngestConfig::default()).unwrap()
}

fn assert_same(got: &Volume, expected: &Volume, form: &str) {
    let bits = |volume: &Volume| volume.image.voxels.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(got), bits(expected), "{form}");
    let rows = |volume: &Volume| volume.image.grid.affine.0.map(|row| row.map(f64::to_bits));
    assert_eq!(rows(got), rows(expected), "{form}");
    assert_eq!(got.findings, expected.findings, "{form}");
}

#[test]
fn every_form_gives_the_same_bytes() {
    let plain = series_in(uids::EXPLICIT_VR_LITTLE_ENDIAN, |_| None);
    let expected = read(plain.path());
    assert!(expected.findings.is_empty(), "{:?}", expected.findings);
    assert_eq!(expected.image.voxels[..2], [-324.0, -287.0]);
    for (form, folder) in [
        ("implicit", series_in(uids::IMPLICIT_VR_LITTLE_ENDIAN, |_| None)),
        ("big endian", series_in("1.2.840.10008.1.2.2", |_| None)),
        ("deflated", series_in(uids::DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, |_| None)),
        ("rle", series_in(uids::RLE_LOSSLESS, |plain| Some(rle(plain)))),
        ("encapsulated", series_in(uids::ENCAPSULATED_UNCOMPRESSED_EXPLICIT_VR_LITTLE_ENDIAN, |p| Some(p.to_vec()))),
    ] {
        assert_same(&read(folder.path()), &expected, form);
    }
    let nested = tempfile::tempdir().unwrap();
    let archive = nested.path().join("series.zip");
    let mut zip = zip::ZipWriter::new(std::fs::File::create(&archive).unwrap());
    for (k, entry) in std::fs::read_dir(plain.path()).unwrap().enumerate() {
        zip.start_file(format!("a/{}", 100 - k), zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(&std::fs::read(entry.unwrap().path()).unwrap()).unwrap();
    }
    zip.finish().unwrap();
    assert_same(&read(&archive), &expected, "zipped");
    let path = nested.path().join("enhanced.dcm");
    write(enhanced(), uids::EXPLICIT_VR_LITTLE_ENDIAN, &path);
    assert_same(&read(&path), &expected, "multi-frame");
}

/// The start of a file says the same as the whole, or that it does not suffice.
#[test]
fn headers_are_read_from_the_start_of_a_file() {
    let folder = tempfile::tempdir().unwrap();
    write(enhanced(), uids::EXPLICIT_VR_LITTLE_ENDIAN, &folder.path().join("enhanced"));
    for syntax in [uids::EXPLICIT_VR_LITTLE_ENDIAN, uids::IMPLICIT_VR_LITTLE_ENDIAN, "1.2.840.10008.1.2.2"] {
        write(slices()[0].object(), syntax, &folder.path().join(syntax));
    }
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        let header = |structure: &DicomStructure| format!("{:?}", Instance::of(structure));
        let whole = header(&DicomStructure::of(&bytes, 1 << 20).unwrap());
        let pixels = bytes.windows(4).rposition(|w| w == b"\xe0\x7f\x10\0" || w == b"\x7f\xe0\0\x10").unwrap();
        for end in 0..bytes.len() {
            match DicomStructure::of_start(&bytes[..end], bytes.len() as u64) {
                Some(structure) => assert_eq!(header(&structure), whole, "{end}"),
                None => assert!(end < pixels + 12, "{end} of {}", bytes.len()),
            }
        }
        assert!(DicomStructure::of_start(&bytes[..pixels + 12], bytes.len() as u64 - 1).is_none());
    }
}

/// All slices as the frames of one file, in another order.
fn enhanced() -> InMemDicomObject {
    let mut slices = slices();
    slices.rotate_left(3);
    let mut obj = slices[0].object();
    for tag in [tags::IMAGE_POSITION_PATIENT, tags::IMAGE_ORIENTATION_PATIENT, tags::PIXEL_SPACING] {
        obj.remove_element(tag);
    }
    put_text(&mut obj, tags::NUMBER_OF_FRAMES, VR::IS, &SLICES.to_string());
    let words: Vec<u16> = slices.iter().flat_map(|s| s.values.iter().map(|&v| v as u16)).collect();
    obj.put(DataElement::new(tags::PIXEL_DATA, VR::OW, PrimitiveValue::U16(words.into())));
    let sequence = |tag, items: Vec<InMemDicomObject>| DataElement::new(tag, VR::SQ, DataSetSequence::from(items));
    let group = |tag, element, values: Option<&[f64]>| {
        let mut item = InMemDicomObject::new_empty();
        put_decimals(&mut item, element, values);
        sequence(tag, vec![item])
    };
    let frame = |slice: &TestSlice| {
        let mut frame = InMemDicomObject::new_empty();
        let (position, orientation) = (slice.position.as_ref(), slice.orientation.as_ref());
        frame.put(group(tags::PLANE_POSITION_SEQUENCE, tags::IMAGE_POSITION_PATIENT, position.map(|v| &v[..])));
        frame.put(group(
            tags::PLANE_ORIENTATION_SEQUENCE,
            tags::IMAGE_ORIENTATION_PATIENT,
            orientation.map(|v| &v[..]),
        ));
        frame.put(group(tags::PIXEL_MEASURES_SEQUENCE, tags::PIXEL_SPACING, slice.spacing.as_ref().map(|v| &v[..])));
        frame
    };
    obj.put(sequence(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE, slices.iter().map(frame).collect()));
    obj
}
