//! Convolutions of 3×3×3 voxels at stride 1 with 16 products of lines where the taps take 36: two
//! rows in two planes are computed together, from sums and differences of the 4×4 lines that they
//! read (Winograd's F(2×2, 3×3) along z and y; Lavin and Gray 2016, section 4.1). Along x, where
//! the lanes lie, the taps stay as they are.

mod correlate;
mod reduce;

pub(super) use correlate::WinogradCorrelation;
pub(super) use reduce::WinogradReduction;

use super::layout::{Axis, SLACK, STEP};
use crate::simd::{Kernel, Lanes, dispatch, prefetch};

/// Products of lines that make two rows in two planes.
const PRODUCTS: usize = 16;
/// Most floats of the transformed lines of a task: they should stay in the second-level cache of
/// one core.
const TASK_FLOATS: usize = 240 * 1024;
/// Shortest lines: as long as the widest register.
const MIN_WIDTH: usize = STEP;
/// Fewest channels on either side: with fewer, sums and differences cost more than the products
/// they save.
const MIN_CHANNELS: usize = 8;
/// Tasks to make at least. A constant, so that the partition does not depend on the number of
/// threads.
const MIN_TASKS: usize = 8;
/// Floats behind the lines of a channel and of a product: room for whole registers to read on, and
/// no two products fall on the same lines of a cache.
const GAP: usize = 24;

/// How pairs of rows in pairs of planes read their sources, and how many a task takes.
struct Tiling {
    /// Extents of the sources and of the targets, `[z, y, x]`.
    source: [usize; 3],
    target: [usize; 3],
    /// Zeros before the first source of an axis.
    padding: [usize; 3],
    /// Which element of the kernel reads each of three neighbours along an axis.
    order: [[usize; 3]; 3],
    /// Sources of a task.
    channels: usize,
    /// Pairs of rows of a task.
    pairs: usize,
}

/// What one task computes: some pairs of rows in one pair of planes.
#[derive(Clone, Copy)]
struct Part {
    planes: usize,
    first: usize,
    pairs: usize,
}

impl Part {
    /// z and y of the first voxels of a pair of rows.
    fn corner(self, pair: usize) -> [usize; 2] {
        [2 * self.planes, 2 * (self.first + pair)]
    }
}

impl Tiling {
    /// `None` where the taps are others or lines short. A task transforms `channels` sources, and
    /// `together` channels share its cache; there are `problems` times the parts.
    fn of(axes: &[Axis; 3], channels: usize, together: usize, problems: usize) -> Option<Self> {
        let [z, y, x] = [axes[0].neighbours()?, axes[1].neighbours()?, axes[2].neighbours()?];
        let source = [0, 1, 2].map(|axis: usize| axes[axis].source);
        let target = [0, 1, 2].map(|axis: usize| axes[axis].target);
        (source[2].min(target[2]) >= MIN_WIDTH).then(|| Self {
            source,
            target,
            padding: [z.0, y.0, x.0],
            order: [z.1, y.1, x.1],
            channels,
            pairs: pairs_of_task(target, together, problems),
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

    /// Floats from the lines of one product to those of the next.
    fn product(&self) -> usize {
        self.channels * self.channel() + GAP
    }

    /// All parts, in order.
    fn parts(&self) -> Vec<Part> {
        let [planes, pairs] = [self.target[0].div_ceil(2), self.target[1].div_ceil(2)];
        let starts = (0..planes).flat_map(|planes| (0..pairs).step_by(self.pairs).map(move |first| (planes, first)));
        starts.map(|(planes, first)| Part { planes, first, pairs: self.pairs.min(pairs - first) }).collect()
    }

    /// Fills `spread` with the transformed lines `[product][channel][pair of rows][x]` of the
    /// `source` channels' part.
    fn spread(&self, source: &[f32], part: Part, zeros: &[f32], spread: &mut Vec<f32>) {
        spread.resize(PRODUCTS * self.product() + SLACK, 0.0);
        let channels = source.len() / self.source.iter().product::<usize>();
        dispatch(Spread { tiling: self, source, channels, part, zeros, to: spread });
    }

    /// A line of a channel, zeros beyond the ends.
    #[inline(always)]
    fn line<'a>(&self, source: &'a [f32], zeros: &'a [f32], channel: usize, z: usize, y: usize) -> &'a [f32] {
        let [depth, height, width] = self.source;
        let (z, y) = (z.wrapping_sub(self.padding[0]), y.wrapping_sub(self.padding[1]));
        if z < depth && y < height { &source[((channel * depth + z) * height + y) * width..][..width] } else { zeros }
    }
}

/// Pairs of rows of a task: those that waste the fewest positions among what fits the cache and
/// leaves enough tasks.
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

/// Where registers start that cover `length` floats; the last may overlap the one before.
fn starts(length: usize, register: usize) -> impl Iterator<Item = usize> {
    (0..length).step_by(register).map(move |start| start.min(length - register))
}

/// B^T of the transform.
#[inline(always)]
unsafe fn differences<V: Lanes>([a, b, c, d]: [V; 4]) -> [V; 4] {
    // SAFETY: the caller's instruction set is that of `V`.
    unsafe { [a.sub(c), b.add(c), c.sub(b), b.sub(d)] }
}

/// The sixteen products' left sides from the 4×4 lines that each pair of rows in a pair of planes
/// reads.
struct Spread<'a> {
    tiling: &'a Tiling,
    source: &'a [f32],
    channels: usize,
    part: Part,
    zeros: &'a [f32],
    to: &'a mut [f32],
}

impl Kernel for Spread<'_> {
    type Output = ();

    // Loops instead of closures: what is not inlined would lose the instruction set.
    #[inline(always)]
    fn run<V: Lanes>(self) {
        let Self { tiling, source, channels, part, zeros, to } = self;
        let (width, before, pitch, product) = (tiling.source[2], tiling.padding[2], tiling.pitch(), tiling.product());
        assert!(zeros.len() == width && width >= V::N && before + width <= pitch, "lines of one length");
        assert!(part.pairs <= tiling.pairs && channels <= tiling.channels, "no more than a task takes");
        assert!(PRODUCTS * product <= to.len(), "room for every product");
        let volume: usize = tiling.source.iter().product();
        for channel in 0..channels {
            for pair in 0..part.pairs {
                let [z, y] = part.corner(pair);
                let mut lines = [[zeros; 4]; 4];
                for (y_in, lines) in lines.iter_mut().enumerate() {
                    for (z_in, line) in lines.iter_mut().enumerate() {
                        *line = tiling.line(source, zeros, channel, z + z_in, y + y_in);
                    }
                }
                // The next channel's; those of the first two rows were asked for with the pair
                // before.
                for lines in &lines[if pair == 0 { 0 } else { 2 }..] {
                    lines.iter().for_each(|line| prefetch(line.as_ptr().wrapping_add(volume), width));
                }
                // SAFETY: the assertions bound every write, `line` every read; the instruction set
                // is dispatch's choice.
                unsafe {
                    let to = to.as_mut_ptr().add(channel * tiling.channel() + pair * pitch);
                    for index in 0..PRODUCTS {
                        for x in (0..before).chain(before + width..pitch) {
                            to.add(index * product + x).write(0.0);
                        }
                    }
                    for x in starts(width, V::N) {
                        let mut along_z = [[V::splat(0.0); 4]; 4];
                        for (values, [a, b, c, d]) in along_z.iter_mut().zip(&lines) {
                            let load = |line: &[f32]| V::load(line.as_ptr().add(x));
                            *values = differences([load(a), load(b), load(c), load(d)]);
                        }
                        let [a, b, c, d] = along_z;
                        for z in 0..4 {
                            let along_y = differences([a[z], b[z], c[z], d[z]]);
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
