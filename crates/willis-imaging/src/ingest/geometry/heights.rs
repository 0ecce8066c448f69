//! Heights of slices along their normal: duplicates, strays, gaps, and the even grid.

use willis_core::Finding;

use super::StackedSlice;

/// Maximum deviation of a gap from the median gap in an evenly spaced stack, as a fraction of it.
const EVEN_GAP_TOLERANCE: f64 = 0.01;
/// Maximum deviation of a slice from its place on the even grid, mm; small deviations of gaps add
/// up.
const EVEN_PLACE_MM: f64 = 0.1;
/// Slices beyond a gap of more than this many gaps do not belong to the stack.
const STRAY_GAP: f64 = 5.5;
/// Slices whose gap is at most this many slice thicknesses touch.
const TOUCHING: f64 = 1.6;
/// Planes of the grid per slice, at most. The positions of a file must not decide how much memory
/// is taken.
const MAX_PLANES_PER_SLICE: usize = 64;
/// Slices of a part of the stack, at least, from which its own gap is taken.
const PART_SLICES: usize = 4;

/// Keeps the first slice at each position.
pub(super) fn drop_duplicates(stack: &mut Vec<StackedSlice>, findings: &mut Vec<Finding>) {
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
///
/// A gap is large when it exceeds 5.5 gaps of the stack, of the slices below it and of those above
/// it, unless the slices are so thick that they touch. Thick slices on top of thin ones are thus
/// kept.
pub(super) fn drop_strays(stack: &mut Vec<StackedSlice>, findings: &mut Vec<Finding>) {
    let typical = median_gap(stack);
    let gaps = gaps(stack);
    let large = |k: usize| {
        let below = &gaps[k.saturating_sub(PART_SLICES - 1)..k];
        let above = &gaps[k + 1..gaps.len().min(k + PART_SLICES)];
        let local = |part: &[f64]| if part.len() + 1 < PART_SLICES { 0.0 } else { median(part) };
        let thickness = stack[k].thickness_mm.max(stack[k + 1].thickness_mm);
        gaps[k] > STRAY_GAP * typical.max(local(below)).max(local(above)) && gaps[k] > TOUCHING * thickness
    };
    let mut runs = vec![vec![stack[0]]];
    for (k, slice) in stack.iter().enumerate().skip(1) {
        if large(k - 1) {
            runs.push(Vec::new());
        }
        runs.last_mut().expect("there is a run").push(*slice);
    }
    // The lowest of equals.
    let Some(longest) = runs.into_iter().rev().max_by_key(Vec::len) else { return };
    if longest.len() < stack.len() && longest.len() > 1 {
        let message = format!("{} slices are far from the stack and were left out", stack.len() - longest.len());
        findings.push(Finding::warning("stray-slices", message));
        *stack = longest;
    }
}

/// An even grid of heights.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct EvenGrid {
    /// Height of the first plane, mm.
    pub start: f64,
    /// Distance between planes, mm.
    pub step: f64,
    /// For each plane, the fractional index of the slice it is interpolated at; `None` when the
    /// slices are the planes.
    pub resample: Option<Vec<f64>>,
}

/// The grid of a sorted stack of at least two slices.
pub(super) fn even_grid(stack: &[StackedSlice], findings: &mut Vec<Finding>) -> EvenGrid {
    let heights: Vec<f64> = stack.iter().map(|p| p.height).collect();
    let start = heights[0];
    let range = heights[heights.len() - 1] - start;
    let typical = median_gap(stack);
    let gaps = gaps(stack);
    // Headers round positions, often to 0.1 mm for thin slices.
    let even = |gap: f64, times: f64| (gap - times * typical).abs() <= (EVEN_GAP_TOLERANCE * typical).max(0.011);
    let mean = range / gaps.len().max(1) as f64;
    let in_place = |(k, height): (usize, &f64)| (height - start - k as f64 * mean).abs() <= EVEN_PLACE_MM;
    if gaps.iter().all(|&gap| even(gap, 1.0)) && heights.iter().enumerate().all(in_place) {
        return EvenGrid { start, step: mean, resample: None };
    }
    if let Some(grid) = mixed_grid(&heights, &gaps, findings) {
        return grid;
    }
    let count = ((range / typical).round().max(1.0) as usize).min(MAX_PLANES_PER_SLICE * stack.len()) + 1;
    let missing: usize = gaps.iter().map(|gap| ((gap / typical).round() as usize).saturating_sub(1)).sum();
    let multiples = gaps.iter().all(|&gap| even(gap, (gap / typical).round().max(1.0)));
    let step = range / (count - 1) as f64;
    findings.push(if multiples && missing > 0 {
        let message = format!(
            "{missing} slices are missing between the others (median gap {typical:.3} mm); they were interpolated"
        );
        Finding::warning("missing-slice", message)
    } else {
        let (least, most) = gaps.iter().fold((f64::MAX, f64::MIN), |(l, m), &g| (l.min(g), m.max(g)));
        let message = format!(
            "slices are {least:.3} to {most:.3} mm apart; the volume was interpolated onto an even {step:.3} mm grid"
        );
        Finding::warning("uneven-slices", message)
    });
    let resample = (0..count).map(|k| snap(fractional_index(&heights, start + k as f64 * step))).collect();
    EvenGrid { start, step, resample: Some(resample) }
}

/// The grid of a stack of parts with different slice distances: the smallest distance, on the
/// slices of that part, over the whole extent. `None` when there are no such parts.
///
/// A part is a run of slices of one distance. There must be two distances that differ by more than
/// a tenth and together make up most of the stack.
fn mixed_grid(heights: &[f64], gaps: &[f64], findings: &mut Vec<Finding>) -> Option<EvenGrid> {
    let alike = |a: f64, b: f64| (a - b).abs() <= (0.02 * a.max(b)).max(0.022);
    let mut parts: Vec<(usize, usize)> = Vec::new();
    for (k, &gap) in gaps.iter().enumerate() {
        match parts.last_mut() {
            Some((from, to)) if alike(gaps[*from], gap) => *to = k + 1,
            _ => parts.push((k, k + 1)),
        }
    }
    parts.retain(|(from, to)| to - from >= PART_SLICES - 1);
    let length = |&(from, to): &(usize, usize)| heights[to] - heights[from];
    let distance = |part: &(usize, usize)| length(part) / (part.1 - part.0) as f64;
    let finest = *parts.iter().min_by(|a, b| distance(a).total_cmp(&distance(b)))?;
    let coarsest = parts.iter().map(distance).fold(0.0, f64::max);
    let step = distance(&finest);
    let covered: usize = parts.iter().map(|(from, to)| to - from).sum();
    if coarsest < 1.1 * step || covered * 10 < gaps.len() * 7 {
        return None;
    }
    // The grid passes through the slices of the finest part and reaches over both ends.
    let (anchor, low, high) = (heights[finest.0], heights[0], heights[heights.len() - 1]);
    let below = ((anchor - low) / step - 0.02).ceil().max(0.0);
    let above = ((high - anchor) / step - 0.02).ceil().max(0.0);
    let start = anchor - below * step;
    let count = (below + above) as usize + 1;
    if count > MAX_PLANES_PER_SLICE * heights.len() {
        return None;
    }
    let message = format!(
        "slices are {step:.3} mm apart in one part of the stack and up to {coarsest:.3} mm in another; the whole was interpolated onto an even {step:.3} mm grid, which adds no detail to the thick part"
    );
    findings.push(Finding::warning("mixed-slice-distances", message));
    let resample = (0..count).map(|k| snap(fractional_index(heights, start + k as f64 * step))).collect();
    Some(EvenGrid { start, step, resample: Some(resample) })
}

/// Fractional index of a height in an increasing list, which it does not leave.
fn fractional_index(heights: &[f64], height: f64) -> f64 {
    let above = heights.partition_point(|&h| h <= height).clamp(1, heights.len() - 1);
    let (low, high) = (heights[above - 1], heights[above]);
    (above - 1) as f64 + ((height - low) / (high - low)).clamp(0.0, 1.0)
}

/// Rounds an index to the nearest slice if that is within 2 % of a gap.
fn snap(index: f64) -> f64 {
    if (index - index.round()).abs() < 0.02 { index.round() } else { index }
}

fn gaps(stack: &[StackedSlice]) -> Vec<f64> {
    stack.windows(2).map(|w| w[1].height - w[0].height).collect()
}

/// Median distance between neighbouring slices at different positions, mm; 1 when there are none.
fn median_gap(stack: &[StackedSlice]) -> f64 {
    let gaps: Vec<f64> = gaps(stack).into_iter().filter(|&g| g > 1e-3).collect();
    if gaps.is_empty() { 1.0 } else { median(&gaps) }
}

/// The upper median of at least one value.
fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}
