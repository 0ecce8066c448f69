//! Multi-head attention.

use std::sync::OnceLock;

use burn::tensor::Tensor;
use willis_kernels::attention::{AttentionShape, backward, forward};

use super::kernel::{CpuKernel, SavedForBackward, apply2, filled, on_cpu};
use super::macs::record_macs;

/// Scaled dot-product attention, `softmax(scale q k^T) v` in each head.
///
/// # Shapes
/// q `[B, N, H d]`, key_value `[B, M, 2 H d]` (keys, then values) -> `[B, N, H d]`, with N queries,
/// M keys, H heads of d channels
pub fn attention(q: Tensor<3>, key_value: Tensor<3>, heads: usize, scale: f64) -> Tensor<3> {
    record_macs(2 * q.shape().num_elements() * key_value.dims()[1]);
    if !on_cpu(&q) {
        return portable(q, key_value, heads, scale);
    }
    let ([batch, queries, channels], [_, keys, _]) = (q.dims(), key_value.dims());
    let shape = AttentionShape { batch, queries, keys, heads, head_dim: channels / heads };
    apply2(AttentionKernel { shape, scale: scale as f32, log_sums: OnceLock::new() }, q, key_value)
}

/// Fallback for other devices, which builds the whole score matrix.
fn portable(q: Tensor<3>, key_value: Tensor<3>, heads: usize, scale: f64) -> Tensor<3> {
    let [batch, queries, channels] = q.dims();
    let split = |x: Tensor<3>| {
        let tokens = x.dims()[1];
        x.reshape([batch, tokens, heads, channels / heads]).swap_dims(1, 2)
    };
    let (keys, values) = (key_value.clone().narrow(2, 0, channels), key_value.narrow(2, channels, channels));
    let weights = super::softmax(split(q * scale).matmul(split(keys).swap_dims(2, 3)));
    weights.matmul(split(values)).swap_dims(1, 2).reshape([batch, queries, channels])
}

#[derive(Debug)]
struct AttentionKernel {
    shape: AttentionShape,
    scale: f32,
    /// Logarithms of the softmax denominators, saved by the forward pass for the backward pass.
    log_sums: OnceLock<Vec<f32>>,
}

impl AttentionKernel {
    fn run(&self, [q, key_value]: [&[f32]; 2]) -> (Vec<f32>, Vec<f32>) {
        let mut log_sums = vec![0.0; self.shape.batch * self.shape.queries * self.shape.heads];
        let y = filled(q.len(), |y| forward(&self.shape, self.scale, q, key_value, y, &mut log_sums));
        (y, log_sums)
    }
}

impl CpuKernel<2> for AttentionKernel {
    fn output_shape(&self) -> Vec<usize> {
        vec![self.shape.batch, self.shape.queries, self.shape.heads * self.shape.head_dim]
    }

    fn forward(&self, inputs: [&[f32]; 2]) -> Vec<f32> {
        let (y, log_sums) = self.run(inputs);
        self.log_sums.get_or_init(|| log_sums);
        y
    }

    fn saved_for_backward(&self) -> SavedForBackward {
        SavedForBackward::Both
    }

    fn backward(&self, inputs: [&[f32]; 2], y: &[f32], grad: &[f32], needs: [bool; 2]) -> [Option<Vec<f32>>; 2] {
        let log_sums = self.log_sums.get_or_init(|| self.run(inputs).1);
        let mut gradients = inputs.map(|input| vec![0.0; input.len()]);
        let [dq, d_key_value] = &mut gradients;
        backward(&self.shape, self.scale, inputs, [y, log_sums], grad, dq, d_key_value);
        let [dq, d_key_value] = gradients;
        [needs[0].then_some(dq), needs[1].then_some(d_key_value)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::kernel::tests::assert_same;

    #[test]
    fn values_and_gradients_equal_the_portable_form() {
        let inputs = |[x, y, _]: [Tensor<3>; 3]| (x, Tensor::cat(vec![y.clone(), y * 0.5], 2));
        assert_same(
            [2, 5, 6],
            |x| {
                let (q, key_value) = inputs(x);
                attention(q, key_value, 2, 0.6)
            },
            |x| {
                let (q, key_value) = inputs(x);
                portable(q, key_value, 2, 0.6)
            },
        );
    }
}
