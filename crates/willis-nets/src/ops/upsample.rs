//! Nearest-neighbour upsampling.

use burn::tensor::Tensor;
use rayon::prelude::*;

use super::kernel::{CpuKernel, SavedForBackward, apply1, filled, on_cpu};

/// Repeats every voxel `factor` times along each axis.
///
/// # Shapes
/// x `[B, C, D, H, W]` -> `[B, C, factor D, factor H, factor W]`
pub fn upsample_nearest(x: Tensor<5>, factor: usize) -> Tensor<5> {
    if !on_cpu(&x) {
        return portable(x, factor);
    }
    let [batch, channels, depth, height, width] = x.dims();
    apply1(UpsampleKernel { batch, channels, from: [depth, height, width], factor }, x)
}

/// Fallback for other devices: one axis after the other.
fn portable(x: Tensor<5>, factor: usize) -> Tensor<5> {
    (2..5).fold(x, |x, axis| {
        let [batch, channels, depth, height, width] = x.dims();
        let sides = [batch, channels, depth, height, width];
        let before: usize = sides[..=axis].iter().product();
        let after: usize = sides[axis + 1..].iter().product();
        let mut to = sides;
        to[axis] *= factor;
        x.reshape([before, 1, after]).repeat_dim(1, factor).reshape(to)
    })
}

#[derive(Debug)]
struct UpsampleKernel {
    batch: usize,
    channels: usize,
    from: [usize; 3],
    factor: usize,
}

impl UpsampleKernel {
    fn to(&self) -> [usize; 3] {
        self.from.map(|side| side * self.factor)
    }

    fn volumes(&self) -> usize {
        self.batch * self.channels
    }
}

impl CpuKernel<1> for UpsampleKernel {
    fn output_shape(&self) -> Vec<usize> {
        [&[self.batch, self.channels][..], &self.to()].concat()
    }

    fn forward(&self, [x]: [&[f32]; 1]) -> Vec<f32> {
        let ([_, height, width], [_, to_height, to_width]) = (self.from, self.to());
        // Volumes stand on one another, so slice `k` of the output repeats slice `k / factor`.
        filled(self.volumes() * self.to().iter().product::<usize>(), |y| {
            y.par_chunks_mut(to_height * to_width).enumerate().for_each(|(slice, y)| {
                let x = &x[slice / self.factor * height * width..][..height * width];
                for (x, rows) in x.chunks_exact(width).zip(y.chunks_exact_mut(self.factor * to_width)) {
                    let (first, others) = rows.split_at_mut(to_width);
                    for (value, voxels) in x.iter().zip(first.chunks_exact_mut(self.factor)) {
                        voxels.fill(*value);
                    }
                    others.chunks_exact_mut(to_width).for_each(|row| row.copy_from_slice(first));
                }
            });
        })
    }

    fn saved_for_backward(&self) -> SavedForBackward {
        SavedForBackward::Neither
    }

    fn backward(&self, _: [&[f32]; 1], _: &[f32], grad: &[f32], needs: [bool; 1]) -> [Option<Vec<f32>>; 1] {
        let ([_, height, width], [_, to_height, to_width]) = (self.from, self.to());
        let fill = |dx: &mut [f32]| {
            dx.par_chunks_mut(height * width).enumerate().for_each(|(slice, dx)| {
                dx.fill(0.0);
                let slices = &grad[slice * self.factor * to_height * to_width..][..self.factor * to_height * to_width];
                for (row, dy) in slices.chunks_exact(to_width).enumerate() {
                    let row = row % to_height / self.factor;
                    let sums = dx[row * width..][..width].iter_mut();
                    sums.zip(dy.chunks_exact(self.factor)).for_each(|(sum, dy)| *sum += dy.iter().sum::<f32>());
                }
            });
        };
        [needs[0].then(|| filled(self.volumes() * self.from.iter().product::<usize>(), fill))]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::kernel::tests::assert_same;

    #[test]
    fn values_and_gradients_equal_the_portable_form() {
        for factor in [1, 2, 3] {
            assert_same([2, 3, 2, 3, 5], |[x, _, _]| upsample_nearest(x, factor), |[x, _, _]| portable(x, factor));
        }
    }
}
