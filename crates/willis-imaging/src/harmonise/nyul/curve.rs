//! Piecewise linear maps of intensities.

use rayon::prelude::*;

/// A piecewise linear function through knots, extrapolated at both ends with the slope of the last
/// segment.
#[derive(Debug, Clone, PartialEq)]
pub struct PiecewiseLinear {
    /// Segments by rising start; the first and the last are unbounded.
    segments: Vec<Segment>,
}

/// `y = start_y + slope · (x − start_x)`.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Segment {
    start_x: f64,
    start_y: f64,
    slope: f64,
}

impl PiecewiseLinear {
    /// The function through pairs whose `from` never falls. Pairs of equal `from` (tied landmarks)
    /// become one knot at the mean of their `to`; `None` when fewer than two knots are left.
    pub(super) fn through(from: &[f64], to: &[f64]) -> Option<Self> {
        let pairs: Vec<(f64, f64)> = from.iter().copied().zip(to.iter().copied()).collect();
        let mean = |tied: &[(f64, f64)]| tied.iter().map(|p| p.1).sum::<f64>() / tied.len() as f64;
        let knots: Vec<_> = pairs.chunk_by(|a, b| a.0 == b.0).map(|tied| (tied[0].0, mean(tied))).collect();
        let segment = |w: &[(f64, f64)]| {
            let [(x0, y0), (x1, y1)] = [w[0], w[1]];
            Segment { start_x: x0, start_y: y0, slope: (y1 - y0) / (x1 - x0) }
        };
        let segments: Vec<_> = knots.windows(2).map(segment).collect();
        (!segments.is_empty()).then_some(Self { segments })
    }

    /// Value of the function.
    pub fn apply(&self, value: f64) -> f64 {
        // A value at a knot belongs to the segment on its left, as in SciPy's `interp1d`.
        let index = self.segments[1..].iter().map(|s| usize::from(s.start_x < value)).sum::<usize>();
        let s = self.segments[index];
        s.start_y + s.slope * (value - s.start_x)
    }

    /// Values of the function, on every thread.
    pub fn apply_all(&self, values: &[f32]) -> Vec<f32> {
        let mut mapped = vec![0.0; values.len()];
        mapped.par_chunks_mut(1 << 16).zip(values.par_chunks(1 << 16)).for_each(|(mapped, values)| {
            mapped.iter_mut().zip(values).for_each(|(m, &v)| *m = self.apply(f64::from(v)) as f32);
        });
        mapped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tied_landmarks_merge() {
        let line = PiecewiseLinear::through(&[0.0, 1.0, 1.0, 3.0], &[0.0, 2.0, 4.0, 7.0]).unwrap();
        assert_eq!([-1.0, 0.5, 1.0, 2.0, 4.0].map(|v| line.apply(v)), [-3.0, 1.5, 3.0, 5.0, 9.0]);
        assert_eq!(line.apply_all(&[-1.0, 2.0]), [-3.0, 5.0]);
        assert_eq!(PiecewiseLinear::through(&[2.0, 2.0], &[0.0, 1.0]), None);
    }
}
