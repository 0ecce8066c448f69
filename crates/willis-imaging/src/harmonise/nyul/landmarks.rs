//! Percentiles of many values, by exact selection in two passes over histograms.

use rayon::prelude::*;

/// Below this number of values sorting is faster than two passes over a histogram.
const SORT_BELOW: usize = 1 << 15;
/// Values counted by one task.
const TASK: usize = 1 << 20;
/// Classes of the upper and of the lower half of a value's 32 bits.
const CLASSES: usize = 1 << 16;
/// Marks an upper half in which no rank falls. Two bytes per half keep the table in cache.
const NONE: u16 = u16::MAX;

/// Intensities at the given percentiles of the values; `None` without a value.
///
/// Percentile `q` of `n` sorted values is at position `q/100·(n−1)`, interpolated linearly between
/// neighbours, as in `numpy.percentile`.
///
/// # Panics
/// if a value is NaN (programmer error; see [`finite`])
pub(super) fn percentiles(values: &[f32], percentiles: &[f64]) -> Option<Vec<f64>> {
    let last = values.len().checked_sub(1)?;
    let positions: Vec<f64> = percentiles.iter().map(|q| (q / 100.0 * last as f64).clamp(0.0, last as f64)).collect();
    let low = |position: f64| position.floor() as usize;
    let ranks: Vec<usize> = positions.iter().flat_map(|&p| [low(p), (low(p) + 1).min(last)]).collect();
    let found = order_statistics(values, &ranks);
    let between = |(pair, &position): (&[f32], &f64)| {
        let [a, b] = [f64::from(pair[0]), f64::from(pair[1])];
        a + (b - a) * (position - position.floor())
    };
    Some(found.chunks_exact(2).zip(&positions).map(between).collect())
}

/// The finite values for which `keep` holds at their index.
pub(super) fn finite(values: &[f32], keep: impl Fn(usize, f32) -> bool + Sync) -> Vec<f32> {
    let is_kept = |part: usize, i: usize, v: f32| v.is_finite() & keep(part * TASK + i, v);
    let part_len = |(part, values): (usize, &[f32])| {
        values.iter().enumerate().map(|(i, &v)| usize::from(is_kept(part, i, v))).sum::<usize>()
    };
    let lengths: Vec<usize> = values.par_chunks(TASK).enumerate().map(part_len).collect();
    let mut kept = vec![0.0; lengths.iter().sum()];
    let mut rest = kept.as_mut_slice();
    let mut parts = Vec::with_capacity(lengths.len());
    for length in lengths {
        let (part, after) = rest.split_at_mut(length);
        parts.push(part);
        rest = after;
    }
    values.par_chunks(TASK).zip(parts).enumerate().for_each(|(part, (values, kept))| {
        let all = values.iter().enumerate().filter(|&(i, &v)| is_kept(part, i, v));
        kept.iter_mut().zip(all).for_each(|(kept, (_, &v))| *kept = v);
    });
    kept
}

/// Values at the given ranks (from 0, in any order) of the sorted values. Ranks beyond the end are
/// left out.
pub(in crate::harmonise) fn order_statistics(values: &[f32], ranks: &[usize]) -> Vec<f32> {
    let ranks: Vec<usize> = ranks.iter().copied().filter(|&rank| rank < values.len()).collect();
    if values.len() < SORT_BELOW {
        let mut sorted = values.to_vec();
        sorted.sort_unstable_by(f32::total_cmp);
        return ranks.iter().map(|&rank| sorted[rank]).collect();
    }
    let upper = count(values, |key| Some((key >> 16) as usize), CLASSES);
    // For each rank its upper half, and its rank among the values that share that half.
    let places: Vec<(usize, usize)> = ranks.iter().map(|&rank| place(&upper, rank)).collect();
    let mut halves: Vec<usize> = places.iter().map(|place| place.0).collect();
    halves.sort_unstable();
    halves.dedup();
    let mut table = vec![NONE; CLASSES];
    halves.iter().zip(0..NONE).for_each(|(&half, i)| table[half] = i);
    let class = |key: u32| match table[(key >> 16) as usize] {
        NONE => None,
        i => Some(usize::from(i) * CLASSES + (key & 0xffff) as usize),
    };
    let lower = count(values, class, halves.len() * CLASSES);
    places
        .iter()
        .map(|&(half, rank)| {
            let start = usize::from(table[half]) * CLASSES;
            let (low, _) = place(&lower[start..start + CLASSES], rank);
            value((half as u32) << 16 | low as u32)
        })
        .collect()
}

/// Number of values in each class; values without a class are not counted.
///
/// # Panics
/// if there are more than 2^32 values (programmer error: a volume has at most 2^29)
fn count(values: &[f32], class: impl Fn(u32) -> Option<usize> + Sync, classes: usize) -> Vec<u32> {
    assert!(u32::try_from(values.len()).is_ok(), "too many values");
    // Few large tasks: each has counters of its own.
    let task = values.len().div_ceil(rayon::current_num_threads()).max(TASK);
    let counted = values.par_chunks(task).map(|values| {
        let mut counts = vec![0u32; classes];
        values.iter().filter_map(|&v| class(key(v))).for_each(|class| counts[class] += 1);
        counts
    });
    counted.reduce(
        || vec![0; classes],
        |mut a, b| {
            a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
            a
        },
    )
}

/// The class that holds a rank, and the rank within that class.
fn place(counts: &[u32], rank: usize) -> (usize, usize) {
    let mut left = rank;
    for (class, n) in counts.iter().map(|&n| n as usize).enumerate() {
        if left < n {
            return (class, left);
        }
        left -= n;
    }
    unreachable!("rank {rank} is beyond the {} values counted", rank - left)
}

/// A number that orders like the value (as [`f32::total_cmp`]).
fn key(value: f32) -> u32 {
    let bits = value.to_bits();
    // Negative values order in reverse, below the positive ones.
    if bits >> 31 == 1 { !bits } else { bits | 1 << 31 }
}

/// The value of a key.
fn value(key: u32) -> f32 {
    f32::from_bits(if key >> 31 == 1 { key & !(1 << 31) } else { !key })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn percentiles_by_hand() {
        assert_eq!(percentiles(&[30.0, 10.0, 20.0], &[0.0, 25.0, 50.0, 100.0]).unwrap(), [10.0, 15.0, 20.0, 30.0]);
        assert_eq!(percentiles(&[], &[50.0]), None);
        assert_eq!(finite(&[1.0, f32::NAN, 3.0, 4.0], |i, v| i > 0 && v < 4.0), [3.0]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]
        #[test]
        fn selection_equals_sorting(seed in any::<u32>(), spread in 0.0..200.0f32, share in 0.0..0.9f32) {
            // Many ties at one value and both signs.
            let mut state = seed | 1;
            let mut next = || {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 8) as f32 / (1 << 24) as f32
            };
            let draw = |u: f32, w: f32| if w < share { 7.0 } else { (u - 0.3) * spread };
            let values: Vec<f32> = (0..SORT_BELOW + 999).map(|_| draw(next(), next())).collect();
            let ranks = [values.len() - 1, 0, 5, values.len() / 2, values.len() / 2 + 1, values.len()];
            let mut sorted = values.clone();
            sorted.sort_by(f32::total_cmp);
            let expected: Vec<f32> = ranks[..5].iter().map(|&rank| sorted[rank]).collect();
            prop_assert_eq!(order_statistics(&values, &ranks), expected);
        }
    }
}
