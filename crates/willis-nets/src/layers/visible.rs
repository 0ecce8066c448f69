//! Encoders that see only some cells of a volume: what is masked is zero after every operation that
//! could move or create values, and takes no part in statistics.
//!
//! Source: Tian et al., ICLR 2023, arXiv:2301.03580 (sparse convolution by masking); Wald et al.,
//! CVPR 2025, arXiv:2410.23132 (3D).

use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::layers::SpaceNorm;
use crate::ops;

/// The cells an encoder may see; all cells of a volume are of one size.
#[derive(Debug, Clone)]
pub struct Active {
    /// 1 where it may, `[B, 1, gd, gh, gw]`.
    cells: Tensor<5>,
    /// The same as flags.
    flags: Vec<bool>,
}

impl Active {
    /// From flags of the cells, item by item in C order.
    ///
    /// # Panics
    /// if the flags do not fill the grids (programmer error)
    pub fn new(flags: &[bool], batch: usize, grid: [usize; 3], device: &Device) -> Self {
        let values: Vec<f32> = flags.iter().map(|&flag| f32::from(flag)).collect();
        let shape = [batch, 1, grid[0], grid[1], grid[2]];
        Self { cells: Tensor::from_data(TensorData::new(values, shape), device), flags: flags.to_vec() }
    }

    /// The mask at a resolution, `[B, 1, d, h, w]`; none where that is coarser than the cells,
    /// which counts as seen entirely.
    ///
    /// # Panics
    /// if a finer resolution is no multiple of the grid (programmer error)
    fn at(&self, size: [usize; 3]) -> Option<Tensor<5>> {
        let [batch, _, gd, gh, gw] = self.cells.dims();
        if (0..3).any(|axis| size[axis] < [gd, gh, gw][axis]) {
            return None;
        }
        let [kd, kh, kw] = [size[0] / gd, size[1] / gh, size[2] / gw];
        assert_eq!([kd * gd, kh * gh, kw * gw], size, "resolution in cells");
        let repeated = self.cells.clone().reshape([batch * gd, 1, gh, 1, gw, 1]);
        Some(repeated.expand([batch * gd, kd, gh, kh, gw, kw]).reshape([batch, 1, size[0], size[1], size[2]]))
    }

    fn fitting(&self, x: &Tensor<5>) -> Option<Tensor<5>> {
        let [_, _, depth, height, width] = x.dims();
        self.at([depth, height, width])
    }

    /// x with zeros where it may not be seen.
    pub fn keep(&self, x: Tensor<5>) -> Tensor<5> {
        match self.fitting(&x) {
            Some(mask) => x * mask,
            None => x,
        }
    }

    /// Tokens with zeros where they may not be seen.
    ///
    /// # Shapes
    /// x `[B, N, C]`, N the product of the grid -> the same
    pub fn keep_tokens(&self, x: Tensor<3>, grid: [usize; 3]) -> Tensor<3> {
        let [batch, tokens, _] = x.dims();
        match self.at(grid) {
            Some(mask) => x * mask.reshape([batch, tokens, 1]),
            None => x,
        }
    }

    /// The mask at a resolution with channels last, `[B, d, h, w, 1]`; none where that is coarser
    /// than the cells.
    pub fn channels_last(&self, size: [usize; 3]) -> Option<Tensor<5>> {
        Some(self.at(size)?.permute([0, 2, 3, 4, 1]))
    }

    /// x with zeros where it may not be seen, `[B, D, H, W, C]`.
    pub fn keep_channels_last(&self, x: Tensor<5>) -> Tensor<5> {
        let [_, depth, height, width, _] = x.dims();
        match self.channels_last([depth, height, width]) {
            Some(mask) => x * mask,
            None => x,
        }
    }

    /// Only those tokens that may be seen, in their order, for attention that must not look at the
    /// others; all of them where the grid is coarser than the cells.
    ///
    /// # Shapes
    /// x `[B, N, C]`, N the product of the grid -> `[B, M, C]`
    /// # Panics
    /// if the items of the batch have different numbers of seen cells (programmer error)
    pub fn seen_tokens(&self, x: Tensor<3>, grid: [usize; 3]) -> Tensor<3> {
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
        let seen = |item: &usize| {
            let flags = &self.flags[item * gd * gh * gw..][..gd * gh * gw];
            (0..tokens).filter(|&token| flags[cell_of(token)]).map(|token| (item * tokens + token) as i32).collect()
        };
        let rows: Vec<Vec<i32>> = (0..batch).map(|item| seen(&item)).collect();
        let count = rows[0].len();
        assert!(rows.iter().all(|row| row.len() == count), "as many seen cells in every item");
        let rows = TensorData::new(rows.concat(), [batch * count]);
        let rows = Tensor::<1, Int>::from_data(rows, &x.device());
        x.reshape([batch * tokens, channels]).select(0, rows).reshape([batch, count, channels])
    }

    /// Mean 0 and variance 1 per item and channel over what may be seen, zeros elsewhere.
    ///
    /// # Shapes
    /// x `[B, C, D, H, W]`, zero where it may not be seen -> the same
    pub fn standardise(&self, x: Tensor<5>) -> Tensor<5> {
        const EPS: f64 = 1e-5;
        let [batch, channels, depth, height, width] = x.dims();
        let Some(mask) = self.fitting(&x) else { return plain_standardise(x) };
        let volume = depth * height * width;
        let mask = mask.reshape([batch, 1, volume]);
        let seen = mask.clone().sum_dim(2).clamp_min(1.0);
        let flat = x.reshape([batch, channels, volume]);
        let centred = (flat.clone() - flat.sum_dim(2) / seen.clone()) * mask;
        let variance = centred.clone().square().sum_dim(2) / seen;
        (centred / (variance + EPS).sqrt()).reshape([batch, channels, depth, height, width])
    }

    /// The norm over what may be seen (or by its stored statistics), zeros elsewhere.
    pub fn norm(&self, norm: &SpaceNorm, x: Tensor<5>) -> Tensor<5> {
        if norm.running_mean.is_some() {
            return self.keep(norm.forward(x));
        }
        let channels = x.dims()[1];
        let scale = norm.weight.val().reshape([1, channels, 1, 1, 1]);
        let shift = norm.bias.val().reshape([1, channels, 1, 1, 1]);
        self.keep(self.standardise(x) * scale + shift)
    }

    /// x, and the token where it may not be seen; token `[1, C, 1, 1, 1]`.
    pub fn fill(&self, x: Tensor<5>, token: Tensor<5>) -> Tensor<5> {
        match self.fitting(&x) {
            Some(mask) => x * mask.clone() + token * (mask.neg() + 1.0),
            None => x,
        }
    }
}

/// Instance norm without parameters.
pub(crate) fn plain_standardise(x: Tensor<5>) -> Tensor<5> {
    let (channels, device) = (x.dims()[1], x.device().inner());
    ops::instance_norm(x, Tensor::ones([channels], &device), Tensor::zeros([channels], &device), 1e-5)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden;
    use burn::tensor::Tolerance;

    #[test]
    fn statistics_are_those_of_the_seen_voxels() {
        let device = Device::flex();
        let flags = [true, false, false, true, true, false, true, false];
        let active = Active::new(&flags, 1, [2; 3], &device);
        let x = golden::input([1, 2, 4, 4, 4], &device) * 3.0 + 1.0;
        let y = active.standardise(active.keep(x.clone())).into_data().try_to_vec::<f32>().unwrap();
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
    fn tokens_are_kept_and_gathered_by_cell() {
        let device = Device::flex();
        let active = Active::new(&[true, false, false, true, false, false, false, false], 1, [2; 3], &device);
        let tokens: Vec<f32> = (1..=64).map(|i| i as f32).collect();
        let x = Tensor::<3>::from_data(TensorData::new(tokens, [1, 64, 1]), &device);
        let values = |x: Tensor<3>| x.into_data().try_to_vec::<f32>().unwrap();
        let seen = values(active.seen_tokens(x.clone(), [4; 3]));
        // Cells (0, 0, 0) and (0, 1, 1) of two voxels a side.
        assert_eq!(seen, [1., 2., 5., 6., 11., 12., 15., 16., 17., 18., 21., 22., 27., 28., 31., 32.]);
        let kept: Vec<f32> = values(active.keep_tokens(x.clone(), [4; 3])).into_iter().filter(|v| *v != 0.0).collect();
        assert_eq!(kept, seen);
        assert_eq!(active.seen_tokens(x.narrow(1, 0, 1), [1; 3]).dims(), [1, 1, 1]);
    }

    #[test]
    fn coarser_scales_are_seen_entirely() {
        let device = Device::flex();
        let active = Active::new(&[false; 64], 1, [4; 3], &device);
        let x = golden::input([1, 2, 2, 2, 2], &device);
        active.keep(x.clone()).into_data().assert_eq(&x.clone().into_data(), true);
        let token = Tensor::ones([1, 2, 1, 1, 1], &device);
        active.fill(x.clone(), token.clone()).into_data().assert_eq(&x.into_data(), true);
        let filled = active.fill(golden::input([1, 2, 4, 4, 4], &device), token);
        filled.into_data().assert_approx_eq::<f32>(
            &Tensor::<5>::ones([1, 2, 4, 4, 4], &device).into_data(),
            Tolerance::absolute(1e-6),
        );
    }
}
