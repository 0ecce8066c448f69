//! Segmentation of the head on a coarse copy of the scan.

use willis_core::{Finding, Grid, Image};
use willis_kernels::components::{Connectivity, fill_holes, largest};
use willis_kernels::distance::squared_distance_mm2;

use super::intensity::IntensityUnits;
use super::nyul::order_statistics;
use crate::resample;
use crate::strip::{OUTSIDE_MM, extend, mask as brain_mask};

/// Threshold between air and tissue in CT, HU.
const CT_AIR_HU: f32 = -300.0;
/// Threshold between air and tissue in MR, as a fraction of the way from the lowest value to the
/// 98th percentile. In all sequences brain is above a third and noise below a tenth of it.
const MR_AIR_FRACTION: f32 = 0.15;
/// Radius of the morphological closing, which fills gaps such as the skull and sinuses, mm.
const CLOSE_MM: f64 = 6.0;
/// Radius of the morphological opening, which cuts bridges such as those to a head rest, mm.
const OPEN_MM: f64 = 4.0;

/// Thickness of skull and scalp over the vertex, mm.
const SCALP_MM: f64 = 13.0;
/// Volume of a brain, or of the part of one that a slab shows, litres.
const BRAIN_LITRES: std::ops::RangeInclusive<f64> = 0.15..=2.5;

/// Value above which a voxel is tissue, in the units of the series.
pub(super) fn threshold(coarse: &Image<f32>, units: IntensityUnits) -> f32 {
    match units {
        IntensityUnits::Hounsfield => CT_AIR_HU,
        IntensityUnits::Arbitrary => {
            let values: Vec<f32> = coarse.voxels.iter().copied().filter(|v| v.is_finite()).collect();
            let last = values.len().saturating_sub(1);
            let ranks = [last / 200, last * 98 / 100];
            // A crop without air has a high first percentile, but magnitude images start at 0.
            match order_statistics(&values, &ranks)[..] {
                [low, high] => low.min(0.0) + MR_AIR_FRACTION * (high - low.min(0.0)),
                _ => 0.0,
            }
        }
    }
}

/// Mask of the head: 1 in the head (and anything attached to it), 0 elsewhere, C-order on the
/// coarse grid. All zeros when no voxel is above the threshold.
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

/// Mask of the head from the distances of its brain, on the coarse grid: all within the thickness
/// of skull and scalp of the brain. Head rests, hands, hair and neck do not count. `None`, with a
/// finding, when the distances are not those of a brain.
pub(super) fn mask_about_brain(distances: &Image<f32>, coarse: &Grid, findings: &mut Vec<Finding>) -> Option<Vec<u8>> {
    let inside = brain_mask(distances, 1.0);
    let voxels = inside.voxels.iter().filter(|&&m| m == 1).count();
    let litres = voxels as f64 * distances.grid.spacing().voxel_volume_mm3() / 1e6;
    if !BRAIN_LITRES.contains(&litres) {
        let message = format!("{litres:.2} litres looked like brain; the head was located by its outline");
        findings.push(Finding::warning("no-brain", message));
        return None;
    }
    // Parts that are not connected to the brain must not reach the extended distances.
    let alone = distances.voxels.iter().zip(&inside.voxels).map(|(&mm, &m)| if m == 1 { mm } else { mm.max(1.0) });
    let alone = Image::new(distances.grid, alone.collect());
    let far = resample::linear(&extend(&alone, 2.0 * SCALP_MM), coarse, OUTSIDE_MM);
    Some(brain_mask(&far, SCALP_MM).voxels)
}
