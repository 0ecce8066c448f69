//! What a step looks at: cubes cut from volumes, which of their cells are seen, and for MiM three
//! levels of cubes, each inside a masked part of the one before.
//!
//! Source: Zhuang et al., IEEE TMI 44(9), 2025, arXiv:2404.15580, with octants that are octants:
//! the published code masks runs of consecutive tokens and takes them for octants.

use rand::{Rng, RngExt};
use rand_chacha::ChaCha8Rng;
use willis_core::{Image, VoxelPoint};

use super::{Method, PretrainConfig};
use crate::backbones::published::Backbone;
use crate::segment::COORDINATE_MM;

/// Cubes of one level, with equally many seen cells each.
#[derive(Debug, Default)]
pub(super) struct Level {
    /// Channels of each cube as the backbone takes them.
    pub cubes: Vec<Vec<f32>>,
    /// Flags of the seen cells, cube by cube.
    pub seen: Vec<bool>,
    /// Where in the level before each cube lies; empty on the first level.
    pub parents: Vec<Parent>,
}

/// A place of a cube.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Parent {
    /// Number of the cube in its level.
    pub cube: usize,
    /// Octant on the first level, cell on the second, in C order.
    pub place: usize,
}

/// The levels of a step: one for SparK, three for MiM. `volume` gives one volume for each item of
/// the batch.
pub(super) fn draw(
    mut volume: impl FnMut(&mut ChaCha8Rng) -> Image<f32>,
    config: &PretrainConfig,
    rng: &mut ChaCha8Rng,
) -> Vec<Level> {
    let count = if config.method == Method::Spark { 1 } else { 3 };
    let mut levels: Vec<Level> = (0..count).map(|_| Level::default()).collect();
    for _ in 0..config.batch.max(1) {
        let image = volume(rng);
        match config.method {
            Method::Spark => {
                let cells = (config.patch / config.cell).pow(3);
                levels[0].cubes.push(Window::anywhere(&image, config.patch, rng).channels(&image, config));
                levels[0].seen.extend(draw_seen(cells, config.masked_share, rng));
            }
            Method::Mim | Method::SparkMim => nest(&image, config, &mut levels, rng),
        }
    }
    levels
}

/// A crop of twice the side at half the resolution; octants of it that are masked there, at full
/// resolution; cells of those that are masked there, enlarged.
fn nest(image: &Image<f32>, config: &PretrainConfig, levels: &mut [Level], rng: &mut ChaCha8Rng) {
    let (patch, cell, nested) = (config.patch, config.cell, &config.nested);
    let (grid, zoom) = (patch / cell, (patch / cell) as f64);
    let crop = Window::anywhere(image, 2 * patch, rng);
    let octants = draw_seen(8, nested.coarse_masked, rng);
    let octant_of = |i: usize| {
        let [z, y, x] = place(i, grid).map(|v| 2 * v / grid);
        (z * 2 + y) * 2 + x
    };
    levels[0].cubes.push(Window { step: 2.0, ..crop.moved([0.5; 3]) }.channels(image, config));
    levels[0].seen.extend((0..grid.pow(3)).map(|i| octants[octant_of(i)]));
    let coarse = levels[0].cubes.len() - 1;
    for octant in draw_masked(&octants, nested.middle, rng) {
        let middle = crop.moved(place(octant, 2).map(|v| (v * patch) as f64));
        let seen = draw_seen(grid.pow(3), nested.middle_masked, rng);
        levels[1].cubes.push(middle.channels(image, config));
        levels[1].parents.push(Parent { cube: coarse, place: octant });
        let cube = levels[1].cubes.len() - 1;
        for fine in draw_masked(&seen, nested.fine, rng) {
            let corner = middle.moved(place(fine, grid).map(|v| (v * cell) as f64 + 0.5 / zoom - 0.5));
            levels[2].cubes.push(Window { step: 1.0 / zoom, ..corner }.channels(image, config));
            levels[2].seen.extend(draw_seen(grid.pow(3), nested.fine_masked, rng));
            levels[2].parents.push(Parent { cube, place: fine });
        }
        levels[1].seen.extend(seen);
    }
}

/// Coordinates z, y, x of number `i` of a cube of `side³` in C order.
fn place(i: usize, side: usize) -> [usize; 3] {
    [i / side / side, i / side % side, i % side]
}

/// Where a cube's voxels lie in a volume: voxel i of an axis at `start + step i`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    /// Voxel coordinates z, y, x.
    start: [f64; 3],
    /// Voxels of the volume per voxel of the cube.
    step: f64,
}

impl Window {
    /// A random place where `side` voxels fit; the first voxel where they do not.
    pub fn anywhere(image: &Image<f32>, side: usize, rng: &mut ChaCha8Rng) -> Self {
        let along = |extent: usize| rng.random_range(0..extent.saturating_sub(side) + 1) as f64;
        Self { start: image.grid.shape.zyx().map(along), step: 1.0 }
    }

    fn moved(self, by: [f64; 3]) -> Self {
        Self { start: std::array::from_fn(|axis| self.start[axis] + by[axis]), ..self }
    }

    /// Where the middle of a cube of `side³` lies in the volume, each axis from -1 to 1.
    pub fn middle(&self, image: &Image<f32>, side: usize) -> [f64; 3] {
        let extent = image.grid.shape.zyx();
        std::array::from_fn(|axis| {
            2.0 * (self.start[axis] + self.step * side as f64 / 2.0) / extent[axis].max(1) as f64 - 1.0
        })
    }

    /// The cube's channels as the backbone takes them; beyond the volume its border goes on.
    pub fn channels(&self, image: &Image<f32>, config: &PretrainConfig) -> Vec<f32> {
        let side = config.patch;
        let at = |i: usize| {
            let place = place(i, side);
            std::array::from_fn(|axis| self.start[axis] + self.step * place[axis] as f64)
        };
        let mut cube: Vec<f32> = (0..side.pow(3)).map(|i| mixed(image, at(i))).collect();
        match config.backbone {
            Backbone::Resenc => standardise(&mut cube),
            Backbone::Segformer3d | Backbone::Waveformer => {
                let centre = image.grid.centre();
                let world = |i: usize| {
                    let [z, y, x]: [f64; 3] = at(i);
                    let p = image.grid.affine.to_world(VoxelPoint::new(z, y, x));
                    [p.x - centre.x, p.y - centre.y, p.z - centre.z].map(|mm| (mm / COORDINATE_MM) as f32)
                };
                let places: Vec<[f32; 3]> = (0..side.pow(3)).map(world).collect();
                (0..3).for_each(|axis| cube.extend(places.iter().map(|place| place[axis])));
            }
        }
        cube
    }
}

/// Trilinear value at voxel coordinates z, y, x, which are taken to the nearest ones inside.
fn mixed(image: &Image<f32>, at: [f64; 3]) -> f32 {
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

/// Flags of the seen cells: the share that is masked is rounded down.
pub(super) fn draw_seen(cells: usize, masked_share: f64, rng: &mut impl Rng) -> Vec<bool> {
    let masked = ((masked_share.clamp(0.0, 1.0) * cells as f64) as usize).min(cells - 1);
    let mut seen = vec![true; cells];
    shuffled(0..cells, rng).into_iter().take(masked).for_each(|cell| seen[cell] = false);
    seen
}

/// Up to `count` of those that are not seen, in random order.
fn draw_masked(seen: &[bool], count: usize, rng: &mut impl Rng) -> Vec<usize> {
    let masked = (0..seen.len()).filter(|&i| !seen[i]);
    shuffled(masked, rng).into_iter().take(count).collect()
}

fn shuffled(numbers: impl Iterator<Item = usize>, rng: &mut impl Rng) -> Vec<usize> {
    let mut order: Vec<(u64, usize)> = numbers.map(|i| (rng.random::<u64>(), i)).collect();
    order.sort_unstable();
    order.into_iter().map(|(_, i)| i).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use willis_core::{Affine, Grid, Point, Shape, Spacing};

    /// Every voxel's intensity is its own place, so that cubes say where they were cut.
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
            backbone: Backbone::Segformer3d,
            method: Method::SparkMim,
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
            let levels = draw(|_| ramp(axis), &config, &mut ChaCha8Rng::seed_from_u64(4));
            assert_eq!(levels.iter().map(|l| l.cubes.len()).collect::<Vec<_>>(), [2, 4, 4]);
            assert!(levels[0].parents.is_empty() && levels[0].seen.iter().filter(|s| **s).count() == 64);
            // Mean over a box of a cube, `of` boxes along each axis: of a ramp, the place of its
            // middle.
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
                    // Its cells are masked there.
                    let seen = &outer.seen[at.cube * 64..][..64];
                    let inside = (0..64).filter(|&i| {
                        let [z, y, x] = place(i, grid).map(|v| v * of / grid);
                        (z * of + y) * of + x == at.place
                    });
                    assert!(inside.clone().count() > 0 && inside.clone().all(|i| !seen[i]));
                }
            }
        }
    }

    #[test]
    fn coordinates_are_those_of_the_voxels() {
        let image = ramp(2);
        let levels = draw(|_| image.clone(), &config(), &mut ChaCha8Rng::seed_from_u64(1));
        let voxels = 32usize.pow(3);
        for cube in levels.iter().flat_map(|level| &level.cubes) {
            for i in [0, 77, voxels - 1] {
                let x_mm = 3.0 + 0.8 * f64::from(cube[i]);
                let expected = (x_mm - image.grid.centre().x) / COORDINATE_MM;
                // Inside the volume; beyond it the border's intensity goes on and the coordinate
                // does not stop.
                if cube[i] > 0.0 && cube[i] < 71.0 {
                    assert!((f64::from(cube[voxels + i]) - expected).abs() < 1e-4);
                }
            }
        }
    }
}
