//! From decoded planes to the voxels of the volume: planes out of line are moved, missing ones are
//! interpolated.

use rayon::prelude::*;
use willis_core::{Grid, Image, Shape};

use super::geometry::StackGeometry;

/// Shifts within this many pixels of a whole number move pixels without interpolation.
const WHOLE_PIXEL: f64 = 1e-3;

/// The volume on its grid, from planes of the given rows and columns in the order of the stack.
pub(super) fn volume_of(rows: usize, columns: usize, geometry: &StackGeometry, mut voxels: Vec<f32>) -> Image<f32> {
    if let Some(shifts) = &geometry.shifts {
        let planes = voxels.par_chunks_exact_mut(rows * columns);
        planes.zip(shifts).filter(|(_, shift)| **shift != [0.0; 2]).for_each(|(plane, &shift)| {
            let moved = shifted(plane, columns, shift);
            plane.copy_from_slice(&moved);
        });
    }
    let voxels = match &geometry.resample {
        None => voxels,
        Some(positions) => interpolate(&voxels, rows * columns, positions),
    };
    let shape = Shape::new(voxels.len() / (rows * columns), rows, columns);
    Image::new(Grid::new(shape, geometry.affine), voxels)
}

/// A plane moved by rows and columns, interpolated linearly. What it does not cover has its lowest
/// value.
fn shifted(plane: &[f32], columns: usize, [down, right]: [f64; 2]) -> Vec<f32> {
    let rows = plane.len() / columns;
    let lowest = plane.iter().copied().filter(|v| v.is_finite()).fold(f32::MAX, f32::min);
    let outside = if lowest == f32::MAX { 0.0 } else { lowest };
    // Pixel `i` of the result is at `i - shift` of the plane: its lower neighbour and the weight of
    // the upper one.
    let source = |i: usize, shift: f64| {
        let at = i as f64 - shift;
        let at = if (at - at.round()).abs() < WHOLE_PIXEL { at.round() } else { at };
        (at.floor(), (at - at.floor()) as f32)
    };
    let row_at = |row: f64, column: f64| {
        let inside = (0.0..rows as f64).contains(&row) && (0.0..columns as f64).contains(&column);
        inside.then(|| plane[row as usize * columns + column as usize])
    };
    let mix = |a: Option<f32>, b: Option<f32>, weight: f32| match (a, b) {
        (Some(a), _) if weight == 0.0 => Some(a),
        (Some(a), Some(b)) => Some(a + (b - a) * weight),
        _ => None,
    };
    let mut out = vec![outside; plane.len()];
    for (r, target) in out.chunks_exact_mut(columns).enumerate() {
        let (row, down_weight) = source(r, down);
        for (c, value) in target.iter_mut().enumerate() {
            let (column, right_weight) = source(c, right);
            let along = |row: f64| mix(row_at(row, column), row_at(row, column + 1.0), right_weight);
            *value = mix(along(row), along(row + 1.0), down_weight).unwrap_or(outside);
        }
    }
    out
}

/// Planes at fractional indices, interpolated linearly between the given planes.
fn interpolate(voxels: &[f32], plane: usize, positions: &[f64]) -> Vec<f32> {
    let mut out = vec![0f32; plane * positions.len()];
    out.par_chunks_exact_mut(plane).zip(positions).for_each(|(target, &position)| {
        let low = position.floor() as usize;
        let weight = (position - low as f64) as f32;
        let below = &voxels[low * plane..(low + 1) * plane];
        if weight == 0.0 {
            target.copy_from_slice(below);
            return;
        }
        let above = &voxels[(low + 1) * plane..(low + 2) * plane];
        for ((t, &a), &b) in target.iter_mut().zip(below).zip(above) {
            *t = a + (b - a) * weight;
        }
    });
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn planes_move_by_whole_and_half_pixels() {
        let plane = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        assert_eq!(shifted(&plane, 3, [0.0, 1.0]), [1.0, 1.0, 2.0, 1.0, 4.0, 5.0]);
        assert_eq!(shifted(&plane, 3, [-1.0, 0.0]), [4.0, 5.0, 6.0, 1.0, 1.0, 1.0]);
        assert_eq!(shifted(&plane, 3, [0.0, -0.5]), [1.5, 2.5, 1.0, 4.5, 5.5, 1.0]);
        assert_eq!(shifted(&plane, 3, [0.0, 50.0]), [1.0; 6]);
    }
}
