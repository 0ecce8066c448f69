//! Convolutions with kernels of 3×3×3 voxels and stride 1, by Winograd's F(2×2, 3×3) along z and y.
//!
//! Two rows in each of two planes are computed together from the 4×4 lines that they read, with 16
//! products of lines instead of 36. Along x, the axis of the lanes, the three taps are summed
//! directly.
//!
//! # Source
//! Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, CVPR 2016, section 4.1. The
//! matrices A, B and G are those of the paper.

mod correlate;
mod reduce;

pub(super) use correlate::WinogradCorrelation;
pub(super) use reduce::WinogradReduction;

use super::layout::{CorrelationAxis, SLACK, STEP};
use crate::simd::{Lanes, SimdKernel, Supported, dispatch, prefetch};

/// Products of lines that give two rows in two planes.
const PRODUCTS: usize = 16;
/// Most floats of the transformed lines of a task, which should stay in the second-level cache of
/// one core.
const TASK_FLOATS: usize = 240 * 1024;
/// Shortest lines that are transformed: one register of the widest instruction set.
const MIN_WIDTH: usize = STEP;
/// Fewest source and target channels: with fewer, the transforms cost more than the products they
/// save.
const MIN_CHANNELS: usize = 8;
/// Fewest tasks. A constant, so that the partition does not depend on the number of threads.
const MIN_TASKS: usize = 8;
/// Floats after the lines of a channel and of a product. They leave room for reads of whole
/// registers and keep the products from mapping to the same cache lines.
const GAP: usize = 24;

/// Partition of a convolution into tasks.
struct WinogradTiling {
    /// Extents of the source volumes, `[z, y, x]`.
    source: [usize; 3],
    /// Extents of the target volumes.
    target: [usize; 3],
    /// Zeros before the first source along each axis.
    padding: [usize; 3],
    /// For each axis, the taps that read the three adjacent sources.
    order: [[usize; 3]; 3],
    /// Source channels of a task.
    channels: usize,
    /// Most pairs of rows of a task.
    pairs: usize,
}

/// Pairs of rows in one pair of planes, which one task computes.
#[derive(Clone, Copy)]
struct RowPairs {
    /// Index of the pair of planes.
    planes: usize,
    /// Index of the first pair of rows.
    first: usize,
    /// Number of pairs of rows.
    pairs: usize,
}

impl RowPairs {
    /// z and y of the first row of a pair, in the first of the two planes.
    fn corner(self, pair: usize) -> [usize; 2] {
        [2 * self.planes, 2 * (self.first + pair)]
    }
}

impl WinogradTiling {
    /// Plans the tasks of `problems` independent convolutions. A task transforms `channels` source
    /// channels; `cached_channels` channels share its cache. `None` if some axis does not have
    /// three adjacent taps, or if the lines are short.
    fn new(axes: &[CorrelationAxis; 3], channels: usize, cached_channels: usize, problems: usize) -> Option<Self> {
        let [z, y, x] = [axes[0].three_taps()?, axes[1].three_taps()?, axes[2].three_taps()?];
        let source = [0, 1, 2].map(|axis: usize| axes[axis].source);
        let target = [0, 1, 2].map(|axis: usize| axes[axis].target);
        (source[2].min(target[2]) >= MIN_WIDTH).then(|| Self {
            source,
            target,
            padding: [z.0, y.0, x.0],
            order: [z.1, y.1, x.1],
            channels,
            pairs: pairs_of_task(target, cached_channels, problems),
        })
    }

    /// Floats from one transformed line to the next.
    fn pitch(&self) -> usize {
        self.target[2] + 2
    }

    /// Floats from one channel of transformed lines to the next.
    fn channel(&self) -> usize {
        self.pairs * self.pitch() + GAP
    }

    /// Floats from the lines of one product to the next.
    fn product(&self) -> usize {
        self.channels * self.channel() + GAP
    }

    /// The pairs of rows of all tasks, in order.
    fn tasks(&self) -> Vec<RowPairs> {
        let [planes, pairs] = [self.target[0].div_ceil(2), self.target[1].div_ceil(2)];
        let starts = (0..planes).flat_map(|planes| (0..pairs).step_by(self.pairs).map(move |first| (planes, first)));
        starts.map(|(planes, first)| RowPairs { planes, first, pairs: self.pairs.min(pairs - first) }).collect()
    }

    /// Transforms the lines that the pairs of rows read in all `source` channels to
    /// `transformed[product][channel][pair of rows][x]`. `zeros` is an empty line.
    fn transform_input(&self, source: &[f32], rows: RowPairs, zeros: &[f32], transformed: &mut Vec<f32>) {
        transformed.resize(PRODUCTS * self.product() + SLACK, 0.0);
        let channels = source.len() / self.source.iter().product::<usize>();
        dispatch(InputTransform { tiling: self, source, channels, rows, zeros, to: transformed });
    }

    /// A line of a channel; `zeros` in the padding.
    #[inline(always)]
    fn line<'a>(&self, source: &'a [f32], zeros: &'a [f32], channel: usize, z: usize, y: usize) -> &'a [f32] {
        let [depth, height, width] = self.source;
        let (z, y) = (z.wrapping_sub(self.padding[0]), y.wrapping_sub(self.padding[1]));
        if z < depth && y < height { &source[((channel * depth + z) * height + y) * width..][..width] } else { zeros }
    }
}

/// Most pairs of rows of a task: the number that computes the fewest positions, among those that
/// fit in the cache and give enough tasks.
fn pairs_of_task(target: [usize; 3], channels: usize, problems: usize) -> usize {
    let [planes, all] = [target[0].div_ceil(2), target[1].div_ceil(2)];
    let positions = |pairs: usize| (pairs * (target[2] + 2)).next_multiple_of(STEP);
    let fits = |&pairs: &usize| {
        let enough = problems * planes * all.div_ceil(pairs) >= MIN_TASKS;
        pairs == 1 || enough && PRODUCTS * channels * positions(pairs) <= TASK_FLOATS
    };
    let computed = |&pairs: &usize| all / pairs * positions(pairs) + positions(all % pairs);
    (1..=all).rev().filter(fits).min_by_key(computed).unwrap_or(1)
}

/// Starts of the registers that cover `length` floats; the last register may overlap the one
/// before.
fn register_starts(length: usize, register: usize) -> impl Iterator<Item = usize> {
    (0..length).step_by(register).map(move |start| start.min(length - register))
}

/// The transform of the input along one axis, B^T.
#[inline(always)]
fn transform_input_axis<V: Lanes>(_: Supported<V>, [a, b, c, d]: [V; 4]) -> [V; 4] {
    // SAFETY: the token proves that the instructions exist.
    unsafe { [a.sub(c), b.add(c), c.sub(b), b.sub(d)] }
}

/// Transforms the 4×4 lines that each pair of rows reads, `B^T x B`, to the left sides of the
/// products.
struct InputTransform<'a> {
    tiling: &'a WinogradTiling,
    source: &'a [f32],
    channels: usize,
    rows: RowPairs,
    zeros: &'a [f32],
    to: &'a mut [f32],
}

impl SimdKernel for InputTransform<'_> {
    type Output = ();

    // Loops, not closures: a closure that is not inlined would not be compiled for the instruction
    // set.
    #[inline(always)]
    fn run<V: Lanes>(self, supported: Supported<V>) {
        let Self { tiling, source, channels, rows, zeros, to } = self;
        let (width, before, pitch, product) = (tiling.source[2], tiling.padding[2], tiling.pitch(), tiling.product());
        assert!(
            zeros.len() == width && width >= V::N && before + width <= pitch,
            "a line has room for the source and its padding"
        );
        assert!(rows.pairs <= tiling.pairs && channels <= tiling.channels, "no more rows and channels than planned");
        assert!(PRODUCTS * product <= to.len(), "room for every product");
        let volume: usize = tiling.source.iter().product();
        for channel in 0..channels {
            for pair in 0..rows.pairs {
                let [z, y] = rows.corner(pair);
                let mut lines = [[zeros; 4]; 4];
                for (y_in, lines) in lines.iter_mut().enumerate() {
                    for (z_in, line) in lines.iter_mut().enumerate() {
                        *line = tiling.line(source, zeros, channel, z + z_in, y + y_in);
                    }
                }
                // Prefetches the lines of the next channel. The pair before has prefetched the
                // first two rows.
                for lines in &lines[if pair == 0 { 0 } else { 2 }..] {
                    lines.iter().for_each(|line| prefetch(line.as_ptr().wrapping_add(volume), width));
                }
                // SAFETY: the assertions bound every write; every read starts at most
                // `width - V::N` into a line of `width` floats; the token proves that the
                // instructions exist.
                unsafe {
                    let to = to.as_mut_ptr().add(channel * tiling.channel() + pair * pitch);
                    for index in 0..PRODUCTS {
                        for x in (0..before).chain(before + width..pitch) {
                            to.add(index * product + x).write(0.0);
                        }
                    }
                    for x in register_starts(width, V::N) {
                        let mut along_z = [[V::splat(0.0); 4]; 4];
                        for (values, [a, b, c, d]) in along_z.iter_mut().zip(&lines) {
                            let load = |line: &[f32]| V::load(line.as_ptr().add(x));
                            *values = transform_input_axis(supported, [load(a), load(b), load(c), load(d)]);
                        }
                        let [a, b, c, d] = along_z;
                        for z in 0..4 {
                            let along_y = transform_input_axis(supported, [a[z], b[z], c[z], d[z]]);
                            for (y, value) in along_y.into_iter().enumerate() {
                                value.store(to.add((z * 4 + y) * product + before + x));
                            }
                        }
                    }
                }
            }
        }
    }
}
