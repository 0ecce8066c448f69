//! From the positions of single slices to one grid: order, spacing, tilt and gaps. Where the header
//! has no value, one is guessed and the guess is reported.
//!
//! Pure arithmetic on [`Slice`]s; no files, no pixels.

use willis_core::{Affine, Finding};

use super::error::IngestError;
use super::slices::Slice;

mod heights;
mod line;
pub(super) mod vector;

#[cfg(test)]
mod tests;

use heights::{drop_duplicates, drop_strays, even_grid};
use line::{line_through, offsets};
use vector::{add, cross, dot, scale, sub};

/// Assumed field of view of a head scan without pixel spacing, mm.
const GUESSED_FIELD_OF_VIEW_MM: f64 = 220.0;
/// Assumed height of a head scan without slice spacing, mm.
const GUESSED_HEIGHT_MM: f64 = 150.0;
/// Deviation of direction cosines from orthogonal unit vectors above which it is reported.
const DIRECTION_ERROR: f64 = 1e-3;
/// Heights within this distance are one place, mm.
const ONE_PLACE_MM: f64 = 0.01;

/// Order and grid of a stack of slices.
#[derive(Debug, Clone)]
pub(super) struct StackGeometry {
    /// Indices of the input slices in order of the volume, without the discarded ones.
    pub order: Vec<usize>,
    /// Affine of the volume: voxel `(x, y, z)` to LPS mm.
    pub affine: Affine,
    /// For each slice of `order`, how far its first pixel is from the grid's, in rows and columns.
    /// `None` when all slices are in line.
    pub shifts: Option<Vec<[f64; 2]>>,
    /// Where slices are missing or unevenly spaced: for each slice of the volume the fractional
    /// index into `order` at which it is interpolated. `None` when the slices are used as they are.
    pub resample: Option<Vec<f64>>,
    /// Irregularities and guesses.
    pub findings: Vec<Finding>,
}

/// Stacks slices of the same size, spacing and orientation.
///
/// Slices are sorted along their normal `row x column`, so the axes of the volume are right-handed.
/// The slice step is taken from the line through the first pixels of most slices, so a tilted
/// gantry gives an exactly sheared grid. A slice off that line is moved in its plane, alone. Of
/// several slices at one position the first is kept. A gap that is a multiple of the median gap
/// means missing slices; these, other uneven gaps and parts of different slice distance are
/// interpolated linearly onto an even grid. Slices far from the rest are left out.
///
/// # Errors
/// `OnePlace` when all slices have one position.
pub(super) fn stack(slices: &[Slice]) -> Result<StackGeometry, IngestError> {
    let mut findings = Vec::new();
    let first = &slices[0];
    let orientation = first.orientation.unwrap_or_else(|| {
        let message = "no slice orientation in the header; axial is assumed, so sides may be wrong";
        findings.push(Finding::warning("orientation-guessed", message));
        [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    });
    report_directions(slices, &mut findings);
    let [row_mm, column_mm] = first.pixel_spacing.unwrap_or_else(|| {
        let mm = GUESSED_FIELD_OF_VIEW_MM / first.rows.max(first.columns) as f64;
        let message = format!("no pixel spacing in the header; {mm:.3} mm is assumed from a field of view of 220 mm");
        findings.push(Finding::warning("spacing-guessed", message));
        [mm, mm]
    });
    let axis = |i: usize| [orientation[i], orientation[i + 1], orientation[i + 2]];
    let (row, column) = (axis(0), axis(3));
    let normal = cross(row, column);

    let mut stack = sorted_stack(slices, normal, &mut findings)?;
    drop_duplicates(&mut stack, &mut findings);
    drop_strays(&mut stack, &mut findings);
    let line = line_through(&stack, normal);
    let offsets = offsets(&stack, &line, column, normal, &mut findings);
    let shifts = offsets
        .iter()
        .any(|offset| *offset != [0.0; 3])
        .then(|| offsets.iter().map(|&offset| [dot(offset, column) / row_mm, dot(offset, row) / column_mm]).collect());
    let (origin, step, resample) = if stack.len() == 1 {
        (stack[0].position, scale(normal, single_step(first, &mut findings)), None)
    } else {
        let grid = even_grid(&stack, &mut findings);
        let steps = grid.resample.as_ref().map_or(stack.len(), Vec::len) - 1;
        let (bottom, top) = (&stack[0], &stack[stack.len() - 1]);
        let reached = grid.start + grid.step * steps as f64;
        let ends_fit = grid.start == bottom.height && (reached - top.height).abs() < 1e-6;
        let ends_in_line = offsets[0] == [0.0; 3] && offsets[stack.len() - 1] == [0.0; 3];
        let (origin, step) = if ends_fit && ends_in_line {
            // From the positions themselves, without rounding.
            (bottom.position, scale(sub(top.position, bottom.position), 1.0 / steps as f64))
        } else {
            (line.at(grid.start), scale(line.slope, grid.step))
        };
        (origin, step, grid.resample)
    };
    let affine = Affine([0, 1, 2].map(|i| [row[i] * column_mm, column[i] * row_mm, step[i], origin[i]]));
    Ok(StackGeometry { order: stack.iter().map(|s| s.slice).collect(), affine, shifts, resample, findings })
}

/// Reports direction cosines that had to be normalised.
fn report_directions(slices: &[Slice], findings: &mut Vec<Finding>) {
    let largest = slices.iter().map(|s| s.direction_error).fold(0.0, f64::max);
    if largest > DIRECTION_ERROR {
        let message = format!(
            "the direction cosines of the header are not orthogonal unit vectors (off by {largest:.4}); they were normalised"
        );
        findings.push(Finding::warning("directions-normalised", message));
    }
}

/// Thickness of the only slice of a volume, mm.
fn single_step(slice: &Slice, findings: &mut Vec<Finding>) -> f64 {
    slice.slice_step_mm.or(slice.thickness_mm).unwrap_or_else(|| {
        findings.push(Finding::warning("slice-spacing-guessed", "no slice thickness in the header; 1 mm is assumed"));
        1.0
    })
}

/// A slice of the stack.
#[derive(Debug, Clone, Copy)]
struct StackedSlice {
    slice: usize,
    position: [f64; 3],
    /// Distance along the normal, mm.
    height: f64,
    /// 0 when the header has none.
    thickness_mm: f64,
}

/// Slices sorted by height, which is taken from their positions, or else from slice locations, or
/// else from instance numbers and the slice spacing.
///
/// # Errors
/// `OnePlace` when every slice has the same position and slice location.
fn sorted_stack(
    slices: &[Slice],
    normal: [f64; 3],
    findings: &mut Vec<Finding>,
) -> Result<Vec<StackedSlice>, IngestError> {
    let stacked = |slice: usize, position, height| {
        let thickness_mm = slices[slice].thickness_mm.unwrap_or(0.0);
        StackedSlice { slice, position, height, thickness_mm }
    };
    let placed: Option<Vec<StackedSlice>> =
        slices.iter().enumerate().map(|(slice, s)| s.position.map(|p| stacked(slice, p, dot(p, normal)))).collect();
    let all_placed = placed.is_some();
    let by_position = placed.filter(|p| p.len() == 1 || spread(p.iter().map(|p| p.height)) > ONE_PLACE_MM);
    let mut stack = match by_position {
        Some(stack) => stack,
        None => {
            // A position that all slices share is that of the first.
            let origin = slices[0].position.unwrap_or_default();
            let locations: Option<Vec<f64>> = slices.iter().map(|s| s.slice_location).collect();
            let locations = locations.filter(|h| spread(h.iter().copied()) > ONE_PLACE_MM);
            if all_placed && locations.is_none() {
                return Err(IngestError::OnePlace { slices: slices.len() });
            }
            let message = "slice positions are missing or all equal; the order of slices and the origin are assumed";
            findings.push(Finding::warning("positions-guessed", message));
            let heights = locations.unwrap_or_else(|| by_number(slices, findings));
            let at = |(slice, &height): (usize, &f64)| stacked(slice, add(origin, scale(normal, height)), height);
            heights.iter().enumerate().map(at).collect()
        }
    };
    stack.sort_by(|a, b| a.height.total_cmp(&b.height).then(a.slice.cmp(&b.slice)));
    Ok(stack)
}

/// Heights at multiples of the slice spacing, in order of instance number; the spacing is guessed
/// when the header has none.
fn by_number(slices: &[Slice], findings: &mut Vec<Finding>) -> Vec<f64> {
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
    heights
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
