//! Transfinite blending: hard conditions from the values on the faces of a box.
//!
//! With the projector `P_i f`, which interpolates f linearly between the given faces of axis i, the
//! function `A = f - Π (1 - P_i) f` has the values of f on every face. It uses f on the faces only.
//! B is the product of bubbles that vanish on the faces.

use crate::taylor::Taylor;

/// Given faces of one axis.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Faces {
    /// Both ends.
    Both(f64, f64),
    /// The start, such as an initial time.
    Start(f64),
}

impl Faces {
    /// Coordinate and weight of each face at x.
    fn weights(self, x: Taylor) -> Vec<(f64, Taylor)> {
        match self {
            Self::Both(low, high) => {
                let width = 1.0 / (high - low);
                vec![(low, (-x + high) * width), (high, (x - low) * width)]
            }
            Self::Start(low) => vec![(low, Taylor::constant(1.0))],
        }
    }

    fn bubble(self, x: Taylor) -> Taylor {
        match self {
            Self::Both(low, high) => (x - low) * (-x + high) * (4.0 / (high - low).powi(2)),
            Self::Start(low) => x - low,
        }
    }
}

/// A per output of f, and B.
pub(super) fn blend<const N: usize>(
    faces: &[Faces],
    at: &[Taylor],
    f: &dyn Fn(&[Taylor]) -> [Taylor; N],
) -> ([Taylor; N], Taylor) {
    let mut a = [Taylor::constant(0.0); N];
    let mut point = at.to_vec();
    add(faces, at, 0, Taylor::constant(-1.0), &mut point, &mut |weight, point| {
        let values = f(point);
        for (a, value) in a.iter_mut().zip(values) {
            *a = *a + weight * value;
        }
    });
    let bubble = faces.iter().zip(at).fold(Taylor::constant(1.0), |product, (faces, &x)| product * faces.bubble(x));
    (a, bubble)
}

/// Visits every choice of faces but the empty one, with the product of `-weight`, negated.
fn add(
    faces: &[Faces],
    at: &[Taylor],
    axis: usize,
    weight: Taylor,
    point: &mut [Taylor],
    visit: &mut dyn FnMut(Taylor, &[Taylor]),
) {
    fn recurse(
        faces: &[Faces],
        at: &[Taylor],
        axis: usize,
        weight: Taylor,
        is_empty: bool,
        point: &mut [Taylor],
        visit: &mut dyn FnMut(Taylor, &[Taylor]),
    ) {
        if axis == faces.len() {
            if !is_empty {
                visit(weight, point);
            }
            return;
        }
        recurse(faces, at, axis + 1, weight, is_empty, point, visit);
        for (coordinate, share) in faces[axis].weights(at[axis]) {
            point[axis] = Taylor::constant(coordinate);
            recurse(faces, at, axis + 1, -(weight * share), false, point, visit);
        }
        point[axis] = at[axis];
    }
    recurse(faces, at, axis, weight, true, point, visit);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faces_have_the_given_values() {
        // A product, since blending is exact for sums of functions of fewer coordinates.
        let f = |x: &[Taylor]| [x[0].sin() * x[1].exp() * x[2] + x[2] * x[0] * x[0]];
        let faces = [Faces::Both(-1.0, 2.0), Faces::Both(0.0, 1.0), Faces::Start(0.5)];
        let at = |point: [f64; 3]| point.map(Taylor::constant);
        for point in [[-1.0, 0.3, 0.7], [2.0, 0.9, 1.5], [0.1, 0.0, 2.0], [0.4, 1.0, 0.6], [0.2, 0.4, 0.5]] {
            let ([a], bubble) = blend(&faces, &at(point), &f);
            assert!((a.value() - f(&at(point))[0].value()).abs() < 1e-12, "{point:?}");
            assert_eq!(bubble.value(), 0.0, "{point:?}");
        }
        let ([a], bubble) = blend(&faces, &at([0.4, 0.6, 1.0]), &f);
        let difference = (a.value() - f(&at([0.4, 0.6, 1.0]))[0].value()).abs();
        assert!(difference > 1e-6 && bubble.value() > 0.1, "{difference} {}", bubble.value());
    }
}
