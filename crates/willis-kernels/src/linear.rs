//! Linear layers on rows, `y = x W^T + b`, and their gradients.

use rayon::prelude::*;

use crate::matrix::{MatrixView, MatrixViewMut, product};

/// Rows per task of the forward pass and of the gradient of the input.
const TASK_ROWS: usize = 256;
/// Most pieces into which sums over rows are split. A constant, so that results do not depend on
/// the number of threads.
const MAX_PIECES: usize = 8;
/// Fewest rows of a piece.
const MIN_PIECE_ROWS: usize = 1024;
/// Rows of the weight gradient per task.
const TASK_OUTPUTS: usize = 64;

/// Applies a linear layer, `y = x W^T + b`; overwrites `y`.
///
/// # Shapes
/// x `[N, inputs]`, weight `[outputs, inputs]`, bias `[outputs]` -> y `[N, outputs]`
/// # Panics
/// If the lengths do not match.
pub fn linear(inputs: usize, x: &[f32], weight: &[f32], bias: Option<&[f32]>, y: &mut [f32]) {
    let outputs = check(inputs, x.len(), weight.len(), y.len());
    assert!(bias.is_none_or(|bias| bias.len() == outputs), "one bias per output");
    let weight = MatrixView::of_rows(weight, inputs).transposed();
    y.par_chunks_mut(TASK_ROWS * outputs).zip(x.par_chunks(TASK_ROWS * inputs)).for_each(|(y, x)| {
        if let Some(bias) = bias {
            y.chunks_exact_mut(outputs).for_each(|row| row.copy_from_slice(bias));
        }
        product(MatrixView::of_rows(x, inputs), weight, 1.0, bias.is_some(), MatrixViewMut::of_rows(y, outputs));
    });
}

/// Gradient of the input of [`linear`], `dx = dy W`; overwrites `dx`.
///
/// # Shapes
/// weight `[outputs, inputs]`, dy `[N, outputs]` -> dx `[N, inputs]`
/// # Panics
/// As [`linear`].
pub fn input_gradient(inputs: usize, weight: &[f32], dy: &[f32], dx: &mut [f32]) {
    let outputs = check(inputs, dx.len(), weight.len(), dy.len());
    let weight = MatrixView::of_rows(weight, inputs);
    dx.par_chunks_mut(TASK_ROWS * inputs).zip(dy.par_chunks(TASK_ROWS * outputs)).for_each(|(dx, dy)| {
        product(MatrixView::of_rows(dy, outputs), weight, 1.0, false, MatrixViewMut::of_rows(dx, inputs));
    });
}

/// Gradient of the weight of [`linear`], `dW = dy^T x`; overwrites `dw`.
///
/// # Shapes
/// x `[N, inputs]`, dy `[N, outputs]` -> dw `[outputs, inputs]`
/// # Panics
/// As [`linear`].
pub fn weight_gradient(inputs: usize, x: &[f32], dy: &[f32], dw: &mut [f32]) {
    let outputs = check(inputs, x.len(), dw.len(), dy.len());
    let rows = piece_rows(x.len() / inputs);
    let of_piece = |piece: usize, dw: &mut [f32]| {
        let [x, dy] = [(x, inputs), (dy, outputs)].map(|(values, width)| {
            let start = piece * rows * width;
            &values[start..values.len().min(start + rows * width)]
        });
        dw.par_chunks_mut(TASK_OUTPUTS * inputs).enumerate().for_each(|(task, dw)| {
            let columns = MatrixView {
                values: &dy[task * TASK_OUTPUTS..],
                size: [dw.len() / inputs, dy.len() / outputs],
                strides: [1, outputs],
            };
            product(columns, MatrixView::of_rows(x, inputs), 1.0, false, MatrixViewMut::of_rows(dw, inputs));
        });
    };
    let pieces = (x.len() / inputs).div_ceil(rows);
    let other = |piece| {
        let mut dw = vec![0.0; outputs * inputs];
        of_piece(piece, &mut dw);
        dw
    };
    let (_, others): (_, Vec<Vec<f32>>) =
        rayon::join(|| of_piece(0, dw), || (1..pieces).into_par_iter().map(other).collect());
    for other in others {
        dw.iter_mut().zip(other).for_each(|(sum, value)| *sum += value);
    }
}

/// Gradient of the bias of [`linear`], the sum of `dy` over rows; overwrites `db`.
///
/// # Shapes
/// dy `[N, outputs]` -> db `[outputs]`
/// # Panics
/// If the length of `dy` is not a multiple of the length of `db`.
pub fn bias_gradient(dy: &[f32], db: &mut [f32]) {
    let outputs = db.len();
    assert!(outputs > 0 && dy.len().is_multiple_of(outputs), "whole rows of {outputs} floats");
    let rows = piece_rows(dy.len() / outputs);
    let sums: Vec<Vec<f32>> = dy
        .par_chunks(rows * outputs)
        .map(|dy| {
            let mut sum = vec![0.0; outputs];
            dy.chunks_exact(outputs).for_each(|row| sum.iter_mut().zip(row).for_each(|(sum, value)| *sum += value));
            sum
        })
        .collect();
    for (output, db) in db.iter_mut().enumerate() {
        *db = sums.iter().map(|sum| f64::from(sum[output])).sum::<f64>() as f32;
    }
}

fn piece_rows(rows: usize) -> usize {
    rows.div_ceil(MAX_PIECES).max(MIN_PIECE_ROWS)
}

/// Checks the lengths and returns the number of outputs.
fn check(inputs: usize, x: usize, weight: usize, y: usize) -> usize {
    assert!(
        inputs > 0 && x > 0 && weight > 0 && x.is_multiple_of(inputs) && weight.is_multiple_of(inputs),
        "whole rows"
    );
    let outputs = weight / inputs;
    assert_eq!(x / inputs * outputs, y, "{} rows of {outputs} outputs", x / inputs);
    outputs
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn values(count: usize, salt: usize) -> Vec<f32> {
        (0..count).map(|i| ((i * 37 + salt * 101) % 97) as f32 / 48.0 - 1.0).collect()
    }

    fn close(ours: &[f32], reference: impl Fn(usize) -> f64) {
        for (i, &ours) in ours.iter().enumerate() {
            let expected = reference(i);
            assert!((f64::from(ours) - expected).abs() <= 1e-4 * (1.0 + expected.abs()), "{i}: {ours} {expected}");
        }
    }

    fn compare(rows: usize, inputs: usize, outputs: usize) {
        let (x, weight, bias) = (values(rows * inputs, 1), values(outputs * inputs, 2), values(outputs, 3));
        let dy = values(rows * outputs, 4);
        let at = |values: &[f32], i: usize| f64::from(values[i]);
        let mut y = vec![9.0; rows * outputs];
        for bias in [Some(&bias[..]), None] {
            linear(inputs, &x, &weight, bias, &mut y);
            close(&y, |i| {
                let (row, output) = (i / outputs, i % outputs);
                let products = (0..inputs).map(|k| at(&x, row * inputs + k) * at(&weight, output * inputs + k));
                products.sum::<f64>() + bias.map_or(0.0, |bias| at(bias, output))
            });
        }
        let [mut dx, mut dw, mut db] = [&x, &weight, &bias].map(|like| vec![9.0; like.len()]);
        input_gradient(inputs, &weight, &dy, &mut dx);
        close(&dx, |i| {
            let (row, input) = (i / inputs, i % inputs);
            (0..outputs).map(|k| at(&dy, row * outputs + k) * at(&weight, k * inputs + input)).sum()
        });
        weight_gradient(inputs, &x, &dy, &mut dw);
        close(&dw, |i| {
            let (output, input) = (i / inputs, i % inputs);
            (0..rows).map(|row| at(&dy, row * outputs + output) * at(&x, row * inputs + input)).sum()
        });
        bias_gradient(&dy, &mut db);
        close(&db, |output| (0..rows).map(|row| at(&dy, row * outputs + output)).sum());
    }

    proptest! {
        #[test]
        fn values_and_gradients_equal_direct_sums(rows in 1usize..40, inputs in 1usize..20, outputs in 1usize..80) {
            compare(rows, inputs, outputs);
        }
    }

    #[test]
    fn many_rows_are_summed_in_pieces() {
        compare(2 * MIN_PIECE_ROWS + 5, 3, 70);
    }
}
