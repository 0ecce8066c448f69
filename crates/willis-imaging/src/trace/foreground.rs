//! The foreground that is traced: thresholded, cleared of specks, cropped, its cavities filled.

use willis_core::{Grid, VoxelPoint};
use willis_kernels::components::{self, Connectivity};

/// How sure a voxel is to belong to a vessel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hysteresis {
    /// Background.
    Background,
    /// Vessel if its component holds a sure voxel.
    Weak,
    /// Vessel.
    Strong,
}

/// A mask cropped to its bounding box, with one layer of zeros around it.
pub(super) struct Foreground {
    /// 0 or 1, C-order `[z, y, x]`.
    pub mask: Vec<u8>,
    /// Padded shape, `[z, y, x]`.
    pub shape: [usize; 3],
    /// Voxel of the whole grid at the first voxel inside the padding, `[z, y, x]`.
    corner: [usize; 3],
}

impl Foreground {
    /// The components that hold a sure voxel and at least `min_voxels`; `None` when nothing is
    /// left.
    pub fn new(levels: &[Hysteresis], shape: [usize; 3], min_voxels: f64) -> Option<Self> {
        let mut foreground = Self::crop(levels, shape)?;
        let [_, ny, nx] = shape;
        let parts = components::label(&foreground.mask, foreground.shape, Connectivity::TwentySix);
        let mut sure = vec![false; parts.sizes.len() + 1];
        for (local, &label) in parts.labels.iter().enumerate().filter(|(_, l)| **l != 0) {
            let [z, y, x] = foreground.grid_index(local);
            sure[label as usize] |= levels[(z * ny + y) * nx + x] == Hysteresis::Strong;
        }
        let keep =
            |label: u32| label != 0 && sure[label as usize] && parts.sizes[label as usize - 1] as f64 >= min_voxels;
        foreground.mask = parts.labels.iter().map(|&label| u8::from(keep(label))).collect();
        foreground.mask = components::fill_holes(&foreground.mask, foreground.shape);
        foreground.mask.contains(&1).then_some(foreground)
    }

    fn crop(levels: &[Hysteresis], [_, ny, nx]: [usize; 3]) -> Option<Self> {
        let (mut low, mut high) = ([usize::MAX; 3], [0; 3]);
        for (row, voxels) in levels.chunks(nx.max(1)).enumerate() {
            let Some(first) = voxels.iter().position(|&b| b != Hysteresis::Background) else { continue };
            let last =
                voxels.iter().rposition(|&b| b != Hysteresis::Background).expect("the row has a foreground voxel");
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
                let from = &levels[(z * ny + y) * nx + low[2]..][..high[2] - low[2] + 1];
                let to = ((z - low[0] + 1) * shape[1] + y - low[1] + 1) * shape[2] + 1;
                mask[to..].iter_mut().zip(from).for_each(|(m, &b)| *m = u8::from(b != Hysteresis::Background));
            }
        }
        Some(Self { mask, shape, corner: low })
    }

    /// Voxel of the whole grid at an offset inside the padding, `[z, y, x]`.
    pub fn grid_index(&self, local: usize) -> [usize; 3] {
        let [_, ny, nx] = self.shape;
        let place = [local / nx / ny, local / nx % ny, local % nx];
        [0, 1, 2].map(|axis| place[axis] + self.corner[axis] - 1)
    }

    /// Mean place of some voxels, in the voxel coordinates of the whole grid.
    pub fn mean_place(&self, locals: &[usize]) -> VoxelPoint {
        let mut sum = [0.0; 3];
        for &local in locals {
            let index = self.grid_index(local);
            sum.iter_mut().zip(index).for_each(|(s, i)| *s += i as f64);
        }
        let [z, y, x] = sum.map(|s| s / locals.len() as f64);
        VoxelPoint::new(z, y, x)
    }

    /// Puts the voxel with the largest distance into the skeleton of every component that thinning
    /// deleted.
    pub fn reseed(&self, skeleton: &mut [u8], squared: &[f32]) {
        let parts = components::label(&self.mask, self.shape, Connectivity::TwentySix);
        let mut best: Vec<Option<usize>> = vec![None; parts.sizes.len()];
        let mut found = vec![false; parts.sizes.len()];
        for (i, &label) in parts.labels.iter().enumerate().filter(|(_, l)| **l != 0) {
            let k = label as usize - 1;
            found[k] |= skeleton[i] != 0;
            if best[k].is_none_or(|b| squared[i] > squared[b]) {
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
