//! The map from coordinates to the inputs of a net, with its derivatives.
//!
//! A coordinate is scaled to [-1, 1], or replaced by sines and cosines of multiples of its period,
//! which makes the solution periodic exactly.

use crate::real::Real;
use crate::streams::Streams;

/// How one coordinate enters the net.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Feature {
    /// Linear map of this interval to [-1, 1].
    Scaled {
        /// Lower end.
        low: f64,
        /// Upper end.
        high: f64,
    },
    /// `cos(2π k x / period)` and `sin(2π k x / period)` for k from 1 to `harmonics`.
    Periodic {
        /// Period.
        period: f64,
        /// Number of pairs.
        harmonics: usize,
    },
}

impl Feature {
    /// Number of inputs of the net.
    pub fn count(&self) -> usize {
        match self {
            Self::Scaled { .. } => 1,
            Self::Periodic { harmonics, .. } => 2 * harmonics,
        }
    }

    /// Value and first three derivatives with respect to the coordinate, per input of the net.
    fn derivatives(&self, x: f64, mut each: impl FnMut(usize, [f64; 4])) {
        match *self {
            Self::Scaled { low, high } => {
                each(0, [(2.0 * x - low - high) / (high - low), 2.0 / (high - low), 0.0, 0.0]);
            }
            Self::Periodic { period, harmonics } => {
                for k in 0..harmonics {
                    let rate = std::f64::consts::TAU * (k + 1) as f64 / period;
                    let (s, c) = (rate * x).sin_cos();
                    let (square, cube) = (rate * rate, rate * rate * rate);
                    each(2 * k, [c, -rate * s, -square * c, cube * s]);
                    each(2 * k + 1, [s, rate * c, -square * s, -cube * c]);
                }
            }
        }
    }
}

/// Features of points with their derivatives.
///
/// # Shapes
/// points `[P, inputs]` -> `[S, P, I]`
pub fn tile_features<F: Real>(features: &[Feature], streams: &Streams, points: &[f64]) -> Vec<F> {
    let inputs = features.len();
    let count = points.len() / inputs;
    let width: usize = features.iter().map(Feature::count).sum();
    let mut to = vec![F::default(); streams.count() * count * width];
    for (p, point) in points.chunks_exact(inputs).enumerate() {
        let mut start = 0;
        for (axis, feature) in features.iter().enumerate() {
            feature.derivatives(point[axis], |i, d| {
                let mut set = |stream: usize, value: f64| to[(stream * count + p) * width + start + i] = F::of(value);
                set(0, d[0]);
                for direction in streams.directions() {
                    let rate = direction.vector[axis];
                    for (order, derivative) in d.iter().enumerate().take(direction.order + 1).skip(1) {
                        set(direction.stream(order), derivative * rate.powi(order as i32));
                    }
                }
                for laplacian in streams.laplacians() {
                    let sum: f64 =
                        laplacian.terms.iter().map(|&(k, c)| c * streams.directions()[k].vector[axis].powi(2)).sum();
                    set(laplacian.stream, d[2] * sum);
                }
            });
            start += feature.count();
        }
    }
    to
}
