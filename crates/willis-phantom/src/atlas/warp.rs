//! The map from the mean head to one patient: smooth deformation, size and pose.

use rand_chacha::ChaCha8Rng;

use crate::noise::NoiseField;
use crate::random::Draw;
use crate::vector::{Vec3, vec3};

/// Map from the coordinates of the mean head to those of a patient, both LPS mm.
#[derive(Debug, Clone)]
pub(crate) struct Warp {
    field: NoiseField,
    /// Feature size and amplitude in mm of the coarse and the fine deformation.
    layers: [(f32, f64); 2],
    rotation: [Vec3; 3],
    scale: Vec3,
    shift: Vec3,
}

impl Warp {
    pub fn draw(rng: &mut ChaCha8Rng) -> Self {
        let scale = rng.log_normal(0.99, 0.04, 0.88, 1.12);
        let axis = |rng: &mut ChaCha8Rng| scale * rng.log_normal(1.0, 0.03, 0.93, 1.07);
        let angles = [0.06, 0.06, 0.14].map(|sd| (sd * rng.normal()).clamp(-0.3, 0.3));
        Self {
            layers: [(45.0, rng.uniform(2.0, 5.5)), (14.0, rng.uniform(0.4, 2.2))],
            rotation: rotation_rows(angles),
            scale: vec3(axis(rng), axis(rng), axis(rng)),
            shift: vec3(rng.uniform(-6.0, 6.0), rng.uniform(-40.0, 10.0), rng.uniform(-60.0, 60.0)),
            field: NoiseField::new(rng),
        }
    }

    /// Patient position of a point of the mean head with deformation; for arteries and veins.
    pub fn deform(&self, p: Vec3) -> Vec3 {
        let mut moved = p;
        for (layer, (size, amplitude)) in self.layers.into_iter().enumerate() {
            // Distant parts of one periodic lattice serve as the three components.
            let part = |component: usize| {
                let offset = (component * 11 + layer * 5) as f32 + 0.37;
                let q = p.f32().map(|v| v / size + offset);
                f64::from(self.field.at([q[0], q[1] + offset, q[2]])) * amplitude
            };
            moved = moved + vec3(part(0), part(1), part(2));
        }
        self.place(moved)
    }

    /// Patient position of a point of the mean head without deformation; for the head.
    pub fn place(&self, p: Vec3) -> Vec3 {
        let s = vec3(p.x * self.scale.x, p.y * self.scale.y, p.z * self.scale.z);
        vec3(self.rotation[0].dot(s), self.rotation[1].dot(s), self.rotation[2].dot(s)) + self.shift
    }

    /// Patient direction of a direction in the mean head.
    pub fn turn(&self, d: Vec3) -> Vec3 {
        vec3(self.rotation[0].dot(d), self.rotation[1].dot(d), self.rotation[2].dot(d))
    }

    /// Inverse of [`Warp::place`] as three rows `[a, b, c, d]`, one per coordinate of the mean
    /// head: `a x + b y + c z + d`.
    pub fn inverse_rows(&self) -> [[f32; 4]; 3] {
        let r = &self.rotation;
        let column = |j: usize| {
            let pick = |v: Vec3| [v.x, v.y, v.z][j];
            vec3(pick(r[0]), pick(r[1]), pick(r[2]))
        };
        let scales = [self.scale.x, self.scale.y, self.scale.z];
        std::array::from_fn(|j| {
            let row = column(j) * (1.0 / scales[j]);
            [row.x as f32, row.y as f32, row.z as f32, -row.dot(self.shift) as f32]
        })
    }
}

/// Rows of the matrix that rotates about x, then y, then z; angles in rad.
pub(crate) fn rotation_rows([a, b, c]: [f64; 3]) -> [Vec3; 3] {
    let (sa, ca, sb, cb, sc, cc) = (a.sin(), a.cos(), b.sin(), b.cos(), c.sin(), c.cos());
    [
        vec3(cb * cc, sa * sb * cc - ca * sc, ca * sb * cc + sa * sc),
        vec3(cb * sc, sa * sb * sc + ca * cc, ca * sb * sc - sa * cc),
        vec3(-sb, sa * cb, ca * cb),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::stream;

    #[test]
    fn inverse_undoes_placement() {
        let warp = Warp::draw(&mut stream(4, "warp"));
        let p = vec3(12.0, -30.0, 41.0);
        let q = warp.place(p);
        let back = warp
            .inverse_rows()
            .map(|r| f64::from(r[0]) * q.x + f64::from(r[1]) * q.y + f64::from(r[2]) * q.z + f64::from(r[3]));
        assert!((vec3(back[0], back[1], back[2]) - p).length() < 1e-3);
    }

    #[test]
    fn rotation_keeps_lengths() {
        let rows = rotation_rows([0.1, -0.2, 0.3]);
        assert!((rows[0].cross(rows[1]) - rows[2]).length() < 1e-12);
    }
}
