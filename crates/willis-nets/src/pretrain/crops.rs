//! Batches of pre-training: cubes cropped from volumes, the masks of their cells, and for MiM three
//! levels of cubes, each inside a masked part of a cube of the level before.
//!
//! Source: Zhuang et al., IEEE TMI 44(9), 2025, arXiv:2404.15580. We differ: the published code
//! masks runs of consecutive tokens and treats them as octants; here octants are masked.

use std::collections::BTreeMap;

use rand::{Rng, RngExt};
use rand_chacha::ChaCha8Rng;
use willis_core::files::FileError;
use willis_core::{Image, VoxelPoint};

use super::{Method, MimConfig, PretrainConfig, PretrainError};
use crate::backbones::BackboneConfig;
use crate::segment::COORDINATE_MM;

/// The cubes of one level; all have the same number of visible cells.
#[derive(Debug, Default)]
pub(super) struct Level {
    /// Input channels of each cube.
    pub cubes: Vec<Vec<f32>>,
    /// Visibility of the cells, cube by cube.
    pub visible: Vec<bool>,
    /// Place of each cube in the level before; empty on the first level.
    pub parents: Vec<Parent>,
}

/// Place of a cube in the level before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Parent {
    /// Number of the cube in its level.
    pub cube: usize,
    /// Octant on the first level, cell on the second, in C order.
    pub place: usize,
}

/// A random volume that can be read; `read` reads one of `count`.
///
/// # Errors
/// [`PretrainError::Unreadable`] when every volume has failed
pub(super) fn draw_volume(
    count: usize,
    read: impl Fn(usize) -> Result<Image<f32>, FileError>,
    rng: &mut ChaCha8Rng,
) -> Result<Image<f32>, PretrainError> {
    let mut failed = BTreeMap::new();
    loop {
        let number = rng.random_range(0..count);
        if failed.contains_key(&number) {
            continue;
        }
        match read(number) {
            Ok(image) => return Ok(image),
            Err(source) => failed.insert(number, source),
        };
        if failed.len() == count {
            let source = failed.remove(&number).expect("it was just inserted");
            return Err(PretrainError::Unreadable { count, source });
        }
    }
}

/// The levels of a step: one for SparK, three for MiM. `volume` returns one volume for each item of
/// the batch.
///
/// # Errors
/// the first error of `volume`
pub(super) fn draw(
    mut volume: impl FnMut(&mut ChaCha8Rng) -> Result<Image<f32>, PretrainError>,
    config: &PretrainConfig,
    rng: &mut ChaCha8Rng,
) -> Result<Vec<Level>, PretrainError> {
    let count = if let Method::Spark(_) = config.method { 1 } else { 3 };
    let mut levels: Vec<Level> = (0..count).map(|_| Level::default()).collect();
    for _ in 0..config.batch {
        let image = volume(rng)?;
        match &config.method {
            Method::Spark(spark) => {
                let cells = (config.patch / config.cell).pow(3);
                levels[0].cubes.push(Crop::random(&image, config.patch, rng).channels(&image, config));
                levels[0].visible.extend(draw_visible(cells, spark.masked_share, rng));
            }
            Method::Mim(mim) | Method::SparkMim(mim) => nest(&image, config, mim, &mut levels, rng),
        }
    }
    Ok(levels)
}

/// Adds the cubes of one volume to MiM's levels: a crop of twice the side at half the resolution,
/// masked octants of it at full resolution, and masked cells of those, enlarged.
fn nest(image: &Image<f32>, config: &PretrainConfig, mim: &MimConfig, levels: &mut [Level], rng: &mut ChaCha8Rng) {
    let (patch, cell) = (config.patch, config.cell);
    let (grid, zoom) = (patch / cell, (patch / cell) as f64);
    let crop = Crop::random(image, 2 * patch, rng);
    let octants = draw_visible(8, mim.coarse_masked, rng);
    let octant_of = |i: usize| {
        let [z, y, x] = place(i, grid).map(|v| 2 * v / grid);
        (z * 2 + y) * 2 + x
    };
    levels[0].cubes.push(Crop { step: 2.0, ..crop.moved([0.5; 3]) }.channels(image, config));
    levels[0].visible.extend((0..grid.pow(3)).map(|i| octants[octant_of(i)]));
    let coarse = levels[0].cubes.len() - 1;
    for octant in draw_masked(&octants, mim.middle, rng) {
        let middle = crop.moved(place(octant, 2).map(|v| (v * patch) as f64));
        let visible = draw_visible(grid.pow(3), mim.middle_masked, rng);
        levels[1].cubes.push(middle.channels(image, config));
        levels[1].parents.push(Parent { cube: coarse, place: octant });
        let cube = levels[1].cubes.len() - 1;
        for fine in draw_masked(&visible, mim.fine, rng) {
            let corner = middle.moved(place(fine, grid).map(|v| (v * cell) as f64 + 0.5 / zoom - 0.5));
            levels[2].cubes.push(Crop { step: 1.0 / zoom, ..corner }.channels(image, config));
            levels[2].visible.extend(draw_visible(grid.pow(3), mim.fine_masked, rng));
            levels[2].parents.push(Parent { cube, place: fine });
        }
        levels[1].visible.extend(visible);
    }
}

/// Coordinates z, y, x of number `i` in a cube of `side³`, in C order.
fn place(i: usize, side: usize) -> [usize; 3] {
    [i / side / side, i / side % side, i % side]
}

/// Position and scale of a cube in a volume: voxel i of an axis is at `start + step i`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Crop {
    /// Voxel coordinates z, y, x.
    start: [f64; 3],
    /// Voxels of the volume per voxel of the cube.
    step: f64,
}

impl Crop {
    /// A random position where `side` voxels fit; along an axis that is shorter, the first voxel.
    pub fn random(image: &Image<f32>, side: usize, rng: &mut ChaCha8Rng) -> Self {
        let along = |extent: usize| rng.random_range(0..extent.saturating_sub(side) + 1) as f64;
        Self { start: image.grid.shape.zyx().map(along), step: 1.0 }
    }

    fn moved(self, by: [f64; 3]) -> Self {
        Self { start: std::array::from_fn(|axis| self.start[axis] + by[axis]), ..self }
    }

    /// Centre of a cube of `side³` in the volume, each axis from -1 to 1.
    pub fn centre(&self, image: &Image<f32>, side: usize) -> [f64; 3] {
        let extent = image.grid.shape.zyx();
        std::array::from_fn(|axis| {
            2.0 * (self.start[axis] + self.step * side as f64 / 2.0) / extent[axis].max(1) as f64 - 1.0
        })
    }

    /// Input channels of the cube: standardised intensity for the U-Net, intensity and world
    /// coordinates for the other backbones. Outside the volume its border is repeated.
    pub fn channels(&self, image: &Image<f32>, config: &PretrainConfig) -> Vec<f32> {
        let side = config.patch;
        let at = |i: usize| {
            let place = place(i, side);
            std::array::from_fn(|axis| self.start[axis] + self.step * place[axis] as f64)
        };
        let mut cube: Vec<f32> = (0..side.pow(3)).map(|i| trilinear(image, at(i))).collect();
        if let BackboneConfig::ResEnc(_) = config.backbone {
            standardise(&mut cube);
            return cube;
        }
        let centre = image.grid.centre();
        let world = |i: usize| {
            let [z, y, x]: [f64; 3] = at(i);
            let p = image.grid.affine.to_world(VoxelPoint::new(z, y, x));
            [p.x - centre.x, p.y - centre.y, p.z - centre.z].map(|mm| (mm / COORDINATE_MM) as f32)
        };
        let coordinates: Vec<[f32; 3]> = (0..side.pow(3)).map(world).collect();
        (0..3).for_each(|axis| cube.extend(coordinates.iter().map(|point| point[axis])));
        cube
    }
}

/// Trilinear value at voxel coordinates z, y, x, clamped to the volume.
fn trilinear(image: &Image<f32>, at: [f64; 3]) -> f32 {
    let extent = image.grid.shape.zyx();
    let taps: [(usize, usize, f32); 3] = std::array::from_fn(|axis| {
        let last = extent[axis] - 1;
        let inside = at[axis].clamp(0.0, last as f64);
        (inside as usize, (inside as usize + 1).min(last), inside.fract() as f32)
    });
    let [(z, z1, fz), (y, y1, fy), (x, x1, fx)] = taps;
    let row = |z: usize, y: usize| {
        let row = &image.voxels[(z * extent[1] + y) * extent[2]..][..extent[2]];
        if fx == 0.0 { row[x] } else { row[x] + fx * (row[x1] - row[x]) }
    };
    let plane = |z: usize| if fy == 0.0 { row(z, y) } else { row(z, y) + fy * (row(z, y1) - row(z, y)) };
    if fz == 0.0 { plane(z) } else { plane(z) + fz * (plane(z1) - plane(z)) }
}

fn standardise(cube: &mut [f32]) {
    let mean = cube.iter().map(|&v| f64::from(v)).sum::<f64>() / cube.len() as f64;
    let variance = cube.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / cube.len() as f64;
    let scale = 1.0 / (variance + 1e-5).sqrt();
    cube.iter_mut().for_each(|v| *v = ((f64::from(*v) - mean) * scale) as f32);
}

/// Visibility of cells of which a random `masked_share`, rounded down, is masked.
pub(super) fn draw_visible(cells: usize, masked_share: f64, rng: &mut impl Rng) -> Vec<bool> {
    let masked = (masked_share * cells as f64) as usize;
    mask_smallest((0..cells).map(|_| rng.random::<u64>()), masked)
}

/// Visibility of cells of which the `masked` with the smallest keys are masked.
pub(super) fn mask_smallest(keys: impl Iterator<Item = u64>, masked: usize) -> Vec<bool> {
    let order = argsort(keys);
    let mut visible = vec![true; order.len()];
    order[..masked].iter().for_each(|&cell| visible[cell] = false);
    visible
}

/// Up to `count` masked cells in random order.
fn draw_masked(visible: &[bool], count: usize, rng: &mut impl Rng) -> Vec<usize> {
    let masked: Vec<usize> = (0..visible.len()).filter(|&i| !visible[i]).collect();
    let order = argsort(masked.iter().map(|_| rng.random::<u64>()));
    order.into_iter().take(count).map(|i| masked[i]).collect()
}

/// Positions of the keys in ascending order; equal keys keep their order.
fn argsort(keys: impl Iterator<Item = u64>) -> Vec<usize> {
    let mut order: Vec<(u64, usize)> = keys.zip(0..).collect();
    order.sort_unstable();
    order.into_iter().map(|(_, i)| i).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use willis_core::{Affine, Grid, Point, Shape, Spacing};

    /// A volume whose intensities are voxel coordinates, so that cubes reveal where they were
    /// cropped.
    fn ramp(axis: usize) -> Image<f32> {
        let grid =
            Grid::new(Shape::new(70, 68, 72), Affine::axis_aligned(Spacing::isotropic(0.8), Point::new(3.0, 1.0, 2.0)));
        let value = |i: usize| {
            let at = grid.shape.index(i);
            [at.z, at.y, at.x][axis] as f32
        };
        Image::new(grid, (0..grid.shape.len()).map(value).collect())
    }

    fn config() -> PretrainConfig {
        PretrainConfig {
            method: Method::SparkMim(MimConfig::default()),
            patch: 32,
            cell: 8,
            batch: 2,
            ..PretrainConfig::default()
        }
    }

    #[test]
    fn children_lie_in_masked_places_of_their_parents() {
        let config = config();
        let (side, grid) = (32, 4);
        for axis in 0..3 {
            let levels = draw(|_| Ok(ramp(axis)), &config, &mut ChaCha8Rng::seed_from_u64(4)).unwrap();
            assert_eq!(levels.iter().map(|l| l.cubes.len()).collect::<Vec<_>>(), [2, 4, 4]);
            assert!(levels[0].parents.is_empty() && levels[0].visible.iter().filter(|s| **s).count() == 64);
            // Mean over box `i` of a cube with `of` boxes along each axis. For a ramp this is the
            // coordinate of the box's centre.
            let middle = |cube: &[f32], i: usize, of: usize| {
                let corner = place(i, of).map(|v| v * side / of);
                let voxels = (0..(side / of).pow(3)).map(|k| {
                    let [z, y, x] = place(k, side / of);
                    ((corner[0] + z) * side + corner[1] + y) * side + corner[2] + x
                });
                voxels.map(|v| f64::from(cube[v])).sum::<f64>() / (side / of).pow(3) as f64
            };
            for (child, parent, of) in [(1, 0, 2), (2, 1, grid)] {
                for (cube, at) in levels[child].cubes.iter().zip(&levels[child].parents) {
                    let outer = &levels[parent];
                    let box_middle = middle(&outer.cubes[at.cube], at.place, of);
                    assert!((middle(cube, 0, 1) - box_middle).abs() < 0.02, "{at:?}");
                    // The cells of that place are masked.
                    let visible = &outer.visible[at.cube * 64..][..64];
                    let inside = (0..64).filter(|&i| {
                        let [z, y, x] = place(i, grid).map(|v| v * of / grid);
                        (z * of + y) * of + x == at.place
                    });
                    assert!(inside.clone().count() > 0 && inside.clone().all(|i| !visible[i]));
                }
            }
        }
    }

    #[test]
    fn masks_have_the_share_rounded_down_and_the_smallest_keys() {
        assert_eq!(mask_smallest([5, 1, 9, 1, 7].into_iter(), 3), [false, false, true, false, true]);
        let visible = draw_visible(64, 0.6, &mut ChaCha8Rng::seed_from_u64(3));
        assert_eq!(visible.iter().filter(|visible| !**visible).count(), 38);
        let children = draw_masked(&visible, 100, &mut ChaCha8Rng::seed_from_u64(4));
        assert!(children.len() == 38 && children.iter().all(|&cell| !visible[cell]));
    }

    #[test]
    fn unreadable_volumes_are_skipped_until_none_is_left() {
        let damaged = |number: usize| {
            let source = std::io::Error::other("damaged");
            FileError::Read { path: format!("volume-{number}").into(), source }
        };
        let read = |number: usize| if number == 3 { Ok(ramp(0)) } else { Err(damaged(number)) };
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        assert!(draw_volume(5, read, &mut rng).is_ok());
        let error = draw_volume(5, |number| Err(damaged(number)), &mut rng).unwrap_err().to_string();
        assert!(error.starts_with("none of 5 volumes can be read; the last error was: cannot read volume-"), "{error}");
    }

    #[test]
    fn coordinates_are_those_of_the_voxels() {
        let image = ramp(2);
        let levels = draw(|_| Ok(image.clone()), &config(), &mut ChaCha8Rng::seed_from_u64(1)).unwrap();
        let voxels = 32usize.pow(3);
        for cube in levels.iter().flat_map(|level| &level.cubes) {
            for i in [0, 77, voxels - 1] {
                let x_mm = 3.0 + 0.8 * f64::from(cube[i]);
                let expected = (x_mm - image.grid.centre().x) / COORDINATE_MM;
                // Outside the volume the intensity is the border's, but the coordinate is not.
                if cube[i] > 0.0 && cube[i] < 71.0 {
                    assert!((f64::from(cube[voxels + i]) - expected).abs() < 1e-4);
                }
            }
        }
    }
}
