//! Masks for encoders that see only some cells of a volume.
//!
//! Hidden cells are set to 0 after every operation that could move or create values, and take no
//! part in statistics.
//!
//! Letters: B batch, C channels, N tokens, gd gh gw cells along each axis.
//!
//! Source: Tian et al., ICLR 2023, arXiv:2301.03580 (sparse convolution by masking); Wald et al.,
//! CVPR 2025, arXiv:2410.23132 (3D).

use burn::tensor::{Device, Int, Tensor, TensorData};

use super::norms::standardise;
use crate::layers::SpaceNorm;

/// The cells of a batch of volumes that an encoder sees; all cells have the same size.
#[derive(Debug, Clone)]
pub struct VisibleCells {
    /// 1 in visible cells, 0 in hidden ones, `[B, 1, gd, gh, gw]`.
    cells: Tensor<5>,
    /// The same as flags.
    flags: Vec<bool>,
}

impl VisibleCells {
    /// Creates the mask from one flag per cell, item by item in C order.
    ///
    /// # Panics
    /// if the number of flags is not `batch` times the number of cells (programmer error)
    pub fn new(flags: &[bool], batch: usize, grid: [usize; 3], device: &Device) -> Self {
        let values: Vec<f32> = flags.iter().map(|&flag| f32::from(flag)).collect();
        let shape = [batch, 1, grid[0], grid[1], grid[2]];
        Self { cells: Tensor::from_data(TensorData::new(values, shape), device), flags: flags.to_vec() }
    }

    /// The mask at a resolution, `[B, 1, d, h, w]`; `None` if the resolution is coarser than the
    /// cells, where everything counts as visible.
    ///
    /// # Panics
    /// if a finer resolution is not a multiple of the grid (programmer error)
    fn mask_at(&self, size: [usize; 3]) -> Option<Tensor<5>> {
        let [batch, _, gd, gh, gw] = self.cells.dims();
        if (0..3).any(|axis| size[axis] < [gd, gh, gw][axis]) {
            return None;
        }
        let [kd, kh, kw] = [size[0] / gd, size[1] / gh, size[2] / gw];
        assert_eq!([kd * gd, kh * gh, kw * gw], size, "the resolution is not a multiple of the cells");
        let repeated = self.cells.clone().reshape([batch * gd, 1, gh, 1, gw, 1]);
        Some(repeated.expand([batch * gd, kd, gh, kh, gw, kw]).reshape([batch, 1, size[0], size[1], size[2]]))
    }

    /// The mask at the resolution of x.
    fn mask_for(&self, x: &Tensor<5>) -> Option<Tensor<5>> {
        let [_, _, depth, height, width] = x.dims();
        self.mask_at([depth, height, width])
    }

    /// Sets the hidden cells to 0.
    ///
    /// # Shapes
    /// x `[B, C, D, H, W]` -> the same
    pub fn mask(&self, x: Tensor<5>) -> Tensor<5> {
        match self.mask_for(&x) {
            Some(mask) => x * mask,
            None => x,
        }
    }

    /// Sets the hidden tokens to 0.
    ///
    /// # Shapes
    /// x `[B, N, C]`, N the product of the grid -> the same
    pub fn mask_tokens(&self, x: Tensor<3>, grid: [usize; 3]) -> Tensor<3> {
        let [batch, tokens, _] = x.dims();
        match self.mask_at(grid) {
            Some(mask) => x * mask.reshape([batch, tokens, 1]),
            None => x,
        }
    }

    /// The mask at a resolution with channels last, `[B, d, h, w, 1]`; `None` if the resolution is
    /// coarser than the cells.
    pub fn mask_at_channels_last(&self, size: [usize; 3]) -> Option<Tensor<5>> {
        Some(self.mask_at(size)?.permute([0, 2, 3, 4, 1]))
    }

    /// Sets the hidden cells to 0.
    ///
    /// # Shapes
    /// x `[B, D, H, W, C]` -> the same
    pub fn mask_channels_last(&self, x: Tensor<5>) -> Tensor<5> {
        let [_, depth, height, width, _] = x.dims();
        match self.mask_at_channels_last([depth, height, width]) {
            Some(mask) => x * mask,
            None => x,
        }
    }

    /// Selects the visible tokens in their order, so that attention does not use the hidden ones;
    /// selects all tokens if the grid is coarser than the cells.
    ///
    /// # Shapes
    /// x `[B, N, C]`, N the product of the grid -> `[B, M, C]`, M the number of visible tokens
    ///
    /// # Panics
    /// if the items of the batch have different numbers of visible cells (programmer error)
    pub fn gather_tokens(&self, x: Tensor<3>, grid: [usize; 3]) -> Tensor<3> {
        let [batch, tokens, channels] = x.dims();
        let [_, _, gd, gh, gw] = self.cells.dims();
        if (0..3).any(|axis| grid[axis] < [gd, gh, gw][axis]) {
            return x;
        }
        let [kd, kh, kw] = [grid[0] / gd, grid[1] / gh, grid[2] / gw];
        let cell_of = |token: usize| {
            let [z, y, x] = [token / (grid[1] * grid[2]), token / grid[2] % grid[1], token % grid[2]];
            (z / kd * gh + y / kh) * gw + x / kw
        };
        let visible = |item: usize| {
            let flags = &self.flags[item * gd * gh * gw..][..gd * gh * gw];
            (0..tokens).filter(|&token| flags[cell_of(token)]).map(|token| (item * tokens + token) as i32).collect()
        };
        let rows: Vec<Vec<i32>> = (0..batch).map(visible).collect();
        let count = rows[0].len();
        assert!(rows.iter().all(|row| row.len() == count), "the items have different numbers of visible cells");
        let rows = TensorData::new(rows.concat(), [batch * count]);
        let rows = Tensor::<1, Int>::from_data(rows, &x.device());
        x.reshape([batch * tokens, channels]).select(0, rows).reshape([batch, count, channels])
    }

    /// Scales the visible cells to mean 0 and variance 1 per item and channel; hidden cells stay 0.
    ///
    /// # Shapes
    /// x `[B, C, D, H, W]`, 0 in hidden cells -> the same
    pub fn standardise(&self, x: Tensor<5>) -> Tensor<5> {
        const EPS: f64 = 1e-5;
        let [batch, channels, depth, height, width] = x.dims();
        let Some(mask) = self.mask_for(&x) else { return standardise(x) };
        let volume = depth * height * width;
        let mask = mask.reshape([batch, 1, volume]);
        let visible = mask.clone().sum_dim(2).clamp_min(1.0);
        let flat = x.reshape([batch, channels, volume]);
        let centred = (flat.clone() - flat.sum_dim(2) / visible.clone()) * mask;
        let variance = centred.clone().square().sum_dim(2) / visible;
        (centred / (variance + EPS).sqrt()).reshape([batch, channels, depth, height, width])
    }

    /// Applies a norm to the visible cells, with their statistics or the stored ones; hidden cells
    /// become 0.
    ///
    /// # Shapes
    /// x `[B, C, D, H, W]`, 0 in hidden cells -> the same
    pub fn norm(&self, norm: &SpaceNorm, x: Tensor<5>) -> Tensor<5> {
        if norm.running_mean.is_some() {
            return self.mask(norm.forward(x));
        }
        let channels = x.dims()[1];
        let scale = norm.weight.val().reshape([1, channels, 1, 1, 1]);
        let shift = norm.bias.val().reshape([1, channels, 1, 1, 1]);
        self.mask(self.standardise(x) * scale + shift)
    }

    /// Replaces the hidden cells by a token.
    ///
    /// # Shapes
    /// x `[B, C, D, H, W]`, 0 in hidden cells, token `[1, C, 1, 1, 1]` -> the same as x
    pub fn fill_hidden(&self, x: Tensor<5>, token: Tensor<5>) -> Tensor<5> {
        match self.mask_for(&x) {
            Some(mask) => x * mask.clone() + token * (mask.neg() + 1.0),
            None => x,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden;
    use burn::tensor::Tolerance;

    #[test]
    fn statistics_are_those_of_the_visible_voxels() {
        let device = Device::flex();
        let flags = [true, false, false, true, true, false, true, false];
        let visible = VisibleCells::new(&flags, 1, [2; 3], &device);
        let x = golden::input([1, 2, 4, 4, 4], &device) * 3.0 + 1.0;
        let y = visible.standardise(visible.mask(x.clone())).into_data().try_to_vec::<f32>().unwrap();
        let x = x.into_data().try_to_vec::<f32>().unwrap();
        let seen = |i: usize| flags[(i / 32 * 2 + i / 8 % 2) * 2 + i / 2 % 2];
        for channel in 0..2 {
            let values: Vec<f32> = (0..64).filter(|&i| seen(i)).map(|i| x[64 * channel + i]).collect();
            let mean = values.iter().sum::<f32>() / values.len() as f32;
            let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / values.len() as f32;
            for i in 0..64 {
                let expected = if seen(i) { (x[64 * channel + i] - mean) / (variance + 1e-5).sqrt() } else { 0.0 };
                assert!((y[64 * channel + i] - expected).abs() < 1e-4, "{i}");
            }
        }
    }

    #[test]
    fn tokens_are_masked_and_gathered_by_cell() {
        let device = Device::flex();
        let visible = VisibleCells::new(&[true, false, false, true, false, false, false, false], 1, [2; 3], &device);
        let tokens: Vec<f32> = (1..=64).map(|i| i as f32).collect();
        let x = Tensor::<3>::from_data(TensorData::new(tokens, [1, 64, 1]), &device);
        let values = |x: Tensor<3>| x.into_data().try_to_vec::<f32>().unwrap();
        let seen = values(visible.gather_tokens(x.clone(), [4; 3]));
        // Cells (0, 0, 0) and (0, 1, 1), each two voxels wide.
        assert_eq!(seen, [1., 2., 5., 6., 11., 12., 15., 16., 17., 18., 21., 22., 27., 28., 31., 32.]);
        let unmasked: Vec<f32> =
            values(visible.mask_tokens(x.clone(), [4; 3])).into_iter().filter(|v| *v != 0.0).collect();
        assert_eq!(unmasked, seen);
        assert_eq!(visible.gather_tokens(x.narrow(1, 0, 1), [1; 3]).dims(), [1, 1, 1]);
    }

    #[test]
    fn coarser_resolutions_are_visible_entirely() {
        let device = Device::flex();
        let visible = VisibleCells::new(&[false; 64], 1, [4; 3], &device);
        let x = golden::input([1, 2, 2, 2, 2], &device);
        visible.mask(x.clone()).into_data().assert_eq(&x.clone().into_data(), true);
        let token = Tensor::ones([1, 2, 1, 1, 1], &device);
        visible.fill_hidden(x.clone(), token.clone()).into_data().assert_eq(&x.into_data(), true);
        let filled = visible.fill_hidden(golden::input([1, 2, 4, 4, 4], &device), token);
        filled.into_data().assert_approx_eq::<f32>(
            &Tensor::<5>::ones([1, 2, 4, 4, 4], &device).into_data(),
            Tolerance::absolute(1e-6),
        );
    }
}
