//! The box around the circle of Willis, located from the outline of the head.

use serde::{Deserialize, Serialize};
use willis_core::{Affine, Finding, Grid, Point, Shape, Spacing, Switch, VoxelPoint};

use super::error::HarmoniseError;

/// Maximum number of voxels of a grid: 1 GiB as `f32`.
const MAX_VOXELS: f64 = (1u32 << 28) as f64;
/// Height of the part of the head below its top from which its centre in x and y is taken, mm.
const UPPER_HEAD_MM: f64 = 100.0;
/// Minimum area of the head in a slice; a smaller area is hair, noise or a strap, mm².
const MIN_SLICE_MM2: f64 = 400.0;
/// The scan cuts off the top of the head when the area of the head in its top slice exceeds this
/// fraction of the largest area.
const CUT_FRACTION: f64 = 0.35;

/// The region of interest.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RoiConfig {
    /// Crop to the box; otherwise the whole scan is kept.
    pub crop: Switch,
    /// Size of the box, mm. Along an axis on which the scan is smaller, the whole scan is kept.
    pub size_mm: BoxSize,
    /// Distance from the top of the head down to the top of the box, mm.
    pub below_vertex_mm: f64,
    /// Locate the head by its brain, where one is found; otherwise by its outline.
    pub brain: Switch,
}

/// Lengths of a box along the patient's axes, mm.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BoxSize {
    /// Head to foot.
    pub z: f64,
    /// Front to back.
    pub y: f64,
    /// Side to side.
    pub x: f64,
}

impl Default for RoiConfig {
    /// The circle of Willis is 80 to 110 mm below the top of the head and slightly anterior to
    /// its middle.
    fn default() -> Self {
        Self {
            crop: Switch::On,
            size_mm: BoxSize { z: 110.0, y: 140.0, x: 130.0 },
            below_vertex_mm: 45.0,
            brain: Switch::Off,
        }
    }
}

/// A box aligned with the patient axes, LPS mm; its corners are voxel centres.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct WorldBox {
    /// Right anterior inferior corner.
    pub low: Point,
    /// Left posterior superior corner.
    pub high: Point,
}

/// The smallest box that contains every voxel centre of a grid.
pub(super) fn scan_box(grid: &Grid) -> WorldBox {
    let ends = |n: usize| [0.0, n as f64 - 1.0];
    let (mut low, mut high) = ([f64::INFINITY; 3], [f64::NEG_INFINITY; 3]);
    for z in ends(grid.shape.z) {
        for y in ends(grid.shape.y) {
            for x in ends(grid.shape.x) {
                let p = grid.affine.to_world(VoxelPoint::new(z, y, x)).xyz();
                low.iter_mut().zip(p).for_each(|(l, v)| *l = l.min(v));
                high.iter_mut().zip(p).for_each(|(h, v)| *h = h.max(v));
            }
        }
    }
    WorldBox { low: Point::new(low[0], low[1], low[2]), high: Point::new(high[0], high[1], high[2]) }
}

impl WorldBox {
    /// Grid of the given spacing along the patient axes, centred in the box.
    ///
    /// # Errors
    /// [`HarmoniseError::TooLarge`] above 2^28 voxels.
    pub fn grid(&self, spacing: Spacing) -> Result<Grid, HarmoniseError> {
        let (low, high) = (self.low.xyz(), self.high.xyz());
        let extent_mm: [f64; 3] = std::array::from_fn(|a| high[a] - low[a]);
        let steps = [spacing.x, spacing.y, spacing.z];
        // The margin keeps a rounding error from dropping the last voxel.
        let counts: [f64; 3] = std::array::from_fn(|a| (extent_mm[a] / steps[a] + 1e-6).floor() + 1.0);
        if counts.iter().product::<f64>().partial_cmp(&MAX_VOXELS).is_none_or(std::cmp::Ordering::is_gt) {
            return Err(HarmoniseError::TooLarge { extent_mm });
        }
        let start: [f64; 3] = std::array::from_fn(|a| low[a] + (extent_mm[a] - (counts[a] - 1.0) * steps[a]) / 2.0);
        let [x, y, z] = counts.map(|n| n as usize);
        Ok(Grid::new(Shape::new(z, y, x), Affine::axis_aligned(spacing, Point::new(start[0], start[1], start[2]))))
    }
}

/// The region of interest of a scan, located from the mask of its head on a coarse grid along the
/// patient axes.
///
/// In x and y it is centred on the upper head. Its top is `below_vertex_mm` below the top of the
/// head, or at the top of the scan when the scan cuts the head off. It never leaves the scan.
pub(super) fn place(
    scan: &WorldBox,
    grid: &Grid,
    mask: &[u8],
    config: &RoiConfig,
    findings: &mut Vec<Finding>,
) -> WorldBox {
    let spacing = grid.spacing();
    let slice_mm2 = spacing.x * spacing.y;
    let shape = grid.shape;
    let areas: Vec<f64> =
        mask.chunks(shape.y * shape.x).map(|s| s.iter().filter(|&&m| m != 0).count() as f64 * slice_mm2).collect();
    let largest = areas.iter().copied().fold(0.0, f64::max);
    let Some(top) = areas.iter().rposition(|&area| area >= MIN_SLICE_MM2.min(largest / 2.0) && area > 0.0) else {
        findings.push(Finding::warning("no-head", "no head was found; the middle of the scan was used"));
        return middle(scan, config);
    };
    let world_z = |k: usize| grid.affine.0[2][2] * k as f64 + grid.affine.0[2][3];
    let cut = top + 1 >= shape.z && areas[top] > CUT_FRACTION * largest;
    let size = config.size_mm;
    let box_top = if cut { scan.high.z } else { world_z(top) - config.below_vertex_mm };
    let z = fit(box_top - size.z, size.z, scan.low.z, scan.high.z);
    let lowest = top.saturating_sub((UPPER_HEAD_MM / spacing.z) as usize);
    let upper = &mask[lowest * shape.y * shape.x..(top + 1) * shape.y * shape.x];
    let (mut columns, mut rows) = (vec![0usize; shape.x], vec![0usize; shape.y]);
    for (row, voxels) in upper.chunks(shape.x).enumerate() {
        for (x, _) in voxels.iter().enumerate().filter(|(_, m)| **m != 0) {
            columns[x] += 1;
            rows[row % shape.y] += 1;
        }
    }
    let centre_x = grid.affine.0[0][0] * midpoint(&columns) + grid.affine.0[0][3];
    let centre_y = grid.affine.0[1][1] * midpoint(&rows) + grid.affine.0[1][3];
    let x = fit(centre_x - size.x / 2.0, size.x, scan.low.x, scan.high.x);
    let y = fit(centre_y - size.y / 2.0, size.y, scan.low.y, scan.high.y);
    let region = WorldBox { low: Point::new(x.0, y.0, z.0), high: Point::new(x.1, y.1, z.1) };
    let place = match (scan.high.z - scan.low.z <= size.z, cut) {
        (true, _) => "the whole scan from top to bottom".to_string(),
        (false, true) => "from the top of the scan, which cuts the head off".to_string(),
        (false, false) => format!("from {:.0} mm below the top of the head", world_z(top) - z.1),
    };
    let lengths = [x.1 - x.0, y.1 - y.0, z.1 - z.0].map(|v| v.round());
    let message = format!("searched {} x {} x {} mm, {place}", lengths[0], lengths[1], lengths[2]);
    findings.push(Finding::info("region-of-interest", message));
    region
}

/// A box in the middle of the scan.
fn middle(scan: &WorldBox, config: &RoiConfig) -> WorldBox {
    let centred = |low: f64, high: f64, size: f64| fit((low + high - size) / 2.0, size, low, high);
    let x = centred(scan.low.x, scan.high.x, config.size_mm.x);
    let y = centred(scan.low.y, scan.high.y, config.size_mm.y);
    let z = centred(scan.low.z, scan.high.z, config.size_mm.z);
    WorldBox { low: Point::new(x.0, y.0, z.0), high: Point::new(x.1, y.1, z.1) }
}

/// An interval of the given length that starts as close to `start` as it can inside `low..high`;
/// all of `low..high` when the length exceeds it.
fn fit(start: f64, length: f64, low: f64, high: f64) -> (f64, f64) {
    if high - low <= length {
        return (low, high);
    }
    let start = start.clamp(low, high - length);
    (start, start + length)
}

/// Middle between the 2nd and the 98th percentile of the positions.
fn midpoint(counts: &[usize]) -> f64 {
    let total: usize = counts.iter().sum();
    let percentile = |percent: usize| {
        let mut sum = 0;
        let found = counts.iter().position(|&n| {
            sum += n;
            sum * 100 >= total * percent && sum > 0
        });
        found.unwrap_or(0) as f64
    };
    (percentile(2) + percentile(98)) / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_stay_inside() {
        assert_eq!(fit(5.0, 10.0, 0.0, 100.0), (5.0, 15.0));
        assert_eq!(fit(-5.0, 10.0, 0.0, 100.0), (0.0, 10.0));
        assert_eq!(fit(95.0, 10.0, 0.0, 100.0), (90.0, 100.0));
        assert_eq!(fit(95.0, 200.0, 0.0, 100.0), (0.0, 100.0));
    }

    #[test]
    fn the_midpoint_ignores_outliers() {
        assert_eq!(midpoint(&[1, 0, 0, 0, 100, 100, 100, 0, 0, 0]), 5.0);
        assert_eq!(midpoint(&[0, 0]), 0.0);
    }

    #[test]
    fn absurd_extents_are_refused() {
        let far = WorldBox { low: Point::new(0.0, 0.0, 0.0), high: Point::new(1e9, 1e9, 1e9) };
        assert!(matches!(far.grid(Spacing::isotropic(0.6)), Err(HarmoniseError::TooLarge { .. })));
        let endless = WorldBox { low: Point::new(0.0, 0.0, 0.0), high: Point::new(f64::NAN, 1.0, 1.0) };
        assert!(endless.grid(Spacing::isotropic(0.6)).is_err());
    }
}
