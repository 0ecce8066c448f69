//! SparK: an encoder sees some cells of a volume, tokens fill the rest, and a decoder paints what
//! was masked.
//!
//! Two forms: [`S3d`] paints with the segmentation decoder of the residual-encoder U-Net; [`Light`]
//! puts a light decoder behind SegFormer3D's or WaveFormer's encoder.
//!
//! Source: Tian et al., ICLR 2023, arXiv:2301.03580; Wald et al., CVPR 2025, arXiv:2410.23132.

mod light;
mod s3d;

use burn::tensor::Tensor;

pub use light::{EncoderConfig, Encoding, Light, LightConfig, Painted};
pub use s3d::{InputMask, S3d};

use crate::layers::standardise;
use crate::layers::visible::VisibleCells;

/// Cells whose standard deviation is below this part of the volume's are of one colour: scaled to
/// unit variance they would be noise.
const FLAT: f64 = 0.05;
const EPS: f64 = 1e-6;

/// Mean squared error over the masked voxels of a volume standardised as a whole (S3D's target).
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

/// Mean squared error over the masked cells, each standardised on its own with the unbiased
/// variance (SparK's target); cells of one colour do not count.
///
/// # Shapes
/// reconstruction and x `[B, 1, D, H, W]`, cells of `cell³` voxels -> `[1]`
pub fn masked_cell_error(reconstruction: Tensor<5>, x: Tensor<5>, visible: &VisibleCells, cell: usize) -> Tensor<1> {
    let all = Tensor::ones(x.dims(), &x.device().inner());
    let hidden = cells(all.clone() - visible.mask(all), cell).narrow(1, 0, 1);
    let [voxels] = x.clone().flatten::<1>(0, 4).dims();
    let spread: Tensor<1> = x.clone().reshape([voxels]);
    let overall = (spread.clone() - spread.mean()).square().mean().into_scalar::<f32>();
    let x = cells(x, cell);
    let (mean, variance) = moments(x.clone());
    let counts = hidden * variance.clone().greater_elem(FLAT.powi(2) * f64::from(overall)).float();
    let target = (x - mean) / (variance + EPS).sqrt();
    let error = (cells(reconstruction, cell) - target).square().mean_dim(1) * counts.clone();
    error.sum() / counts.sum().clamp_min(1.0)
}

/// A painting of standardised cells in the units of x, to be looked at.
///
/// # Shapes
/// painting and x `[B, 1, D, H, W]` -> the same
pub fn repainted(painting: Tensor<5>, x: Tensor<5>, cell: usize) -> Tensor<5> {
    let [b, c, d, h, w] = x.dims();
    let (mean, variance) = moments(cells(x, cell));
    let values = cells(painting, cell) * (variance + EPS).sqrt() + mean;
    let blocks = values.reshape([b * c * d / cell, h / cell, w / cell, cell, cell, cell]);
    blocks.permute([0, 3, 1, 4, 2, 5]).reshape([b, c, d, h, w])
}

/// `[B, C, D, H, W]` -> `[cells, voxels of a cell]`.
fn cells(x: Tensor<5>, cell: usize) -> Tensor<2> {
    let [b, c, d, h, w] = x.dims();
    let blocks = x.reshape([b * c * d / cell, cell, h / cell, cell, w / cell, cell]).permute([0, 2, 4, 1, 3, 5]);
    blocks.reshape([b * c * d * h * w / cell.pow(3), cell.pow(3)])
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
    pub(crate) use super::light::tests::{tiny, tiny_waveformer};
    use super::*;
    use crate::golden;
    use burn::tensor::Device;

    #[test]
    fn the_error_is_of_masked_voxels_only() {
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
    fn cells_are_standardised_one_by_one_and_flat_ones_left_out() {
        let device = Device::flex();
        let visible = VisibleCells::new(&[false, false, true, true, true, true, true, true], 1, [2; 3], &device);
        // The first cell waves, the second has one colour.
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
        // Against a painting of nothing the error is the target's own mean square.
        let expected = squares.iter().map(|v| (v - mean).powi(2) / (variance + 1e-6)).sum::<f64>() / 8.0;
        let got = masked_cell_error(x.zeros_like(), x, &visible, 2).into_scalar::<f32>();
        assert!((f64::from(got) - expected).abs() < 1e-5, "{got} {expected}");
    }

    #[test]
    fn the_target_painted_is_the_image() {
        let device = Device::flex();
        let x = golden::input([2, 1, 4, 6, 8], &device);
        let (mean, variance) = moments(cells(x.clone(), 2));
        let target = (cells(x.clone(), 2) - mean) / (variance + EPS).sqrt();
        // In C order cells are taken apart as they were put together.
        let blocks = target.reshape([4, 3, 4, 2, 2, 2]).permute([0, 3, 1, 4, 2, 5]).reshape([2, 1, 4, 6, 8]);
        let back = repainted(blocks, x.clone(), 2);
        back.into_data().assert_approx_eq::<f32>(&x.into_data(), burn::tensor::Tolerance::absolute(1e-5));
    }
}
