//! Max pooling and average pooling.

use burn::tensor::Tensor;
use willis_kernels::pooling::{PoolShape, average_backward, average_forward, max_backward, max_forward};

use super::kernel::{CpuKernel, SavedForBackward, apply1, filled, on_cpu};

/// Maximum over adjacent cubes of `side` voxels; voxels beyond the last whole cube are ignored.
///
/// # Shapes
/// x `[B, C, D, H, W]` -> `[B, C, D / side, H / side, W / side]`
pub fn max_pool3d(x: Tensor<5>, side: usize) -> Tensor<5> {
    if !on_cpu(&x) {
        return portable_max(x, side);
    }
    apply1(MaxPoolKernel(PoolCubes::new(&x, side)), x)
}

/// Mean over adjacent cubes of `side` voxels; voxels beyond the last whole cube are ignored.
///
/// # Shapes
/// x `[B, C, D, H, W]` -> `[B, C, D / side, H / side, W / side]`
pub fn average_pool3d(x: Tensor<5>, side: usize) -> Tensor<5> {
    if !on_cpu(&x) {
        return portable_average(x, side);
    }
    apply1(AveragePoolKernel(PoolCubes::new(&x, side)), x)
}

/// Fallback for other devices: maxima along one axis after the other.
fn portable_max(x: Tensor<5>, side: usize) -> Tensor<5> {
    let [batch, channels, depth, height, width] = x.dims();
    let [d, h, w] = [depth / side, height / side, width / side];
    let x = x.slice([0..batch, 0..channels, 0..d * side, 0..h * side, 0..w * side]);
    let rows: Tensor<2> = x.reshape([batch * channels * d * side * h * side * w, side]).max_dim(1);
    let planes: Tensor<3> = rows.reshape([batch * channels * d * side * h, side, w]).max_dim(1);
    let volumes: Tensor<3> = planes.reshape([batch * channels * d, side, h * w]).max_dim(1);
    volumes.reshape([batch, channels, d, h, w])
}

/// Fallback for other devices: means along one axis after the other.
fn portable_average(x: Tensor<5>, side: usize) -> Tensor<5> {
    let [batch, channels, depth, height, width] = x.dims();
    let [d, h, w] = [depth / side, height / side, width / side];
    let x = x.slice([0..batch, 0..channels, 0..d * side, 0..h * side, 0..w * side]);
    let rows: Tensor<2> = x.reshape([batch * channels * d * side * h * side * w, side]).mean_dim(1);
    let planes: Tensor<3> = rows.reshape([batch * channels * d * side * h, side, w]).mean_dim(1);
    let volumes: Tensor<3> = planes.reshape([batch * channels * d, side, h * w]).mean_dim(1);
    volumes.reshape([batch, channels, d, h, w])
}

/// Adjacent cubes of voxels, which pooling reduces to one voxel each.
#[derive(Debug)]
struct PoolCubes {
    batch: usize,
    channels: usize,
    shape: PoolShape,
}

impl PoolCubes {
    fn new(x: &Tensor<5>, side: usize) -> Self {
        let [batch, channels, depth, height, width] = x.dims();
        let (kernel, stride, padding) = ([side; 3], [side; 3], [0; 3]);
        let shape = PoolShape { volumes: batch * channels, input: [depth, height, width], kernel, stride, padding };
        Self { batch, channels, shape }
    }

    fn output_shape(&self) -> Vec<usize> {
        [&[self.batch, self.channels][..], &self.shape.output()].concat()
    }
}

#[derive(Debug)]
struct MaxPoolKernel(PoolCubes);

impl CpuKernel<1> for MaxPoolKernel {
    fn output_shape(&self) -> Vec<usize> {
        self.0.output_shape()
    }

    fn forward(&self, [x]: [&[f32]; 1]) -> Vec<f32> {
        filled(self.0.shape.output_len(), |y| max_forward(&self.0.shape, x, y))
    }

    fn saved_for_backward(&self) -> SavedForBackward {
        SavedForBackward::Both
    }

    fn backward(&self, [x]: [&[f32]; 1], y: &[f32], grad: &[f32], needs: [bool; 1]) -> [Option<Vec<f32>>; 1] {
        [needs[0].then(|| filled(x.len(), |dx| max_backward(&self.0.shape, x, y, grad, dx)))]
    }
}

#[derive(Debug)]
struct AveragePoolKernel(PoolCubes);

impl CpuKernel<1> for AveragePoolKernel {
    fn output_shape(&self) -> Vec<usize> {
        self.0.output_shape()
    }

    fn forward(&self, [x]: [&[f32]; 1]) -> Vec<f32> {
        filled(self.0.shape.output_len(), |y| average_forward(&self.0.shape, x, y))
    }

    fn saved_for_backward(&self) -> SavedForBackward {
        SavedForBackward::Neither
    }

    fn backward(&self, _: [&[f32]; 1], _: &[f32], grad: &[f32], needs: [bool; 1]) -> [Option<Vec<f32>>; 1] {
        [needs[0].then(|| filled(self.0.shape.input_len(), |dx| average_backward(&self.0.shape, grad, dx)))]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::kernel::tests::assert_same;

    #[test]
    fn values_and_gradients_equal_the_portable_forms() {
        assert_same([2, 3, 4, 6, 7], |[x, _, _]| average_pool3d(x, 2), |[x, _, _]| portable_average(x, 2));
        assert_same([2, 3, 4, 6, 7], |[x, _, _]| max_pool3d(x, 2), |[x, _, _]| portable_max(x, 2));
    }
}
