//! `target[o] = sum over channels and taps of weight * source`: the engine of the forward pass and
//! of the gradient of the input. A matrix product whose left side is read in place through tap
//! offsets, never built.

use super::layout::{Axis, Demand, Layout, Phase, SLACK, Tile};
use super::winograd::WinogradCorrelation;
use crate::shared::{Disjoint, with_scratch};
use crate::simd::{Kernel, Lanes, dispatch, many_registers};
use rayon::prelude::*;

/// A correlation of `batch * groups` independent problems of `sources` to `targets` channels.
pub(super) struct Correlation<'a> {
    pub batch: usize,
    pub groups: usize,
    pub sources: usize,
    pub targets: usize,
    pub axes: [Axis; 3],
    pub kernel: [usize; 3],
    pub weights: &'a [f32],
    /// Distance in `weights` from one target channel, and from one source channel, of a group to
    /// the next, in kernels.
    pub target_stride: usize,
    pub source_stride: usize,
    pub bias: Option<&'a [f32]>,
}

/// Tasks to make at least. A constant, so that the partition does not depend on the number of
/// threads.
const MIN_TASKS: usize = 8;

/// One combination of axis phases, with weights in the order in which the kernel reads them.
struct Pass {
    start: [usize; 3],
    offsets: Vec<usize>,
    /// For each group and block of targets: `[source][tap][target in block]`.
    panels: Vec<Vec<f32>>,
}

/// Targets computed together: `width` registers' worth, of which `used` exist.
#[derive(Clone, Copy)]
pub(super) struct Block {
    pub first: usize,
    pub used: usize,
    pub width: usize,
}

impl Correlation<'_> {
    /// Writes every element of `target`.
    pub(super) fn run(&self, source: &[f32], target: &mut [f32]) {
        if let Some(winograd) = WinogradCorrelation::of(self) {
            return winograd.run(source, target);
        }
        let blocks = blocks(self.targets);
        let problems = self.batch * self.groups;
        let layout = Layout::choose(
            &self.axes,
            &Demand {
                channels: self.sources,
                companions: 0,
                multiplications: self.targets * self.kernel.iter().product::<usize>(),
                min_tiles: MIN_TASKS.div_ceil(problems * blocks.len()),
            },
        );
        let tiles = layout.tiles(&self.axes);
        // Blocks of one tile share its packed source; only where tiles are few do several tasks
        // pack the same one.
        let shares = MIN_TASKS.div_ceil(problems * tiles.len()).min(blocks.len());
        let share = blocks.len().div_ceil(shares);
        let shares = blocks.len().div_ceil(share);
        let passes = self.passes(&layout, &blocks);
        let source_volume = self.volume(|axis| axis.source);
        let target = Disjoint::new(target);
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

    /// One block of targets in all planes of a tile.
    #[allow(clippy::too_many_arguments)]
    fn compute(
        &self,
        layout: &Layout,
        pass: &Pass,
        weights: &[f32],
        tile: Tile,
        (problem, block): (usize, Block),
        packed: &[f32],
        lines: &mut [f32],
        target: &Disjoint,
    ) {
        let pitch = layout.max_line() + SLACK;
        for plane in 0..tile.planes {
            dispatch(Line {
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

    fn volume(&self, length: impl Fn(&Axis) -> usize) -> usize {
        self.axes.iter().map(length).product()
    }

    fn passes(&self, layout: &Layout, blocks: &[Block]) -> Vec<Pass> {
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

    fn panels(&self, blocks: &[Block], taps: &[usize]) -> Vec<Vec<f32>> {
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

    /// Scatters the valid part of one computed plane into its target volume, given by number.
    #[allow(clippy::too_many_arguments)]
    fn write(
        &self,
        layout: &Layout,
        pass: &Pass,
        tile: Tile,
        plane: usize,
        line: &[f32],
        bias: f32,
        volume: usize,
        target: &Disjoint,
    ) {
        let [depth, height, width] = [0, 1, 2].map(|axis: usize| self.axes[axis].target);
        let place = |axis: usize, position: usize| position * self.axes[axis].target_step + pass.start[axis];
        let z = place(0, tile.plane + plane);
        if z >= depth || pass.start[2] >= width {
            return;
        }
        let step = self.axes[2].target_step;
        for row in 0..tile.rows {
            let y = place(1, tile.row + row);
            if y >= height {
                break;
            }
            let values = &line[row * layout.row_pitch()..];
            // SAFETY: tasks own disjoint sets of positions, and a target belongs to one position
            // and one phase.
            let row = unsafe { target.slice(((volume * depth + z) * height + y) * width, width) };
            if step == 1 {
                row.iter_mut().zip(values).for_each(|(to, value)| *to = value + bias);
            } else {
                row[pass.start[2]..].iter_mut().step_by(step).zip(values).for_each(|(to, value)| *to = value + bias);
            }
        }
    }
}

/// Positions in a `[kd, kh, kw]` kernel of the taps of a phase combination, in the order of
/// [`Layout::offsets`].
fn kernel_indices(phases: [&Phase; 3], kernel: [usize; 3]) -> Vec<usize> {
    let mut indices = Vec::new();
    for (z, _) in &phases[0].taps {
        for (y, _) in &phases[1].taps {
            indices.extend(phases[2].taps.iter().map(|(x, _)| (z * kernel[1] + y) * kernel[2] + x));
        }
    }
    indices
}

/// All targets, in blocks of as many as the registers hold.
pub(super) fn blocks(targets: usize) -> Vec<Block> {
    let widest = if many_registers() { 8 } else { 4 };
    (0..targets)
        .step_by(widest)
        .map(|first| {
            let used = widest.min(targets - first);
            Block { first, used, width: used.next_power_of_two() }
        })
        .collect()
}

/// One plane of positions for one block of targets: `lines[target][position]`.
pub(super) struct Line<'a> {
    pub packed: &'a [f32],
    pub channels: usize,
    /// Floats from one channel of `packed` to the next.
    pub channel: usize,
    /// Of the taps in a channel.
    pub offsets: &'a [usize],
    /// `[channel][tap][target]`
    pub weights: &'a [f32],
    /// Targets of a block.
    pub width: usize,
    /// Positions.
    pub length: usize,
    pub lines: &'a mut [f32],
    /// Floats from one target's line to the next.
    pub pitch: usize,
}

impl Kernel for Line<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Lanes>(mut self) {
        match self.width {
            8 => self.sweep::<V, 8, 3>(),
            4 if V::MANY_REGISTERS => self.sweep::<V, 4, 6>(),
            4 => self.sweep::<V, 4, 3>(),
            2 => self.sweep::<V, 2, 4>(),
            _ => self.sweep::<V, 1, 6>(),
        }
    }
}

impl Line<'_> {
    /// `T` targets times `P` registers of positions at once, fewer registers at the end.
    #[inline(always)]
    fn sweep<V: Lanes, const T: usize, const P: usize>(&mut self) {
        let rounded = self.length.next_multiple_of(V::N);
        let reach = self.offsets.iter().max().map_or(0, |last| (self.channels - 1) * self.channel + last + rounded);
        assert!(reach <= self.packed.len(), "the packed tile has slack for whole registers");
        assert!(rounded <= self.pitch && T * self.pitch <= self.lines.len(), "the lines have room for whole registers");
        assert!(self.weights.len() == self.channels * self.offsets.len() * T, "one weight per target, source and tap");
        // SAFETY: the assertions above bound every read and write; the instruction set is
        // dispatch's choice.
        let after = unsafe { self.sums::<V, T, P>(0, rounded) };
        let after = unsafe { self.sums::<V, T, 2>(after, rounded) };
        unsafe { self.sums::<V, T, 1>(after, rounded) };
    }

    /// The sums of whole groups of `P` registers from a position on; returns where the next begins.
    ///
    /// # Safety
    /// What `sweep` asserts must hold for `end`, and the instruction set must be dispatch's choice.
    #[inline(always)]
    unsafe fn sums<V: Lanes, const T: usize, const P: usize>(&mut self, mut position: usize, end: usize) -> usize {
        while position + P * V::N <= end {
            // SAFETY: the caller's promise.
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
