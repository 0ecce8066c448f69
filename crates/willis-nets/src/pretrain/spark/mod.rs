//! SparK: an encoder computes from the visible cells of a volume, mask tokens fill the rest, and a
//! decoder reconstructs what was masked.
//!
//! Two forms: [`S3d`] reconstructs with the decoder of the residual-encoder U-Net; [`SparkNet`]
//! puts a light decoder behind the encoder of another backbone.
//!
//! Source: Tian et al., ICLR 2023, arXiv:2301.03580; Wald et al., CVPR 2025, arXiv:2410.23132.

mod net;
mod s3d;

use burn::tensor::Tensor;

pub use net::{Encoding, SparkNet, SparkNetConfig, SparkOutput};
pub use s3d::S3d;

use crate::layers::standardise;
use crate::layers::visible::VisibleCells;

/// Cells whose standard deviation is below this fraction of the volume's count as flat: scaled to
/// unit variance they would be noise.
const FLAT: f64 = 0.05;
/// Added to variances, as in the official code.
const EPS: f64 = 1e-6;

/// Mean squared error over masked voxels of a volume that is standardised as a whole (S3D's
/// target).
///
/// # Shapes
/// reconstruction and x `[B, C, D, H, W]` -> `[1]`
pub fn masked_error(reconstruction: Tensor<5>, x: Tensor<5>, visible: &VisibleCells) -> Tensor<1> {
    let target = standardise(x);
    let all = Tensor::ones(target.dims(), &target.device().inner());
    let hidden = all.clone() - visible.mask(all);
    let error = (reconstruction - target).square() * hidden.clone();
    error.sum() / hidden.sum().clamp_min(1.0)
}

/// Mean squared error over masked cells, each standardised by its own mean and unbiased variance
/// (the target of SparK and MiM). Flat cells do not count.
///
/// # Shapes
/// reconstruction and x `[B, 1, D, H, W]`, cells of `cell³` voxels -> `[1]`
pub fn masked_cell_error(reconstruction: Tensor<5>, x: Tensor<5>, visible: &VisibleCells, cell: usize) -> Tensor<1> {
    let all = Tensor::ones(x.dims(), &x.device().inner());
    let hidden = to_cells(all.clone() - visible.mask(all), cell).narrow(1, 0, 1);
    let [voxels] = x.clone().flatten::<1>(0, 4).dims();
    let flat: Tensor<1> = x.clone().reshape([voxels]);
    let overall = (flat.clone() - flat.mean()).square().mean().into_scalar::<f32>();
    let x = to_cells(x, cell);
    let (mean, variance) = moments(x.clone());
    let counts = hidden * variance.clone().greater_elem(FLAT.powi(2) * f64::from(overall)).float();
    let target = (x - mean) / (variance + EPS).sqrt();
    let error = (to_cells(reconstruction, cell) - target).square().mean_dim(1) * counts.clone();
    error.sum() / counts.sum().clamp_min(1.0)
}

/// A reconstruction of standardised cells in the units of x, for pictures.
///
/// # Shapes
/// reconstruction and x `[B, 1, D, H, W]` -> the same shape
pub fn destandardised(reconstruction: Tensor<5>, x: Tensor<5>, cell: usize) -> Tensor<5> {
    let shape = x.dims();
    let (mean, variance) = moments(to_cells(x, cell));
    from_cells(to_cells(reconstruction, cell) * (variance + EPS).sqrt() + mean, shape, cell)
}

/// `[B, C, D, H, W]` -> `[cells, cell³]`; cells, and voxels within a cell, in C order.
fn to_cells(x: Tensor<5>, cell: usize) -> Tensor<2> {
    let [b, c, d, h, w] = x.dims();
    let blocks = x.reshape([b * c * d / cell, cell, h / cell, cell, w / cell, cell]).permute([0, 2, 4, 1, 3, 5]);
    blocks.reshape([b * c * d * h * w / cell.pow(3), cell.pow(3)])
}

/// Inverse of [`to_cells`].
pub(super) fn from_cells(cells: Tensor<2>, shape: [usize; 5], cell: usize) -> Tensor<5> {
    let [b, c, d, h, w] = shape;
    let blocks = cells.reshape([b * c * d / cell, h / cell, w / cell, cell, cell, cell]);
    blocks.permute([0, 3, 1, 4, 2, 5]).reshape(shape)
}

/// Mean and unbiased variance of each row, `[rows, 1]`.
fn moments(x: Tensor<2>) -> (Tensor<2>, Tensor<2>) {
    let mean = x.clone().mean_dim(1);
    let others = (x.dims()[1] - 1).max(1) as f64;
    let variance = (x - mean.clone()).square().sum_dim(1) / others;
    (mean, variance)
}

#[cfg(test)]
pub(crate) mod tests {
    pub(crate) use super::net::tests::{tiny_segformer, tiny_waveformer};
    use super::*;
    use crate::golden;
    use burn::tensor::Device;

    #[test]
    fn only_masked_voxels_count() {
        let device = Device::flex();
        let visible = VisibleCells::new(&[true, false, true, true, true, true, true, true], 1, [2; 3], &device);
        let x = golden::input([1, 1, 4, 4, 4], &device);
        let right = standardise(x.clone());
        let error = |y| masked_error(y, x.clone(), &visible).into_scalar::<f32>();
        assert!(error(right.clone()).abs() < 1e-6);
        assert!(error(right.clone() + visible.mask(Tensor::ones([1, 1, 4, 4, 4], &device))).abs() < 1e-6);
        assert!((error(right + 2.0) - 4.0).abs() < 1e-4);
    }

    #[test]
    fn each_cell_is_standardised_and_flat_cells_do_not_count() {
        let device = Device::flex();
        let visible = VisibleCells::new(&[false, false, true, true, true, true, true, true], 1, [2; 3], &device);
        // The first cell varies, the second is flat.
        let value = |i: usize| match (i / 16, i / 4 % 4, i % 4) {
            (z, y, x) if z < 2 && y < 2 && x < 2 => ((z * 4 + y * 2 + x) as f32).powi(2),
            (z, y, x) if z < 2 && y < 2 && x >= 2 => 7.0,
            _ => (i as f32).sin(),
        };
        let x = Tensor::<1>::from_floats((0..64).map(value).collect::<Vec<f32>>().as_slice(), &device);
        let x = x.reshape([1, 1, 4, 4, 4]);
        let squares: Vec<f64> = (0..8).map(|i| f64::from(i * i)).collect();
        let mean = squares.iter().sum::<f64>() / 8.0;
        let variance = squares.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / 7.0;
        // The error of an all-zero reconstruction is the target's mean square.
        let expected = squares.iter().map(|v| (v - mean).powi(2) / (variance + 1e-6)).sum::<f64>() / 8.0;
        let got = masked_cell_error(x.zeros_like(), x, &visible, 2).into_scalar::<f32>();
        assert!((f64::from(got) - expected).abs() < 1e-5, "{got} {expected}");
    }

    #[test]
    fn the_destandardised_target_is_the_volume() {
        let device = Device::flex();
        let x = golden::input([2, 1, 4, 6, 8], &device);
        let (mean, variance) = moments(to_cells(x.clone(), 2));
        let target = (to_cells(x.clone(), 2) - mean) / (variance + EPS).sqrt();
        let back = destandardised(from_cells(target, [2, 1, 4, 6, 8], 2), x.clone(), 2);
        back.into_data().assert_approx_eq::<f32>(&x.into_data(), burn::tensor::Tolerance::absolute(1e-5));
    }

    #[test]
    fn cells_are_blocks_in_c_order() {
        let device = Device::flex();
        let x = Tensor::<1, burn::tensor::Int>::arange(0..64, &device).float().reshape([1, 1, 4, 4, 4]);
        let cells = to_cells(x.clone(), 2);
        let last = cells.clone().narrow(0, 7, 1).into_data().try_to_vec::<f32>().unwrap();
        assert_eq!(last, [42.0, 43.0, 46.0, 47.0, 58.0, 59.0, 62.0, 63.0]);
        from_cells(cells, [1, 1, 4, 4, 4], 2).into_data().assert_eq(&x.into_data(), true);
    }
}
