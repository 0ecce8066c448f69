//! Orthonormal Haar transform of tokens along the three axes.

use burn::tensor::Tensor;

/// The seven detail sub-bands of one level, in the order aad, ada, add, daa, dad, dda, ddd, each
/// `[B, D/2, H/2, W/2, C]`. The letters are for the axes D, H, W: `a` is the sum and `d` the
/// difference of neighbours.
pub type Details = [Tensor<5>; 7];

/// Low-pass part of one level: the sum of each 2x2x2 block, divided by `√8`.
///
/// # Shapes
/// x `[B, D, H, W, C]`, even axes -> `[B, D/2, H/2, W/2, C]`
pub fn low_pass(x: Tensor<5>) -> Tensor<5> {
    let low = |x, axis| split(x, axis).0;
    low(low(low(x, 1), 2), 3)
}

/// Low-pass part and details of one level.
///
/// # Shapes
/// x `[B, D, H, W, C]`, even axes -> all `[B, D/2, H/2, W/2, C]`
pub fn transform(x: Tensor<5>) -> (Tensor<5>, Details) {
    let (a, d) = split(x, 1);
    let ((aa, ad), (da, dd)) = (split(a, 2), split(d, 2));
    let (aaa, aad) = split(aa, 3);
    let (ada, add) = split(ad, 3);
    let (daa, dad) = split(da, 3);
    let (dda, ddd) = split(dd, 3);
    (aaa, [aad, ada, add, daa, dad, dda, ddd])
}

/// Inverse of [`transform`].
///
/// # Shapes
/// all `[B, D, H, W, C]` -> `[B, 2D, 2H, 2W, C]`
pub fn inverse(low: Tensor<5>, details: Details) -> Tensor<5> {
    let [aad, ada, add, daa, dad, dda, ddd] = details;
    let aa = join(low, aad, 3);
    let ad = join(ada, add, 3);
    let da = join(daa, dad, 3);
    let dd = join(dda, ddd, 3);
    join(join(aa, ad, 2), join(da, dd, 2), 1)
}

/// Sum of two sets of sub-bands of one size.
pub fn add(a: Details, b: Details) -> Details {
    let mut b = b.into_iter();
    a.map(|band| band + b.next().expect("seven sub-bands"))
}

/// Sums and differences of neighbours along an axis, divided by `√2`.
fn split(x: Tensor<5>, axis: usize) -> (Tensor<5>, Tensor<5>) {
    let dims = x.dims();
    let outer: usize = dims[..axis].iter().product();
    let inner: usize = dims[axis + 1..].iter().product();
    let mut half = dims;
    half[axis] /= 2;
    let pairs = x.reshape([outer * half[axis], 2, inner]);
    let (even, odd) = (pairs.clone().narrow(1, 0, 1), pairs.narrow(1, 1, 1));
    let part = |t: Tensor<3>| (t * std::f64::consts::FRAC_1_SQRT_2).reshape(half);
    (part(even.clone() + odd.clone()), part(even - odd))
}

/// Inverse of [`split`].
fn join(sum: Tensor<5>, difference: Tensor<5>, axis: usize) -> Tensor<5> {
    let half = sum.dims();
    let rows: usize = half[..=axis].iter().product();
    let inner: usize = half[axis + 1..].iter().product();
    let mut dims = half;
    dims[axis] *= 2;
    let part = |t: Tensor<5>| (t * std::f64::consts::FRAC_1_SQRT_2).reshape([rows, 1, inner]);
    let (a, d) = (part(sum), part(difference));
    Tensor::cat(vec![a.clone() + d.clone(), a - d], 1).reshape(dims)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden;
    use burn::tensor::{Device, Tolerance};

    #[test]
    fn the_transform_is_invertible_and_preserves_energy() {
        let x = golden::input([2, 4, 6, 2, 3], &Device::flex());
        let (low, details) = transform(x.clone());
        low_pass(x.clone()).into_data().assert_approx_eq::<f32>(&low.to_data(), Tolerance::absolute(1e-6));
        let energy = |t: &Tensor<5>| t.clone().square().sum().into_scalar::<f32>();
        let parts = energy(&low) + details.iter().map(energy).sum::<f32>();
        assert!((parts / energy(&x) - 1.0).abs() < 1e-5);
        inverse(low, details).into_data().assert_approx_eq::<f32>(&x.into_data(), Tolerance::absolute(1e-5));
    }

    #[test]
    fn the_first_letter_is_depth_and_a_difference_is_first_minus_second() {
        let device = Device::flex();
        let x = Tensor::<1>::from_floats([1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0], &device).reshape([1, 2, 2, 2, 1]);
        let (low, details) = transform(x);
        let value = |t: Tensor<5>| t.into_scalar::<f32>();
        assert!((value(low) - 2f32.sqrt()).abs() < 1e-6);
        for (band, t) in details.into_iter().enumerate() {
            let expected = if band == 3 { 2f32.sqrt() } else { 0.0 };
            assert!((value(t) - expected).abs() < 1e-6, "band {band}");
        }
    }
}
