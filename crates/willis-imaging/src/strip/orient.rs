//! Axes in SynthStrip's order: slices to Left, rows to Inferior, columns to Anterior (LIA).

use rayon::prelude::*;
use willis_core::{Grid, Image, Shape, VoxelPoint};

use crate::resample::canonical;

/// The same voxels with axes swapped and turned so that z runs nearest to Left, y to Inferior, x to
/// Anterior.
///
/// Every voxel keeps its value and its exact place; an oblique image stays oblique.
pub fn left_inferior_anterior<T: Copy + Send + Sync>(image: &Image<T>) -> Image<T> {
    let upright = canonical(image);
    let Shape { z, y, x } = upright.grid.shape;
    let shape = Shape::new(x, z, y);
    let corner = upright.grid.affine.sub_grid(
        VoxelPoint::new(z as f64 - 1.0, y as f64 - 1.0, 0.0),
        VoxelPoint::new(-1.0, -1.0, 1.0),
    );
    // Columns of the new affine: Anterior, Inferior, Left.
    let mut affine = corner;
    for (row, from) in affine.0.iter_mut().zip(corner.0) {
        *row = [from[1], from[2], from[0], from[3]];
    }
    let mut voxels = upright.voxels.clone();
    if !shape.is_empty() {
        voxels.par_chunks_mut(shape.x).enumerate().for_each(|(row, values)| {
            let (left, down) = (row / shape.y, row % shape.y);
            for (front, value) in values.iter_mut().enumerate() {
                *value = upright.voxels[((z - 1 - down) * y + (y - 1 - front)) * x + left];
            }
        });
    }
    Image::new(Grid::new(shape, affine), voxels)
}

#[cfg(test)]
mod tests {
    use willis_core::{Affine, Index, Point, Spacing};

    use super::*;

    #[test]
    fn every_voxel_keeps_its_place() {
        let affine = Affine::axis_aligned(Spacing::new(3.0, 2.0, 1.0), Point::new(5.0, 6.0, 7.0));
        let image = Image::new(Grid::new(Shape::new(2, 3, 4), affine), (0..24).collect::<Vec<u8>>());
        let turned = left_inferior_anterior(&image);
        assert_eq!(turned.grid.shape, Shape::new(4, 2, 3));
        for offset in 0..24 {
            let at = turned.grid.shape.index(offset);
            let place = turned.grid.affine.to_world(at.into());
            let from = image.grid.shape.nearest(image.grid.affine.to_voxel(place).unwrap());
            assert_eq!(turned.at(at), image.at(from));
        }
        // One step along x goes to Anterior, along y to Inferior, along z to Left.
        let place = |z, y, x| turned.grid.affine.to_world(Index::new(z, y, x).into()).xyz();
        assert_eq!(place(0, 0, 0), [5.0, 10.0, 10.0]);
        assert_eq!(place(1, 1, 1), [6.0, 8.0, 7.0]);
    }
}
