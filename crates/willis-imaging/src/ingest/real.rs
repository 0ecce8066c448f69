//! Real files of many scanners. They are not part of the repository; without them each test prints
//! that it was skipped.

use std::io::Read;
use std::path::Path;

use willis_core::files::nifti;
use willis_core::{Image, Modality, Shape, Volume};

use super::decode::decode_frame;
use super::header::Instance;
use super::structure::DicomStructure;
use super::{IngestConfig, ingest};
use crate::shared_data::shared_data;

/// Unpacks the regular files of a `.tar.gz`.
fn unpack(archive: &Path) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut tar = flate2::read::GzDecoder::new(std::fs::File::open(archive).unwrap());
    let mut header = [0u8; 512];
    while tar.read_exact(&mut header).is_ok() && header[0] != 0 {
        let text = |from: usize, n: usize| {
            String::from_utf8_lossy(&header[from..from + n]).trim_matches(['\0', ' ']).to_owned()
        };
        let size = usize::from_str_radix(&text(124, 12), 8).unwrap();
        let mut content = vec![0; size.div_ceil(512) * 512];
        tar.read_exact(&mut content).unwrap();
        let name = text(0, 100);
        if header[156] == b'0' && !name.contains("..") {
            let path = folder.path().join(name.trim_start_matches("./"));
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, &content[..size]).unwrap();
        }
    }
    folder
}

fn first_frame(path: &Path) -> Result<Vec<f32>, String> {
    let bytes = std::fs::read(path).unwrap();
    let structure = DicomStructure::of(&bytes, 1 << 28).map_err(|e| e.to_string())?;
    let instance = Instance::of(&structure).map_err(|e| e.to_string())?;
    let mut out = vec![0.0; instance.pixels.rows * instance.pixels.columns];
    let frames = instance.slices.last().map_or(0, |last| last.frame + 1);
    decode_frame(&structure, &instance.pixels, &instance.slices[0], frames, &mut out).map_err(|e| e.to_string())?;
    Ok(out)
}

/// Largest difference between the volume and `scale` times the reference, over the voxels of the
/// reference. Both must have their voxels at the same world positions.
fn largest_difference(volume: &Volume, reference: &Image<f32>, scale: f32) -> f32 {
    let (ours, theirs) = (volume.image.grid, reference.grid);
    assert_eq!(ours.shape.len(), theirs.shape.len(), "{:?} {:?}", ours.shape, theirs.shape);
    let inverse = ours.affine.inverse().unwrap();
    let mut largest = 0f32;
    for (offset, &value) in reference.voxels.iter().enumerate() {
        let p = inverse.apply(theirs.affine.to_world(theirs.shape.index(offset).into()));
        let nearest = ours.shape.nearest(p);
        let off = ours.affine.to_world(nearest.into()).distance_mm(ours.affine.to_world(p));
        assert!(off < 2e-3, "voxel {offset} is {off} mm from ours at {p:?}");
        largest = largest.max((volume.image.at(nearest) - value * scale).abs());
    }
    largest
}

#[test]
fn a_whole_head_of_120_slices_is_read() {
    let Some(path) = shared_data("06_vsseg001_t1gd_dicom/VS-SEG-001_t1_gd_120.tar.gz") else { return };
    let folder = unpack(&path);
    let volume = ingest(folder.path(), &IngestConfig::default()).unwrap();
    assert_eq!(volume.meta.modality, Some(Modality::T1Post));
    assert_eq!(volume.image.grid.shape, Shape::new(120, 512, 512));
    let spacing = volume.image.grid.spacing();
    assert!((spacing.z - 1.5).abs() < 1e-3 && (spacing.x - 0.41015625).abs() < 1e-3, "{spacing:?}");
}

#[test]
fn transfer_syntaxes_give_the_same_slice() {
    let Some(folder) = shared_data("41_dicom_ct_transfer_syntaxes") else { return };
    let expected = first_frame(&folder.join("CTImage.dcm")).unwrap();
    for (file, tolerance) in [
        ("BigEndianExplicitTransferSyntax_1.2.840.10008.1.2.2", 0.0),
        ("DeflatedExplicitVRLittleEndianTransferSyntax_1.2.840.10008.1.2.1.99", 0.0),
        ("JPEG2000LosslessOnlyTransferSyntax_1.2.840.10008.1.2.4.90", 0.0),
        ("JPEG2000TransferSyntax_1.2.840.10008.1.2.4.91", 5.0),
        ("JPEGProcess14SV1TransferSyntax_1.2.840.10008.1.2.4.70", 0.0),
        ("JPEGProcess14TransferSyntax_1.2.840.10008.1.2.4.57", 0.0),
        ("LittleEndianExplicitTransferSyntax_1.2.840.10008.1.2.1", 0.0),
        ("LittleEndianImplicitTransferSyntax_1.2.840.10008.1.2", 0.0),
        ("RLELosslessTransferSyntax_1.2.840.10008.1.2.5", 0.0),
        ("JPEGLSLosslessTransferSyntax_1.2.840.10008.1.2.4.80", 0.0),
        ("JPEGLSLossyTransferSyntax_1.2.840.10008.1.2.4.81", 5.0),
    ] {
        let got =
            first_frame(&folder.join(format!("CTImage.dcm_{file}.dcm"))).unwrap_or_else(|e| panic!("{file}: {e}"));
        let largest = got.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(largest <= tolerance, "{file}: differs by {largest}");
    }
    assert!(first_frame(&folder.join("no-pixel-data.dcm")).unwrap_err().contains("no pixel data"));
}

#[test]
fn test_files_of_pydicom_never_panic() {
    let Some(folder) = shared_data("40_dicom_pydicom") else { return };
    let verdicts = std::fs::read_to_string(folder.join("pydicom_verdicts.tsv")).unwrap();
    let mut both = 0;
    for line in verdicts.lines() {
        let Some((name, verdict)) = line.split_once('\t') else { continue };
        let path = folder.join(name);
        let config = IngestConfig { max_voxels: 1 << 26, ..IngestConfig::default() };
        let _ = ingest(&path, &config);
        both += usize::from(first_frame(&path).is_ok() && verdict.starts_with("OK"));
    }
    // pydicom decodes 131. The others are JPEG-LS with interleaved colours.
    assert!(both >= 128, "{both}");
}

#[test]
fn series_of_six_vendors_match_their_reference() {
    let Some(path) = shared_data("43_dicom2nifti/dicom2nifti_tests_subset.tar.gz") else { return };
    let folder = unpack(&path);
    for series in [
        "failing/slicecount/001",
        "ge/anatomical/001",
        "ge/anatomical/001_implicit",
        "generic/anatomical/001",
        "generic/anatomical/001_implicit",
        "generic/anatomical/002_non_isotropic",
        "generic/compressed/001",
        "generic/compressed_j2k/001",
        "generic/compressed_jpeg/001",
        "generic/compressed_jpegls/001",
        "generic/compressed_rle/001",
        "hitachi/anatomical/001",
        "hitachi/anatomical/001_implicit",
        "hyperfine/anatomical/001",
        "philips_enhanced/anatomical/001",
        "philips_enhanced/anatomical/001_implicit",
        "siemens_multiframe/anatomical/001",
    ] {
        let volume = ingest(&folder.path().join(series), &IngestConfig::default()).unwrap();
        let reference = nifti::read(&folder.path().join(format!("{series}_ground_truth.nii.gz"))).unwrap();
        let difference = largest_difference(&volume, &reference, 1.0);
        // Enhanced Philips files have a fractional slope, and the reference rounds to f32 at
        // another step.
        assert!(difference <= 5e-4, "{series}: {difference}");
        assert!(volume.findings.iter().all(|f| f.code == "modality-guessed"), "{series}: {:?}", volume.findings);
    }
}

#[test]
fn irregular_series_are_repaired_or_refused() {
    let Some(path) = shared_data("43_dicom2nifti/dicom2nifti_tests_subset.tar.gz") else { return };
    let folder = unpack(&path);
    for (series, expected) in [
        ("failing/gantrytilting/001", "gantry-tilt"),
        ("failing/sliceincrement/001", "missing-slice"),
        ("failing/sliceincrement/002", "missing-slice"),
        ("failing/sliceorientation/001", "mixed-configuration"),
        ("failing/notavolume/001", "all 4 slices are at one position"),
        ("generic/rgb/001", "colour"),
        ("ge/anatomical/001_single_slice", "at least 2"),
    ] {
        match ingest(&folder.path().join(series), &IngestConfig::default()) {
            Ok(volume) => {
                let codes: Vec<_> = volume.findings.iter().map(|f| f.code.as_str()).collect();
                assert!(codes.contains(&expected), "{series}: {codes:?}");
            }
            Err(error) => assert!(error.to_string().contains(expected), "{series}: {error}"),
        }
    }
}

#[test]
fn enhanced_files_match_their_reference() {
    let Some(folder) = shared_data("48_dicom_enhanced") else { return };
    // For Philips we read the display value (rescale slope 1.27985); the reference has the precise
    // value (scale slope 8.44864e-6).
    for (input, reference, scale) in [
        ("In/Siemens/XA10", "Ref/Siemens_REST1_w_SMS_PF7-8_6.nii", 1.0),
        ("In/Philips/IM_0027_fMAP.dcm", "Ref/Philips_WIP_B0_NS_801_e1.nii", 1.27985 * 8.44864e-6),
    ] {
        let volume = ingest(&folder.join(input), &IngestConfig::default()).unwrap();
        let reference = nifti::read(&folder.join(reference)).unwrap();
        let difference = largest_difference(&volume, &reference, scale);
        assert!(difference < 0.05, "{input}: {difference}");
        assert_eq!(volume.findings[0].code, "time-points");
    }
}
