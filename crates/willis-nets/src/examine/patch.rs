//! Patches around candidates: how they are cut from a vessel map and turned into the net's input.

use half::f16;
use willis_core::{Image, Index, Point, VesselMap, VoxelPoint};
use willis_kernels::distance::squared_distance_mm2;

/// Side of the net's patch, voxels.
pub const SIDE: usize = 48;
/// Channels of the net's input: intensity, vessel and aneurysm probability, signed distance to the
/// vessel wall, distance to the central voxel.
pub const IN_CHANNELS: usize = 5;
/// Channels cut from the map: intensity, vessel probability, aneurysm probability.
pub const STORED_CHANNELS: usize = 3;

/// Unit of the signed distance to the vessel wall, which is clamped to [-1, 1], mm.
const WALL_MM: f32 = 8.0;

/// Unit of the distance to the central voxel, mm.
const RADIUS_MM: f64 = 15.0;

/// A cube cut from a vessel map. Its central voxel, `side / 2` on each axis, is the voxel nearest
/// to a candidate's centre.
#[derive(Debug, Clone, PartialEq)]
pub struct CandidatePatch {
    /// Side of the cube, voxels.
    pub side: usize,
    /// Intensity, vessel and aneurysm probability, `[3, side, side, side]`.
    pub values: Vec<f16>,
    /// Position of the central voxel on the map's grid; may be outside it.
    pub middle: VoxelPoint,
}

/// Cuts the cube around a point, given in LPS mm. Voxels outside the grid are 0. `None` if the grid
/// or the point is degenerate.
pub fn patch(map: &VesselMap, centre: Point, side: usize) -> Option<CandidatePatch> {
    let grid = map.vessel.grid;
    let place = grid.affine.to_voxel(centre).filter(|p| p.z.is_finite() && p.y.is_finite() && p.x.is_finite())?;
    let middle = VoxelPoint::new(place.z.round(), place.y.round(), place.x.round());
    let voxels = side.pow(3);
    let mut values = vec![f16::ZERO; STORED_CHANNELS * voxels];
    let images: [&Image<f32>; STORED_CHANNELS] = [&map.source.image, &map.vessel, &map.aneurysm];
    // Voxels of an axis that are on the grid, as (index in the patch, index on the grid).
    let along = |middle: f64, n: usize| {
        let start = middle - (side / 2) as f64;
        (0..side).filter_map(move |i| {
            let at = start + i as f64;
            (at >= 0.0 && at < n as f64).then_some((i, at as usize))
        })
    };
    for (pz, z) in along(middle.z, grid.shape.z) {
        for (py, y) in along(middle.y, grid.shape.y) {
            for (px, x) in along(middle.x, grid.shape.x) {
                let to = (pz * side + py) * side + px;
                let from = grid.shape.offset(Index::new(z, y, x));
                for (channel, image) in images.iter().enumerate() {
                    values[channel * voxels + to] = f16::from_f32(image.voxels[from]);
                }
            }
        }
    }
    Some(CandidatePatch { side, values, middle })
}

/// Adds the signed distance to the vessel wall, positive inside, and the distance to the central
/// voxel.
///
/// # Shapes
/// channels `[3, 48, 48, 48]` -> `[5, 48, 48, 48]`
/// # Units
/// spacing z, y, x in mm
pub fn with_distances(mut channels: Vec<f32>, spacing_mm: [f64; 3]) -> Vec<f32> {
    let voxels = SIDE.pow(3);
    let lumen: Vec<u8> = channels[voxels..2 * voxels].iter().map(|&p| u8::from(p >= 0.5)).collect();
    let outside: Vec<u8> = lumen.iter().map(|&v| 1 - v).collect();
    let distances = |mask: &[u8]| squared_distance_mm2(mask, [SIDE; 3], spacing_mm);
    let signed = distances(&lumen).into_iter().zip(distances(&outside)).map(|(to_wall, to_lumen)| {
        ((to_wall.sqrt().min(WALL_MM) - to_lumen.sqrt().min(WALL_MM)) / WALL_MM).clamp(-1.0, 1.0)
    });
    channels.extend(signed);
    let along = |i: usize, mm: f64| ((i as f64 - (SIDE / 2) as f64) * mm).powi(2);
    let radius = |i: usize| {
        let squares = along(i / SIDE / SIDE, spacing_mm[0])
            + along(i / SIDE % SIDE, spacing_mm[1])
            + along(i % SIDE, spacing_mm[2]);
        (squares.sqrt() / RADIUS_MM) as f32
    };
    channels.extend((0..voxels).map(radius));
    debug_assert_eq!(channels.len(), IN_CHANNELS * voxels);
    channels
}

/// Input of the net for a patch of side [`SIDE`], `[5, 48, 48, 48]`.
pub fn input(patch: &CandidatePatch, spacing_mm: [f64; 3]) -> Vec<f32> {
    with_distances(patch.values.iter().map(|v| v.to_f32()).collect(), spacing_mm)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::sync::Arc;
    use willis_core::{Affine, Grid, HarmonisedVolume, SeriesMeta, Shape, Spacing, Volume};

    /// A dark volume with bright balls `(centre, radius)` that are both vessel and aneurysm.
    pub fn map(balls: &[(Point, f64)]) -> VesselMap {
        let grid =
            Grid::new(Shape::new(60, 60, 60), Affine::axis_aligned(Spacing::isotropic(0.8), Point::new(0.0, 0.0, 0.0)));
        let value = |offset| {
            let p = grid.affine.to_world(grid.shape.index(offset).into());
            f32::from(balls.iter().any(|(centre, radius)| p.distance_mm(*centre) <= *radius))
        };
        let image = Image::new(grid, (0..grid.shape.len()).map(value).collect());
        let meta = SeriesMeta::default();
        let source = Volume { image: image.clone(), meta: meta.clone(), findings: vec![] };
        VesselMap {
            vessel: image.clone(),
            aneurysm: image.clone(),
            site: Image::filled(grid, 0),
            source: Arc::new(HarmonisedVolume { image, meta, source: Arc::new(source), findings: vec![] }),
        }
    }

    #[test]
    fn the_point_is_the_central_voxel_and_other_voxels_keep_their_values() {
        let centre = Point::new(16.1, 8.0, 4.0);
        let patch = patch(&map(&[(centre, 0.5)]), centre, SIDE).unwrap();
        assert_eq!((patch.middle.z, patch.middle.y, patch.middle.x), (5.0, 10.0, 20.0));
        let middle = ((SIDE / 2) * SIDE + SIDE / 2) * SIDE + SIDE / 2;
        let bright: Vec<usize> = (0..SIDE.pow(3)).filter(|&i| patch.values[i].to_f32() > 0.0).collect();
        assert_eq!(bright, [middle]);
        let input = input(&patch, [0.8; 3]);
        assert_eq!(input.len(), IN_CHANNELS * SIDE.pow(3));
        // The only vessel voxel is 0.8 mm from the nearest other voxel.
        assert!((input[3 * SIDE.pow(3) + middle] - 0.1).abs() < 1e-6);
        assert!((input[3 * SIDE.pow(3) + middle + 2] + 0.2).abs() < 1e-6);
        assert_eq!(input[4 * SIDE.pow(3) + middle], 0.0);
    }

    #[test]
    fn without_a_vessel_the_wall_distance_is_minus_1() {
        let patch = patch(&map(&[]), Point::new(-500.0, 0.0, 0.0), SIDE).unwrap();
        let input = input(&patch, [0.8; 3]);
        assert!(input[3 * SIDE.pow(3)..4 * SIDE.pow(3)].iter().all(|&v| v == -1.0));
    }
}
