//! The stage as a whole: valid series, irregular series, invalid input.

use std::io::Write;
use std::path::Path;

use dicom_core::value::DataSetSequence;
use dicom_core::{DataElement, PrimitiveValue, VR};
use dicom_dictionary_std::tags;
use dicom_object::InMemDicomObject;
use proptest::prelude::*;
use willis_core::files::nifti;
use willis_core::{Affine, Grid, Image, Index, Modality, Point, Sex, Shape, Spacing, Volume, VoxelPoint};

use super::testing::{TestSlice, axial_series, put_decimals, put_short, put_text, write_object};
use super::{IngestConfig, IngestError, ingest};

fn read(path: &Path) -> Result<Volume, IngestError> {
    ingest(path, &IngestConfig::default())
}

fn codes(volume: &Volume) -> Vec<&str> {
    volume.findings.iter().map(|f| f.code.as_str()).collect()
}

#[test]
fn folder_becomes_a_volume() {
    let volume = read(axial_series(5).path()).unwrap();
    assert_eq!(volume.image.grid.shape, Shape::new(5, 3, 4));
    assert_eq!(volume.image.grid.spacing().zyx(), [2.0, 0.5, 0.25]);
    assert_eq!(*volume.image.at(Index::new(3, 1, 2)), 32.0);
    assert_eq!(volume.image.grid.affine.to_world(VoxelPoint::new(1.0, 1.0, 1.0)).xyz(), [-0.75, -1.5, 2.0]);
    assert_eq!(volume.meta.uid, "1.2.3");
    assert_eq!(
        (volume.meta.modality, volume.meta.age_years, volume.meta.sex),
        (Some(Modality::Cta), Some(45.0), Some(Sex::Female))
    );
    assert_eq!(codes(&volume), [] as [&str; 0]);
}

#[test]
fn configured_values_override_the_header() {
    let config = IngestConfig {
        modality: Some(Modality::Mra),
        age_years: Some(50.0),
        sex: Some(Sex::Male),
        ..IngestConfig::default()
    };
    let meta = ingest(axial_series(3).path(), &config).unwrap().meta;
    assert_eq!((meta.modality, meta.age_years, meta.sex), (Some(Modality::Mra), Some(50.0), Some(Sex::Male)));
}

#[test]
fn file_order_does_not_matter() {
    let (forward, backward) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for k in 0..6 {
        let slice = TestSlice::axial(k, f64::from(k));
        slice.write(forward.path(), &format!("{k}"));
        slice.write(backward.path(), &format!("{}", (k * 5 + 3) % 7));
    }
    let (a, b) = (read(forward.path()).unwrap(), read(backward.path()).unwrap());
    assert_eq!((a.image, a.findings), (b.image, b.findings));
}

/// The same anatomy, acquired in other orientations, is at the same world positions.
#[test]
fn oblique_sagittal_coronal_and_flipped_series_agree_in_space() {
    let brightness = |p: [f64; 3]| (p[0] + 2.0 * p[1] - p[2]).round();
    let tilt = 0.3f64;
    let orientations = [
        [1.0, 0.0, 0.0, 0.0, 1.0, 0.0],
        [0.0, 1.0, 0.0, 0.0, 0.0, -1.0],
        [1.0, 0.0, 0.0, 0.0, 0.0, -1.0],
        [-1.0, 0.0, 0.0, 0.0, -1.0, 0.0],
        [0.0, -1.0, 0.0, 1.0, 0.0, 0.0],
        [tilt.cos(), 0.0, tilt.sin(), 0.0, 1.0, 0.0],
    ];
    for o in orientations {
        let (row, column) = ([o[0], o[1], o[2]], [o[3], o[4], o[5]]);
        // Steps along, against and oblique to the normal.
        for step in [[0.0, 0.0, 1.0], [0.0, 0.0, -1.0], [0.0, 0.2, 1.0]] {
            let folder = tempfile::tempdir().unwrap();
            let cross = [
                row[1] * column[2] - row[2] * column[1],
                row[2] * column[0] - row[0] * column[2],
                row[0] * column[1] - row[1] * column[0],
            ];
            let place = |k: f64| {
                std::array::from_fn::<f64, 3, _>(|i| k * (cross[i] * step[2] * 1.5 + column[i] * step[1]) + 10.0)
            };
            for k in 0..4 {
                let origin = place(f64::from(k));
                let at = |y: f64, x: f64| std::array::from_fn(|i| origin[i] + row[i] * x * 3.0 + column[i] * y * 2.0);
                let values = (0..12).map(|i| brightness(at((i / 4) as f64, (i % 4) as f64)) as i16).collect();
                let slice = TestSlice {
                    position: Some(origin),
                    orientation: Some(o),
                    spacing: Some([2.0, 3.0]),
                    values,
                    ..TestSlice::axial(k, 0.0)
                };
                slice.write(folder.path(), &k.to_string());
            }
            let volume = read(folder.path()).unwrap();
            assert!(volume.image.grid.affine.determinant() > 0.0);
            assert_eq!(codes(&volume).contains(&"gantry-tilt"), step[1] != 0.0);
            for offset in 0..volume.image.voxels.len() {
                let point = volume.image.grid.affine.to_world(volume.image.grid.shape.index(offset).into());
                assert!(
                    (f64::from(volume.image.voxels[offset]) - brightness(point.xyz())).abs() <= 1.0,
                    "{o:?} {step:?}"
                );
            }
        }
    }
}

#[test]
fn empty_folder() {
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(read(folder.path()), Err(IngestError::Empty { .. })));
    assert!(matches!(read(&folder.path().join("nowhere")), Err(IngestError::Io { .. })));
}

#[test]
fn other_files_among_slices_are_skipped() {
    let folder = axial_series(4);
    std::fs::write(folder.path().join("notes.txt"), "hello").unwrap();
    std::fs::create_dir(folder.path().join("sub")).unwrap();
    std::fs::write(folder.path().join("sub/empty.dcm"), "").unwrap();
    let volume = read(folder.path()).unwrap();
    assert_eq!((volume.image.grid.shape.z, codes(&volume)), (4, vec!["skipped-files"]));
    assert!(volume.findings[0].message.starts_with("2 of 6"), "{}", volume.findings[0].message);
}

/// Runs [`ingest`] on a thread of its own and fails, instead of blocking for ever, when it does not
/// return.
#[cfg(unix)]
fn read_with_timeout(path: &Path) -> Result<Volume, IngestError> {
    let (send, receive) = std::sync::mpsc::channel();
    let path = path.to_path_buf();
    std::thread::spawn(move || drop(send.send(read(&path))));
    receive.recv_timeout(std::time::Duration::from_secs(20)).expect("reading does not block")
}

#[cfg(unix)]
#[test]
fn named_pipes_and_sockets_are_not_opened() {
    let folder = axial_series(3);
    let (pipe, socket) = (folder.path().join("000-pipe"), folder.path().join("001-socket"));
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    for path in [pipe.as_path(), &socket, Path::new("/dev/zero")] {
        let error = read_with_timeout(path).unwrap_err();
        assert!(matches!(error, IngestError::SpecialFile { .. }), "{error}");
    }
    let volume = read_with_timeout(folder.path()).unwrap();
    assert_eq!((volume.image.grid.shape.z, codes(&volume)), (3, vec!["special-files"]));
    assert!(volume.findings[0].message.contains("2 named pipes, sockets or devices"), "{:?}", volume.findings);
    assert!(volume.findings[0].message.contains("000-pipe"), "{:?}", volume.findings);
}

#[test]
fn only_other_files() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.dcm"), "hello").unwrap();
    let error = read(folder.path()).unwrap_err();
    assert!(matches!(&error, IngestError::NoImages { files: 1, .. }));
    assert!(error.to_string().contains("a.dcm: not a DICOM file"), "{error}");
    let error = read(&folder.path().join("a.dcm")).unwrap_err();
    assert!(error.to_string().contains("neither DICOM"), "{error}");
}

#[test]
fn formats_are_recognised_by_content() {
    let folder = tempfile::tempdir().unwrap();
    let affine = Affine::axis_aligned(Spacing::isotropic(2.0), Point::new(0.0, 0.0, 0.0));
    let image = Image::new(Grid::new(Shape::new(2, 2, 2), affine), vec![1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]);
    for written in ["plain.nii", "packed.nii.gz"] {
        let path = folder.path().join(written);
        nifti::write(&path, &image).unwrap();
        for name in ["scan.dcm", "scan.mha", "scan"] {
            let renamed = folder.path().join(name);
            std::fs::copy(&path, &renamed).unwrap();
            assert_eq!(read(&renamed).unwrap().image.voxels, image.voxels, "{written} as {name}");
        }
    }
    let slices = axial_series(4);
    let mut zip = zip::ZipWriter::new(std::fs::File::create(folder.path().join("scan.nii.gz")).unwrap());
    for entry in std::fs::read_dir(slices.path()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        zip.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(&std::fs::read(&path).unwrap()).unwrap();
    }
    zip.finish().unwrap();
    assert_eq!(read(&folder.path().join("scan.nii.gz")).unwrap().image.grid.shape.z, 4);
}

#[test]
fn a_truncated_file_is_left_out_and_its_slice_interpolated() {
    let folder = axial_series(5);
    let file = folder.path().join("997");
    let bytes = std::fs::read(&file).unwrap();
    std::fs::write(&file, &bytes[..bytes.len() - 7]).unwrap();
    let volume = read(folder.path()).unwrap();
    assert_eq!(codes(&volume), ["skipped-files", "missing-slice"]);
    assert!(volume.findings[0].message.contains("truncated"), "{}", volume.findings[0].message);
    assert_eq!(*volume.image.at(Index::new(2, 0, 1)), 21.0);
}

#[test]
fn two_series_in_one_folder() {
    let folder = axial_series(5);
    for k in 0..3 {
        let other = TestSlice { series: "9.8.7.6".into(), ..TestSlice::axial(k, f64::from(k)) };
        other.write(folder.path(), &format!("other{k}"));
    }
    let volume = read(folder.path()).unwrap();
    assert_eq!((volume.image.grid.shape.z, codes(&volume)), (5, vec!["several-series"]));
    let config = IngestConfig { series_uid: Some("9.8.7.6".into()), ..IngestConfig::default() };
    assert_eq!(ingest(folder.path(), &config).unwrap().image.grid.shape.z, 3);
    let config = IngestConfig { series_uid: Some("5".into()), ..config };
    assert!(matches!(ingest(folder.path(), &config), Err(IngestError::NoSuchSeries { found: 2, .. })));
}

#[test]
fn one_slice_is_not_a_volume() {
    let folder = axial_series(1);
    for path in [folder.path().to_path_buf(), folder.path().join("999")] {
        let error = read(&path).unwrap_err();
        assert!(matches!(error, IngestError::TooFewSlices { usable: 1, .. }), "{error}");
    }
}

#[test]
fn colour_slices_become_luminance() {
    let folder = tempfile::tempdir().unwrap();
    for k in 0..3 {
        let mut obj = TestSlice::axial(k, f64::from(k)).object();
        put_short(&mut obj, tags::SAMPLES_PER_PIXEL, 3);
        put_short(&mut obj, tags::BITS_ALLOCATED, 8);
        put_short(&mut obj, tags::BITS_STORED, 8);
        put_short(&mut obj, tags::PIXEL_REPRESENTATION, 0);
        put_text(&mut obj, tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "RGB");
        let bytes: Vec<u8> = [200, 100, 50].repeat(12);
        obj.put(DataElement::new(tags::PIXEL_DATA, VR::OB, PrimitiveValue::U8(bytes.into())));
        write_object(obj, &folder.path().join(k.to_string()));
    }
    let volume = read(folder.path()).unwrap();
    assert_eq!(codes(&volume), ["colour"]);
    // 0.299 * 200 + 0.587 * 100 + 0.114 * 50
    assert_eq!(volume.image.voxels[7], 124.2);
}

#[test]
fn nan_voxels_become_the_minimum() {
    let folder = tempfile::tempdir().unwrap();
    for k in 0..3 {
        let mut obj = TestSlice::axial(k, f64::from(k)).object();
        obj.remove_element(tags::PIXEL_DATA);
        let mut values = vec![5.0f32; 12];
        (values[0], values[1], values[2]) = (f32::NAN, f32::INFINITY, -3.0);
        obj.put(DataElement::new(tags::FLOAT_PIXEL_DATA, VR::OF, PrimitiveValue::F32(values.into())));
        write_object(obj, &folder.path().join(k.to_string()));
    }
    let volume = read(folder.path()).unwrap();
    assert_eq!(codes(&volume), ["not-finite"]);
    assert_eq!(volume.image.voxels[..4], [-3.0, -3.0, -3.0, 5.0]);
}

#[test]
fn archive_names_are_never_paths() {
    let folder = axial_series(3);
    let outside = tempfile::tempdir().unwrap();
    let inner = outside.path().join("inner");
    std::fs::create_dir(&inner).unwrap();
    // Without an extension the format is recognised by content.
    let path = inner.join("series");
    let mut archive = zip::ZipWriter::new(std::fs::File::create(&path).unwrap());
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let entry = entry.unwrap();
        let name = format!("../../{}", entry.file_name().to_string_lossy());
        archive.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
        archive.write_all(&std::fs::read(entry.path()).unwrap()).unwrap();
    }
    archive.finish().unwrap();
    let volume = read(&path).unwrap();
    assert_eq!(volume.image, read(folder.path()).unwrap().image);
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 1);
    let small = IngestConfig { max_archive_bytes: 500, ..IngestConfig::default() };
    assert!(matches!(ingest(&path, &small), Err(IngestError::ArchiveTooLarge { .. })));
    std::fs::write(&path, b"PK\x03\x04 and nothing").unwrap();
    assert!(matches!(read(&path), Err(IngestError::Archive { .. })));
}

#[test]
fn limits_are_enforced() {
    let folder = axial_series(4);
    let config = IngestConfig { max_voxels: 47, ..IngestConfig::default() };
    assert!(matches!(ingest(folder.path(), &config), Err(IngestError::TooManyVoxels { voxels: 48, limit: 47 })));
    let config = IngestConfig { max_files: 3, ..IngestConfig::default() };
    assert!(matches!(ingest(folder.path(), &config), Err(IngestError::TooManyFiles { limit: 3, .. })));
}

#[test]
fn a_huge_declared_size_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    for k in 0..2 {
        let mut obj = TestSlice::axial(k, f64::from(k)).object();
        put_short(&mut obj, tags::ROWS, 65_535);
        put_short(&mut obj, tags::COLUMNS, 65_535);
        write_object(obj, &folder.path().join(k.to_string()));
    }
    let error = read(folder.path()).unwrap_err();
    assert!(error.to_string().contains("truncated"), "{error}");
}

#[test]
fn stored_hounsfield_units_are_recognised() {
    let folder = tempfile::tempdir().unwrap();
    for k in 0..4 {
        let values = (0..12).map(|i| if i % 2 == 0 { -1000 } else { 40 }).collect();
        TestSlice { intercept: -1024.0, values, ..TestSlice::axial(k, f64::from(k)) }
            .write(folder.path(), &k.to_string());
    }
    let volume = read(folder.path()).unwrap();
    assert_eq!(codes(&volume), ["already-hu"]);
    assert_eq!(volume.image.voxels[..2], [-1000.0, 40.0]);
}

/// Writes an enhanced file of two echoes, with one orientation and pixel spacing for all frames,
/// and a position and a slope for each.
fn enhanced(path: &Path) {
    let mut obj = TestSlice::axial(1, 0.0).object();
    for tag in [tags::IMAGE_POSITION_PATIENT, tags::IMAGE_ORIENTATION_PATIENT, tags::PIXEL_SPACING, tags::RESCALE_SLOPE]
    {
        obj.remove_element(tag);
    }
    put_text(&mut obj, tags::NUMBER_OF_FRAMES, VR::IS, "6");
    let words: Vec<u16> = (0..72).map(|i| i / 12).collect();
    obj.put(DataElement::new(tags::PIXEL_DATA, VR::OW, PrimitiveValue::U16(words.into())));
    let group = |tag, fill: &dyn Fn(&mut InMemDicomObject)| {
        let mut item = InMemDicomObject::new_empty();
        fill(&mut item);
        DataElement::new(tag, VR::SQ, DataSetSequence::from(vec![item]))
    };
    let mut shared = InMemDicomObject::new_empty();
    shared.put(group(tags::PLANE_ORIENTATION_SEQUENCE, &|item| {
        put_decimals(item, tags::IMAGE_ORIENTATION_PATIENT, Some(&[0.0, 1.0, 0.0, 0.0, 0.0, -1.0]));
    }));
    shared
        .put(group(tags::PIXEL_MEASURES_SEQUENCE, &|item| put_decimals(item, tags::PIXEL_SPACING, Some(&[0.7, 0.6]))));
    let frames: Vec<_> = (0..6)
        .map(|k| {
            let mut frame = InMemDicomObject::new_empty();
            frame.put(group(tags::PLANE_POSITION_SEQUENCE, &|item| {
                put_decimals(item, tags::IMAGE_POSITION_PATIENT, Some(&[f64::from(k / 2) * 1.5, 3.0, 4.0]));
            }));
            frame.put(group(tags::MR_ECHO_SEQUENCE, &|item| {
                item.put(DataElement::new(
                    tags::EFFECTIVE_ECHO_TIME,
                    VR::FD,
                    PrimitiveValue::from(f64::from(10 + 10 * (k % 2))),
                ));
            }));
            frame.put(group(tags::PIXEL_VALUE_TRANSFORMATION_SEQUENCE, &|item| {
                put_decimals(item, tags::RESCALE_SLOPE, Some(&[f64::from(k + 1)]));
                put_decimals(item, tags::RESCALE_INTERCEPT, Some(&[0.5]));
            }));
            frame
        })
        .collect();
    obj.put(DataElement::new(tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE, VR::SQ, DataSetSequence::from(vec![shared])));
    obj.put(DataElement::new(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE, VR::SQ, DataSetSequence::from(frames)));
    write_object(obj, path);
}

#[test]
fn an_enhanced_multi_frame_file_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("wrong-extension.nii");
    enhanced(&path);
    let volume = read(&path).unwrap();
    assert_eq!(codes(&volume), ["time-points"]);
    // The normal of (P, -S) is -x, so slices are sorted by falling x. The first echo is frames 0,
    // 2, 4.
    assert_eq!(volume.image.grid.affine.0, [[0.0, 0.0, -1.5, 3.0], [0.6, 0.0, 0.0, 3.0], [0.0, -0.7, 0.0, 4.0]]);
    let planes: Vec<f32> = volume.image.voxels.chunks(12).map(|p| p[5]).collect();
    assert_eq!(planes, [4.0 * 5.0 + 0.5, 2.0 * 3.0 + 0.5, 0.5]);
}

#[test]
fn a_missing_frame_count_follows_from_the_size_of_the_data() {
    let folder = tempfile::tempdir().unwrap();
    let mut obj = TestSlice::axial(1, 0.0).object();
    let words: Vec<u16> = (0..36).map(|i| i / 12).collect();
    obj.put(DataElement::new(tags::PIXEL_DATA, VR::OW, PrimitiveValue::U16(words.into())));
    let volume = read(&write_object(obj, &folder.path().join("a"))).unwrap();
    assert_eq!(volume.image.grid.shape.z, 3);
    assert_eq!(codes(&volume), ["positions-guessed", "slice-spacing-guessed"]);
    assert_eq!(volume.image.voxels[30], 2.0);
}

#[test]
fn copies_of_files_are_ignored() {
    let folder = axial_series(4);
    let single = read(folder.path()).unwrap();
    std::fs::create_dir(folder.path().join("copy")).unwrap();
    for k in 996..1000 {
        std::fs::copy(folder.path().join(k.to_string()), folder.path().join("copy").join(k.to_string())).unwrap();
    }
    let doubled = read(folder.path()).unwrap();
    assert_eq!((single.image, single.findings), (doubled.image, doubled.findings));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Damaged bytes give a volume or an error, never a panic.
    #[test]
    fn damage_never_panics(changes in prop::collection::vec((0usize..4000, any::<u8>()), 1..6), keep in 0.0..2.0f64) {
        static GOOD: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
        let good = GOOD.get_or_init(|| {
            let folder = tempfile::tempdir().unwrap();
            enhanced(&folder.path().join("a"));
            std::fs::read(folder.path().join("a")).unwrap()
        });
        let mut bytes = good.clone();
        for (at, value) in changes {
            let at = at % bytes.len();
            bytes[at] = value;
        }
        bytes.truncate(((bytes.len() as f64) * keep) as usize);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        std::fs::write(&path, bytes).unwrap();
        let _ = ingest(&path, &IngestConfig { max_voxels: 1 << 20, ..IngestConfig::default() });
    }
}

#[test]
fn messages_never_name_a_patient() {
    let folder = axial_series(5);
    std::fs::remove_file(folder.path().join("997")).unwrap();
    let volume = read(folder.path()).unwrap();
    assert_eq!(codes(&volume), ["missing-slice"]);
    assert!(!format!("{:?}{:?}", volume.findings, volume.meta).contains("Secret"));
}
