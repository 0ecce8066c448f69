//! Helpers of parallel kernels: scratch memory per thread, and outputs that tasks write in disjoint
//! pieces.

use std::cell::Cell;
use std::marker::PhantomData;

thread_local! {
    static SCRATCH: Cell<(Vec<f32>, Vec<f32>)> = const { Cell::new((Vec::new(), Vec::new())) };
}

/// Calls `work` with this thread's two scratch buffers.
///
/// The buffers keep their memory and contents between calls, so `work` must not rely on the values
/// it finds.
pub(crate) fn with_scratch<R>(work: impl FnOnce(&mut Vec<f32>, &mut Vec<f32>) -> R) -> R {
    let (mut first, mut second) = SCRATCH.take();
    let result = work(&mut first, &mut second);
    SCRATCH.set((first, second));
    result
}

/// An output slice that parallel tasks write in pieces which never overlap but need not be
/// contiguous.
pub(crate) struct DisjointSlice<'a> {
    start: *mut f32,
    length: usize,
    owner: PhantomData<&'a mut [f32]>,
}

// SAFETY: elements are accessed only through `slice` and `pointer`, whose callers guarantee that no
// two tasks access the same element.
unsafe impl Sync for DisjointSlice<'_> {}

impl<'a> DisjointSlice<'a> {
    pub(crate) fn new(values: &'a mut [f32]) -> Self {
        Self { start: values.as_mut_ptr(), length: values.len(), owner: PhantomData }
    }

    /// Pointer to a piece, for code that writes only parts of it.
    pub(crate) fn pointer(&self, start: usize, length: usize) -> *mut f32 {
        assert!(start <= self.length && length <= self.length - start, "piece {start}+{length} of {}", self.length);
        // SAFETY: `start` is at most the length of the slice by the assertion.
        unsafe { self.start.add(start) }
    }

    /// A piece of the slice.
    ///
    /// # Safety
    /// While the returned slice lives, no other live slice of this output may overlap it.
    #[expect(clippy::mut_from_ref, reason = "tasks share the output; the caller keeps their slices disjoint")]
    pub(crate) unsafe fn slice(&self, start: usize, length: usize) -> &mut [f32] {
        // SAFETY: `pointer` asserts that the piece is in bounds; the caller guarantees that it is
        // exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.pointer(start, length), length) }
    }
}

/// Sum in f64 over f32 partial sums of short runs: accurate enough for gradients, and as fast as a
/// sum in f32.
pub(crate) fn sum(values: &[f32]) -> f64 {
    values
        .chunks(256)
        .map(|run| {
            let mut lanes = [0.0_f32; 16];
            let chunks = run.chunks_exact(16);
            let rest: f32 = chunks.remainder().iter().sum();
            chunks.for_each(|chunk| lanes.iter_mut().zip(chunk).for_each(|(lane, value)| *lane += value));
            f64::from(lanes.iter().sum::<f32>() + rest)
        })
        .sum()
}
