//! Attention of many queries to few keys, a block of queries at a time: the whole score matrix is
//! never written.
//!
//! Queries, keys and values stay in the layout in which a linear layer writes them, heads side by
//! side in a token.
//!
//! # Source
//! Dao et al., NeurIPS 2022, arXiv:2205.14135, for the backward pass from the rows' log sums; the
//! blocks are of queries only, as the keys of a pyramid transformer fit the cache.

use rayon::prelude::*;

use crate::activation::{exp, exp_below_largest, lane_sum};
use crate::matrix::{Matrix, MatrixMut, product};
use crate::simd::{Kernel, Lanes, dispatch};

/// Sizes of an attention. Letters: B batch, N queries, M keys, H heads, d channels of a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionShape {
    /// B.
    pub batch: usize,
    /// N.
    pub queries: usize,
    /// M.
    pub keys: usize,
    /// H.
    pub heads: usize,
    /// d.
    pub head_dim: usize,
}

/// Queries of which scores exist at once: with 512 keys they fit the second-level cache.
const BLOCK: usize = 128;
/// Parts of the queries whose gradients of keys and values are summed apart; a constant, so that
/// the sum does not depend on the number of threads.
const PARTS: usize = 8;

impl AttentionShape {
    /// Channels of a token.
    fn channels(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Elements of queries and output.
    pub fn query_len(&self) -> usize {
        self.batch * self.queries * self.channels()
    }

    /// Elements of keys and values together.
    pub fn key_value_len(&self) -> usize {
        2 * self.batch * self.keys * self.channels()
    }

    fn check(&self, queries: [usize; 2], key_value: usize, log_sums: usize) {
        let sizes = [self.batch, self.queries, self.keys, self.heads, self.head_dim];
        assert!(sizes.iter().all(|&size| size > 0), "sizes must be positive: {self:?}");
        assert_eq!(queries, [self.query_len(); 2], "lengths of queries and output for {self:?}");
        assert_eq!(key_value, self.key_value_len(), "length of keys and values for {self:?}");
        assert_eq!(log_sums, self.batch * self.queries * self.heads, "length of the log sums for {self:?}");
    }
}

/// `y = softmax(scale q k^T) v` per head; overwrites `y`, and `log_sums` with the logarithm of each
/// row's sum of exponentials.
///
/// # Shapes
/// q `[B, N, H, d]`, key_value `[B, M, 2, H, d]` (keys, then values) -> y `[B, N, H, d]`, log_sums
/// `[B, N, H]`
/// # Panics
/// If a slice's length differs from `shape` or a size is zero.
pub fn forward(shape: &AttentionShape, scale: f32, q: &[f32], key_value: &[f32], y: &mut [f32], log_sums: &mut [f32]) {
    shape.check([q.len(), y.len()], key_value.len(), log_sums.len());
    let (channels, heads) = (shape.channels(), shape.heads);
    let items = y.par_chunks_mut(shape.queries * channels).zip(log_sums.par_chunks_mut(shape.queries * heads));
    items.enumerate().for_each(|(item, (y, log_sums))| {
        let q = &q[item * y.len()..][..y.len()];
        let tokens = Tokens::new(shape, item, key_value);
        let blocks = y.par_chunks_mut(BLOCK * channels).zip(log_sums.par_chunks_mut(BLOCK * heads));
        blocks.zip(q.par_chunks(BLOCK * channels)).for_each_init(Vec::new, |scores, ((y, log_sums), q)| {
            let rows = q.len() / channels;
            scores.resize(rows * shape.keys, 0.0);
            let mut shares = [0.0; BLOCK];
            for head in 0..heads {
                product(
                    tokens.block(q, head),
                    tokens.keys(head).transposed(),
                    scale,
                    false,
                    MatrixMut::of_rows(scores, shape.keys),
                );
                dispatch(Exponentials {
                    width: shape.keys,
                    scores,
                    shares: &mut shares,
                    heads,
                    log_sums: &mut log_sums[head..],
                });
                product(
                    Matrix::of_rows(scores, shape.keys),
                    tokens.values(head),
                    1.0,
                    false,
                    tokens.block_mut(y, head),
                );
                // Dividing the few channels of the output by the row's sum costs less than dividing
                // its many weights.
                for (token, share) in y.chunks_exact_mut(channels).zip(shares) {
                    token[head * shape.head_dim..][..shape.head_dim].iter_mut().for_each(|value| *value *= share);
                }
            }
        });
    });
}

/// Gradients of [`forward`] from its output and log sums; overwrites `dq` and `d_key_value`.
///
/// # Shapes
/// As there; dy and dq like y, d_key_value like key_value
/// # Panics
/// As [`forward`].
#[allow(clippy::too_many_arguments)]
pub fn backward(
    shape: &AttentionShape,
    scale: f32,
    [q, key_value]: [&[f32]; 2],
    [y, log_sums]: [&[f32]; 2],
    dy: &[f32],
    dq: &mut [f32],
    d_key_value: &mut [f32],
) {
    shape.check([q.len(), y.len()], key_value.len(), log_sums.len());
    shape.check([dy.len(), dq.len()], d_key_value.len(), log_sums.len());
    let (channels, heads) = (shape.channels(), shape.heads);
    let queries_of_part = shape.queries.div_ceil(BLOCK).div_ceil(PARTS) * BLOCK;
    let items = dq.par_chunks_mut(shape.queries * channels).zip(d_key_value.par_chunks_mut(2 * shape.keys * channels));
    items.enumerate().for_each(|(item, (dq, d_key_value))| {
        let [q, y, dy] = [q, y, dy].map(|all| &all[item * dq.len()..][..dq.len()]);
        let log_sums = &log_sums[item * shape.queries * heads..][..shape.queries * heads];
        let tokens = Tokens::new(shape, item, key_value);
        let part = queries_of_part * channels;
        let parts = dq.par_chunks_mut(part).enumerate().map(|(i, dq)| {
            let [q, y, dy] = [q, y, dy].map(|all| &all[i * part..][..dq.len()]);
            let log_sums = &log_sums[i * queries_of_part * heads..][..dq.len() / channels * heads];
            tokens.part_backward(scale, q, [y, log_sums], dy, dq)
        });
        let parts: Vec<Vec<f32>> = parts.collect();
        d_key_value.fill(0.0);
        for part in &parts {
            d_key_value.iter_mut().zip(part).for_each(|(sum, value)| *sum += value);
        }
    });
}

/// Keys and values of one item of the batch.
#[derive(Clone, Copy)]
struct Tokens<'a> {
    shape: &'a AttentionShape,
    key_value: &'a [f32],
}

impl<'a> Tokens<'a> {
    fn new(shape: &'a AttentionShape, item: usize, key_value: &'a [f32]) -> Self {
        let length = 2 * shape.keys * shape.channels();
        Self { shape, key_value: &key_value[item * length..][..length] }
    }

    /// `[M, d]`.
    fn keys(&self, head: usize) -> Matrix<'a> {
        self.keys_or_values(head * self.shape.head_dim)
    }

    /// `[M, d]`.
    fn values(&self, head: usize) -> Matrix<'a> {
        self.keys_or_values(self.shape.channels() + head * self.shape.head_dim)
    }

    fn keys_or_values(&self, start: usize) -> Matrix<'a> {
        let size = [self.shape.keys, self.shape.head_dim];
        Matrix { values: &self.key_value[start..], size, strides: [2 * self.shape.channels(), 1] }
    }

    /// One head of a block of queries, `[rows, d]`.
    fn block<'b>(&self, tokens: &'b [f32], head: usize) -> Matrix<'b> {
        let channels = self.shape.channels();
        let size = [tokens.len() / channels, self.shape.head_dim];
        Matrix { values: &tokens[head * self.shape.head_dim..], size, strides: [channels, 1] }
    }

    fn block_mut<'b>(&self, tokens: &'b mut [f32], head: usize) -> MatrixMut<'b> {
        let channels = self.shape.channels();
        let size = [tokens.len() / channels, self.shape.head_dim];
        MatrixMut { values: &mut tokens[head * self.shape.head_dim..], size, row_stride: channels }
    }

    /// Where the gradient of one head's keys or values is summed.
    fn sums<'b>(&self, sums: &'b mut [f32], start: usize) -> MatrixMut<'b> {
        let size = [self.shape.keys, self.shape.head_dim];
        MatrixMut { values: &mut sums[start..], size, row_stride: 2 * self.shape.channels() }
    }

    /// Gradients by some queries: overwrites `dq` and returns what they add to the gradient of keys
    /// and values.
    fn part_backward(&self, scale: f32, q: &[f32], [y, log_sums]: [&[f32]; 2], dy: &[f32], dq: &mut [f32]) -> Vec<f32> {
        let AttentionShape { keys, heads, head_dim, .. } = *self.shape;
        let channels = self.shape.channels();
        let mut sums = vec![0.0; 2 * keys * channels];
        let (mut weights, mut slopes) = (Vec::new(), Vec::new());
        for (block, dq) in dq.chunks_mut(BLOCK * channels).enumerate() {
            let [q, y, dy] = [q, y, dy].map(|all| &all[block * BLOCK * channels..][..dq.len()]);
            let log_sums = &log_sums[block * BLOCK * heads..];
            let rows = dq.len() / channels;
            weights.resize(rows * keys, 0.0);
            slopes.resize(rows * keys, 0.0);
            for head in 0..heads {
                let start = head * head_dim;
                product(
                    self.block(q, head),
                    self.keys(head).transposed(),
                    scale,
                    false,
                    MatrixMut::of_rows(&mut weights, keys),
                );
                product(
                    self.block(dy, head),
                    self.values(head).transposed(),
                    1.0,
                    false,
                    MatrixMut::of_rows(&mut slopes, keys),
                );
                for row in 0..rows {
                    let token = row * channels + start;
                    let mean = lane_sum(&y[token..][..head_dim], &dy[token..][..head_dim], |y, dy| y * dy);
                    let (weights, slopes) = (&mut weights[row * keys..][..keys], &mut slopes[row * keys..][..keys]);
                    dispatch(Slope { weights, slopes, log_sum: log_sums[row * heads + head], mean });
                }
                let (weights, slopes) = (Matrix::of_rows(&weights, keys), Matrix::of_rows(&slopes, keys));
                product(slopes, self.keys(head), scale, false, self.block_mut(dq, head));
                product(slopes.transposed(), self.block(q, head), scale, true, self.sums(&mut sums, start));
                product(weights.transposed(), self.block(dy, head), 1.0, true, self.sums(&mut sums, channels + start));
            }
        }
        sums
    }
}

/// Scores to weights that are yet to be multiplied by their row's share, row by row.
struct Exponentials<'a> {
    width: usize,
    scores: &'a mut [f32],
    /// One over each row's sum.
    shares: &'a mut [f32],
    /// Distance from one row's log sum to the next.
    heads: usize,
    log_sums: &'a mut [f32],
}

impl Kernel for Exponentials<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Lanes>(self) {
        let log_sums = self.log_sums.iter_mut().step_by(self.heads);
        for ((row, share), log_sum) in self.scores.chunks_exact_mut(self.width).zip(self.shares).zip(log_sums) {
            let (largest, sum) = exp_below_largest::<V>(row);
            *share = 1.0 / sum;
            *log_sum = largest + sum.ln();
        }
    }
}

/// One row's scores to weights, and gradients of its weights to gradients of its scores.
struct Slope<'a> {
    weights: &'a mut [f32],
    slopes: &'a mut [f32],
    log_sum: f32,
    mean: f32,
}

impl Kernel for Slope<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Lanes>(self) {
        for (weight, slope) in self.weights.iter_mut().zip(self.slopes) {
            *weight = exp::<V>(*weight - self.log_sum);
            *slope = *weight * (*slope - self.mean);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Attention as it is written, in f64.
    fn reference(shape: &AttentionShape, scale: f64, q: &[f64], kv: &[f64]) -> Vec<f64> {
        let AttentionShape { batch, queries, keys, heads, head_dim } = *shape;
        let channels = heads * head_dim;
        let mut y = vec![0.0; q.len()];
        for (b, n, h) in (0..batch).flat_map(|b| (0..queries).flat_map(move |n| (0..heads).map(move |h| (b, n, h)))) {
            let query = (b * queries + n) * channels + h * head_dim;
            let key = |m: usize| (b * keys + m) * 2 * channels + h * head_dim;
            let score = |m: usize| scale * (0..head_dim).map(|i| q[query + i] * kv[key(m) + i]).sum::<f64>();
            let weights: Vec<f64> = (0..keys).map(|m| score(m).exp()).collect();
            let total: f64 = weights.iter().sum();
            for i in 0..head_dim {
                y[query + i] = (0..keys).map(|m| weights[m] / total * kv[key(m) + channels + i]).sum();
            }
        }
        y
    }

    fn wave(length: usize, speed: f64) -> Vec<f64> {
        (0..length).map(|i| (i as f64 * speed).sin()).collect()
    }

    fn narrow(values: &[f64]) -> Vec<f32> {
        values.iter().map(|&v| v as f32).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn values_and_gradients_equal_the_reference(
            batch in 1usize..3, queries in 1usize..150, keys in 1usize..20, heads in 1usize..4, head_dim in 1usize..7
        ) {
            let shape = AttentionShape { batch, queries, keys, heads, head_dim };
            let scale = 0.7;
            let (q, kv, dy) = (wave(shape.query_len(), 1.3), wave(shape.key_value_len(), 0.9), wave(shape.query_len(), 0.37));
            let expected = reference(&shape, scale, &q, &kv);
            let mut y = vec![f32::NAN; q.len()];
            let mut log_sums = vec![f32::NAN; batch * queries * heads];
            let (q32, kv32, dy32) = (narrow(&q), narrow(&kv), narrow(&dy));
            forward(&shape, scale as f32, &q32, &kv32, &mut y, &mut log_sums);
            for (got, expected) in y.iter().zip(&expected) {
                prop_assert!((f64::from(*got) - expected).abs() < 1e-5, "{got} {expected}");
            }
            let (mut dq, mut dkv) = (vec![f32::NAN; q.len()], vec![f32::NAN; kv.len()]);
            backward(&shape, scale as f32, [&q32, &kv32], [&y, &log_sums], &dy32, &mut dq, &mut dkv);
            let loss = |q: &[f64], kv: &[f64]| {
                reference(&shape, scale, q, kv).iter().zip(&dy).map(|(y, dy)| y * dy).sum::<f64>()
            };
            let step = 1e-5;
            let slope = |which: usize, at: usize| {
                let moved = |by: f64| {
                    let mut inputs = [q.clone(), kv.clone()];
                    inputs[which][at] += by;
                    loss(&inputs[0], &inputs[1])
                };
                (moved(step) - moved(-step)) / (2.0 * step)
            };
            for (which, gradient) in [&dq, &dkv].into_iter().enumerate() {
                for at in [0, gradient.len() / 3, gradient.len() / 2, gradient.len() - 1] {
                    let expected = slope(which, at);
                    prop_assert!((f64::from(gradient[at]) - expected).abs() < 1e-3 * (1.0 + expected.abs()), "{which} {at}: {} {expected}", gradient[at]);
                }
            }
        }
    }

    #[test]
    fn the_same_bytes_at_any_number_of_threads() {
        let shape = AttentionShape { batch: 1, queries: 1000, keys: 33, heads: 2, head_dim: 8 };
        let (q, kv) = (narrow(&wave(shape.query_len(), 1.3)), narrow(&wave(shape.key_value_len(), 0.9)));
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let (mut y, mut sums) = (vec![0.0; q.len()], vec![0.0; 2000]);
                forward(&shape, 0.3, &q, &kv, &mut y, &mut sums);
                let (mut dq, mut dkv) = (vec![0.0; q.len()], vec![0.0; kv.len()]);
                backward(&shape, 0.3, [&q, &kv], [&y, &sums], &q, &mut dq, &mut dkv);
                (y, dq, dkv)
            })
        };
        assert_eq!(run(1), run(3));
    }
}
