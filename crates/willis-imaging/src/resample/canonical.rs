//! Axes permuted and reversed into patient order, without interpolation.

use rayon::prelude::*;
use willis_core::{Affine, Grid, Image, Shape, VoxelPoint};

/// The same voxels with axes permuted and reversed so that x is closest to Left, y to Posterior and
/// z to Superior.
///
/// Every voxel keeps its value and its exact position; an oblique image stays oblique.
pub fn canonical<T: Copy + Send + Sync>(image: &Image<T>) -> Image<T> {
    let source = source_axes(&image.grid.affine);
    let shape = image.grid.shape;
    let (sides, strides) = ([shape.x, shape.y, shape.z], [1, shape.x, shape.x * shape.y]);
    let grid = canonical_grid(&image.grid, source);
    // Offset in the source array of the start of each axis of the result, and its stride there.
    let axis = |a: usize| {
        let SourceAxis { axis, reversed } = source[a];
        let stride = strides[axis] as isize;
        if reversed { ((sides[axis] as isize - 1) * stride, -stride) } else { (0, stride) }
    };
    let [x, y, z] = [axis(0), axis(1), axis(2)];
    let mut voxels = image.voxels.clone();
    if !grid.shape.is_empty() {
        voxels.par_chunks_mut(grid.shape.x).enumerate().for_each(|(row, values)| {
            let (k, j) = ((row / grid.shape.y) as isize, (row % grid.shape.y) as isize);
            let start = x.0 + y.0 + z.0 + j * y.1 + k * z.1;
            for (i, value) in values.iter_mut().enumerate() {
                *value = image.voxels[(start + i as isize * x.1) as usize];
            }
        });
    }
    Image::new(grid, voxels)
}

/// The image axis (0 for x) that becomes an axis of the result, and whether it is reversed.
#[derive(Debug, Clone, Copy, PartialEq)]
struct SourceAxis {
    axis: usize,
    reversed: bool,
}

/// The assignment of image axes to Left, Posterior and Superior with the largest sum of direction
/// cosines.
fn source_axes(affine: &Affine) -> [SourceAxis; 3] {
    const ORDERS: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
    let Affine(m) = affine;
    let spacing = affine.spacing();
    let lengths = [spacing.x, spacing.y, spacing.z];
    let fit = |order: &[usize; 3]| (0..3).map(|a| m[a][order[a]].abs() / lengths[order[a]]).sum::<f64>();
    // The margin makes the first of equals win, whatever the rounding.
    let best = ORDERS.iter().fold(ORDERS[0], |best, order| if fit(order) > fit(&best) + 1e-9 { *order } else { best });
    std::array::from_fn(|a| SourceAxis { axis: best[a], reversed: m[a][best[a]] < 0.0 })
}

fn canonical_grid(grid: &Grid, source: [SourceAxis; 3]) -> Grid {
    let sides = [grid.shape.x, grid.shape.y, grid.shape.z];
    let mut corner = [0.0; 3];
    for SourceAxis { axis, reversed } in source {
        corner[axis] = if reversed { sides[axis] as f64 - 1.0 } else { 0.0 };
    }
    let origin = grid.affine.to_world(VoxelPoint::new(corner[2], corner[1], corner[0])).xyz();
    let Affine(m) = grid.affine;
    let column = |row: usize, s: SourceAxis| if s.reversed { -m[row][s.axis] } else { m[row][s.axis] };
    let rows = std::array::from_fn(|r| [column(r, source[0]), column(r, source[1]), column(r, source[2]), origin[r]]);
    let [x, y, z] = source.map(|s| sides[s.axis]);
    Grid::new(Shape::new(z, y, x), Affine(rows))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared_data::shared_data;
    use willis_core::files::nifti;

    #[test]
    fn a_sagittal_image_becomes_axial() {
        // x points to Anterior, y to Inferior, z to Right.
        let affine = Affine([[0.0, 0.0, -3.0, 100.0], [-1.0, 0.0, 0.0, 50.0], [0.0, -2.0, 0.0, 70.0]]);
        let image = Image::new(Grid::new(Shape::new(2, 3, 4), affine), (0..24).collect::<Vec<u8>>());
        let upright = canonical(&image);
        assert_eq!(upright.grid.shape, Shape::new(3, 4, 2));
        let expected = [[3.0, 0.0, 0.0, 97.0], [0.0, 1.0, 0.0, 47.0], [0.0, 0.0, 2.0, 66.0]];
        assert_eq!(upright.grid.affine, Affine(expected));
        // The first voxel was in the last column, row and slice; the second in the slice before.
        assert_eq!(upright.voxels[..3], [23, 11, 22]);
    }

    #[test]
    fn a_head_stored_in_48_orientations_gives_one_image() {
        let Some(folder) = shared_data("47_nifti_orientations") else { return };
        let paths = std::fs::read_dir(folder)
            .unwrap()
            .map(|e| e.unwrap().path())
            .filter(|p| p.extension().is_some_and(|e| e == "gz"));
        let images: Vec<_> = paths.map(|p| canonical(&nifti::read(&p).unwrap())).collect();
        assert_eq!(images.len(), 48);
        for image in &images[1..] {
            assert_eq!(image.voxels, images[0].voxels);
            for (a, b) in image.grid.affine.0.iter().flatten().zip(images[0].grid.affine.0.iter().flatten()) {
                assert!((a - b).abs() < 1e-4);
            }
        }
    }
}
