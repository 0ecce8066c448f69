//! Layer norm over the last axis, instance norm over space, and a scale and offset per channel,
//! which is batch norm in inference.

use crate::activation::lane_sum;
use crate::simd::{Lanes, SimdKernel, Supported, dispatch};
use rayon::prelude::*;

/// Floats per task.
const TASK_FLOATS: usize = 16 * 1024;
/// Floats that are summed in f32 before the sum is added to a total in f64.
const RUN_FLOATS: usize = 1024;
/// Pieces into which sums over rows are split. A constant, so that results do not depend on the
/// number of threads.
const ROW_PIECES: usize = 16;

/// Statistics of a normalised row, saved for the backward pass.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RowStats {
    /// Mean of the row.
    pub mean: f32,
    /// `1 / sqrt(variance + epsilon)` with the biased variance.
    pub inverse_deviation: f32,
}

/// Layer norm: standardises each row of `gain.len()` floats, then computes
/// `y = gain * standardised + shift` per column. Overwrites `y` and `stats`.
///
/// # Shapes
/// x `[N, width]`, gain and shift `[width]` -> y `[N, width]`, stats `[N]`
/// # Panics
/// If the lengths do not match.
pub fn layer_norm(x: &[f32], gain: &[f32], shift: &[f32], epsilon: f32, y: &mut [f32], stats: &mut [RowStats]) {
    let width = gain.len();
    check(width, x.len(), y.len(), stats.len());
    assert_eq!(shift.len(), width, "one shift per gain");
    let rows = TASK_FLOATS.div_ceil(width);
    let tasks = y.par_chunks_mut(rows * width).zip(x.par_chunks(rows * width)).zip(stats.par_chunks_mut(rows));
    tasks.for_each(|((y, x), stats)| dispatch(LayerNormRows { x, gain, shift, epsilon, y, stats }));
}

/// Gradients of [`layer_norm`]; overwrites `dx`, `dgain` and `dshift`.
///
/// # Shapes
/// x, dy, dx `[N, width]`, stats `[N]`, gain, dgain, dshift `[width]`
/// # Panics
/// If the lengths do not match.
pub fn layer_norm_backward(
    x: &[f32],
    gain: &[f32],
    stats: &[RowStats],
    dy: &[f32],
    dx: &mut [f32],
    dgain: &mut [f32],
    dshift: &mut [f32],
) {
    let width = gain.len();
    check(width, x.len(), dx.len(), stats.len());
    assert_eq!([dy.len(), dgain.len(), dshift.len()], [x.len(), width, width], "lengths of dy, dgain, dshift");
    let rows = stats.len().div_ceil(ROW_PIECES).max(1);
    let inputs = x.par_chunks(rows * width).zip(dy.par_chunks(rows * width)).zip(stats.par_chunks(rows));
    let partials: Vec<Vec<f32>> = inputs
        .zip(dx.par_chunks_mut(rows * width))
        .map(|(((x, dy), stats), dx)| {
            let mut sums = vec![0.0; 2 * width];
            dispatch(LayerNormGradient { x, gain, stats, dy, dx, sums: &mut sums });
            sums
        })
        .collect();
    for (index, (dgain, dshift)) in dgain.iter_mut().zip(dshift).enumerate() {
        *dgain = partials.iter().map(|sums| f64::from(sums[index])).sum::<f64>() as f32;
        *dshift = partials.iter().map(|sums| f64::from(sums[width + index])).sum::<f64>() as f32;
    }
}

/// Instance norm: standardises each volume, then computes `y = gain * standardised + shift` per
/// channel. Overwrites `y` and `stats`.
///
/// # Shapes
/// x `[B, C, volume]`, gain and shift `[C]` -> y `[B, C, volume]`, stats `[B, C]`
/// # Panics
/// If the lengths do not match.
pub fn instance_norm(
    volume: usize,
    x: &[f32],
    gain: &[f32],
    shift: &[f32],
    epsilon: f32,
    y: &mut [f32],
    stats: &mut [RowStats],
) {
    check(volume, x.len(), y.len(), stats.len());
    assert!(gain.len() == shift.len() && stats.len().is_multiple_of(gain.len()), "one gain and shift per channel");
    let tasks = y.par_chunks_mut(volume).zip(x.par_chunks(volume)).zip(stats.par_iter_mut());
    tasks.enumerate().for_each(|(row, ((y, x), stats))| {
        let channel = row % gain.len();
        dispatch(NormStatistics { x, epsilon, stats });
        let scale = gain[channel] * stats.inverse_deviation;
        dispatch(ScaleAndOffset { x, scale, offset: shift[channel] - scale * stats.mean, y });
    });
}

/// Gradients of [`instance_norm`]; overwrites `dx`, `dgain` and `dshift`.
///
/// # Shapes
/// x, dy, dx `[B, C, volume]`, stats `[B, C]`, gain, dgain, dshift `[C]`
/// # Panics
/// If the lengths do not match.
#[expect(clippy::too_many_arguments, reason = "one slice per input and gradient, as in `layer_norm_backward`")]
pub fn instance_norm_backward(
    volume: usize,
    x: &[f32],
    gain: &[f32],
    stats: &[RowStats],
    dy: &[f32],
    dx: &mut [f32],
    dgain: &mut [f32],
    dshift: &mut [f32],
) {
    check(volume, x.len(), dx.len(), stats.len());
    let channels = gain.len();
    assert!(stats.len().is_multiple_of(channels), "the length is not a multiple of {channels} channels");
    assert_eq!([dy.len(), dgain.len(), dshift.len()], [x.len(), channels, channels], "lengths of dy, dgain, dshift");
    let inputs = x.par_chunks(volume).zip(dy.par_chunks(volume)).zip(stats);
    let sums: Vec<[f64; 2]> = inputs
        .zip(dx.par_chunks_mut(volume))
        .enumerate()
        .map(|(row, (((x, dy), &stats), dx))| {
            dispatch(InstanceNormGradient { x, gain: gain[row % channels], stats, dy, dx })
        })
        .collect();
    sum_over_batch(&sums, dgain, dshift);
}

/// Scale and offset per channel, `y = scale x + offset`; overwrites `y`.
///
/// # Shapes
/// x `[B, C, volume]`, scale and offset `[C]` -> y `[B, C, volume]`
/// # Panics
/// If the lengths do not match.
pub fn channel_affine(volume: usize, x: &[f32], scale: &[f32], offset: &[f32], y: &mut [f32]) {
    check_channels(volume, x.len(), y.len(), scale.len());
    assert_eq!(scale.len(), offset.len(), "one offset per scale");
    y.par_chunks_mut(volume).zip(x.par_chunks(volume)).enumerate().for_each(|(row, (y, x))| {
        let channel = row % scale.len();
        dispatch(ScaleAndOffset { x, scale: scale[channel], offset: offset[channel], y });
    });
}

/// Gradients of [`channel_affine`]; overwrites `dx`, `dscale` and `doffset`.
///
/// # Shapes
/// x, dy, dx `[B, C, volume]`, scale, dscale, doffset `[C]`
/// # Panics
/// If the lengths do not match.
pub fn channel_affine_backward(
    volume: usize,
    x: &[f32],
    scale: &[f32],
    dy: &[f32],
    dx: &mut [f32],
    dscale: &mut [f32],
    doffset: &mut [f32],
) {
    let channels = scale.len();
    check_channels(volume, x.len(), dx.len(), channels);
    assert_eq!(
        [dy.len(), dscale.len(), doffset.len()],
        [x.len(), channels, channels],
        "lengths of dy, dscale, doffset"
    );
    let sums: Vec<[f64; 2]> = (x.par_chunks(volume).zip(dy.par_chunks(volume)).zip(dx.par_chunks_mut(volume)))
        .enumerate()
        .map(|(row, ((x, dy), dx))| {
            dispatch(ScaleAndOffset { x: dy, scale: scale[row % channels], offset: 0.0, y: dx });
            dispatch(ScaleAndOffsetGradient { x, dy })
        })
        .collect();
    sum_over_batch(&sums, dscale, doffset);
}

/// Sums two values per volume over the batch.
fn sum_over_batch(sums: &[[f64; 2]], first: &mut [f32], second: &mut [f32]) {
    let channels = first.len();
    for channel in 0..channels {
        let total = |part: usize| sums.iter().skip(channel).step_by(channels).map(|s| s[part]).sum::<f64>() as f32;
        (first[channel], second[channel]) = (total(0), total(1));
    }
}

fn check_channels(volume: usize, from: usize, to: usize, channels: usize) {
    assert!(volume > 0 && channels > 0, "volumes and channels must not be empty");
    assert!(
        from == to && from.is_multiple_of(volume * channels),
        "the length is not a multiple of {channels} channels"
    );
}

fn check(width: usize, from: usize, to: usize, stats: usize) {
    assert!(width > 0, "rows must not be empty");
    assert_eq!([from, to], [stats * width; 2], "{stats} rows of {width} floats");
}

/// [`statistics`] of one volume.
struct NormStatistics<'a> {
    x: &'a [f32],
    epsilon: f32,
    stats: &'a mut RowStats,
}

impl SimdKernel for NormStatistics<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Lanes>(self, _: Supported<V>) {
        *self.stats = statistics(self.x, self.epsilon);
    }
}

/// Rows whose statistics are computed together, so that the square roots and divisions of one row
/// do not wait for its sums.
const ROWS: usize = 16;

/// [`statistics`] of up to [`ROWS`] rows.
#[inline(always)]
fn statistics_of_rows(x: &[f32], width: usize, epsilon: f32, rows: &mut [RowStats]) {
    let (mut means, mut variances) = ([0.0_f32; ROWS], [0.0_f64; ROWS]);
    for (mean, x) in means.iter_mut().zip(x.chunks_exact(width)) {
        *mean = (total(x, x, |value, _| value) / width as f64) as f32;
    }
    for ((variance, &mean), x) in variances.iter_mut().zip(&means).zip(x.chunks_exact(width)) {
        *variance = total(x, x, |value, _| (value - mean) * (value - mean)) / width as f64;
    }
    let inverses = variances.map(|variance| (1.0 / (variance + f64::from(epsilon)).sqrt()) as f32);
    for (row, (mean, inverse_deviation)) in rows.iter_mut().zip(means.into_iter().zip(inverses)) {
        *row = RowStats { mean, inverse_deviation };
    }
}

/// Statistics of one row in two passes: the mean, then the mean squared deviation from it.
#[inline(always)]
fn statistics(x: &[f32], epsilon: f32) -> RowStats {
    let mean = (total(x, x, |value, _| value) / x.len() as f64) as f32;
    let variance = total(x, x, |value, _| (value - mean) * (value - mean)) / x.len() as f64;
    RowStats { mean, inverse_deviation: (1.0 / (variance + f64::from(epsilon)).sqrt()) as f32 }
}

/// Sum of `term(a, b)` over one row, in f64 over f32 sums of short runs.
#[inline(always)]
fn total(a: &[f32], b: &[f32], term: impl Fn(f32, f32) -> f32) -> f64 {
    a.chunks(RUN_FLOATS).zip(b.chunks(RUN_FLOATS)).map(|(a, b)| f64::from(lane_sum(a, b, &term))).sum()
}

/// Gradients of the scale and of the offset from one volume: the sums of `x dy` and of `dy`.
struct ScaleAndOffsetGradient<'a> {
    x: &'a [f32],
    dy: &'a [f32],
}

impl SimdKernel for ScaleAndOffsetGradient<'_> {
    type Output = [f64; 2];

    #[inline(always)]
    fn run<V: Lanes>(self, _: Supported<V>) -> [f64; 2] {
        [total(self.x, self.dy, |x, dy| x * dy), total(self.dy, self.dy, |dy, _| dy)]
    }
}

/// `y = scale x + offset` for one volume.
struct ScaleAndOffset<'a> {
    x: &'a [f32],
    scale: f32,
    offset: f32,
    y: &'a mut [f32],
}

impl SimdKernel for ScaleAndOffset<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Lanes>(self, _: Supported<V>) {
        self.y.iter_mut().zip(self.x).for_each(|(y, x)| *y = x * self.scale + self.offset);
    }
}

struct LayerNormRows<'a> {
    x: &'a [f32],
    gain: &'a [f32],
    shift: &'a [f32],
    epsilon: f32,
    y: &'a mut [f32],
    stats: &'a mut [RowStats],
}

impl SimdKernel for LayerNormRows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Lanes>(self, _: Supported<V>) {
        let width = self.gain.len();
        let blocks = self.x.chunks(ROWS * width).zip(self.y.chunks_mut(ROWS * width)).zip(self.stats.chunks_mut(ROWS));
        for ((x, y), rows) in blocks {
            statistics_of_rows(x, width, self.epsilon, rows);
            for ((x, y), row) in x.chunks_exact(width).zip(y.chunks_exact_mut(width)).zip(rows) {
                let columns = self.gain.iter().zip(self.shift);
                for ((y, x), (gain, shift)) in y.iter_mut().zip(x).zip(columns) {
                    *y = (x - row.mean) * row.inverse_deviation * gain + shift;
                }
            }
        }
    }
}

struct LayerNormGradient<'a> {
    x: &'a [f32],
    gain: &'a [f32],
    stats: &'a [RowStats],
    dy: &'a [f32],
    dx: &'a mut [f32],
    /// Gradients of the gains, then of the shifts.
    sums: &'a mut [f32],
}

impl SimdKernel for LayerNormGradient<'_> {
    type Output = ();

    /// `dx = (dh - mean(dh) - h mean(dh h)) / deviation`, where `h` is the standardised row and
    /// `dh = dy gain`.
    #[inline(always)]
    fn run<V: Lanes>(self, _: Supported<V>) {
        let width = self.gain.len();
        let (dgain, dshift) = self.sums.split_at_mut(width);
        let inputs = self.x.chunks_exact(width).zip(self.dy.chunks_exact(width)).zip(self.stats);
        for (((x, dy), stats), dx) in inputs.zip(self.dx.chunks_exact_mut(width)) {
            for (((dx, dy), gain), (x, dgain)) in
                dx.iter_mut().zip(dy).zip(self.gain).zip(x.iter().zip(dgain.iter_mut()))
            {
                *dx = dy * gain;
                *dgain += dy * (x - stats.mean) * stats.inverse_deviation;
            }
            dshift.iter_mut().zip(dy).for_each(|(sum, dy)| *sum += dy);
            let mean = (total(dx, dx, |dh, _| dh) / width as f64) as f32;
            let slope = total(dx, x, |dh, x| dh * (x - stats.mean)) / width as f64;
            let slope = slope as f32 * stats.inverse_deviation * stats.inverse_deviation;
            for (dx, x) in dx.iter_mut().zip(x) {
                *dx = (*dx - mean - (x - stats.mean) * slope) * stats.inverse_deviation;
            }
        }
    }
}

/// Gradient of instance norm on one volume.
struct InstanceNormGradient<'a> {
    x: &'a [f32],
    gain: f32,
    stats: RowStats,
    dy: &'a [f32],
    dx: &'a mut [f32],
}

impl SimdKernel for InstanceNormGradient<'_> {
    /// Contributions to the gradients of the gain and of the shift.
    type Output = [f64; 2];

    #[inline(always)]
    fn run<V: Lanes>(self, _: Supported<V>) -> [f64; 2] {
        let RowStats { mean, inverse_deviation } = self.stats;
        let count = self.x.len() as f64;
        let shift = total(self.dy, self.dy, |dy, _| dy);
        let gain = total(self.dy, self.x, |dy, x| dy * (x - mean)) * f64::from(inverse_deviation);
        let scale = self.gain * inverse_deviation;
        let average = (shift / count) as f32;
        let slope = (gain / count) as f32 * inverse_deviation;
        for ((dx, dy), x) in self.dx.iter_mut().zip(self.dy).zip(self.x) {
            *dx = (dy - average - (x - mean) * slope) * scale;
        }
        [gain, shift]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(length: usize, seed: usize) -> Vec<f32> {
        (0..length).map(|index| ((index * 7919 + seed * 104_729) % 211) as f32 / 50.0 - 2.0).collect()
    }

    fn dot(a: &[f32], b: &[f32]) -> f64 {
        a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    }

    #[test]
    fn layer_norm_by_hand() {
        let (mut y, mut stats) = ([0.0; 4], [RowStats::default(); 2]);
        layer_norm(&[1.0, 3.0], &[2.0, 2.0], &[0.0, 1.0], 0.0, &mut y[..2], &mut stats[..1]);
        assert_eq!(y[..2], [-2.0, 3.0]);
        layer_norm(&[1.0, 3.0, 5.0, 5.0], &[2.0, 2.0], &[0.0, 1.0], 1.0, &mut y, &mut stats);
        assert_eq!(y[2..], [0.0, 1.0]);
        assert_eq!(stats[1], RowStats { mean: 5.0, inverse_deviation: 1.0 });
    }

    #[test]
    fn channel_affine_by_hand() {
        let (x, scale, offset, dy) = ([1.0, 3.0, 0.0, 2.0], [0.5, 2.0], [-0.5, 1.0], [1.0, 2.0, 3.0, 4.0]);
        let mut y = [0.0; 4];
        channel_affine(2, &x, &scale, &offset, &mut y);
        assert_eq!(y, [0.0, 1.0, 1.0, 5.0]);
        let (mut dx, mut dscale, mut doffset) = ([0.0; 4], [0.0; 2], [0.0; 2]);
        channel_affine_backward(2, &x, &scale, &dy, &mut dx, &mut dscale, &mut doffset);
        assert_eq!((dx, dscale, doffset), ([0.5, 1.0, 6.0, 8.0], [7.0, 8.0], [3.0, 7.0]));
    }

    #[test]
    fn instance_norm_standardises_each_volume() {
        let (volume, x) = (5000, values(20_000, 1));
        let (mut y, mut stats) = (vec![0.0; x.len()], [RowStats::default(); 4]);
        instance_norm(volume, &x, &[1.0, 3.0], &[0.0, -1.0], 1e-5, &mut y, &mut stats);
        for (row, y) in y.chunks(volume).enumerate() {
            let mean = y.iter().map(|&value| f64::from(value)).sum::<f64>() / volume as f64;
            let variance = y.iter().map(|&value| (f64::from(value) - mean).powi(2)).sum::<f64>() / volume as f64;
            assert!((mean + (row % 2) as f64).abs() < 1e-5, "{mean}");
            assert!((variance.sqrt() - [1.0, 3.0][row % 2]).abs() < 1e-4, "{variance}");
        }
    }

    /// Derivative of `loss` in each element of `at`, by central differences.
    fn derivatives(at: &[f32], loss: impl Fn(&[f32]) -> f64) -> Vec<f64> {
        let step = |index: usize, by: f32| {
            let mut at = at.to_vec();
            at[index] += by;
            loss(&at)
        };
        (0..at.len()).map(|index| (step(index, 1e-2) - step(index, -1e-2)) / 2e-2).collect()
    }

    fn assert_close(got: &[f32], expected: &[f64], name: &str) {
        for (got, expected) in got.iter().zip(expected) {
            assert!((f64::from(*got) - expected).abs() < 2e-3 * (1.0 + expected.abs()), "{name}: {got} {expected}");
        }
    }

    #[test]
    fn gradients_match_finite_differences() {
        let (x, dy, gain, shift) = (values(36, 2), values(36, 3), values(3, 4), values(3, 5));
        for instance in [false, true] {
            let forward = |x: &[f32], gain: &[f32], shift: &[f32]| {
                let mut y = vec![0.0; 36];
                let mut stats = vec![RowStats::default(); if instance { 6 } else { 12 }];
                if instance {
                    instance_norm(6, x, gain, shift, 1e-3, &mut y, &mut stats);
                } else {
                    layer_norm(x, gain, shift, 1e-3, &mut y, &mut stats);
                }
                (y, stats)
            };
            let (_, stats) = forward(&x, &gain, &shift);
            let (mut dx, mut dgain, mut dshift) = (vec![f32::NAN; 36], vec![f32::NAN; 3], vec![f32::NAN; 3]);
            if instance {
                instance_norm_backward(6, &x, &gain, &stats, &dy, &mut dx, &mut dgain, &mut dshift);
            } else {
                layer_norm_backward(&x, &gain, &stats, &dy, &mut dx, &mut dgain, &mut dshift);
            }
            assert_close(&dx, &derivatives(&x, |x| dot(&forward(x, &gain, &shift).0, &dy)), "dx");
            assert_close(&dgain, &derivatives(&gain, |gain| dot(&forward(&x, gain, &shift).0, &dy)), "dgain");
            assert_close(&dshift, &derivatives(&shift, |shift| dot(&forward(&x, &gain, shift).0, &dy)), "dshift");
        }
    }
}
