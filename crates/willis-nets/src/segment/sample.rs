//! Training patches: where they are drawn, and how they are cut from a case.

use std::path::Path;

use half::f16;
use rand::{Rng, RngExt};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use willis_core::files::FileError;
use willis_core::space::{Affine, Index, Point, Shape, VoxelPoint};
use willis_core::{InvalidValue, Lesion, Site, TrainingCase};
use willis_kernels::components::{Connectivity, label};
use willis_kernels::thinning::skeletonize;

use super::net::{COORDINATE_MM, IN_CHANNELS};
use crate::loss::segmentation::CLASSES;
use crate::rules::{at_least_one, fraction, require};

/// How patches are drawn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SampleConfig {
    /// Side of the cubic patch in voxels, a multiple of 32.
    pub patch: usize,
    /// Patches per batch.
    pub batch: usize,
    /// Share of patches at an aneurysm, in cases that have one.
    pub at_aneurysm: f64,
    /// Share of patches on a vessel; every site of the case is equally likely.
    pub at_vessel: f64,
    /// How the aneurysm of a patch is chosen.
    pub aneurysms: AneurysmDraw,
}

/// How the aneurysm of a patch is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AneurysmDraw {
    /// A case, then one of its aneurysm voxels: common sites and large sacs are drawn most often.
    ByCase,
    /// A site, then one of the aneurysms there: every site is equally likely, and so are small and
    /// large sacs.
    BySite,
}

impl Default for SampleConfig {
    fn default() -> Self {
        Self { patch: 64, batch: 2, at_aneurysm: 1.0 / 3.0, at_vessel: 1.0 / 3.0, aneurysms: AneurysmDraw::ByCase }
    }
}

impl SampleConfig {
    /// Checks every value.
    ///
    /// # Errors
    /// [`InvalidValue`] names the first value that breaks its rule.
    pub fn validate(&self) -> Result<(), InvalidValue> {
        let whole = self.patch > 0 && self.patch.is_multiple_of(32);
        require("patch", self.patch, whole, "must be a positive multiple of 32")?;
        at_least_one("batch", self.batch)?;
        fraction("at_aneurysm", self.at_aneurysm)?;
        fraction("at_vessel", self.at_vessel)?;
        let rest = 1.0 - self.at_aneurysm;
        require(
            "at_vessel",
            self.at_vessel,
            // A sum of 1 may be rounded up.
            self.at_vessel <= rest + 1e-9,
            &format!("must not exceed 1 - at_aneurysm = {rest}"),
        )
    }
}

/// A case packed into three bytes per voxel, with lists of the voxels that patches are drawn at.
#[derive(Debug, Clone)]
pub struct PackedCase {
    pub(super) shape: Shape,
    affine: Affine,
    centre: Point,
    image: Vec<f16>,
    /// Class in the four low bits, then one bit for the aneurysm and one for the tube.
    labels: Vec<u8>,
    aneurysm_voxels: Vec<u32>,
    /// Class and central voxel of every aneurysm on the grid.
    lesions: Vec<(u8, Index)>,
    site_voxels: Vec<Vec<u32>>,
}

const CLASS_BITS: u8 = 0x0f;
const ANEURYSM_BIT: u8 = 0x10;
const TUBE_BIT: u8 = 0x20;
/// Length of a list of voxels to draw from; longer lists are thinned out evenly.
const LIST_LEN: usize = 2048;

impl PackedCase {
    /// Reads and packs the case in a folder.
    ///
    /// # Errors
    /// [`FileError`] when the folder holds no readable case.
    pub fn load(folder: &Path) -> Result<Self, FileError> {
        Ok(Self::new(&willis_core::files::case::load(folder)?))
    }

    /// Packs a case and computes its tubes: the skeleton of all vessels, dilated twice and
    /// restricted to vessel voxels.
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

    /// Class and central voxel of each aneurysm on the grid.
    pub(super) fn lesions(&self) -> &[(u8, Index)] {
        &self.lesions
    }

    /// Central voxel of a randomly drawn patch.
    pub(super) fn draw_middle(&self, config: &SampleConfig, rng: &mut impl Rng) -> Index {
        let draw = rng.random::<f64>();
        let pick = |list: &[u32], rng: &mut _| self.shape.index(list[random_below(list.len(), rng)] as usize);
        let found = if draw < config.at_aneurysm && self.has_aneurysm() {
            pick(&self.aneurysm_voxels, rng)
        } else if draw < config.at_aneurysm + config.at_vessel && !self.site_voxels.is_empty() {
            let list = &self.site_voxels[random_below(self.site_voxels.len(), rng)];
            pick(list, rng)
        } else {
            self.shape.index(random_below(self.shape.len(), rng))
        };
        self.jittered(found, config.patch, rng)
    }

    /// A random central voxel for a patch that shows `found` within a quarter of its side from the
    /// centre.
    pub(super) fn jittered(&self, found: Index, patch: usize, rng: &mut impl Rng) -> Index {
        let quarter = patch as i64 / 4;
        let mut moved = |v: usize, n: usize| {
            let by = random_below(2 * quarter as usize + 1, rng) as i64 - quarter;
            (v as i64 + by).clamp(0, n as i64 - 1) as usize
        };
        Index::new(moved(found.z, self.shape.z), moved(found.y, self.shape.y), moved(found.x, self.shape.x))
    }

    /// Cuts a patch: intensities by trilinear interpolation, labels of the nearest voxel. Outside
    /// the volume the border voxels are repeated.
    pub(super) fn cut(&self, placement: &PatchPlacement) -> LabelledPatch {
        let n = placement.size;
        let axes = [0, 1, 2].map(|axis| placement.taps(axis, self.shape.zyx()[axis]));
        let row_len = self.shape.x;
        let mut patch = LabelledPatch::empty(n);
        let slices: Vec<_> = (0..n)
            .into_par_iter()
            .map(|z| {
                let mut slice = PatchSlice { channels: vec![0.0; IN_CHANNELS * n * n], labels: vec![0; n * n] };
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
                        slice.channels[i] = value;
                        let label = self.labels[self.shape.offset(Index::new(tz.nearest, ty.nearest, tx.nearest))];
                        slice.labels[i] = if placement.mirrored { mirror(label) } else { label };
                        let p = self.affine.to_world(VoxelPoint::new(tz.place, ty.place, tx.place));
                        let side = if placement.mirrored { -1.0 } else { 1.0 };
                        let offset = [side * (p.x - self.centre.x), p.y - self.centre.y, p.z - self.centre.z];
                        for (axis, mm) in offset.into_iter().enumerate() {
                            slice.channels[(axis + 1) * n * n + i] = (mm / COORDINATE_MM) as f32;
                        }
                    }
                }
                slice
            })
            .collect();
        for (z, slice) in slices.into_iter().enumerate() {
            for (channel, values) in slice.channels.chunks_exact(n * n).enumerate() {
                patch.channels[(channel * n + z) * n * n..][..n * n].copy_from_slice(values);
            }
            for (i, label) in slice.labels.into_iter().enumerate() {
                let voxel = z * n * n + i;
                patch.sites[voxel] = label & CLASS_BITS;
                patch.aneurysm[voxel] = u8::from(label & ANEURYSM_BIT != 0);
                patch.tube[voxel] = if label & TUBE_BIT != 0 { label & CLASS_BITS } else { 0 };
            }
        }
        patch
    }
}

/// One slice of a patch along z.
struct PatchSlice {
    /// `[4, H, W]`.
    channels: Vec<f32>,
    labels: Vec<u8>,
}

/// A packed label with its site moved to the other side of the head.
fn mirror(label: u8) -> u8 {
    let class = label & CLASS_BITS;
    label & !CLASS_BITS | Site::from_mask_value(class).map_or(0, |site| site.mirror().mask_value())
}

/// Position, scale and orientation of a patch in its case.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct PatchPlacement {
    /// Voxel of the case at the centre of the patch.
    pub middle: Index,
    /// Side of the patch, voxels.
    pub size: usize,
    /// Voxels of the case per voxel of the patch along `[z, y, x]`.
    pub scale: [f64; 3],
    /// Whether left and right are exchanged.
    pub mirrored: bool,
}

/// Voxels along one axis of the case from which a coordinate of the patch is interpolated.
#[derive(Debug, Clone, Copy)]
struct InterpolationTap {
    /// Coordinate in the case; may be outside it.
    place: f64,
    low: usize,
    high: usize,
    nearest: usize,
    /// Weight of `high`.
    fraction: f32,
}

impl PatchPlacement {
    /// Taps of every voxel of the patch along an axis of `extent` voxels.
    fn taps(&self, axis: usize, extent: usize) -> Vec<InterpolationTap> {
        let middle = [self.middle.z, self.middle.y, self.middle.x][axis] as f64;
        let step = if axis == 2 && self.mirrored { -self.scale[axis] } else { self.scale[axis] };
        let tap = |i: usize| {
            let place = middle + step * (i as f64 - (self.size / 2) as f64);
            let inside = place.clamp(0.0, (extent - 1) as f64);
            let low = inside as usize;
            let high = (low + 1).min(extent - 1);
            InterpolationTap {
                place,
                low,
                high,
                nearest: inside.round() as usize,
                fraction: (inside - low as f64) as f32,
            }
        };
        (0..self.size).map(tap).collect()
    }
}

/// Input of the net and labels on one cube.
#[derive(Debug, Clone, PartialEq)]
pub struct LabelledPatch {
    /// Side of the cube, voxels.
    pub size: usize,
    /// `[4, D, H, W]`: intensity and coordinates x, y, z.
    pub channels: Vec<f32>,
    /// Class of each voxel.
    pub sites: Vec<u8>,
    /// 1 inside an aneurysm, else 0.
    pub aneurysm: Vec<u8>,
    /// Class of each tube voxel, 0 elsewhere.
    pub tube: Vec<u8>,
}

impl LabelledPatch {
    pub(super) fn empty(size: usize) -> Self {
        let voxels = size.pow(3);
        let bytes = || vec![0; voxels];
        Self { size, channels: vec![0.0; IN_CHANNELS * voxels], sites: bytes(), aneurysm: bytes(), tube: bytes() }
    }

    /// Weight of each aneurysm voxel, 0 elsewhere. The voxels of an aneurysm with fewer than `full`
    /// voxels together weigh as much as `full` voxels of weight 1.
    pub(super) fn aneurysm_weights(&self, full: f64) -> Vec<f32> {
        let sacs = label(&self.aneurysm, [self.size; 3], Connectivity::TwentySix);
        let weights: Vec<f32> = sacs.sizes.iter().map(|&size| (full / size as f64).max(1.0) as f32).collect();
        sacs.labels.iter().map(|&sac| sac.checked_sub(1).map_or(0.0, |sac| weights[sac as usize])).collect()
    }
}

/// A uniform random number below `n`, which must not be 0.
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

    fn placement(middle: Index, mirrored: bool) -> PatchPlacement {
        PatchPlacement { middle, size: 8, scale: [1.0; 3], mirrored }
    }

    #[test]
    fn an_unscaled_patch_is_a_crop_of_the_case() {
        let case = case(24);
        let patch = PackedCase::new(&case).cut(&placement(Index::new(12, 14, 10), false));
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
    fn a_mirrored_patch_shows_the_sites_of_the_other_side() {
        let packed = PackedCase::new(&case(24));
        let (plain, mirrored) = (
            packed.cut(&placement(Index::new(12, 12, 12), false)),
            packed.cut(&placement(Index::new(12, 12, 12), true)),
        );
        assert!(plain.sites.contains(&Site::LeftMca.mask_value()));
        assert!(mirrored.sites.contains(&Site::RightMca.mask_value()));
        assert!(!mirrored.sites.contains(&Site::LeftMca.mask_value()));
        let at = (4 * 8 + 4) * 8 + 4;
        assert_eq!(plain.channels[512 + at], -mirrored.channels[512 + at]);
        // What lies one voxel to the right in the plain patch lies one voxel to the left here.
        assert_eq!(plain.channels[512 + at - 1], -mirrored.channels[512 + at + 1]);
    }

    #[test]
    fn small_aneurysms_are_weighted_up_to_the_given_size() {
        let mut patch = LabelledPatch::empty(8);
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
    fn patches_at_an_aneurysm_show_it() {
        let packed = PackedCase::new(&case(40));
        let config = SampleConfig { patch: 8, at_aneurysm: 1.0, ..SampleConfig::default() };
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        for _ in 0..50 {
            let middle = packed.draw_middle(&config, &mut rng);
            assert!(packed.cut(&placement(middle, false)).aneurysm.contains(&1));
        }
    }

    #[test]
    fn invalid_values_are_named() {
        SampleConfig::default().validate().unwrap();
        for (config, message) in [
            (SampleConfig { patch: 48, ..SampleConfig::default() }, "patch = 48 must be a positive multiple of 32"),
            (SampleConfig { batch: 0, ..SampleConfig::default() }, "batch = 0 must be at least 1"),
            (
                SampleConfig { at_aneurysm: 0.5, at_vessel: 0.75, ..SampleConfig::default() },
                "at_vessel = 0.75 must not exceed 1 - at_aneurysm = 0.5",
            ),
        ] {
            assert_eq!(config.validate().unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn aneurysms_on_the_grid_are_listed() {
        let mut case = case(40);
        let outside = Lesion { centre: Point::new(900.0, 0.0, 0.0), ..case.lesions[0].clone() };
        case.lesions.push(outside);
        let middle = Index::new(20, 24, 20);
        assert_eq!(PackedCase::new(&case).lesions(), [(Site::LeftMca.mask_value(), middle)]);
    }

    #[test]
    fn tubes_lie_inside_the_vessel_and_along_it() {
        let packed = PackedCase::new(&case(24));
        let tubes = packed.labels.iter().filter(|&&l| l & TUBE_BIT != 0).count();
        let vessels = packed.labels.iter().filter(|&&l| l & CLASS_BITS != 0).count();
        assert!(tubes > 12 * 5 && tubes < vessels);
        assert!(packed.labels.iter().all(|&l| l & TUBE_BIT == 0 || l & CLASS_BITS != 0));
    }
}
