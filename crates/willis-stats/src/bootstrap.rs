//! Percentile bootstrap intervals over series or patients.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// A 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// 2.5th percentile.
    pub lo: f64,
    /// 97.5th percentile.
    pub hi: f64,
}

/// 95 % percentile interval of a metric over series drawn with replacement.
///
/// Each sample is `n_series` indices, repeats included. Samples for which `metric` is undefined are
/// discarded. `None` when they are more than half of all samples, or when there are no series.
pub fn interval(
    n_series: usize,
    seed: u64,
    samples: usize,
    metric: impl Fn(&[usize]) -> Option<f64> + Sync,
) -> Option<Interval> {
    let series: Vec<Vec<usize>> = (0..n_series).map(|i| vec![i]).collect();
    interval_by_group(&series, seed, samples, metric)
}

/// As [`interval`], but draws whole groups of series, such as the series of a patient.
///
/// Each sample is the series of `groups.len()` groups.
pub fn interval_by_group(
    groups: &[Vec<usize>],
    seed: u64,
    samples: usize,
    metric: impl Fn(&[usize]) -> Option<f64> + Sync,
) -> Option<Interval> {
    if groups.is_empty() {
        return None;
    }
    let draw = |number: usize| {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(number as u64);
        let one = |_| &groups[below(&mut rng, groups.len())];
        let sample: Vec<usize> = (0..groups.len()).flat_map(one).copied().collect();
        metric(&sample).filter(|value| value.is_finite())
    };
    let mut values: Vec<f64> = (0..samples).into_par_iter().filter_map(draw).collect();
    if values.is_empty() || 2 * values.len() < samples {
        return None;
    }
    values.sort_unstable_by(f64::total_cmp);
    Some(Interval { lo: quantile(&values, 0.025), hi: quantile(&values, 0.975) })
}

/// A uniform number from 0 to `n − 1` by multiplication (Lemire 2019); its bias is below n / 2⁶⁴.
fn below(rng: &mut ChaCha8Rng, n: usize) -> usize {
    ((u128::from(rng.next_u64()) * n as u128) >> 64) as usize
}

/// Quantile of sorted values, linearly interpolated.
fn quantile(sorted: &[f64], q: f64) -> f64 {
    let position = q * (sorted.len() - 1) as f64;
    let below = position.floor() as usize;
    let above = position.ceil() as usize;
    sorted[below] + (sorted[above] - sorted[below]) * position.fract()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mean(values: &[f64], sample: &[usize]) -> Option<f64> {
        Some(sample.iter().map(|i| values[*i]).sum::<f64>() / sample.len() as f64)
    }

    #[test]
    fn interval_of_a_mean_is_two_standard_errors_wide() {
        // Half zeros, half ones: standard error 0.5 / √400 = 0.025.
        let values: Vec<f64> = (0..400).map(|i| f64::from(i % 2)).collect();
        let ci = interval(400, 7, 2000, |sample| mean(&values, sample)).unwrap();
        assert!((ci.lo - (0.5 - 1.96 * 0.025)).abs() < 0.006, "{ci:?}");
        assert!((ci.hi - (0.5 + 1.96 * 0.025)).abs() < 0.006, "{ci:?}");
        assert_eq!(Some(ci), interval(400, 7, 2000, |sample| mean(&values, sample)));
        assert_ne!(Some(ci), interval(400, 8, 2000, |sample| mean(&values, sample)));
    }

    #[test]
    fn groups_are_drawn_whole() {
        let groups = [vec![0, 1], vec![2]];
        interval_by_group(&groups, 1, 50, |sample| {
            let count = |i: usize| sample.iter().filter(|s| **s == i).count();
            assert_eq!(count(0), count(1));
            assert_eq!(count(0) + count(2), 2);
            Some(0.0)
        })
        .unwrap();
    }

    #[test]
    fn mostly_undefined_is_undefined() {
        assert_eq!(interval(0, 1, 10, |_| Some(1.0)), None);
        assert_eq!(interval(5, 1, 100, |_| None), None);
        assert_eq!(interval(5, 1, 100, |sample| (sample[0] == 0).then_some(1.0)), None);
        let mostly = interval(5, 1, 100, |sample| (sample[0] != 0).then_some(1.0));
        assert_eq!(mostly, Some(Interval { lo: 1.0, hi: 1.0 }));
    }
}
