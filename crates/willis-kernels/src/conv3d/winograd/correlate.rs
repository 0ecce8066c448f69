//! The forward pass and the gradient of the input: `A^T [(G w G^T) (B^T x B)] A`, where the inner
//! product is elementwise.

use rayon::prelude::*;

use super::{GAP, MIN_CHANNELS, PRODUCTS, RowPairs, WinogradTiling, register_starts};
use crate::conv3d::correlate::{Correlation, LineCorrelation, TargetBlock, target_blocks};
use crate::conv3d::layout::STEP;
use crate::shared::{DisjointSlice, with_scratch};
use crate::simd::{Lanes, SimdKernel, Supported, dispatch};

/// A [`Correlation`] with three adjacent taps along every axis.
pub(in crate::conv3d) struct WinogradCorrelation<'a> {
    correlation: &'a Correlation<'a>,
    tiling: WinogradTiling,
}

impl<'a> WinogradCorrelation<'a> {
    /// `None` if the taps differ from that, or if there are too few channels or too short lines.
    pub(in crate::conv3d) fn new(correlation: &'a Correlation<'a>) -> Option<Self> {
        let Correlation { batch, groups, sources, targets, .. } = *correlation;
        let tiling = WinogradTiling::new(&correlation.axes, sources, sources, batch * groups)?;
        (sources.min(targets) >= MIN_CHANNELS).then_some(Self { correlation, tiling })
    }

    /// Writes every element of `target`.
    pub(in crate::conv3d) fn run(&self, source: &[f32], target: &mut [f32]) {
        let Correlation { batch, groups, sources, targets, .. } = *self.correlation;
        let blocks = target_blocks(targets);
        let panels = self.panels(&blocks);
        let tasks = self.tiling.tasks();
        let source_volume: usize = self.tiling.source.iter().product();
        let zeros = vec![0.0; self.tiling.source[2]];
        let target = DisjointSlice::new(target);
        (0..batch * groups * tasks.len()).into_par_iter().for_each(|task| {
            let (problem, rows) = (task / tasks.len(), tasks[task % tasks.len()]);
            let source = &source[problem * sources * source_volume..][..sources * source_volume];
            with_scratch(|transformed, lines| {
                self.tiling.transform_input(source, rows, &zeros, transformed);
                for (index, &block) in blocks.iter().enumerate() {
                    let panels = &panels[(problem % groups * blocks.len() + index) * PRODUCTS..][..PRODUCTS];
                    self.multiply(transformed, rows, block, panels, lines);
                    dispatch(OutputTransform { winograd: self, lines, rows, block, problem, target: &target });
                }
            });
        });
    }

    /// Floats from one line of sums to the next.
    fn line(&self) -> usize {
        (self.tiling.pairs * self.tiling.pitch()).next_multiple_of(STEP) + GAP
    }

    /// Computes the products, `lines[product][target][pair of rows][x]`: sums over sources and over
    /// the taps along x.
    fn multiply(
        &self,
        transformed: &[f32],
        rows: RowPairs,
        block: TargetBlock,
        panels: &[Vec<f32>],
        lines: &mut Vec<f32>,
    ) {
        let pitch = self.line();
        lines.resize(PRODUCTS * block.width * pitch, 0.0);
        for (product, (weights, lines)) in panels.iter().zip(lines.chunks_exact_mut(block.width * pitch)).enumerate() {
            dispatch(LineCorrelation {
                packed: &transformed[product * self.tiling.product()..],
                channels: self.correlation.sources,
                channel: self.tiling.channel(),
                offsets: &[0, 1, 2],
                weights,
                width: block.width,
                length: rows.pairs * self.tiling.pitch(),
                lines,
                pitch,
            });
        }
    }

    /// Transformed weights, `[group][block][product]` of `[source][tap along x][target in block]`.
    fn panels(&self, blocks: &[TargetBlock]) -> Vec<Vec<f32>> {
        let Correlation { groups, sources, targets, weights, target_stride, source_stride, .. } = *self.correlation;
        let [taps_z, taps_y, taps_x] = self.tiling.order;
        let panels = |index: usize| {
            let (group, block) = (index / blocks.len(), blocks[index % blocks.len()]);
            let mut panels = vec![vec![0.0; sources * 3 * block.width]; PRODUCTS];
            for target in 0..block.used {
                for source in 0..sources {
                    let within = (block.first + target) * target_stride + source * source_stride;
                    let kernel = &weights[(group * sources * targets + within) * 27..][..27];
                    for (tap, x) in taps_x.into_iter().enumerate() {
                        let values = transform_kernel(taps_z.map(|z| taps_y.map(|y| kernel[(z * 3 + y) * 3 + x])));
                        let index = (source * 3 + tap) * block.width + target;
                        panels.iter_mut().zip(values).for_each(|(panel, value)| panel[index] = value);
                    }
                }
            }
            panels
        };
        (0..groups * blocks.len()).into_par_iter().flat_map_iter(panels).collect()
    }
}

/// The transform of a 3×3 kernel `[z][y]`, `G w G^T`: one factor per product.
fn transform_kernel(kernel: [[f32; 3]; 3]) -> [f32; PRODUCTS] {
    let transform = |[a, b, c]: [f32; 3]| [a, 0.5 * (a + b + c), 0.5 * (a - b + c), c];
    let along_y = kernel.map(transform);
    let columns: [[f32; 4]; 4] = std::array::from_fn(|y| transform(std::array::from_fn(|z| along_y[z][y])));
    std::array::from_fn(|index| columns[index % 4][index / 4])
}

/// The transform of the output along one axis, A^T.
#[inline(always)]
fn transform_output_axis<V: Lanes>(_: Supported<V>, [a, b, c, d]: [V; 4]) -> [V; 2] {
    // SAFETY: the token proves that the instructions exist.
    unsafe { [a.add(b).add(c), b.sub(c).sub(d)] }
}

/// Transforms the products of one block of targets to rows of the target.
struct OutputTransform<'a> {
    winograd: &'a WinogradCorrelation<'a>,
    /// `[product][target][pair of rows][x]`
    lines: &'a [f32],
    rows: RowPairs,
    block: TargetBlock,
    problem: usize,
    target: &'a DisjointSlice<'a>,
}

impl OutputTransform<'_> {
    /// Start of a row of the target; `None` beyond the end of an odd extent.
    #[inline(always)]
    fn row(&self, channel: usize, z: usize, y: usize) -> Option<*mut f32> {
        let [depth, height, width] = self.winograd.tiling.target;
        let volume = self.problem * self.winograd.correlation.targets + channel;
        (z < depth && y < height).then(|| self.target.pointer(((volume * depth + z) * height + y) * width, width))
    }
}

impl SimdKernel for OutputTransform<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Lanes>(self, supported: Supported<V>) {
        let Self { winograd, lines, rows: row_pairs, block, problem, .. } = self;
        let Correlation { groups, targets, bias, .. } = *winograd.correlation;
        let (width, pitch, line) = (winograd.tiling.target[2], winograd.tiling.pitch(), winograd.line());
        let product = block.width * line;
        assert!(width >= V::N && row_pairs.pairs * pitch <= line, "a line has room for the rows");
        assert!(PRODUCTS * product <= lines.len() && block.used <= block.width, "every product has its lines");
        for index in 0..block.used {
            let channel = block.first + index;
            let bias = bias.map_or(0.0, |bias| bias[problem % groups * targets + channel]);
            for pair in 0..row_pairs.pairs {
                let [z, y] = row_pairs.corner(pair);
                let rows = [0, 1].map(|dy| [0, 1].map(|dz| self.row(channel, z + dz, y + dy)));
                // SAFETY: the assertions bound every read. `row` returns pointers to whole rows of
                // `width` floats, which bounds every write; every row belongs to one task. The
                // token proves that the instructions exist.
                unsafe {
                    let from = lines.as_ptr().add(index * line + pair * pitch);
                    let bias = V::splat(bias);
                    for x in register_starts(width, V::N) {
                        let mut along_y = [[V::splat(0.0); 2]; 4];
                        for (z, values) in along_y.iter_mut().enumerate() {
                            let load = |y: usize| V::load(from.add((z * 4 + y) * product + x));
                            *values = transform_output_axis(supported, [load(0), load(1), load(2), load(3)]);
                        }
                        let [a, b, c, d] = along_y;
                        for (y, rows) in rows.iter().enumerate() {
                            let along_z = transform_output_axis(supported, [a[y], b[y], c[y], d[y]]);
                            for (row, value) in rows.iter().zip(along_z) {
                                if let Some(row) = row {
                                    value.add(bias).store(row.add(x));
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}
