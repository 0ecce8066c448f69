//! A series on the grid of a net: axes to Left, Inferior and Anterior, equal spacing, the head's
//! box, sides that the net takes.

use rayon::prelude::*;
use willis_core::{Grid, Image, Modality, Shape, Spacing, VoxelPoint};

use super::orient::left_inferior_anterior;
use crate::resample;

/// Most voxels of a series at the spacing of a net.
const MAX_VOXELS: f64 = (1u32 << 28) as f64;
/// Lowest and highest value of CT that a net trained on tissue contrasts sees, HU.
const CT_WINDOW_HU: [f32; 2] = [-200.0, 300.0];
/// Value of air, HU. Scanners store lower ones outside of their field of view.
const AIR_HU: f32 = -1024.0;
/// A lowest value in arbitrary units that lies farther below all others than this share of their
/// range is padding. Background of real images is not that far from their darkest tissue.
const PADDING_GAP: f32 = 0.5;

/// Why the brain of a series cannot be found.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum StripError {
    /// No voxel is finite and above air.
    #[error("the series has no voxel above air; check that it is an image of a head")]
    Empty,
    /// The affine is singular.
    #[error("the series has no valid position in space; check its orientation and spacing")]
    SingularPlace,
    /// The series would have more than 2^28 voxels at the net's spacing.
    #[error("a volume of {extent_mm:?} mm (x, y, z) is too large; check the spacing in the header")]
    TooLarge {
        /// Extent along x, y, z, mm.
        extent_mm: [f64; 3],
    },
}

/// What the values of a series mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StripUnits {
    /// Hounsfield units (CT).
    Hounsfield,
    /// Arbitrary units with air near 0 (MR).
    Arbitrary,
}

impl StripUnits {
    /// Units by modality; by the lowest value, -200 HU, if it is unknown.
    pub fn of(modality: Option<Modality>, lowest: f32) -> Self {
        match modality {
            Some(Modality::Cta) => Self::Hounsfield,
            Some(_) => Self::Arbitrary,
            None if lowest < CT_WINDOW_HU[0] => Self::Hounsfield,
            None => Self::Arbitrary,
        }
    }
}

/// How a net samples a series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StripSampling {
    /// As FreeSurfer: the nearest voxel, and CT shifted to start at 0.
    Published,
    /// Averaged before it is sampled, and CT cut to the contrasts of soft tissue.
    Averaged,
}

/// Grid of a net.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StripGrid {
    /// Distance between voxels along every axis, mm.
    pub spacing_mm: f64,
    /// What every side must be a multiple of.
    pub multiple: usize,
    /// Shortest side, a multiple of [`Self::multiple`].
    pub shortest: usize,
    /// Longest side, a multiple of [`Self::multiple`]; what is longer is cropped evenly.
    pub longest: usize,
    /// Sampling.
    pub sampling: StripSampling,
}

impl StripGrid {
    /// The grid of the published net.
    pub const PUBLISHED: Self =
        Self { spacing_mm: 1.0, multiple: 64, shortest: 192, longest: 320, sampling: StripSampling::Published };

    /// The grid of a net of ours; no side is longer than 320 mm.
    pub fn averaged(spacing_mm: f64, multiple: usize) -> Self {
        let longest = ((320.0 / spacing_mm) as usize / multiple).max(1) * multiple;
        Self { spacing_mm, multiple, shortest: multiple, longest, sampling: StripSampling::Averaged }
    }

    fn side(&self, n: usize) -> usize {
        (n.div_ceil(self.multiple) * self.multiple).clamp(self.shortest, self.longest)
    }
}

/// The series on the grid of a net, air at 0; not yet normalised.
///
/// # Errors
/// [`StripError`] when the series has no place, nothing above air, or is absurdly large.
pub fn conform(image: &Image<f32>, units: StripUnits, net: &StripGrid) -> Result<Image<f32>, StripError> {
    image.grid.affine.inverse().ok_or(StripError::SingularPlace)?;
    let sampled = at_spacing(&left_inferior_anterior(&above_air(image, units, net.sampling)), net)?;
    let [low, high] = bounds(&sampled).ok_or(StripError::Empty)?;
    let axis = |low: usize, high: usize| Side::new(low, high + 1 - low, net.side(high + 1 - low));
    let [z, y, x] = [0, 1, 2].map(|a| axis(low[a], high[a]));
    let shape = Shape::new(z.length, y.length, x.length);
    let start = VoxelPoint::new(z.start as f64, y.start as f64, x.start as f64);
    let affine = sampled.grid.affine.sub_grid(start, VoxelPoint::new(1.0, 1.0, 1.0));
    let mut conformed = Image::filled(Grid::new(shape, affine), 0.0f32);
    let from = sampled.grid.shape;
    for k in z.inside(from.z) {
        for j in y.inside(from.y) {
            let columns = x.inside(from.x);
            let source = (z.source(k) * from.y + y.source(j)) * from.x + x.source(columns.start);
            let target = (k * shape.y + j) * shape.x;
            let length = columns.len();
            conformed.voxels[target + columns.start..][..length].copy_from_slice(&sampled.voxels[source..][..length]);
        }
    }
    Ok(conformed)
}

/// One axis of the box: `length` voxels from `start`, of which those of the head's box are kept.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Side {
    start: isize,
    length: usize,
    /// First voxel of the head's box and its length.
    low: usize,
    extent: usize,
}

impl Side {
    /// Pads or crops a box evenly; an odd voxel is added at the end and taken from the end.
    fn new(low: usize, extent: usize, length: usize) -> Self {
        let missing = length as isize - extent as isize;
        // Division rounds towards 0, as surfa's does for padding and for cropping.
        Self { start: low as isize - missing / 2, length, low, extent }
    }

    /// Voxels of the result that lie in the head's box.
    fn inside(&self, available: usize) -> std::ops::Range<usize> {
        let end = (self.low + self.extent).min(available) as isize;
        let at = |source: isize| (source - self.start).clamp(0, self.length as isize) as usize;
        at(self.low as isize)..at(end)
    }

    /// Source voxel of a voxel of the result inside of the box.
    fn source(&self, at: usize) -> usize {
        (self.start + at as isize) as usize
    }
}

/// Values with air at 0; what is not finite becomes air.
fn above_air(image: &Image<f32>, units: StripUnits, sampling: StripSampling) -> Image<f32> {
    let [low, high, air] = match (units, sampling) {
        // FreeSurfer takes MR as it is.
        (StripUnits::Arbitrary, StripSampling::Published) => [f32::NEG_INFINITY, f32::INFINITY, 0.0],
        (StripUnits::Arbitrary, StripSampling::Averaged) => {
            let air = darkest(&image.voxels);
            [air, f32::INFINITY, air]
        }
        (StripUnits::Hounsfield, StripSampling::Published) => [AIR_HU, f32::INFINITY, AIR_HU],
        (StripUnits::Hounsfield, StripSampling::Averaged) => [CT_WINDOW_HU[0], CT_WINDOW_HU[1], CT_WINDOW_HU[0]],
    };
    let value = |&v: &f32| if v.is_finite() { v.clamp(low, high) - air } else { 0.0 };
    Image::new(image.grid, image.voxels.par_iter().map(value).collect())
}

/// Lowest value that is not padding; 0 without a finite value. Images with an offset, or scaled to a
/// mean of 0, have their air there.
fn darkest(voxels: &[f32]) -> f32 {
    // The lowest value, the next above it, and the highest.
    let seen = |[low, next, high]: [f32; 3], v: f32| {
        if v < low { [v, low, high.max(v)] } else { [low, if v > low { next.min(v) } else { next }, high.max(v)] }
    };
    let none = [f32::INFINITY, f32::INFINITY, f32::NEG_INFINITY];
    let [low, next, high] = voxels.iter().copied().filter(|v| v.is_finite()).fold(none, seen);
    if !low.is_finite() {
        0.0
    } else if low < 0.0 && next < high && next - low > PADDING_GAP * (high - next) {
        next
    } else {
        low
    }
}

/// The image at the net's spacing, the number of voxels rounded up. FreeSurfer keeps the place of
/// voxel `n / 2`; averaging keeps the middle of the image, so that no voxel at a border is lost.
fn at_spacing(image: &Image<f32>, net: &StripGrid) -> Result<Image<f32>, StripError> {
    let (shape, spacing) = (image.grid.shape.zyx(), image.grid.spacing().zyx());
    let sides: [f64; 3] =
        std::array::from_fn(|a| (shape[a] as f64 * spacing[a] / net.spacing_mm - 1e-6).ceil().max(1.0));
    if sides.iter().product::<f64>().partial_cmp(&MAX_VOXELS).is_none_or(std::cmp::Ordering::is_gt) {
        let Spacing { z, y, x } = image.grid.spacing();
        let Shape { z: nz, y: ny, x: nx } = image.grid.shape;
        return Err(StripError::TooLarge { extent_mm: [x * nx as f64, y * ny as f64, z * nz as f64] });
    }
    let to = sides.map(|side| side as usize);
    let step: [f64; 3] = std::array::from_fn(|a| net.spacing_mm / spacing[a]);
    // Position in the image of the first voxel of the result.
    let half_a_voxel = match net.sampling {
        StripSampling::Published => 0.0,
        StripSampling::Averaged => 0.5,
    };
    let middle = |sides: [usize; 3], a: usize| sides[a] as f64 / 2.0 - half_a_voxel;
    let start: [f64; 3] = std::array::from_fn(|a| middle(shape, a) - step[a] * middle(to, a));
    let affine = image
        .grid
        .affine
        .sub_grid(VoxelPoint::new(start[0], start[1], start[2]), VoxelPoint::new(step[0], step[1], step[2]));
    let grid = Grid::new(Shape::new(to[0], to[1], to[2]), affine);
    if net.sampling == StripSampling::Averaged {
        return Ok(resample::area(image, &grid, 0.0));
    }
    let taps: [Vec<Option<usize>>; 3] = std::array::from_fn(|a| {
        let nearest = |k: usize| (start[a] + step[a] * k as f64).round();
        (0..to[a]).map(|k| (0.0..shape[a] as f64).contains(&nearest(k)).then(|| nearest(k) as usize)).collect()
    });
    let mut sampled = Image::filled(grid, 0.0f32);
    sampled.voxels.par_chunks_mut(to[2]).enumerate().for_each(|(row, voxels)| {
        let (Some(z), Some(y)) = (taps[0][row / to[1]], taps[1][row % to[1]]) else { return };
        let source = (z * shape[1] + y) * shape[2];
        for (voxel, x) in voxels.iter_mut().zip(&taps[2]) {
            *voxel = x.map_or(0.0, |x| image.voxels[source + x]);
        }
    });
    Ok(sampled)
}

/// First and last voxel above 0 along each axis.
fn bounds(image: &Image<f32>) -> Option<[[usize; 3]; 2]> {
    let shape = image.grid.shape;
    let (mut low, mut high) = ([usize::MAX; 3], [0; 3]);
    for (row, voxels) in image.voxels.chunks(shape.x).enumerate() {
        let Some(first) = voxels.iter().position(|&v| v > 0.0) else { continue };
        let last = voxels.iter().rposition(|&v| v > 0.0).unwrap_or(first);
        let (z, y) = (row / shape.y, row % shape.y);
        low = [low[0].min(z), low[1].min(y), low[2].min(first)];
        high = [high[0].max(z), high[1].max(y), high[2].max(last)];
    }
    (low[0] != usize::MAX).then_some([low, high])
}

#[cfg(test)]
mod tests {
    use willis_core::{Affine, Point};

    use super::*;

    fn image(shape: Shape, spacing: Spacing, voxels: impl Fn(usize) -> f32) -> Image<f32> {
        let grid = Grid::new(shape, Affine::axis_aligned(spacing, Point::new(3.0, 5.0, 7.0)));
        Image::new(grid, (0..shape.len()).map(voxels).collect())
    }

    fn small() -> StripGrid {
        StripGrid { spacing_mm: 1.0, multiple: 4, shortest: 4, longest: 8, sampling: StripSampling::Published }
    }

    #[test]
    fn sides_are_padded_and_cropped_evenly() {
        // (low, extent, length): first voxel, voxels of the result inside of the box.
        for (low, extent, length, start, inside) in
            [(2, 5, 8, 1, 1..6), (2, 6, 8, 1, 1..7), (0, 11, 8, 1, 0..8), (3, 12, 8, 5, 0..8)]
        {
            let side = Side::new(low, extent, length);
            assert_eq!((side.start, side.inside(20)), (start, inside), "{low} {extent} {length}");
        }
    }

    #[test]
    fn every_conformed_voxel_is_the_voxel_at_its_place() {
        let series = image(Shape::new(5, 6, 7), Spacing::isotropic(1.0), |i| if i % 7 == 0 { 0.0 } else { i as f32 });
        let conformed = conform(&series, StripUnits::Arbitrary, &small()).unwrap();
        assert_eq!(conformed.grid.shape.zyx(), [8, 8, 8]);
        let mut seen = 0;
        for offset in 0..512 {
            let at = conformed.grid.shape.index(offset);
            let from = series.grid.affine.to_voxel(conformed.grid.affine.to_world(at.into())).unwrap();
            if series.grid.shape.contains(from) {
                assert_eq!(conformed.voxels[offset], *series.at(series.grid.shape.nearest(from)));
                seen += 1;
            }
        }
        assert_eq!(seen, 5 * 6 * 7);
    }

    #[test]
    fn coarse_slices_are_repeated_by_nearest_sampling() {
        let series = image(Shape::new(3, 4, 4), Spacing::new(2.0, 1.0, 1.0), |i| 1.0 + (i / 16) as f32);
        let conformed = conform(&series, StripUnits::Arbitrary, &small()).unwrap();
        assert_eq!(conformed.grid.shape.zyx(), [4, 8, 4]);
        // Rows run to Inferior. Six of 1 mm lie at 0, 0.5, 1, 1.5, 2, 2.5 of three slices: halves
        // are rounded up, the last is outside. The five that are left are padded to eight.
        let column: Vec<f32> = (0..8).map(|y| conformed.voxels[(2 * 8 + y) * 4 + 1]).collect();
        assert_eq!(column, [0.0, 3.0, 2.0, 2.0, 1.0, 1.0, 0.0, 0.0]);
    }

    #[test]
    fn air_is_the_darkest_value_that_is_not_padding() {
        for (values, expected) in [
            (&[0.0, 5.0, 9.0][..], 0.0),
            (&[3.0, 5.0, 9.0], 3.0),
            (&[-1.2, -1.0, 0.0, 2.5, f32::NAN], -1.2),
            (&[-2048.0, -2048.0, -1.0, 0.0, 900.0], -1.0),
            (&[-2048.0, 7.0], -2048.0),
            (&[f32::NAN], 0.0),
        ] {
            assert_eq!(darkest(values), expected, "{values:?}");
        }
        // An offset changes nothing, and the last slice of an odd number is seen: it is averaged with
        // the one before it.
        let averaged = StripGrid { spacing_mm: 2.0, sampling: StripSampling::Averaged, ..small() };
        let slab = |offset: f32| image(Shape::new(3, 4, 4), Spacing::isotropic(1.0), move |i| offset + (i / 16) as f32);
        let [plain, raised] = [0.0, 1000.0].map(|v| conform(&slab(v), StripUnits::Arbitrary, &averaged).unwrap());
        assert_eq!(plain, raised);
        let highest = plain.voxels.iter().copied().fold(0.0, f32::max);
        assert_eq!(highest, 1.5);
    }

    #[test]
    fn ct_is_shifted_before_the_box_is_taken() {
        let series = image(Shape::new(4, 4, 4), Spacing::isotropic(1.0), |i| if i < 32 { -2000.0 } else { -1000.0 });
        let conformed = conform(&series, StripUnits::Hounsfield, &small()).unwrap();
        let mut values = conformed.voxels.clone();
        values.dedup();
        assert!(values.iter().all(|v| [0.0, 24.0].contains(v)), "{values:?}");
        let averaged = StripGrid { sampling: StripSampling::Averaged, ..small() };
        assert_eq!(conform(&series, StripUnits::Hounsfield, &averaged), Err(StripError::Empty));
        assert_eq!(StripUnits::of(None, -1000.0), StripUnits::Hounsfield);
        assert_eq!(StripUnits::of(Some(Modality::T2), -1000.0), StripUnits::Arbitrary);
    }

    #[test]
    fn unusable_series_are_errors() {
        let air = image(Shape::new(2, 2, 2), Spacing::isotropic(1.0), |_| f32::NAN);
        assert_eq!(conform(&air, StripUnits::Arbitrary, &small()), Err(StripError::Empty));
        let vast = image(Shape::new(2, 2, 2), Spacing::isotropic(1e5), |_| 1.0);
        assert!(matches!(conform(&vast, StripUnits::Arbitrary, &small()), Err(StripError::TooLarge { .. })));
        let mut flat = image(Shape::new(2, 2, 2), Spacing::isotropic(1.0), |_| 1.0);
        flat.grid.affine.0[2] = flat.grid.affine.0[1];
        assert_eq!(conform(&flat, StripUnits::Arbitrary, &small()), Err(StripError::SingularPlace));
    }
}
