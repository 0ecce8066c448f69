//! Transpose of each matrix of a batch: channels first to channels last, and back.

use rayon::prelude::*;

/// Rows of the input that are copied together, so that both input and output stay in the
/// first-level cache.
const BLOCK_ROWS: usize = 32;
/// Rows of the output per task.
const TASK_ROWS: usize = 32;

/// Transposes each matrix, `y[b, j, i] = x[b, i, j]`; overwrites `y`.
///
/// # Shapes
/// x `[B, rows, columns]` -> y `[B, columns, rows]`
/// # Panics
/// If the lengths differ, or are not multiples of `rows * columns`.
pub fn transpose(rows: usize, columns: usize, x: &[f32], y: &mut [f32]) {
    let size = rows * columns;
    assert!(size > 0 && x.len() == y.len() && x.len().is_multiple_of(size), "whole matrices of {rows} x {columns}");
    y.par_chunks_mut(size).zip(x.par_chunks(size)).for_each(|(y, x)| {
        y.par_chunks_mut(TASK_ROWS * rows).enumerate().for_each(|(task, y)| {
            let first = task * TASK_ROWS;
            for from in (0..rows).step_by(BLOCK_ROWS) {
                let until = rows.min(from + BLOCK_ROWS);
                for (j, y) in y.chunks_exact_mut(rows).enumerate() {
                    let column = x[first + j..].iter().step_by(columns);
                    y[from..until].iter_mut().zip(column.skip(from)).for_each(|(y, x)| *y = *x);
                }
            }
        });
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn rows_become_columns(batch in 1usize..4, rows in 1usize..70, columns in 1usize..70) {
            let x: Vec<f32> = (0..batch * rows * columns).map(|i| i as f32).collect();
            let mut y = vec![-1.0; x.len()];
            transpose(rows, columns, &x, &mut y);
            for (i, &value) in x.iter().enumerate() {
                let (b, row, column) = (i / (rows * columns), i / columns % rows, i % columns);
                prop_assert_eq!(y[(b * columns + column) * rows + row], value);
            }
        }
    }
}
