//! The forward pass of convolutions with a stride: output channels lie in the lanes, so that every
//! input voxel is read where it lies in its line, however far from the next. Only tiles that reach
//! beyond the input read copies of its lines, with zeros around them.

use std::ops::Range;

use rayon::prelude::*;

use super::Conv3dShape;
use crate::matrix::Matrix;
use crate::panels::{Axis, Panels, Tile, tiles};
use crate::shared::{Disjoint, with_scratch};

/// Most floats of a panel of weights, which stays in the second-level cache.
const PANEL_FLOATS: usize = 64 * 1024;
/// Floats of the part of a panel that all tiles go through before the next part: it stays in the
/// first-level cache.
const PART_FLOATS: usize = 4 * 1024;
/// Most floats of the lines that some rows of the output read, which share the cache with the
/// weights.
const LINE_FLOATS: usize = 80 * 1024;
/// Tasks to make at least. A constant, so that the partition does not depend on the number of
/// threads.
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
        with_scratch(|copies, sums| {
            let runs = rows.runs(x, copies);
            for (panel, weights) in panels.iter().enumerate() {
                rows.sum(&runs, weights, sums);
                rows.write(sums, panel, bias, &y);
            }
        });
    });
}

/// Rows of the output that a task computes, so that they share the lines of the input that several
/// of them read.
fn rows_of_task(shape: &Conv3dShape) -> usize {
    let [depth, height, _] = shape.output();
    let floats = |count: &usize| {
        let rows = Rows { shape, item: 0, z: 0, first: 0, count: *count };
        rows.floats(rows.tiles())
    };
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

    /// Floats of a line that `tiles` read.
    fn line(&self, tiles: usize) -> usize {
        (tiles * self.tile() - 1) * self.shape.stride[2] + (self.shape.kernel[2] - 1) * self.shape.dilation[2] + 1
    }

    /// Floats of all lines that `tiles` read.
    fn floats(&self, tiles: usize) -> usize {
        self.shape.in_channels * self.shape.kernel[0] * self.lines_of_plane() * self.line(tiles)
    }

    /// Voxels computed together: as many as the registers hold, or fewer where that wastes less of
    /// a row.
    fn tile(&self) -> usize {
        let [_, _, width] = self.shape.output();
        let [large, small] = tiles();
        if width.next_multiple_of(small) < width.next_multiple_of(large) { small } else { large }
    }

    /// Tiles of a row.
    fn tiles(&self) -> usize {
        self.shape.output()[2].div_ceil(self.tile())
    }

    /// Place in the input, along an axis, of what tap 0 of an output voxel reads.
    fn origin(&self, axis: usize, voxel: usize) -> isize {
        (voxel * self.shape.stride[axis]) as isize - self.shape.padding[axis] as isize
    }

    /// Whether `length` places of the input from `origin` on lie inside.
    fn inside(&self, axis: usize, origin: isize, length: usize) -> bool {
        origin >= 0 && origin as usize + length <= self.shape.input[axis]
    }

    /// The tiles of a row in runs that read the same lines: those of the input, or copies where
    /// they end beyond it.
    fn runs<'a>(&self, x: &'a [f32], copies: &'a mut Vec<f32>) -> Vec<Run<'a>> {
        let planes = (self.shape.kernel[0] - 1) * self.shape.dilation[0] + 1;
        let inside = self.inside(0, self.origin(0, self.z), planes)
            && self.inside(1, self.origin(1, self.first), self.lines_of_plane());
        let in_place = |&tile: &usize| inside && self.inside(2, self.origin(2, tile * self.tile()), self.line(1));
        let first = (0..self.tiles()).find(in_place).unwrap_or(self.tiles());
        let last = (first..self.tiles()).take_while(in_place).last().map_or(first, |last| last + 1);
        let copied: Vec<_> = [0..first, last..self.tiles()].into_iter().filter(|tiles| !tiles.is_empty()).collect();
        copies.resize(copied.iter().map(|tiles| self.floats(tiles.len())).sum(), 0.0);
        let mut rest = copies.as_mut_slice();
        let mut runs = Vec::new();
        for tiles in copied {
            let (copy, behind) = rest.split_at_mut(self.floats(tiles.len()));
            rest = behind;
            self.copy_lines(x, tiles.start, self.line(tiles.len()), copy);
            runs.push(Run::of_copies(self, tiles, copy));
        }
        if first < last {
            runs.push(Run::in_place(self, first..last, x));
        }
        runs
    }

    /// Fills `lines` with `[in channel][tap along z][y][x]` from the first voxel of a tile on,
    /// zeros outside the input.
    fn copy_lines(&self, x: &[f32], tile: usize, length: usize, lines: &mut [f32]) {
        let Conv3dShape { input: [depth, height, width], kernel, dilation, .. } = *self.shape;
        let within = |place: isize, extent: usize| usize::try_from(place).ok().filter(|&place| place < extent);
        let [z, y, start] = [self.z, self.first, tile * self.tile()];
        let [z, y, start] = [self.origin(0, z), self.origin(1, y), self.origin(2, start)];
        let mut lines = lines.chunks_exact_mut(length);
        for channel in 0..self.shape.in_channels {
            for tap in 0..kernel[0] {
                let z = within(z + (tap * dilation[0]) as isize, depth);
                for line in 0..self.lines_of_plane() {
                    let y = within(y + line as isize, height);
                    let to = lines.next().expect("the copies have room for every line");
                    match z.zip(y) {
                        Some((z, y)) => {
                            copy_line(&x[((channel * depth + z) * height + y) * width..][..width], start, to)
                        }
                        None => to.fill(0.0),
                    }
                }
            }
        }
    }

    /// Fills `sums` with one panel of channels of all rows,
    /// `[row][tile][voxel in tile][channel in panel]`.
    fn sum(&self, runs: &[Run<'_>], weights: &[f32], sums: &mut Vec<f32>) {
        let Conv3dShape { in_channels, kernel, stride, dilation, .. } = *self.shape;
        let (tile, tiles) = (self.tile(), self.tiles());
        let tile_sums = tile * Panels::width();
        sums.clear();
        sums.resize(self.count * tiles * tile_sums, 0.0);
        let plane_weights = kernel[1] * kernel[2] * Panels::width();
        // A part is some channels, or some planes of one.
        let channels = (PART_FLOATS / (kernel[0] * plane_weights)).clamp(1, in_channels);
        let planes = if channels > 1 { kernel[0] } else { (PART_FLOATS / plane_weights).clamp(1, kernel[0]) };
        for first in (0..in_channels).step_by(channels) {
            let channels = channels.min(in_channels - first);
            for plane in (0..kernel[0]).step_by(planes) {
                let planes = planes.min(kernel[0] - plane);
                let panel =
                    &weights[(first * kernel[0] + plane) * plane_weights..][..channels * planes * plane_weights];
                for run in runs {
                    let terms = [
                        Axis { count: channels, step: run.channel },
                        Axis { count: planes, step: run.plane },
                        Axis { count: kernel[1], step: dilation[1] * run.line },
                        Axis { count: kernel[2], step: dilation[2] },
                    ];
                    let lines = &run.lines[first * run.channel + plane * run.plane..];
                    for (row, in_run) in
                        (0..self.count).flat_map(|row| (0..run.tiles.len()).map(move |tile| (row, tile)))
                    {
                        let source = &lines[row * stride[1] * run.line + in_run * tile * stride[2]..];
                        let sums = &mut sums[(row * tiles + run.tiles.start + in_run) * tile_sums..][..tile_sums];
                        Tile { source, rows: Axis { count: tile, step: stride[2] }, terms, panel, sums }.add();
                    }
                }
            }
        }
    }

    /// Writes these sums to their channels.
    fn write(&self, sums: &[f32], panel: usize, bias: Option<&[f32]>, y: &Disjoint<'_>) {
        let ([depth, height, width], channels) = (self.shape.output(), self.shape.out_channels);
        let panel_width = Panels::width();
        let row_sums = self.tiles() * self.tile() * panel_width;
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

/// Neighbouring tiles of a row, and the lines that they read.
struct Run<'a> {
    tiles: Range<usize>,
    /// From the first float on that the first tile of the first row reads.
    lines: &'a [f32],
    /// Floats from one input channel, tap along z, and line to the next.
    channel: usize,
    plane: usize,
    line: usize,
}

impl<'a> Run<'a> {
    fn of_copies(rows: &Rows<'_>, tiles: Range<usize>, lines: &'a [f32]) -> Self {
        let line = rows.line(tiles.len());
        let plane = rows.lines_of_plane() * line;
        Self { tiles, lines, channel: rows.shape.kernel[0] * plane, plane, line }
    }

    fn in_place(rows: &Rows<'_>, tiles: Range<usize>, x: &'a [f32]) -> Self {
        let [depth, height, width] = rows.shape.input;
        let places = [rows.z, rows.first, tiles.start * rows.tile()];
        let [z, y, start] = [0, 1, 2].map(|axis| rows.origin(axis, places[axis]) as usize);
        let lines = &x[(z * height + y) * width + start..];
        let plane = rows.shape.dilation[0] * height * width;
        Self { tiles, lines, channel: depth * height * width, plane, line: width }
    }
}

/// The floats of a line from a place on that may lie before it, zeros where there are none.
fn copy_line(line: &[f32], start: isize, to: &mut [f32]) {
    let (before, rest) = to.split_at_mut(to.len().min((-start).max(0) as usize));
    let line = &line[line.len().min(start.max(0) as usize)..];
    let (inner, behind) = rest.split_at_mut(line.len().min(rest.len()));
    before.fill(0.0);
    inner.copy_from_slice(&line[..inner.len()]);
    behind.fill(0.0);
}
