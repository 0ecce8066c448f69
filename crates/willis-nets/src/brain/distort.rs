//! Steps of the generator that change shapes: pose and deformation, added vessels and tumours,
//! blur, thick slices.

use rand_chacha::ChaCha8Rng;
use willis_core::Switch;

use super::config::HeadGeneratorConfig;
use super::contrast::HeadClass;
use super::fields::{Variates, smooth_field};
use super::labels::LabelledHead;

/// Distance between the control points of the deformation, mm.
const DEFORMATION_MM: [f64; 2] = [8.0, 16.0];
/// Length of a step along a vessel, mm.
const VESSEL_STEP_MM: f64 = 1.5;

/// Map from an image to a label map: affine, then a smooth deformation.
#[derive(Debug, Clone)]
pub(super) struct Pose {
    /// Millimetres of the image, from the middle of the patch, to millimetres of the label map from
    /// the middle of the head.
    matrix: [[f64; 3]; 3],
    shift: [f64; 3],
    /// Image millimetres per millimetre of the label map, on average.
    scale: f64,
    spacing_mm: f64,
    deformation_mm: f64,
}

impl Pose {
    pub fn draw(head: &LabelledHead, spacing_mm: f64, config: &HeadGeneratorConfig, rng: &mut ChaCha8Rng) -> Self {
        let scales: [f64; 3] = std::array::from_fn(|_| 1.0 + rng.uniform(-config.scale, config.scale));
        let angles: [f64; 3] =
            std::array::from_fn(|_| rng.uniform(-config.rotation_deg, config.rotation_deg).to_radians());
        let mut matrix = rotation(angles);
        for (row, scale) in matrix.iter_mut().zip(scales) {
            row.iter_mut().for_each(|v| *v /= scale);
        }
        if config.mirror == Switch::On && rng.chance(0.5) {
            matrix[0].iter_mut().for_each(|v| *v = -*v);
        }
        // A head that fits into the patch stays in it; of a larger one the patch shows a part.
        let shift = std::array::from_fn(|axis| {
            let spare = config.patch[axis] as f64 * spacing_mm - head.shape[axis] as f64 * head.spacing_mm[axis];
            let most = config.shift_mm.max(-spare / 2.0 * f64::from(u8::from(config.shift_mm > 0.0)));
            rng.uniform(-most, most)
        });
        Self {
            matrix,
            shift,
            scale: scales.iter().sum::<f64>() / 3.0,
            spacing_mm,
            deformation_mm: rng.uniform(0.0, config.deformation_mm),
        }
    }

    /// Classes and distances, mm, of the deformed head.
    pub fn apply(&self, head: &LabelledHead, shape: [usize; 3], rng: &mut ChaCha8Rng) -> (Vec<u8>, Vec<f32>) {
        let spacing = rng.uniform(DEFORMATION_MM[0], DEFORMATION_MM[1]) / self.spacing_mm;
        let moved: [Vec<f32>; 3] = std::array::from_fn(|_| smooth_field(shape, spacing, self.deformation_mm, rng));
        let count = shape.iter().product();
        let (mut classes, mut distances) = (Vec::with_capacity(count), Vec::with_capacity(count));
        let middle = |sides: [usize; 3]| sides.map(|side| (side as f64 - 1.0) / 2.0);
        let (from, to) = (middle(shape), middle(head.shape));
        for z in 0..shape[0] {
            for y in 0..shape[1] {
                for x in 0..shape[2] {
                    let i = (z * shape[1] + y) * shape[2] + x;
                    let at = [z as f64 - from[0], y as f64 - from[1], x as f64 - from[2]].map(|v| v * self.spacing_mm);
                    let position = std::array::from_fn(|axis| {
                        let row = self.matrix[axis];
                        let mm = row[0] * at[0] + row[1] * at[1] + row[2] * at[2];
                        (mm + self.shift[axis] + f64::from(moved[axis][i])) / head.spacing_mm[axis] + to[axis]
                    });
                    let (class, distance) = sample(head, position);
                    classes.push(class);
                    distances.push(distance * self.scale as f32);
                }
            }
        }
        (classes, distances)
    }
}

/// Class of the nearest voxel and interpolated distance, mm. Beyond the map there is air.
fn sample(head: &LabelledHead, position: [f64; 3]) -> (u8, f32) {
    let shape = head.shape;
    let clamped: [f64; 3] = std::array::from_fn(|axis| position[axis].clamp(0.0, shape[axis] as f64 - 1.0));
    let offset = |at: [usize; 3]| (at[0] * shape[1] + at[1]) * shape[2] + at[2];
    let beyond: f64 = (0..3).map(|axis| ((position[axis] - clamped[axis]) * head.spacing_mm[axis]).powi(2)).sum();
    let low = clamped.map(|v| v as usize);
    let weight: [f32; 3] = std::array::from_fn(|axis| (clamped[axis] - low[axis] as f64) as f32);
    let high: [usize; 3] = std::array::from_fn(|axis| (low[axis] + 1).min(shape[axis] - 1));
    let mut distance = 0.0;
    for corner in 0..8usize {
        let upper = [corner & 4 != 0, corner & 2 != 0, corner & 1 != 0];
        let share: f32 = (0..3).map(|axis| if upper[axis] { weight[axis] } else { 1.0 - weight[axis] }).product();
        if share > 0.0 {
            let at = std::array::from_fn(|axis| if upper[axis] { high[axis] } else { low[axis] });
            distance += share * head.distance_mm(offset(at));
        }
    }
    // Half a voxel beyond the border still shows the border's class.
    let class =
        if beyond > 0.5 { HeadClass::Outside as u8 } else { head.classes[offset(clamped.map(|v| v.round() as usize))] };
    (class, distance + beyond.sqrt() as f32)
}

fn rotation([a, b, c]: [f64; 3]) -> [[f64; 3]; 3] {
    let (sa, ca, sb, cb, sc, cc) = (a.sin(), a.cos(), b.sin(), b.cos(), c.sin(), c.cos());
    [
        [ca * cb, ca * sb * sc - sa * cc, ca * sb * cc + sa * sc],
        [sa * cb, sa * sb * sc + ca * cc, sa * sb * cc - ca * sc],
        [-sb, cb * sc, cb * cc],
    ]
}

/// Whether vessels and tumours may replace this class.
fn replaceable(class: u8) -> bool {
    [HeadClass::White, HeadClass::Cortex, HeadClass::DeepGrey, HeadClass::Csf].iter().any(|&own| own as u8 == class)
}

/// A random voxel of the brain; `None` if many tries find none.
fn start(classes: &[u8], shape: [usize; 3], rng: &mut ChaCha8Rng) -> Option<[f64; 3]> {
    let offset = (0..200).map(|_| rng.below(classes.len())).find(|&i| replaceable(classes[i]))?;
    let [_, height, width] = shape;
    Some([offset / (height * width), offset / width % height, offset % width].map(|v| v as f64))
}

/// Gives the voxels of a ball this class where the class may be replaced.
fn paint_ball(classes: &mut [u8], shape: [usize; 3], centre: [f64; 3], radii: [f64; 3], class: HeadClass) {
    let range = |axis: usize| {
        let low = (centre[axis] - radii[axis]).round().max(0.0) as usize;
        low..((centre[axis] + radii[axis]).round() as usize + 1).min(shape[axis])
    };
    for z in range(0) {
        for y in range(1) {
            for x in range(2) {
                let at = [z as f64, y as f64, x as f64];
                let r: f64 = (0..3).map(|axis| ((at[axis] - centre[axis]) / radii[axis].max(0.5)).powi(2)).sum();
                let voxel = &mut classes[(z * shape[1] + y) * shape[2] + x];
                if r <= 1.0 && replaceable(*voxel) {
                    *voxel = class as u8;
                }
            }
        }
    }
}

/// Adds winding vessels, 0.8 to 3 mm in radius, that start in the brain.
pub(super) fn add_vessels(classes: &mut [u8], shape: [usize; 3], spacing_mm: f64, count: usize, rng: &mut ChaCha8Rng) {
    for _ in 0..count {
        let Some(mut at) = start(classes, shape, rng) else { return };
        let radius = rng.uniform(0.8, 3.0) / spacing_mm;
        let mut direction: [f64; 3] = std::array::from_fn(|_| rng.normal());
        for _ in 0..rng.below(50) {
            paint_ball(classes, shape, at, [radius; 3], HeadClass::Vessel);
            direction = direction.map(|v| v + 0.35 * rng.normal());
            let length = direction.iter().map(|v| v * v).sum::<f64>().sqrt().max(1e-6);
            direction = direction.map(|v| v / length);
            for axis in 0..3 {
                at[axis] += direction[axis] * VESSEL_STEP_MM / spacing_mm;
            }
        }
    }
}

/// Adds an ellipsoid, 3 to 20 mm in radius, in the brain.
pub(super) fn add_tumour(classes: &mut [u8], shape: [usize; 3], spacing_mm: f64, rng: &mut ChaCha8Rng) {
    if let Some(centre) = start(classes, shape, rng) {
        let radius = rng.uniform(3.0, 20.0) / spacing_mm;
        let radii = std::array::from_fn(|_| radius * rng.uniform(0.7, 1.3));
        paint_ball(classes, shape, centre, radii, HeadClass::Tumour);
    }
}

/// Gaussian blur along each axis.
pub(super) fn blur(image: &mut [f32], shape: [usize; 3], deviation: f32) {
    if deviation < 0.2 {
        return;
    }
    let reach = (2.5 * deviation).ceil() as usize;
    let weights: Vec<f32> = (0..=reach).map(|i| (-0.5 * (i as f32 / deviation).powi(2)).exp()).collect();
    along_axes(image, shape, &[0, 1, 2], |line, out| {
        for i in 0..line.len() {
            let (mut sum, mut total) = (weights[0] * line[i], weights[0]);
            for (k, &weight) in weights.iter().enumerate().skip(1) {
                for j in [i.checked_sub(k), Some(i + k)].into_iter().flatten().filter(|&j| j < line.len()) {
                    sum += weight * line[j];
                    total += weight;
                }
            }
            out[i] = sum / total;
        }
    });
}

/// Replaces every `slices` slices along an axis by their mean.
pub(super) fn thicken(image: &mut [f32], shape: [usize; 3], axis: usize, slices: usize) {
    if slices > 1 {
        along_axes(image, shape, &[axis], |line, out| {
            for (line, out) in line.chunks(slices).zip(out.chunks_mut(slices)) {
                out.fill(line.iter().sum::<f32>() / line.len() as f32);
            }
        });
    }
}

/// Applies `f(line, result)` to every line of voxels along some axes.
fn along_axes(image: &mut [f32], shape: [usize; 3], axes: &[usize], f: impl Fn(&[f32], &mut [f32])) {
    for &axis in axes {
        let stride: usize = shape[axis + 1..].iter().product();
        let length = shape[axis];
        let (mut line, mut out) = (vec![0.0; length], vec![0.0; length]);
        for block in image.chunks_exact_mut(stride * length) {
            for first in 0..stride {
                line.iter_mut().enumerate().for_each(|(k, value)| *value = block[first + k * stride]);
                f(&line, &mut out);
                out.iter().enumerate().for_each(|(k, value)| block[first + k * stride] = *value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn blur_keeps_constants_and_spreads_a_point_evenly() {
        let mut flat = vec![2.0; 5 * 6 * 7];
        blur(&mut flat, [5, 6, 7], 1.0);
        assert!(flat.iter().all(|v| (v - 2.0).abs() < 1e-5));
        let mut point = vec![0.0; 9 * 9 * 9];
        point[(4 * 9 + 4) * 9 + 4] = 1.0;
        blur(&mut point, [9; 3], 1.0);
        let at = |z: usize, y: usize, x: usize| point[(z * 9 + y) * 9 + x];
        assert!((at(4, 4, 3) - at(3, 4, 4)).abs() < 1e-7 && (at(4, 4, 3) / at(4, 4, 4) - (-0.5f32).exp()).abs() < 1e-5);
    }

    #[test]
    fn thick_slices_are_means() {
        let mut image: Vec<f32> = (0..5).map(|v| v as f32).collect();
        thicken(&mut image, [5, 1, 1], 0, 2);
        assert_eq!(image, [0.5, 0.5, 2.5, 2.5, 4.0]);
    }

    #[test]
    fn vessels_and_tumours_replace_only_brain_and_fluid() {
        let shape = [20; 3];
        let half = |i: usize| if i < 4000 { HeadClass::White as u8 } else { HeadClass::Bone as u8 };
        let mut classes: Vec<u8> = (0..8000).map(half).collect();
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        add_vessels(&mut classes, shape, 2.0, 5, &mut rng);
        add_tumour(&mut classes, shape, 2.0, &mut rng);
        let count = |class: HeadClass| classes.iter().filter(|&&c| c == class as u8).count();
        assert_eq!(count(HeadClass::Bone), 4000);
        assert!(count(HeadClass::Vessel) > 10 && count(HeadClass::Tumour) > 3);
    }
}
