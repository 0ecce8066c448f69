//! The gradient of the weights: the forward pass is linear in the transformed weights, so their
//! gradient is a sum of products of the transformed lines with transformed rows of the output's
//! gradient, `G^T [(A dy A^T) (B^T x B)] G`.

use std::ops::Range;

use rayon::prelude::*;

use super::{MIN_CHANNELS, PRODUCTS, Part, Tiling, starts};
use crate::conv3d::reduce::{Dots, REGISTER, Reduction};
use crate::shared::with_scratch;
use crate::simd::{Kernel, Lanes, dispatch};

/// Most channels of a task on either side: with more, lines get too short to be worth adding up.
const TASK_CHANNELS: usize = 16;
/// Tasks to make at least. A constant, never the thread count: partial sums must not depend on it.
const MIN_TASKS: usize = 16;

/// A [`Reduction`] whose axes are all of three neighbours.
pub(in crate::conv3d) struct WinogradReduction<'a> {
    reduction: &'a Reduction,
    tiling: Tiling,
    /// What tasks own: group, targets and sources.
    owners: Vec<Owner>,
}

/// The weights between some sources and some targets of a group.
struct Owner {
    group: usize,
    targets: Range<usize>,
    sources: Range<usize>,
}

impl<'a> WinogradReduction<'a> {
    /// `None` where the taps are others, lines short or channels few.
    pub(in crate::conv3d) fn of(reduction: &'a Reduction) -> Option<Self> {
        let Reduction { batch, groups, sources, targets, ref axes } = *reduction;
        let [of_sources, of_targets] = [even(sources), even(targets)];
        let tiling = Tiling::of(axes, of_sources, of_sources + of_targets, batch)?;
        let mut owners = Vec::new();
        for (group, target) in (0..groups).flat_map(|group| (0..targets).step_by(of_targets).map(move |t| (group, t))) {
            owners.extend((0..sources).step_by(of_sources).map(|source| Owner {
                group,
                targets: target..targets.min(target + of_targets),
                sources: source..sources.min(source + of_sources),
            }));
        }
        (sources.min(targets) >= MIN_CHANNELS).then_some(Self { reduction, tiling, owners })
    }

    /// Overwrites `dw`.
    pub(in crate::conv3d) fn run(&self, source: &[f32], dy: &[f32], dw: &mut [f32]) {
        let parts = self.tiling.parts();
        let pieces: Vec<(usize, Part)> =
            (0..self.reduction.batch).flat_map(|item| parts.iter().map(move |&part| (item, part))).collect();
        let chunks = MIN_TASKS.div_ceil(self.owners.len()).min(pieces.len());
        let zeros = vec![0.0; self.tiling.source[2]];
        let partial = |task: usize| {
            let (owner, chunk) = (&self.owners[task / chunks], task % chunks);
            let pieces = &pieces[pieces.len() * chunk / chunks..pieces.len() * (chunk + 1) / chunks];
            self.partial(source, dy, owner, pieces, &zeros)
        };
        let partials: Vec<Vec<f32>> = (0..self.owners.len() * chunks).into_par_iter().map(partial).collect();
        for (owner, partials) in self.owners.iter().zip(partials.chunks(chunks)) {
            self.write(owner, partials, dw);
        }
    }

    /// `[product][target][source][tap along x]`, summed over `pieces`.
    fn partial(&self, source: &[f32], dy: &[f32], owner: &Owner, pieces: &[(usize, Part)], zeros: &[f32]) -> Vec<f32> {
        let Reduction { groups, sources: all_sources, targets: all_targets, .. } = *self.reduction;
        let volume = |extents: [usize; 3]| extents.iter().product::<usize>();
        let (source_volume, target_volume) = (volume(self.tiling.source), volume(self.tiling.target));
        let (sources, targets) = (owner.sources.len(), owner.targets.len());
        let offsets: Vec<usize> =
            (0..sources).flat_map(|source| [0, 1, 2].map(|tap| source * self.tiling.channel() + tap)).collect();
        let mut sums = vec![0.0; PRODUCTS * targets * offsets.len()];
        for &(item, part) in pieces {
            let problem = item * groups + owner.group;
            let source = &source[(problem * all_sources + owner.sources.start) * source_volume..];
            let dy = &dy[(problem * all_targets + owner.targets.start) * target_volume..];
            with_scratch(|spread, lines| {
                self.tiling.spread(&source[..sources * source_volume], part, zeros, spread);
                self.clear_behind(part, spread);
                let pitch = (part.pairs * self.tiling.pitch()).next_multiple_of(REGISTER);
                lines.clear();
                lines.resize(PRODUCTS * targets * pitch, 0.0);
                dispatch(Scatter { tiling: &self.tiling, dy, part, pitch, targets, to: lines });
                let lines = lines.chunks_exact(targets * pitch);
                let sums = sums.chunks_exact_mut(targets * offsets.len());
                for (product, (lines, sums)) in lines.zip(sums).enumerate() {
                    let packed = &spread[product * self.tiling.product()..];
                    dispatch(Dots {
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

    /// Zeros behind the rows of a part, where whole registers read on.
    fn clear_behind(&self, part: Part, spread: &mut [f32]) {
        for lines in spread.chunks_mut(self.tiling.product()).take(PRODUCTS) {
            for channel in lines.chunks_mut(self.tiling.channel()).take(self.tiling.channels) {
                channel[part.pairs * self.tiling.pitch()..][..REGISTER + 2].fill(0.0);
            }
        }
    }

    /// Writes the weights of one owner.
    fn write(&self, owner: &Owner, partials: &[Vec<f32>], dw: &mut [f32]) {
        let Reduction { sources: all_sources, targets: all_targets, .. } = *self.reduction;
        let (sources, targets) = (owner.sources.len(), owner.targets.len());
        for (target, source) in (0..targets).flat_map(|target| (0..sources).map(move |source| (target, source))) {
            let row = (owner.group * all_targets + owner.targets.start + target) * all_sources;
            let kernel = &mut dw[(row + owner.sources.start + source) * 27..][..27];
            for x in 0..3 {
                let sum = |product: usize| {
                    let place = ((product * targets + target) * sources + source) * 3 + x;
                    partials.iter().map(|partial| partial[place]).sum::<f32>()
                };
                for (z, row) in transformed_back(std::array::from_fn(sum)).into_iter().enumerate() {
                    row.into_iter().enumerate().for_each(|(y, value)| kernel[(z * 3 + y) * 3 + x] = value);
                }
            }
        }
    }
}

/// Channels of a task, so that all tasks have about as many.
fn even(channels: usize) -> usize {
    channels.div_ceil(channels.div_ceil(TASK_CHANNELS))
}

/// `G^T m G`: the adjoint of the weights' transform, `[z][y]`.
fn transformed_back(products: [f32; PRODUCTS]) -> [[f32; 3]; 3] {
    let back = |[a, b, c, d]: [f32; 4]| [a + 0.5 * (b + c), 0.5 * (b - c), 0.5 * (b + c) + d];
    let along_y: [[f32; 3]; 4] = std::array::from_fn(|z| back(std::array::from_fn(|y| products[z * 4 + y])));
    let columns: [[f32; 3]; 3] = std::array::from_fn(|y| back(std::array::from_fn(|z| along_y[z][y])));
    std::array::from_fn(|z| std::array::from_fn(|y| columns[y][z]))
}

/// A of the transform.
#[inline(always)]
unsafe fn scattered<V: Lanes>([a, b]: [V; 2]) -> [V; 4] {
    // SAFETY: the caller's instruction set is that of `V`.
    unsafe { [a, a.add(b), a.sub(b), V::splat(0.0).sub(b)] }
}

/// The sixteen products' right sides, `[product][target][pair of rows][x]`, from the rows of the
/// output's gradient.
struct Scatter<'a> {
    tiling: &'a Tiling,
    dy: &'a [f32],
    part: Part,
    /// Floats from one target's lines to the next.
    pitch: usize,
    targets: usize,
    /// Zeros, of which those between rows stay.
    to: &'a mut [f32],
}

impl Kernel for Scatter<'_> {
    type Output = ();

    // Loops instead of closures: what is not inlined would lose the instruction set.
    #[inline(always)]
    fn run<V: Lanes>(self) {
        let Self { tiling, dy, part, pitch, targets, to } = self;
        let [depth, height, width] = tiling.target;
        let product = targets * pitch;
        assert!(width >= V::N && part.pairs * tiling.pitch() <= pitch, "a line holds the rows");
        assert!(PRODUCTS * product <= to.len(), "every product has its lines");
        for target in 0..targets {
            for pair in 0..part.pairs {
                let [z, y] = part.corner(pair);
                let row = |z: usize, y: usize| {
                    (z < depth && y < height).then(|| &dy[((target * depth + z) * height + y) * width..][..width])
                };
                let rows = [[row(z, y), row(z + 1, y)], [row(z, y + 1), row(z + 1, y + 1)]];
                // SAFETY: the assertions bound every write, the slices every read; the instruction
                // set is dispatch's choice.
                unsafe {
                    let to = to.as_mut_ptr().add(target * pitch + pair * tiling.pitch());
                    for x in starts(width, V::N) {
                        let mut along_z = [[V::splat(0.0); 4]; 2];
                        for (values, rows) in along_z.iter_mut().zip(rows) {
                            let mut pair = [V::splat(0.0); 2];
                            for (value, row) in pair.iter_mut().zip(rows) {
                                if let Some(row) = row {
                                    *value = V::load(row.as_ptr().add(x));
                                }
                            }
                            *values = scattered(pair);
                        }
                        let [first, second] = along_z;
                        for z in 0..4 {
                            for (y, value) in scattered([first[z], second[z]]).into_iter().enumerate() {
                                value.store(to.add((z * 4 + y) * product + x));
                            }
                        }
                    }
                }
            }
        }
    }
}
