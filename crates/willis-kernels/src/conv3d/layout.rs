//! Layout of a packed tile of a volume, in which every tap of a convolution reads at a constant
//! offset.
//!
//! Along each axis, `source index = stride * position + tap offset`, and the tap offset is
//! `stride * shift + residue`. The packed tile has one block per residue, in which consecutive
//! positions are adjacent for any stride. The rows of a plane follow each other without gaps, so a
//! kernel processes a whole plane as one line. The results at positions past the end of a row are
//! discarded.

use std::ops::Range;

/// Most floats of a packed tile, which should stay in the second-level cache of one core.
const TILE_FLOATS: usize = 160 * 1024;
/// Floats of the widest vector register. Lines are rounded up to a multiple of it.
pub(super) const STEP: usize = 16;
/// Multiplications that take as long as copying one float into the tile.
const MULTIPLICATIONS_PER_COPY: usize = 8;
/// Floats after the end of a packed tile that kernels may read.
pub(super) const SLACK: usize = 256;

/// Target positions `start, start + target_step, ...`, which share their taps.
pub(super) struct Phase {
    pub start: usize,
    /// Index of each tap along the kernel, and its offset in the source.
    pub taps: Vec<(usize, isize)>,
}

/// One axis of a correlation: the sources that each target position reads.
pub(super) struct CorrelationAxis {
    /// Positions of a phase.
    pub positions: usize,
    /// Extent of the source.
    pub source: usize,
    /// Sources from one position to the next.
    pub source_stride: usize,
    /// Extent of the target.
    pub target: usize,
    /// Targets from one position of a phase to the next.
    pub target_step: usize,
    pub phases: Vec<Phase>,
    /// Smallest shift of any tap.
    first_shift: isize,
    /// Largest shift minus smallest shift.
    span: usize,
    /// Residues of all taps, ascending.
    residues: Vec<usize>,
}

/// Sizes along one axis of a convolution.
#[derive(Clone, Copy)]
pub(super) struct AxisShape {
    pub input: usize,
    pub output: usize,
    pub kernel: usize,
    pub stride: usize,
    pub padding: usize,
    pub dilation: usize,
}

impl AxisShape {
    /// Offset of tap `k` from `stride * output index`.
    fn offset(&self, k: usize) -> isize {
        (k * self.dilation) as isize - self.padding as isize
    }

    /// The forward pass: targets are outputs, sources are inputs.
    pub(super) fn forward(&self) -> CorrelationAxis {
        let taps = (0..self.kernel).map(|k| (k, self.offset(k))).collect();
        CorrelationAxis::new(self.output, self.input, self.stride, self.output, 1, vec![Phase { start: 0, taps }])
    }

    /// The gradient of the input: targets are inputs, sources are outputs. Inputs with the same
    /// remainder modulo the stride form a phase.
    pub(super) fn adjoint(&self) -> CorrelationAxis {
        let stride = self.stride as isize;
        let phases = (0..self.stride)
            .map(|start| {
                let distance = |k| start as isize - self.offset(k);
                let taps = (0..self.kernel)
                    .filter(|&k| distance(k) % stride == 0)
                    .map(|k| (k, distance(k) / stride))
                    .collect();
                Phase { start, taps }
            })
            .collect();
        CorrelationAxis::new(self.input.div_ceil(self.stride), self.output, 1, self.input, self.stride, phases)
    }
}

impl CorrelationAxis {
    fn new(
        positions: usize,
        source: usize,
        source_stride: usize,
        target: usize,
        target_step: usize,
        phases: Vec<Phase>,
    ) -> Self {
        let stride = source_stride as isize;
        let taps = || phases.iter().flat_map(|phase| phase.taps.iter().map(|&(_, offset)| offset));
        let first_shift = taps().map(|offset| offset.div_euclid(stride)).min().unwrap_or(0);
        let last_shift = taps().map(|offset| offset.div_euclid(stride)).max().unwrap_or(0);
        let mut residues: Vec<usize> = taps().map(|offset| offset.rem_euclid(stride) as usize).collect();
        residues.sort_unstable();
        residues.dedup();
        let span = (last_shift - first_shift) as usize;
        Self { positions, source, source_stride, target, target_step, phases, first_shift, span, residues }
    }

    /// If every target reads three adjacent sources: the number of zeros before the first source
    /// (at most two), and for each of the three sources the tap that reads it.
    pub(super) fn three_taps(&self) -> Option<(usize, [usize; 3])> {
        let [phase] = self.phases.as_slice() else { return None };
        let mut taps = phase.taps.clone();
        taps.sort_unstable_by_key(|&(_, offset)| offset);
        let [(a, first), (b, second), (c, third)] = taps[..] else { return None };
        let adjacent = second == first + 1 && third == first + 2 && (-2..=0).contains(&first);
        (self.source_stride == 1 && self.target_step == 1 && adjacent).then(|| (first.unsigned_abs(), [a, b, c]))
    }

    /// Block and entry of the source that a tap offset reads at position 0.
    fn slot(&self, tap: isize) -> (usize, usize) {
        let stride = self.source_stride as isize;
        let residue = tap.rem_euclid(stride) as usize;
        let block =
            self.residues.binary_search(&residue).expect("every tap's residue was collected in CorrelationAxis::new");
        (block, (tap.div_euclid(stride) - self.first_shift) as usize)
    }

    /// Source index of an entry in a tile that starts at position `origin`; `None` in the padding.
    fn source_of(&self, residue: usize, origin: usize, entry: usize) -> Option<usize> {
        let shift = (origin + entry) as isize + self.first_shift;
        let index = shift * self.source_stride as isize + residue as isize;
        usize::try_from(index).ok().filter(|&index| index < self.source)
    }

    /// Entries inside the source, for a tile at origin 0.
    fn entries_inside(&self, residue: usize, entries: usize) -> Range<usize> {
        let stride = self.source_stride as isize;
        let first = -self.first_shift;
        let start = first.max(0);
        let end = (self.source as isize - residue as isize + stride - 1).div_euclid(stride) + first;
        let clip = |value: isize| value.clamp(0, entries as isize) as usize;
        clip(start)..clip(end).max(clip(start))
    }
}

/// A box of positions: `planes` by `rows` whole rows, starting at (`plane`, `row`).
#[derive(Clone, Copy, Debug)]
pub(super) struct Tile {
    pub plane: usize,
    pub row: usize,
    pub planes: usize,
    pub rows: usize,
}

/// What the size of a tile is chosen for.
pub(super) struct TileRequirements {
    /// Source channels packed together.
    pub channels: usize,
    /// Floats per position that the caller stores in addition.
    pub extra_floats: usize,
    /// Multiplications per source channel and position.
    pub multiplications: usize,
    /// Fewest tiles, so that threads can share the work. It must not depend on the number of
    /// threads, because results depend on it.
    pub min_tiles: usize,
}

/// Layout of the packed tiles of one call, `[channel][block z, y, x][entry z, y, x]`.
pub(super) struct TileLayout {
    /// Planes of positions; tiles at the end may have fewer.
    planes: usize,
    /// Rows of positions; tiles at the end may have fewer.
    rows: usize,
    /// Entries of a block along each axis.
    entries: [usize; 3],
    /// Blocks, one per residue, along each axis.
    blocks: [usize; 3],
}

impl TileLayout {
    /// Chooses the tile with the lowest cost per position among those that fit in the cache and
    /// give at least `requirements.min_tiles` tiles.
    pub(super) fn choose(axes: &[CorrelationAxis; 3], requirements: &TileRequirements) -> Self {
        let (depth, height) = (axes[0].positions, axes[1].positions);
        let max_rows = (depth * height).div_ceil(requirements.min_tiles.max(1)).max(1);
        let floats = |layout: &Self| {
            layout.channel() * requirements.channels + layout.planes * layout.max_line() * requirements.extra_floats
        };
        let fits = |layout: &Self| floats(layout) <= TILE_FLOATS && layout.planes * layout.rows <= max_rows;
        let cost = |layout: &Self| {
            let computed = layout.planes * layout.max_line().next_multiple_of(STEP) * requirements.multiplications;
            let copied = layout.channel() * MULTIPLICATIONS_PER_COPY;
            (computed + copied) as f64 / (layout.planes * layout.rows) as f64
        };
        let mut best = Self::new(axes, 1, 1);
        for planes in (1..=depth).map(|parts| depth.div_ceil(parts)) {
            let candidates = (1..=height).map(|parts| Self::new(axes, planes, height.div_ceil(parts)));
            if let Some(layout) = candidates.into_iter().find(fits)
                && cost(&layout) < cost(&best)
            {
                best = layout;
            }
        }
        best
    }

    fn new(axes: &[CorrelationAxis; 3], planes: usize, rows: usize) -> Self {
        let tile = [planes, rows, axes[2].positions];
        let entries = std::array::from_fn(|axis| tile[axis] + axes[axis].span);
        let blocks = std::array::from_fn(|axis| axes[axis].residues.len().max(1));
        Self { planes, rows, entries, blocks }
    }

    /// Floats of one packed channel.
    pub(super) fn channel(&self) -> usize {
        self.blocks.iter().product::<usize>() * self.entries.iter().product::<usize>()
    }

    /// Floats from one packed row to the next.
    pub(super) fn row_pitch(&self) -> usize {
        self.entries[2]
    }

    /// Floats from one packed plane to the next.
    pub(super) fn plane_pitch(&self) -> usize {
        self.entries[1] * self.entries[2]
    }

    /// Positions that a kernel processes in one plane of `tile`, including those past row ends.
    pub(super) fn line(&self, tile: Tile) -> usize {
        tile.rows * self.row_pitch()
    }

    /// Longest [`TileLayout::line`] of any tile.
    pub(super) fn max_line(&self) -> usize {
        self.rows * self.row_pitch()
    }

    /// All tiles, in order.
    pub(super) fn tiles(&self, axes: &[CorrelationAxis; 3]) -> Vec<Tile> {
        let (depth, height) = (axes[0].positions, axes[1].positions);
        let starts = |length, step| (0..length).step_by(step);
        starts(depth, self.planes)
            .flat_map(|plane| starts(height, self.rows).map(move |row| (plane, row)))
            .map(|(plane, row)| Tile {
                plane,
                row,
                planes: self.planes.min(depth - plane),
                rows: self.rows.min(height - row),
            })
            .collect()
    }

    /// Offsets of the taps of one combination of phases in a packed channel, z slowest.
    pub(super) fn offsets(&self, axes: &[CorrelationAxis; 3], phases: [&Phase; 3]) -> Vec<usize> {
        let slots = |axis: usize| phases[axis].taps.iter().map(move |&(_, tap)| axes[axis].slot(tap));
        let mut offsets = Vec::new();
        for (block_z, entry_z) in slots(0) {
            for (block_y, entry_y) in slots(1) {
                for (block_x, entry_x) in slots(2) {
                    let block = (block_z * self.blocks[1] + block_y) * self.blocks[2] + block_x;
                    let entry = (block * self.entries[0] + entry_z) * self.entries[1] + entry_y;
                    offsets.push(entry * self.entries[2] + entry_x);
                }
            }
        }
        offsets
    }

    /// Packs `tile` of `channels` volumes, with zeros outside the source.
    pub(super) fn pack(
        &self,
        axes: &[CorrelationAxis; 3],
        source: &[f32],
        channels: usize,
        tile: Tile,
        packed: &mut Vec<f32>,
    ) {
        packed.resize(channels * self.channel() + SLACK, 0.0);
        let [depth, height, width] = [axes[0].source, axes[1].source, axes[2].source];
        let residues_x: Vec<(usize, Range<usize>)> = match axes[2].residues.as_slice() {
            [] => vec![(0, 0..0)],
            residues => residues.iter().map(|&r| (r, axes[2].entries_inside(r, self.entries[2]))).collect(),
        };
        let residue = |axis: usize, block: usize| axes[axis].residues.get(block).copied().unwrap_or(0);
        let body = packed.len() - SLACK;
        packed[body..].fill(0.0);
        let mut rows = packed[..body].chunks_exact_mut(self.entries[2]);
        for channel in 0..channels {
            let volume = &source[channel * depth * height * width..][..depth * height * width];
            for block_z in 0..self.blocks[0] {
                for block_y in 0..self.blocks[1] {
                    for (residue_x, inside) in &residues_x {
                        for entry_z in 0..self.entries[0] {
                            let z = axes[0].source_of(residue(0, block_z), tile.plane, entry_z);
                            for entry_y in 0..self.entries[1] {
                                let y = axes[1].source_of(residue(1, block_y), tile.row, entry_y);
                                let line = z.zip(y).map(|(z, y)| &volume[(z * height + y) * width..][..width]);
                                let row = rows.next().expect("the buffer holds every row of every block");
                                pack_row(&axes[2], *residue_x, inside.clone(), line, row);
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Packs one row of one residue along x; `line` is `None` outside the source.
fn pack_row(axis: &CorrelationAxis, residue: usize, inside: Range<usize>, line: Option<&[f32]>, row: &mut [f32]) {
    let (Some(line), false) = (line, inside.is_empty()) else {
        row.fill(0.0);
        return;
    };
    let start = axis.source_of(residue, 0, inside.start).expect("the range has only entries inside the source");
    // Usually both ends are empty, and filling an empty slice would cost as much as a short row.
    if inside.start > 0 {
        row[..inside.start].fill(0.0);
    }
    if inside.end < row.len() {
        row[inside.end..].fill(0.0);
    }
    let inner = &mut row[inside];
    let line = &line[start..];
    match axis.source_stride {
        1 => inner.copy_from_slice(&line[..inner.len()]),
        2 => copy_every::<2>(line, inner),
        4 => copy_every::<4>(line, inner),
        stride => inner.iter_mut().zip(line.iter().step_by(stride)).for_each(|(to, from)| *to = *from),
    }
}

/// Copies every `S`th float, with a stride known at compile time.
fn copy_every<const S: usize>(line: &[f32], row: &mut [f32]) {
    let (whole, rest) = line.as_chunks::<S>();
    let (inner, last) = row.split_at_mut(whole.len().min(row.len()));
    inner.iter_mut().zip(whole).for_each(|(to, from)| *to = from[0]);
    // Fewer than S floats may follow the last one.
    last.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
}
