//! Conditions that users of other readers reported: their inputs, where present. Constructed series
//! of the same kinds are tested beside the code that handles them.

use willis_core::files::{mha, nifti};
use willis_core::{Image, Severity, Volume};

use super::{IngestConfig, ingest};
use crate::shared_data::shared_data;

fn read(name: &str) -> Option<Volume> {
    let path = shared_data(&format!("60_field_reports/{name}"))?;
    Some(ingest(&path, &IngestConfig::default()).unwrap_or_else(|e| panic!("{name}: {e}")))
}

fn warnings(volume: &Volume) -> Vec<&str> {
    let warnings = volume.findings.iter().filter(|f| f.severity == Severity::Warning && f.code != "modality-guessed");
    warnings.map(|f| f.code.as_str()).collect()
}

#[test]
fn one_shifted_slice_moves_alone() {
    let (Some(control), Some(volume)) = (read("sound-control"), read("one-slice-shifted")) else { return };
    assert_eq!(warnings(&control), [""; 0]);
    assert_eq!(warnings(&volume), ["shifted-slices"]);
    assert_eq!(volume.image.grid, control.image.grid);
    // The lowest slice was moved by 30 mm, that is 10 rows.
    let plane = 64 * 64;
    assert_eq!(volume.image.voxels[plane..], control.image.voxels[plane..]);
    assert_eq!(volume.image.voxels[10 * 64..plane], control.image.voxels[..plane - 10 * 64]);
}

#[test]
fn two_echoes_are_two_volumes() {
    let Some(volume) = read("two-echoes-one-uid") else { return };
    assert_eq!(warnings(&volume), ["time-points"]);
    assert!(volume.findings[0].message.contains("echo time 24 ms"), "{:?}", volume.findings);
    assert_eq!((volume.image.grid.shape.z, volume.image.grid.affine.0[2]), (24, [0.0, 0.0, 5.0, -60.0]));
    let path = shared_data("60_field_reports/two-echoes-one-uid").unwrap();
    let other = ingest(&path, &IngestConfig { volume: Some(2), ..IngestConfig::default() }).unwrap();
    assert!((other.image.grid.affine.0[2][3] + 59.8).abs() < 1e-9);
    assert_eq!(other.image.grid.shape.z, 24);
}

#[test]
fn a_thin_base_and_a_thick_vertex_are_both_read() {
    let Some(volume) = read("thin-base-thick-vertex") else { return };
    assert_eq!(warnings(&volume), ["mixed-slice-distances"]);
    let grid = volume.image.grid;
    assert_eq!((grid.affine.0[2][2], grid.affine.0[2][3]), (0.625, -60.0));
    // From -60 mm to the highest slice at 33.75 mm.
    assert_eq!(grid.shape.z, 151);
}

/// Largest difference of two images whose voxels may be in another order.
fn difference(ours: &Image<f32>, theirs: &Image<f32>) -> f32 {
    let inverse = ours.grid.affine.inverse().unwrap();
    let mut largest = 0f32;
    for (offset, &value) in theirs.voxels.iter().enumerate() {
        let world = theirs.grid.affine.to_world(theirs.grid.shape.index(offset).into());
        let nearest = ours.grid.shape.nearest(inverse.apply(world));
        assert!(ours.grid.affine.to_world(nearest.into()).distance_mm(world) < 2e-3);
        largest = largest.max((ours.at(nearest) - value).abs());
    }
    largest
}

#[test]
fn a_mosaic_is_taken_apart() {
    let Some(volume) = read("siemens-mosaic") else { return };
    let grid = volume.image.grid;
    assert_eq!(grid.shape.zyx(), [36, 64, 64]);
    assert_eq!(warnings(&volume), ["time-points"]);
    // Affine of dcm2niix 1.0.20260724, whose rows of voxels run the other way.
    for (slice, expected) in [(0.0, [-102.5, -128.871364, -48.637112]), (35.0, [-102.5, -113.297577, 76.396707])] {
        let corner = grid.affine.to_world(willis_core::VoxelPoint::new(slice, 0.0, 0.0)).xyz();
        assert!(corner.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-4), "{corner:?}");
    }
    assert!((grid.spacing().z - 3.6).abs() < 1e-4);
}

#[test]
fn nifti_without_codes_and_pairs() {
    let Some(folder) = shared_data("60_field_reports/nifti") else { return };
    let read = |name: &str| ingest(&folder.join(name), &IngestConfig::default()).unwrap();
    let bare = read("a-no-codes.nii");
    let expected = [[3.0, 0.0, 0.0, -94.5], [0.0, -3.0, 0.0, 94.5], [0.0, 0.0, 5.0, -57.5]];
    assert_eq!((bare.image.grid.affine.0, warnings(&bare)), (expected, vec!["nifti-no-place"]));
    let (header, voxels) = (read("i-pair.hdr"), read("i-pair.img"));
    assert_eq!((&header.image, &header.meta), (&voxels.image, &voxels.meta));
    assert_eq!(header.image.voxels, bare.image.voxels);
    assert_eq!(nifti::read(&folder.join("i-pair.img")).unwrap().grid.affine.0[0], [-3.0, 0.0, 0.0, 0.0]);
}

#[test]
fn meta_images_of_other_writers() {
    let Some(folder) = shared_data("60_field_reports/mha") else { return };
    let [a, b] = ["b-Local-lower.mha", "h2-leading-space.mha"].map(|name| folder.join(name));
    assert_eq!(mha::read(&a).unwrap(), ingest(&b, &IngestConfig::default()).unwrap().image);
    let same = difference(&mha::read(&a).unwrap(), &mha::read(&b).unwrap());
    assert_eq!(same, 0.0);
}
