//! The position of the scan, and the arteries that it shows.

use willis_core::Grid;
use willis_core::space::WorldToVoxel;

use crate::atlas::Atlas;
use crate::lesion::SITE_COUNTS;
use crate::random::{Draw, stream};
use crate::render::Capsule;
use crate::scanner::{Background, Scanner};
use crate::spec::{FieldOfView, PhantomSpec, Randomisation};
use crate::vector::{Vec3, vec3};

/// Draws the position of the scanner's grid on this patient.
pub(crate) fn place(spec: &PhantomSpec, atlas: &Atlas, seed: u64) -> Grid {
    let mut rng = stream(seed, "placement");
    let wide = spec.randomise == Randomisation::Wide;
    let middle = match spec.field_of_view {
        FieldOfView::Slab => vec3(0.0, 6.0, 4.0) + rng.normal3() * if wide { 9.0 } else { 4.0 },
        FieldOfView::WholeHead => vec3(0.0, 16.0, 8.0) + rng.normal3() * 4.0,
    };
    spec.grid(atlas.warp.place(middle))
}

/// The part of the patient's arteries that a phantom shows.
pub(crate) struct VisibleArteries {
    grid: Grid,
    inverse: WorldToVoxel,
    /// Centre and radius in mm of the ball outside of which no artery is drawn.
    ball: Option<(Vec3, f64)>,
    /// Whether arteries without a site are left out.
    named_only: bool,
}

impl VisibleArteries {
    /// Draws the visible part. A widely randomised phantom may show only the arteries in a ball
    /// around a typical aneurysm wall.
    pub fn draw(spec: &PhantomSpec, atlas: &Atlas, grid: &Grid, scanner: &Scanner, seed: u64) -> Self {
        let mut rng = stream(seed, "window");
        let plain = scanner.background == Background::Plain;
        let part = spec.randomise == Randomisation::Wide && rng.chance(if plain { 0.5 } else { 0.1 });
        let weights: Vec<f64> = atlas.walls.iter().map(|w| w.weight * SITE_COUNTS[w.site.column()]).collect();
        let wall = &atlas.walls[rng.weighted(&weights)];
        let ball = (atlas.at(wall.artery, wall.range[1]).0 + rng.normal3() * 6.0, rng.uniform(20.0, 60.0));
        Self {
            grid: *grid,
            inverse: grid.affine.inverse().expect("a phantom's axes are never parallel"),
            ball: part.then_some(ball),
            named_only: plain,
        }
    }

    /// Whether a lesion at this position would be visible.
    pub fn shows(&self, p: Vec3) -> bool {
        let v = self.inverse.apply(p.into());
        let well_inside = |v: f64, n: usize| v >= 0.5 && v <= n as f64 - 1.5;
        let s = self.grid.shape;
        well_inside(v.z, s.z) && well_inside(v.y, s.y) && well_inside(v.x, s.x) && self.in_ball(p, 0.75)
    }

    /// Removes the capsules that are not visible.
    pub fn keep(&self, mut capsules: Vec<Capsule>) -> Vec<Capsule> {
        capsules.retain(|c| self.in_ball(c.a, 1.0) && (c.label > 0 || !self.named_only));
        capsules
    }

    fn in_ball(&self, p: Vec3, factor: f64) -> bool {
        self.ball.is_none_or(|(centre, radius)| (p - centre).length() < radius * factor)
    }
}
