//! The forward pass of convolutions with a stride: output channels lie in the lanes, so that every input voxel is
//! read where it lies in its line, however far from the next; lines are copied as they are, with zeros at their ends.

use rayon::prelude::*;

use super::Conv3dShape;
use crate::matrix::Matrix;
use crate::panels::{Axis, Panels, Tile, tiles};
use crate::shared::{Disjoint, with_scratch};

/// Most floats of a panel of weights, which stays in the second-level cache.
const PANEL_FLOATS: usize = 64 * 1024;
/// Floats of the part of a panel that all tiles go through before the next part: it stays in the first-level cache.
const PART_FLOATS: usize = 4 * 1024;
/// Most floats of the lines that some rows of the output read, which share the cache with the weights.
const LINE_FLOATS: usize = 80 * 1024;
/// Tasks to make at least. A constant, so that the partition does not depend on the number of threads.
const MIN_TASKS: usize = 8;

/// Whether this pass takes a convolution: one with enough channels to fill the lanes.
pub(super) fn applies(shape: &Conv3dShape) -> bool {
    let width = Panels::width();
    let panel = shape.in_channels * shape.kernel.iter().product::<usize>() * width;
    let [_, _, stride] = shape.stride;
    stride > 1 && shape.groups == 1 && shape.out_channels >= width && panel <= PANEL_FLOATS
}

/// [`super::forward`] where it [`applies`].
pub(super) fn forward(shape: &Conv3dShape, x: &[f32], w: &[f32], bias: Option<&[f32]>, y: &mut [f32]) {
    let [depth, height, _] = shape.output();
    let panels = Panels::of(Matrix::of_rows(w, shape.weight_len() / shape.out_channels).transposed());
    let rows = rows_of_task(shape);
    let volume: usize = shape.input.iter().product();
    let (y, groups) = (Disjoint::new(y), height.div_ceil(rows));
    (0..shape.batch * depth * groups).into_par_iter().for_each(|task| {
        let (item, z, first) = (task / groups / depth, task / groups % depth, task % groups * rows);
        let rows = Rows { shape, item, z, first, count: rows.min(height - first) };
        let x = &x[item * shape.in_channels * volume..][..shape.in_channels * volume];
        with_scratch(|lines, sums| {
            rows.copy_lines(x, lines);
            for (panel, weights) in panels.iter().enumerate() {
                rows.sum(lines, weights, sums);
                rows.write(sums, panel, bias, &y);
            }
        });
    });
}

/// Rows of the output that a task computes, so that they share the lines of the input that several of them read.
fn rows_of_task(shape: &Conv3dShape) -> usize {
    let [depth, height, _] = shape.output();
    let floats = |count: &usize| Rows { shape, item: 0, z: 0, first: 0, count: *count }.floats();
    let most = (shape.batch * depth * height).div_ceil(MIN_TASKS).min(height);
    (1..=most).rev().find(|count| floats(count) <= LINE_FLOATS).unwrap_or(1)
}

/// Some rows of the output at one z.
struct Rows<'a> {
    shape: &'a Conv3dShape,
    item: usize,
    z: usize,
    first: usize,
    count: usize,
}

impl Rows<'_> {
    /// Lines of one plane of the input that the rows read, those beyond its ends included.
    fn lines_of_plane(&self) -> usize {
        (self.count - 1) * self.shape.stride[1] + (self.shape.kernel[1] - 1) * self.shape.dilation[1] + 1
    }

    /// Floats of a line: what whole tiles read.
    fn line(&self) -> usize {
        let [_, _, width] = self.shape.output();
        let voxels = width.next_multiple_of(tile(width));
        (voxels - 1) * self.shape.stride[2] + (self.shape.kernel[2] - 1) * self.shape.dilation[2] + 1
    }

    /// Floats of all lines.
    fn floats(&self) -> usize {
        self.shape.in_channels * self.shape.kernel[0] * self.lines_of_plane() * self.line()
    }

    /// Fills `lines` with `[in channel][tap along z][y][x]`, zeros outside the input.
    fn copy_lines(&self, x: &[f32], lines: &mut Vec<f32>) {
        let Conv3dShape { input: [depth, height, width], kernel, stride, padding, dilation, .. } = *self.shape;
        lines.resize(self.floats(), 0.0);
        let inside = |at: usize, axis: usize, length: usize| at.checked_sub(padding[axis]).filter(|&at| at < length);
        let mut lines = lines.chunks_exact_mut(self.line());
        for channel in 0..self.shape.in_channels {
            for tap in 0..kernel[0] {
                let z = inside(self.z * stride[0] + tap * dilation[0], 0, depth);
                for y in 0..self.lines_of_plane() {
                    let y = inside(self.first * stride[1] + y, 1, height);
                    let to = lines.next().expect("the buffer holds every line");
                    match z.zip(y) {
                        Some((z, y)) => {
                            pad(&x[((channel * depth + z) * height + y) * width..][..width], padding[2], to)
                        }
                        None => to.fill(0.0),
                    }
                }
            }
        }
    }

    /// Fills `sums` with one panel of channels of all rows, `[row][tile][voxel in tile][channel in panel]`.
    fn sum(&self, lines: &[f32], weights: &[f32], sums: &mut Vec<f32>) {
        let Conv3dShape { in_channels, kernel, stride, dilation, .. } = *self.shape;
        let [_, _, width] = self.shape.output();
        let (tile, step) = (tile(width), self.lines_of_plane() * self.line());
        let tile_sums = tile * Panels::width();
        sums.clear();
        sums.resize(self.count * width.div_ceil(tile) * tile_sums, 0.0);
        let plane_weights = kernel[1] * kernel[2] * Panels::width();
        let planes = (PART_FLOATS / plane_weights).clamp(1, in_channels * kernel[0]);
        for (part, weights) in weights.chunks(planes * plane_weights).enumerate() {
            let lines = &lines[part * planes * step..];
            let terms = [
                Axis { count: weights.len() / plane_weights, step },
                Axis { count: kernel[1], step: dilation[1] * self.line() },
                Axis { count: kernel[2], step: dilation[2] },
            ];
            for (index, sums) in sums.chunks_exact_mut(tile_sums).enumerate() {
                let (row, start) = (index / width.div_ceil(tile), index % width.div_ceil(tile) * tile);
                let source = &lines[row * stride[1] * self.line() + start * stride[2]..];
                Tile { source, rows: Axis { count: tile, step: stride[2] }, terms, panel: weights, sums }.add();
            }
        }
    }

    /// Writes these sums to their channels.
    fn write(&self, sums: &[f32], panel: usize, bias: Option<&[f32]>, y: &Disjoint<'_>) {
        let ([depth, height, width], channels) = (self.shape.output(), self.shape.out_channels);
        let panel_width = Panels::width();
        let row_sums = width.next_multiple_of(tile(width)) * panel_width;
        for channel in panel * panel_width..channels.min((panel + 1) * panel_width) {
            let bias = bias.map_or(0.0, |bias| bias[channel]);
            for (row, sums) in sums.chunks_exact(row_sums).enumerate() {
                let line = ((self.item * channels + channel) * depth + self.z) * height + self.first + row;
                // SAFETY: each task writes rows of its own.
                let to = unsafe { y.slice(line * width, width) };
                let from = sums[channel % panel_width..].iter().step_by(panel_width);
                to.iter_mut().zip(from).for_each(|(to, sum)| *to = sum + bias);
            }
        }
    }
}

/// Voxels computed together: as many as the registers hold, or fewer where that wastes less of a row.
fn tile(width: usize) -> usize {
    let [large, small] = tiles();
    if width.next_multiple_of(small) < width.next_multiple_of(large) { small } else { large }
}

/// A line with `padding` zeros before it, and zeros behind it where there is room.
fn pad(line: &[f32], padding: usize, to: &mut [f32]) {
    let (before, rest) = to.split_at_mut(padding.min(to.len()));
    let (inner, behind) = rest.split_at_mut(line.len().min(rest.len()));
    before.fill(0.0);
    inner.copy_from_slice(&line[..inner.len()]);
    behind.fill(0.0);
}
