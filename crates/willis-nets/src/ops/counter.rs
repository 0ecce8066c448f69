//! How many multiplications operations ask for.

use std::sync::atomic::{AtomicU64, Ordering};

static MULTIPLICATIONS: AtomicU64 = AtomicU64::new(0);

/// Counts multiply-accumulates of a convolution, linear layer or attention.
pub(crate) fn count(multiplications: usize) {
    MULTIPLICATIONS.fetch_add(multiplications as u64, Ordering::Relaxed);
}

/// The value of `work`, and the multiply-accumulates of convolutions, linear layers and attention
/// in it. Counts the whole process: nothing else may run nets meanwhile.
pub fn multiplications<T>(work: impl FnOnce() -> T) -> (T, u64) {
    let before = MULTIPLICATIONS.load(Ordering::Relaxed);
    let value = work();
    (value, MULTIPLICATIONS.load(Ordering::Relaxed) - before)
}
