//! Trilinear interpolation.

use burn::tensor::{Device, Tensor, TensorData};
use willis_kernels::resize::{Interpolation, resize, resize_gradient};

use super::kernel::{CpuKernel, SavedForBackward, apply1, filled, on_cpu};

/// Which points of the two grids coincide: PyTorch's `align_corners`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Corners {
    /// The outer faces of the border voxels (`align_corners=False`).
    HalfPixel,
    /// The centres of the border voxels (`align_corners=True`).
    Aligned,
}

/// Resizes volumes by trilinear interpolation.
///
/// # Shapes
/// x `[B, C, D, H, W]` -> `[B, C, size[0], size[1], size[2]]`
pub fn resize_trilinear(x: Tensor<5>, size: [usize; 3], corners: Corners) -> Tensor<5> {
    let [batch, channels, depth, height, width] = x.dims();
    if [depth, height, width] == size {
        return x;
    }
    if !on_cpu(&x) {
        return portable(x, size, corners);
    }
    let how = match corners {
        Corners::HalfPixel => Interpolation::Linear,
        Corners::Aligned => Interpolation::LinearAligned,
    };
    apply1(ResizeKernel { batch, channels, from: [depth, height, width], to: size, how }, x)
}

#[derive(Debug)]
struct ResizeKernel {
    batch: usize,
    channels: usize,
    from: [usize; 3],
    to: [usize; 3],
    how: Interpolation,
}

impl CpuKernel<1> for ResizeKernel {
    fn output_shape(&self) -> Vec<usize> {
        [&[self.batch, self.channels][..], &self.to].concat()
    }

    fn forward(&self, [x]: [&[f32]; 1]) -> Vec<f32> {
        let volumes = self.batch * self.channels;
        let len = volumes * self.to.iter().product::<usize>();
        filled(len, |y| resize(volumes, self.from, self.to, self.how, x, y))
    }

    fn saved_for_backward(&self) -> SavedForBackward {
        SavedForBackward::Neither
    }

    fn backward(&self, _: [&[f32]; 1], _: &[f32], grad: &[f32], needs: [bool; 1]) -> [Option<Vec<f32>>; 1] {
        let volumes = self.batch * self.channels;
        let len = volumes * self.from.iter().product::<usize>();
        [needs[0].then(|| filled(len, |dx| resize_gradient(volumes, self.from, self.to, self.how, grad, dx)))]
    }
}

/// Fallback for other devices: a product with an interpolation matrix along each axis.
fn portable(x: Tensor<5>, size: [usize; 3], corners: Corners) -> Tensor<5> {
    let [batch, channels, depth, height, width] = x.dims();
    let device = x.device();
    let matrix = |from, to| interpolation_matrix(from, to, corners, &device);
    let rows = x.reshape([1, batch * channels * depth * height, width]);
    let rows = rows.matmul(matrix(width, size[2]).swap_dims(1, 2));
    let planes = rows.reshape([batch * channels * depth, height, size[2]]);
    let planes = matrix(height, size[1]).expand([batch * channels * depth, size[1], height]).matmul(planes);
    let volumes = planes.reshape([batch * channels, depth, size[1] * size[2]]);
    let volumes = matrix(depth, size[0]).expand([batch * channels, size[0], depth]).matmul(volumes);
    volumes.reshape([batch, channels, size[0], size[1], size[2]])
}

/// The matrix of linear interpolation along one axis, `[1, to, from]`.
fn interpolation_matrix(from: usize, to: usize, corners: Corners, device: &Device) -> Tensor<3> {
    let mut matrix = vec![0.0f32; to * from];
    for (target, row) in matrix.chunks_exact_mut(from).enumerate() {
        let position = match corners {
            Corners::Aligned if to > 1 => target as f64 * (from as f64 - 1.0) / (to as f64 - 1.0),
            Corners::Aligned => 0.0,
            Corners::HalfPixel => ((target as f64 + 0.5) * from as f64 / to as f64 - 0.5).max(0.0),
        };
        let low = (position as usize).min(from - 1);
        let high = (low + 1).min(from - 1);
        let fraction = (position - low as f64) as f32;
        row[low] += 1.0 - fraction;
        row[high] += fraction;
    }
    Tensor::from_data(TensorData::new(matrix, [1, to, from]), device)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::kernel::tests::assert_same;

    #[test]
    fn values_and_gradients_equal_the_matrix_form() {
        for corners in [Corners::HalfPixel, Corners::Aligned] {
            for size in [[4, 6, 10], [3, 3, 5], [1, 2, 3]] {
                assert_same(
                    [2, 3, 2, 3, 5],
                    |[x, _, _]| resize_trilinear(x, size, corners),
                    |[x, _, _]| portable(x, size, corners),
                );
            }
        }
    }
}
