//! Resampling of volumes to another grid, and its gradient, one axis after the other.
//!
//! Along one axis an interpolation is a sparse matrix with at most two entries per row; the
//! gradient is the transposed matrix.

use rayon::prelude::*;

/// Fewest floats of a task.
const MIN_TASK_FLOATS: usize = 16 * 1024;

/// Where output voxels lie between input voxels, as in PyTorch's `interpolate` with
/// `mode="trilinear"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interpolation {
    /// The corners of the first and last voxels are aligned; the edge voxels are repeated beyond
    /// their centres (`align_corners=False`).
    Linear,
    /// The centres of the first and last voxels are aligned (`align_corners=True`).
    LinearAligned,
}

/// Resamples `volumes` (batch times channels) volumes from the extents `input` to the extents
/// `output`; overwrites `y`.
///
/// # Shapes
/// x `[B, C, D, H, W]` -> y `[B, C, D', H', W']`
/// # Panics
/// If the length of a slice does not match its shape, or an extent is zero.
pub fn resize(volumes: usize, input: [usize; 3], output: [usize; 3], how: Interpolation, x: &[f32], y: &mut [f32]) {
    check(volumes, input, output, x.len(), y.len());
    let matrices: [InterpolationMatrix; 3] =
        std::array::from_fn(|axis| InterpolationMatrix::new(input[axis], output[axis], how));
    apply_along_axes(volumes, input, &matrices, x, y);
}

/// Gradient of the input of [`resize`]: its adjoint, applied to `dy`; overwrites `dx`.
///
/// # Shapes
/// dy `[B, C, D', H', W']` -> dx `[B, C, D, H, W]`
/// # Panics
/// As [`resize`].
pub fn resize_gradient(
    volumes: usize,
    input: [usize; 3],
    output: [usize; 3],
    how: Interpolation,
    dy: &[f32],
    dx: &mut [f32],
) {
    check(volumes, input, output, dx.len(), dy.len());
    let matrices: [InterpolationMatrix; 3] =
        std::array::from_fn(|axis| InterpolationMatrix::new(input[axis], output[axis], how).transposed());
    apply_along_axes(volumes, output, &matrices, dy, dx);
}

fn check(volumes: usize, input: [usize; 3], output: [usize; 3], x: usize, y: usize) {
    assert!(input.iter().chain(&output).all(|&extent| extent > 0), "extents must be positive: {input:?} -> {output:?}");
    let expected = [input, output].map(|extents| volumes * extents.iter().product::<usize>());
    assert_eq!([x, y], expected, "lengths of {volumes} volumes of {input:?} and {output:?}");
}

/// Applies one matrix per axis. The x axis reads single floats, so it comes first when the volumes
/// grow and last when they shrink: where the data is smallest.
fn apply_along_axes(volumes: usize, from: [usize; 3], matrices: &[InterpolationMatrix; 3], x: &[f32], y: &mut [f32]) {
    let order = if y.len() >= x.len() { [2, 1, 0] } else { [0, 1, 2] };
    let active: Vec<usize> = order.into_iter().filter(|&axis| !matrices[axis].is_identity()).collect();
    let Some((&last, before)) = active.split_last() else {
        return y.copy_from_slice(x);
    };
    let mut extents = from;
    let mut current = None::<Vec<f32>>;
    for &axis in before {
        let mut next = vec![0.0; floats(volumes, extents) / extents[axis] * matrices[axis].rows()];
        matrices[axis].apply(extents[axis + 1..].iter().product(), current.as_deref().unwrap_or(x), &mut next);
        extents[axis] = matrices[axis].rows();
        current = Some(next);
    }
    matrices[last].apply(extents[last + 1..].iter().product(), current.as_deref().unwrap_or(x), y);
}

fn floats(volumes: usize, extents: [usize; 3]) -> usize {
    volumes * extents.iter().product::<usize>()
}

/// A sparse matrix in compressed row form.
struct InterpolationMatrix {
    columns: usize,
    /// `entries[starts[row]..starts[row + 1]]` are the entries of a row.
    starts: Vec<usize>,
    /// Column and weight.
    entries: Vec<(usize, f32)>,
}

impl InterpolationMatrix {
    fn new(input: usize, output: usize, how: Interpolation) -> Self {
        let row = |index: usize| match how {
            Interpolation::Linear => {
                let scale = input as f64 / output as f64;
                between(((index as f64 + 0.5) * scale - 0.5).max(0.0), input)
            }
            Interpolation::LinearAligned if output == 1 => vec![(0, 1.0)],
            Interpolation::LinearAligned => between((index * (input - 1)) as f64 / (output - 1) as f64, input),
        };
        Self::from_rows(input, (0..output).map(row))
    }

    fn from_rows(columns: usize, rows: impl Iterator<Item = Vec<(usize, f32)>>) -> Self {
        let mut matrix = Self { columns, starts: vec![0], entries: Vec::new() };
        for row in rows {
            matrix.entries.extend(row);
            matrix.starts.push(matrix.entries.len());
        }
        matrix
    }

    fn transposed(&self) -> Self {
        let mut rows = vec![Vec::new(); self.columns];
        for row in 0..self.rows() {
            for &(column, weight) in self.row(row) {
                rows[column].push((row, weight));
            }
        }
        Self::from_rows(self.rows(), rows.into_iter())
    }

    fn rows(&self) -> usize {
        self.starts.len() - 1
    }

    fn row(&self, row: usize) -> &[(usize, f32)] {
        &self.entries[self.starts[row]..self.starts[row + 1]]
    }

    fn is_identity(&self) -> bool {
        self.rows() == self.columns && (0..self.rows()).all(|row| self.row(row) == [(row, 1.0)])
    }

    /// Multiplies along the middle axis: x `[.., columns, inner]` -> y `[.., rows, inner]`.
    fn apply(&self, inner: usize, x: &[f32], y: &mut [f32]) {
        if inner == 1 {
            let lines = y.par_chunks_mut(self.rows()).zip(x.par_chunks(self.columns));
            return lines.with_min_len(MIN_TASK_FLOATS / self.rows() + 1).for_each(|(y, x)| {
                for (row, value) in y.iter_mut().enumerate() {
                    *value = self.row(row).iter().map(|&(column, weight)| weight * x[column]).sum();
                }
            });
        }
        y.par_chunks_mut(inner).enumerate().with_min_len(MIN_TASK_FLOATS / inner + 1).for_each(|(index, y)| {
            let (outer, row) = (index / self.rows(), index % self.rows());
            let line = |column: usize| &x[(outer * self.columns + column) * inner..][..inner];
            match *self.row(row) {
                [(column, weight)] => y.iter_mut().zip(line(column)).for_each(|(y, x)| *y = weight * x),
                [(first, a), (second, b)] => {
                    let pairs = line(first).iter().zip(line(second));
                    y.iter_mut().zip(pairs).for_each(|(y, (first, second))| *y = a * first + b * second);
                }
                ref entries => {
                    y.fill(0.0);
                    for &(column, weight) in entries {
                        y.iter_mut().zip(line(column)).for_each(|(y, x)| *y += weight * x);
                    }
                }
            }
        });
    }
}

/// The two voxels around `at` with their weights, or the one voxel that `at` falls on.
fn between(at: f64, input: usize) -> Vec<(usize, f32)> {
    let low = (at.floor() as usize).min(input - 1);
    let fraction = (at - low as f64) as f32;
    if low + 1 == input || fraction == 0.0 {
        vec![(low, 1.0)]
    } else {
        vec![(low, 1.0 - fraction), (low + 1, fraction)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn doubling_a_line_equals_pytorch() {
        let check = |how, expected: [f32; 4]| {
            let mut y = [0.0; 4];
            resize(1, [1, 1, 2], [1, 1, 4], how, &[0.0, 4.0], &mut y);
            assert_eq!(y, expected, "{how:?}");
        };
        check(Interpolation::Linear, [0.0, 1.0, 3.0, 4.0]);
        check(Interpolation::LinearAligned, [0.0, 4.0 / 3.0, 8.0 / 3.0, 4.0]);
    }

    #[test]
    fn the_same_grid_is_a_copy() {
        let x: Vec<f32> = (0..24).map(|value| value as f32).collect();
        let mut y = vec![0.0; 24];
        resize(1, [2, 3, 4], [2, 3, 4], Interpolation::Linear, &x, &mut y);
        assert_eq!(x, y);
    }

    /// The trilinear formula at one output voxel.
    fn reference(input: [usize; 3], output: [usize; 3], how: Interpolation, x: &[f32], at: [usize; 3]) -> f32 {
        let rows: [Vec<(usize, f32)>; 3] =
            std::array::from_fn(|axis| InterpolationMatrix::new(input[axis], output[axis], how).row(at[axis]).to_vec());
        let mut sum = 0.0;
        for &(z, a) in &rows[0] {
            for &(y, b) in &rows[1] {
                sum += rows[2].iter().map(|&(v, c)| a * b * c * x[(z * input[1] + y) * input[2] + v]).sum::<f32>();
            }
        }
        sum
    }

    fn any_method() -> impl Strategy<Value = Interpolation> {
        prop_oneof![Just(Interpolation::Linear), Just(Interpolation::LinearAligned)]
    }

    proptest! {
        #[test]
        fn values_equal_the_formula_and_the_gradient_is_the_adjoint(
            input in [1..7_usize, 1..7_usize, 1..7_usize], output in [1..9_usize, 1..9_usize, 1..9_usize], how in any_method(),
        ) {
            let [n, m] = [input, output].map(|extents| extents.iter().product::<usize>());
            let x: Vec<f32> = (0..2 * n).map(|index| (index * 37 % 11) as f32 - 5.0).collect();
            let dy: Vec<f32> = (0..2 * m).map(|index| (index * 53 % 13) as f32 - 6.0).collect();
            let (mut y, mut dx) = (vec![f32::NAN; 2 * m], vec![f32::NAN; 2 * n]);
            resize(2, input, output, how, &x, &mut y);
            resize_gradient(2, input, output, how, &dy, &mut dx);
            for (index, &got) in y[m..].iter().enumerate() {
                let at = [index / output[2] / output[1], index / output[2] % output[1], index % output[2]];
                prop_assert!((got - reference(input, output, how, &x[n..], at)).abs() < 1e-5);
            }
            let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
            let (left, right) = (dot(&y, &dy), dot(&x, &dx));
            prop_assert!((left - right).abs() < 1e-3 * (1.0 + left.abs()), "{left} {right}");
        }
    }
}
