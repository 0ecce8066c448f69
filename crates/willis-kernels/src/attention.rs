//! Multi-head attention of many queries to few keys, computed in blocks of queries so that the
//! whole score matrix is never stored.
//!
//! Queries, keys and values have the layout in which a linear layer writes them: the heads of a
//! token are adjacent.
//!
//! # Source
//! Dao et al., NeurIPS 2022, arXiv:2205.14135: the backward pass recomputes the weights from the
//! log sums of the rows. Here only the queries are split in blocks, because the keys of a pyramid
//! transformer fit in the cache.

use rayon::prelude::*;

use crate::activation::{exp, exp_minus_max, lane_sum};
use crate::matrix::{MatrixView, MatrixViewMut, product};
use crate::simd::{Lanes, SimdKernel, Supported, dispatch};

/// Sizes of an attention layer. Letters: B batch, N queries, M keys, H heads, d channels of a head.
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

/// Queries of a block. With 512 keys, the scores of a block fit in the second-level cache.
const BLOCK: usize = 128;
/// Parts into which the queries are split in the backward pass; each has its own sums for the
/// gradients of keys and values. A constant, so that results do not depend on the number of
/// threads.
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

/// Attention, `y = softmax(scale q k^T) v` per head; overwrites `y` and `log_sums`.
///
/// `log_sums` are the logarithms of the sums of exponentials in the softmax, saved for
/// [`backward`].
///
/// # Shapes
/// q `[B, N, H, d]`, key_value `[B, M, 2, H, d]` (keys, then values) -> y `[B, N, H, d]`, log_sums
/// `[B, N, H]`
/// # Panics
/// If the length of a slice does not match `shape`, or a size is zero.
pub fn forward(shape: &AttentionShape, scale: f32, q: &[f32], key_value: &[f32], y: &mut [f32], log_sums: &mut [f32]) {
    shape.check([q.len(), y.len()], key_value.len(), log_sums.len());
    let (channels, heads) = (shape.channels(), shape.heads);
    let items = y.par_chunks_mut(shape.queries * channels).zip(log_sums.par_chunks_mut(shape.queries * heads));
    items.enumerate().for_each(|(item, (y, log_sums))| {
        let q = &q[item * y.len()..][..y.len()];
        let key_values = KeyValues::new(shape, item, key_value);
        let blocks = y.par_chunks_mut(BLOCK * channels).zip(log_sums.par_chunks_mut(BLOCK * heads));
        blocks.zip(q.par_chunks(BLOCK * channels)).for_each_init(Vec::new, |scores, ((y, log_sums), q)| {
            let rows = q.len() / channels;
            scores.resize(rows * shape.keys, 0.0);
            let mut inverse_sums = [0.0; BLOCK];
            for head in 0..heads {
                product(
                    key_values.queries(q, head),
                    key_values.keys(head).transposed(),
                    scale,
                    false,
                    MatrixViewMut::of_rows(scores, shape.keys),
                );
                dispatch(UnnormalisedSoftmax {
                    width: shape.keys,
                    scores,
                    inverse_sums: &mut inverse_sums,
                    heads,
                    log_sums: &mut log_sums[head..],
                });
                product(
                    MatrixView::of_rows(scores, shape.keys),
                    key_values.values(head),
                    1.0,
                    false,
                    key_values.queries_mut(y, head),
                );
                // Scaling the few channels of an output token costs less than scaling its weights.
                for (token, inverse_sum) in y.chunks_exact_mut(channels).zip(inverse_sums) {
                    token[head * shape.head_dim..][..shape.head_dim].iter_mut().for_each(|value| *value *= inverse_sum);
                }
            }
        });
    });
}

/// Gradients of the queries, keys and values of [`forward`], given its output and log sums;
/// overwrites `dq` and `d_key_value`.
///
/// # Shapes
/// As in [`forward`]; dy and dq like y, d_key_value like key_value
/// # Panics
/// As [`forward`].
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
        let key_values = KeyValues::new(shape, item, key_value);
        let part = queries_of_part * channels;
        let parts = dq.par_chunks_mut(part).enumerate().map(|(i, dq)| {
            let [q, y, dy] = [q, y, dy].map(|all| &all[i * part..][..dq.len()]);
            let log_sums = &log_sums[i * queries_of_part * heads..][..dq.len() / channels * heads];
            key_values.part_backward(scale, q, [y, log_sums], dy, dq)
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
struct KeyValues<'a> {
    shape: &'a AttentionShape,
    key_value: &'a [f32],
}

impl<'a> KeyValues<'a> {
    fn new(shape: &'a AttentionShape, item: usize, key_value: &'a [f32]) -> Self {
        let length = 2 * shape.keys * shape.channels();
        Self { shape, key_value: &key_value[item * length..][..length] }
    }

    /// `[M, d]`.
    fn keys(&self, head: usize) -> MatrixView<'a> {
        self.keys_or_values(head * self.shape.head_dim)
    }

    /// `[M, d]`.
    fn values(&self, head: usize) -> MatrixView<'a> {
        self.keys_or_values(self.shape.channels() + head * self.shape.head_dim)
    }

    fn keys_or_values(&self, start: usize) -> MatrixView<'a> {
        let size = [self.shape.keys, self.shape.head_dim];
        MatrixView { values: &self.key_value[start..], size, strides: [2 * self.shape.channels(), 1] }
    }

    /// One head of a block of queries, or of their outputs, `[rows, d]`.
    fn queries<'b>(&self, tokens: &'b [f32], head: usize) -> MatrixView<'b> {
        let channels = self.shape.channels();
        let size = [tokens.len() / channels, self.shape.head_dim];
        MatrixView { values: &tokens[head * self.shape.head_dim..], size, strides: [channels, 1] }
    }

    /// As [`KeyValues::queries`], to write.
    fn queries_mut<'b>(&self, tokens: &'b mut [f32], head: usize) -> MatrixViewMut<'b> {
        let channels = self.shape.channels();
        let size = [tokens.len() / channels, self.shape.head_dim];
        MatrixViewMut { values: &mut tokens[head * self.shape.head_dim..], size, row_stride: channels }
    }

    /// One head of the gradients of keys or values, `[M, d]`.
    fn gradient_mut<'b>(&self, sums: &'b mut [f32], start: usize) -> MatrixViewMut<'b> {
        let size = [self.shape.keys, self.shape.head_dim];
        MatrixViewMut { values: &mut sums[start..], size, row_stride: 2 * self.shape.channels() }
    }

    /// Backward pass for a part of the queries: overwrites `dq` and returns the contribution to the
    /// gradients of keys and values.
    fn part_backward(&self, scale: f32, q: &[f32], [y, log_sums]: [&[f32]; 2], dy: &[f32], dq: &mut [f32]) -> Vec<f32> {
        let AttentionShape { keys, heads, head_dim, .. } = *self.shape;
        let channels = self.shape.channels();
        let mut sums = vec![0.0; 2 * keys * channels];
        let (mut weights, mut gradients) = (Vec::new(), Vec::new());
        for (block, dq) in dq.chunks_mut(BLOCK * channels).enumerate() {
            let [q, y, dy] = [q, y, dy].map(|all| &all[block * BLOCK * channels..][..dq.len()]);
            let log_sums = &log_sums[block * BLOCK * heads..];
            let rows = dq.len() / channels;
            weights.resize(rows * keys, 0.0);
            gradients.resize(rows * keys, 0.0);
            for head in 0..heads {
                let start = head * head_dim;
                product(
                    self.queries(q, head),
                    self.keys(head).transposed(),
                    scale,
                    false,
                    MatrixViewMut::of_rows(&mut weights, keys),
                );
                product(
                    self.queries(dy, head),
                    self.values(head).transposed(),
                    1.0,
                    false,
                    MatrixViewMut::of_rows(&mut gradients, keys),
                );
                for row in 0..rows {
                    let token = row * channels + start;
                    let mean = lane_sum(&y[token..][..head_dim], &dy[token..][..head_dim], |y, dy| y * dy);
                    let (weights, gradients) =
                        (&mut weights[row * keys..][..keys], &mut gradients[row * keys..][..keys]);
                    dispatch(ScoreGradient { weights, gradients, log_sum: log_sums[row * heads + head], mean });
                }
                let (weights, gradients) = (MatrixView::of_rows(&weights, keys), MatrixView::of_rows(&gradients, keys));
                product(gradients, self.keys(head), scale, false, self.queries_mut(dq, head));
                product(
                    gradients.transposed(),
                    self.queries(q, head),
                    scale,
                    true,
                    self.gradient_mut(&mut sums, start),
                );
                product(
                    weights.transposed(),
                    self.queries(dy, head),
                    1.0,
                    true,
                    self.gradient_mut(&mut sums, channels + start),
                );
            }
        }
        sums
    }
}

/// Replaces scores by their exponentials relative to the largest score of the row. A division by
/// the sum of the row would complete the softmax.
struct UnnormalisedSoftmax<'a> {
    width: usize,
    scores: &'a mut [f32],
    /// One over the sum of each row.
    inverse_sums: &'a mut [f32],
    /// Floats from the log sum of one row to the next.
    heads: usize,
    log_sums: &'a mut [f32],
}

impl SimdKernel for UnnormalisedSoftmax<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Lanes>(self, _: Supported<V>) {
        let log_sums = self.log_sums.iter_mut().step_by(self.heads);
        for ((row, inverse_sum), log_sum) in
            self.scores.chunks_exact_mut(self.width).zip(self.inverse_sums).zip(log_sums)
        {
            let (largest, sum) = exp_minus_max::<V>(row);
            *inverse_sum = 1.0 / sum;
            *log_sum = largest + sum.ln();
        }
    }
}

/// For one row, replaces scores by weights, and gradients of the weights by gradients of the
/// scores.
struct ScoreGradient<'a> {
    weights: &'a mut [f32],
    gradients: &'a mut [f32],
    log_sum: f32,
    /// Mean of the gradients of the weights, weighted by the weights.
    mean: f32,
}

impl SimdKernel for ScoreGradient<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Lanes>(self, _: Supported<V>) {
        for (weight, gradient) in self.weights.iter_mut().zip(self.gradients) {
            *weight = exp::<V>(*weight - self.log_sum);
            *gradient = *weight * (*gradient - self.mean);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Attention by its definition, in f64.
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
        fn values_and_gradients_match_the_reference(
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
            let derivative = |input: usize, at: usize| {
                let moved = |by: f64| {
                    let mut inputs = [q.clone(), kv.clone()];
                    inputs[input][at] += by;
                    loss(&inputs[0], &inputs[1])
                };
                (moved(step) - moved(-step)) / (2.0 * step)
            };
            for (input, gradient) in [&dq, &dkv].into_iter().enumerate() {
                for at in [0, gradient.len() / 3, gradient.len() / 2, gradient.len() - 1] {
                    let expected = derivative(input, at);
                    prop_assert!((f64::from(gradient[at]) - expected).abs() < 1e-3 * (1.0 + expected.abs()), "{input} {at}: {} {expected}", gradient[at]);
                }
            }
        }
    }

    #[test]
    fn results_do_not_depend_on_the_number_of_threads() {
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
