//! Vectors and smooth curves in LPS mm, like [`Point`].

use std::ops::{Add, Mul, Neg, Sub};

use willis_core::Point;

/// A vector or a position, LPS mm.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Vec3 {
    pub x: f64,
    pub y: f64,
    pub z: f64,
}

/// The vector with these components.
pub(crate) const fn vec3(x: f64, y: f64, z: f64) -> Vec3 {
    Vec3 { x, y, z }
}

impl Add for Vec3 {
    type Output = Self;
    fn add(self, o: Self) -> Self {
        vec3(self.x + o.x, self.y + o.y, self.z + o.z)
    }
}

impl Sub for Vec3 {
    type Output = Self;
    fn sub(self, o: Self) -> Self {
        vec3(self.x - o.x, self.y - o.y, self.z - o.z)
    }
}

impl Mul<f64> for Vec3 {
    type Output = Self;
    fn mul(self, k: f64) -> Self {
        vec3(self.x * k, self.y * k, self.z * k)
    }
}

impl Neg for Vec3 {
    type Output = Self;
    fn neg(self) -> Self {
        self * -1.0
    }
}

impl Vec3 {
    pub fn dot(self, o: Self) -> f64 {
        self.x * o.x + self.y * o.y + self.z * o.z
    }

    pub fn cross(self, o: Self) -> Self {
        vec3(self.y * o.z - self.z * o.y, self.z * o.x - self.x * o.z, self.x * o.y - self.y * o.x)
    }

    pub fn length(self) -> f64 {
        self.dot(self).sqrt()
    }

    /// Unit vector in the same direction; z for a vector of zero length.
    pub fn unit(self) -> Self {
        let n = self.length();
        if n > 1e-9 { self * (1.0 / n) } else { vec3(0.0, 0.0, 1.0) }
    }

    /// Component perpendicular to the unit vector `axis`.
    pub fn reject(self, axis: Self) -> Self {
        self - axis * self.dot(axis)
    }

    /// Two unit vectors that form an orthonormal frame with this unit vector.
    pub fn frame(self) -> (Self, Self) {
        let helper = if self.x.abs() < 0.8 { vec3(1.0, 0.0, 0.0) } else { vec3(0.0, 1.0, 0.0) };
        let u = helper.reject(self).unit();
        (u, self.cross(u))
    }

    /// Single precision, `[x, y, z]`.
    pub fn f32(self) -> [f32; 3] {
        [self.x as f32, self.y as f32, self.z as f32]
    }
}

impl From<Vec3> for Point {
    fn from(v: Vec3) -> Self {
        Point::new(v.x, v.y, v.z)
    }
}

impl From<Point> for Vec3 {
    fn from(p: Point) -> Self {
        vec3(p.x, p.y, p.z)
    }
}

/// Catmull-Rom spline through the control points, sampled about every `step_mm`, both ends
/// included.
pub(crate) fn spline(control: &[Vec3], step_mm: f64) -> Vec<Vec3> {
    let n = control.len();
    let mut out = Vec::new();
    for i in 0..n.saturating_sub(1) {
        let (b, c) = (control[i], control[i + 1]);
        let a = if i == 0 { b + b - c } else { control[i - 1] };
        let d = if i + 2 < n { control[i + 2] } else { c + c - b };
        let chord = (c - b).length().max(1e-6);
        // Tangents are scaled to this chord, so that unevenly spaced control points cause no loops.
        let tangent = |p: Vec3, q: Vec3, r: Vec3| {
            let (before, after) = ((q - p).length().max(1e-6), (r - q).length().max(1e-6));
            (r - p) * (chord / (before + after))
        };
        let (m0, m1) = (tangent(a, b, c), tangent(b, c, d));
        let steps = (chord / step_mm).ceil().max(1.0) as usize;
        for k in 0..steps {
            let t = k as f64 / steps as f64;
            let (t2, t3) = (t * t, t * t * t);
            out.push(
                b * (2.0 * t3 - 3.0 * t2 + 1.0) + m0 * (t3 - 2.0 * t2 + t) + c * (3.0 * t2 - 2.0 * t3) + m1 * (t3 - t2),
            );
        }
    }
    out.extend(control.last());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splines_pass_through_their_control_points_in_short_steps() {
        let control = [vec3(0.0, 0.0, 0.0), vec3(10.0, 0.0, 0.0), vec3(10.0, 5.0, 0.0), vec3(0.0, 5.0, 3.0)];
        let curve = spline(&control, 0.5);
        for c in control {
            assert!(curve.iter().any(|p| (*p - c).length() < 1e-9));
        }
        assert!(curve.windows(2).all(|w| (w[1] - w[0]).length() < 1.0));
    }

    #[test]
    fn frame_is_orthonormal() {
        for v in [vec3(1.0, 0.0, 0.0), vec3(0.2, -0.7, 0.4).unit()] {
            let (a, b) = v.frame();
            assert!(a.dot(v).abs() < 1e-12 && b.dot(v).abs() < 1e-12 && a.dot(b).abs() < 1e-12);
            assert!((a.length() - 1.0).abs() < 1e-12 && (b.length() - 1.0).abs() < 1e-12);
        }
    }
}
