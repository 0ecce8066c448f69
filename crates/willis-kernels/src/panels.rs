//! Matrix products whose right side is packed in panels and whose left side is read in place, one
//! float at a time and with any stride.
//!
//! The columns of the right side lie in the lanes of vector registers.

use rayon::prelude::*;

use crate::matrix::MatrixView;
use crate::simd::{Lanes, SimdKernel, Supported, dispatch, lanes, many_registers};

/// Registers of columns computed together.
const REGISTERS: usize = 2;

/// A matrix `[terms, columns]` packed as `[panel][term][column in panel]`; the last panel is padded
/// with zeros.
pub(crate) struct Panels {
    terms: usize,
    values: Vec<f32>,
}

impl Panels {
    pub fn pack(matrix: MatrixView<'_>) -> Self {
        let ([terms, columns], [row_stride, column_stride]) = (matrix.size, matrix.strides);
        let width = Self::width();
        let mut values = vec![0.0; columns.div_ceil(width) * terms * width];
        values.par_chunks_mut(terms * width).enumerate().for_each(|(panel, values)| {
            let first = panel * width;
            for (term, values) in values.chunks_exact_mut(width).enumerate() {
                let from = matrix.values[term * row_stride + first * column_stride..].iter().step_by(column_stride);
                values[..width.min(columns - first)].iter_mut().zip(from).for_each(|(to, from)| *to = *from);
            }
        });
        Self { terms, values }
    }

    /// Columns of a panel.
    pub fn width() -> usize {
        REGISTERS * lanes()
    }

    pub fn iter(&self) -> impl Iterator<Item = &[f32]> {
        self.values.chunks_exact(self.terms * Self::width())
    }
}

/// Numbers of rows that can be computed together: as many as the registers hold, and a smaller
/// number.
pub(crate) fn rows_of_tile() -> [usize; 2] {
    if many_registers() { [12, 8] } else { [6, 4] }
}

/// `count` elements, `step` floats apart.
#[derive(Clone, Copy)]
pub(crate) struct StridedAxis {
    pub count: usize,
    pub step: usize,
}

/// `sums[row][column] += sum over terms of source * panel` for one tile of rows.
pub(crate) struct PanelTile<'a> {
    pub source: &'a [f32],
    /// Rows of the tile; their number is one of [`rows_of_tile`].
    pub rows: StridedAxis,
    /// Axes over which the terms of one row are summed, slowest first.
    pub terms: [StridedAxis; 4],
    pub panel: &'a [f32],
    pub sums: &'a mut [f32],
}

impl PanelTile<'_> {
    pub fn add(self) {
        dispatch(self);
    }
}

impl SimdKernel for PanelTile<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Lanes>(self, supported: Supported<V>) {
        match (self.rows.count, V::MANY_REGISTERS) {
            (12, true) => self.sweep::<V, 3, 4>(supported),
            (8, true) => self.sweep::<V, 2, 4>(supported),
            (6, false) => self.sweep::<V, 2, 3>(supported),
            (4, false) => self.sweep::<V, 1, 4>(supported),
            (rows, _) => unreachable!("no kernel for {rows} rows"),
        }
    }
}

impl PanelTile<'_> {
    /// Computes `G` groups of `M` rows. Only one pointer per group advances; the rows of a group
    /// are constant offsets from it.
    #[inline(always)]
    fn sweep<V: Lanes, const G: usize, const M: usize>(self, _: Supported<V>) {
        let (width, stride) = (REGISTERS * V::N, self.rows.step);
        let last: usize = self.terms.iter().map(|axis| (axis.count - 1) * axis.step).sum();
        assert!(last + (G * M - 1) * stride < self.source.len(), "every term is inside the source");
        let count: usize = self.terms.iter().map(|axis| axis.count).product();
        assert_eq!(self.panel.len(), count * width, "one weight per term and column");
        assert_eq!(self.sums.len(), G * M * width, "one sum per row and column");
        let [outermost, outer, middle, inner] = self.terms;
        // SAFETY: the first assertion bounds every read of `source`, the second every read of
        // `panel`, the third every access to `sums`; the token proves that the instructions exist.
        unsafe {
            let written = self.sums.as_mut_ptr();
            let place = |row: usize, part: usize| written.add(row * width + part * V::N);
            let mut sums: [[[V; REGISTERS]; M]; G] = std::array::from_fn(|group| {
                std::array::from_fn(|row| std::array::from_fn(|part| V::load(place(group * M + row, part))))
            });
            let mut weight = self.panel.as_ptr();
            let planes = (0..outermost.count).flat_map(|volume| (0..outer.count).map(move |plane| (volume, plane)));
            for (volume, plane) in planes {
                let plane = volume * outermost.step + plane * outer.step;
                for line in 0..middle.count {
                    let start = self.source.as_ptr().add(plane + line * middle.step);
                    let mut groups: [*const f32; G] = std::array::from_fn(|group| start.add(group * M * stride));
                    for _ in 0..inner.count {
                        let weights: [V; REGISTERS] = std::array::from_fn(|part| V::load(weight.add(part * V::N)));
                        for (group, sums) in groups.iter_mut().zip(&mut sums) {
                            for (row, sums) in sums.iter_mut().enumerate() {
                                let value = V::splat(*group.add(row * stride));
                                for (sum, weight) in sums.iter_mut().zip(weights) {
                                    *sum = weight.mul_add(value, *sum);
                                }
                            }
                            *group = group.wrapping_add(inner.step);
                        }
                        weight = weight.add(width);
                    }
                }
            }
            for (row, sums) in sums.as_flattened().iter().enumerate() {
                for (part, sum) in sums.iter().enumerate() {
                    sum.store(place(row, part));
                }
            }
        }
    }
}
