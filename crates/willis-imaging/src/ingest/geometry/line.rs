//! The straight line on which the first pixels of the slices lie, and the slices that are off it.
//!
//! In a sound stack all first pixels lie on one line: along the normal, or inclined to it when the
//! gantry was tilted. The line is therefore sought among all slices and not drawn from the first to
//! the last, either of which may be the one that is out of place.

use willis_core::Finding;

use super::StackedSlice;
use super::vector::{add, dot, scale, sub};

/// Distance from the line, in the plane of the slices, up to which a slice lies on it, mm. Headers
/// round positions to 0.1 mm at worst.
const ON_LINE_MM: f64 = 0.1;
/// Slices from which candidate lines are drawn, at most; every line is compared with all slices.
const CANDIDATE_SLICES: usize = 48;
/// Largest tilt of a gantry, degrees. CT scanners tilt by up to 30.
const MAX_TILT_DEGREES: f64 = 35.0;
/// Inclination below which a line is along the normal, degrees.
const MIN_TILT_DEGREES: f64 = 0.5;

/// A line through first pixels: `origin + height * slope`.
#[derive(Debug, Clone, Copy)]
pub(super) struct StackLine {
    /// The point at height 0.
    origin: [f64; 3],
    /// Movement per mm of height.
    pub slope: [f64; 3],
}

impl StackLine {
    fn through(a: &StackedSlice, b: &StackedSlice) -> Self {
        let slope = scale(sub(b.position, a.position), 1.0 / (b.height - a.height));
        Self { origin: sub(a.position, scale(slope, a.height)), slope }
    }

    /// The point of the line at a height.
    pub fn at(&self, height: f64) -> [f64; 3] {
        add(self.origin, scale(self.slope, height))
    }

    /// Offset of a slice from the line, mm; it lies in the plane of the slice.
    pub fn offset(&self, slice: &StackedSlice) -> [f64; 3] {
        sub(slice.position, self.at(slice.height))
    }

    fn holds(&self, slice: &StackedSlice) -> bool {
        let offset = self.offset(slice);
        dot(offset, offset) <= ON_LINE_MM * ON_LINE_MM
    }
}

/// The line through most slices of a sorted stack.
///
/// The line from the first slice to the last is taken when every slice lies on it. Otherwise the
/// line that holds the most slices is, along the normal or through two slices; among equals the one
/// closest to the normal.
pub(super) fn line_through(stack: &[StackedSlice], normal: [f64; 3]) -> StackLine {
    let (bottom, top) = (&stack[0], &stack[stack.len() - 1]);
    if stack.len() < 2 || top.height <= bottom.height {
        return StackLine { origin: sub(bottom.position, scale(normal, bottom.height)), slope: normal };
    }
    let ends = StackLine::through(bottom, top);
    if stack.iter().all(|slice| ends.holds(slice)) {
        return ends;
    }
    let stride = stack.len().div_ceil(CANDIDATE_SLICES);
    let chosen: Vec<&StackedSlice> = stack.iter().step_by(stride).collect();
    let straight =
        |slice: &StackedSlice| StackLine { origin: sub(slice.position, scale(normal, slice.height)), slope: normal };
    let pairs = chosen.iter().enumerate().flat_map(|(i, a)| chosen[i + 1..].iter().map(|b| StackLine::through(a, b)));
    let candidates = chosen.iter().map(|slice| straight(slice)).chain(pairs);
    let count = |line: &StackLine| stack.iter().filter(|slice| line.holds(slice)).count();
    let inclination = |line: &StackLine| dot(line.slope, line.slope);
    // An inclined line must hold half of the slices, or chance would incline scattered ones.
    let plausible = |(count, line): &(usize, StackLine)| {
        let inclination = inclination(line);
        inclination <= 1.0 + 1e-9
            || (inclination <= MAX_TILT_DEGREES.to_radians().cos().powi(-2) && count * 2 >= stack.len())
    };
    let best = candidates
        .map(|line| (count(&line), line))
        .filter(plausible)
        .reduce(|best, next| {
            let better = next.0 > best.0 || (next.0 == best.0 && inclination(&next.1) < inclination(&best.1) - 1e-9);
            if better { next } else { best }
        })
        .map_or(ends, |(_, line)| line);
    // The line between the outermost of its slices averages the rounding of positions.
    let mut on_line = stack.iter().filter(|slice| best.holds(slice));
    match (on_line.next(), on_line.next_back()) {
        (Some(low), Some(high)) if inclination(&best) > 1.0 + 1e-9 => StackLine::through(low, high),
        _ => best,
    }
}

/// Offsets from the line of every slice, mm; zero for slices on it. Reports a line that is inclined
/// to the normal, and slices that are off it.
pub(super) fn offsets(
    stack: &[StackedSlice],
    line: &StackLine,
    column: [f64; 3],
    normal: [f64; 3],
    findings: &mut Vec<Finding>,
) -> Vec<[f64; 3]> {
    report_tilt(line.slope, column, normal, findings);
    let off: Vec<bool> = stack.iter().map(|slice| !line.holds(slice)).collect();
    let offsets: Vec<[f64; 3]> =
        stack.iter().zip(&off).map(|(slice, &off)| if off { line.offset(slice) } else { [0.0; 3] }).collect();
    report_offsets(&offsets, &off, findings);
    offsets
}

/// Reports a stacking direction that is not along the normal of the slices.
fn report_tilt(slope: [f64; 3], column: [f64; 3], normal: [f64; 3], findings: &mut Vec<Finding>) {
    let length = dot(slope, slope).sqrt();
    let degrees = (dot(slope, normal) / length).clamp(-1.0, 1.0).acos().to_degrees();
    if degrees <= MIN_TILT_DEGREES {
        return;
    }
    let in_plane = sub(slope, scale(normal, dot(slope, normal)));
    let along_columns = dot(in_plane, column).abs() > 0.9 * dot(in_plane, in_plane).sqrt();
    findings.push(if along_columns && degrees <= MAX_TILT_DEGREES {
        let message = format!(
            "slices are stacked at {degrees:.1} degrees to their normal (tilted gantry); the sheared grid was kept"
        );
        Finding::info("gantry-tilt", message)
    } else {
        let message = format!(
            "slices are stacked at {degrees:.1} degrees to their normal, which no tilted gantry explains; the sheared grid of their positions was kept, check them"
        );
        Finding::warning("sheared-stack", message)
    });
}

/// Reports slices off the line: a second field of view, passes, or single slices.
fn report_offsets(offsets: &[[f64; 3]], off: &[bool], findings: &mut Vec<Finding>) {
    let n_off = off.iter().filter(|&&off| off).count();
    if n_off == 0 {
        return;
    }
    let largest = offsets.iter().map(|&o| dot(o, o)).fold(0.0, f64::max).sqrt();
    let total = off.len();
    let moved = "each slice was moved to its own position, what lies outside the field of the others was cut";
    // A block of slices at one end with one common offset: the field of view was moved.
    let first_off = off.iter().position(|&off| off).unwrap_or(0);
    let last_off = off.iter().rposition(|&off| off).unwrap_or(0);
    let block = last_off + 1 - first_off == n_off && (first_off == 0 || last_off + 1 == total);
    let common = offsets[first_off..=last_off].iter().all(|&o| {
        let difference = sub(o, offsets[first_off]);
        dot(difference, difference).sqrt() <= ON_LINE_MM
    });
    let changes = off.windows(2).filter(|w| w[0] != w[1]).count();
    findings.push(if block && common && n_off > 2 {
        let message = format!(
            "the field of view is moved by {largest:.1} mm in {n_off} slices at one end of {total} (re-centred); {moved}"
        );
        Finding::warning("recentred-field", message)
    } else if n_off * 2 > total {
        let message =
            format!("the slices lie on no line; {n_off} of {total} are up to {largest:.1} mm off; {moved}");
        Finding::warning("scattered-slices", message)
    } else if n_off * 3 >= total && changes * 2 >= n_off {
        let message = format!(
            "{n_off} of {total} slices between the others are up to {largest:.1} mm off their line (several passes); {moved}"
        );
        Finding::warning("several-passes", message)
    } else {
        let message = format!(
            "{n_off} of {total} slices are up to {largest:.1} mm off the line through the others; {moved}"
        );
        Finding::warning("shifted-slices", message)
    });
}
