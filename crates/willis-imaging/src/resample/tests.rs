use proptest::prelude::*;
use willis_core::files::nifti;
use willis_core::{Affine, Index, Point, Shape, Spacing, VoxelPoint};

use super::*;
use crate::shared_data::shared_data;

fn grid(shape: [usize; 3], spacing: f64) -> Grid {
    let affine = Affine::axis_aligned(Spacing::isotropic(spacing), Point::new(-7.0, 5.0, 3.0));
    Grid::new(Shape::new(shape[0], shape[1], shape[2]), affine)
}

fn turned(grid: Grid, angle: f64) -> Grid {
    let (s, c) = angle.sin_cos();
    let Affine([a, b, z]) = grid.affine;
    let mix = |p: f64, q: f64| std::array::from_fn(|k| p * a[k] + q * b[k]);
    Grid { affine: Affine([mix(c, -s), mix(s, c), z]), ..grid }
}

/// An image whose value is a linear function of the position.
fn ramp(grid: Grid) -> Image<f32> {
    let value = |i| {
        let p = grid.affine.to_world(VoxelPoint::from(grid.shape.index(i)));
        (2.0 * p.x - 3.0 * p.y + 0.5 * p.z) as f32
    };
    Image::new(grid, (0..grid.shape.len()).map(value).collect())
}

#[test]
fn linear_and_nearest_values() {
    let image = Image::new(grid([1, 1, 3], 1.0), vec![0.0, 10.0, 30.0]);
    let affine = image.grid.affine.sub_grid(VoxelPoint::new(0.0, 0.0, -0.75), VoxelPoint::new(1.0, 1.0, 0.5));
    let fine = linear(&image, &Grid::new(Shape::new(1, 1, 8), affine), -1.0);
    assert_eq!(fine.voxels, [-1.0, 0.0, 2.5, 7.5, 15.0, 25.0, 30.0, -1.0]);
    let labels = Image::new(image.grid, vec![1, 2, 3]);
    assert_eq!(nearest(&labels, &fine.grid, 9).voxels, [9, 1, 1, 2, 2, 3, 3, 9]);
}

#[test]
fn coarse_steps_are_averaged() {
    let image = Image::new(grid([1, 1, 6], 1.0), vec![0.0, 3.0, 6.0, 30.0, 33.0, 36.0]);
    let affine = image.grid.affine.sub_grid(VoxelPoint::new(0.0, 0.0, 1.0), VoxelPoint::new(1.0, 1.0, 3.0));
    assert_eq!(area(&image, &Grid::new(Shape::new(1, 1, 2), affine), 0.0).voxels, [3.0, 33.0]);
}

#[test]
fn every_position_is_outside_a_singular_image() {
    let mut image = ramp(grid([2, 2, 2], 1.0));
    let target = image.grid;
    image.grid.affine = Affine([[0.0; 4]; 3]);
    assert!(linear(&image, &target, 4.0).voxels.iter().all(|&v| v == 4.0));
    assert!(area(&image, &target, 4.0).voxels.iter().all(|&v| v == 4.0));
}

#[test]
fn a_nan_voxel_affects_only_voxels_that_use_it() {
    let mut image = ramp(grid([3, 3, 3], 1.0));
    image.voxels[13] = f32::NAN;
    let same = linear(&image, &image.grid, 0.0);
    assert!(same.voxels.iter().zip(&image.voxels).all(|(a, b)| a.to_bits() == b.to_bits()));
}

#[test]
fn a_head_stored_in_48_orientations_is_the_same_in_space() {
    let Some(folder) = shared_data("47_nifti_orientations") else { return };
    let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let images: Vec<_> =
        paths.filter(|p| p.extension().is_some_and(|e| e == "gz")).map(|p| nifti::read(&p).unwrap()).collect();
    assert_eq!(images.len(), 48);
    for image in &images[1..] {
        assert_eq!(linear(image, &images[0].grid, f32::NAN).voxels, images[0].voxels);
    }
}

proptest! {
    #[test]
    fn own_grid_is_the_identity(
        m in prop::array::uniform3(prop::array::uniform4(-2.0..2.0f64)),
        sides in prop::array::uniform3(1usize..7),
        seed in 0u32..1000,
    ) {
        let affine = Affine(m);
        prop_assume!(affine.determinant().abs() > 0.05);
        let grid = Grid::new(Shape::new(sides[0], sides[1], sides[2]), affine);
        let value = |i: usize| ((i as u32 * 7919 + seed) % 251) as u8;
        let labels = Image::new(grid, (0..grid.shape.len()).map(value).collect::<Vec<u8>>());
        let image = labels.map(|&v| f32::from(v));
        prop_assert_eq!(&linear(&image, &grid, -1.0), &image);
        prop_assert_eq!(&area(&image, &grid, -1.0), &image);
        prop_assert_eq!(&nearest(&labels, &grid, 255), &labels);
    }

    #[test]
    fn a_ramp_stays_a_ramp(angle in prop_oneof![-1.0..1.0f64, -5e-4..5e-4f64], spacing in 0.3..0.9f64, swap: bool) {
        let mut target = turned(grid([4, 5, 6], spacing), angle);
        target.affine.0[0][3] = -2.0;
        target.affine.0[1][3] = 9.0;
        let mut image = ramp(grid([9, 17, 19], 1.0));
        if swap {
            // The same ramp, stored with permuted axes.
            let affine = Affine([[0.0, 0.0, 1.0, -7.0], [0.0, -1.0, 0.0, 21.0], [1.0, 0.0, 0.0, 3.0]]);
            image = ramp(Grid::new(Shape::new(19, 17, 9), affine));
        }
        let expected = ramp(target);
        // A grid that counts as aligned may be off by 0.001 voxels, and the ramp rises by up to 5
        // per voxel.
        let tolerance = if angle.abs() < 1e-3 { 5e-3 } else { 2e-4 };
        for (index, (a, b)) in linear(&image, &target, f32::NAN).voxels.iter().zip(&expected.voxels).enumerate() {
            prop_assert!((a - b).abs() < tolerance, "{:?}: {a} {b}", target.shape.index(index));
        }
    }

    #[test]
    fn labels_keep_their_position(angle in -3.0..3.0f64, z in 0usize..3, y in 0usize..4, x in 0usize..5) {
        let source = turned(grid([3, 4, 5], 1.0), angle);
        let mut labels = Image::filled(source, 0u8);
        let offset = source.shape.offset(Index::new(z, y, x));
        labels.voxels[offset] = 7;
        let place = source.affine.to_world(Index::new(z, y, x).into());
        let affine = Affine::axis_aligned(Spacing::isotropic(0.3), place);
        prop_assert_eq!(nearest(&labels, &Grid::new(Shape::new(1, 1, 1), affine), 0).voxels, vec![7]);
    }
}
