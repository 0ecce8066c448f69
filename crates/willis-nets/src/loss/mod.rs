//! Losses: segmentation with its terms, binary labels, AUC margin, and the balance of terms.
//!
//! A loss over fifteen channels of a whole patch takes many passes over memory if it is built from
//! tensor operations. The segmentation loss therefore computes its value and its gradient with
//! respect to the logits together, on slices; [`crate::ops::with_gradient`] connects it to
//! autodiff.

pub mod asl;
pub mod auc_margin;
pub mod balance;
pub mod class;
pub mod cldice;
pub mod robust;
pub mod segmentation;
pub mod tversky;

/// Target and prediction of the specification's golden values: a tube of 16³ voxels along the first
/// axis.
#[cfg(test)]
pub(crate) fn tube() -> (Vec<bool>, Vec<f32>) {
    let target = |i: usize| {
        let (x, y, z) = ((i / 256) as i32, (i / 16 % 16) as i32, (i % 16) as i32);
        (2..=13).contains(&x) && (y - 8).pow(2) + (z - 8).pow(2) <= 6
    };
    let target: Vec<bool> = (0..4096).map(target).collect();
    let noise = crate::golden::stream("pred").map(|t| 0.2 * (t + 1.0) / 2.0);
    let pred = target.iter().zip(noise).map(|(&g, n)| (if g { 0.8 + n } else { n }) as f32).collect();
    (target, pred)
}

/// Asserts that a gradient equals central differences of `f` at the given indices.
#[cfg(test)]
pub(crate) fn assert_gradient(step: f32, f: impl Fn(&[f32]) -> f64, x: &[f32], gradient: &[f32], indices: &[usize]) {
    for &i in indices {
        let moved = |by: f32| {
            let mut x = x.to_vec();
            x[i] += by;
            f(&x)
        };
        let numeric = (moved(step) - moved(-step)) / (2.0 * f64::from(step));
        let got = f64::from(gradient[i]);
        assert!((got - numeric).abs() <= 2e-3 * numeric.abs() + 2e-5, "[{i}] {got}, central difference {numeric}");
    }
}
