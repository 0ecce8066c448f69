//! From the positions of single slices to one grid: order, spacing, tilt and gaps. Where the header
//! has no value, one is guessed and the guess is reported.
//!
//! Pure arithmetic on [`Slice`]s; no files, no pixels.

use willis_core::{Affine, Finding};

use super::header::Slice;

/// Maximum deviation of a gap from the median gap in an evenly spaced stack, as a fraction of it.
const EVEN_GAP_TOLERANCE: f64 = 0.01;
/// Slices beyond a gap of more than this many median gaps do not belong to the stack.
const STRAY_GAP: f64 = 5.5;
/// Assumed field of view of a head scan without pixel spacing, mm.
const GUESSED_FIELD_OF_VIEW_MM: f64 = 220.0;
/// Assumed height of a head scan without slice spacing, mm.
const GUESSED_HEIGHT_MM: f64 = 150.0;

/// Order and grid of a stack of slices.
#[derive(Debug, Clone)]
pub(super) struct StackGeometry {
    /// Indices of the input slices in order of the volume, without the discarded ones.
    pub order: Vec<usize>,
    /// Affine of the volume: voxel `(x, y, z)` to LPS mm.
    pub affine: Affine,
    /// Where slices are missing or unevenly spaced: for each slice of the volume the fractional
    /// index into `order` at which it is interpolated. `None` when the slices are used as they are.
    pub resample: Option<Vec<f64>>,
    /// Irregularities and guesses.
    pub findings: Vec<Finding>,
}

/// Stacks slices of the same size, spacing and orientation.
///
/// Slices are sorted along their normal `row x column`, so the axes of the volume are right-handed.
/// The slice step is the vector from the first position to the last, divided by the number of
/// steps, so a tilted gantry gives an exactly sheared grid. Of several slices at one position the
/// first is kept. A gap that is a multiple of the median gap means missing slices; these and other
/// uneven gaps are interpolated linearly onto an even grid. Gaps of more than 5.5 median gaps
/// divide the stack, and its longest part is kept.
pub(super) fn stack(slices: &[Slice]) -> StackGeometry {
    let mut findings = Vec::new();
    let first = &slices[0];
    let orientation = first.orientation.unwrap_or_else(|| {
        let message = "no slice orientation in the header; axial is assumed, so sides may be wrong";
        findings.push(Finding::warning("orientation-guessed", message));
        [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    });
    let [row_mm, column_mm] = first.pixel_spacing.unwrap_or_else(|| {
        let mm = GUESSED_FIELD_OF_VIEW_MM / first.rows.max(first.columns) as f64;
        let message = format!("no pixel spacing in the header; {mm:.3} mm is assumed from a field of view of 220 mm");
        findings.push(Finding::warning("spacing-guessed", message));
        [mm, mm]
    });
    let axis = |i: usize| [orientation[i], orientation[i + 1], orientation[i + 2]];
    let (row, column) = (axis(0), axis(3));
    let normal = cross(row, column);

    let mut stack = sorted_stack(slices, normal, &mut findings);
    drop_duplicates(&mut stack, &mut findings);
    drop_strays(&mut stack, &mut findings);
    let resample = even_grid(&stack, &mut findings);
    let steps = resample.as_ref().map_or(stack.len(), Vec::len).saturating_sub(1).max(1) as f64;
    let (bottom, top) = (&stack[0], &stack[stack.len() - 1]);
    let step = if stack.len() > 1 { scale(sub(top.position, bottom.position), 1.0 / steps) } else { normal };
    report_tilt(step, normal, &mut findings);
    let origin = bottom.position;
    let affine = Affine([0, 1, 2].map(|i| [row[i] * column_mm, column[i] * row_mm, step[i], origin[i]]));
    StackGeometry { order: stack.iter().map(|s| s.slice).collect(), affine, resample, findings }
}

/// A slice of the stack.
#[derive(Debug, Clone, Copy)]
struct StackedSlice {
    slice: usize,
    position: [f64; 3],
    /// Distance along the normal, mm.
    height: f64,
}

/// Slices sorted by height, which is taken from their positions, or else from slice locations, or
/// else from instance numbers and the slice spacing.
fn sorted_stack(slices: &[Slice], normal: [f64; 3], findings: &mut Vec<Finding>) -> Vec<StackedSlice> {
    let by_position = || -> Option<Vec<StackedSlice>> {
        let placed: Option<Vec<_>> = slices
            .iter()
            .enumerate()
            .map(|(slice, s)| s.position.map(|p| StackedSlice { slice, position: p, height: dot(p, normal) }))
            .collect();
        placed.filter(|p| spread(p.iter().map(|p| p.height)) > 0.01)
    };
    // A position that all slices share is that of the first.
    let origin = slices[0].position.unwrap_or_default();
    let by_location = || -> Option<Vec<StackedSlice>> {
        let heights: Option<Vec<f64>> = slices.iter().map(|s| s.slice_location).collect();
        let heights = heights.filter(|h| spread(h.iter().copied()) > 0.01)?;
        Some(on_normal(origin, heights, normal))
    };
    let mut stack = by_position().unwrap_or_else(|| {
        let message = "slice positions are missing or all equal; the order of slices and the origin are assumed";
        findings.push(Finding::warning("positions-guessed", message));
        by_location().unwrap_or_else(|| by_number(slices, origin, normal, findings))
    });
    stack.sort_by(|a, b| a.height.total_cmp(&b.height).then(a.slice.cmp(&b.slice)));
    stack
}

/// Slices at multiples of the slice spacing, in order of instance number; the spacing is guessed
/// when the header has none.
fn by_number(slices: &[Slice], origin: [f64; 3], normal: [f64; 3], findings: &mut Vec<Finding>) -> Vec<StackedSlice> {
    let step = slices.iter().find_map(|s| s.slice_step_mm).unwrap_or_else(|| {
        let mm = (GUESSED_HEIGHT_MM / slices.len() as f64).clamp(0.4, 5.0);
        let message = format!("no slice spacing in the header; {mm:.3} mm is assumed from a height of 150 mm");
        findings.push(Finding::warning("slice-spacing-guessed", message));
        mm
    });
    let mut order: Vec<usize> = (0..slices.len()).collect();
    order.sort_by_key(|&i| (slices[i].instance_number, slices[i].frame, i));
    let mut heights = vec![0.0; slices.len()];
    for (k, &i) in order.iter().enumerate() {
        heights[i] = k as f64 * step;
    }
    on_normal(origin, heights, normal)
}

/// Slices at the given heights along the normal through `origin`.
fn on_normal(origin: [f64; 3], heights: Vec<f64>, normal: [f64; 3]) -> Vec<StackedSlice> {
    let at_height = |(slice, height)| StackedSlice { slice, position: add(origin, scale(normal, height)), height };
    heights.into_iter().enumerate().map(at_height).collect()
}

/// Keeps the first slice at each position.
fn drop_duplicates(stack: &mut Vec<StackedSlice>, findings: &mut Vec<Finding>) {
    let before = stack.len();
    let tolerance = (median_gap(stack) * 0.1).clamp(1e-3, 0.05);
    stack.dedup_by(|later, kept| later.height - kept.height < tolerance);
    if stack.len() < before {
        let message = format!(
            "{} slices are at the position of another slice; the first at each position was kept",
            before - stack.len()
        );
        findings.push(Finding::warning("duplicate-slice", message));
    }
}

/// Keeps the longest run of slices without a large gap.
fn drop_strays(stack: &mut Vec<StackedSlice>, findings: &mut Vec<Finding>) {
    let limit = STRAY_GAP * median_gap(stack);
    let runs: Vec<Vec<StackedSlice>> =
        stack.chunk_by(|a, b| b.height - a.height <= limit).map(<[StackedSlice]>::to_vec).collect();
    // The lowest of equals.
    let Some(longest) = runs.into_iter().rev().max_by_key(Vec::len) else { return };
    if longest.len() < stack.len() && longest.len() > 1 {
        let message = format!("{} slices are far from the stack and were left out", stack.len() - longest.len());
        findings.push(Finding::warning("stray-slices", message));
        *stack = longest;
    }
}

/// Fractional indices into the stack for an evenly spaced grid; `None` when the stack is evenly
/// spaced.
fn even_grid(stack: &[StackedSlice], findings: &mut Vec<Finding>) -> Option<Vec<f64>> {
    let median = median_gap(stack);
    let gaps: Vec<f64> = stack.windows(2).map(|w| w[1].height - w[0].height).collect();
    // Headers round positions, often to 0.1 mm for thin slices.
    let even = |gap: f64, times: f64| (gap - times * median).abs() <= (EVEN_GAP_TOLERANCE * median).max(0.011);
    if gaps.iter().all(|&gap| even(gap, 1.0)) {
        return None;
    }
    let heights: Vec<f64> = stack.iter().map(|p| p.height).collect();
    let range = heights[heights.len() - 1] - heights[0];
    let count = (range / median).round().max(1.0) as usize + 1;
    let missing: usize = gaps.iter().map(|gap| ((gap / median).round() as usize).saturating_sub(1)).sum();
    let multiples = gaps.iter().all(|&gap| even(gap, (gap / median).round().max(1.0)));
    findings.push(if multiples {
        let message = format!(
            "{missing} slices are missing between the others (median gap {median:.3} mm); they were interpolated"
        );
        Finding::warning("missing-slice", message)
    } else {
        let (least, most) = gaps.iter().fold((f64::MAX, f64::MIN), |(l, m), &g| (l.min(g), m.max(g)));
        let message = format!(
            "slices are {least:.3} to {most:.3} mm apart; the volume was interpolated onto an even {:.3} mm grid",
            range / (count - 1) as f64
        );
        Finding::warning("uneven-slices", message)
    });
    let step = range / (count - 1) as f64;
    Some((0..count).map(|k| snap(fractional_index(&heights, heights[0] + k as f64 * step))).collect())
}

/// Fractional index of a height in an increasing list.
fn fractional_index(heights: &[f64], height: f64) -> f64 {
    let above = heights.partition_point(|&h| h <= height).clamp(1, heights.len() - 1);
    let (low, high) = (heights[above - 1], heights[above]);
    (above - 1) as f64 + ((height - low) / (high - low)).clamp(0.0, 1.0)
}

/// Rounds an index to the nearest slice if that is within 2 % of a gap.
fn snap(index: f64) -> f64 {
    if (index - index.round()).abs() < 0.02 { index.round() } else { index }
}

/// Reports a stacking direction that is not along the normal of the slices.
fn report_tilt(step: [f64; 3], normal: [f64; 3], findings: &mut Vec<Finding>) {
    let degrees = (dot(step, normal) / dot(step, step).sqrt()).clamp(-1.0, 1.0).acos().to_degrees();
    if degrees > 0.5 {
        let message = format!(
            "slices are stacked at {degrees:.1} degrees to their normal (tilted gantry); the sheared grid was kept"
        );
        findings.push(Finding::info("gantry-tilt", message));
    }
}

/// Median distance between neighbouring slices at different positions, mm; 1 when there are none.
fn median_gap(stack: &[StackedSlice]) -> f64 {
    let mut gaps: Vec<f64> = stack.windows(2).map(|w| w[1].height - w[0].height).filter(|&g| g > 1e-3).collect();
    gaps.sort_by(f64::total_cmp);
    gaps.get(gaps.len() / 2).copied().unwrap_or(1.0)
}

/// Difference between the largest and the smallest value.
fn spread(values: impl Iterator<Item = f64>) -> f64 {
    let (low, high) = values.fold((f64::MAX, f64::MIN), |(l, h), v| (l.min(v), h.max(v)));
    high - low
}

/// Normal of a slice; axial when the orientation is unknown.
pub(super) fn normal_of(slice: &Slice) -> [f64; 3] {
    slice.orientation.map_or([0.0, 0.0, 1.0], |o| cross([o[0], o[1], o[2]], [o[3], o[4], o[5]]))
}

pub(super) fn dot(a: [f64; 3], b: [f64; 3]) -> f64 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}

fn cross(a: [f64; 3], b: [f64; 3]) -> [f64; 3] {
    [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]
}

fn sub(a: [f64; 3], b: [f64; 3]) -> [f64; 3] {
    [a[0] - b[0], a[1] - b[1], a[2] - b[2]]
}

fn add(a: [f64; 3], b: [f64; 3]) -> [f64; 3] {
    [a[0] + b[0], a[1] + b[1], a[2] + b[2]]
}

fn scale(a: [f64; 3], factor: f64) -> [f64; 3] {
    a.map(|v| v * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axial(z: f64) -> Slice {
        Slice {
            rows: 4,
            columns: 4,
            position: Some([-10.0, -20.0, z]),
            orientation: Some([1.0, 0.0, 0.0, 0.0, 1.0, 0.0]),
            pixel_spacing: Some([0.5, 0.25]),
            slope: 1.0,
            ..Slice::default()
        }
    }

    fn codes(geometry: &StackGeometry) -> Vec<&str> {
        geometry.findings.iter().map(|f| f.code.as_str()).collect()
    }

    #[test]
    fn order_and_affine_follow_from_positions() {
        let geometry = stack(&[axial(3.0), axial(1.0), axial(2.0)]);
        assert_eq!(geometry.order, [1, 2, 0]);
        assert_eq!(geometry.affine.0, [[0.25, 0.0, 0.0, -10.0], [0.0, 0.5, 0.0, -20.0], [0.0, 0.0, 1.0, 1.0]]);
        assert!(geometry.findings.is_empty() && geometry.resample.is_none());
    }

    #[test]
    fn a_missing_slice_is_interpolated() {
        let slices: Vec<_> = [0.0, 1.0, 2.0, 4.0, 5.0].map(axial).into();
        let geometry = stack(&slices);
        assert_eq!(geometry.resample, Some(vec![0.0, 1.0, 2.0, 2.5, 3.0, 4.0]));
        assert_eq!(codes(&geometry), ["missing-slice"]);
        assert_eq!(geometry.affine.0[2][2], 1.0);
    }

    #[test]
    fn uneven_slices_are_interpolated_onto_an_even_grid() {
        let slices: Vec<_> = [0.0, 1.0, 2.0, 3.3, 4.3].map(axial).into();
        let geometry = stack(&slices);
        assert_eq!(codes(&geometry), ["uneven-slices"]);
        assert_eq!(geometry.resample.unwrap().len(), 5);
        assert!((geometry.affine.0[2][2] - 4.3 / 4.0).abs() < 1e-12);
    }

    #[test]
    fn duplicates_and_strays_are_dropped() {
        let slices: Vec<_> = [0.0, 1.0, 1.0, 2.0, 3.0, 90.0].map(axial).into();
        let geometry = stack(&slices);
        assert_eq!(geometry.order, [0, 1, 3, 4]);
        assert_eq!(codes(&geometry), ["duplicate-slice", "stray-slices"]);
    }

    #[test]
    fn a_tilted_gantry_gives_a_sheared_grid() {
        let slices: Vec<_> =
            (0..4).map(|k| Slice { position: Some([0.0, 0.3 * k as f64, k as f64]), ..axial(0.0) }).collect();
        let geometry = stack(&slices);
        assert_eq!(codes(&geometry), ["gantry-tilt"]);
        assert!((geometry.affine.0[1][2] - 0.3).abs() < 1e-12 && (geometry.affine.0[2][2] - 1.0).abs() < 1e-12);
    }

    #[test]
    fn guessed_geometry_is_reported() {
        let bare = |number| Slice { rows: 440, columns: 440, instance_number: Some(number), ..Slice::default() };
        let geometry = stack(&[bare(2), bare(3), bare(1)]);
        assert_eq!(geometry.order, [2, 0, 1]);
        assert_eq!(
            codes(&geometry),
            ["orientation-guessed", "spacing-guessed", "positions-guessed", "slice-spacing-guessed"]
        );
        assert_eq!(geometry.affine.spacing().x, 0.5);
        assert_eq!(geometry.affine.spacing().z, 5.0);
    }

    #[test]
    fn positions_take_precedence_over_the_spacing_tag() {
        let slices: Vec<_> = (0..3).map(|k| Slice { slice_step_mm: Some(18.0), ..axial(0.5 * k as f64) }).collect();
        assert_eq!(stack(&slices).affine.spacing().z, 0.5);
    }
}
