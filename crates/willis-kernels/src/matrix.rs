//! Matrix products on the calling thread, over strided views of slices; callers decide what runs in
//! parallel.

use gemm::{Parallelism, gemm};

use crate::shared::DisjointSlice;

/// A strided matrix within a slice.
#[derive(Clone, Copy)]
pub(crate) struct MatrixView<'a> {
    pub values: &'a [f32],
    /// Rows and columns.
    pub size: [usize; 2],
    /// Floats from one row to the next, and from one column to the next.
    pub strides: [usize; 2],
}

impl<'a> MatrixView<'a> {
    /// The whole slice as rows of `width`.
    pub fn of_rows(values: &'a [f32], width: usize) -> Self {
        Self { values, size: [values.len() / width, width], strides: [width, 1] }
    }

    pub fn transposed(self) -> Self {
        let ([rows, columns], [row_stride, column_stride]) = (self.size, self.strides);
        Self { size: [columns, rows], strides: [column_stride, row_stride], ..self }
    }
}

/// A mutable matrix whose rows are contiguous.
pub(crate) struct MatrixViewMut<'a> {
    pub values: &'a mut [f32],
    pub size: [usize; 2],
    pub row_stride: usize,
}

impl<'a> MatrixViewMut<'a> {
    /// The whole slice as rows of `width`.
    pub fn of_rows(values: &'a mut [f32], width: usize) -> Self {
        Self { size: [values.len() / width, width], row_stride: width, values }
    }
}

/// A matrix of contiguous rows within an output that parallel tasks share.
pub(crate) struct SharedMatrix<'a> {
    pub values: &'a DisjointSlice<'a>,
    /// Index of the first element.
    pub start: usize,
    pub size: [usize; 2],
    pub row_stride: usize,
}

/// `to = scale a b`, or `to += scale a b` if `add`.
pub(crate) fn product(a: MatrixView<'_>, b: MatrixView<'_>, scale: f32, add: bool, to: MatrixViewMut<'_>) {
    let MatrixViewMut { values, size, row_stride } = to;
    let to = SharedMatrix { values: &DisjointSlice::new(values), start: 0, size, row_stride };
    // SAFETY: `values` is borrowed exclusively until this function returns.
    unsafe { product_shared(a, b, scale, add, to) }
}

/// [`product`] into an output that other tasks write elsewhere.
///
/// # Safety
/// While this runs, nothing else may access the elements of `to`.
pub(crate) unsafe fn product_shared(a: MatrixView<'_>, b: MatrixView<'_>, scale: f32, add: bool, to: SharedMatrix<'_>) {
    let SharedMatrix { values, start, size, row_stride } = to;
    let ([m, k], [inner, n]) = (a.size, b.size);
    assert!(k == inner && size == [m, n] && m * n * k > 0, "{:?} times {:?} into {size:?}", a.size, b.size);
    let is_inside = |length: usize, size: [usize; 2], strides: [usize; 2]| {
        (size[0] - 1) * strides[0] + (size[1] - 1) * strides[1] < length
    };
    assert!(is_inside(a.values.len(), a.size, a.strides) && is_inside(b.values.len(), b.size, b.strides));
    assert!(row_stride >= n, "rows of {n} overlap at a stride of {row_stride}");
    let to = values.pointer(start, (m - 1) * row_stride + n);
    // SAFETY: by the assertions above and in `pointer`, every element of the three matrices is
    // inside its slice; the rows of `to` do not overlap, and the caller guarantees that nothing
    // else accesses them.
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
