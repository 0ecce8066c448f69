//! The forward pass and the gradient of the input:
//! `target[o] = sum over channels and taps of weight * source`.
//!
//! This is a matrix product whose left side is read through tap offsets instead of being stored.

use super::layout::{CorrelationAxis, Phase, SLACK, Tile, TileLayout, TileRequirements};
use super::winograd::WinogradCorrelation;
use crate::shared::{DisjointSlice, with_scratch};
use crate::simd::{Lanes, SimdKernel, Supported, dispatch, many_registers};
use rayon::prelude::*;

/// A correlation: `batch * groups` independent problems, each from `sources` to `targets` channels.
pub(super) struct Correlation<'a> {
    pub batch: usize,
    pub groups: usize,
    pub sources: usize,
    pub targets: usize,
    pub axes: [CorrelationAxis; 3],
    pub kernel: [usize; 3],
    pub weights: &'a [f32],
    /// Kernels in `weights` from one target channel of a group to the next.
    pub target_stride: usize,
    /// Kernels in `weights` from one source channel of a group to the next.
    pub source_stride: usize,
    pub bias: Option<&'a [f32]>,
}

/// Fewest tasks. A constant, so that the partition does not depend on the number of threads.
const MIN_TASKS: usize = 8;

/// One combination of the phases of the three axes, with its weights in the order in which the
/// kernel reads them.
struct Pass {
    /// First target along each axis.
    start: [usize; 3],
    /// Offsets of the taps in a packed channel.
    offsets: Vec<usize>,
    /// For each group and block of targets: `[source][tap][target in block]`.
    panels: Vec<Vec<f32>>,
}

/// Target channels computed together: a power of two of them (`width`), of which the first `used`
/// exist.
#[derive(Clone, Copy)]
pub(super) struct TargetBlock {
    pub first: usize,
    pub used: usize,
    pub width: usize,
}

impl Correlation<'_> {
    /// Writes every element of `target`.
    pub(super) fn run(&self, source: &[f32], target: &mut [f32]) {
        if let Some(winograd) = WinogradCorrelation::new(self) {
            return winograd.run(source, target);
        }
        let blocks = target_blocks(self.targets);
        let problems = self.batch * self.groups;
        let layout = TileLayout::choose(
            &self.axes,
            &TileRequirements {
                channels: self.sources,
                extra_floats: 0,
                multiplications: self.targets * self.kernel.iter().product::<usize>(),
                min_tiles: MIN_TASKS.div_ceil(problems * blocks.len()),
            },
        );
        let tiles = layout.tiles(&self.axes);
        // All blocks of a tile share its packed source in one task. If there are few tiles, several
        // tasks pack the same tile and divide its blocks.
        let shares = MIN_TASKS.div_ceil(problems * tiles.len()).min(blocks.len());
        let share = blocks.len().div_ceil(shares);
        let shares = blocks.len().div_ceil(share);
        let passes = self.passes(&layout, &blocks);
        let source_volume = self.volume(|axis| axis.source);
        let target = DisjointSlice::new(target);
        (0..problems * tiles.len() * shares).into_par_iter().for_each(|task| {
            let (problem, tile) = (task / shares / tiles.len(), tiles[task / shares % tiles.len()]);
            let first = task % shares * share;
            let chosen = first..blocks.len().min(first + share);
            let sources = &source[problem * self.sources * source_volume..][..self.sources * source_volume];
            with_scratch(|packed, lines| {
                layout.pack(&self.axes, sources, self.sources, tile, packed);
                lines.resize((layout.max_line() + SLACK) * 8, 0.0);
                for pass in &passes {
                    for index in chosen.clone() {
                        let panel = &pass.panels[problem % self.groups * blocks.len() + index];
                        self.compute(&layout, pass, panel, tile, (problem, blocks[index]), packed, lines, &target);
                    }
                }
            });
        });
    }

    /// Computes one block of targets in all planes of a tile.
    #[expect(clippy::too_many_arguments, reason = "the body of the loop in `run`, with its variables")]
    fn compute(
        &self,
        layout: &TileLayout,
        pass: &Pass,
        weights: &[f32],
        tile: Tile,
        (problem, block): (usize, TargetBlock),
        packed: &[f32],
        lines: &mut [f32],
        target: &DisjointSlice,
    ) {
        let pitch = layout.max_line() + SLACK;
        for plane in 0..tile.planes {
            dispatch(LineCorrelation {
                packed: &packed[plane * layout.plane_pitch()..],
                channels: self.sources,
                channel: layout.channel(),
                offsets: &pass.offsets,
                weights,
                width: block.width,
                length: layout.line(tile),
                lines,
                pitch,
            });
            for index in 0..block.used {
                let channel = block.first + index;
                let bias = self.bias.map_or(0.0, |bias| bias[problem % self.groups * self.targets + channel]);
                let volume = problem * self.targets + channel;
                self.write(layout, pass, tile, plane, &lines[index * pitch..], bias, volume, target);
            }
        }
    }

    fn volume(&self, length: impl Fn(&CorrelationAxis) -> usize) -> usize {
        self.axes.iter().map(length).product()
    }

    fn passes(&self, layout: &TileLayout, blocks: &[TargetBlock]) -> Vec<Pass> {
        let mut passes = Vec::new();
        for z in &self.axes[0].phases {
            for y in &self.axes[1].phases {
                for x in &self.axes[2].phases {
                    let phases = [z, y, x];
                    passes.push(Pass {
                        start: phases.map(|phase| phase.start),
                        offsets: layout.offsets(&self.axes, phases),
                        panels: self.panels(blocks, &kernel_indices(phases, self.kernel)),
                    });
                }
            }
        }
        passes
    }

    fn panels(&self, blocks: &[TargetBlock], taps: &[usize]) -> Vec<Vec<f32>> {
        let volume: usize = self.kernel.iter().product();
        let panel = |index: usize| {
            let (group, block) = (index / blocks.len(), blocks[index % blocks.len()]);
            let mut panel = vec![0.0; self.sources * taps.len() * block.width];
            for target in 0..block.used {
                for source in 0..self.sources {
                    let within = (block.first + target) * self.target_stride + source * self.source_stride;
                    let kernel = &self.weights[(group * self.sources * self.targets + within) * volume..][..volume];
                    let to = panel[source * taps.len() * block.width..].iter_mut().skip(target).step_by(block.width);
                    to.zip(taps).for_each(|(to, &tap)| *to = kernel[tap]);
                }
            }
            panel
        };
        (0..self.groups * blocks.len()).into_par_iter().map(panel).collect()
    }

    /// Writes the valid positions of one computed plane to the target volume with index `volume`.
    #[expect(clippy::too_many_arguments, reason = "the body of the loop in `compute`, with its variables")]
    fn write(
        &self,
        layout: &TileLayout,
        pass: &Pass,
        tile: Tile,
        plane: usize,
        line: &[f32],
        bias: f32,
        volume: usize,
        target: &DisjointSlice,
    ) {
        let [depth, height, width] = [0, 1, 2].map(|axis: usize| self.axes[axis].target);
        let target_index = |axis: usize, position: usize| position * self.axes[axis].target_step + pass.start[axis];
        let z = target_index(0, tile.plane + plane);
        if z >= depth || pass.start[2] >= width {
            return;
        }
        let step = self.axes[2].target_step;
        for row in 0..tile.rows {
            let y = target_index(1, tile.row + row);
            if y >= height {
                break;
            }
            let values = &line[row * layout.row_pitch()..];
            // SAFETY: every row of the target belongs to one tile and one block of targets, hence
            // to one task, which has no other slice of the target at this time.
            let row = unsafe { target.slice(((volume * depth + z) * height + y) * width, width) };
            if step == 1 {
                row.iter_mut().zip(values).for_each(|(to, value)| *to = value + bias);
            } else {
                row[pass.start[2]..].iter_mut().step_by(step).zip(values).for_each(|(to, value)| *to = value + bias);
            }
        }
    }
}

/// Indices in a `[kd, kh, kw]` kernel of the taps of a combination of phases, in the order of
/// [`TileLayout::offsets`].
fn kernel_indices(phases: [&Phase; 3], kernel: [usize; 3]) -> Vec<usize> {
    let mut indices = Vec::new();
    for (z, _) in &phases[0].taps {
        for (y, _) in &phases[1].taps {
            indices.extend(phases[2].taps.iter().map(|(x, _)| (z * kernel[1] + y) * kernel[2] + x));
        }
    }
    indices
}

/// All targets, in blocks of as many channels as the registers hold.
pub(super) fn target_blocks(targets: usize) -> Vec<TargetBlock> {
    let widest = if many_registers() { 8 } else { 4 };
    (0..targets)
        .step_by(widest)
        .map(|first| {
            let used = widest.min(targets - first);
            TargetBlock { first, used, width: used.next_power_of_two() }
        })
        .collect()
}

/// Computes one line of positions for one block of targets, `lines[target][position]`.
pub(super) struct LineCorrelation<'a> {
    pub packed: &'a [f32],
    pub channels: usize,
    /// Floats from one channel of `packed` to the next.
    pub channel: usize,
    /// Offsets of the taps in a channel.
    pub offsets: &'a [usize],
    /// `[channel][tap][target]`
    pub weights: &'a [f32],
    /// Targets of a block.
    pub width: usize,
    /// Positions of the line.
    pub length: usize,
    pub lines: &'a mut [f32],
    /// Floats from the line of one target to the next.
    pub pitch: usize,
}

impl SimdKernel for LineCorrelation<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Lanes>(mut self, supported: Supported<V>) {
        match self.width {
            8 => self.sweep::<V, 8, 3>(supported),
            4 if V::MANY_REGISTERS => self.sweep::<V, 4, 6>(supported),
            4 => self.sweep::<V, 4, 3>(supported),
            2 => self.sweep::<V, 2, 4>(supported),
            _ => self.sweep::<V, 1, 6>(supported),
        }
    }
}

impl LineCorrelation<'_> {
    /// Computes `T` targets by `P` registers of positions at a time, and fewer registers at the
    /// end.
    #[inline(always)]
    fn sweep<V: Lanes, const T: usize, const P: usize>(&mut self, supported: Supported<V>) {
        let rounded = self.length.next_multiple_of(V::N);
        let reach = self.offsets.iter().max().map_or(0, |last| (self.channels - 1) * self.channel + last + rounded);
        assert!(reach <= self.packed.len(), "the packed tile has slack for whole registers");
        assert!(rounded <= self.pitch && T * self.pitch <= self.lines.len(), "the lines have room for whole registers");
        assert!(self.weights.len() == self.channels * self.offsets.len() * T, "one weight per target, channel and tap");
        // SAFETY: the assertions above are what `sums` requires of `rounded`.
        let position = unsafe { self.sums::<V, T, P>(supported, 0, rounded) };
        // SAFETY: as above.
        let position = unsafe { self.sums::<V, T, 2>(supported, position, rounded) };
        // SAFETY: as above.
        unsafe { self.sums::<V, T, 1>(supported, position, rounded) };
    }

    /// Computes the sums of whole groups of `P` registers between two positions; returns the
    /// position after the last group.
    ///
    /// # Safety
    /// The assertions of `sweep` must hold with `end` as `rounded`.
    #[inline(always)]
    unsafe fn sums<V: Lanes, const T: usize, const P: usize>(
        &mut self,
        _: Supported<V>,
        mut position: usize,
        end: usize,
    ) -> usize {
        while position + P * V::N <= end {
            // SAFETY: the registers of a group end at `end` or before, up to which the caller
            // guarantees reads of `packed` and writes of `lines` to be in bounds; there is one
            // weight per channel, tap and target; the token proves that the instructions exist.
            unsafe {
                let mut sums = [[V::splat(0.0); P]; T];
                let mut weight = self.weights.as_ptr();
                for channel in 0..self.channels {
                    let source = self.packed.as_ptr().add(channel * self.channel + position);
                    for &offset in self.offsets {
                        let values: [V; P] = std::array::from_fn(|part| V::load(source.add(offset + part * V::N)));
                        for (target, sums) in sums.iter_mut().enumerate() {
                            let factor = V::splat(*weight.add(target));
                            for (sum, value) in sums.iter_mut().zip(values) {
                                *sum = value.mul_add(factor, *sum);
                            }
                        }
                        weight = weight.add(T);
                    }
                }
                for (target, sums) in sums.into_iter().enumerate() {
                    let line = self.lines.as_mut_ptr().add(target * self.pitch + position);
                    for (part, sum) in sums.into_iter().enumerate() {
                        sum.store(line.add(part * V::N));
                    }
                }
            }
            position += P * V::N;
        }
        position
    }
}
