//! Exact Euclidean distance transform on an anisotropic grid.
//!
//! Squared distances separate by axis: one scan along x, then the lower envelope of parabolas along
//! y and along z (Felzenszwalb & Huttenlocher, Theory of Computing 8, 2012). Lines are split at
//! their zeros, since nothing beyond a zero can be nearer than the zero itself. Sparse masks such
//! as vessels therefore cost little more than one pass over memory.

use std::ops::Range;

use rayon::prelude::*;

/// Voxels of a row that are tested for foreground together.
const RUN: usize = 64;

/// Columns copied together, so that each cache line is read once.
const TILE: usize = 16;

/// Squared distance of every voxel to the centre of the nearest background (zero) voxel, mm².
///
/// Background voxels have distance 0. Voxels outside the array do *not* count as background; pad
/// the mask with zeros if they should. Without any background, the distance is `f32::INFINITY`
/// everywhere.
///
/// # Shapes
/// `mask` and result C-order `[z, y, x]`
/// # Units
/// `spacing_mm` `[z, y, x]`, mm, positive
/// # Panics
/// If the length of `mask` does not match `shape`.
pub fn squared_distance_mm2(mask: &[u8], shape: [usize; 3], spacing_mm: [f64; 3]) -> Vec<f32> {
    let [nz, ny, nx] = shape;
    assert_eq!(mask.len(), nz * ny * nx, "mask does not match shape {shape:?}");
    if mask.is_empty() {
        return Vec::new();
    }
    // Rows without foreground are never written, so the system need not map their pages.
    let mut squared = vec![0.0f32; mask.len()];
    let mut extents = vec![0..0; nz * ny];
    let slices = squared.par_chunks_mut(nx * ny).zip(mask.par_chunks(nx * ny)).zip(extents.par_chunks_mut(ny));
    slices.for_each(|((slice, mask), extents)| {
        for ((row, mask), extent) in slice.chunks_mut(nx).zip(mask.chunks(nx)).zip(extents.iter_mut()) {
            *extent = foreground(mask);
            scan_row(row, mask, extent.clone(), spacing_mm[2]);
        }
        let mut rows: Vec<&mut [f32]> = slice.chunks_mut(nx).collect();
        lower_columns(&mut rows, extents, spacing_mm[1]);
    });
    // Grouping the rows by y makes every y one task along z.
    let mut rows_by_y: Vec<Vec<&mut [f32]>> = (0..ny).map(|_| Vec::with_capacity(nz)).collect();
    for (i, row) in squared.chunks_mut(nx).enumerate() {
        rows_by_y[i % ny].push(row);
    }
    rows_by_y.into_par_iter().enumerate().for_each(|(y, mut rows)| {
        let extents: Vec<Range<usize>> = extents.iter().skip(y).step_by(ny).cloned().collect();
        lower_columns(&mut rows, &extents, spacing_mm[0]);
    });
    squared
}

/// The range from the first foreground voxel of a row to the last one; empty if there is none.
fn foreground(mask: &[u8]) -> Range<usize> {
    // Whole runs are tested without a branch per voxel, since most of a vessel mask is empty.
    let run = |i: usize| &mask[i * RUN..mask.len().min((i + 1) * RUN)];
    let is_empty = |i: &usize| run(*i).iter().fold(0, |any, &m| any | m) == 0;
    let runs = 0..mask.len().div_ceil(RUN);
    let Some(first) = runs.clone().find(|i| !is_empty(i)) else { return 0..0 };
    let last = runs.rev().find(|i| !is_empty(i)).unwrap_or(first);
    let within = |i: usize, index: Option<usize>| i * RUN + index.expect("the run has foreground");
    let start = within(first, run(first).iter().position(|&m| m != 0));
    let end = within(last, run(last).iter().rposition(|&m| m != 0)) + 1;
    start..end
}

/// Writes the squared distance along one row to the nearest zero of the mask; infinite in a row
/// without zeros.
fn scan_row(row: &mut [f32], mask: &[u8], extent: Range<usize>, step: f64) {
    let mut start = extent.start;
    while let Some(offset) = mask[start..extent.end].iter().position(|&m| m != 0) {
        let first = start + offset;
        let end = mask[first..].iter().position(|&m| m == 0).map_or(mask.len(), |n| first + n);
        for (i, value) in row[first..end].iter_mut().enumerate() {
            let left = if first == 0 { usize::MAX } else { i + 1 };
            let right = if end == mask.len() { usize::MAX } else { end - first - i };
            let steps = left.min(right);
            *value = if steps == usize::MAX { f32::INFINITY } else { (steps as f64 * step).powi(2) as f32 };
        }
        start = end;
    }
}

/// Replaces each column of `rows` by the lower envelope of the parabolas rooted at its values. A
/// row is zero outside its extent.
fn lower_columns(rows: &mut [&mut [f32]], extents: &[Range<usize>], step: f64) {
    let filled = || extents.iter().filter(|extent| !extent.is_empty());
    let Some(start) = filled().map(|extent| extent.start).min() else { return };
    let end = filled().map(|extent| extent.end).max().unwrap_or(start);
    let mut tile = vec![0.0f32; TILE * rows.len()];
    let mut envelope = LowerEnvelope::default();
    for first in (start..end).step_by(TILE) {
        let count = TILE.min(end - first);
        let touches = |extent: &Range<usize>| extent.start < first + count && first < extent.end;
        let Some(top) = extents.iter().position(touches) else { continue };
        let bottom = extents.iter().rposition(touches).unwrap_or(top);
        // One more row on either side holds the zeros that end a stretch.
        let rows = &mut rows[top.saturating_sub(1)..extents.len().min(bottom + 2)];
        let n = rows.len();
        let mut any = [false; TILE];
        for (i, row) in rows.iter().enumerate() {
            for (j, &value) in row[first..first + count].iter().enumerate() {
                any[j] |= value != 0.0;
                tile[j * n + i] = value;
            }
        }
        for j in (0..count).filter(|&j| any[j]) {
            let column = &mut tile[j * n..(j + 1) * n];
            lower_line(column, step, &mut envelope);
            // Zeros are unchanged; writing them would make the system map pages for nothing.
            for (row, &value) in rows.iter_mut().zip(column.iter()).filter(|(_, value)| **value != 0.0) {
                row[first + j] = value;
            }
        }
    }
}

/// Applies the lower envelope to every stretch of a line between two zeros, including the zeros.
fn lower_line(line: &mut [f32], step: f64, envelope: &mut LowerEnvelope) {
    let mut start = 0;
    while let Some(offset) = line[start..].iter().position(|&v| v != 0.0) {
        let first = start + offset;
        let end = line[first..].iter().position(|&v| v == 0.0).map_or(line.len(), |n| first + n);
        let stretch = first.saturating_sub(1)..line.len().min(end + 1);
        envelope.lower(&mut line[stretch], step);
        start = end;
    }
}

/// Lower envelope of parabolas along one line; its memory is reused from line to line.
#[derive(Default)]
struct LowerEnvelope {
    /// Position of each parabola's vertex, mm.
    at: Vec<f64>,
    /// Height of each vertex, mm².
    height: Vec<f64>,
    /// Position from which the parabola is the lowest, mm.
    from: Vec<f64>,
}

impl LowerEnvelope {
    /// Replaces the values of `line`, `step` mm apart, by the envelope of their parabolas.
    fn lower(&mut self, line: &mut [f32], step: f64) {
        self.at.clear();
        self.height.clear();
        self.from.clear();
        for (i, &value) in line.iter().enumerate().filter(|(_, v)| v.is_finite()) {
            let (x, height) = (i as f64 * step, f64::from(value));
            let mut from = f64::NEG_INFINITY;
            while let Some(&top) = self.at.last() {
                let top_height = self.height[self.at.len() - 1];
                from = (x + top) / 2.0 + (height - top_height) / (2.0 * (x - top));
                if from > self.from[self.at.len() - 1] {
                    break;
                }
                self.at.pop();
                self.height.pop();
                self.from.pop();
                from = f64::NEG_INFINITY;
            }
            self.at.push(x);
            self.height.push(height);
            self.from.push(from);
        }
        if self.at.is_empty() {
            return;
        }
        let mut k = 0;
        for (i, value) in line.iter_mut().enumerate() {
            let x = i as f64 * step;
            while k + 1 < self.at.len() && self.from[k + 1] <= x {
                k += 1;
            }
            *value = ((x - self.at[k]).powi(2) + self.height[k]) as f32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The minimum over all background voxels, for each voxel.
    fn reference(mask: &[u8], [nz, ny, nx]: [usize; 3], spacing: [f64; 3]) -> Vec<f32> {
        let position = |i: usize| [(i / nx / ny) as f64, (i / nx % ny) as f64, (i % nx) as f64];
        (0..nz * ny * nx)
            .map(|i| {
                let squared = |j: usize| {
                    let (a, b) = (position(i), position(j));
                    (0..3).map(|k| ((a[k] - b[k]) * spacing[k]).powi(2)).sum::<f64>()
                };
                (0..mask.len()).filter(|&j| mask[j] == 0).map(squared).fold(f64::INFINITY, f64::min) as f32
            })
            .collect()
    }

    #[test]
    fn a_row_and_a_column_by_hand() {
        let mask = [1, 1, 0, 1, 1, 1, 0];
        assert_eq!(squared_distance_mm2(&mask, [1, 1, 7], [1.0; 3]), [4.0, 1.0, 0.0, 1.0, 4.0, 1.0, 0.0]);
        assert_eq!(squared_distance_mm2(&mask, [7, 1, 1], [0.5; 3]), [1.0, 0.25, 0.0, 0.25, 1.0, 0.25, 0.0]);
    }

    #[test]
    fn uniform_masks_and_the_empty_mask() {
        assert!(squared_distance_mm2(&[1; 24], [2, 3, 4], [1.0; 3]).iter().all(|d| d.is_infinite()));
        assert!(squared_distance_mm2(&[0; 24], [2, 3, 4], [1.0; 3]).iter().all(|&d| d == 0.0));
        assert!(squared_distance_mm2(&[], [0, 3, 4], [1.0; 3]).is_empty());
    }

    #[test]
    fn rows_may_be_longer_than_a_run_and_a_tile() {
        let (shape, spacing) = ([3, 4, 150], [1.5, 0.7, 0.4]);
        for foreground in [&[0, 149][..], &[70, 71, 72], &[63, 64], &[]] {
            let mut mask = vec![0u8; 3 * 4 * 150];
            for row in 0..12 {
                foreground.iter().filter(|&x| (row + x) % 5 != 0).for_each(|x| mask[row * 150 + x] = 3);
            }
            assert_eq!(squared_distance_mm2(&mask, shape, spacing), reference(&mask, shape, spacing));
        }
    }

    proptest! {
        #[test]
        fn distances_equal_the_minimum_over_the_background(
            shape in prop::array::uniform3(1usize..9),
            spacing in prop::array::uniform3(0.2..3.0f64),
            percent in 30u32..101,
            seed in any::<u32>(),
        ) {
            let mut state = seed;
            let mask: Vec<u8> = (0..shape.iter().product()).map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                u8::from((state >> 16) % 100 < percent)
            }).collect();
            for (fast, expected) in squared_distance_mm2(&mask, shape, spacing).iter().zip(reference(&mask, shape, spacing)) {
                prop_assert!(*fast == expected || (fast - expected).abs() <= 1e-5 * expected, "{fast} {expected}");
            }
        }
    }
}
