//! Averages over blocks of voxels, computed before a fine image is resampled to a coarse grid.

use rayon::prelude::*;
use willis_core::{Grid, Image, Shape, VoxelPoint};

/// Mean over blocks of `x, y, z` voxels; the last block along an axis may be smaller.
pub(super) fn mean(image: &Image<f32>, [bx, by, bz]: [usize; 3]) -> Image<f32> {
    let shape = image.grid.shape;
    let [bx, by, bz] = [bx.clamp(1, shape.x), by.clamp(1, shape.y), bz.clamp(1, shape.z)];
    let coarse = Shape::new(shape.z.div_ceil(bz), shape.y.div_ceil(by), shape.x.div_ceil(bx));
    // The centre of a coarse voxel is that of its block.
    let middle = |block: usize| (block as f64 - 1.0) / 2.0;
    let start = VoxelPoint::new(middle(bz), middle(by), middle(bx));
    let step = VoxelPoint::new(bz as f64, by as f64, bx as f64);
    let mut voxels = vec![0.0; coarse.len()];
    voxels.par_chunks_mut(coarse.y * coarse.x).enumerate().for_each(|(z, slice)| {
        for (y, row) in slice.chunks_mut(coarse.x).enumerate() {
            let (z_rows, y_rows) = (z * bz..((z + 1) * bz).min(shape.z), y * by..((y + 1) * by).min(shape.y));
            let count = z_rows.len() * y_rows.len();
            for source in z_rows.flat_map(|z| y_rows.clone().map(move |y| (z * shape.y + y) * shape.x)) {
                for (sum, block) in row.iter_mut().zip(image.voxels[source..source + shape.x].chunks(bx)) {
                    *sum += block.iter().sum::<f32>() / block.len() as f32;
                }
            }
            row.iter_mut().for_each(|sum| *sum /= count as f32);
        }
    });
    Image::new(Grid::new(coarse, image.grid.affine.sub_grid(start, step)), voxels)
}

#[cfg(test)]
mod tests {
    use super::*;
    use willis_core::{Affine, Point, Spacing};

    #[test]
    fn block_means() {
        let affine = Affine::axis_aligned(Spacing::new(3.0, 2.0, 1.0), Point::new(10.0, 20.0, 30.0));
        let image = Image::new(Grid::new(Shape::new(1, 2, 5), affine), (0..10).map(|v| v as f32).collect());
        let coarse = mean(&image, [2, 2, 4]);
        assert_eq!(coarse.voxels, [3.0, 5.0, 6.5]);
        assert_eq!(coarse.grid.affine, Affine::axis_aligned(Spacing::new(3.0, 4.0, 2.0), Point::new(10.5, 21.0, 30.0)));
    }
}
