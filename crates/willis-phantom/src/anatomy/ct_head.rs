//! A head from a CT without contrast agent: its bone, air and soft tissue in Hounsfield units.

use willis_core::{Image, Point, VoxelPoint};

use super::{BRIGHTNESS_COUNT, HeadSample};
use crate::head::Tissue;

/// Centre of the circle of Willis in the head of the Visible Human Female, LPS mm in the frame of
/// its distribution: measured from the dorsum sellae and the anterior clinoid processes.
const CENTRE: Point = Point { x: 250.5, y: 222.0, z: 1634.0 };
/// Soft tissue has values between these, HU.
const SOFT_HU: [f32; 2] = [-20.0, 110.0];

/// Values of a CT.
#[derive(Debug, Clone)]
pub(crate) struct CtHead {
    voxels: Vec<i16>,
    shape: [usize; 3],
    /// Rows of the map from the mean head to voxels, for z, y, x.
    to_voxel: [[f32; 4]; 3],
}

impl CtHead {
    /// The head in a CT.
    ///
    /// # Panics
    /// Never: an image that was read has a regular grid.
    pub fn new(image: &Image<f32>) -> Self {
        let inverse = image.grid.affine.inverse().expect("grids of files are checked when they are read");
        let at = |p: [f64; 3]| inverse.apply(Point::new(CENTRE.x + p[0], CENTRE.y + p[1], CENTRE.z + p[2]));
        let zero = at([0.0; 3]);
        let units = [at([1.0, 0.0, 0.0]), at([0.0, 1.0, 0.0]), at([0.0, 0.0, 1.0])];
        let row = |of: fn(&VoxelPoint) -> f64| {
            let [x, y, z] = [0, 1, 2].map(|i| (of(&units[i]) - of(&zero)) as f32);
            [x, y, z, of(&zero) as f32]
        };
        Self {
            voxels: image.voxels.iter().map(|v| v.clamp(-1024.0, 3071.0) as i16).collect(),
            shape: image.grid.shape.zyx(),
            to_voxel: [row(|v| v.z), row(|v| v.y), row(|v| v.x)],
        }
    }

    /// The voxels, for a fingerprint.
    pub fn bytes(&self) -> Vec<u8> {
        self.voxels.iter().flat_map(|v| v.to_le_bytes()).collect()
    }

    /// The head at a position. Soft tissue is moved to the brightness of grey matter, so that its
    /// level varies between phantoms; bone and air keep their values.
    pub fn sample(&self, p: [f32; 3], brightness: &[f32; BRIGHTNESS_COUNT]) -> HeadSample {
        let at = self.to_voxel.map(|r| r[0] * p[0] + r[1] * p[1] + r[2] * p[2] + r[3]);
        let outside = (0..3).any(|i| at[i] < 0.0 || at[i] > self.shape[i] as f32 - 1.0);
        let hu = if outside { -1000.0 } else { self.linear(at) };
        // The head of a cadaver has air in its ventricles.
        let [x, y, z] = [p[0] / 55.0, (p[1] - 18.0) / 68.0, (p[2] - 38.0) / 36.0];
        let hu = if x * x + y * y + z * z < 1.0 { hu.max(30.0) } else { hu };
        let [low, high] = SOFT_HU;
        let soft = ((hu - low) / 20.0).clamp(0.0, 1.0) * ((high - hu) / 40.0).clamp(0.0, 1.0);
        let value = hu + soft * (brightness[Tissue::Grey as usize] - 36.0);
        HeadSample { value, fluid: 0.0, air: f32::from(u8::from(hu < -500.0)), inside: soft > 0.5 && p[2] > -6.0 }
    }

    fn linear(&self, at: [f32; 3]) -> f32 {
        let base = at.map(f32::floor);
        let mut value = 0.0;
        for corner in 0..8usize {
            let mut share = 1.0;
            let mut offset = 0usize;
            for axis in 0..3 {
                let up = corner >> axis & 1;
                let t = at[axis] - base[axis];
                share *= if up == 1 { t } else { 1.0 - t };
                offset = offset * self.shape[axis] + (base[axis] as usize + up).min(self.shape[axis] - 1);
            }
            value += share * f32::from(self.voxels[offset]);
        }
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::anatomy::SINUS;
    use willis_core::{Affine, Grid, Shape, Spacing};

    #[test]
    fn bone_keeps_its_value_and_soft_tissue_takes_that_of_grey_matter() {
        let corner = Point::new(CENTRE.x - 10.0, CENTRE.y - 10.0, CENTRE.z - 10.0);
        let grid = Grid::new(Shape::new(21, 21, 21), Affine::axis_aligned(Spacing::isotropic(1.0), corner));
        let value = |i: usize| if i % 21 < 10 { 36.0 } else { 900.0 };
        let head = CtHead::new(&Image::new(grid, (0..21 * 21 * 21).map(value).collect()));
        let mut brightness = [0.0; BRIGHTNESS_COUNT];
        (brightness[Tissue::Grey as usize], brightness[SINUS]) = (50.0, 200.0);
        let at = |x| head.sample([x, 0.0, 0.0], &brightness).value;
        assert!((at(-5.0) - 50.0).abs() < 1e-3);
        assert!((at(5.0) - 900.0).abs() < 1e-3);
        assert!((head.sample([500.0, 0.0, 0.0], &brightness).air - 1.0).abs() < 1e-6);
    }
}
