//! Maximum and average pooling of volumes, and their gradients.
//!
//! As in PyTorch's `avg_pool3d` with `count_include_pad=True`, an average divides by the whole
//! window: the border counts as zeros.

use rayon::prelude::*;
use std::ops::Range;

/// Extents of a pooling layer; triples are `[z, y, x]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolShape {
    /// Independent volumes: batch times channels.
    pub volumes: usize,
    /// Spatial extents of the input.
    pub input: [usize; 3],
    /// Extents of the window.
    pub kernel: [usize; 3],
    /// Input voxels from one window to the next, at least 1.
    pub stride: [usize; 3],
    /// Voxels added on either side, at most half the window.
    pub padding: [usize; 3],
}

impl PoolShape {
    /// Spatial extents of the output, 0 along an axis where the window does not fit.
    pub fn output(&self) -> [usize; 3] {
        std::array::from_fn(|axis| {
            let padded = self.input[axis] + 2 * self.padding[axis];
            padded.checked_sub(self.kernel[axis]).map_or(0, |rest| rest / self.stride[axis] + 1)
        })
    }

    /// Elements of the input tensor.
    pub fn input_len(&self) -> usize {
        self.volumes * self.input.iter().product::<usize>()
    }

    /// Elements of the output tensor.
    pub fn output_len(&self) -> usize {
        self.volumes * self.output().iter().product::<usize>()
    }

    fn check(&self, input: usize, output: usize) {
        let positive = self.input.iter().chain(&self.kernel).chain(&self.stride).all(|&extent| extent > 0);
        assert!(positive, "input, kernel and stride must be positive: {self:?}");
        assert!(
            (0..3).all(|axis| 2 * self.padding[axis] <= self.kernel[axis]),
            "the padding exceeds half the window: {self:?}"
        );
        assert!(
            self.input.iter().product::<usize>() < u32::MAX as usize,
            "indices within a volume must fit u32: {self:?}"
        );
        assert_eq!([input, output], [self.input_len(), self.output_len()], "lengths of input and output for {self:?}");
    }

    /// Indices along one axis of the input that the window of output `at` covers.
    fn window(&self, axis: usize, at: usize) -> Range<usize> {
        let start = at * self.stride[axis];
        let clip = |index: usize| index.saturating_sub(self.padding[axis]).min(self.input[axis]);
        clip(start)..clip(start + self.kernel[axis])
    }

    /// Output columns for which column `tap` of the window is inside the input.
    fn columns(&self, tap: usize, width: usize) -> Range<usize> {
        let first = self.padding[2].saturating_sub(tap).div_ceil(self.stride[2]);
        let end = (self.input[2] + self.padding[2]).saturating_sub(tap).div_ceil(self.stride[2]);
        first.min(width)..end.clamp(first.min(width), width)
    }

    /// Calls `visit(columns, start)` for every element of the window of one output row: for each of
    /// the output columns `columns`, the input is at `start`, `start + stride`, and so on.
    fn for_each_tap(&self, z: usize, y: usize, width: usize, mut visit: impl FnMut(Range<usize>, usize)) {
        for source_z in self.window(0, z) {
            for source_y in self.window(1, y) {
                let row = (source_z * self.input[1] + source_y) * self.input[2];
                for tap in 0..self.kernel[2] {
                    let columns = self.columns(tap, width);
                    if !columns.is_empty() {
                        visit(columns.clone(), row + columns.start * self.stride[2] + tap - self.padding[2]);
                    }
                }
            }
        }
    }

    /// Weight of a voxel in an average: one over the size of the window.
    fn weight(&self) -> f32 {
        1.0 / self.kernel.iter().product::<usize>() as f32
    }
}

/// Largest value of each window, or NaN if the window contains one; overwrites `y`.
///
/// # Shapes
/// x `[B, C, D, H, W]` -> y `[B, C, D', H', W']`
/// # Panics
/// If the length of a slice does not match `shape`, an extent is zero, or the padding exceeds half
/// the window.
pub fn max_forward(shape: &PoolShape, x: &[f32], y: &mut [f32]) {
    shape.check(x.len(), y.len());
    let [depth, height, width] = shape.output();
    if y.is_empty() {
        return;
    }
    let volume: usize = shape.input.iter().product();
    y.par_chunks_mut(height * width).enumerate().for_each_init(Vec::new, |column_max, (plane, y)| {
        let x = &x[plane / depth * volume..][..volume];
        for (row, y) in y.chunks_mut(width).enumerate() {
            // First the maximum over the rows of the windows, for all columns; then over the
            // columns of each window.
            column_max.clear();
            column_max.resize(shape.input[2], f32::NEG_INFINITY);
            for source_z in shape.window(0, plane % depth) {
                for source_y in shape.window(1, row) {
                    let from = &x[(source_z * shape.input[1] + source_y) * shape.input[2]..][..shape.input[2]];
                    column_max.iter_mut().zip(from).for_each(|(best, &value)| *best = larger(*best, value));
                }
            }
            y.fill(f32::NEG_INFINITY);
            for tap in 0..shape.kernel[2] {
                let columns = shape.columns(tap, width);
                if !columns.is_empty() {
                    let start = columns.start * shape.stride[2] + tap - shape.padding[2];
                    let from = column_max[start..].iter().step_by(shape.stride[2]);
                    y[columns].iter_mut().zip(from).for_each(|(best, &value)| *best = larger(*best, value));
                }
            }
        }
    });
}

/// The larger of two values, or NaN if one of them is NaN.
#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if b > a || b.is_nan() { b } else { a }
}

/// Gradient of the input of [`max_forward`], given its output; overwrites `dx`.
///
/// The gradient of an output goes to the first voxel of its window that holds the maximum.
///
/// # Shapes
/// x `[B, C, D, H, W]`, y and dy `[B, C, D', H', W']` -> dx `[B, C, D, H, W]`
/// # Panics
/// As [`max_forward`].
pub fn max_backward(shape: &PoolShape, x: &[f32], y: &[f32], dy: &[f32], dx: &mut [f32]) {
    shape.check(dx.len(), dy.len());
    assert_eq!([x.len(), y.len()], [dx.len(), dy.len()], "lengths of x and y");
    dx.fill(0.0);
    if dy.is_empty() {
        return;
    }
    let [input, output] = [shape.input, shape.output()].map(|extents| extents.iter().product::<usize>());
    let [_, height, width] = shape.output();
    let volumes =
        dx.par_chunks_mut(input).zip(x.par_chunks(input)).zip(y.par_chunks(output)).zip(dy.par_chunks(output));
    volumes.for_each(|(((dx, x), y), dy)| {
        let mut pending: Vec<Option<f32>> = Vec::new();
        for (row, (y, dy)) in y.chunks(width).zip(dy.chunks(width)).enumerate() {
            pending.clear();
            pending.extend(dy.iter().copied().map(Some));
            shape.for_each_tap(row / height, row % height, width, |columns, start| {
                let indices = (start..).step_by(shape.stride[2]);
                for ((pending, y), from) in pending[columns.clone()].iter_mut().zip(&y[columns]).zip(indices) {
                    if (x[from] == *y || x[from].is_nan())
                        && let Some(dy) = pending.take()
                    {
                        dx[from] += dy;
                    }
                }
            });
        }
    });
}

/// Average of each window; overwrites `y`.
///
/// # Shapes
/// x `[B, C, D, H, W]` -> y `[B, C, D', H', W']`
/// # Panics
/// As [`max_forward`].
pub fn average_forward(shape: &PoolShape, x: &[f32], y: &mut [f32]) {
    shape.check(x.len(), y.len());
    let [depth, height, width] = shape.output();
    if y.is_empty() {
        return;
    }
    let volume: usize = shape.input.iter().product();
    y.par_chunks_mut(height * width).enumerate().for_each(|(plane, y)| {
        let x = &x[plane / depth * volume..][..volume];
        for (row, y) in y.chunks_mut(width).enumerate() {
            y.fill(0.0);
            shape.for_each_tap(plane % depth, row, width, |columns, start| {
                let inputs = x[start..].iter().step_by(shape.stride[2]);
                y[columns].iter_mut().zip(inputs).for_each(|(sum, value)| *sum += value);
            });
            y.iter_mut().for_each(|sum| *sum *= shape.weight());
        }
    });
}

/// Gradient of the input of [`average_forward`]; overwrites `dx`.
///
/// # Shapes
/// dy `[B, C, D', H', W']` -> dx `[B, C, D, H, W]`
/// # Panics
/// As [`max_forward`].
pub fn average_backward(shape: &PoolShape, dy: &[f32], dx: &mut [f32]) {
    shape.check(dx.len(), dy.len());
    dx.fill(0.0);
    if dy.is_empty() {
        return;
    }
    let [depth, height, width] = shape.output();
    let volume: usize = shape.input.iter().product();
    dx.par_chunks_mut(volume).zip(dy.par_chunks(depth * height * width)).for_each(|(dx, dy)| {
        for (row, dy) in dy.chunks(width).enumerate() {
            let (z, y) = (row / height, row % height);
            let shares: Vec<f32> = dy.iter().map(|dy| shape.weight() * dy).collect();
            shape.for_each_tap(z, y, width, |columns, start| {
                let inputs = dx[start..].iter_mut().step_by(shape.stride[2]);
                inputs.zip(&shares[columns]).for_each(|(dx, share)| *dx += share);
            });
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn pooling_a_line_by_hand() {
        let line = |padding| PoolShape {
            volumes: 1,
            input: [1, 1, 4],
            kernel: [1, 1, 2],
            stride: [1, 1, 2],
            padding: [0, 0, padding],
        };
        let x = [1.0, 5.0, -2.0, -3.0];
        let (mut y, mut dx) = (vec![0.0; 2], vec![0.0; 4]);
        max_forward(&line(0), &x, &mut y);
        assert_eq!(y, [5.0, -2.0]);
        max_backward(&line(0), &x, &y, &[10.0, 20.0], &mut dx);
        assert_eq!(dx, [0.0, 10.0, 20.0, 0.0]);
        let mut y = vec![0.0; 3];
        average_forward(&line(1), &x, &mut y);
        assert_eq!(y, [0.5, 1.5, -1.5]);
    }

    #[test]
    fn nan_is_the_maximum_and_minus_infinity_has_a_gradient() {
        let shape = PoolShape { volumes: 1, input: [1, 1, 4], kernel: [1, 1, 2], stride: [1, 1, 2], padding: [0; 3] };
        let x = [f32::NAN, 1.0, f32::NEG_INFINITY, f32::NEG_INFINITY];
        let (mut y, mut dx) = (vec![0.0; 2], vec![9.0; 4]);
        max_forward(&shape, &x, &mut y);
        assert!(y[0].is_nan() && y[1] == f32::NEG_INFINITY);
        max_backward(&shape, &x, &y, &[1.0, 2.0], &mut dx);
        assert_eq!(dx, [1.0, 0.0, 2.0, 0.0]);
    }

    prop_compose! {
        fn any_shape()(
            input in [1..7_usize, 1..7_usize, 1..7_usize], kernel in [1..5_usize, 1..5_usize, 1..5_usize],
            stride in [1..4_usize, 1..4_usize, 1..4_usize], thirds in [0..3_usize, 0..3_usize, 0..3_usize],
        ) -> PoolShape {
            let padding = std::array::from_fn(|axis| thirds[axis].min(kernel[axis] / 2));
            PoolShape { volumes: 2, input, kernel, stride, padding }
        }
    }

    /// Values of the input in the window of one output, by the definition.
    fn window(shape: &PoolShape, x: &[f32], index: usize) -> Vec<f32> {
        let [depth, height, width] = shape.output();
        let at = [index / width / height % depth, index / width % height, index % width];
        let ranges: [Vec<usize>; 3] = std::array::from_fn(|axis| {
            let taps = 0..shape.kernel[axis];
            let inside = taps.filter_map(|tap| (at[axis] * shape.stride[axis] + tap).checked_sub(shape.padding[axis]));
            inside.filter(|&index| index < shape.input[axis]).collect()
        });
        let volume = index / (depth * height * width);
        let mut values = Vec::new();
        for z in &ranges[0] {
            for y in &ranges[1] {
                let row = ((volume * shape.input[0] + z) * shape.input[1] + y) * shape.input[2];
                values.extend(ranges[2].iter().map(|v| x[row + v]));
            }
        }
        values
    }

    proptest! {
        #[test]
        fn pooling_matches_the_definition(shape in any_shape()) {
            let x: Vec<f32> = (0..shape.input_len()).map(|index| (index * 71 % 101) as f32 - 50.0).collect();
            let dy: Vec<f32> = (0..shape.output_len()).map(|index| (index * 29 % 17) as f32 - 8.0).collect();
            let (mut y, mut dx) = (vec![0.0; dy.len()], vec![0.0; x.len()]);
            let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
            max_forward(&shape, &x, &mut y);
            for (index, &got) in y.iter().enumerate() {
                let expected = window(&shape, &x, index).into_iter().fold(f32::NEG_INFINITY, f32::max);
                prop_assert_eq!(got, expected);
            }
            if y.iter().all(|value| value.is_finite()) {
                max_backward(&shape, &x, &y, &dy, &mut dx);
                prop_assert!((dot(&y, &dy) - dot(&x, &dx)).abs() < 1e-2);
            }
            average_forward(&shape, &x, &mut y);
            for (index, &got) in y.iter().enumerate() {
                let count: usize = shape.kernel.iter().product();
                let expected = window(&shape, &x, index).iter().sum::<f32>() / count as f32;
                prop_assert!((got - expected).abs() < 1e-3, "{} {}", got, expected);
            }
            average_backward(&shape, &dy, &mut dx);
            prop_assert!((dot(&y, &dy) - dot(&x, &dx)).abs() < 1e-2);
        }
    }
}
