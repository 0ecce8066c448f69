//! Matrix products over strided views of slices, on the calling thread.

use gemm::{Parallelism, gemm};

use crate::real::Real;

/// A strided matrix within a slice.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a, F> {
    values: &'a [F],
    /// Rows and columns.
    size: [usize; 2],
    /// Distance from one row to the next, and from one column to the next.
    strides: [usize; 2],
}

impl<'a, F: Real> Matrix<'a, F> {
    /// Contiguous rows of `width` numbers.
    pub fn of_rows(values: &'a [F], width: usize) -> Self {
        Self { values, size: [values.len() / width, width], strides: [width, 1] }
    }

    pub fn transposed(self) -> Self {
        let ([rows, columns], [row_stride, column_stride]) = (self.size, self.strides);
        Self { values: self.values, size: [columns, rows], strides: [column_stride, row_stride] }
    }

    fn assert_inside(&self) {
        let last = (self.size[0] - 1) * self.strides[0] + (self.size[1] - 1) * self.strides[1];
        assert!(last < self.values.len(), "a matrix of {:?} exceeds its slice", self.size);
    }
}

/// Whether a product replaces its output or is added to it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Store {
    Replace,
    Add,
}

/// `to = a b`, or `to += a b`, with contiguous rows in `to`.
pub(crate) fn product<F: Real>(a: Matrix<'_, F>, b: Matrix<'_, F>, store: Store, to: &mut [F]) {
    let strides = [b.size[1], 1];
    product_strided(a, b, store, to, strides);
}

/// `to = (a b)ᵀ` with contiguous rows in `to`.
pub(crate) fn product_transposed<F: Real>(a: Matrix<'_, F>, b: Matrix<'_, F>, to: &mut [F]) {
    let strides = [1, a.size[0]];
    product_strided(a, b, Store::Replace, to, strides);
}

fn product_strided<F: Real>(a: Matrix<'_, F>, b: Matrix<'_, F>, store: Store, to: &mut [F], strides: [usize; 2]) {
    let ([m, k], [inner, n]) = (a.size, b.size);
    assert!(k == inner && m * n * k > 0 && to.len() == m * n, "{:?} times {:?} into {}", a.size, b.size, to.len());
    a.assert_inside();
    b.assert_inside();
    // SAFETY: by the assertions above, every element of the three matrices is inside its slice, and
    // the elements of `to` do not overlap, because its strides are those of a dense matrix.
    unsafe {
        gemm(
            m,
            n,
            k,
            to.as_mut_ptr(),
            strides[1] as isize,
            strides[0] as isize,
            store == Store::Add,
            a.values.as_ptr(),
            a.strides[1] as isize,
            a.strides[0] as isize,
            b.values.as_ptr(),
            b.strides[1] as isize,
            b.strides[0] as isize,
            F::of(1.0),
            F::of(1.0),
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}
