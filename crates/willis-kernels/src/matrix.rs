//! Products of matrices that lie anywhere in slices, on the calling thread; who calls decides what
//! runs in parallel.

use gemm::{Parallelism, gemm};

use crate::shared::Disjoint;

/// A matrix somewhere in a slice.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a> {
    pub values: &'a [f32],
    pub size: [usize; 2],
    pub strides: [usize; 2],
}

impl<'a> Matrix<'a> {
    /// The whole slice as rows of `width`.
    pub fn of_rows(values: &'a [f32], width: usize) -> Self {
        Self { values, size: [values.len() / width, width], strides: [width, 1] }
    }

    pub fn transposed(self) -> Self {
        let ([rows, columns], [down, right]) = (self.size, self.strides);
        Self { size: [columns, rows], strides: [right, down], ..self }
    }
}

/// A matrix to write, its rows contiguous.
pub(crate) struct MatrixMut<'a> {
    pub values: &'a mut [f32],
    pub size: [usize; 2],
    pub row_stride: usize,
}

impl<'a> MatrixMut<'a> {
    /// The whole slice as rows of `width`.
    pub fn of_rows(values: &'a mut [f32], width: usize) -> Self {
        Self { size: [values.len() / width, width], row_stride: width, values }
    }
}

/// `to = scale a b`, or `to += scale a b`.
pub(crate) fn product(a: Matrix<'_>, b: Matrix<'_>, scale: f32, add: bool, to: MatrixMut<'_>) {
    let MatrixMut { values, size, row_stride } = to;
    // SAFETY: the slice is exclusive.
    unsafe { product_within(a, b, scale, add, &Disjoint::new(values), 0, size, row_stride) }
}

/// [`product`] into a part of an output that other tasks fill elsewhere: rows `row_stride` apart,
/// the first at `start`.
///
/// # Safety
/// While this runs, nothing else may touch the elements it writes.
#[allow(clippy::too_many_arguments)]
pub(crate) unsafe fn product_within(
    a: Matrix<'_>,
    b: Matrix<'_>,
    scale: f32,
    add: bool,
    to: &Disjoint<'_>,
    start: usize,
    size: [usize; 2],
    row_stride: usize,
) {
    let ([m, k], [k_too, n]) = (a.size, b.size);
    assert!(k == k_too && size == [m, n] && m * n * k > 0, "{:?} times {:?} into {size:?}", a.size, b.size);
    let holds = |length: usize, size: [usize; 2], strides: [usize; 2]| {
        (size[0] - 1) * strides[0] + (size[1] - 1) * strides[1] < length
    };
    assert!(holds(a.values.len(), a.size, a.strides) && holds(b.values.len(), b.size, b.strides));
    assert!(row_stride >= n, "rows of {n} that overlap");
    let to = to.pointer(start, (m - 1) * row_stride + n);
    // SAFETY: every index of the three matrices lies in its slice by the assertions above and
    // `pointer`'s; the rows of `to` do not overlap, and nothing else touches them by the caller's
    // promise.
    unsafe {
        gemm(
            m,
            n,
            k,
            to,
            1,
            row_stride as isize,
            add,
            a.values.as_ptr(),
            a.strides[1] as isize,
            a.strides[0] as isize,
            b.values.as_ptr(),
            b.strides[1] as isize,
            b.strides[0] as isize,
            1.0f32,
            scale,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}
