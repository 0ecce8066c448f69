//! Conversion between channels-first and channels-last memory layout.

use burn::tensor::Tensor;
use willis_kernels::transpose::transpose;

use super::kernel::{CpuKernel, RecomputeOutput, SavedForBackward, apply1, filled, on_cpu};

/// Moves the channels to the last axis.
///
/// # Shapes
/// x `[B, C, D, H, W]` -> `shape`, which is `[B, ..., C]` with as many voxels between
///
/// # Panics
/// if `shape` does not start with B and end with C (programmer error)
pub fn channels_last<const E: usize>(x: Tensor<5>, shape: [usize; E]) -> Tensor<E> {
    let [batch, channels, d, h, w] = x.dims();
    assert!(shape[0] == batch && shape[E - 1] == channels, "{:?} does not transpose to {shape:?}", x.dims());
    if !on_cpu(&x) {
        return x.permute([0, 2, 3, 4, 1]).reshape(shape);
    }
    apply1(TransposeKernel { rows: channels, columns: d * h * w, shape: shape.to_vec() }, x)
}

/// Moves the channels from the last axis to the second.
///
/// # Shapes
/// x `[B, ..., C]`, with as many rows per item as `grid` has voxels -> `[B, C, D, H, W]` with grid
/// `[D, H, W]`
pub fn channels_first<const D: usize>(x: Tensor<D>, grid: [usize; 3]) -> Tensor<5> {
    let (batch, channels) = (x.dims()[0], x.dims()[D - 1]);
    let [d, h, w] = grid;
    if !on_cpu(&x) {
        return x.reshape([batch, d, h, w, channels]).permute([0, 4, 1, 2, 3]);
    }
    apply1(TransposeKernel { rows: d * h * w, columns: channels, shape: vec![batch, channels, d, h, w] }, x)
}

/// Transposes the `rows x columns` matrix of each item.
#[derive(Debug)]
struct TransposeKernel {
    /// Rows of an item of the input.
    rows: usize,
    columns: usize,
    /// Shape of the output.
    shape: Vec<usize>,
}

impl CpuKernel<1> for TransposeKernel {
    fn output_shape(&self) -> Vec<usize> {
        self.shape.clone()
    }

    fn forward(&self, [x]: [&[f32]; 1]) -> Vec<f32> {
        filled(x.len(), |y| transpose(self.rows, self.columns, x, y))
    }

    fn saved_for_backward(&self) -> SavedForBackward {
        SavedForBackward::Neither
    }

    fn recompute(&self) -> RecomputeOutput {
        RecomputeOutput::WithInput
    }

    fn backward(&self, _: [&[f32]; 1], _: &[f32], grad: &[f32], needs: [bool; 1]) -> [Option<Vec<f32>>; 1] {
        [needs[0].then(|| filled(grad.len(), |dx| transpose(self.columns, self.rows, grad, dx)))]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::kernel::tests::assert_same;

    #[test]
    fn values_and_gradients_equal_burns() {
        let shape = [2, 3, 2, 4, 5];
        assert_same(shape, |[x, _, _]| channels_last(x, [2, 40, 3]), |[x, _, _]| x.flatten::<3>(2, 4).swap_dims(1, 2));
        assert_same(shape, |[x, _, _]| channels_first(x, [3, 2, 4]), |[x, _, _]| x.permute([0, 4, 1, 2, 3]));
    }
}
