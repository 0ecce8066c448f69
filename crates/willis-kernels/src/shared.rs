//! What parallel kernels share: reused scratch memory and outputs written in disjoint pieces.

use std::cell::Cell;
use std::marker::PhantomData;

thread_local! {
    static SCRATCH: Cell<(Vec<f32>, Vec<f32>)> = const { Cell::new((Vec::new(), Vec::new())) };
}

/// Lends two buffers that keep their memory, and old contents, between calls on the same thread.
pub(crate) fn with_scratch<R>(work: impl FnOnce(&mut Vec<f32>, &mut Vec<f32>) -> R) -> R {
    let (mut first, mut second) = SCRATCH.take();
    let result = work(&mut first, &mut second);
    SCRATCH.set((first, second));
    result
}

/// An output slice that parallel tasks fill in places that never overlap but are not contiguous
/// either.
pub(crate) struct Disjoint<'a> {
    start: *mut f32,
    length: usize,
    owner: PhantomData<&'a mut [f32]>,
}

// SAFETY: access goes through `slice`, whose callers promise that no two tasks touch the same
// element.
unsafe impl Sync for Disjoint<'_> {}

impl<'a> Disjoint<'a> {
    pub(crate) fn new(values: &'a mut [f32]) -> Self {
        Self { start: values.as_mut_ptr(), length: values.len(), owner: PhantomData }
    }

    /// Where a piece starts, for code that writes parts of it only.
    pub(crate) fn pointer(&self, start: usize, length: usize) -> *mut f32 {
        assert!(start <= self.length && length <= self.length - start, "piece {start}+{length} of {}", self.length);
        // SAFETY: in bounds by the assertion.
        unsafe { self.start.add(start) }
    }

    /// # Safety
    /// While the returned slice lives, no other live slice of this output may overlap it.
    #[allow(clippy::mut_from_ref)]
    pub(crate) unsafe fn slice(&self, start: usize, length: usize) -> &mut [f32] {
        // SAFETY: in bounds by `pointer`'s assertion, exclusive by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.pointer(start, length), length) }
    }
}

/// Sum in f64 of f32 partial sums over short runs: as exact as needed, and as fast as f32.
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
