//! Random training patches, a third of them at an aneurysm, a third on a vessel.

use std::path::Path;

use half::f16;
use rand::{Rng, RngExt};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use willis_core::files::FileError;
use willis_core::space::{Affine, Index, Point, Shape, VoxelPoint};
use willis_core::{Lesion, Site, TrainingCase};
use willis_kernels::components::{Connectivity, label};
use willis_kernels::thinning::skeletonize;

use super::net::{COORDINATE_MM, IN_CHANNELS};
use crate::loss::segmentation::CLASSES;

/// How patches are drawn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SampleConfig {
    /// Side of the cubic patch, voxels; a multiple of 32.
    pub patch: usize,
    /// Patches per batch.
    pub batch: usize,
    /// Share of patches at an aneurysm, where the case has one.
    pub at_aneurysm: f64,
    /// Share of patches on a vessel, sites drawn evenly.
    pub at_vessel: f64,
    /// Which aneurysm a patch at one shows.
    pub aneurysms: AneurysmDraw,
}

/// How the aneurysm of a patch is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AneurysmDraw {
    /// A case, then one of its aneurysm voxels: frequent sites and large sacs are seen most.
    ByCase,
    /// A site, then one of the aneurysms there: every site is seen as often, and small sacs as
    /// often as large ones.
    BySite,
}

impl Default for SampleConfig {
    fn default() -> Self {
        Self { patch: 64, batch: 2, at_aneurysm: 1.0 / 3.0, at_vessel: 1.0 / 3.0, aneurysms: AneurysmDraw::ByCase }
    }
}

/// A case held in little memory (three bytes a voxel), with lists of voxels to draw patches at.
#[derive(Debug, Clone)]
pub struct PreparedCase {
    pub(super) shape: Shape,
    affine: Affine,
    centre: Point,
    image: Vec<f16>,
    /// Class in the low four bits, then the aneurysm and the tube.
    labels: Vec<u8>,
    aneurysm_voxels: Vec<u32>,
    /// Class and middle of every aneurysm that lies on the grid.
    lesions: Vec<(u8, Index)>,
    site_voxels: Vec<Vec<u32>>,
}

const CLASS_BITS: u8 = 0x0f;
const ANEURYSM_BIT: u8 = 0x10;
const TUBE_BIT: u8 = 0x20;
/// Voxels kept per list: enough to draw from.
const LIST_LEN: usize = 2048;

/// Reads a case folder.
///
/// # Errors
/// no readable case there
pub fn prepare(folder: &Path) -> Result<PreparedCase, FileError> {
    Ok(PreparedCase::new(&willis_core::files::case::load(folder)?))
}

impl PreparedCase {
    /// Packs a case and finds its tubes: the skeleton of all vessels, dilated twice, cut to the
    /// labels.
    pub fn new(case: &TrainingCase) -> Self {
        let shape = case.image.grid.shape;
        let vessel: Vec<u8> = case.sites.voxels.iter().map(|&site| u8::from(site != 0)).collect();
        let skeleton = skeletonize(&vessel, shape.zyx());
        let tube = dilate(&dilate(&skeleton, shape), shape);
        let pack = |((&site, &aneurysm), &tube): ((&u8, &u8), &u8)| {
            let class = if usize::from(site) < CLASSES { site } else { 0 };
            let tube = if tube != 0 && class != 0 { TUBE_BIT } else { 0 };
            class | if aneurysm != 0 { ANEURYSM_BIT } else { 0 } | tube
        };
        let labels: Vec<u8> = case.sites.voxels.iter().zip(&case.aneurysm.voxels).zip(&tube).map(pack).collect();
        let listed = |keep: &dyn Fn(u8) -> bool| {
            let all: Vec<u32> = (0u32..).zip(&labels).filter(|&(_, &l)| keep(l)).map(|(i, _)| i).collect();
            let step = all.len().div_ceil(LIST_LEN).max(1);
            all.into_iter().step_by(step).collect::<Vec<_>>()
        };
        let middle_of = |lesion: &Lesion| {
            let place = case.image.grid.affine.to_voxel(lesion.centre)?;
            shape.contains(place).then(|| (lesion.site.mask_value(), shape.nearest(place)))
        };
        let of_class = |class: u8| listed(&|label| label & CLASS_BITS == class);
        Self {
            shape,
            affine: case.image.grid.affine,
            centre: case.image.grid.centre(),
            image: case.image.voxels.iter().map(|&v| f16::from_f32(v)).collect(),
            aneurysm_voxels: listed(&|label| label & ANEURYSM_BIT != 0),
            lesions: case.lesions.iter().filter_map(middle_of).collect(),
            site_voxels: (1..CLASSES as u8).map(of_class).filter(|list| !list.is_empty()).collect(),
            labels,
        }
    }

    /// Whether the case has an aneurysm.
    pub fn has_aneurysm(&self) -> bool {
        !self.aneurysm_voxels.is_empty()
    }

    /// Class and middle of each of its aneurysms.
    pub(super) fn lesions(&self) -> &[(u8, Index)] {
        &self.lesions
    }

    /// Where the middle of the next patch lies.
    pub(super) fn draw_middle(&self, config: &SampleConfig, rng: &mut impl Rng) -> Index {
        let kind = rng.random::<f64>();
        let pick = |list: &[u32], rng: &mut _| self.shape.index(list[random_below(list.len(), rng)] as usize);
        let found = if kind < config.at_aneurysm && self.has_aneurysm() {
            pick(&self.aneurysm_voxels, rng)
        } else if kind < config.at_aneurysm + config.at_vessel && !self.site_voxels.is_empty() {
            let list = &self.site_voxels[random_below(self.site_voxels.len(), rng)];
            pick(list, rng)
        } else {
            self.shape.index(random_below(self.shape.len(), rng))
        };
        self.moved(found, config.patch, rng)
    }

    /// A middle for a patch in whose middle half a voxel lies anywhere.
    pub(super) fn moved(&self, found: Index, patch: usize, rng: &mut impl Rng) -> Index {
        let quarter = patch as i64 / 4;
        let mut moved = |v: usize, n: usize| {
            let by = random_below(2 * quarter as usize + 1, rng) as i64 - quarter;
            (v as i64 + by).clamp(0, n as i64 - 1) as usize
        };
        Index::new(moved(found.z, self.shape.z), moved(found.y, self.shape.y), moved(found.x, self.shape.x))
    }

    /// The patch seen through a placement; outside the volume its border goes on.
    pub(super) fn cut(&self, placement: &Placement) -> Patch {
        let n = placement.size;
        let axes = [0, 1, 2].map(|axis| placement.taps(axis, self.shape.zyx()[axis]));
        let row_len = self.shape.x;
        let mut patch = Patch::empty(n);
        let planes: Vec<_> = (0..n)
            .into_par_iter()
            .map(|z| {
                let mut plane = Plane { channels: vec![0.0; IN_CHANNELS * n * n], labels: vec![0; n * n] };
                for y in 0..n {
                    let (tz, ty) = (axes[0][z], axes[1][y]);
                    let rows = [(tz.low, ty.low), (tz.low, ty.high), (tz.high, ty.low), (tz.high, ty.high)];
                    let rows = rows.map(|(z, y)| (z * self.shape.y + y) * row_len);
                    for (x, tx) in axes[2].iter().enumerate() {
                        let at = |row: usize| {
                            let low = self.image[row + tx.low].to_f32();
                            if tx.fraction == 0.0 {
                                low
                            } else {
                                low + tx.fraction * (self.image[row + tx.high].to_f32() - low)
                            }
                        };
                        let mix = |a: usize, b: usize| {
                            let a = at(a);
                            if ty.fraction == 0.0 { a } else { a + ty.fraction * (at(b) - a) }
                        };
                        let near = mix(rows[0], rows[1]);
                        let value =
                            if tz.fraction == 0.0 { near } else { near + tz.fraction * (mix(rows[2], rows[3]) - near) };
                        let i = y * n + x;
                        plane.channels[i] = value;
                        let label = self.labels[self.shape.offset(Index::new(tz.nearest, ty.nearest, tx.nearest))];
                        plane.labels[i] = if placement.mirrored { mirror(label) } else { label };
                        let p = self.affine.to_world(VoxelPoint::new(tz.place, ty.place, tx.place));
                        let side = if placement.mirrored { -1.0 } else { 1.0 };
                        let offset = [side * (p.x - self.centre.x), p.y - self.centre.y, p.z - self.centre.z];
                        for (axis, mm) in offset.into_iter().enumerate() {
                            plane.channels[(axis + 1) * n * n + i] = (mm / COORDINATE_MM) as f32;
                        }
                    }
                }
                plane
            })
            .collect();
        for (z, plane) in planes.into_iter().enumerate() {
            for (channel, values) in plane.channels.chunks_exact(n * n).enumerate() {
                patch.channels[(channel * n + z) * n * n..][..n * n].copy_from_slice(values);
            }
            for (i, label) in plane.labels.into_iter().enumerate() {
                let voxel = z * n * n + i;
                patch.sites[voxel] = label & CLASS_BITS;
                patch.aneurysm[voxel] = u8::from(label & ANEURYSM_BIT != 0);
                patch.tube[voxel] = if label & TUBE_BIT != 0 { label & CLASS_BITS } else { 0 };
            }
        }
        patch
    }
}

struct Plane {
    channels: Vec<f32>,
    labels: Vec<u8>,
}

/// A label of the other side.
fn mirror(label: u8) -> u8 {
    let class = label & CLASS_BITS;
    label & !CLASS_BITS | Site::from_mask_value(class).map_or(0, |site| site.mirror().mask_value())
}

/// Where a patch lies in its case.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Placement {
    /// Voxel at the patch's middle.
    pub middle: Index,
    /// Voxels along each side.
    pub size: usize,
    /// Voxels of the case per voxel of the patch, `[z, y, x]`.
    pub scale: [f64; 3],
    /// Whether left and right are exchanged.
    pub mirrored: bool,
}

/// Which voxels an output coordinate is mixed from, along one axis.
#[derive(Debug, Clone, Copy)]
struct Tap {
    place: f64,
    low: usize,
    high: usize,
    nearest: usize,
    fraction: f32,
}

impl Placement {
    fn taps(&self, axis: usize, extent: usize) -> Vec<Tap> {
        let middle = [self.middle.z, self.middle.y, self.middle.x][axis] as f64;
        let step = if axis == 2 && self.mirrored { -self.scale[axis] } else { self.scale[axis] };
        let tap = |i: usize| {
            let place = middle + step * (i as f64 - (self.size / 2) as f64);
            let inside = place.clamp(0.0, (extent - 1) as f64);
            let low = inside as usize;
            let high = (low + 1).min(extent - 1);
            Tap { place, low, high, nearest: inside.round() as usize, fraction: (inside - low as f64) as f32 }
        };
        (0..self.size).map(tap).collect()
    }
}

/// Input and truth of one cube.
#[derive(Debug, Clone, PartialEq)]
pub struct Patch {
    /// Voxels along each side.
    pub size: usize,
    /// `[4, D, H, W]`: intensity, x, y, z.
    pub channels: Vec<f32>,
    /// Class of each voxel.
    pub sites: Vec<u8>,
    /// 1 inside an aneurysm.
    pub aneurysm: Vec<u8>,
    /// Class of each voxel of the tubes.
    pub tube: Vec<u8>,
}

impl Patch {
    fn empty(size: usize) -> Self {
        let voxels = size.pow(3);
        let bytes = || vec![0; voxels];
        Self { size, channels: vec![0.0; IN_CHANNELS * voxels], sites: bytes(), aneurysm: bytes(), tube: bytes() }
    }

    /// Weight of each aneurysm voxel, 0 elsewhere: an aneurysm of fewer than `full` voxels weighs
    /// as much as one of `full`.
    pub(super) fn aneurysm_weights(&self, full: f64) -> Vec<f32> {
        let sacs = label(&self.aneurysm, [self.size; 3], Connectivity::TwentySix);
        let weights: Vec<f32> = sacs.sizes.iter().map(|&size| (full / size as f64).max(1.0) as f32).collect();
        sacs.labels.iter().map(|&sac| sac.checked_sub(1).map_or(0.0, |sac| weights[sac as usize])).collect()
    }
}

/// A number below `n`, which is not 0.
pub(super) fn random_below(n: usize, rng: &mut impl Rng) -> usize {
    ((rng.random::<f64>() * n as f64) as usize).min(n - 1)
}

/// Dilation by the 6-neighbour cross.
fn dilate(mask: &[u8], shape: Shape) -> Vec<u8> {
    let mut grown = mask.to_vec();
    let (row, plane) = (shape.x, shape.x * shape.y);
    for (i, _) in mask.iter().enumerate().filter(|&(_, &v)| v != 0) {
        let at = shape.index(i);
        let neighbours = [
            (at.x > 0, i.wrapping_sub(1)),
            (at.x + 1 < shape.x, i + 1),
            (at.y > 0, i.wrapping_sub(row)),
            (at.y + 1 < shape.y, i + row),
            (at.z > 0, i.wrapping_sub(plane)),
            (at.z + 1 < shape.z, i + plane),
        ];
        neighbours.into_iter().filter(|n| n.0).for_each(|n| grown[n.1] = 1);
    }
    grown
}

#[cfg(test)]
pub(super) mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;
    use willis_core::SeriesMeta;
    use willis_core::image::Image;
    use willis_core::space::{Grid, Spacing};

    use super::*;

    /// A bright left MCA along x with a ball on it, 0.5 mm voxels.
    pub fn case(side: usize) -> TrainingCase {
        let affine = Affine::axis_aligned(Spacing::isotropic(0.5), Point::new(-10.0, 5.0, 20.0));
        let grid = Grid::new(Shape::new(side, side, side), affine);
        let middle = side as i64 / 2;
        let value = |i: usize| {
            let at = grid.shape.index(i);
            let (z, y, x) = (at.z as i64 - middle, at.y as i64 - middle, at.x as i64 - middle);
            (z * z + y * y <= 4, z * z + (y - 4).pow(2) + x * x <= 9)
        };
        let voxels: Vec<_> = (0..grid.shape.len()).map(value).collect();
        let site = Site::LeftMca.mask_value();
        TrainingCase {
            image: Image::new(grid, voxels.iter().map(|v| if v.0 || v.1 { 1.0 } else { 0.0 }).collect()),
            sites: Image::new(grid, voxels.iter().map(|v| if v.0 || v.1 { site } else { 0 }).collect()),
            aneurysm: Image::new(grid, voxels.iter().map(|v| u8::from(v.1 && !v.0)).collect()),
            lesions: vec![Lesion {
                centre: affine.to_world(Index::new(side / 2, side / 2 + 4, side / 2).into()),
                diameter_mm: Some(3.0),
                site: Site::LeftMca,
                neck: None,
                neck_width_mm: None,
            }],
            meta: SeriesMeta::default(),
        }
    }

    fn placement(middle: Index, mirrored: bool) -> Placement {
        Placement { middle, size: 8, scale: [1.0; 3], mirrored }
    }

    #[test]
    fn a_patch_is_its_part_of_the_case() {
        let case = case(24);
        let patch = PreparedCase::new(&case).cut(&placement(Index::new(12, 14, 10), false));
        for z in 0..8 {
            for y in 0..8 {
                for x in 0..8 {
                    let (from, to) = (Index::new(z + 8, y + 10, x + 6), (z * 8 + y) * 8 + x);
                    assert_eq!(patch.channels[to], *case.image.at(from));
                    assert_eq!(patch.sites[to], *case.sites.at(from));
                    assert_eq!(patch.aneurysm[to], *case.aneurysm.at(from));
                }
            }
        }
        // Voxel (12, 14, 10) against the centre (11.5, 11.5, 11.5): -0.75, 1.25, 0.25 mm.
        let at = (4 * 8 + 4) * 8 + 4;
        let coordinates = [1, 2, 3].map(|channel| patch.channels[channel * 512 + at] * 50.0);
        for (got, expected) in coordinates.into_iter().zip([-0.75, 1.25, 0.25]) {
            assert!((got - expected).abs() < 1e-5);
        }
    }

    #[test]
    fn a_mirrored_patch_is_of_the_other_side() {
        let prepared = PreparedCase::new(&case(24));
        let (plain, mirrored) = (
            prepared.cut(&placement(Index::new(12, 12, 12), false)),
            prepared.cut(&placement(Index::new(12, 12, 12), true)),
        );
        assert!(plain.sites.contains(&Site::LeftMca.mask_value()));
        assert!(mirrored.sites.contains(&Site::RightMca.mask_value()));
        assert!(!mirrored.sites.contains(&Site::LeftMca.mask_value()));
        let at = (4 * 8 + 4) * 8 + 4;
        assert_eq!(plain.channels[512 + at], -mirrored.channels[512 + at]);
        // One voxel to the right of the patch shows what lay one voxel to the left.
        assert_eq!(plain.channels[512 + at - 1], -mirrored.channels[512 + at + 1]);
    }

    #[test]
    fn small_aneurysms_weigh_as_much_as_larger_ones() {
        let mut patch = Patch::empty(8);
        patch.aneurysm[..4].fill(1);
        patch.aneurysm[256] = 1;
        let of = |full| {
            let weights = patch.aneurysm_weights(full);
            assert!(weights.iter().zip(&patch.aneurysm).all(|(&w, &a)| (w > 0.0) == (a != 0)));
            [weights[..4].iter().sum::<f32>(), weights[256]]
        };
        assert_eq!(of(3.0), [4.0, 3.0]);
        assert_eq!(of(12.0), [12.0, 12.0]);
        assert_eq!(of(0.0), [4.0, 1.0]);
    }

    #[test]
    fn patches_are_drawn_where_asked() {
        let prepared = PreparedCase::new(&case(40));
        let config = SampleConfig { patch: 8, at_aneurysm: 1.0, ..SampleConfig::default() };
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        for _ in 0..50 {
            let middle = prepared.draw_middle(&config, &mut rng);
            assert!(prepared.cut(&placement(middle, false)).aneurysm.contains(&1));
        }
    }

    #[test]
    fn aneurysms_on_the_grid_are_listed() {
        let mut case = case(40);
        let outside = Lesion { centre: Point::new(900.0, 0.0, 0.0), ..case.lesions[0].clone() };
        case.lesions.push(outside);
        let middle = Index::new(20, 24, 20);
        assert_eq!(PreparedCase::new(&case).lesions(), [(Site::LeftMca.mask_value(), middle)]);
    }

    #[test]
    fn tubes_lie_inside_the_vessel_and_along_it() {
        let prepared = PreparedCase::new(&case(24));
        let tubes = prepared.labels.iter().filter(|&&l| l & TUBE_BIT != 0).count();
        let vessels = prepared.labels.iter().filter(|&&l| l & CLASS_BITS != 0).count();
        assert!(tubes > 12 * 5 && tubes < vessels);
        assert!(prepared.labels.iter().all(|&l| l & TUBE_BIT == 0 || l & CLASS_BITS != 0));
    }
}
