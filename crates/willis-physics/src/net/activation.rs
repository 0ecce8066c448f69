//! Activations over jets, and their adjoints.
//!
//! With `a = f(z)` and `s₁..s₄` the derivatives of `f` at z, along a direction:
//!
//! ```text
//! first    a' = s₁ z'
//! second   a" = s₁ z" + s₂ z'²
//! third    a‴ = s₁ z‴ + 3 s₂ z' z" + s₃ z'³
//! Laplacian with weights c   a_L = s₁ z_L + s₂ Σ c z'²
//! ```
//!
//! The adjoint of each line follows by the product rule; third derivatives need s₄.

use serde::{Deserialize, Serialize};

use crate::real::Real;
use crate::streams::Streams;

/// Activation of the hidden layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NetActivation {
    /// Hyperbolic tangent.
    Tanh,
    /// Sine.
    Sine,
}

/// Elements whose derivatives of the activation are kept in registers and L1 at a time.
const CHUNK: usize = 64;

/// Value and derivatives s₁..s₄ of the activation at a chunk of elements.
struct Derivatives<F> {
    value: [F; CHUNK],
    s1: [F; CHUNK],
    s2: [F; CHUNK],
    s3: [F; CHUNK],
    s4: [F; CHUNK],
}

impl NetActivation {
    #[inline(always)]
    fn at<F: Real>(self, z: &[F], into: &mut Derivatives<F>) {
        let (one, two, three) = (F::of(1.0), F::of(2.0), F::of(3.0));
        let Derivatives { value, s1, s2, s3, s4 } = into;
        match self {
            Self::Tanh => {
                for i in 0..z.len() {
                    let t = z[i].tanh_lane();
                    let d1 = one - t * t;
                    let d2 = -two * t * d1;
                    let d3 = -two * d1 * (one - three * t * t);
                    value[i] = t;
                    s1[i] = d1;
                    s2[i] = d2;
                    s3[i] = d3;
                    s4[i] = -two * d2 * (one - three * t * t) + F::of(12.0) * t * d1 * d1;
                }
            }
            Self::Sine => {
                for i in 0..z.len() {
                    let (sin, cos) = z[i].sin_cos_lane();
                    value[i] = sin;
                    s1[i] = cos;
                    s2[i] = -sin;
                    s3[i] = -cos;
                    s4[i] = sin;
                }
            }
        }
    }
}

impl<F: Real> Derivatives<F> {
    #[inline(always)]
    fn zero() -> Self {
        let zero = [F::default(); CHUNK];
        Self { value: zero, s1: zero, s2: zero, s3: zero, s4: zero }
    }
}

/// Applies the activation to every stream.
///
/// # Shapes
/// z, a `[S, plane]`
pub(crate) fn forward<F: Real>(activation: NetActivation, streams: &Streams, z: &[F], a: &mut [F]) {
    assert_eq!(z.len(), a.len());
    pulp::Arch::new().dispatch(
        #[inline(always)]
        || forward_lanes(activation, streams, z, a),
    );
}

#[inline(always)]
fn forward_lanes<F: Real>(activation: NetActivation, streams: &Streams, z: &[F], a: &mut [F]) {
    let plane = z.len() / streams.count();
    let mut at = Derivatives::zero();
    for start in (0..plane).step_by(CHUNK) {
        let n = CHUNK.min(plane - start);
        let part = |stream: usize| stream * plane + start..stream * plane + start + n;
        activation.at(&z[part(0)], &mut at);
        a[part(0)].copy_from_slice(&at.value[..n]);
        for direction in streams.directions() {
            let z1 = &z[part(direction.stream(1))];
            let to = &mut a[part(direction.stream(1))];
            for i in 0..n {
                to[i] = at.s1[i] * z1[i];
            }
            if direction.order >= 2 {
                let z2 = &z[part(direction.stream(2))];
                let to = &mut a[part(direction.stream(2))];
                for i in 0..n {
                    to[i] = at.s1[i] * z2[i] + at.s2[i] * z1[i] * z1[i];
                }
                if direction.order == 3 {
                    let z3 = &z[part(direction.stream(3))];
                    let to = &mut a[part(direction.stream(3))];
                    for i in 0..n {
                        to[i] =
                            at.s1[i] * z3[i] + F::of(3.0) * at.s2[i] * z1[i] * z2[i] + at.s3[i] * z1[i] * z1[i] * z1[i];
                    }
                }
            }
        }
        for laplacian in streams.laplacians() {
            let mut squares = [F::default(); CHUNK];
            sum_of_squares(streams, &laplacian.terms, z, plane, start, n, &mut squares);
            let zl = &z[part(laplacian.stream)];
            let to = &mut a[part(laplacian.stream)];
            for i in 0..n {
                to[i] = at.s1[i] * zl[i] + at.s2[i] * squares[i];
            }
        }
    }
}

/// `Σ c z'²` over the directions of a Laplacian.
#[inline(always)]
fn sum_of_squares<F: Real>(
    streams: &Streams,
    terms: &[(usize, f64)],
    z: &[F],
    plane: usize,
    start: usize,
    n: usize,
    squares: &mut [F; CHUNK],
) {
    for &(direction, weight) in terms {
        let first = streams.directions()[direction].stream(1) * plane + start;
        let z1 = &z[first..first + n];
        let weight = F::of(weight);
        for i in 0..n {
            squares[i] += weight * z1[i] * z1[i];
        }
    }
}

/// Turns the adjoint of `a` into the adjoint of `z`, in place.
///
/// # Shapes
/// z, bar `[S, plane]`
pub(crate) fn backward<F: Real>(activation: NetActivation, streams: &Streams, z: &[F], bar: &mut [F]) {
    assert_eq!(z.len(), bar.len());
    pulp::Arch::new().dispatch(
        #[inline(always)]
        || backward_lanes(activation, streams, z, bar),
    );
}

#[inline(always)]
fn backward_lanes<F: Real>(activation: NetActivation, streams: &Streams, z: &[F], bar: &mut [F]) {
    let plane = z.len() / streams.count();
    let (two, three) = (F::of(2.0), F::of(3.0));
    let mut at = Derivatives::zero();
    for start in (0..plane).step_by(CHUNK) {
        let n = CHUNK.min(plane - start);
        let part = |stream: usize| stream * plane + start..stream * plane + start + n;
        activation.at(&z[part(0)], &mut at);
        let mut value = [F::default(); CHUNK];
        let from = &bar[part(0)];
        for i in 0..n {
            value[i] = from[i] * at.s1[i];
        }
        for direction in streams.directions() {
            let z1 = &z[part(direction.stream(1))];
            // The streams of a direction are neighbours.
            let (bar1, higher) = bar[direction.stream(1) * plane..].split_at_mut(plane);
            let bar1 = &mut bar1[start..start + n];
            match direction.order {
                1 => {
                    for i in 0..n {
                        value[i] += bar1[i] * at.s2[i] * z1[i];
                        bar1[i] *= at.s1[i];
                    }
                }
                2 => {
                    let z2 = &z[part(direction.stream(2))];
                    let bar2 = &mut higher[start..start + n];
                    for i in 0..n {
                        value[i] +=
                            bar1[i] * at.s2[i] * z1[i] + bar2[i] * (at.s2[i] * z2[i] + at.s3[i] * z1[i] * z1[i]);
                        bar1[i] = bar1[i] * at.s1[i] + two * bar2[i] * at.s2[i] * z1[i];
                        bar2[i] *= at.s1[i];
                    }
                }
                _ => {
                    let (z2, z3) = (&z[part(direction.stream(2))], &z[part(direction.stream(3))]);
                    let (bar2, bar3) = higher.split_at_mut(plane);
                    let (bar2, bar3) = (&mut bar2[start..start + n], &mut bar3[start..start + n]);
                    for i in 0..n {
                        let square = z1[i] * z1[i];
                        value[i] += bar1[i] * at.s2[i] * z1[i]
                            + bar2[i] * (at.s2[i] * z2[i] + at.s3[i] * square)
                            + bar3[i]
                                * (at.s2[i] * z3[i] + three * at.s3[i] * z1[i] * z2[i] + at.s4[i] * square * z1[i]);
                        bar1[i] = bar1[i] * at.s1[i]
                            + two * bar2[i] * at.s2[i] * z1[i]
                            + three * bar3[i] * (at.s2[i] * z2[i] + at.s3[i] * square);
                        bar2[i] = bar2[i] * at.s1[i] + three * bar3[i] * at.s2[i] * z1[i];
                        bar3[i] *= at.s1[i];
                    }
                }
            }
        }
        for laplacian in streams.laplacians() {
            let mut squares = [F::default(); CHUNK];
            sum_of_squares(streams, &laplacian.terms, z, plane, start, n, &mut squares);
            let mut of_laplacian = [F::default(); CHUNK];
            let from = &mut bar[part(laplacian.stream)];
            let zl = &z[part(laplacian.stream)];
            for i in 0..n {
                value[i] += from[i] * (at.s2[i] * zl[i] + at.s3[i] * squares[i]);
                of_laplacian[i] = two * from[i] * at.s2[i];
                from[i] *= at.s1[i];
            }
            for &(direction, weight) in &laplacian.terms {
                let first = part(streams.directions()[direction].stream(1));
                let weight = F::of(weight);
                let (z1, to) = (&z[first.clone()], &mut bar[first]);
                for i in 0..n {
                    to[i] += weight * of_laplacian[i] * z1[i];
                }
            }
        }
        bar[part(0)].copy_from_slice(&value[..n]);
    }
}
