use std::path::PathBuf;

use flate2::write::GzEncoder;
use proptest::prelude::*;

use super::*;
use crate::space::{Affine, Shape};

fn oblique() -> Grid {
    let affine = Affine([[0.5, 0.1, 0.0, -71.25], [-0.1, 0.5, 0.2, 33.5], [0.0, -0.1, 0.9, 11.0]]);
    Grid::new(Shape::new(2, 3, 4), affine)
}

fn encoded(grid: &Grid, voxels: &[f32]) -> Vec<u8> {
    let mut bytes = NiftiHeader::encode(grid, DataType::F32);
    data_type::write_f32(&mut bytes, voxels).unwrap();
    bytes
}

fn check_same_place(a: &Grid, b: &Grid, tolerance: f64) {
    assert_eq!(a.shape, b.shape);
    for (v, w) in a.affine.0.iter().flatten().zip(b.affine.0.iter().flatten()) {
        assert!((v - w).abs() <= tolerance, "{a:?}\n{b:?}");
    }
}

#[test]
fn images_and_labels_round_trip_plain_and_gzipped() {
    let folder = tempfile::tempdir().unwrap();
    let values = (0..24).map(|i| if i == 7 { f32::NAN } else { i as f32 / 3.0 });
    let image = Image::new(oblique(), values.collect::<Vec<f32>>());
    let labels = Image::new(oblique(), (0..24).map(|i| i * 10).collect::<Vec<u8>>());
    for name in ["a.nii", "a.nii.gz"] {
        let path = folder.path().join(name);
        write(&path, &image).unwrap();
        let (back, findings) = read_with_notes(&path).unwrap();
        assert_eq!(findings, []);
        assert!(back.voxels.iter().zip(&image.voxels).all(|(a, b)| a.to_bits() == b.to_bits()));
        check_same_place(&back.grid, &image.grid, 1e-5);
        write_labels(&path, &labels).unwrap();
        assert_eq!(read_labels(&path).unwrap().voxels, labels.voxels);
    }
}

#[test]
fn whole_numbers_take_half_the_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.nii");
    for (last, size) in [(32_767.0, 352 + 48), (32_768.0, 352 + 96), (0.5, 352 + 96), (f32::NAN, 352 + 96)] {
        let mut voxels: Vec<f32> = (0..24).map(|i| -1000.0 * i as f32).collect();
        voxels[23] = last;
        let image = Image::new(oblique(), voxels);
        write_compact(&path, &image).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), size, "{last}");
        let back = read(&path).unwrap();
        assert!(back.voxels.iter().zip(&image.voxels).all(|(a, b)| a.to_bits() == b.to_bits() || a == b), "{last}");
    }
}

#[test]
fn long_axes_are_written_as_nifti_2_in_double_precision() {
    let grid = Grid { shape: Shape::new(1, 1, 40_000), ..oblique() };
    let (back, _) = decode(&encoded(&grid, &vec![1.0; 40_000])[..]).unwrap();
    assert_eq!(back.grid, grid);
}

#[test]
fn values_that_are_not_labels_are_rejected() {
    for value in [1.5, -1.0, 256.0, f32::NAN] {
        let error = labels(Image::filled(oblique(), value)).unwrap_err();
        assert!(error.reason.contains("whole numbers"), "{error}");
    }
}

/// A big-endian NIfTI-1 file of 2x1x1x2 `i16` voxels with a scale.
fn big_endian() -> Vec<u8> {
    let mut bytes = vec![0u8; 352];
    let mut put = |offset: usize, field: &[u8]| bytes[offset..offset + field.len()].copy_from_slice(field);
    put(0, &348i32.to_be_bytes());
    for (i, n) in [4i16, 2, 1, 1, 2].into_iter().enumerate() {
        put(40 + 2 * i, &n.to_be_bytes());
    }
    put(70, &4i16.to_be_bytes());
    for i in 0..4 {
        put(76 + 4 * i, &1f32.to_be_bytes());
    }
    put(108, &352f32.to_be_bytes());
    put(112, &0.5f32.to_be_bytes());
    put(116, &(-1000f32).to_be_bytes());
    put(252, &1i16.to_be_bytes());
    put(268, &7f32.to_be_bytes());
    put(344, b"n+1\0");
    bytes.extend([100i16, -200, 1, 2].iter().flat_map(|v| v.to_be_bytes()));
    bytes
}

#[test]
fn big_endian_files_are_scaled_and_only_the_first_volume_is_read() {
    let (image, findings) = decode(&big_endian()[..]).unwrap();
    assert_eq!(image.voxels, [-950.0, -1100.0]);
    assert_eq!(image.grid.affine.0[0], [-1.0, 0.0, 0.0, -7.0]);
    assert_eq!(findings.iter().map(|f| f.code.as_str()).collect::<Vec<_>>(), ["first-volume-only"]);
}

#[test]
fn damage_is_named() {
    let good = encoded(&oblique(), &[0.0; 24]);
    let with = |offset: usize, field: &[u8]| {
        let mut bytes = good.clone();
        bytes[offset..offset + field.len()].copy_from_slice(field);
        bytes
    };
    for (bytes, expected) in [
        (good[..good.len() - 1].to_vec(), "ends early"),
        (good[..100].to_vec(), "ends early"),
        (with(0, &[1, 2, 3, 4]), "does not start"),
        (with(344, b"ni1\0"), "another file"),
        (with(344, b"\0\0\0\0"), "signature"),
        (with(70, &32i16.to_le_bytes()), "voxel type 32"),
        (with(40, &9i16.to_le_bytes()), "9 dimensions"),
        (with(42, &(-4i16).to_le_bytes()), "no voxels"),
        (with(42, &[0xff, 0x7f, 0xff, 0x7f, 0xff, 0x7f]), "limit"),
        (with(108, &1e7f32.to_le_bytes()), "before its voxels"),
    ] {
        let reason = decode(&bytes[..]).unwrap_err().reason;
        assert!(reason.contains(expected), "{expected}: {reason}");
    }
}

#[test]
fn a_head_in_48_orientations_has_the_same_world_coordinates() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/47_nifti_orientations");
    let Ok(entries) = std::fs::read_dir(&folder) else {
        // Not captured by the test harness, unlike `println!`.
        writeln!(std::io::stderr(), "skipped: no {}", folder.display()).unwrap();
        return;
    };
    let names = entries.map(|e| e.unwrap().path());
    let images: Vec<_> =
        names.filter(|p| p.extension().is_some_and(|e| e == "gz")).map(|p| read(&p).unwrap()).collect();
    assert_eq!(images.len(), 48);
    let first = &images[0];
    for image in &images[1..] {
        let world_to_voxel = image.grid.affine.inverse().unwrap();
        for offset in (0..first.voxels.len()).step_by(997) {
            let world = first.grid.affine.to_world(first.grid.shape.index(offset).into());
            let p = world_to_voxel.apply(world);
            let index = image.grid.shape.nearest(p);
            assert!([p.z - index.z as f64, p.y - index.y as f64, p.x - index.x as f64].iter().all(|d| d.abs() < 1e-3));
            assert_eq!(image.at(index), &first.voxels[offset]);
        }
    }
}

proptest! {
    #[test]
    fn any_grid_round_trips(
        m in prop::array::uniform3(prop::array::uniform4(-2.0..2.0f64)),
        sides in prop::array::uniform3(1usize..6),
        wide: bool,
    ) {
        let affine = Affine(m);
        prop_assume!(affine.inverse().is_some() && affine.determinant().abs() > 1e-3);
        let shape = Shape::new(sides[0], sides[1], if wide { 40_000 } else { sides[2] });
        let grid = Grid::new(shape, affine);
        let voxels: Vec<f32> = (0..shape.len()).map(|i| i as f32).collect();
        let (back, findings) = decode(&encoded(&grid, &voxels)[..]).unwrap();
        prop_assert_eq!(findings, vec![]);
        prop_assert_eq!(back.voxels, voxels);
        check_same_place(&back.grid, &grid, if wide { 0.0 } else { 1e-6 });
    }

    #[test]
    fn mutants_never_panic(
        flips in prop::collection::vec((0usize..460, any::<u8>()), 1..12),
        cut in 0usize..460,
        big: bool,
    ) {
        let mut bytes = if big { big_endian() } else { encoded(&oblique(), &[1.0; 24]) };
        for (offset, value) in flips {
            if let Some(byte) = bytes.get_mut(offset) { *byte = value; }
        }
        if let Ok((image, _)) = decode(&bytes[..]) {
            prop_assert!(image.grid.affine.inverse().is_some());
        }
        let _ = decode(&bytes[..cut.min(bytes.len())]);
        let mut zipped = GzEncoder::new(Vec::new(), Compression::fast());
        zipped.write_all(&bytes).unwrap();
        let mut zipped = zipped.finish().unwrap();
        let at = cut % zipped.len();
        zipped[at] ^= 0x55;
        let _ = decode(&zipped[..]);
    }
}

#[test]
fn a_pair_is_read_from_either_name() {
    let folder = tempfile::tempdir().unwrap();
    let voxels: Vec<f32> = (0..24).map(|i| i as f32).collect();
    let mut bytes = encoded(&oblique(), &voxels);
    bytes[344..348].copy_from_slice(b"ni1\0");
    for (offset, names) in [(0usize, ["a.hdr", "a.img"]), (16, ["B.HDR", "B.IMG"])] {
        bytes[108..112].copy_from_slice(&(offset as f32).to_le_bytes());
        let [header, image] = names.map(|name| folder.path().join(name));
        std::fs::write(&header, &bytes[..348]).unwrap();
        std::fs::write(&image, [&vec![9; offset][..], &bytes[352..]].concat()).unwrap();
        for path in [&header, &image] {
            let (read, findings) = read_with_notes(path).unwrap();
            assert_eq!((&read.voxels, findings), (&voxels, vec![]), "{}", path.display());
            check_same_place(&read.grid, &oblique(), 1e-5);
        }
        std::fs::write(&image, &bytes[352..400]).unwrap();
        assert!(read(&header).unwrap_err().to_string().contains("ends early"));
        std::fs::remove_file(&image).unwrap();
        assert!(read(&header).unwrap_err().to_string().contains(names[1]));
    }
    // A single file under the name of a header.
    let single = folder.path().join("c.hdr");
    std::fs::write(&single, encoded(&oblique(), &voxels)).unwrap();
    assert_eq!(read(&single).unwrap().voxels, voxels);
}
