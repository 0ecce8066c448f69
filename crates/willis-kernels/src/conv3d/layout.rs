//! How a tile of a volume is laid out so that every tap of a convolution is a constant offset.
//!
//! Along each axis, `source index = stride * position + tap`. Writing
//! `tap = stride * shift + residue`, the packed tile keeps one block per residue in which
//! consecutive positions are neighbours whatever the stride. Rows of a plane follow each other
//! without gaps, so a kernel walks a whole plane as one line: positions past the row's end are
//! computed and thrown away.

use std::ops::Range;

/// Floats of one packed tile: it should stay in the second-level cache of one core.
const TILE_FLOATS: usize = 160 * 1024;
/// Positions of the widest register: lines are rounded up to it.
pub(super) const STEP: usize = 16;
/// Multiplications that cost as much as copying one float into the tile.
const MULTIPLICATIONS_PER_COPY: usize = 8;
/// Floats past the end of a packed tile that kernels may read.
pub(super) const SLACK: usize = 256;

/// The taps that feed the targets `start, start + target_step, ...`.
pub(super) struct Phase {
    pub start: usize,
    /// Index along the kernel, and the source offset it reads at.
    pub taps: Vec<(usize, isize)>,
}

/// One axis of a correlation: which source each target position reads through which tap.
pub(super) struct Axis {
    pub positions: usize,
    pub source: usize,
    pub source_stride: usize,
    pub target: usize,
    pub target_step: usize,
    pub phases: Vec<Phase>,
    first_shift: isize,
    span: usize,
    residues: Vec<usize>,
}

/// Extents of one axis of a convolution.
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
    fn reach(&self, k: usize) -> isize {
        (k * self.dilation) as isize - self.padding as isize
    }

    /// Targets are outputs, sources are inputs.
    pub(super) fn forward(&self) -> Axis {
        let taps = (0..self.kernel).map(|k| (k, self.reach(k))).collect();
        Axis::new(self.output, self.input, self.stride, self.output, 1, vec![Phase { start: 0, taps }])
    }

    /// Targets are inputs, sources are outputs: inputs with the same remainder modulo the stride
    /// share their taps.
    pub(super) fn adjoint(&self) -> Axis {
        let stride = self.stride as isize;
        let phases = (0..self.stride)
            .map(|start| {
                let distance = |k| start as isize - self.reach(k);
                let taps = (0..self.kernel)
                    .filter(|&k| distance(k) % stride == 0)
                    .map(|k| (k, distance(k) / stride))
                    .collect();
                Phase { start, taps }
            })
            .collect();
        Axis::new(self.input.div_ceil(self.stride), self.output, 1, self.input, self.stride, phases)
    }
}

impl Axis {
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

    /// Where every target reads three neighbouring sources: the zeros before the first source, at
    /// most two, and which element of the kernel reads each neighbour.
    pub(super) fn neighbours(&self) -> Option<(usize, [usize; 3])> {
        let [phase] = self.phases.as_slice() else { return None };
        let mut taps = phase.taps.clone();
        taps.sort_unstable_by_key(|&(_, offset)| offset);
        let [(a, first), (b, second), (c, third)] = taps[..] else { return None };
        let close = second == first + 1 && third == first + 2 && (-2..=0).contains(&first);
        (self.source_stride == 1 && self.target_step == 1 && close).then(|| (first.unsigned_abs(), [a, b, c]))
    }

    /// Block and entry in which a tap finds the source of position 0.
    fn slot(&self, tap: isize) -> (usize, usize) {
        let stride = self.source_stride as isize;
        let residue = tap.rem_euclid(stride) as usize;
        let block = self.residues.binary_search(&residue).expect("every tap's residue was collected in Axis::new");
        (block, (tap.div_euclid(stride) - self.first_shift) as usize)
    }

    /// Source index of an entry of the tile that starts at position `origin`; `None` in the
    /// padding.
    fn source_of(&self, residue: usize, origin: usize, entry: usize) -> Option<usize> {
        let shift = (origin + entry) as isize + self.first_shift;
        let index = shift * self.source_stride as isize + residue as isize;
        usize::try_from(index).ok().filter(|&index| index < self.source)
    }

    /// The entries of a tile at origin 0 that lie inside the source.
    fn inside(&self, residue: usize, entries: usize) -> Range<usize> {
        let stride = self.source_stride as isize;
        let first = -self.first_shift;
        let start = first.max(0);
        let end = (self.source as isize - residue as isize + stride - 1).div_euclid(stride) + first;
        let clip = |value: isize| value.clamp(0, entries as isize) as usize;
        clip(start)..clip(end).max(clip(start))
    }
}

/// A box of positions: `planes x rows` starting at (`plane`, `row`), whole rows along x.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tile {
    pub plane: usize,
    pub row: usize,
    pub planes: usize,
    pub rows: usize,
}

/// What a tile must hold and be good for.
pub(super) struct Demand {
    /// Source channels packed together.
    pub channels: usize,
    /// Floats per position that the caller keeps beside them.
    pub companions: usize,
    /// Multiplications per source channel and position.
    pub multiplications: usize,
    /// Tiles to make at least, so that threads have something to share. Never a function of their
    /// number: results must not depend on it.
    pub min_tiles: usize,
}

/// Extents of a packed tile, the same for every tile of a call.
pub(super) struct Layout {
    planes: usize,
    rows: usize,
    entries: [usize; 3],
    blocks: [usize; 3],
}

impl Layout {
    /// Picks the cheapest tile, per position, that fits the cache and leaves `demand.min_tiles`
    /// tiles.
    pub(super) fn choose(axes: &[Axis; 3], demand: &Demand) -> Self {
        let (depth, height) = (axes[0].positions, axes[1].positions);
        let most = (depth * height).div_ceil(demand.min_tiles.max(1)).max(1);
        let floats =
            |layout: &Self| layout.channel() * demand.channels + layout.planes * layout.max_line() * demand.companions;
        let fits = |layout: &Self| floats(layout) <= TILE_FLOATS && layout.planes * layout.rows <= most;
        let cost = |layout: &Self| {
            let computed = layout.planes * layout.max_line().next_multiple_of(STEP) * demand.multiplications;
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

    fn new(axes: &[Axis; 3], planes: usize, rows: usize) -> Self {
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

    /// Positions that a kernel walks in one plane of `tile`, row ends included.
    pub(super) fn line(&self, tile: Tile) -> usize {
        tile.rows * self.row_pitch()
    }

    /// Longest [`Layout::line`] of any tile.
    pub(super) fn max_line(&self) -> usize {
        self.rows * self.row_pitch()
    }

    /// All tiles, in order.
    pub(super) fn tiles(&self, axes: &[Axis; 3]) -> Vec<Tile> {
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

    /// Offsets of the taps of one phase combination, z slowest.
    pub(super) fn offsets(&self, axes: &[Axis; 3], phases: [&Phase; 3]) -> Vec<usize> {
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

    /// Copies `channels` volumes' part of `tile` into `packed`, zeros outside the source.
    pub(super) fn pack(&self, axes: &[Axis; 3], source: &[f32], channels: usize, tile: Tile, packed: &mut Vec<f32>) {
        packed.resize(channels * self.channel() + SLACK, 0.0);
        let [depth, height, width] = [axes[0].source, axes[1].source, axes[2].source];
        let runs: Vec<(usize, Range<usize>)> = match axes[2].residues.as_slice() {
            [] => vec![(0, 0..0)],
            residues => residues.iter().map(|&r| (r, axes[2].inside(r, self.entries[2]))).collect(),
        };
        let residue = |axis: usize, block: usize| axes[axis].residues.get(block).copied().unwrap_or(0);
        let body = packed.len() - SLACK;
        packed[body..].fill(0.0);
        let mut rows = packed[..body].chunks_exact_mut(self.entries[2]);
        for channel in 0..channels {
            let volume = &source[channel * depth * height * width..][..depth * height * width];
            for block_z in 0..self.blocks[0] {
                for block_y in 0..self.blocks[1] {
                    for (residue_x, inside) in &runs {
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

fn pack_row(axis: &Axis, residue: usize, inside: Range<usize>, line: Option<&[f32]>, row: &mut [f32]) {
    let (Some(line), false) = (line, inside.is_empty()) else {
        row.fill(0.0);
        return;
    };
    let start = axis.source_of(residue, 0, inside.start).expect("the range holds only entries inside the source");
    // Mostly there is nothing to fill, and a call for nothing costs as much as a short row.
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
        2 => every::<2>(line, inner),
        4 => every::<4>(line, inner),
        stride => inner.iter_mut().zip(line.iter().step_by(stride)).for_each(|(to, from)| *to = *from),
    }
}

/// Every `S`th float, with the distance known to the compiler.
fn every<const S: usize>(line: &[f32], row: &mut [f32]) {
    let (whole, rest) = line.as_chunks::<S>();
    let (inner, last) = row.split_at_mut(whole.len().min(row.len()));
    inner.iter_mut().zip(whole).for_each(|(to, from)| *to = from[0]);
    // The last one may have fewer than S floats behind it.
    last.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
}
