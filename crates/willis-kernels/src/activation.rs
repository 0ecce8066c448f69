//! GELU with the exact error function, leaky ReLU, softmax, and their gradients.
//!
//! The loops are plain Rust that the compiler vectorises for each instruction set.

use crate::simd::{Lanes, SimdKernel, Supported, dispatch, mul_add};
use rayon::prelude::*;
use std::f32::consts::{FRAC_1_SQRT_2, LOG2_E};

/// Floats per task of the parallel loops.
const TASK_FLOATS: usize = 16 * 1024;

/// GELU, `y = x Phi(x)` with the normal distribution function Phi; overwrites `y`. The absolute
/// error is at most 1e-6.
///
/// # Panics
/// If the lengths differ.
pub fn gelu(x: &[f32], y: &mut [f32]) {
    zip_map(x, x, y, GeluFn);
}

/// Gradient of the input of [`gelu`], `dx = dy (Phi(x) + x phi(x))` with the normal density phi;
/// overwrites `dx`.
///
/// # Panics
/// If the lengths differ.
pub fn gelu_backward(x: &[f32], dy: &[f32], dx: &mut [f32]) {
    zip_map(x, dy, dx, GeluGradientFn);
}

/// Leaky ReLU, `y = x` where x is positive and `y = slope x` elsewhere; overwrites `y`. A slope of
/// 0 gives ReLU.
///
/// # Panics
/// If the lengths differ.
pub fn leaky_relu(slope: f32, x: &[f32], y: &mut [f32]) {
    leaky_relu_backward(slope, x, x, y);
}

/// Gradient of the input of [`leaky_relu`]; overwrites `dx`.
///
/// # Panics
/// If the lengths differ.
pub fn leaky_relu_backward(slope: f32, x: &[f32], dy: &[f32], dx: &mut [f32]) {
    zip_map(x, dy, dx, LeakyReluGradientFn { slope });
}

/// Softmax over rows of `width` floats (the last axis); overwrites `y`.
///
/// # Panics
/// If the lengths differ or are not multiples of `width`.
pub fn softmax(width: usize, x: &[f32], y: &mut [f32]) {
    check_rows(width, x.len(), y.len());
    let rows = TASK_FLOATS.div_ceil(width) * width;
    y.par_chunks_mut(rows).zip(x.par_chunks(rows)).for_each(|(y, x)| dispatch(SoftmaxRows { width, x, y }));
}

/// Softmax across rows, column by column and in place, on the calling thread. With channels first,
/// each row holds one class of a run of voxels.
///
/// # Panics
/// If the rows differ in length.
pub fn softmax_across(rows: &mut [&mut [f32]]) {
    dispatch(SoftmaxColumns { rows });
}

/// Gradient of the input of [`softmax`], given its output: `dx = y (dy - sum(y dy))` per row;
/// overwrites `dx`.
///
/// # Panics
/// As [`softmax`].
pub fn softmax_backward(width: usize, y: &[f32], dy: &[f32], dx: &mut [f32]) {
    check_rows(width, y.len(), dx.len());
    assert_eq!(y.len(), dy.len(), "lengths of y and dy");
    let rows = TASK_FLOATS.div_ceil(width) * width;
    let tasks = dx.par_chunks_mut(rows).zip(y.par_chunks(rows)).zip(dy.par_chunks(rows));
    tasks.for_each(|((dx, y), dy)| dispatch(SoftmaxGradient { width, y, dy, dx }));
}

/// A function of two floats.
trait ElementwiseFn: Copy + Sync {
    /// Must be `#[inline(always)]`, like [`SimdKernel::run`].
    fn of<V: Lanes>(self, a: f32, b: f32) -> f32;
}

/// GELU of the first argument.
#[derive(Clone, Copy)]
struct GeluFn;

impl ElementwiseFn for GeluFn {
    #[inline(always)]
    fn of<V: Lanes>(self, x: f32, _: f32) -> f32 {
        x * normal::<V>(x).0
    }
}

#[derive(Clone, Copy)]
struct GeluGradientFn;

impl ElementwiseFn for GeluGradientFn {
    #[inline(always)]
    fn of<V: Lanes>(self, x: f32, dy: f32) -> f32 {
        const INVERSE_ROOT_TWO_PI: f32 = 0.398_942_3;
        let (cdf, bell) = normal::<V>(x);
        dy * mul_add::<V>(x * INVERSE_ROOT_TWO_PI, bell, cdf)
    }
}

#[derive(Clone, Copy)]
struct LeakyReluGradientFn {
    slope: f32,
}

impl ElementwiseFn for LeakyReluGradientFn {
    /// The gradient of the input. With `dy = x` it is the function itself.
    #[inline(always)]
    fn of<V: Lanes>(self, x: f32, dy: f32) -> f32 {
        if x > 0.0 { dy } else { self.slope * dy }
    }
}

/// `to = map(a, b)` element by element, in parallel.
fn zip_map(a: &[f32], b: &[f32], to: &mut [f32], map: impl ElementwiseFn) {
    assert_eq!([a.len(), b.len()], [to.len(); 2], "one result per element");
    let tasks = to.par_chunks_mut(TASK_FLOATS).zip(a.par_chunks(TASK_FLOATS)).zip(b.par_chunks(TASK_FLOATS));
    tasks.for_each(|((to, a), b)| dispatch(Elementwise { a, b, to, map }));
}

struct Elementwise<'a, M> {
    a: &'a [f32],
    b: &'a [f32],
    to: &'a mut [f32],
    map: M,
}

impl<M: ElementwiseFn> SimdKernel for Elementwise<'_, M> {
    type Output = ();

    #[inline(always)]
    fn run<V: Lanes>(self, _: Supported<V>) {
        self.to.iter_mut().zip(self.a.iter().zip(self.b)).for_each(|(to, (&a, &b))| *to = self.map.of::<V>(a, b));
    }
}

fn check_rows(width: usize, from: usize, to: usize) {
    assert!(width > 0 && from == to && from.is_multiple_of(width), "{from} and {to} floats in rows of {width}");
}

struct SoftmaxRows<'a> {
    width: usize,
    x: &'a [f32],
    y: &'a mut [f32],
}

impl SimdKernel for SoftmaxRows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Lanes>(self, _: Supported<V>) {
        for (y, x) in self.y.chunks_exact_mut(self.width).zip(self.x.chunks_exact(self.width)) {
            y.copy_from_slice(x);
            let scale = 1.0 / exp_minus_max::<V>(y).1;
            y.iter_mut().for_each(|y| *y *= scale);
        }
    }
}

struct SoftmaxColumns<'a, 'b> {
    rows: &'a mut [&'b mut [f32]],
}

impl SimdKernel for SoftmaxColumns<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Lanes>(self, _: Supported<V>) {
        /// Columns computed together; their maxima and sums stay in the first-level cache.
        const RUN: usize = 256;
        let length = self.rows.first().map_or(0, |row| row.len());
        assert!(self.rows.iter().all(|row| row.len() == length), "rows of different lengths");
        for start in (0..length).step_by(RUN) {
            let columns = start..length.min(start + RUN);
            let (mut largest, mut sum) = ([f32::NEG_INFINITY; RUN], [0.0_f32; RUN]);
            for row in self.rows.iter() {
                largest.iter_mut().zip(&row[columns.clone()]).for_each(|(l, &v)| *l = if v > *l { v } else { *l });
            }
            for row in self.rows.iter_mut() {
                for ((value, &largest), sum) in row[columns.clone()].iter_mut().zip(&largest).zip(&mut sum) {
                    *value = exp::<V>(*value - largest);
                    *sum += *value;
                }
            }
            sum.iter_mut().for_each(|sum| *sum = 1.0 / *sum);
            for row in self.rows.iter_mut() {
                row[columns.clone()].iter_mut().zip(&sum).for_each(|(value, scale)| *value *= scale);
            }
        }
    }
}

struct SoftmaxGradient<'a> {
    width: usize,
    y: &'a [f32],
    dy: &'a [f32],
    dx: &'a mut [f32],
}

impl SimdKernel for SoftmaxGradient<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Lanes>(self, _: Supported<V>) {
        let rows = self.y.chunks_exact(self.width).zip(self.dy.chunks_exact(self.width));
        for (dx, (y, dy)) in self.dx.chunks_exact_mut(self.width).zip(rows) {
            let mean = lane_sum(y, dy, |y, dy| y * dy);
            dx.iter_mut().zip(y.iter().zip(dy)).for_each(|(dx, (y, dy))| *dx = y * (dy - mean));
        }
    }
}

/// Sum of `term(a, b)` over one row, as sixteen interleaved partial sums.
#[inline(always)]
pub(crate) fn lane_sum(a: &[f32], b: &[f32], term: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [0.0_f32; 16];
    let (heads_a, heads_b) = (a.chunks_exact(16), b.chunks_exact(16));
    let rest = heads_a.remainder().iter().zip(heads_b.remainder()).map(|(&a, &b)| term(a, b)).sum::<f32>();
    for (a, b) in heads_a.zip(heads_b) {
        for lane in 0..16 {
            lanes[lane] += term(a[lane], b[lane]);
        }
    }
    sum_of_lanes(lanes) + rest
}

/// Sum of the lanes by repeated halving, which keeps the additions in vectors. Sequential additions
/// would cost more than the sums of a short row.
#[inline(always)]
fn sum_of_lanes(mut lanes: [f32; 16]) -> f32 {
    for half in [8, 4, 2, 1] {
        for lane in 0..half {
            lanes[lane] += lanes[lane + half];
        }
    }
    lanes[0]
}

/// Largest value of a row, from sixteen interleaved partial maxima; minus infinity if the row is
/// empty.
///
/// NaN values are ignored.
#[inline(always)]
pub(crate) fn lane_max(values: &[f32]) -> f32 {
    // Unlike `f32::max`, this compiles to one instruction. A NaN is ignored here; softmax still
    // returns NaN, because the sum of the exponentials is NaN.
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let mut lanes = [f32::NEG_INFINITY; 16];
    let heads = values.chunks_exact(16);
    let rest = heads.remainder().iter().copied().fold(f32::NEG_INFINITY, larger);
    for head in heads {
        for lane in 0..16 {
            lanes[lane] = larger(lanes[lane], head[lane]);
        }
    }
    lanes.into_iter().fold(rest, larger)
}

/// Replaces a row by `e^(row - m)`, where m is its largest value. Returns m and the sum of the new
/// row, from sixteen interleaved partial sums.
#[inline(always)]
pub(crate) fn exp_minus_max<V: Lanes>(row: &mut [f32]) -> (f32, f32) {
    let largest = lane_max(row);
    let mut lanes = [0.0_f32; 16];
    let mut heads = row.chunks_exact_mut(16);
    for head in &mut heads {
        for lane in 0..16 {
            head[lane] = exp::<V>(head[lane] - largest);
            lanes[lane] += head[lane];
        }
    }
    let rest = heads.into_remainder();
    rest.iter_mut().for_each(|value| *value = exp::<V>(*value - largest));
    (largest, sum_of_lanes(lanes) + rest.iter().sum::<f32>())
}

/// The normal distribution function Phi(x), and `e^(-x^2 / 2)`, which its computation yields.
///
/// # Source
/// Abramowitz and Stegun, formula 7.1.26: erfc with an error of at most 1.5e-7. The formula is used
/// for negative x and mirrored for positive x, so that the left tail keeps its relative precision.
#[inline(always)]
fn normal<V: Lanes>(x: f32) -> (f32, f32) {
    let bell = exp::<V>(-0.5 * x * x);
    let k = 1.0 / mul_add::<V>(0.327_591_1 * FRAC_1_SQRT_2, x.abs(), 1.0);
    let coefficients = [-1.453_152_1, 1.421_413_8, -0.284_496_74, 0.254_829_6];
    let tail = 0.5 * bell * coefficients.iter().fold(1.061_405_4, |sum, &c| mul_add::<V>(sum, k, c)) * k;
    (if x < 0.0 { tail } else { 1.0 - tail }, bell)
}

/// `e^x` with an error of about two units in the last place; 0 below -87.3, and at most `e^88`.
#[inline(always)]
pub(crate) fn exp<V: Lanes>(x: f32) -> f32 {
    // Adding 1.5 * 2^23 rounds to the nearest integer and leaves that integer in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let clamped = x.clamp(-87.3, 88.0);
    let shifted = mul_add::<V>(clamped, LOG2_E, ROUND);
    let whole = shifted - ROUND;
    // ln 2 is split in two parts, so that the remainder keeps its precision.
    let rest = mul_add::<V>(whole, 2.121_944_4e-4, mul_add::<V>(whole, -0.693_359_4, clamped));
    // Taylor series; for |rest| <= ln(2) / 2 the first omitted term is below 1e-8.
    let series = [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0];
    let mantissa = series.iter().fold(1.0 / 5040.0, |sum, &c| mul_add::<V>(sum, rest, c));
    let exponent = shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127) << 23;
    if x < -87.3 { 0.0 } else { mantissa * f32::from_bits(exponent) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// erf to the precision of f64, by a series of positive terms:
    /// `2 / sqrt(pi) e^(-x^2) sum 2^n x^(2n+1) / (2n+1)!!`.
    fn exact_erf(x: f64) -> f64 {
        if x.abs() > 6.0 {
            return x.signum();
        }
        let (mut term, mut sum) = (x, x);
        for n in 1..200 {
            term *= 2.0 * x * x / f64::from(2 * n + 1);
            sum += term;
        }
        sum * (-x * x).exp() * 2.0 / std::f64::consts::PI.sqrt()
    }

    fn grid() -> Vec<f32> {
        (-80_000..=80_000).map(|step| step as f32 * 1e-4).chain([-1e4, -30.0, 30.0, 1e4]).collect()
    }

    #[test]
    fn gelu_and_its_gradient_have_errors_of_at_most_1e_6() {
        let x = grid();
        let (mut y, mut dx) = (vec![0.0; x.len()], vec![0.0; x.len()]);
        gelu(&x, &mut y);
        gelu_backward(&x, &vec![1.0; x.len()], &mut dx);
        for ((&x, &y), &dx) in x.iter().zip(&y).zip(&dx) {
            let value = f64::from(x);
            let cdf = 0.5 + 0.5 * exact_erf(value / std::f64::consts::SQRT_2);
            let slope = cdf + value * (-0.5 * value * value).exp() / (2.0 * std::f64::consts::PI).sqrt();
            assert!((f64::from(y) - value * cdf).abs() <= 1e-6, "gelu({x}) = {y}, expected {}", value * cdf);
            assert!((f64::from(dx) - slope).abs() <= 1e-6, "gelu'({x}) = {dx}, expected {slope}");
        }
    }

    #[test]
    fn gelu_of_nan_is_nan() {
        let mut y = [0.0];
        gelu(&[f32::NAN], &mut y);
        assert!(y[0].is_nan());
    }

    #[test]
    fn exp_is_close_to_the_standard_library() {
        #[derive(Clone, Copy)]
        struct ExpFn;
        impl ElementwiseFn for ExpFn {
            #[inline(always)]
            fn of<V: Lanes>(self, x: f32, _: f32) -> f32 {
                exp::<V>(x)
            }
        }
        let x: Vec<f32> =
            (-8700..=8800).map(|step| step as f32 * 0.01).chain([-1e30, f32::NEG_INFINITY, 0.0]).collect();
        let mut y = vec![f32::NAN; x.len()];
        zip_map(&x, &x, &mut y, ExpFn);
        for (&x, &y) in x.iter().zip(&y) {
            let expected = f64::from(x).exp();
            assert!((f64::from(y) - expected).abs() <= 3e-7 * expected, "exp({x}) = {y}");
        }
        assert_eq!(y[y.len() - 3..], [0.0, 0.0, 1.0]);
    }

    #[test]
    fn softmax_of_known_odds() {
        let x = [0.0, 3.0_f32.ln(), f32::NEG_INFINITY, 1000.0, 1000.0, 1000.0];
        let mut y = [0.0; 6];
        softmax(3, &x, &mut y);
        let expected = [0.25, 0.75, 0.0, 1.0 / 3.0, 1.0 / 3.0, 1.0 / 3.0];
        assert!(y.iter().zip(expected).all(|(got, expected)| (got - expected).abs() < 1e-6), "{y:?}");
    }

    #[test]
    fn softmax_across_rows_is_softmax_of_the_columns() {
        let (classes, voxels) = (5, 300);
        let column =
            |voxel: usize| (0..classes).map(move |class| ((7 * class + voxel) % 13) as f32 - 80.0 * (voxel % 3) as f32);
        let mut rows: Vec<Vec<f32>> =
            (0..classes).map(|class| (0..voxels).map(|voxel| column(voxel).nth(class).unwrap()).collect()).collect();
        softmax_across(&mut rows.iter_mut().map(Vec::as_mut_slice).collect::<Vec<_>>());
        for voxel in 0..voxels {
            let mut expected = vec![0.0; classes];
            softmax(classes, &column(voxel).collect::<Vec<_>>(), &mut expected);
            for (row, expected) in rows.iter().zip(expected) {
                assert!((row[voxel] - expected).abs() <= 1e-6 * expected, "{voxel}: {} {expected}", row[voxel]);
            }
        }
        softmax_across(&mut []);
    }

    #[test]
    fn softmax_gradient_matches_finite_differences() {
        let (x, dy) = ([0.3_f32, -1.2, 2.0, 0.7, 0.1], [1.0_f32, -2.0, 0.5, 3.0, 0.0]);
        let loss = |x: &[f32]| {
            let mut y = [0.0; 5];
            softmax(5, x, &mut y);
            y.iter().zip(dy).map(|(y, dy)| y * dy).sum::<f32>()
        };
        let (mut y, mut dx) = ([0.0; 5], [0.0; 5]);
        softmax(5, &x, &mut y);
        softmax_backward(5, &y, &dy, &mut dx);
        for index in 0..5 {
            let step = |by| {
                let mut x = x;
                x[index] += by;
                loss(&x)
            };
            let slope = (step(1e-2) - step(-1e-2)) / 2e-2;
            assert!((slope - dx[index]).abs() < 1e-3, "{index}: {slope} {}", dx[index]);
        }
    }
}
