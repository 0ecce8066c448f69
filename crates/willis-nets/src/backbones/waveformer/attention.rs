//! Attention inside windows, with a learned bias per displacement.

use burn::module::{Module, Param};
use burn::tensor::{Int, Tensor, TensorData};

use super::{RelativeIndex, WindowReverse};
use crate::layers::visible::VisibleCells;
use crate::layers::{Init, Linear, LinearConfig};
use crate::ops;

/// Subtracted from the logits of hidden tokens. Their weights become zero, and the softmax stays
/// finite in windows without visible tokens.
const HIDDEN_LOGIT: f64 = 1e9;

/// Sizes of [`WindowAttention`].
#[derive(Debug, Clone)]
pub(super) struct WindowAttentionConfig {
    pub channels: usize,
    pub heads: usize,
    /// Window side per axis.
    pub window: [usize; 3],
    pub relative_index: RelativeIndex,
    pub window_reverse: WindowReverse,
}

/// Multi-head attention within windows.
#[derive(Module, Debug)]
pub(super) struct WindowAttention {
    /// `[(2w_d - 1)(2w_h - 1)(2w_w - 1), heads]`.
    relative_position_bias_table: Param<Tensor<2>>,
    qkv: Linear,
    proj: Linear,
    heads: usize,
    #[module(skip)]
    window: [usize; 3],
    #[module(skip)]
    index: Vec<i32>,
    #[module(skip)]
    reverse: WindowReverse,
}

impl WindowAttentionConfig {
    pub fn init(&self, init: &mut Init) -> WindowAttention {
        let rows = self.window.iter().map(|w| 2 * w - 1).product();
        WindowAttention {
            relative_position_bias_table: init.normal([rows, self.heads], 0.02),
            qkv: LinearConfig::new(self.channels, 3 * self.channels).init(init),
            proj: LinearConfig::new(self.channels, self.channels).init(init),
            heads: self.heads,
            window: self.window,
            index: relative_index(self.window, self.relative_index),
            reverse: self.window_reverse,
        }
    }
}

impl WindowAttention {
    /// Attention of every token to the tokens of its window, with `visible` to the visible ones
    /// only. The output of hidden tokens is not meaningful.
    ///
    /// # Shapes
    /// x `[B, D, H, W, C]`, each axis a multiple of the window's -> the same shape
    pub fn forward(&self, x: Tensor<5>, visible: Option<&VisibleCells>) -> Tensor<5> {
        let [b, d, h, w, c] = x.dims();
        let [wd, wh, ww] = self.window;
        let (nd, nh, nw) = (d / wd, h / wh, w / ww);
        let windows = |x: Tensor<5>, channels: usize| {
            let windows = x.reshape([b, nd, wd, nh, wh, nw, ww, channels]).permute([0, 1, 3, 5, 2, 4, 6, 7]);
            windows.reshape([b * nd * nh * nw, wd * wh * ww, channels])
        };
        let mask = visible.and_then(|visible| visible.mask_at_channels_last([d, h, w])).map(|mask| windows(mask, 1));
        let attended = self.attend(windows(x, c), mask);
        match self.reverse {
            WindowReverse::Flat => attended.reshape([b, d, h, w, c]),
            WindowReverse::Permuted => {
                let windows = attended.reshape([b, nd, nh, nw, wd, wh, ww, c]);
                windows.permute([0, 1, 4, 2, 5, 3, 6, 7]).reshape([b, d, h, w, c])
            }
        }
    }

    /// Attention within each window; `mask` is 0 for hidden tokens.
    ///
    /// # Shapes
    /// x `[windows, T, C]`, mask `[windows, T, 1]` -> the shape of x
    fn attend(&self, x: Tensor<3>, mask: Option<Tensor<3>>) -> Tensor<3> {
        let [n, tokens, c] = x.dims();
        let width = c / self.heads;
        let qkv = self.qkv.forward(x).reshape([n, tokens, 3, self.heads, width]).permute([2, 0, 3, 1, 4]);
        let part = |i| qkv.clone().narrow(0, i, 1).reshape([n, self.heads, tokens, width]);
        ops::record_macs(2 * n * tokens * tokens * c);
        let (q, k, v) = (part(0) * (width as f64).powf(-0.5), part(1), part(2));
        let mut logits = q.matmul(k.swap_dims(2, 3)) + self.bias(tokens);
        if let Some(mask) = mask {
            logits = logits + ((mask - 1.0) * HIDDEN_LOGIT).reshape([n, 1, 1, tokens]);
        }
        let weights = ops::softmax(logits);
        self.proj.forward(weights.matmul(v).swap_dims(1, 2).reshape([n, tokens, c]))
    }

    /// Position bias of every pair (query, key), `[1, heads, T, T]`.
    fn bias(&self, tokens: usize) -> Tensor<4> {
        let table = self.relative_position_bias_table.val();
        let index = TensorData::new(self.index.clone(), [self.index.len()]);
        let rows = table.clone().select(0, Tensor::<1, Int>::from_data(index, &table.device()));
        rows.reshape([1, tokens, tokens, self.heads]).permute([0, 3, 1, 2])
    }
}

/// Row of the bias table for every pair (query, key) of a window's tokens, in C order.
fn relative_index([wd, wh, ww]: [usize; 3], rule: RelativeIndex) -> Vec<i32> {
    let strides = match rule {
        RelativeIndex::Distinct => [(2 * wh - 1) * (2 * ww - 1), 2 * ww - 1, 1],
        RelativeIndex::Colliding => [3 * wh - 1, 2 * ww - 1, 1],
    };
    let place = |token: usize| [token / (wh * ww), token / ww % wh, token % ww];
    let tokens = wd * wh * ww;
    let row = |query: usize, key: usize| -> usize {
        let (q, k) = (place(query), place(key));
        (0..3).map(|axis| (q[axis] + [wd, wh, ww][axis] - 1 - k[axis]) * strides[axis]).sum()
    };
    (0..tokens * tokens).map(|i| row(i / tokens, i % tokens) as i32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_the_bias_table() {
        // In a 1x2x2 window, displacement (0, dh, dw) has row 3 (dh + 1) + dw + 1.
        let index = relative_index([1, 2, 2], RelativeIndex::Distinct);
        assert_eq!(index, [4, 3, 1, 0, 5, 4, 2, 1, 7, 6, 4, 3, 8, 7, 5, 4]);
        let distinct = |rule| {
            let mut rows = relative_index([8; 3], rule);
            rows.sort_unstable();
            rows.dedup();
            (rows.len(), *rows.last().unwrap())
        };
        assert_eq!(distinct(RelativeIndex::Distinct), (3375, 3374));
        assert_eq!(distinct(RelativeIndex::Colliding).0, 547);
    }
}
