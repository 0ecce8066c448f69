//! Kinds of files that users of other readers reported: values and structure of single files. Each
//! kind has constructed variants; the reported files themselves are read where they are present.

use std::path::Path;

use dicom_core::header::Header;
use dicom_core::value::{DataSetSequence, PixelFragmentSequence};
use dicom_core::{DataElement, PrimitiveValue, Tag, VR, dicom_value};
use dicom_dictionary_std::{tags, uids};
use dicom_object::{FileMetaTableBuilder, InMemDicomObject};
use willis_core::Volume;

use super::testing::{TestSlice, put_short, put_text, write_object};
use super::{IngestConfig, ingest};
use crate::shared_data::shared_data;

fn codes(volume: &Volume) -> Vec<&str> {
    volume.findings.iter().map(|f| f.code.as_str()).collect()
}

fn read(folder: &Path) -> Volume {
    ingest(folder, &IngestConfig::default()).unwrap()
}

/// A series of four slices, each changed as a data set and then as a file.
fn series(change: impl Fn(&mut InMemDicomObject), patch: impl Fn(Vec<u8>) -> Vec<u8>) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for k in 0..4 {
        let mut slice = TestSlice::axial(k, 2.0 * f64::from(k));
        slice.intercept = -1.5;
        let mut obj = slice.object();
        change(&mut obj);
        let path = write_object(obj, &folder.path().join(k.to_string()));
        std::fs::write(&path, patch(std::fs::read(&path).unwrap())).unwrap();
    }
    folder
}

fn changed(change: impl Fn(&mut InMemDicomObject)) -> Volume {
    read(series(change, |bytes| bytes).path())
}

fn sound() -> Volume {
    changed(|_| ())
}

/// The same voxels at the same places.
fn assert_same(volume: &Volume, expected: &Volume, what: &str) {
    assert_eq!(volume.image.grid, expected.image.grid, "{what}");
    assert_eq!(volume.image.voxels, expected.image.voxels, "{what}");
}

fn text_of(obj: &InMemDicomObject, tag: Tag) -> String {
    obj.element(tag).unwrap().to_str().unwrap().into_owned()
}

#[test]
fn reported_files_are_read_right() {
    let Some(folder) = shared_data("60_field_reports") else { return };
    let control = read(&folder.join("sound-control"));
    assert_eq!(codes(&control), [] as [&str; 0]);
    for (name, expected) in [
        ("un-undefined-length", &[][..]),
        ("compressed-icon", &[]),
        ("public-tags-as-UN", &[]),
        ("overlay-in-high-bits", &["stray-bits"]),
        ("decimal-comma", &["decimal-comma"]),
        ("zip/e-lzma-bzip2.zip", &[]),
    ] {
        let volume = read(&folder.join(name));
        assert_same(&volume, &control, name);
        assert_eq!(codes(&volume), expected, "{name}");
    }
    let padded = read(&folder.join("padding-2048-large-fov"));
    assert!(!codes(&padded).contains(&"already-hu"), "{:?}", padded.findings);
    let least = padded.image.voxels.iter().copied().fold(f32::MAX, f32::min);
    let air = padded.image.voxels.iter().filter(|&&v| v == -1000.0).count();
    assert!(least == -2048.0 && air > padded.image.voxels.len() / 2, "{least} {air}");
}

/// A transfer through software that knew none of the attributes.
#[test]
fn attributes_of_unknown_vr_are_read() {
    let expected = sound();
    let volume = changed(|obj| {
        let known: Vec<_> = obj.iter().map(|e| (e.tag(), e.vr())).filter(|(tag, _)| *tag != tags::PIXEL_DATA).collect();
        for (tag, vr) in known {
            let element = obj.element(tag).unwrap();
            let bytes = match vr {
                VR::US => element.to_int::<u16>().unwrap().to_le_bytes().to_vec(),
                _ => element.to_bytes().unwrap().into_owned(),
            };
            let padded = if bytes.len() % 2 == 1 { [&bytes[..], b" "].concat() } else { bytes };
            obj.put(DataElement::new(tag, VR::UN, PrimitiveValue::U8(padded.into())));
        }
    });
    assert_same(&volume, &expected, "UN");
    assert_eq!((volume.meta, volume.findings), (expected.meta, expected.findings));
}

#[test]
fn decimal_commas_are_points() {
    let expected = sound();
    let places = [
        tags::IMAGE_POSITION_PATIENT,
        tags::IMAGE_ORIENTATION_PATIENT,
        tags::PIXEL_SPACING,
        tags::RESCALE_SLOPE,
        tags::RESCALE_INTERCEPT,
    ];
    for tag in places {
        let volume = changed(|obj| {
            let with_point = |v: &str| if v.contains('.') { v.to_owned() } else { format!("{v}.0") };
            let text: Vec<String> = text_of(obj, tag).split('\\').map(|v| with_point(v.trim())).collect();
            put_text(obj, tag, VR::DS, &text.join("\\").replace('.', ","));
        });
        assert_same(&volume, &expected, &format!("{tag}"));
        assert_eq!(codes(&volume), ["decimal-comma"], "{tag}");
    }
}

#[test]
fn rescaling_that_cannot_be_read_is_declared() {
    for (tag, value) in [(tags::RESCALE_SLOPE, "one"), (tags::RESCALE_SLOPE, "0"), (tags::RESCALE_INTERCEPT, "-")] {
        let volume = changed(|obj| put_text(obj, tag, VR::DS, value));
        assert_eq!(codes(&volume), ["unreadable-rescale"], "{value}");
    }
    let none = changed(|obj| {
        obj.remove_element(tags::RESCALE_SLOPE);
        obj.remove_element(tags::RESCALE_INTERCEPT);
    });
    assert_eq!(codes(&none), ["no-rescale"]);
}

#[test]
fn overlays_in_unused_bits_are_cleared() {
    // Twelve bits, in the lowest and in the highest place.
    for (high_bit, shift, overlay) in [(11, 0, 0x1000u16), (11, 0, 0x8000), (15, 4, 0x0001)] {
        let with = |overlay: u16| {
            changed(|obj| {
                put_short(obj, tags::BITS_STORED, 12);
                put_short(obj, tags::HIGH_BIT, high_bit);
                let values = obj.element(tags::PIXEL_DATA).unwrap().to_multi_int::<u16>().unwrap();
                let words: Vec<u16> = values.iter().map(|v| v << shift | overlay).collect();
                obj.put(DataElement::new(tags::PIXEL_DATA, VR::OW, PrimitiveValue::U16(words.into())));
            })
        };
        let (clean, overlaid) = (with(0), with(overlay));
        assert_same(&clean, &sound(), "clean");
        assert_same(&overlaid, &clean, "overlaid");
        assert!(codes(&overlaid).contains(&"stray-bits"), "{high_bit}");
        assert_eq!(codes(&clean), if high_bit == 15 { &["high-bit"][..] } else { &[] });
    }
}

#[test]
fn monochrome1_leaves_hounsfield_units_alone() {
    let volume = changed(|obj| put_text(obj, tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "MONOCHROME1"));
    assert_same(&volume, &sound(), "CT");
    assert_eq!(codes(&volume), ["monochrome1"]);
    let mr = |colour| {
        changed(|obj| {
            put_text(obj, tags::MODALITY, VR::CS, "MR");
            put_text(obj, tags::SERIES_DESCRIPTION, VR::LO, "t1 post");
            put_text(obj, tags::PHOTOMETRIC_INTERPRETATION, VR::CS, colour);
        })
    };
    let (inverted, plain) = (mr("MONOCHROME1"), mr("MONOCHROME2"));
    assert!(codes(&inverted).contains(&"inverted"));
    assert_ne!(inverted.image.voxels, plain.image.voxels);
}

#[test]
fn unknown_transfer_syntaxes_are_refused_by_name() {
    let explicit = [uids::EXPLICIT_VR_LITTLE_ENDIAN.as_bytes(), b"\0"].concat();
    for unknown in ["1.2.3.4.5.6.7.8.9.10", "1.2.840.113619.5.222", "1.2.840.10008.1.2.99"] {
        let folder = series(
            |_| (),
            |mut bytes| {
                let at = bytes.windows(20).position(|w| w == explicit).unwrap();
                bytes[at..at + 20].copy_from_slice(&unknown.as_bytes()[..20]);
                bytes
            },
        );
        let error = ingest(folder.path(), &IngestConfig::default()).unwrap_err().to_string();
        assert!(error.contains(unknown) && error.contains("transfer syntax"), "{error}");
    }
}

#[test]
fn a_modality_lut_replaces_slope_and_intercept() {
    let volume = changed(|obj| {
        let mut item = InMemDicomObject::new_empty();
        item.put(DataElement::new(tags::LUT_DESCRIPTOR, VR::US, dicom_value!(U16, [34, 0, 16])));
        let table: Vec<u16> = (0..34).map(|v| v * v).collect();
        item.put(DataElement::new(tags::LUT_DATA, VR::OW, PrimitiveValue::U16(table.into())));
        obj.put(DataElement::new(tags::MODALITY_LUT_SEQUENCE, VR::SQ, DataSetSequence::from(vec![item])));
    });
    // Stored values are ten times the number of the slice plus the column.
    let squares: Vec<f32> = sound().image.voxels.iter().map(|v| (v + 1.5) * (v + 1.5)).collect();
    assert_eq!(volume.image.voxels, squares);
}

#[test]
fn a_palette_becomes_luminance() {
    let volume = changed(|obj| {
        put_text(obj, tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "PALETTE COLOR");
        for (descriptor, data, factor) in [
            (tags::RED_PALETTE_COLOR_LOOKUP_TABLE_DESCRIPTOR, tags::RED_PALETTE_COLOR_LOOKUP_TABLE_DATA, 100),
            (tags::GREEN_PALETTE_COLOR_LOOKUP_TABLE_DESCRIPTOR, tags::GREEN_PALETTE_COLOR_LOOKUP_TABLE_DATA, 200),
            (tags::BLUE_PALETTE_COLOR_LOOKUP_TABLE_DESCRIPTOR, tags::BLUE_PALETTE_COLOR_LOOKUP_TABLE_DATA, 300),
        ] {
            obj.put(DataElement::new(descriptor, VR::US, dicom_value!(U16, [34, 0, 16])));
            let table: Vec<u16> = (0..34).map(|v| v * factor).collect();
            obj.put(DataElement::new(data, VR::OW, PrimitiveValue::U16(table.into())));
        }
    });
    assert!(codes(&volume).contains(&"colour"), "{:?}", volume.findings);
    for (luminance, value) in volume.image.voxels.iter().zip(sound().image.voxels) {
        let expected = (value + 1.5) * (29.9 + 117.4 + 34.2);
        assert!((luminance - expected).abs() < 1e-2, "{luminance} {expected}");
    }
}

/// Writes a data set with compressed pixels.
fn write_compressed(obj: InMemDicomObject, syntax: &str, path: &Path) {
    let meta = FileMetaTableBuilder::new()
        .transfer_syntax(syntax)
        .media_storage_sop_class_uid(uids::CT_IMAGE_STORAGE)
        .media_storage_sop_instance_uid("1.9");
    obj.with_meta(meta).unwrap().write_to_file(path).unwrap();
}

/// Frames of one file, compressed with JPEG-LS, each in so many fragments, with an offset table,
/// without, and with a wrong one.
#[test]
fn frames_are_joined_from_fragments() {
    let frames: Vec<Vec<u16>> = (0..3).map(|k| (0..12).map(|i| 100 * k + 7 * i).collect()).collect();
    let mut expected: Option<Volume> = None;
    for (parts, table) in [(1, "right"), (1, "none"), (2, "right"), (3, "none"), (2, "wrong")] {
        let mut obj = TestSlice::axial(1, 0.0).object();
        put_text(&mut obj, tags::NUMBER_OF_FRAMES, VR::IS, "3");
        put_short(&mut obj, tags::PIXEL_REPRESENTATION, 0);
        let (mut offsets, mut fragments, mut offset) = (Vec::new(), Vec::new(), 0);
        for frame in &frames {
            let mut stream = Vec::new();
            jpegls::encode(frame, 4, 3, &mut stream).unwrap();
            stream.resize(stream.len().next_multiple_of(2 * parts), 0);
            offsets.push(if table == "wrong" { offset + 2 } else { offset });
            for part in stream.chunks(stream.len() / parts) {
                offset += part.len() as u32 + 8;
                fragments.push(part.to_vec());
            }
        }
        let offsets = if table == "none" { vec![] } else { offsets };
        obj.put(DataElement::new(tags::PIXEL_DATA, VR::OB, PixelFragmentSequence::new(offsets, fragments)));
        let folder = tempfile::tempdir().unwrap();
        write_compressed(obj, uids::JPEGLS_LOSSLESS, &folder.path().join("a"));
        let volume = read(folder.path());
        assert_eq!(volume.image.voxels, frames.concat().iter().map(|&v| f32::from(v)).collect::<Vec<_>>(), "{table}");
        assert_eq!(codes(&volume).contains(&"no-offset-table"), parts > 1 && table != "right", "{parts} {table}");
        let first = expected.get_or_insert_with(|| volume.clone());
        assert_eq!(volume.image, first.image);
    }
}

#[test]
fn a_stream_of_another_size_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    for k in 0..2 {
        let mut obj = TestSlice::axial(k, f64::from(k)).object();
        let mut stream = Vec::new();
        jpegls::encode(&[7; 16], 4, 4, &mut stream).unwrap();
        let fragments = PixelFragmentSequence::new(vec![], vec![stream]);
        obj.put(DataElement::new(tags::PIXEL_DATA, VR::OB, fragments));
        write_compressed(obj, uids::JPEGLS_LOSSLESS, &folder.path().join(k.to_string()));
    }
    let error = ingest(folder.path(), &IngestConfig::default()).unwrap_err().to_string();
    assert!(error.contains("4 x 4 x 1 where 3 x 4 x 1 are declared"), "{error}");
}

#[test]
fn archives_of_other_methods_are_read_or_refused_by_name() {
    use zip::CompressionMethod as Method;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.zip");
    let slices = series(|_| (), |bytes| bytes);
    for method in [Method::Stored, Method::Deflated, Method::Bzip2] {
        write_archive(&path, slices.path(), method);
        assert_same(&read(&path), &sound(), &format!("{method}"));
    }
    // Zstd: method 93, in the local headers and in the directory.
    write_archive(&path, slices.path(), Method::Stored);
    let mut bytes = std::fs::read(&path).unwrap();
    for at in 0..bytes.len() - 12 {
        match &bytes[at..at + 4] {
            b"PK\x03\x04" => bytes[at + 8] = 93,
            b"PK\x01\x02" => bytes[at + 10] = 93,
            _ => {}
        }
    }
    std::fs::write(&path, bytes).unwrap();
    let error = ingest(&path, &IngestConfig::default()).unwrap_err().to_string();
    assert!(error.contains("4 entries are compressed by Zstd, which is not supported"), "{error}");
}

fn write_archive(path: &Path, folder: &Path, method: zip::CompressionMethod) {
    let mut archive = zip::ZipWriter::new(std::fs::File::create(path).unwrap());
    for k in 0..4 {
        let options = zip::write::SimpleFileOptions::default().compression_method(method);
        archive.start_file(k.to_string(), options).unwrap();
        std::io::Write::write_all(&mut archive, &std::fs::read(folder.join(k.to_string())).unwrap()).unwrap();
    }
    archive.finish().unwrap();
}
