//! Where the head is, on a coarse copy.

use willis_core::Image;
use willis_kernels::components::{Connectivity, fill_holes, largest};
use willis_kernels::distance::squared_distance_mm2;

use super::IntensityKind;
use super::nyul::order_statistics;

/// Air against tissue in CT, HU.
const CT_AIR_HU: f32 = -300.0;
/// Air against tissue in MR: this part of the way from the lowest to the 98th percentile. Brain
/// lies at a third or more of it in all sequences, noise below a tenth.
const MR_AIR_PART: f32 = 0.15;
/// Gaps up to twice this width (skull, sinuses) are closed, mm.
const CLOSE_MM: f64 = 6.0;
/// Bridges up to twice this width (head rests) are cut, mm.
const OPEN_MM: f64 = 4.0;

/// Value above which a voxel of the series is tissue.
pub(super) fn threshold(coarse: &Image<f32>, kind: IntensityKind) -> f32 {
    match kind {
        IntensityKind::Ct => CT_AIR_HU,
        IntensityKind::Mr => {
            let mut values: Vec<f32> = coarse.voxels.iter().copied().filter(|v| v.is_finite()).collect();
            let last = values.len().saturating_sub(1);
            let ranks = [last / 200, last * 98 / 100];
            // Crops without air have a high first percentile: magnitude images start at 0.
            match order_statistics(&mut values, &ranks)[..] {
                [low, high] => low.min(0.0) + MR_AIR_PART * (high - low.min(0.0)),
                _ => 0.0,
            }
        }
    }
}

/// 1 in the head (and what hangs on it), 0 elsewhere; C-order on the coarse grid. Empty when
/// nothing is above the threshold.
pub(super) fn mask(coarse: &Image<f32>, threshold: f32) -> Vec<u8> {
    let shape = coarse.grid.shape.zyx();
    let spacing = coarse.grid.spacing().zyx();
    let tissue: Vec<u8> = coarse.voxels.iter().map(|&v| u8::from(v > threshold)).collect();
    let not = |mask: &[u8]| mask.iter().map(|&m| 1 - m).collect::<Vec<u8>>();
    let erode = |mask: &[u8], mm: f64| {
        let distance = squared_distance_mm2(mask, shape, spacing);
        distance.iter().map(|&d| u8::from(d > (mm * mm) as f32)).collect::<Vec<u8>>()
    };
    let dilate = |mask: &[u8], mm: f64| not(&erode(&not(mask), mm));
    let closed = fill_holes(&erode(&dilate(&tissue, CLOSE_MM), CLOSE_MM), shape);
    dilate(&largest(&erode(&closed, OPEN_MM), shape, Connectivity::Six), OPEN_MM)
}
