//! Label maps of phantom heads, for nets that train on label maps.

use rayon::prelude::*;
use willis_core::{Affine, Grid, Image, Point, Shape, Spacing};
use willis_kernels::components::{Connectivity, label};

use crate::atlas::Atlas;
use crate::head::{HeadAnatomy, Tissue};
use crate::mix::LookAlikes;
use crate::random::stream;
use crate::render::{Canvas, Capsule, VesselRaster};
use crate::vector::{Vec3, vec3};

/// Distance between voxels, mm.
const SPACING_MM: f64 = 2.0;
/// Voxels along z, y, x.
const SHAPE: Shape = Shape::new(120, 116, 96);
/// Middle of the map in the mean head, mm from the centre of the circle of Willis.
const MIDDLE: Vec3 = vec3(0.0, 14.0, -10.0);
/// Covered part of a voxel from which it counts as vessel.
const COVERED: f32 = 0.4;
/// FreeSurfer's number of vessels in the left hemisphere, used for all.
const VESSEL: u16 = 30;

/// Tissues of a phantom head and its arteries under the numbers of FreeSurfer's colour table (and
/// SynthSeg's 512 and 516), at 2 mm. The dura counts as fluid. Depends on the seed only.
pub fn head_labels(seed: u64) -> Image<u16> {
    let atlas = Atlas::draw(&mut stream(seed, "atlas"));
    let head = HeadAnatomy::draw(LookAlikes::Usual, &mut stream(seed, "head"));
    let middle = atlas.warp.place(MIDDLE);
    let corner = [middle.x, middle.y, middle.z].into_iter().zip([SHAPE.x, SHAPE.y, SHAPE.z]);
    let corner: Vec<f64> = corner.map(|(mm, side)| mm - (side as f64 - 1.0) / 2.0 * SPACING_MM).collect();
    let origin = Point::new(corner[0], corner[1], corner[2]);
    let grid = Grid::new(SHAPE, Affine::axis_aligned(Spacing::isotropic(SPACING_MM), origin));

    let canvas = Canvas::new(grid);
    let arteries = VesselRaster::draw(&canvas, 0..SHAPE.z, &canvas.place_capsules(&capsules(&atlas), 1.0));
    let to_head = atlas.warp.inverse_rows();
    let mut numbers = vec![0u16; SHAPE.len()];
    numbers.par_chunks_mut(SHAPE.x).enumerate().for_each(|(row, numbers)| {
        let (z, y) = (row / SHAPE.y, row % SHAPE.y);
        for (x, number) in numbers.iter_mut().enumerate() {
            let p = [x, y, z].into_iter().zip(&corner).map(|(i, c)| (c + i as f64 * SPACING_MM) as f32);
            let p: Vec<f32> = p.collect();
            let mean = to_head.map(|r| r[0] * p[0] + r[1] * p[1] + r[2] * p[2] + r[3]);
            let i = row * SHAPE.x + x;
            let (tissue, inside) = head.tissue(mean, arteries.distance[i]);
            *number = if arteries.cover[i] > COVERED { VESSEL } else { number_of(tissue, inside) };
        }
    });
    clear_outside(&mut numbers);
    Image::new(grid, numbers)
}

fn capsules(atlas: &Atlas) -> Vec<Capsule> {
    let mut capsules = Vec::new();
    for artery in &atlas.arteries {
        for (p, r) in artery.points.windows(2).zip(artery.radii.windows(2)) {
            let [radius_a, radius_b] = [r[0] as f32, r[1] as f32];
            capsules.push(Capsule { a: p[0], b: p[1], radius_a, radius_b, label: 0, signal: 1.0 });
        }
    }
    capsules
}

/// Number of a tissue inside or outside of the cranial cavity.
fn number_of(tissue: Tissue, inside: bool) -> u16 {
    match (tissue, inside) {
        (Tissue::Air, _) => 130,
        (Tissue::Skin, _) => 118,
        (Tissue::Fat, _) => 125,
        (Tissue::Muscle, _) => 123,
        (Tissue::Bone, _) => 129,
        (Tissue::Marrow, _) => 516,
        (Tissue::Csf | Tissue::Dura, true) => 24,
        (Tissue::Csf, false) => 134,
        (Tissue::Grey, _) => 3,
        (Tissue::White, true) => 2,
        (Tissue::White, false) => 512,
        (Tissue::Enhancing, true) => 99,
        (Tissue::Dura | Tissue::Enhancing, false) => 127,
    }
}

/// Sets the air around the head, the largest body of air, to 0.
fn clear_outside(numbers: &mut [u16]) {
    let air: Vec<u8> = numbers.iter().map(|&number| u8::from(number == 130)).collect();
    let bodies = label(&air, SHAPE.zyx(), Connectivity::Six);
    let largest = (1u32..).zip(&bodies.sizes).max_by_key(|(_, size)| **size).map_or(0, |(body, _)| body);
    let outside = numbers.iter_mut().zip(&bodies.labels).filter(|(_, body)| **body == largest && largest > 0);
    outside.for_each(|(number, _)| *number = 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_has_a_brain_of_natural_size_in_a_skull() {
        let map = head_labels(3);
        let litres = |numbers: &[u16]| {
            map.voxels.iter().filter(|number| numbers.contains(number)).count() as f64 * SPACING_MM.powi(3) / 1e6
        };
        let brain = litres(&[2, 3, 24, 30, 99]);
        assert!((1.1..2.2).contains(&brain), "{brain}");
        assert!(litres(&[129, 516]) > 0.2 && litres(&[30]) > 0.001 && litres(&[130]) > 0.0005);
        assert_eq!(map.voxels[0], 0);
        assert_eq!(head_labels(3).voxels, map.voxels);
    }
}
