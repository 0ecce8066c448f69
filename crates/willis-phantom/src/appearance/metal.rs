//! Metal in the head: clips and coils of treated aneurysms, dental fillings.

use rand_chacha::ChaCha8Rng;

use crate::atlas::Atlas;
use crate::random::Draw;
use crate::render::Capsule;
use crate::vector::{Vec3, vec3};

/// A piece of metal.
#[derive(Debug, Clone, Copy)]
pub(super) struct Metal {
    /// One end, patient LPS mm.
    pub a: Vec3,
    /// The other end.
    pub b: Vec3,
    /// Radius, mm.
    pub radius_mm: f64,
    /// Strength of its streaks, HU at 5 mm.
    pub streaks: f32,
}

impl Metal {
    /// The metal as it is drawn. In MR the signal is lost around it, too.
    pub fn capsule(&self, brightness: f32, grown: f64) -> Capsule {
        let radius = (self.radius_mm * grown) as f32;
        Capsule { a: self.a, b: self.b, radius_a: radius, radius_b: radius, label: 0, signal: brightness }
    }
}

/// Draws the metal of a head: with probability `pathology` a clip or a coil at an arterial wall,
/// and with twice that probability fillings in the teeth.
pub(super) fn draw(atlas: &Atlas, pathology: f64, rng: &mut ChaCha8Rng) -> Vec<Metal> {
    let mut metal = Vec::new();
    if rng.chance(pathology) {
        let wall = &atlas.walls[rng.weighted(&vec![1.0; atlas.walls.len()])];
        let (at, radius, tangent) = atlas.at(wall.artery, wall.range[1]);
        let out = (wall.towards + rng.normal3() * 0.5).reject(tangent).unit();
        if rng.chance(0.5) {
            let start = at + out * (radius + 0.8);
            let along = (tangent + rng.normal3() * 0.4).unit();
            let length = rng.uniform(4.0, 11.0);
            metal.push(Metal { a: start, b: start + along * length, radius_mm: 0.8, streaks: 180.0 });
        } else {
            let size = rng.uniform(1.5, 4.5);
            let middle = at + out * (radius + size);
            metal.push(Metal { a: middle, b: middle + rng.normal3() * 0.5, radius_mm: size, streaks: 320.0 });
        }
    }
    if rng.chance((2.0 * pathology).min(1.0)) {
        for _ in 0..1 + rng.weighted(&[1.0; 4]) {
            let side = if rng.chance(0.5) { 1.0 } else { -1.0 };
            let tooth = vec3(side * rng.uniform(10.0, 27.0), rng.uniform(-78.0, -50.0), rng.uniform(-82.0, -72.0));
            let at = atlas.warp.place(tooth);
            metal.push(Metal { a: at, b: at + rng.normal3() * 1.5, radius_mm: rng.uniform(1.5, 3.0), streaks: 260.0 });
        }
    }
    metal
}
