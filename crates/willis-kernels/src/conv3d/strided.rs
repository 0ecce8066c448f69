//! The forward pass of convolutions with a stride, with output channels in the lanes.
//!
//! Input voxels are read in place, one float at a time, so their distance in memory does not
//! matter. Only tiles that reach beyond the input read copies of its lines, padded with zeros.

use std::ops::Range;

use rayon::prelude::*;

use super::Conv3dShape;
use crate::matrix::MatrixView;
use crate::panels::{PanelTile, Panels, StridedAxis, rows_of_tile};
use crate::shared::{DisjointSlice, with_scratch};

/// Most floats of a panel of weights, so that it stays in the second-level cache.
const PANEL_FLOATS: usize = 64 * 1024;
/// Floats of a part of a panel, which stays in the first-level cache while all tiles use it.
const PART_FLOATS: usize = 4 * 1024;
/// Most floats of the lines that the rows of a task read; they share the second-level cache with
/// the weights.
const LINE_FLOATS: usize = 80 * 1024;
/// Fewest tasks. A constant, so that the partition does not depend on the number of threads.
const MIN_TASKS: usize = 8;

/// Whether this algorithm is used: for a stride along x and enough output channels to fill the
/// lanes.
pub(super) fn applies(shape: &Conv3dShape) -> bool {
    let width = Panels::width();
    let panel = shape.in_channels * shape.kernel.iter().product::<usize>() * width;
    let [_, _, stride] = shape.stride;
    stride > 1 && shape.groups == 1 && shape.out_channels >= width && panel <= PANEL_FLOATS
}

/// [`super::forward`] where it [`applies`].
pub(super) fn forward(shape: &Conv3dShape, x: &[f32], w: &[f32], bias: Option<&[f32]>, y: &mut [f32]) {
    let [depth, height, _] = shape.output();
    let panels = Panels::pack(MatrixView::of_rows(w, shape.weight_len() / shape.out_channels).transposed());
    let rows = rows_of_task(shape);
    let volume: usize = shape.input.iter().product();
    let (y, groups) = (DisjointSlice::new(y), height.div_ceil(rows));
    (0..shape.batch * depth * groups).into_par_iter().for_each(|task| {
        let (item, z, first) = (task / groups / depth, task / groups % depth, task % groups * rows);
        let rows = OutputRows { shape, item, z, first, count: rows.min(height - first) };
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

/// Number of output rows of a task. Several rows share the lines of the input that they read.
fn rows_of_task(shape: &Conv3dShape) -> usize {
    let [depth, height, _] = shape.output();
    let floats = |count: &usize| {
        let rows = OutputRows { shape, item: 0, z: 0, first: 0, count: *count };
        rows.floats(rows.tiles())
    };
    let max_rows = (shape.batch * depth * height).div_ceil(MIN_TASKS).min(height);
    (1..=max_rows).rev().find(|count| floats(count) <= LINE_FLOATS).unwrap_or(1)
}

/// Consecutive output rows of one plane.
struct OutputRows<'a> {
    shape: &'a Conv3dShape,
    item: usize,
    z: usize,
    first: usize,
    count: usize,
}

impl OutputRows<'_> {
    /// Lines of one plane of the input that the rows read, including lines in the padding.
    fn lines_of_plane(&self) -> usize {
        (self.count - 1) * self.shape.stride[1] + (self.shape.kernel[1] - 1) * self.shape.dilation[1] + 1
    }

    /// Floats of a line that consecutive `tiles` read.
    fn line(&self, tiles: usize) -> usize {
        (tiles * self.tile() - 1) * self.shape.stride[2] + (self.shape.kernel[2] - 1) * self.shape.dilation[2] + 1
    }

    /// Floats of all lines that `tiles` read.
    fn floats(&self, tiles: usize) -> usize {
        self.shape.in_channels * self.shape.kernel[0] * self.lines_of_plane() * self.line(tiles)
    }

    /// Voxels of a tile: as many as the registers hold, or fewer if that wastes fewer positions at
    /// the end of a row.
    fn tile(&self) -> usize {
        let [_, _, width] = self.shape.output();
        let [large, small] = rows_of_tile();
        if width.next_multiple_of(small) < width.next_multiple_of(large) { small } else { large }
    }

    /// Tiles of a row.
    fn tiles(&self) -> usize {
        self.shape.output()[2].div_ceil(self.tile())
    }

    /// Index in the input, along an axis, that tap 0 of an output voxel reads; it may be in the
    /// padding.
    fn origin(&self, axis: usize, voxel: usize) -> isize {
        (voxel * self.shape.stride[axis]) as isize - self.shape.padding[axis] as isize
    }

    /// Whether `length` consecutive indices from `origin` on are inside the input.
    fn is_inside(&self, axis: usize, origin: isize, length: usize) -> bool {
        origin >= 0 && origin as usize + length <= self.shape.input[axis]
    }

    /// Divides the tiles of a row into runs that read the lines of the input in place, or copies of
    /// them if they reach beyond the input.
    fn runs<'a>(&self, x: &'a [f32], copies: &'a mut Vec<f32>) -> Vec<TileRun<'a>> {
        let planes = (self.shape.kernel[0] - 1) * self.shape.dilation[0] + 1;
        let inside = self.is_inside(0, self.origin(0, self.z), planes)
            && self.is_inside(1, self.origin(1, self.first), self.lines_of_plane());
        let in_place = |&tile: &usize| inside && self.is_inside(2, self.origin(2, tile * self.tile()), self.line(1));
        let first = (0..self.tiles()).find(in_place).unwrap_or(self.tiles());
        let last = (first..self.tiles()).take_while(in_place).last().map_or(first, |last| last + 1);
        let copied: Vec<_> = [0..first, last..self.tiles()].into_iter().filter(|tiles| !tiles.is_empty()).collect();
        copies.resize(copied.iter().map(|tiles| self.floats(tiles.len())).sum(), 0.0);
        let mut rest = copies.as_mut_slice();
        let mut runs = Vec::new();
        for tiles in copied {
            let (copy, next) = rest.split_at_mut(self.floats(tiles.len()));
            rest = next;
            self.copy_lines(x, tiles.start, self.line(tiles.len()), copy);
            runs.push(TileRun::of_copies(self, tiles, copy));
        }
        if first < last {
            runs.push(TileRun::in_place(self, first..last, x));
        }
        runs
    }

    /// Copies the lines that a run of tiles reads to `lines[in channel][tap along z][y][x]`,
    /// starting at the first voxel of `tile`, with zeros outside the input.
    fn copy_lines(&self, x: &[f32], tile: usize, length: usize, lines: &mut [f32]) {
        let Conv3dShape { input: [depth, height, width], kernel, dilation, .. } = *self.shape;
        let index = |index: isize, extent: usize| usize::try_from(index).ok().filter(|&index| index < extent);
        let [z, y, start] = [self.z, self.first, tile * self.tile()];
        let [z, y, start] = [self.origin(0, z), self.origin(1, y), self.origin(2, start)];
        let mut lines = lines.chunks_exact_mut(length);
        for channel in 0..self.shape.in_channels {
            for tap in 0..kernel[0] {
                let z = index(z + (tap * dilation[0]) as isize, depth);
                for line in 0..self.lines_of_plane() {
                    let y = index(y + line as isize, height);
                    let to = lines.next().expect("the buffer has room for every line");
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

    /// Computes one panel of channels for all rows,
    /// `sums[row][tile][voxel in tile][channel in panel]`.
    fn sum(&self, runs: &[TileRun<'_>], weights: &[f32], sums: &mut Vec<f32>) {
        let Conv3dShape { in_channels, kernel, stride, dilation, .. } = *self.shape;
        let (tile, tiles) = (self.tile(), self.tiles());
        let tile_sums = tile * Panels::width();
        sums.clear();
        sums.resize(self.count * tiles * tile_sums, 0.0);
        let plane_weights = kernel[1] * kernel[2] * Panels::width();
        // A part of a panel has several channels, or several planes of one channel.
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
                        StridedAxis { count: channels, step: run.channel },
                        StridedAxis { count: planes, step: run.plane },
                        StridedAxis { count: kernel[1], step: dilation[1] * run.line },
                        StridedAxis { count: kernel[2], step: dilation[2] },
                    ];
                    let lines = &run.lines[first * run.channel + plane * run.plane..];
                    for (row, in_run) in
                        (0..self.count).flat_map(|row| (0..run.tiles.len()).map(move |tile| (row, tile)))
                    {
                        let source = &lines[row * stride[1] * run.line + in_run * tile * stride[2]..];
                        let sums = &mut sums[(row * tiles + run.tiles.start + in_run) * tile_sums..][..tile_sums];
                        PanelTile { source, rows: StridedAxis { count: tile, step: stride[2] }, terms, panel, sums }
                            .add();
                    }
                }
            }
        }
    }

    /// Adds the bias and writes the sums of one panel to the output.
    fn write(&self, sums: &[f32], panel: usize, bias: Option<&[f32]>, y: &DisjointSlice<'_>) {
        let ([depth, height, width], channels) = (self.shape.output(), self.shape.out_channels);
        let panel_width = Panels::width();
        let row_sums = self.tiles() * self.tile() * panel_width;
        for channel in panel * panel_width..channels.min((panel + 1) * panel_width) {
            let bias = bias.map_or(0.0, |bias| bias[channel]);
            for (row, sums) in sums.chunks_exact(row_sums).enumerate() {
                let line = ((self.item * channels + channel) * depth + self.z) * height + self.first + row;
                // SAFETY: every output row belongs to one task, which has no other slice of the
                // output at this time.
                let to = unsafe { y.slice(line * width, width) };
                let from = sums[channel % panel_width..].iter().step_by(panel_width);
                to.iter_mut().zip(from).for_each(|(to, sum)| *to = sum + bias);
            }
        }
    }
}

/// Consecutive tiles of a row, and the lines that they read.
struct TileRun<'a> {
    tiles: Range<usize>,
    /// Lines, starting at the first float that the first tile of the first row reads.
    lines: &'a [f32],
    /// Floats from one input channel to the next.
    channel: usize,
    /// Floats from one tap along z to the next.
    plane: usize,
    /// Floats from one line to the next.
    line: usize,
}

impl<'a> TileRun<'a> {
    fn of_copies(rows: &OutputRows<'_>, tiles: Range<usize>, lines: &'a [f32]) -> Self {
        let line = rows.line(tiles.len());
        let plane = rows.lines_of_plane() * line;
        Self { tiles, lines, channel: rows.shape.kernel[0] * plane, plane, line }
    }

    fn in_place(rows: &OutputRows<'_>, tiles: Range<usize>, x: &'a [f32]) -> Self {
        let [depth, height, width] = rows.shape.input;
        let voxels = [rows.z, rows.first, tiles.start * rows.tile()];
        let [z, y, start] = [0, 1, 2].map(|axis| rows.origin(axis, voxels[axis]) as usize);
        let lines = &x[(z * height + y) * width + start..];
        let plane = rows.shape.dilation[0] * height * width;
        Self { tiles, lines, channel: depth * height * width, plane, line: width }
    }
}

/// Copies the floats of a line from index `start` on, which may be negative; zeros outside the
/// line.
fn copy_line(line: &[f32], start: isize, to: &mut [f32]) {
    let (before, rest) = to.split_at_mut(to.len().min((-start).max(0) as usize));
    let line = &line[line.len().min(start.max(0) as usize)..];
    let (inner, after) = rest.split_at_mut(line.len().min(rest.len()));
    before.fill(0.0);
    inner.copy_from_slice(&line[..inner.len()]);
    after.fill(0.0);
}
