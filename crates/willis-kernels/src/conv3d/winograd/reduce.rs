//! The gradient of the weights, `G^T [(A dy A^T) (B^T x B)] G`, where the inner product is
//! elementwise and summed over positions. It is the adjoint of the forward pass, which is linear in
//! the weights.

use std::ops::Range;

use rayon::prelude::*;

use super::{MIN_CHANNELS, PRODUCTS, RowPairs, WinogradTiling, register_starts};
use crate::conv3d::reduce::{DotProducts, REGISTER, Reduction};
use crate::shared::with_scratch;
use crate::simd::{Lanes, SimdKernel, Supported, dispatch};

/// Most source channels, and most target channels, of a task. With more, the lines that fit in the
/// cache would be too short.
const TASK_CHANNELS: usize = 16;
/// Fewest tasks. A constant, so that partial sums do not depend on the number of threads.
const MIN_TASKS: usize = 16;

/// A [`Reduction`] with three adjacent taps along every axis.
pub(in crate::conv3d) struct WinogradReduction<'a> {
    reduction: &'a Reduction,
    tiling: WinogradTiling,
    /// Partition of the weights.
    blocks: Vec<WeightBlock>,
}

/// The weights from some sources to some targets of a group.
struct WeightBlock {
    group: usize,
    targets: Range<usize>,
    sources: Range<usize>,
}

impl<'a> WinogradReduction<'a> {
    /// `None` if the taps differ from that, or if there are too few channels or too short lines.
    pub(in crate::conv3d) fn new(reduction: &'a Reduction) -> Option<Self> {
        let Reduction { batch, groups, sources, targets, ref axes } = *reduction;
        let [block_sources, block_targets] = [even_block(sources), even_block(targets)];
        let tiling = WinogradTiling::new(axes, block_sources, block_sources + block_targets, batch)?;
        let mut blocks = Vec::new();
        for (group, target) in
            (0..groups).flat_map(|group| (0..targets).step_by(block_targets).map(move |t| (group, t)))
        {
            blocks.extend((0..sources).step_by(block_sources).map(|source| WeightBlock {
                group,
                targets: target..targets.min(target + block_targets),
                sources: source..sources.min(source + block_sources),
            }));
        }
        (sources.min(targets) >= MIN_CHANNELS).then_some(Self { reduction, tiling, blocks })
    }

    /// Overwrites `dw`.
    pub(in crate::conv3d) fn run(&self, source: &[f32], dy: &[f32], dw: &mut [f32]) {
        let tasks = self.tiling.tasks();
        let pieces: Vec<(usize, RowPairs)> =
            (0..self.reduction.batch).flat_map(|item| tasks.iter().map(move |&rows| (item, rows))).collect();
        let chunks = MIN_TASKS.div_ceil(self.blocks.len()).min(pieces.len());
        let zeros = vec![0.0; self.tiling.source[2]];
        let partial = |task: usize| {
            let (block, chunk) = (&self.blocks[task / chunks], task % chunks);
            let pieces = &pieces[pieces.len() * chunk / chunks..pieces.len() * (chunk + 1) / chunks];
            self.partial(source, dy, block, pieces, &zeros)
        };
        let partials: Vec<Vec<f32>> = (0..self.blocks.len() * chunks).into_par_iter().map(partial).collect();
        for (block, partials) in self.blocks.iter().zip(partials.chunks(chunks)) {
            self.write(block, partials, dw);
        }
    }

    /// Gradient of the transformed weights of one block, `[product][target][source][tap along x]`,
    /// summed over `pieces`, which are pairs of rows of items of the batch.
    fn partial(
        &self,
        source: &[f32],
        dy: &[f32],
        block: &WeightBlock,
        pieces: &[(usize, RowPairs)],
        zeros: &[f32],
    ) -> Vec<f32> {
        let Reduction { groups, sources: all_sources, targets: all_targets, .. } = *self.reduction;
        let volume = |extents: [usize; 3]| extents.iter().product::<usize>();
        let (source_volume, target_volume) = (volume(self.tiling.source), volume(self.tiling.target));
        let (sources, targets) = (block.sources.len(), block.targets.len());
        let offsets: Vec<usize> =
            (0..sources).flat_map(|source| [0, 1, 2].map(|tap| source * self.tiling.channel() + tap)).collect();
        let mut sums = vec![0.0; PRODUCTS * targets * offsets.len()];
        for &(item, rows) in pieces {
            let problem = item * groups + block.group;
            let source = &source[(problem * all_sources + block.sources.start) * source_volume..];
            let dy = &dy[(problem * all_targets + block.targets.start) * target_volume..];
            with_scratch(|transformed, lines| {
                self.tiling.transform_input(&source[..sources * source_volume], rows, zeros, transformed);
                self.clear_gaps(rows, transformed);
                let pitch = (rows.pairs * self.tiling.pitch()).next_multiple_of(REGISTER);
                lines.clear();
                lines.resize(PRODUCTS * targets * pitch, 0.0);
                dispatch(GradientTransform { tiling: &self.tiling, dy, rows, pitch, targets, to: lines });
                let lines = lines.chunks_exact(targets * pitch);
                let sums = sums.chunks_exact_mut(targets * offsets.len());
                for (product, (lines, sums)) in lines.zip(sums).enumerate() {
                    let packed = &transformed[product * self.tiling.product()..];
                    dispatch(DotProducts {
                        packed,
                        plane_pitch: 0,
                        offsets: &offsets,
                        lines,
                        pitch,
                        planes: 1,
                        targets,
                        sums,
                    });
                }
            });
        }
        sums
    }

    /// Writes zeros after the rows of each channel, where reads of whole registers end.
    fn clear_gaps(&self, rows: RowPairs, transformed: &mut [f32]) {
        for lines in transformed.chunks_mut(self.tiling.product()).take(PRODUCTS) {
            for channel in lines.chunks_mut(self.tiling.channel()).take(self.tiling.channels) {
                channel[rows.pairs * self.tiling.pitch()..][..REGISTER + 2].fill(0.0);
            }
        }
    }

    /// Sums the partial gradients of one block of weights and writes them to `dw`.
    fn write(&self, block: &WeightBlock, partials: &[Vec<f32>], dw: &mut [f32]) {
        let Reduction { sources: all_sources, targets: all_targets, .. } = *self.reduction;
        let (sources, targets) = (block.sources.len(), block.targets.len());
        for (target, source) in (0..targets).flat_map(|target| (0..sources).map(move |source| (target, source))) {
            let row = (block.group * all_targets + block.targets.start + target) * all_sources;
            let kernel = &mut dw[(row + block.sources.start + source) * 27..][..27];
            for x in 0..3 {
                let sum = |product: usize| {
                    let index = ((product * targets + target) * sources + source) * 3 + x;
                    partials.iter().map(|partial| partial[index]).sum::<f32>()
                };
                for (z, row) in transform_kernel_adjoint(std::array::from_fn(sum)).into_iter().enumerate() {
                    row.into_iter().enumerate().for_each(|(y, value)| kernel[(z * 3 + y) * 3 + x] = value);
                }
            }
        }
    }
}

/// Channels of a block, such that all blocks have about the same number.
fn even_block(channels: usize) -> usize {
    channels.div_ceil(channels.div_ceil(TASK_CHANNELS))
}

/// The adjoint of the transform of the weights, `G^T m G`, as `[z][y]`.
fn transform_kernel_adjoint(products: [f32; PRODUCTS]) -> [[f32; 3]; 3] {
    let adjoint = |[a, b, c, d]: [f32; 4]| [a + 0.5 * (b + c), 0.5 * (b - c), 0.5 * (b + c) + d];
    let along_y: [[f32; 3]; 4] = std::array::from_fn(|z| adjoint(std::array::from_fn(|y| products[z * 4 + y])));
    let columns: [[f32; 3]; 3] = std::array::from_fn(|y| adjoint(std::array::from_fn(|z| along_y[z][y])));
    std::array::from_fn(|z| std::array::from_fn(|y| columns[y][z]))
}

/// The transform of the gradient of the output along one axis, A.
#[inline(always)]
fn transform_gradient_axis<V: Lanes>(_: Supported<V>, [a, b]: [V; 2]) -> [V; 4] {
    // SAFETY: the token proves that the instructions exist.
    unsafe { [a, a.add(b), a.sub(b), V::splat(0.0).sub(b)] }
}

/// Transforms rows of the gradient of the output, `A dy A^T`, to the right sides of the products,
/// `[product][target][pair of rows][x]`.
struct GradientTransform<'a> {
    tiling: &'a WinogradTiling,
    dy: &'a [f32],
    rows: RowPairs,
    /// Floats from the lines of one target to the next.
    pitch: usize,
    targets: usize,
    /// Output; must hold zeros, which remain between the rows.
    to: &'a mut [f32],
}

impl SimdKernel for GradientTransform<'_> {
    type Output = ();

    // Loops, not closures: a closure that is not inlined would not be compiled for the instruction
    // set.
    #[inline(always)]
    fn run<V: Lanes>(self, supported: Supported<V>) {
        let Self { tiling, dy, rows: row_pairs, pitch, targets, to } = self;
        let [depth, height, width] = tiling.target;
        let product = targets * pitch;
        assert!(width >= V::N && row_pairs.pairs * tiling.pitch() <= pitch, "a line has room for the rows");
        assert!(PRODUCTS * product <= to.len(), "every product has its lines");
        for target in 0..targets {
            for pair in 0..row_pairs.pairs {
                let [z, y] = row_pairs.corner(pair);
                let row = |z: usize, y: usize| {
                    (z < depth && y < height).then(|| &dy[((target * depth + z) * height + y) * width..][..width])
                };
                let rows = [[row(z, y), row(z + 1, y)], [row(z, y + 1), row(z + 1, y + 1)]];
                // SAFETY: the assertions bound every write; every read starts at most
                // `width - V::N` into a row of `width` floats; the token proves that the
                // instructions exist.
                unsafe {
                    let to = to.as_mut_ptr().add(target * pitch + pair * tiling.pitch());
                    for x in register_starts(width, V::N) {
                        let mut along_z = [[V::splat(0.0); 4]; 2];
                        for (values, rows) in along_z.iter_mut().zip(rows) {
                            let mut pair = [V::splat(0.0); 2];
                            for (value, row) in pair.iter_mut().zip(rows) {
                                if let Some(row) = row {
                                    *value = V::load(row.as_ptr().add(x));
                                }
                            }
                            *values = transform_gradient_axis(supported, pair);
                        }
                        let [first, second] = along_z;
                        for z in 0..4 {
                            for (y, value) in
                                transform_gradient_axis(supported, [first[z], second[z]]).into_iter().enumerate()
                            {
                                value.store(to.add((z * 4 + y) * product + x));
                            }
                        }
                    }
                }
            }
        }
    }
}
