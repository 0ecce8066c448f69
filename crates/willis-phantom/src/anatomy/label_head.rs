//! A head from a label map: the numbers of SynthSeg's training maps, reduced to tissues.

use willis_core::{Image, Point, VoxelPoint};
use willis_kernels::distance::squared_distance_mm2;

use super::{BRIGHTNESS_COUNT, HeadSample, SINUS};
use crate::head::Tissue;

/// FreeSurfer's number of the optic chiasm, the landmark of the position.
const CHIASM: u16 = 85;
/// Number of the eyes, the landmark of the pitch.
const EYES: u16 = 506;
/// Number of the skin.
const SKIN: u16 = 511;
/// Number of soft tissue, which is divided into fat and muscle.
const SOFT: u16 = 507;
/// Number of the brain stem.
const STEM: u16 = 16;
/// Optic chiasm in the mean head, mm.
const MEAN_CHIASM: [f64; 3] = [0.0, -3.0, 3.0];
/// Front of the pons in the mean head: behind the basilar artery; mm.
const MEAN_PONS: [f64; 2] = [17.5, -20.0];
/// Direction from the chiasm to the eyes in the mean head: posterior and superior, mm.
const MEAN_EYES: [f64; 2] = [-54.0, -12.0];
/// Bit of a voxel inside the cranial cavity.
const INSIDE: u8 = 0x80;
/// Fluid is at most this far from brain, mm.
const CISTERN_MM: f32 = 7.0;
/// Depth of the subcutaneous fat under the skin, mm.
const FAT_MM: f32 = 4.0;

/// A label map reduced to one tissue per voxel.
#[derive(Debug, Clone)]
pub(crate) struct LabelHead {
    /// Tissue, or [`SINUS`], with [`INSIDE`].
    voxels: Vec<u8>,
    shape: [usize; 3],
    /// Rows of the map from the mean head to voxels, for z, y, x.
    to_voxel: [[f32; 4]; 3],
}

impl LabelHead {
    /// The head in a label map; `None` unless it has a chiasm, eyes and skin.
    pub fn new(image: &Image<f32>) -> Option<Self> {
        let numbers: Vec<u16> = image.voxels.iter().map(|&v| v.clamp(0.0, 65535.0) as u16).collect();
        let [chiasm, eyes] = [CHIASM, EYES].map(|number| centroid(image, &numbers, number));
        let (chiasm, eyes) = (chiasm?, eyes?);
        if !numbers.contains(&SKIN) {
            return None;
        }
        let shape = image.grid.shape.zyx();
        let below_skin: Vec<u8> = numbers.iter().map(|&number| u8::from(number != SKIN && number != 0)).collect();
        let spacing = image.grid.spacing();
        let depth = squared_distance_mm2(&below_skin, shape, [spacing.z, spacing.y, spacing.x]);
        let near_eye = |i: usize| {
            let at = image.grid.affine.to_world(image.grid.shape.index(i).into());
            (at.y - eyes.y).abs() < 22.0 && (at.z - eyes.z).abs() < 17.0 && ((at.x - eyes.x).abs() - 31.0).abs() < 19.0
        };
        // Fluid next to bone is dura, and so is what the maps call fluid far from all brain: the
        // cavernous sinus and Meckel's cave.
        let far_from = |mask: Vec<u8>| squared_distance_mm2(&mask, shape, [spacing.z, spacing.y, spacing.x]);
        let is_inside = |number: &u16| tissue_of(*number) & INSIDE != 0;
        let to_bone = far_from(numbers.iter().map(|number| u8::from(is_inside(number))).collect());
        let is_brain = |number: &u16| is_inside(number) && !is_fluid(*number);
        let to_brain = far_from(numbers.iter().map(|number| u8::from(!is_brain(number))).collect());
        let code = |i: usize| match numbers[i] {
            number if is_fluid(number) && (to_bone[i] < 1.1 || to_brain[i] > CISTERN_MM * CISTERN_MM) => {
                Tissue::Dura as u8 | INSIDE
            }
            SOFT if depth[i] < FAT_MM * FAT_MM || near_eye(i) => Tissue::Fat as u8,
            number => tissue_of(number),
        };
        let voxels = (0..numbers.len()).map(code).collect();

        // Pitch from the eyes, then the position along y from the front of the pons.
        let pitch = MEAN_EYES[1].atan2(-MEAN_EYES[0]) - (eyes.z - chiasm.z).atan2(chiasm.y - eyes.y);
        let (sin, cos) = pitch.sin_cos();
        // Rotation of an offset from the mean head to the world.
        let turn = |y: f64, z: f64| [y * cos + z * sin, z * cos - y * sin];
        let pons = pons_front(image, &numbers, chiasm, turn);
        let shift = pons.map_or(0.0, |found| (found - (MEAN_PONS[0] - MEAN_CHIASM[1])).clamp(-9.0, 9.0) * 0.6);
        let world = |p: [f64; 3]| {
            let [y, z] = turn(p[1] - MEAN_CHIASM[1] + shift, p[2] - MEAN_CHIASM[2]);
            Point::new(chiasm.x + p[0], chiasm.y + y, chiasm.z + z)
        };
        let inverse = image.grid.affine.inverse()?;
        let at = |p: [f64; 3]| inverse.apply(world(p));
        let zero = at([0.0; 3]);
        let units = [at([1.0, 0.0, 0.0]), at([0.0, 1.0, 0.0]), at([0.0, 0.0, 1.0])];
        let row = |of: fn(&VoxelPoint) -> f64| {
            let [x, y, z] = [0, 1, 2].map(|i| (of(&units[i]) - of(&zero)) as f32);
            [x, y, z, of(&zero) as f32]
        };
        Some(Self { voxels, shape, to_voxel: [row(|v| v.z), row(|v| v.y), row(|v| v.x)] })
    }

    /// The voxels, for a fingerprint.
    pub fn bytes(&self) -> &[u8] {
        &self.voxels
    }

    /// The head at a position; boundaries are softened over a voxel. Brain within about `ring` mm of
    /// an artery becomes fluid.
    pub fn sample(
        &self,
        p: [f32; 3],
        near_artery_mm: f32,
        ring: f32,
        brightness: &[f32; BRIGHTNESS_COUNT],
    ) -> HeadSample {
        let at = self.to_voxel.map(|r| r[0] * p[0] + r[1] * p[1] + r[2] * p[2] + r[3]);
        let base = at.map(f32::floor);
        // A steep step between voxel centres: sharper than linear, without the blocks of the
        // nearest voxel.
        let weight: [f32; 3] = std::array::from_fn(|i| {
            let t = at[i] - base[i];
            let s = t * t * (3.0 - 2.0 * t);
            s * s * (3.0 - 2.0 * s)
        });
        let [mut value, mut fluid, mut air, mut inside] = [0.0f32; 4];
        for corner in 0..8usize {
            let mut share = 1.0;
            let mut offset = 0usize;
            for axis in 0..3 {
                let up = corner >> axis & 1;
                share *= if up == 1 { weight[axis] } else { 1.0 - weight[axis] };
                let i = (base[axis] as i64 + up as i64).clamp(0, self.shape[axis] as i64 - 1) as usize;
                offset = offset * self.shape[axis] + i;
            }
            if share <= 0.0 {
                continue;
            }
            let code = self.voxels[offset];
            let tissue = usize::from(code & !INSIDE);
            value += share * brightness[tissue];
            fluid += if tissue == Tissue::Csf as usize { share } else { 0.0 };
            air += if tissue == Tissue::Air as usize { share } else { 0.0 };
            inside += if code & INSIDE == 0 { 0.0 } else { share };
        }
        let inside = inside > 0.5;
        if inside {
            let wet = ((ring - near_artery_mm) * 1.5).clamp(0.0, 1.0);
            value += (brightness[Tissue::Csf as usize] - value) * wet;
            fluid += (1.0 - fluid) * wet;
        } else if air > 0.0 && near_artery_mm < 1.2 {
            // An artery beside a sinus has a wall of bone and mucosa.
            value += (brightness[Tissue::Muscle as usize] - value) * (1.2 - near_artery_mm).min(1.0);
        }
        HeadSample { value, fluid, air, inside }
    }
}

fn centroid(image: &Image<f32>, numbers: &[u16], number: u16) -> Option<Point> {
    let (mut sum, mut count) = ([0.0f64; 3], 0.0f64);
    for (i, _) in numbers.iter().enumerate().filter(|(_, found)| **found == number) {
        let at = image.grid.affine.to_world(image.grid.shape.index(i).into());
        sum = [sum[0] + at.x, sum[1] + at.y, sum[2] + at.z];
        count += 1.0;
    }
    (count > 0.0).then(|| Point::new(sum[0] / count, sum[1] / count, sum[2] / count))
}

/// Distance from the chiasm backwards to the brain stem at the height of the pons, mm.
fn pons_front(image: &Image<f32>, numbers: &[u16], chiasm: Point, turn: impl Fn(f64, f64) -> [f64; 2]) -> Option<f64> {
    let shape = image.grid.shape;
    (0..60).map(f64::from).find(|&back| {
        let [y, z] = turn(back, MEAN_PONS[1] - MEAN_CHIASM[2]);
        let place = image.grid.affine.to_voxel(Point::new(chiasm.x, chiasm.y + y, chiasm.z + z));
        place.is_some_and(|place| shape.contains(place) && numbers[shape.offset(shape.nearest(place))] == STEM)
    })
}

/// Whether a number stands for cerebrospinal fluid.
fn is_fluid(number: u16) -> bool {
    tissue_of(number) == Tissue::Csf as u8 | INSIDE
}

/// Tissue of a number, with [`INSIDE`].
fn tissue_of(number: u16) -> u8 {
    match number {
        2 | 7 | 16 | 28 | 41 | 46 | 60 | 85 => Tissue::White as u8 | INSIDE,
        4 | 5 | 14 | 15 | 24 | 30 | 43 | 44 | 62 | 72 => Tissue::Csf as u8 | INSIDE,
        31 | 63 => Tissue::Enhancing as u8 | INSIDE,
        1..=99 | 136 | 137 | 163 | 164 => Tissue::Grey as u8 | INSIDE,
        506 => Tissue::Csf as u8,
        508 | 512 | 530 => Tissue::White as u8,
        509 => Tissue::Enhancing as u8,
        511 => Tissue::Skin as u8,
        514 => SINUS as u8 | INSIDE,
        515 => Tissue::Bone as u8,
        516 => Tissue::Marrow as u8,
        0 => Tissue::Air as u8,
        _ => Tissue::Muscle as u8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use willis_core::{Affine, Grid, Shape, Spacing};

    /// A ball of white matter in a shell of skin, with a chiasm and two eyes.
    fn map() -> Image<f32> {
        let n = 64;
        let grid = Grid::new(
            Shape::new(n, n, n),
            Affine::axis_aligned(Spacing::isotropic(3.0), Point::new(-96.0, -96.0, -96.0)),
        );
        let number = |i: usize| {
            let p = grid.affine.to_world(grid.shape.index(i).into());
            let r = (p.x * p.x + p.y * p.y + p.z * p.z).sqrt();
            let eye = ((p.x.abs() - 30.0).powi(2) + (p.y + 54.0).powi(2) + (p.z + 12.0).powi(2)).sqrt();
            match r {
                r if r < 4.0 => 85.0,
                _ if eye < 9.0 => 506.0,
                r if r < 70.0 => 2.0,
                r if r < 80.0 => 511.0,
                _ => 0.0,
            }
        };
        Image::new(grid, (0..n * n * n).map(number).collect())
    }

    #[test]
    fn a_head_is_placed_by_its_chiasm_and_eyes() {
        let head = LabelHead::new(&map()).expect("it has all landmarks");
        let mut brightness = [0.0; BRIGHTNESS_COUNT];
        brightness[Tissue::White as usize] = 5.0;
        brightness[Tissue::Csf as usize] = 7.0;
        brightness[Tissue::Skin as usize] = 2.0;
        let at = |p, near| head.sample(p, near, 1.0, &brightness);
        let deep = at([0.0, 40.0, 20.0], 50.0);
        assert!((deep.value - 5.0).abs() < 1e-4 && deep.inside && deep.fluid == 0.0);
        assert!((at([0.0, 40.0, 20.0], 0.0).value - 7.0).abs() < 1e-4, "fluid round an artery");
        assert!((at([31.0, -57.0, -9.0], 50.0).value - 7.0).abs() < 0.5, "an eye");
        let skin = at([0.0, 72.0, 3.0], 50.0);
        assert!((skin.value - 2.0).abs() < 0.6 && !skin.inside, "{skin:?}");
        assert!(at([0.0, 0.0, 140.0], 50.0).air > 0.99);
    }

    #[test]
    fn maps_without_landmarks_are_no_heads() {
        let mut map = map();
        map.voxels.iter_mut().filter(|v| **v == 506.0).for_each(|v| *v = 2.0);
        assert!(LabelHead::new(&map).is_none());
    }
}
