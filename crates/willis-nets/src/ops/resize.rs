//! Trilinear interpolation, separable along the three axes.

use burn::tensor::{Device, Tensor, TensorData};

/// Which points of the two grids coincide, as PyTorch's `align_corners`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Corners {
    /// The corners of the outermost voxels (`align_corners=False`).
    Free,
    /// The centres of the outermost voxels (`align_corners=True`).
    Aligned,
}

/// Interpolation to another size.
///
/// # Shapes      x `[B, C, D, H, W]` -> `[B, C, size...]`
pub fn resize_trilinear(x: Tensor<5>, size: [usize; 3], corners: Corners) -> Tensor<5> {
    let [batch, channels, depth, height, width] = x.dims();
    if [depth, height, width] == size {
        return x;
    }
    let device = x.device();
    let matrix = |from, to| interpolation(from, to, corners, &device);
    let rows = x.reshape([1, batch * channels * depth * height, width]);
    let rows = rows.matmul(matrix(width, size[2]).swap_dims(1, 2));
    let planes = rows.reshape([batch * channels * depth, height, size[2]]);
    let planes = matrix(height, size[1]).expand([batch * channels * depth, size[1], height]).matmul(planes);
    let volumes = planes.reshape([batch * channels, depth, size[1] * size[2]]);
    let volumes = matrix(depth, size[0]).expand([batch * channels, size[0], depth]).matmul(volumes);
    volumes.reshape([batch, channels, size[0], size[1], size[2]])
}

/// The `[1, to, from]` matrix of linear interpolation along one axis.
fn interpolation(from: usize, to: usize, corners: Corners, device: &Device) -> Tensor<3> {
    let mut matrix = vec![0.0f32; to * from];
    for (target, row) in matrix.chunks_exact_mut(from).enumerate() {
        let place = match corners {
            Corners::Aligned if to > 1 => target as f64 * (from as f64 - 1.0) / (to as f64 - 1.0),
            Corners::Aligned => 0.0,
            Corners::Free => ((target as f64 + 0.5) * from as f64 / to as f64 - 0.5).max(0.0),
        };
        let low = (place as usize).min(from - 1);
        let high = (low + 1).min(from - 1);
        let fraction = (place - low as f64) as f32;
        row[low] += 1.0 - fraction;
        row[high] += fraction;
    }
    Tensor::from_data(TensorData::new(matrix, [1, to, from]), device)
}
