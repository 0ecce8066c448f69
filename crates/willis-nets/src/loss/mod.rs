//! Losses of the vessel net with their gradients, on plain slices where they can be.
//!
//! A loss over a whole patch of fifteen channels touches memory many times when it is built from
//! tensor operations. Here the value and its gradient by the logits are computed together and
//! [`crate::ops::with_gradient`] hands the gradient to autodiff.

pub mod asl;
pub mod cldice;
pub mod segmentation;
pub mod tversky;

/// The tube and the prediction of the specification's golden values, 16³ voxels; its x is the first
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
        assert!((got - numeric).abs() <= 2e-3 * numeric.abs() + 2e-5, "[{i}] {got}, numerically {numeric}");
    }
}
