//! Counting multiply-accumulates (MACs).

use std::cell::Cell;

thread_local! {
    /// Per thread, so that nets on other threads do not change a count.
    static MACS: Cell<u64> = const { Cell::new(0) };
}

/// Adds the multiply-accumulates of a convolution, linear layer or attention.
pub(crate) fn record_macs(macs: usize) {
    MACS.set(MACS.get() + macs as u64);
}

/// Returns the value of `work` and the multiply-accumulates of the convolutions, linear layers and
/// attention it calls on this thread, forward passes only.
pub fn count_macs<T>(work: impl FnOnce() -> T) -> (T, u64) {
    let before = MACS.get();
    let value = work();
    (value, MACS.get() - before)
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Tensor};

    use super::*;
    use crate::ops::{ConvOptions, conv3d, linear};

    #[test]
    fn macs_of_a_convolution_and_a_linear_layer() {
        let device = Device::flex();
        let x = Tensor::zeros([2, 3, 4, 5, 6], &device);
        let weight = Tensor::zeros([7, 3, 3, 3, 3], &device);
        let (_, macs) = count_macs(|| conv3d(x, weight, None, ConvOptions::cubic(1, 1)));
        assert_eq!(macs, 2 * 7 * (4 * 5 * 6) * 3 * 27);
        let (_, macs) =
            count_macs(|| linear(Tensor::<2>::zeros([5, 3], &device), Tensor::zeros([4, 3], &device), None));
        assert_eq!(macs, 5 * 3 * 4);
    }

    #[test]
    fn other_threads_do_not_raise_a_count() {
        let (_, macs) = count_macs(|| {
            record_macs(1);
            std::thread::spawn(|| record_macs(10)).join().unwrap();
            let (_, inner) = count_macs(|| record_macs(100));
            assert_eq!(inner, 100);
        });
        assert_eq!(macs, 101);
    }
}
