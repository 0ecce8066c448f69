//! HybridMIM's auxiliary losses: how many cells of a region are masked, and which, predicted from
//! the encoder's features.
//!
//! A region is a cube of 2x2x2 cells.
//!
//! Source: Xing et al., arXiv:2303.10333. We differ: the published code groups eight consecutive
//! cells into a region, which do not coincide with the features that the prediction is made from.

use burn::module::Module;
use burn::tensor::activation::log_softmax;
use burn::tensor::{Int, Tensor, TensorData};

use crate::layers::{Init, Linear, LinearConfig};

/// Cells of a region.
const CELLS: usize = 8;

/// The heads of both losses.
#[derive(Module, Debug)]
pub(super) struct RegionHeads {
    /// Logits of the counts 0 to 8.
    count: Linear,
    /// Logits of the cells.
    position: Linear,
}

/// Both losses, `[1]` each.
pub(super) struct RegionErrors {
    /// Cross-entropy of the count.
    pub count: Tensor<1>,
    /// Binary cross-entropy of each cell.
    pub position: Tensor<1>,
}

impl RegionHeads {
    pub fn new(channels: usize, init: &mut Init) -> Self {
        Self {
            count: LinearConfig::new(channels, CELLS + 1).init(init),
            position: LinearConfig::new(channels, CELLS).init(init),
        }
    }

    /// The losses of predictions from the mean features of each region.
    ///
    /// # Shapes
    /// features `[B, C, d, d, d]`, d a multiple of the number of regions along an axis; visibility
    /// of the `grid³` cells of each item
    pub fn errors(&self, features: Tensor<5>, visible: &[bool], grid: usize) -> RegionErrors {
        let [items, channels, side, ..] = features.dims();
        let regions = grid / 2;
        let k = side / regions;
        let blocks = features.reshape([items * channels * regions, k, regions, k, regions, k]);
        let blocks = blocks.permute([0, 2, 4, 1, 3, 5]).reshape([items, channels, regions.pow(3), k.pow(3)]);
        let pooled = blocks.mean_dim(3).reshape([items, channels, regions.pow(3)]).swap_dims(1, 2);
        let rows = items * regions.pow(3);
        let pooled = pooled.reshape([rows, channels]);
        let device = pooled.device();
        let masked = masked_cells(visible, grid);
        let counts: Vec<i32> = masked.iter().map(|cells| cells.iter().filter(|&&cell| cell).count() as i32).collect();
        let counts = Tensor::<2, Int>::from_data(TensorData::new(counts, [rows, 1]), &device);
        let flags: Vec<f32> = masked.iter().flatten().map(|&cell| f32::from(cell)).collect();
        let flags = Tensor::<2>::from_data(TensorData::new(flags, [rows, CELLS]), &device);
        let logits = self.position.forward(pooled.clone());
        // ln(1 + e^l) without overflow.
        let softplus = logits.clone().clamp_min(0.0) + (logits.clone().abs().neg().exp() + 1.0).log();
        RegionErrors {
            count: log_softmax(self.count.forward(pooled), 1).gather(1, counts).mean().neg(),
            position: (softplus - logits * flags).mean(),
        }
    }
}

/// Which cells of each region are masked; items, regions and cells in C order.
fn masked_cells(visible: &[bool], grid: usize) -> Vec<[bool; CELLS]> {
    let regions = grid / 2;
    let region = |item: &[bool], i: usize| {
        let corner = [i / regions / regions, i / regions % regions, i % regions].map(|v| 2 * v);
        std::array::from_fn(|cell| {
            let [z, y, x] = [corner[0] + cell / 4, corner[1] + cell / 2 % 2, corner[2] + cell % 2];
            !item[(z * grid + y) * grid + x]
        })
    };
    visible.chunks(grid.pow(3)).flat_map(|item| (0..regions.pow(3)).map(move |i| region(item, i))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    #[test]
    fn a_region_has_two_cells_along_each_axis() {
        let mut visible = vec![true; 2 * 64];
        // Cell (3, 0, 1) of the second item is cell (1, 0, 1) of region (1, 0, 0).
        visible[64 + 3 * 16 + 1] = false;
        let masked = masked_cells(&visible, 4);
        assert_eq!(masked.len(), 16);
        for (i, region) in masked.iter().enumerate() {
            let expected: [bool; 8] = std::array::from_fn(|cell| i == 8 + 4 && cell == 5);
            assert_eq!(*region, expected, "{i}");
        }
    }

    #[test]
    fn losses_worked_by_hand() {
        let device = Device::flex();
        let mut heads = RegionHeads::new(1, &mut Init::new(1, &device));
        let row = |values: &[f32]| Tensor::<1>::from_floats(values, &device);
        // The logits of a region are its mean feature times these.
        let counts = [0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0];
        heads.count.weight = heads.count.weight.map(|w| row(&counts).reshape(w.dims()));
        heads.position.weight = heads.position.weight.map(|w| row(&[1.0; 8]).reshape(w.dims()));
        heads.count.bias = None;
        heads.position.bias = None;
        // Two voxels along each axis in the only region, with mean 3; two of its cells are masked.
        let values: Vec<f32> = (0..8).map(|i| i as f32 - 0.5).collect();
        let features = Tensor::<5>::from_data(TensorData::new(values, [1, 1, 2, 2, 2]), &device);
        let visible: Vec<bool> = (0..8).map(|cell| cell != 2 && cell != 7).collect();
        let errors = heads.errors(features, &visible, 2);
        let e3 = 3.0f32.exp();
        assert!((errors.count.into_scalar::<f32>() - ((e3 + 8.0).ln() - 3.0)).abs() < 1e-5);
        assert!((errors.position.into_scalar::<f32>() - ((1.0 + e3).ln() - 3.0 * 2.0 / 8.0)).abs() < 1e-5);
    }
}
