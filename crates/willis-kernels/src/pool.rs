//! Maximum and average pooling of volumes, and their gradients.

use rayon::prelude::*;
use std::ops::Range;

/// Extents of a pooling; triples are `[z, y, x]`.
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
    /// Border on either side, at most half the window.
    pub padding: [usize; 3],
}

/// What an average divides by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Divisor {
    /// The whole window: the border counts as zeros (PyTorch's `count_include_pad=True`, its default).
    Window,
    /// The voxels inside the input.
    Inside,
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
            "padding above half the window: {self:?}"
        );
        assert!(self.input.iter().product::<usize>() < u32::MAX as usize, "a volume's indices must fit u32: {self:?}");
        assert_eq!([input, output], [self.input_len(), self.output_len()], "lengths of input and output for {self:?}");
    }

    /// Input indices of a window that lie inside the input.
    fn window(&self, axis: usize, at: usize) -> Range<usize> {
        let start = at * self.stride[axis];
        let clip = |index: usize| index.saturating_sub(self.padding[axis]).min(self.input[axis]);
        clip(start)..clip(start + self.kernel[axis])
    }

    /// Output columns whose window's column `tap` lies inside the input.
    fn columns(&self, tap: usize, width: usize) -> Range<usize> {
        let first = self.padding[2].saturating_sub(tap).div_ceil(self.stride[2]);
        let end = (self.input[2] + self.padding[2]).saturating_sub(tap).div_ceil(self.stride[2]);
        first.min(width)..end.clamp(first.min(width), width)
    }

    /// Calls `visit(output columns, input index of the first)` for every row and column of the windows of one
    /// output row; consecutive columns are `stride` apart.
    fn taps(&self, z: usize, y: usize, width: usize, mut visit: impl FnMut(Range<usize>, usize)) {
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

    /// 1 / divisor of each column of an output row.
    fn weights(&self, divisor: Divisor, z: usize, y: usize, width: usize) -> Vec<f32> {
        let count = |x| match divisor {
            Divisor::Window => self.kernel.iter().product::<usize>(),
            Divisor::Inside => self.window(0, z).len() * self.window(1, y).len() * self.window(2, x).len(),
        };
        (0..width).map(|x| 1.0 / count(x).max(1) as f32).collect()
    }
}

/// Largest value of each window and where it was: `argmax` is an index into the window's own volume, the first of
/// equals; a NaN wins. Overwrites `y` and `argmax`.
///
/// # Shapes
/// x `[B, C, D, H, W]` -> y and argmax `[B, C, D', H', W']`
/// # Panics
/// If a slice's length differs from `shape`, an extent is zero or the padding exceeds half the window.
pub fn max_forward(shape: &PoolShape, x: &[f32], y: &mut [f32], argmax: &mut [u32]) {
    shape.check(x.len(), y.len());
    assert_eq!(argmax.len(), y.len(), "one index per output");
    let [depth, height, width] = shape.output();
    if y.is_empty() {
        return;
    }
    let volume: usize = shape.input.iter().product();
    let planes = y.par_chunks_mut(height * width).zip(argmax.par_chunks_mut(height * width));
    planes.enumerate().for_each(|(plane, (y, argmax))| {
        let x = &x[plane / depth * volume..][..volume];
        for (row, (y, argmax)) in y.chunks_mut(width).zip(argmax.chunks_mut(width)).enumerate() {
            y.fill(f32::NEG_INFINITY);
            let first = [0, 1].map(|axis: usize| shape.window(axis, [plane % depth, row][axis]).start);
            for (column, index) in argmax.iter_mut().enumerate() {
                *index =
                    ((first[0] * shape.input[1] + first[1]) * shape.input[2] + shape.window(2, column).start) as u32;
            }
            shape.taps(plane % depth, row, width, |columns, start| {
                let outputs = y[columns.clone()].iter_mut().zip(&mut argmax[columns]);
                let indices = (start..).step_by(shape.stride[2]);
                for ((best, index), from) in outputs.zip(indices) {
                    let value = x[from];
                    if value > *best || (value.is_nan() && !best.is_nan()) {
                        (*best, *index) = (value, from as u32);
                    }
                }
            });
        }
    });
}

/// Gradient of the input of [`max_forward`]: each output's gradient goes to its largest voxel; overwrites `dx`.
///
/// # Shapes
/// argmax and dy `[B, C, D', H', W']` -> dx `[B, C, D, H, W]`
/// # Panics
/// As [`max_forward`], or if an index of `argmax` lies outside a volume.
pub fn max_backward(shape: &PoolShape, argmax: &[u32], dy: &[f32], dx: &mut [f32]) {
    shape.check(dx.len(), dy.len());
    assert_eq!(argmax.len(), dy.len(), "one index per output");
    dx.fill(0.0);
    if dy.is_empty() {
        return;
    }
    let [input, output] = [shape.input, shape.output()].map(|extents| extents.iter().product::<usize>());
    let volumes = dx.par_chunks_mut(input).zip(dy.par_chunks(output)).zip(argmax.par_chunks(output));
    volumes.for_each(|((dx, dy), argmax)| dy.iter().zip(argmax).for_each(|(dy, &index)| dx[index as usize] += dy));
}

/// Average of each window; overwrites `y`.
///
/// # Shapes
/// x `[B, C, D, H, W]` -> y `[B, C, D', H', W']`
/// # Panics
/// As [`max_forward`].
pub fn average_forward(shape: &PoolShape, divisor: Divisor, x: &[f32], y: &mut [f32]) {
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
            shape.taps(plane % depth, row, width, |columns, start| {
                let inputs = x[start..].iter().step_by(shape.stride[2]);
                y[columns].iter_mut().zip(inputs).for_each(|(sum, value)| *sum += value);
            });
            let weights = shape.weights(divisor, plane % depth, row, width);
            y.iter_mut().zip(weights).for_each(|(sum, weight)| *sum *= weight);
        }
    });
}

/// Gradient of the input of [`average_forward`]; overwrites `dx`.
///
/// # Shapes
/// dy `[B, C, D', H', W']` -> dx `[B, C, D, H, W]`
/// # Panics
/// As [`max_forward`].
pub fn average_backward(shape: &PoolShape, divisor: Divisor, dy: &[f32], dx: &mut [f32]) {
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
            let mut shares = shape.weights(divisor, z, y, width);
            shares.iter_mut().zip(dy).for_each(|(share, dy)| *share *= dy);
            shape.taps(z, y, width, |columns, start| {
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
    fn pools_a_line_by_hand() {
        let line = |padding| PoolShape {
            volumes: 1,
            input: [1, 1, 4],
            kernel: [1, 1, 2],
            stride: [1, 1, 2],
            padding: [0, 0, padding],
        };
        let x = [1.0, 5.0, -2.0, -3.0];
        let (mut y, mut argmax, mut dx) = (vec![0.0; 2], vec![0; 2], vec![0.0; 4]);
        max_forward(&line(0), &x, &mut y, &mut argmax);
        assert_eq!((y.as_slice(), argmax.as_slice()), (&[5.0, -2.0][..], &[1, 2][..]));
        max_backward(&line(0), &argmax, &[10.0, 20.0], &mut dx);
        assert_eq!(dx, [0.0, 10.0, 20.0, 0.0]);
        let mut y = vec![0.0; 3];
        average_forward(&line(1), Divisor::Window, &x, &mut y);
        assert_eq!(y, [0.5, 1.5, -1.5]);
        average_forward(&line(1), Divisor::Inside, &x, &mut y);
        assert_eq!(y, [1.0, 1.5, -3.0]);
    }

    #[test]
    fn nan_wins_and_all_negative_infinity_stays_inside() {
        let shape = PoolShape { volumes: 1, input: [1, 1, 4], kernel: [1, 1, 2], stride: [1, 1, 2], padding: [0; 3] };
        let (mut y, mut argmax) = (vec![0.0; 2], vec![9; 2]);
        max_forward(&shape, &[f32::NAN, 1.0, f32::NEG_INFINITY, f32::NEG_INFINITY], &mut y, &mut argmax);
        assert!(y[0].is_nan() && y[1] == f32::NEG_INFINITY);
        assert_eq!(argmax, [0, 2]);
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

    /// Values of the window of one output, straight from the definition.
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
            let (mut y, mut argmax, mut dx) = (vec![0.0; dy.len()], vec![0; dy.len()], vec![0.0; x.len()]);
            let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
            max_forward(&shape, &x, &mut y, &mut argmax);
            for (index, &got) in y.iter().enumerate() {
                let expected = window(&shape, &x, index).into_iter().fold(f32::NEG_INFINITY, f32::max);
                prop_assert_eq!(got, expected);
            }
            if y.iter().all(|value| value.is_finite()) {
                max_backward(&shape, &argmax, &dy, &mut dx);
                prop_assert!((dot(&y, &dy) - dot(&x, &dx)).abs() < 1e-2);
            }
            for divisor in [Divisor::Window, Divisor::Inside] {
                average_forward(&shape, divisor, &x, &mut y);
                for (index, &got) in y.iter().enumerate() {
                    let values = window(&shape, &x, index);
                    let count = if divisor == Divisor::Inside { values.len() } else { shape.kernel.iter().product() };
                    let expected = values.iter().sum::<f32>() / count.max(1) as f32;
                    prop_assert!((got - expected).abs() < 1e-3, "{} {}", got, expected);
                }
                average_backward(&shape, divisor, &dy, &mut dx);
                prop_assert!((dot(&y, &dy) - dot(&x, &dx)).abs() < 1e-2);
            }
        }
    }
}
