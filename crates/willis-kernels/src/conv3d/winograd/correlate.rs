//! The forward pass and the gradient of the input: `A^T [(G w G^T) (B^T x B)] A`.

use rayon::prelude::*;

use super::{GAP, MIN_CHANNELS, PRODUCTS, Part, Tiling, starts};
use crate::conv3d::correlate::{Block, Correlation, Line, blocks};
use crate::conv3d::layout::STEP;
use crate::shared::{Disjoint, with_scratch};
use crate::simd::{Kernel, Lanes, dispatch};

/// A [`Correlation`] whose axes are all of three neighbours.
pub(in crate::conv3d) struct WinogradCorrelation<'a> {
    correlation: &'a Correlation<'a>,
    tiling: Tiling,
}

impl<'a> WinogradCorrelation<'a> {
    /// `None` where the taps are others, lines short or channels few.
    pub(in crate::conv3d) fn of(correlation: &'a Correlation<'a>) -> Option<Self> {
        let Correlation { batch, groups, sources, targets, .. } = *correlation;
        let tiling = Tiling::of(&correlation.axes, sources, sources, batch * groups)?;
        (sources.min(targets) >= MIN_CHANNELS).then_some(Self { correlation, tiling })
    }

    /// Writes every element of `target`.
    pub(in crate::conv3d) fn run(&self, source: &[f32], target: &mut [f32]) {
        let Correlation { batch, groups, sources, targets, .. } = *self.correlation;
        let blocks = blocks(targets);
        let panels = self.panels(&blocks);
        let parts = self.tiling.parts();
        let source_volume: usize = self.tiling.source.iter().product();
        let zeros = vec![0.0; self.tiling.source[2]];
        let target = Disjoint::new(target);
        (0..batch * groups * parts.len()).into_par_iter().for_each(|task| {
            let (problem, part) = (task / parts.len(), parts[task % parts.len()]);
            let source = &source[problem * sources * source_volume..][..sources * source_volume];
            with_scratch(|spread, lines| {
                self.tiling.spread(source, part, &zeros, spread);
                for (index, &block) in blocks.iter().enumerate() {
                    let panels = &panels[(problem % groups * blocks.len() + index) * PRODUCTS..][..PRODUCTS];
                    self.multiply(spread, part, block, panels, lines);
                    dispatch(Gather { winograd: self, lines, part, block, problem, target: &target });
                }
            });
        });
    }

    /// Floats from one line of sums to the next.
    fn line(&self) -> usize {
        (self.tiling.pairs * self.tiling.pitch()).next_multiple_of(STEP) + GAP
    }

    /// `lines[product][target][pair of rows][x]`: sums over sources and taps along x.
    fn multiply(&self, spread: &[f32], part: Part, block: Block, panels: &[Vec<f32>], lines: &mut Vec<f32>) {
        let pitch = self.line();
        lines.resize(PRODUCTS * block.width * pitch, 0.0);
        for (product, (weights, lines)) in panels.iter().zip(lines.chunks_exact_mut(block.width * pitch)).enumerate() {
            dispatch(Line {
                packed: &spread[product * self.tiling.product()..],
                channels: self.correlation.sources,
                channel: self.tiling.channel(),
                offsets: &[0, 1, 2],
                weights,
                width: block.width,
                length: part.pairs * self.tiling.pitch(),
                lines,
                pitch,
            });
        }
    }

    /// Transformed weights, `[group][block][product]` of `[source][tap along x][target in block]`.
    fn panels(&self, blocks: &[Block]) -> Vec<Vec<f32>> {
        let Correlation { groups, sources, targets, weights, target_stride, source_stride, .. } = *self.correlation;
        let [order_z, order_y, order_x] = self.tiling.order;
        let panels = |index: usize| {
            let (group, block) = (index / blocks.len(), blocks[index % blocks.len()]);
            let mut panels = vec![vec![0.0; sources * 3 * block.width]; PRODUCTS];
            for target in 0..block.used {
                for source in 0..sources {
                    let within = (block.first + target) * target_stride + source * source_stride;
                    let kernel = &weights[(group * sources * targets + within) * 27..][..27];
                    for (tap, x) in order_x.into_iter().enumerate() {
                        let values = transformed(order_z.map(|z| order_y.map(|y| kernel[(z * 3 + y) * 3 + x])));
                        let place = (source * 3 + tap) * block.width + target;
                        panels.iter_mut().zip(values).for_each(|(panel, value)| panel[place] = value);
                    }
                }
            }
            panels
        };
        (0..groups * blocks.len()).into_par_iter().flat_map_iter(panels).collect()
    }
}

/// What the sixteen products multiply with: `G w G^T` of a 3×3 kernel `[z][y]`.
fn transformed(kernel: [[f32; 3]; 3]) -> [f32; PRODUCTS] {
    let spread = |[a, b, c]: [f32; 3]| [a, 0.5 * (a + b + c), 0.5 * (a - b + c), c];
    let along_y = kernel.map(spread);
    let columns: [[f32; 4]; 4] = std::array::from_fn(|y| spread(std::array::from_fn(|z| along_y[z][y])));
    std::array::from_fn(|index| columns[index % 4][index / 4])
}

/// A^T of the transform.
#[inline(always)]
unsafe fn gathered<V: Lanes>([a, b, c, d]: [V; 4]) -> [V; 2] {
    // SAFETY: the caller's instruction set is that of `V`.
    unsafe { [a.add(b).add(c), b.sub(c).sub(d)] }
}

/// The rows of one block of targets from the sums of their sixteen products.
struct Gather<'a> {
    winograd: &'a WinogradCorrelation<'a>,
    /// `[product][target][pair of rows][x]`
    lines: &'a [f32],
    part: Part,
    block: Block,
    problem: usize,
    target: &'a Disjoint<'a>,
}

impl Gather<'_> {
    /// Where a row begins; `None` beyond the end of an odd extent.
    #[inline(always)]
    fn row(&self, channel: usize, z: usize, y: usize) -> Option<*mut f32> {
        let [depth, height, width] = self.winograd.tiling.target;
        let volume = self.problem * self.winograd.correlation.targets + channel;
        (z < depth && y < height).then(|| self.target.pointer(((volume * depth + z) * height + y) * width, width))
    }
}

impl Kernel for Gather<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Lanes>(self) {
        let Self { winograd, lines, part, block, problem, .. } = self;
        let Correlation { groups, targets, bias, .. } = *winograd.correlation;
        let (width, pitch, line) = (winograd.tiling.target[2], winograd.tiling.pitch(), winograd.line());
        let product = block.width * line;
        assert!(width >= V::N && part.pairs * pitch <= line, "a line holds the rows");
        assert!(PRODUCTS * product <= lines.len() && block.used <= block.width, "every product has its lines");
        for index in 0..block.used {
            let channel = block.first + index;
            let bias = bias.map_or(0.0, |bias| bias[problem % groups * targets + channel]);
            for pair in 0..part.pairs {
                let [z, y] = part.corner(pair);
                let rows = [0, 1].map(|dy| [0, 1].map(|dz| self.row(channel, z + dz, y + dy)));
                // SAFETY: the assertions bound every read, `row` every write, and each part has
                // rows of its own; the instruction set is dispatch's choice.
                unsafe {
                    let from = lines.as_ptr().add(index * line + pair * pitch);
                    let bias = V::splat(bias);
                    for x in starts(width, V::N) {
                        let mut along_y = [[V::splat(0.0); 2]; 4];
                        for (z, values) in along_y.iter_mut().enumerate() {
                            let load = |y: usize| V::load(from.add((z * 4 + y) * product + x));
                            *values = gathered([load(0), load(1), load(2), load(3)]);
                        }
                        let [a, b, c, d] = along_y;
                        for (y, rows) in rows.iter().enumerate() {
                            let along_z = gathered([a[y], b[y], c[y], d[y]]);
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
