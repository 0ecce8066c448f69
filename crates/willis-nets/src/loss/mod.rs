//! Losses with their gradients, on plain slices.
//!
//! A loss over a whole patch of fifteen channels touches memory many times when it is built from tensor operations.
//! Here the value and its gradient by the logits are computed together and [`crate::ops::with_gradient`] hands the gradient to autodiff.

pub mod segmentation;
pub mod tversky;

#[cfg(test)]
pub(crate) fn assert_gradient(f: impl Fn(&[f32]) -> f64, x: &[f32], gradient: &[f32], indices: &[usize]) {
    for &i in indices {
        let step = 1e-3;
        let moved = |by: f32| {
            let mut x = x.to_vec();
            x[i] += by;
            f(&x)
        };
        let numeric = (moved(step) - moved(-step)) / (2.0 * f64::from(step));
        let got = f64::from(gradient[i]);
        assert!((got - numeric).abs() <= 2e-3 * numeric.abs() + 2e-5, "[{i}] {got}, numerically {numeric}");
    }
}
