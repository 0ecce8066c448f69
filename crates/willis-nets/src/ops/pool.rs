//! Maximum pooling.

use burn::tensor::Tensor;
use willis_kernels::pool::{PoolShape, max_backward, max_forward};

use super::kernel::{Kernel, apply1, filled, on_cpu};

/// Maximum over cubes of `side` voxels that do not overlap; voxels left over at the far borders are dropped.
///
/// # Shapes      x `[B, C, D, H, W]` -> `[B, C, D / side, H / side, W / side]`
pub fn max_pool3d(x: Tensor<5>, side: usize) -> Tensor<5> {
    if !on_cpu(&x) {
        return portable(x, side);
    }
    let [batch, channels, depth, height, width] = x.dims();
    let shape = PoolShape {
        volumes: batch * channels,
        input: [depth, height, width],
        kernel: [side; 3],
        stride: [side; 3],
        padding: [0; 3],
    };
    apply1(MaxPool { batch, channels, shape }, x)
}

/// The same by a maximum along three axes.
fn portable(x: Tensor<5>, side: usize) -> Tensor<5> {
    let [batch, channels, depth, height, width] = x.dims();
    let [d, h, w] = [depth / side, height / side, width / side];
    let x = x.slice([0..batch, 0..channels, 0..d * side, 0..h * side, 0..w * side]);
    let rows: Tensor<2> = x.reshape([batch * channels * d * side * h * side * w, side]).max_dim(1);
    let planes: Tensor<3> = rows.reshape([batch * channels * d * side * h, side, w]).max_dim(1);
    let volumes: Tensor<3> = planes.reshape([batch * channels * d, side, h * w]).max_dim(1);
    volumes.reshape([batch, channels, d, h, w])
}

#[derive(Debug)]
struct MaxPool {
    batch: usize,
    channels: usize,
    shape: PoolShape,
}

impl Kernel<1> for MaxPool {
    fn output_shape(&self) -> Vec<usize> {
        [&[self.batch, self.channels][..], &self.shape.output()].concat()
    }

    fn forward(&self, [x]: [&[f32]; 1]) -> Vec<f32> {
        filled(self.shape.output_len(), |y| max_forward(&self.shape, x, y))
    }

    fn backward(&self, [x]: [&[f32]; 1], y: &[f32], grad: &[f32], needs: [bool; 1]) -> [Option<Vec<f32>>; 1] {
        [needs[0].then(|| filled(x.len(), |dx| max_backward(&self.shape, x, y, grad, dx)))]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::kernel::tests::assert_same;

    #[test]
    fn values_and_gradients_equal_the_portable_form() {
        assert_same([2, 3, 4, 6, 7], |[x, _, _]| max_pool3d(x, 2), |[x, _, _]| portable(x, 2));
    }
}
