//! Smooth random fields (value noise): random values on a periodic lattice, interpolated.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

/// Lattice points per axis; a power of two, so that wrapping is a bit mask.
const SIDE: usize = 32;
const MASK: i32 = SIDE as i32 - 1;

/// A continuous, periodic random field with values from -1 to 1 and features of about one lattice
/// unit.
#[derive(Debug, Clone)]
pub(crate) struct NoiseField {
    values: Vec<f32>,
}

impl NoiseField {
    pub fn new(rng: &mut ChaCha8Rng) -> Self {
        Self { values: (0..SIDE.pow(3)).map(|_| rng.random::<f32>() * 2.0 - 1.0).collect() }
    }

    /// Value at a position in lattice units.
    pub fn at(&self, p: [f32; 3]) -> f32 {
        let cell = p.map(f32::floor);
        let fade = |t: f32| t * t * (3.0 - 2.0 * t);
        let t = [fade(p[0] - cell[0]), fade(p[1] - cell[1]), fade(p[2] - cell[2])];
        let wrap = |v: f32| {
            let i = v as i32;
            ((i & MASK) as usize, ((i + 1) & MASK) as usize)
        };
        let ((x0, x1), (y0, y1), (z0, z1)) = (wrap(cell[0]), wrap(cell[1]), wrap(cell[2]));
        let row = |z: usize, y: usize| {
            let base = (z * SIDE + y) * SIDE;
            let (a, b) = (self.values[base + x0], self.values[base + x1]);
            a + (b - a) * t[0]
        };
        let plane = |z: usize| {
            let (a, b) = (row(z, y0), row(z, y1));
            a + (b - a) * t[1]
        };
        let (a, b) = (plane(z0), plane(z1));
        a + (b - a) * t[2]
    }

    /// Value at a position in mm, with features of about `size` mm. The lattice is rotated so that
    /// its axes do not align with the image.
    pub fn scaled(&self, p: [f32; 3], size: f32) -> f32 {
        let [x, y, z] = p.map(|v| v / size);
        self.at([0.36 * x + 0.48 * y - 0.8 * z, 0.6 * y - 0.8 * x, 0.48 * x + 0.64 * y + 0.6 * z])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::stream;

    #[test]
    fn field_is_bounded_continuous_and_periodic() {
        let field = NoiseField::new(&mut stream(1, "noise"));
        for i in -400..400 {
            let p = [i as f32 * 0.13, i as f32 * -0.07, 3.3];
            let v = field.at(p);
            assert!((-1.0..=1.0).contains(&v));
            assert!((field.at([p[0] + 1e-3, p[1], p[2]]) - v).abs() < 0.01);
            assert!((field.at([p[0] + 32.0, p[1] - 32.0, p[2]]) - v).abs() < 1e-3);
        }
    }
}
