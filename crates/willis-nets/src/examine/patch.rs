//! Patches around candidates: cut from the map, and made into the net's input.

use half::f16;
use willis_core::{Image, Index, Point, VesselMap, VoxelPoint};
use willis_kernels::distance::squared_distance_mm2;

use super::net::{IN_CHANNELS, SIDE};

/// Channels that are cut from the map: intensity, vessel probability, aneurysm probability.
pub const STORED_CHANNELS: usize = 3;

/// Distances to the vessel wall are given in units of this, at most one either way, mm.
const WALL_MM: f32 = 8.0;

/// A cube cut from the map, its middle voxel (`side / 2` on each axis) nearest to a point.
#[derive(Debug, Clone, PartialEq)]
pub struct Patch {
    /// Voxels along each axis.
    pub side: usize,
    /// Intensity, vessel and aneurysm probability, `[3, side, side, side]`.
    pub values: Vec<f16>,
    /// The middle voxel on the map's grid; may lie outside it.
    pub middle: VoxelPoint,
}

/// The cube around a point of a map; 0 outside the grid. `None` when the grid is degenerate.
///
/// # Units
/// centre LPS mm
pub fn patch(map: &VesselMap, centre: Point, side: usize) -> Option<Patch> {
    let grid = map.vessel.grid;
    let place = grid.affine.to_voxel(centre).filter(|p| p.z.is_finite() && p.y.is_finite() && p.x.is_finite())?;
    let middle = VoxelPoint::new(place.z.round(), place.y.round(), place.x.round());
    let voxels = side.pow(3);
    let mut values = vec![f16::ZERO; STORED_CHANNELS * voxels];
    let images: [&Image<f32>; STORED_CHANNELS] = [&map.source.image, &map.vessel, &map.aneurysm];
    // Voxels of an axis that lie on the grid, as (in the patch, on the grid).
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
    Some(Patch { side, values, middle })
}

/// The net's five channels from three: `[3, 48³]` -> `[5, 48³]`, with the signed distance to the
/// vessel wall (positive inside) and the distance to the middle voxel.
///
/// # Units
/// spacing z, y, x, mm
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
        (squares.sqrt() / 15.0) as f32
    };
    channels.extend((0..voxels).map(radius));
    debug_assert_eq!(channels.len(), IN_CHANNELS * voxels);
    channels
}

/// The net's channels of a patch of the net's own side.
pub fn input(patch: &Patch, spacing_mm: [f64; 3]) -> Vec<f32> {
    with_distances(patch.values.iter().map(|v| v.to_f32()).collect(), spacing_mm)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::sync::Arc;
    use willis_core::{Affine, Grid, HarmonisedVolume, SeriesMeta, Shape, Spacing, Volume};

    /// Dark everywhere but for bright balls `(centre, radius)` that are vessel and aneurysm alike.
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
    fn the_point_is_the_middle_voxel_and_outside_is_zero() {
        let centre = Point::new(16.1, 8.0, 4.0);
        let patch = patch(&map(&[(centre, 0.5)]), centre, SIDE).unwrap();
        assert_eq!((patch.middle.z, patch.middle.y, patch.middle.x), (5.0, 10.0, 20.0));
        let middle = ((SIDE / 2) * SIDE + SIDE / 2) * SIDE + SIDE / 2;
        let bright: Vec<usize> = (0..SIDE.pow(3)).filter(|&i| patch.values[i].to_f32() > 0.0).collect();
        assert_eq!(bright, [middle]);
        let input = input(&patch, [0.8; 3]);
        assert_eq!(input.len(), IN_CHANNELS * SIDE.pow(3));
        // One voxel inside: 0.8 mm from the nearest outside voxel.
        assert!((input[3 * SIDE.pow(3) + middle] - 0.1).abs() < 1e-6);
        assert!((input[3 * SIDE.pow(3) + middle + 2] + 0.2).abs() < 1e-6);
        assert_eq!(input[4 * SIDE.pow(3) + middle], 0.0);
    }

    #[test]
    fn a_patch_without_vessel_is_far_from_it() {
        let patch = patch(&map(&[]), Point::new(-500.0, 0.0, 0.0), SIDE).unwrap();
        let input = input(&patch, [0.8; 3]);
        assert!(input[3 * SIDE.pow(3)..4 * SIDE.pow(3)].iter().all(|&v| v == -1.0));
    }
}
