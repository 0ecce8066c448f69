//! The readers on small pieces of real data that are part of the repository.

use std::path::{Path, PathBuf};

use willis_core::files::nifti;
use willis_core::{Index, Modality, Point, Sex, Shape, VoxelPoint};
use willis_imaging::ingest::{IngestConfig, ingest};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

#[test]
fn slices_of_a_real_head_become_a_volume() {
    let volume = ingest(&fixture("t1_inflow"), &IngestConfig::default()).unwrap();
    let grid = volume.image.grid;
    assert_eq!(grid.shape, Shape::new(6, 128, 128));
    // Positions of the first and the last slice in their headers.
    for (z, place) in [
        (0.0, Point::new(-42.25543124, -67.24816868, -38.47954216)),
        (5.0, Point::new(-42.37240358, -66.8183909, -35.17610148)),
    ] {
        assert!(grid.affine.to_world(VoxelPoint::new(z, 0.0, 0.0)).distance_mm(place) < 1e-6);
    }
    let spacing = grid.spacing();
    assert!((spacing.y - 0.666666686534882).abs() < 1e-9 && (spacing.x - 0.699987828731537).abs() < 1e-9);
    let voxels = &volume.image.voxels;
    assert_eq!(voxels.iter().map(|&v| v as i64).sum::<i64>(), 2_400_952);
    assert_eq!(*volume.image.at(Index::new(2, 56, 39)), 146.0);
    assert_eq!(*volume.image.at(Index::new(2, 3, 5)), 20.0);
    let meta = &volume.meta;
    assert_eq!((meta.modality, meta.age_years, meta.sex), (Some(Modality::T1Post), Some(42.0), Some(Sex::Female)));
    let codes: Vec<&str> = volume.findings.iter().map(|f| f.code.as_str()).collect();
    assert_eq!(codes, ["modality-guessed"]);
    assert!(!format!("{:?}{:?}", volume.meta, volume.findings).contains("Jane"), "names never leave the reader");
}

#[test]
fn transfer_syntaxes_give_the_same_voxels() {
    let whole = ingest(&fixture("t1_inflow"), &IngestConfig::default()).unwrap();
    for syntax in ["big_endian", "deflated", "rle"] {
        let volume = ingest(&fixture(&format!("t1_inflow_{syntax}")), &IngestConfig::default()).unwrap();
        assert_eq!(volume.image.grid.shape, Shape::new(2, 128, 128), "{syntax}");
        assert_eq!(volume.image.voxels, whole.image.voxels[..2 * 128 * 128], "{syntax}");
        assert_eq!(volume.findings, whole.findings, "{syntax}");
    }
}

#[test]
fn a_real_label_map_is_read_with_its_position() {
    let labels = nifti::read(&fixture("synthseg_05_brain_stem.nii.gz")).unwrap();
    assert_eq!(labels.grid.shape.len(), 64 * 64 * 64);
    assert_eq!(labels.voxels.iter().map(|&v| v as i64).sum::<i64>(), 17_073_096);
    // FreeSurfer label 16 is the brain stem; nibabel puts its centre at (-0.130, -26.548, -15.480)
    // in RAS.
    let (mut count, mut sum) = (0.0, [0.0; 3]);
    for (offset, _) in labels.voxels.iter().enumerate().filter(|(_, v)| **v == 16.0) {
        let point = labels.grid.affine.to_world(labels.grid.shape.index(offset).into());
        sum.iter_mut().zip(point.xyz()).for_each(|(s, v)| *s += v);
        count += 1.0;
    }
    assert_eq!(count, 15_065.0);
    let [x, y, z] = sum.map(|s| s / count);
    assert!(Point::new(x, y, z).distance_mm(Point::new(0.12967099, 26.54757708, -15.48031285)) < 1e-4);
}
