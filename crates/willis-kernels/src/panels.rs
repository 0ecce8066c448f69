//! Products with a matrix whose columns lie in the lanes: the other side is read where it is, one
//! float at a time, at any distance from the next, and never packed.

use rayon::prelude::*;

use crate::matrix::Matrix;
use crate::simd::{Kernel, Lanes, dispatch, lanes, many_registers};

/// Registers of columns computed together.
const REGISTERS: usize = 2;

/// A matrix `[terms, columns]` in panels of a few columns, `[panel][term][column in panel]`, zeros
/// where there is no column.
pub(crate) struct Panels {
    terms: usize,
    values: Vec<f32>,
}

impl Panels {
    pub fn of(matrix: Matrix<'_>) -> Self {
        let ([terms, columns], [down, right]) = (matrix.size, matrix.strides);
        let width = Self::width();
        let mut values = vec![0.0; columns.div_ceil(width) * terms * width];
        values.par_chunks_mut(terms * width).enumerate().for_each(|(panel, values)| {
            let first = panel * width;
            for (term, values) in values.chunks_exact_mut(width).enumerate() {
                let from = matrix.values[term * down + first * right..].iter().step_by(right);
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

/// Numbers of rows that can be computed together: as many as the registers hold, and fewer.
pub(crate) fn tiles() -> [usize; 2] {
    if many_registers() { [12, 8] } else { [6, 4] }
}

/// One axis along which the terms of a sum lie.
#[derive(Clone, Copy)]
pub(crate) struct Axis {
    pub count: usize,
    pub step: usize,
}

/// `sums[row][column] += sum over terms of source * panel` for one tile of rows.
pub(crate) struct Tile<'a> {
    pub source: &'a [f32],
    /// From one row to the next in `source`; their number is one of [`tiles`].
    pub rows: Axis,
    /// Where a row's terms lie, the last axis fastest.
    pub terms: [Axis; 4],
    pub panel: &'a [f32],
    pub sums: &'a mut [f32],
}

impl Tile<'_> {
    pub fn add(self) {
        dispatch(self);
    }
}

impl Kernel for Tile<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Lanes>(self) {
        match (self.rows.count, V::MANY_REGISTERS) {
            (12, true) => self.sweep::<V, 3, 4>(),
            (8, true) => self.sweep::<V, 2, 4>(),
            (6, false) => self.sweep::<V, 2, 3>(),
            (4, false) => self.sweep::<V, 1, 4>(),
            (rows, _) => unreachable!("no kernel for {rows} rows"),
        }
    }
}

impl Tile<'_> {
    /// `G` groups of `M` rows: a pointer for each group is all that moves.
    #[inline(always)]
    fn sweep<V: Lanes, const G: usize, const M: usize>(self) {
        let (width, stride) = (REGISTERS * V::N, self.rows.step);
        let last: usize = self.terms.iter().map(|axis| (axis.count - 1) * axis.step).sum();
        assert!(last + (G * M - 1) * stride < self.source.len(), "every term lies in the source");
        let count: usize = self.terms.iter().map(|axis| axis.count).product();
        assert_eq!(self.panel.len(), count * width, "one weight per term and column");
        assert_eq!(self.sums.len(), G * M * width, "one sum per row and column");
        let [outermost, outer, middle, inner] = self.terms;
        // SAFETY: the assertions above bound every read and write; the instruction set is
        // dispatch's choice.
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
