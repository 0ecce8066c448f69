//! Axes in SynthStrip's order: slices to Left, rows to Inferior, columns to Anterior (LIA).

use rayon::prelude::*;
use willis_core::{Affine, Grid, Image, Shape, VoxelPoint};

/// The world axis and sign that z, y, x of the result run along; LPS is x, y, z.
const TARGET: [(usize, f64); 3] = [(0, 1.0), (2, -1.0), (1, -1.0)];
/// Orders of the image axes x, y, z.
const ORDERS: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];

/// The same voxels with axes swapped and turned so that z runs nearest to Left, y to Inferior, x to
/// Anterior.
///
/// Every voxel keeps its value and its exact place; an oblique image stays oblique.
pub fn left_inferior_anterior<T: Copy + Send + Sync>(image: &Image<T>) -> Image<T> {
    let shape = image.grid.shape;
    let (sides, strides) = ([shape.x, shape.y, shape.z], [1, shape.x, shape.x * shape.y]);
    let source = source_axes(&image.grid.affine);
    // Start in the array and step there of each axis of the result.
    let [z, y, x] = source.map(|(axis, reversed)| {
        let stride = strides[axis] as isize;
        if reversed { ((sides[axis] as isize - 1) * stride, -stride) } else { (0, stride) }
    });
    let [nz, ny, nx] = source.map(|(axis, _)| sides[axis]);
    let grid = Grid::new(Shape::new(nz, ny, nx), turned(&image.grid, source));
    let mut voxels = image.voxels.clone();
    if !voxels.is_empty() {
        voxels.par_chunks_mut(nx).enumerate().for_each(|(row, values)| {
            let (k, j) = ((row / ny) as isize, (row % ny) as isize);
            let start = z.0 + y.0 + x.0 + k * z.1 + j * y.1;
            for (i, value) in values.iter_mut().enumerate() {
                *value = image.voxels[(start + i as isize * x.1) as usize];
            }
        });
    }
    Image::new(grid, voxels)
}

/// The image axis (0 for x) that becomes z, y, x of the result, and whether it is turned round: the
/// assignment with the largest sum of direction cosines, the first among equals.
fn source_axes(affine: &Affine) -> [(usize, bool); 3] {
    let Affine(m) = affine;
    let spacing = affine.spacing();
    let lengths = [spacing.x, spacing.y, spacing.z];
    let fit = |order: &[usize; 3]| -> f64 { (0..3).map(|a| m[TARGET[a].0][order[a]].abs() / lengths[order[a]]).sum() };
    let best = ORDERS.iter().fold(ORDERS[0], |best, order| if fit(order) > fit(&best) + 1e-9 { *order } else { best });
    std::array::from_fn(|a| (best[a], m[TARGET[a].0][best[a]] * TARGET[a].1 < 0.0))
}

/// The affine with these axes.
fn turned(grid: &Grid, source: [(usize, bool); 3]) -> Affine {
    let sides = [grid.shape.x, grid.shape.y, grid.shape.z];
    let mut corner = [0.0; 3];
    for (axis, reversed) in source {
        corner[axis] = if reversed { sides[axis] as f64 - 1.0 } else { 0.0 };
    }
    let origin = grid.affine.to_world(VoxelPoint::new(corner[2], corner[1], corner[0])).xyz();
    let Affine(m) = grid.affine;
    let column = |row: usize, (axis, reversed): (usize, bool)| if reversed { -m[row][axis] } else { m[row][axis] };
    let [z, y, x] = source;
    Affine(std::array::from_fn(|row| [column(row, x), column(row, y), column(row, z), origin[row]]))
}

#[cfg(test)]
mod tests {
    use willis_core::{Index, Point, Spacing};

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
