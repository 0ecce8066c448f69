//! Line search for the strong Wolfe conditions, with cubic interpolation.
//!
//! Source: Nocedal & Wright, Numerical Optimization, algorithms 3.5 and 3.6, with the safeguards of
//! minFunc and PyTorch.

use super::{ObjectiveFn, Position};
use crate::real::{Real, add_scaled, dot, max_abs};

/// c₁, sufficient decrease.
const DECREASE: f64 = 1e-4;
/// c₂, sufficient curvature.
const CURVATURE: f64 = 0.9;
/// Most evaluations of one search.
const TRIALS: usize = 25;

/// A point on the line.
#[derive(Debug, Clone)]
struct Trial<F> {
    step: F,
    value: F,
    slope: F,
    gradient: Vec<F>,
}

impl<F: Real> Trial<F> {
    fn is_finite(&self) -> bool {
        self.value.as_f64().is_finite() && self.slope.as_f64().is_finite()
    }
}

/// Moves the position along a direction. Returns the step; `None` if no step lowers the value, and
/// the position is unchanged then.
pub(super) fn search<F: Real>(
    at: &mut Position<F>,
    direction: &[F],
    first_step: F,
    tolerance: F,
    objective: &mut ObjectiveFn<'_, F>,
) -> Option<F> {
    let start = Trial {
        step: F::default(),
        value: at.value,
        slope: dot(&at.gradient, direction),
        gradient: at.gradient.clone(),
    };
    let mut moved = at.parameters.clone();
    let mut evaluate = |step: F| {
        moved.copy_from_slice(&at.parameters);
        add_scaled(&mut moved, step, direction);
        let mut gradient = Vec::new();
        let value = objective(&moved, &mut gradient);
        Trial { step, value, slope: dot(&gradient, direction), gradient }
    };
    let (decrease, curvature) = (F::of(DECREASE), F::of(CURVATURE));
    let too_high = |trial: &Trial<F>| trial.value > start.value + decrease * trial.step * start.slope;
    let is_flat = |trial: &Trial<F>| trial.slope.abs() <= -curvature * start.slope;

    // Expand until an interval contains an acceptable step.
    let mut previous = start.clone();
    let mut current = evaluate(first_step);
    let mut trials = 1;
    let mut bracket = None;
    while trials < TRIALS {
        if !current.is_finite() {
            // Shrink towards the last finite point.
            let step = (previous.step + current.step) * F::of(0.5);
            current = evaluate(step);
            trials += 1;
            continue;
        }
        if too_high(&current) || (previous.step > F::default() && current.value >= previous.value) {
            bracket = Some((previous, current));
            break;
        }
        if is_flat(&current) {
            return Some(accept(at, direction, current));
        }
        if current.slope >= F::default() {
            bracket = Some((current, previous));
            break;
        }
        let bounds = [current.step + F::of(0.01) * (current.step - previous.step), current.step * F::of(10.0)];
        let step = cubic_minimum(&previous, &current, bounds);
        previous = std::mem::replace(&mut current, evaluate(step));
        trials += 1;
    }
    let (mut low, mut high) = bracket?;
    if high.value < low.value {
        std::mem::swap(&mut low, &mut high);
    }

    // Shrink the interval around the lowest value.
    let mut was_stuck = false;
    let longest = max_abs(direction);
    while trials < TRIALS {
        let (left, right) = if low.step < high.step { (low.step, high.step) } else { (high.step, low.step) };
        let width = right - left;
        if width * longest < tolerance {
            break;
        }
        let mut step = cubic_minimum(&low, &high, [left, right]);
        let margin = F::of(0.1) * width;
        let near_end = (right - step).min(step - left) < margin;
        if near_end && (was_stuck || step >= right || step <= left) {
            step = if (step - right).abs() < (step - left).abs() { right - margin } else { left + margin };
            was_stuck = false;
        } else {
            was_stuck = near_end;
        }
        let trial = evaluate(step);
        trials += 1;
        if !trial.is_finite() || too_high(&trial) || trial.value >= low.value {
            high = trial;
        } else {
            if is_flat(&trial) {
                return Some(accept(at, direction, trial));
            }
            let beyond = trial.slope * (high.step - low.step) >= F::default();
            let old = std::mem::replace(&mut low, trial);
            if beyond {
                high = old;
            }
        }
    }
    let is_lower = low.step > F::default() && low.value < start.value;
    is_lower.then(|| accept(at, direction, low))
}

fn accept<F: Real>(at: &mut Position<F>, direction: &[F], trial: Trial<F>) -> F {
    add_scaled(&mut at.parameters, trial.step, direction);
    at.value = trial.value;
    at.gradient = trial.gradient;
    trial.step
}

/// Minimum of the cubic through two points with slopes, clamped to the bounds; their middle where
/// the cubic has none.
fn cubic_minimum<F: Real>(a: &Trial<F>, b: &Trial<F>, bounds: [F; 2]) -> F {
    let (a, b) = if a.step <= b.step { (a, b) } else { (b, a) };
    let middle = (bounds[0] + bounds[1]) * F::of(0.5);
    let d1 = a.slope + b.slope - F::of(3.0) * (a.value - b.value) / (a.step - b.step);
    let square = d1 * d1 - a.slope * b.slope;
    if square.as_f64().is_nan() || square < F::default() {
        return middle;
    }
    let d2 = square.sqrt();
    let step = b.step - (b.step - a.step) * ((b.slope + d2 - d1) / (b.slope - a.slope + F::of(2.0) * d2));
    if step.as_f64().is_finite() { step.max(bounds[0]).min(bounds[1]) } else { middle }
}
