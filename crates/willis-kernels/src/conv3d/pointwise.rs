//! Convolution with a kernel of one voxel and stride 1, as matrix products over runs of voxels.

use rayon::prelude::*;
use std::ops::Range;

use super::Conv3dShape;
use crate::matrix::{MatrixView, MatrixViewMut, SharedMatrix, product, product_shared};
use crate::shared::DisjointSlice;

/// Runs of voxels per item of the batch. A constant, so that sums over voxels do not depend on the
/// number of threads.
const RUNS: usize = 16;

/// Whether a convolution has a kernel of one voxel, stride 1, no padding and no groups.
pub(super) fn applies(shape: &Conv3dShape) -> bool {
    (shape.kernel, shape.stride, shape.padding, shape.groups) == ([1; 3], [1; 3], [0; 3], 1)
}

/// The same convolution with the voxels of a volume arranged in long lines, which the general
/// algorithm processes without discarding positions. `None` if the kernel is larger than one voxel,
/// or if the volume cannot be divided into such lines.
pub(super) fn as_lines(shape: &Conv3dShape) -> Option<Conv3dShape> {
    let volume: usize = shape.input.iter().product();
    let divides = |line: &usize| volume.is_multiple_of(*line);
    let line = (16..=192).rev().step_by(16).find(divides).filter(|_| applies(shape))?;
    Some(Conv3dShape { input: [1, volume / line, line], ..*shape })
}

/// `y = w x + bias`.
pub(super) fn forward(shape: &Conv3dShape, x: &[f32], w: &[f32], bias: Option<&[f32]>, y: &mut [f32]) {
    mix(shape, MatrixView::of_rows(w, shape.in_channels), bias, x, y);
}

/// `dx = w^T dy`.
pub(super) fn input_gradient(shape: &Conv3dShape, w: &[f32], dy: &[f32], dx: &mut [f32]) {
    mix(shape, MatrixView::of_rows(w, shape.in_channels).transposed(), None, dy, dx);
}

/// `to = w from + bias` for every voxel; w `[targets, sources]`.
fn mix(shape: &Conv3dShape, w: MatrixView<'_>, bias: Option<&[f32]>, from: &[f32], to: &mut [f32]) {
    let [targets, sources] = w.size;
    let volume: usize = shape.input.iter().product();
    let run = volume.div_ceil(RUNS).next_multiple_of(16);
    let runs = volume.div_ceil(run);
    let to = DisjointSlice::new(to);
    (0..shape.batch * runs).into_par_iter().for_each(|task| {
        let (item, start) = (task / runs, task % runs * run);
        let length = run.min(volume - start);
        let from = MatrixView {
            values: &from[item * sources * volume + start..],
            size: [sources, length],
            strides: [volume, 1],
        };
        let first = item * targets * volume + start;
        for (channel, &bias) in bias.into_iter().flatten().enumerate() {
            // SAFETY: no two tasks have the same item and run of voxels, so their pieces never
            // overlap.
            unsafe { to.slice(first + channel * volume, length) }.fill(bias);
        }
        let to = SharedMatrix { values: &to, start: first, size: [targets, length], row_stride: volume };
        // SAFETY: as above, and the slices of the loop are no longer in use.
        unsafe { product_shared(w, from, 1.0, bias.is_some(), to) };
    });
}

/// A run of voxels of one item, `[channels, run]`.
fn voxels(values: &[f32], channels: usize, item: usize, run: Range<usize>, volume: usize) -> MatrixView<'_> {
    MatrixView {
        values: &values[item * channels * volume + run.start..],
        size: [channels, run.len()],
        strides: [volume, 1],
    }
}

/// `dw = dy x^T`, summed over batch and voxels.
pub(super) fn weight_gradient(shape: &Conv3dShape, x: &[f32], dy: &[f32], dw: &mut [f32]) {
    let volume: usize = shape.input.iter().product();
    let run = volume.div_ceil(RUNS).next_multiple_of(16);
    let runs = volume.div_ceil(run);
    let part = |task: usize| {
        let (item, start) = (task / runs, task % runs * run);
        let length = run.min(volume - start);
        let mut sum = vec![0.0; dw.len()];
        let dy = voxels(dy, shape.out_channels, item, start..start + length, volume);
        let x = voxels(x, shape.in_channels, item, start..start + length, volume);
        product(dy, x.transposed(), 1.0, false, MatrixViewMut::of_rows(&mut sum, shape.in_channels));
        sum
    };
    let parts: Vec<Vec<f32>> = (0..shape.batch * runs).into_par_iter().map(part).collect();
    dw.fill(0.0);
    parts.iter().for_each(|part| dw.iter_mut().zip(part).for_each(|(sum, value)| *sum += value));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conv3d;

    /// The shapes have several runs of voxels, and more and fewer channels than a register.
    #[test]
    fn values_and_gradients_equal_direct_sums() {
        for (batch, inputs, outputs, side) in [(3, 48, 1, 12), (2, 1, 7, 5), (2, 33, 17, 9)] {
            let shape = Conv3dShape {
                batch,
                in_channels: inputs,
                out_channels: outputs,
                input: [side; 3],
                kernel: [1; 3],
                stride: [1; 3],
                padding: [0; 3],
                dilation: [1; 3],
                groups: 1,
            };
            assert!(applies(&shape));
            let wave =
                |length: usize, speed: f64| (0..length).map(|i| (i as f64 * speed).sin() as f32).collect::<Vec<f32>>();
            let (x, w, b) = (wave(shape.input_len(), 0.7), wave(shape.weight_len(), 1.1), wave(outputs, 2.0));
            let dy = wave(shape.output_len(), 0.3);
            let volume = side.pow(3);
            let at = |values: &[f32], channels: usize, item: usize, channel: usize, voxel: usize| {
                f64::from(values[(item * channels + channel) * volume + voxel])
            };
            let close = |got: f32, expected: f64| assert!((f64::from(got) - expected).abs() < 1e-3, "{got} {expected}");
            let (mut y, mut dx, mut dw) = (vec![9.0; dy.len()], vec![9.0; x.len()], vec![9.0; w.len()]);
            conv3d::forward(&shape, &x, &w, Some(&b), &mut y);
            conv3d::input_gradient(&shape, &w, &dy, &mut dx);
            conv3d::weight_gradient(&shape, &x, &dy, &mut dw);
            for (item, voxel) in (0..batch).flat_map(|item| (0..volume).map(move |voxel| (item, voxel))) {
                for o in 0..outputs {
                    let sum: f64 =
                        (0..inputs).map(|i| f64::from(w[o * inputs + i]) * at(&x, inputs, item, i, voxel)).sum();
                    close(y[(item * outputs + o) * volume + voxel], sum + f64::from(b[o]));
                }
                for i in 0..inputs {
                    let sum: f64 =
                        (0..outputs).map(|o| f64::from(w[o * inputs + i]) * at(&dy, outputs, item, o, voxel)).sum();
                    close(dx[(item * inputs + i) * volume + voxel], sum);
                }
            }
            for (o, i) in (0..outputs).flat_map(|o| (0..inputs).map(move |i| (o, i))) {
                let items = (0..batch).flat_map(|item| (0..volume).map(move |voxel| (item, voxel)));
                let sum: f64 =
                    items.map(|(item, voxel)| at(&dy, outputs, item, o, voxel) * at(&x, inputs, item, i, voxel)).sum();
                close(dw[o * inputs + i], sum);
            }
        }
    }
}
