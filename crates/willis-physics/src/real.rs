//! The two number types of the solver, f64 and f32.
//!
//! `tanh` and `sin_cos` are written without branches and table look-ups, so that loops over them
//! are vectorised. They have the accuracy of the type (a few units in the last place).

use nalgebra::RealField;

/// `f32` or `f64`.
pub trait Real: RealField + Copy + Default {
    /// Converts from `f64`, rounding.
    fn of(value: f64) -> Self;
    /// Converts to `f64`, exactly.
    fn as_f64(self) -> f64;
    /// Hyperbolic tangent for vectorised loops.
    fn tanh_lane(self) -> Self;
    /// Sine and cosine for vectorised loops; the argument must be below 1e5 in magnitude.
    fn sin_cos_lane(self) -> (Self, Self);
}

/// Converts a slice to another number type.
pub fn convert<A: Real, B: Real>(values: &[A]) -> Vec<B> {
    values.iter().map(|v| B::of(v.as_f64())).collect()
}

/// Inner product with a fixed order of summation.
pub fn dot<F: Real>(a: &[F], b: &[F]) -> F {
    assert_eq!(a.len(), b.len(), "inner product of vectors of different lengths");
    pulp::Arch::new().dispatch(
        #[inline(always)]
        || dot_lanes(a, b),
    )
}

/// [`dot`] in the instruction set of the caller.
#[inline(always)]
pub(crate) fn dot_lanes<F: Real>(a: &[F], b: &[F]) -> F {
    const LANES: usize = 32;
    let mut sums = [F::default(); LANES];
    let whole = a.len() / LANES * LANES;
    for start in (0..whole).step_by(LANES) {
        let (a, b) = (&a[start..start + LANES], &b[start..start + LANES]);
        for i in 0..LANES {
            sums[i] += a[i] * b[i];
        }
    }
    let mut total = F::default();
    for sum in sums {
        total += sum;
    }
    for i in whole..a.len() {
        total += a[i] * b[i];
    }
    total
}

/// `to += factor * from`.
pub fn add_scaled<F: Real>(to: &mut [F], factor: F, from: &[F]) {
    assert_eq!(to.len(), from.len(), "sum of vectors of different lengths");
    pulp::Arch::new().dispatch(
        #[inline(always)]
        || {
            for i in 0..to.len() {
                to[i] += factor * from[i];
            }
        },
    );
}

/// Largest magnitude.
pub fn max_abs<F: Real>(values: &[F]) -> F {
    values.iter().fold(F::default(), |max, v| if v.abs() > max { v.abs() } else { max })
}

/// Implements [`Real`] for a float whose exponent field starts at bit `$mantissa`.
macro_rules! impl_real {
    (
        $float:ident, $bits:ty, $mantissa:literal, $bias:literal, $magic:expr, $saturated:expr,
        ln2: [$ln2_high:expr, $ln2_low:expr], pi: [$($pi:expr),*],
        exp: [$($exp:expr),*], sin: [$($sin:expr),*], cos: [$($cos:expr),*]
    ) => {
        impl Real for $float {
            #[inline(always)]
            fn of(value: f64) -> Self {
                value as Self
            }

            #[inline(always)]
            fn as_f64(self) -> f64 {
                f64::from(self)
            }

            #[inline(always)]
            fn tanh_lane(self) -> Self {
                let bits = self.to_bits();
                let sign = bits & (1 << (<$bits>::BITS - 1));
                let magnitude = <$float>::from_bits(bits ^ sign);
                let x = if magnitude < $saturated { magnitude } else { $saturated } * -2.0;
                // e^x - 1 = 2^n (e^r - 1) + (2^n - 1), exact near x = 0, where n = 0.
                let shifted = x * std::$float::consts::LOG2_E + $magic;
                let n = shifted - $magic;
                let r = (x - n * $ln2_high) - n * $ln2_low;
                let power = <$float>::from_bits(shifted.to_bits().wrapping_add($bias) << $mantissa);
                let mut p = 0.0;
                $(p = p * r + $exp;)*
                let less_one = power * (p * r) + (power - 1.0);
                let result = -less_one / (2.0 + less_one);
                // NaN stays NaN: the comparison above would replace it by the bound.
                let result = if magnitude.is_nan() { magnitude } else { result };
                <$float>::from_bits(result.to_bits() | sign)
            }

            #[inline(always)]
            fn sin_cos_lane(self) -> (Self, Self) {
                let shifted = self * std::$float::consts::FRAC_2_PI + $magic;
                let n = shifted - $magic;
                let quadrant = shifted.to_bits() & 3;
                let mut r = self;
                $(r -= n * $pi;)*
                let square = r * r;
                let mut sin = 0.0;
                $(sin = sin * square + $sin;)*
                let sin = sin * square * r + r;
                let mut cos = 0.0;
                $(cos = cos * square + $cos;)*
                let cos = cos * square + 1.0;
                let (s, c) = if quadrant & 1 == 1 { (cos, sin) } else { (sin, cos) };
                let flip = |value: $float, negative: bool| if negative { -value } else { value };
                (flip(s, quadrant & 2 == 2), flip(c, (quadrant + 1) & 2 == 2))
            }
        }
    };
}

impl_real!(
    f64, u64, 52, 1023, 6_755_399_441_055_744.0, 20.0,
    ln2: [6.931_471_803_691_238e-1, 1.908_214_929_270_587_7e-10],
    pi: [1.570_796_326_734_125_6, 6.077_100_506_303_966e-11, 2.022_266_248_795_950_7e-21],
    exp: [
        1.0 / 6_227_020_800.0, 1.0 / 479_001_600.0, 1.0 / 39_916_800.0, 1.0 / 3_628_800.0, 1.0 / 362_880.0,
        1.0 / 40_320.0, 1.0 / 5_040.0, 1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0
    ],
    sin: [
        1.0 / 355_687_428_096_000.0, -1.0 / 1_307_674_368_000.0, 1.0 / 6_227_020_800.0, -1.0 / 39_916_800.0,
        1.0 / 362_880.0, -1.0 / 5_040.0, 1.0 / 120.0, -1.0 / 6.0
    ],
    cos: [
        1.0 / 20_922_789_888_000.0, -1.0 / 87_178_291_200.0, 1.0 / 479_001_600.0, -1.0 / 3_628_800.0,
        1.0 / 40_320.0, -1.0 / 720.0, 1.0 / 24.0, -0.5
    ]
);

impl_real!(
    f32, u32, 23, 127, 12_582_912.0, 10.0,
    ln2: [6.931_457_5e-1, 1.428_606_8e-6],
    pi: [1.570_312_5, 4.837_513e-4, 7.549_79e-8],
    exp: [1.0 / 5_040.0, 1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0],
    sin: [1.0 / 362_880.0, -1.0 / 5_040.0, 1.0 / 120.0, -1.0 / 6.0],
    cos: [-1.0 / 3_628_800.0, 1.0 / 40_320.0, -1.0 / 720.0, 1.0 / 24.0, -0.5]
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_have_the_accuracy_of_the_type() {
        for i in -4000..=4000 {
            let x = f64::from(i) * 0.007_13;
            let (sin, cos) = x.sin_cos_lane();
            let errors = [(x.tanh_lane(), x.tanh()), (sin, x.sin()), (cos, x.cos())];
            for (got, want) in errors {
                assert!((got - want).abs() <= 8e-16 * want.abs().max(0.25), "{x}: {got} {want}");
            }
            let single = x as f32;
            let (sin, cos) = single.sin_cos_lane();
            for (got, want) in [(single.tanh_lane(), single.tanh()), (sin, single.sin()), (cos, single.cos())] {
                assert!((got - want).abs() <= 3e-7, "{single}: {got} {want}");
            }
        }
        for x in [1e-9, -3e-5, 1e-3] {
            assert!((f64::tanh_lane(x) / x.tanh() - 1.0).abs() < 1e-15);
        }
        assert!(f64::NAN.tanh_lane().is_nan() && f32::NAN.tanh_lane().is_nan());
        assert_eq!((f64::INFINITY.tanh_lane(), f32::NEG_INFINITY.tanh_lane()), (1.0, -1.0));
    }

    #[test]
    fn inner_products() {
        let a: Vec<f64> = (0..77).map(f64::from).collect();
        assert_eq!(dot(&a, &a), 76.0 * 77.0 * 153.0 / 6.0);
        let mut b = vec![1.0; 77];
        add_scaled(&mut b, 2.0, &a);
        assert_eq!((b[0], b[76], max_abs(&[-3.0, 2.0])), (1.0, 153.0, 3.0));
    }
}
