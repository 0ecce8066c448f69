//! The foreground that is traced: hysteresis threshold, small components removed, cropped, cavities
//! filled.

use willis_core::{Grid, VoxelPoint};
use willis_kernels::components::{self, Connectivity};

/// Class of a voxel under a hysteresis threshold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hysteresis {
    /// Below the low threshold: background.
    Background,
    /// Between the thresholds: foreground if its component contains a strong voxel.
    Weak,
    /// At or above the high threshold: foreground.
    Strong,
}

/// A mask cropped to its bounding box, padded with one layer of zeros.
pub(super) struct Foreground {
    /// 0 or 1, C-order `[z, y, x]`.
    pub mask: Vec<u8>,
    /// Padded shape, `[z, y, x]`.
    pub shape: [usize; 3],
    /// Index in the whole grid of the first voxel inside the padding, `[z, y, x]`.
    corner: [usize; 3],
}

impl Foreground {
    /// The components with a strong voxel and at least `min_voxels` voxels; `None` when there are
    /// none.
    pub fn new(classes: &[Hysteresis], shape: [usize; 3], min_voxels: f64) -> Option<Self> {
        let mut foreground = Self::crop(classes, shape)?;
        let [_, ny, nx] = shape;
        let parts = components::label(&foreground.mask, foreground.shape, Connectivity::TwentySix);
        let mut has_strong = vec![false; parts.sizes.len() + 1];
        for (local, &label) in parts.labels.iter().enumerate().filter(|(_, l)| **l != 0) {
            let [z, y, x] = foreground.grid_index(local);
            has_strong[label as usize] |= classes[(z * ny + y) * nx + x] == Hysteresis::Strong;
        }
        let keep = |label: u32| {
            label != 0 && has_strong[label as usize] && parts.sizes[label as usize - 1] as f64 >= min_voxels
        };
        foreground.mask = parts.labels.iter().map(|&label| u8::from(keep(label))).collect();
        foreground.mask = components::fill_holes(&foreground.mask, foreground.shape);
        foreground.mask.contains(&1).then_some(foreground)
    }

    /// All weak and strong voxels; `None` when there are none.
    fn crop(classes: &[Hysteresis], [_, ny, nx]: [usize; 3]) -> Option<Self> {
        let is_foreground = |class: &Hysteresis| *class != Hysteresis::Background;
        let (mut low, mut high) = ([usize::MAX; 3], [0; 3]);
        for (row, voxels) in classes.chunks(nx.max(1)).enumerate() {
            let Some(first) = voxels.iter().position(is_foreground) else { continue };
            let last = voxels.iter().rposition(is_foreground).expect("the row has a foreground voxel");
            let (z, y) = (row / ny, row % ny);
            low = [low[0].min(z), low[1].min(y), low[2].min(first)];
            high = [high[0].max(z), high[1].max(y), high[2].max(last)];
        }
        if low[0] == usize::MAX {
            return None;
        }
        let shape = [0, 1, 2].map(|axis| high[axis] - low[axis] + 3);
        let mut mask = vec![0u8; shape.iter().product()];
        for z in low[0]..=high[0] {
            for y in low[1]..=high[1] {
                let from = &classes[(z * ny + y) * nx + low[2]..][..high[2] - low[2] + 1];
                let to = ((z - low[0] + 1) * shape[1] + y - low[1] + 1) * shape[2] + 1;
                mask[to..].iter_mut().zip(from).for_each(|(m, class)| *m = u8::from(is_foreground(class)));
            }
        }
        Some(Self { mask, shape, corner: low })
    }

    /// Index in the whole grid of the voxel at an offset into the mask, `[z, y, x]`.
    pub fn grid_index(&self, local: usize) -> [usize; 3] {
        let [_, ny, nx] = self.shape;
        let index = [local / nx / ny, local / nx % ny, local % nx];
        [0, 1, 2].map(|axis| index[axis] + self.corner[axis] - 1)
    }

    /// Mean position of some voxels, in voxel coordinates of the whole grid.
    pub fn mean_position(&self, locals: &[usize]) -> VoxelPoint {
        let mut sum = [0.0; 3];
        for &local in locals {
            let index = self.grid_index(local);
            sum.iter_mut().zip(index).for_each(|(s, i)| *s += i as f64);
        }
        let [z, y, x] = sum.map(|s| s / locals.len() as f64);
        VoxelPoint::new(z, y, x)
    }

    /// Adds a voxel to the skeleton for every component that thinning deleted: the one with the
    /// largest distance to the background.
    pub fn reseed(&self, skeleton: &mut [u8], squared_mm2: &[f32]) {
        let parts = components::label(&self.mask, self.shape, Connectivity::TwentySix);
        let mut best: Vec<Option<usize>> = vec![None; parts.sizes.len()];
        let mut found = vec![false; parts.sizes.len()];
        for (i, &label) in parts.labels.iter().enumerate().filter(|(_, l)| **l != 0) {
            let k = label as usize - 1;
            found[k] |= skeleton[i] != 0;
            if best[k].is_none_or(|b| squared_mm2[i] > squared_mm2[b]) {
                best[k] = Some(i);
            }
        }
        best.into_iter().zip(found).filter(|(_, found)| !found).filter_map(|(b, _)| b).for_each(|i| skeleton[i] = 1);
    }
}

/// Number of voxels in a volume.
pub(super) fn voxels_in(grid: &Grid, volume_mm3: f64) -> f64 {
    volume_mm3 / grid.spacing().voxel_volume_mm3()
}
