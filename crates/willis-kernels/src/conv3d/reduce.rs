//! The gradient of the weights: `dw[o, c, tap] = sum over positions of dy[o] * source[c, tap]`.
//!
//! The sums are dot products of long lines, read through tap offsets.

use super::layout::{CorrelationAxis, Tile, TileLayout, TileRequirements};
use super::winograd::WinogradReduction;
use crate::shared::with_scratch;
use crate::simd::{Lanes, SimdKernel, Supported, dispatch};
use rayon::prelude::*;

/// Fewest source channels times taps of a task: with fewer, packing the gradient of the output
/// would not pay off.
const TASK_WEIGHTS: usize = 192;
/// Fewest tasks. A constant, so that partial sums do not depend on the number of threads.
const MIN_TASKS: usize = 16;
/// Floats of the widest vector register. Packed lines of the gradient of the output are padded with
/// zeros to a multiple of it.
pub(super) const REGISTER: usize = 16;

/// The gradient of the weights of `batch * groups` independent correlations.
pub(super) struct Reduction {
    pub batch: usize,
    pub groups: usize,
    pub sources: usize,
    pub targets: usize,
    pub axes: [CorrelationAxis; 3],
}

impl Reduction {
    /// Overwrites `dw`.
    pub(super) fn run(&self, source: &[f32], dy: &[f32], dw: &mut [f32]) {
        if let Some(winograd) = WinogradReduction::new(self) {
            return winograd.run(source, dy, dw);
        }
        let taps: usize = self.axes.iter().map(|axis| axis.phases[0].taps.len()).product();
        let per_task = TASK_WEIGHTS.div_ceil(taps).min(self.sources);
        let source_blocks = self.sources.div_ceil(per_task);
        let layout = TileLayout::choose(
            &self.axes,
            &TileRequirements {
                channels: per_task,
                extra_floats: self.targets,
                multiplications: self.targets * taps,
                min_tiles: MIN_TASKS.div_ceil(self.batch * self.groups * source_blocks),
            },
        );
        let tiles = layout.tiles(&self.axes);
        let pieces: Vec<(usize, Tile)> =
            (0..self.batch).flat_map(|item| tiles.iter().map(move |&tile| (item, tile))).collect();
        let chunks = MIN_TASKS.div_ceil(self.groups * source_blocks).min(pieces.len()).max(1);
        let offsets = layout.offsets(&self.axes, [0, 1, 2].map(|axis: usize| &self.axes[axis].phases[0]));
        let partials: Vec<Vec<f32>> = (0..self.groups * source_blocks * chunks)
            .into_par_iter()
            .map(|task| {
                let (block, chunk) = (task / chunks, task % chunks);
                let (group, first) = (block / source_blocks, block % source_blocks * per_task);
                let channels = first..self.sources.min(first + per_task);
                let pieces = &pieces[pieces.len() * chunk / chunks..pieces.len() * (chunk + 1) / chunks];
                self.partial(&layout, &offsets, source, dy, group, channels, pieces)
            })
            .collect();
        let row = self.sources * taps;
        dw.par_chunks_mut(row).enumerate().for_each(|(target, row)| {
            let (group, target) = (target / self.targets, target % self.targets);
            for (block, weights) in row.chunks_mut(per_task * taps).enumerate() {
                weights.fill(0.0);
                for partial in &partials[(group * source_blocks + block) * chunks..][..chunks] {
                    let values = &partial[target * weights.len()..];
                    weights.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
                }
            }
        });
    }

    /// Gradient of the weights of some source channels, `[target][source channel][tap]`, summed
    /// over `pieces`, which are tiles of items of the batch.
    #[expect(clippy::too_many_arguments, reason = "the body of the loop in `run`, with its variables")]
    fn partial(
        &self,
        layout: &TileLayout,
        offsets: &[usize],
        source: &[f32],
        dy: &[f32],
        group: usize,
        channels: std::ops::Range<usize>,
        pieces: &[(usize, Tile)],
    ) -> Vec<f32> {
        let volume: usize = self.axes.iter().map(|axis| axis.source).product();
        let offsets: Vec<usize> = (0..channels.len())
            .flat_map(|channel| offsets.iter().map(move |&tap| channel * layout.channel() + tap))
            .collect();
        let mut sums = vec![0.0; self.targets * offsets.len()];
        for &(item, tile) in pieces {
            with_scratch(|packed, lines| {
                let problem = item * self.groups + group;
                let first = problem * self.sources + channels.start;
                layout.pack(
                    &self.axes,
                    &source[first * volume..][..channels.len() * volume],
                    channels.len(),
                    tile,
                    packed,
                );
                let pitch = layout.line(tile).next_multiple_of(REGISTER);
                self.pack_lines(layout, dy, problem, tile, pitch, lines);
                let plane_pitch = layout.plane_pitch();
                let (planes, targets, sums) = (tile.planes, self.targets, &mut sums);
                dispatch(DotProducts { packed, plane_pitch, offsets: &offsets, lines, pitch, planes, targets, sums });
            });
        }
        sums
    }

    /// Packs the gradient of the output as `lines[target][plane][position]`, with zeros at the row
    /// ends, where the packed source has voxels of the border.
    fn pack_lines(
        &self,
        layout: &TileLayout,
        dy: &[f32],
        problem: usize,
        tile: Tile,
        pitch: usize,
        lines: &mut Vec<f32>,
    ) {
        let [depth, height, width] = [0, 1, 2].map(|axis: usize| self.axes[axis].target);
        lines.clear();
        lines.resize(self.targets * tile.planes * pitch, 0.0);
        for (index, line) in lines.chunks_exact_mut(pitch).enumerate() {
            let (target, plane) = (index / tile.planes, index % tile.planes);
            let start = ((problem * self.targets + target) * depth + tile.plane + plane) * height + tile.row;
            let rows = dy[start * width..][..tile.rows * width].chunks_exact(width);
            line.chunks_mut(layout.row_pitch()).zip(rows).for_each(|(line, row)| line[..width].copy_from_slice(row));
        }
    }
}

/// Sum of the lanes of a register, as a tree; lanes that a narrower register lacks are zero.
#[inline(always)]
fn sum(lanes: &[f32; REGISTER]) -> f32 {
    let eight: [f32; 8] = std::array::from_fn(|lane| lanes[lane] + lanes[lane + 8]);
    let four: [f32; 4] = std::array::from_fn(|lane| eight[lane] + eight[lane + 4]);
    (four[0] + four[2]) + (four[1] + four[3])
}

/// Adds the dot products of each line with `packed` at each offset to `sums[target][offset]`.
pub(super) struct DotProducts<'a> {
    pub packed: &'a [f32],
    /// Floats from one plane of `packed` to the next.
    pub plane_pitch: usize,
    /// Offsets of the taps of all channels in `packed`.
    pub offsets: &'a [usize],
    /// `[target][plane][position]`
    pub lines: &'a [f32],
    /// Floats from one line to the next, a multiple of a register.
    pub pitch: usize,
    pub planes: usize,
    pub targets: usize,
    pub sums: &'a mut [f32],
}

impl SimdKernel for DotProducts<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Lanes>(mut self, supported: Supported<V>) {
        match self.targets {
            1 => self.sweep::<V, 1, 9>(supported),
            _ if V::MANY_REGISTERS => self.sweep::<V, 4, 6>(supported),
            _ => self.sweep::<V, 4, 3>(supported),
        }
    }
}

impl DotProducts<'_> {
    /// Computes `T` targets by `K` offsets at a time. Groups that reach past the end repeat the
    /// last target or offset and discard the result.
    #[inline(always)]
    fn sweep<V: Lanes, const T: usize, const K: usize>(&mut self, _: Supported<V>) {
        let last = self.offsets.iter().max().copied().unwrap_or(0);
        let reach = (self.planes - 1) * self.plane_pitch + last + self.pitch;
        assert!(
            reach <= self.packed.len() && V::N <= REGISTER && self.pitch.is_multiple_of(V::N),
            "the packed tile has slack for whole registers"
        );
        assert!(self.lines.len() == self.targets * self.planes * self.pitch, "one line per target and plane");
        for first_offset in (0..self.offsets.len()).step_by(K) {
            let offset = |index: usize| (first_offset + index).min(self.offsets.len() - 1);
            for first_target in (0..self.targets).step_by(T) {
                let target = |index: usize| (first_target + index).min(self.targets - 1);
                // SAFETY: the assertions above bound every read of `packed` and `lines`; every
                // store fills at most one array of `REGISTER` floats; the token proves that the
                // instructions exist.
                let sums = unsafe {
                    let mut sums = [[V::splat(0.0); K]; T];
                    for plane in 0..self.planes {
                        let line = |index| self.lines.as_ptr().add((target(index) * self.planes + plane) * self.pitch);
                        let source =
                            |index| self.packed.as_ptr().add(plane * self.plane_pitch + self.offsets[offset(index)]);
                        let lines: [*const f32; T] = std::array::from_fn(line);
                        let sources: [*const f32; K] = std::array::from_fn(source);
                        for position in (0..self.pitch).step_by(V::N) {
                            let gradients = lines.map(|line| V::load(line.add(position)));
                            for (k, source) in sources.iter().enumerate() {
                                let value = V::load(source.add(position));
                                for (sums, gradient) in sums.iter_mut().zip(gradients) {
                                    sums[k] = value.mul_add(gradient, sums[k]);
                                }
                            }
                        }
                    }
                    let mut lanes = [[[0.0_f32; REGISTER]; K]; T];
                    for (lanes, sums) in lanes.iter_mut().zip(sums) {
                        for (lanes, sum) in lanes.iter_mut().zip(sums) {
                            sum.store(lanes.as_mut_ptr());
                        }
                    }
                    lanes
                };
                for (index, sums) in sums.iter().enumerate().take(self.targets - first_target) {
                    let row = &mut self.sums[(first_target + index) * self.offsets.len()..][..self.offsets.len()];
                    row[first_offset..].iter_mut().zip(sums).for_each(|(total, lanes)| *total += sum(lanes));
                }
            }
        }
    }
}
