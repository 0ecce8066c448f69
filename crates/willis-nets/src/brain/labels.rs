//! A label map, prepared for the generator.

use std::ops::Range;

use willis_core::Image;
use willis_kernels::components::{Connectivity, fill_holes, largest};
use willis_kernels::distance::squared_distance_mm2;

use super::contrast::{HeadClass, label_of};

/// Steps of a stored distance per millimetre.
const STEPS_PER_MM: f32 = 64.0;
/// Largest stored distance, mm.
const FARTHEST_MM: f32 = 500.0;
/// Fluid farther than this below the lowest tissue of the brain belongs to the spine, mm.
const BELOW_BRAIN_MM: f64 = 3.0;

/// A map of labels that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LabelError {
    /// A voxel has a number that is not in FreeSurfer's table.
    #[error("voxel value {value} is not a label of FreeSurfer or SynthSeg; give maps with their numbers")]
    Unknown {
        /// The value.
        value: String,
    },
    /// No voxel is brain.
    #[error("no voxel belongs to the brain; give whole-head maps with FreeSurfer's numbers")]
    NoBrain,
}

/// Classes of a head and distances from the surface of its brain. Axes run to Left, Inferior and
/// Anterior.
#[derive(Debug, Clone)]
pub struct LabelledHead {
    pub(super) shape: [usize; 3],
    pub(super) spacing_mm: [f64; 3],
    pub(super) classes: Vec<u8>,
    /// Signed distance from the surface of the brain, negative inside, in steps.
    distances: Vec<i16>,
}

impl LabelledHead {
    /// Prepares a map whose axes run to Left, Inferior and Anterior.
    ///
    /// # Errors
    /// [`LabelError`] when a number is unknown or nothing is brain.
    pub fn new(map: &Image<f32>) -> Result<Self, LabelError> {
        let mut classes = Vec::with_capacity(map.voxels.len());
        let mut brain = Vec::with_capacity(map.voxels.len());
        for &value in &map.voxels {
            let number = value as u16;
            let known = (f32::from(number) == value).then(|| label_of(number)).flatten();
            let label = known.ok_or_else(|| LabelError::Unknown { value: value.to_string() })?;
            classes.push(label.class as u8);
            brain.push(u8::from(label.brain));
        }
        let (shape, spacing_mm) = (map.grid.shape.zyx(), map.grid.spacing().zyx());
        drop_spine(&mut brain, &classes, shape, spacing_mm[1]);
        let brain = fill_holes(&largest(&brain, shape, Connectivity::Six), shape);
        if brain.iter().all(|&inside| inside == 0) {
            return Err(LabelError::NoBrain);
        }
        let ranges = occupied(&classes, shape);
        let cut = |all: &[u8]| crop(all, shape, &ranges);
        let (classes, brain) = (cut(&classes), cut(&brain));
        let shape = [0, 1, 2].map(|axis| ranges[axis].len());
        Ok(Self { distances: signed_steps(&brain, shape, spacing_mm), shape, spacing_mm, classes })
    }

    /// Signed distance at a voxel, mm.
    pub(super) fn distance_mm(&self, offset: usize) -> f32 {
        f32::from(self.distances[offset]) / STEPS_PER_MM
    }
}

/// Takes the fluid of the spine, below all tissue of the brain, out of the mask. Axis 1 runs down.
fn drop_spine(brain: &mut [u8], classes: &[u8], [_, height, width]: [usize; 3], step_mm: f64) {
    let row_of = |offset: usize| offset / width % height;
    let is_tissue = |i: &usize| brain[*i] == 1 && classes[*i] != HeadClass::Csf as u8;
    let Some(lowest) = (0..brain.len()).filter(is_tissue).map(row_of).max() else { return };
    let limit = lowest + (BELOW_BRAIN_MM / step_mm) as usize;
    brain.iter_mut().enumerate().filter(|(i, _)| row_of(*i) > limit).for_each(|(_, inside)| *inside = 0);
}

/// Range of the non-zero voxels along each axis.
fn occupied(classes: &[u8], shape: [usize; 3]) -> [Range<usize>; 3] {
    let [_, height, width] = shape;
    let (mut low, mut high) = (shape, [0; 3]);
    for (i, _) in classes.iter().enumerate().filter(|(_, class)| **class != 0) {
        let at = [i / (width * height), i / width % height, i % width];
        for axis in 0..3 {
            low[axis] = low[axis].min(at[axis]);
            high[axis] = high[axis].max(at[axis] + 1);
        }
    }
    [0, 1, 2].map(|axis| low[axis].min(high[axis])..high[axis])
}

fn crop(all: &[u8], [_, height, width]: [usize; 3], [z, y, x]: &[Range<usize>; 3]) -> Vec<u8> {
    let rows = z.clone().flat_map(|z| y.clone().map(move |y| (z * height + y) * width));
    rows.flat_map(|row| all[row + x.start..row + x.end].iter().copied()).collect()
}

/// Distances from the faces between the mask and the rest, in steps.
fn signed_steps(mask: &[u8], shape: [usize; 3], spacing_mm: [f64; 3]) -> Vec<i16> {
    let outside: Vec<u8> = mask.iter().map(|&m| 1 - m).collect();
    let inner = squared_distance_mm2(mask, shape, spacing_mm);
    let outer = squared_distance_mm2(&outside, shape, spacing_mm);
    // A distance between centres on both sides of a face exceeds that from the face by half a
    // voxel.
    let half = (spacing_mm.iter().sum::<f64>() / 6.0) as f32;
    let steps = |(inner, outer): (f32, f32)| {
        let mm = if inner > 0.0 { half - inner.sqrt() } else { outer.sqrt() - half };
        (mm.clamp(-FARTHEST_MM, FARTHEST_MM) * STEPS_PER_MM) as i16
    };
    inner.into_iter().zip(outer).map(steps).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use willis_core::{Affine, Grid, Point, Shape, Spacing};

    use super::*;

    /// A cube of brain in a cube of skin, with fluid that runs down from it.
    pub fn cube(side: usize) -> Image<f32> {
        let grid = Grid::new(
            Shape::new(side, side, side),
            Affine::axis_aligned(Spacing::isotropic(1.0), Point::new(0.0, 0.0, 0.0)),
        );
        let number = |i: usize| {
            let at = grid.shape.index(i);
            let within = |margin: usize| [at.z, at.y, at.x].iter().all(|&v| v >= margin && v < side - margin);
            if within(side / 4) {
                2.0
            } else if at.y >= side - side / 4 && at.z == side / 2 && at.x == side / 2 && within(1) {
                24.0
            } else if within(1) {
                507.0
            } else {
                0.0
            }
        };
        Image::new(grid, (0..grid.shape.len()).map(number).collect())
    }

    #[test]
    fn distances_start_at_the_faces_of_the_brain() {
        let head = LabelledHead::new(&cube(24)).unwrap();
        assert_eq!(head.shape, [22; 3]);
        let at = |z: usize, y: usize, x: usize| head.distance_mm((z * 22 + y) * 22 + x);
        assert_eq!([at(8, 8, 4), at(8, 8, 5), at(8, 8, 7)], [0.5, -0.5, -2.5]);
        // Fluid is brain as far as 3 mm below the lowest tissue.
        assert!(at(11, 19, 11) < 0.0 && at(11, 21, 11) > 0.0);
    }

    #[test]
    fn unusable_maps_are_refused() {
        let error = |value: f32| LabelledHead::new(&cube(8).map(|_| value)).unwrap_err();
        assert!(error(400.0).to_string().contains("400"));
        assert!(error(2.5).to_string().contains("2.5"));
        assert!(error(-1.0).to_string().contains("-1"));
        assert_eq!(error(507.0), LabelError::NoBrain);
    }
}
