//! Tubes and sacs onto a slab of voxels: distances, coverage, labels. Knows nothing of tissue or
//! scanners.

use willis_core::{Grid, Point, Shape, VoxelPoint};

use crate::lesion::{Sac, smooth_min};
use crate::vector::{Vec3, vec3};

/// A straight piece of tube.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Capsule {
    pub a: Vec3,
    pub b: Vec3,
    pub radius_a: f32,
    pub radius_b: f32,
    /// Mask value; 0 for vessels without one.
    pub label: u8,
    /// Relative brightness of its blood, about 1.
    pub signal: f32,
}

/// The grid things are drawn on, in single precision around its own middle.
#[derive(Debug, Clone)]
pub(crate) struct Canvas {
    pub shape: Shape,
    grid: Grid,
    middle: Vec3,
    origin: [f32; 3],
    /// World step of one voxel along x, y, z.
    steps: [[f32; 3]; 3],
    /// Voxels per mm along z, y, x.
    reach: [f64; 3],
    /// Edge of the cube as large as a voxel, mm.
    pub voxel_mm: f32,
}

/// A drawable with the voxels it may touch.
#[derive(Debug, Clone)]
pub(crate) struct Boxed<T> {
    item: T,
    low: [i64; 3],
    high: [i64; 3],
}

/// What vessels do to each voxel of a slab.
#[derive(Debug, Clone)]
pub(crate) struct Lumen {
    /// Distance to the nearest wall, mm, negative inside; [`FAR_MM`] where nothing is near.
    pub distance: Vec<f32>,
    /// Part of the voxel inside, 0 to 1.
    pub cover: Vec<f32>,
    /// Brightness of the blood.
    pub signal: Vec<f32>,
    /// Mask value.
    pub label: Vec<u8>,
    /// 1 inside a sac.
    pub sac: Vec<u8>,
}

/// Distance of voxels far from any vessel.
pub(crate) const FAR_MM: f32 = 99.0;

impl Canvas {
    /// # Panics
    /// if the grid's map is singular (grids come from a [`crate::PhantomSpec`], whose axes are
    /// never parallel).
    pub fn new(grid: Grid) -> Self {
        let inverse = grid.affine.inverse().expect("a phantom's axes are never parallel");
        let zero = inverse.apply(Point::new(0.0, 0.0, 0.0));
        let unit =
            [Point::new(1.0, 0.0, 0.0), Point::new(0.0, 1.0, 0.0), Point::new(0.0, 0.0, 1.0)].map(|p| inverse.apply(p));
        let norm = |f: &dyn Fn(VoxelPoint) -> f64| unit.iter().map(|u| (f(*u) - f(zero)).powi(2)).sum::<f64>().sqrt();
        let middle: Vec3 = grid.centre().into();
        let m = grid.affine.0;
        let step = |j: usize| [m[0][j] as f32, m[1][j] as f32, m[2][j] as f32];
        Self {
            shape: grid.shape,
            middle,
            origin: (vec3(m[0][3], m[1][3], m[2][3]) - middle).f32(),
            steps: [step(0), step(1), step(2)],
            reach: [norm(&|v| v.z), norm(&|v| v.y), norm(&|v| v.x)],
            voxel_mm: grid.spacing().voxel_volume_mm3().cbrt() as f32,
            grid,
        }
    }

    /// World position of a voxel relative to the middle, and the middle.
    pub fn middle(&self) -> Vec3 {
        self.middle
    }

    /// Start of a row relative to the middle, and the step along it, mm.
    pub fn row(&self, z: usize, y: usize) -> ([f32; 3], [f32; 3]) {
        let start = std::array::from_fn(|i| self.origin[i] + self.steps[2][i] * z as f32 + self.steps[1][i] * y as f32);
        (start, self.steps[0])
    }

    fn boxed<T>(&self, item: T, ends: [Vec3; 2], radius_mm: f64) -> Option<Boxed<T>> {
        let [a, b] = ends.map(|p| self.grid.affine.to_voxel(p.into()));
        let (a, b) = (a?, b?);
        let extent = [self.shape.z, self.shape.y, self.shape.x];
        let pairs = [(a.z, b.z), (a.y, b.y), (a.x, b.x)];
        let low: [i64; 3] =
            std::array::from_fn(|i| ((pairs[i].0.min(pairs[i].1) - radius_mm * self.reach[i]).ceil() as i64).max(0));
        let high: [i64; 3] = std::array::from_fn(|i| {
            ((pairs[i].0.max(pairs[i].1) + radius_mm * self.reach[i]).floor() as i64).min(extent[i] as i64 - 1)
        });
        (0..3).all(|i| low[i] <= high[i]).then_some(Boxed { item, low, high })
    }

    /// Tubes with the voxels within `margin_mm` of them; tubes off the grid are dropped.
    pub fn place_capsules(&self, capsules: &[Capsule], margin_mm: f64) -> Vec<Boxed<Capsule>> {
        let place = |c: &Capsule| {
            let local = Capsule { a: c.a - self.middle, b: c.b - self.middle, ..*c };
            self.boxed(local, [c.a, c.b], f64::from(c.radius_a.max(c.radius_b)) + margin_mm)
        };
        capsules.iter().filter_map(place).collect()
    }

    /// Sacs with the voxels they may touch.
    pub fn place_sacs<'a>(&self, sacs: &'a [Sac]) -> Vec<Boxed<&'a Sac>> {
        let place = |sac: &'a Sac| {
            let (centre, radius) = sac.bound();
            self.boxed(sac, [centre, centre], radius)
        };
        sacs.iter().filter_map(place).collect()
    }
}

impl Lumen {
    /// Draws tubes on the slices `slab` of a canvas; in each voxel the nearest wall wins.
    pub fn draw(canvas: &Canvas, slab: std::ops::Range<usize>, capsules: &[Boxed<Capsule>]) -> Self {
        let n = slab.len() * canvas.shape.y * canvas.shape.x;
        let mut lumen = Self {
            distance: vec![FAR_MM; n],
            cover: vec![0.0; n],
            signal: vec![1.0; n],
            label: vec![0; n],
            sac: Vec::new(),
        };
        for boxed in capsules {
            lumen.add_capsule(canvas, &slab, boxed);
        }
        lumen
    }

    fn add_capsule(&mut self, canvas: &Canvas, slab: &std::ops::Range<usize>, boxed: &Boxed<Capsule>) {
        let c = &boxed.item;
        let (a, axis) = (c.a.f32(), (c.b - c.a).f32());
        let inverse_square = 1.0 / (axis[0] * axis[0] + axis[1] * axis[1] + axis[2] * axis[2]).max(1e-12);
        let grow = c.radius_b - c.radius_a;
        let voxel = canvas.voxel_mm;
        let radius = c.radius_a.max(c.radius_b);
        // A tube thinner than a voxel fills only part of it, yet its mask must not break up.
        let most = (std::f32::consts::PI * radius * radius / (voxel * voxel)).min(1.0);
        let slack = (0.55 * voxel - radius).max(0.0);
        let (low, high) = ((boxed.low[0].max(slab.start as i64)) as usize, boxed.high[0].min(slab.end as i64 - 1));
        for z in low as i64..=high {
            for y in boxed.low[1]..=boxed.high[1] {
                let (start, step) = canvas.row(z as usize, y as usize);
                let base = ((z as usize - slab.start) * canvas.shape.y + y as usize) * canvas.shape.x;
                for x in boxed.low[2]..=boxed.high[2] {
                    let k = x as f32;
                    let p =
                        [start[0] + step[0] * k - a[0], start[1] + step[1] * k - a[1], start[2] + step[2] * k - a[2]];
                    let t = ((p[0] * axis[0] + p[1] * axis[1] + p[2] * axis[2]) * inverse_square).clamp(0.0, 1.0);
                    let d = [p[0] - axis[0] * t, p[1] - axis[1] * t, p[2] - axis[2] * t];
                    let distance = (d[0] * d[0] + d[1] * d[1] + d[2] * d[2]).sqrt() - (c.radius_a + grow * t);
                    let i = base + x as usize;
                    if distance < self.distance[i] {
                        self.distance[i] = distance;
                        if distance <= slack {
                            self.label[i] = c.label;
                        }
                    }
                    let cover = (0.5 - distance / voxel).clamp(0.0, 1.0) * most;
                    if cover > self.cover[i] {
                        self.cover[i] = cover;
                        self.signal[i] = c.signal;
                    }
                }
            }
        }
    }

    /// Melts sacs into the tubes and marks their voxels.
    pub fn add_sacs(&mut self, canvas: &Canvas, slab: std::ops::Range<usize>, sacs: &[Boxed<&Sac>]) {
        self.sac = vec![0; self.distance.len()];
        for boxed in sacs {
            let sac = boxed.item;
            let label = sac.truth.site.mask_value();
            let low = boxed.low[0].max(slab.start as i64);
            for z in low..=boxed.high[0].min(slab.end as i64 - 1) {
                for y in boxed.low[1]..=boxed.high[1] {
                    let (start, step) = canvas.row(z as usize, y as usize);
                    let base = ((z as usize - slab.start) * canvas.shape.y + y as usize) * canvas.shape.x;
                    for x in boxed.low[2]..=boxed.high[2] {
                        let at = |i: usize| f64::from(start[i] + step[i] * x as f32);
                        let p = canvas.middle + vec3(at(0), at(1), at(2));
                        self.add_sac_voxel(base + x as usize, sac, sac.distance(p), label, canvas.voxel_mm);
                    }
                }
            }
        }
    }

    fn add_sac_voxel(&mut self, i: usize, sac: &Sac, to_sac: f64, label: u8, voxel_mm: f32) {
        let to_vessel = f64::from(self.distance[i]);
        let joined = smooth_min(to_vessel, to_sac, sac.fillet_mm) as f32;
        if joined >= self.distance[i] {
            return;
        }
        self.distance[i] = joined;
        let cover = (0.5 - joined / voxel_mm).clamp(0.0, 1.0);
        if cover > self.cover[i] {
            let weight = 1.0 - self.cover[i] / cover;
            self.signal[i] += (sac.flow - self.signal[i]) * weight;
            self.cover[i] = cover;
        }
        if joined <= 0.0 && to_vessel > 0.0 && to_sac < to_vessel {
            self.sac[i] = 1;
            self.label[i] = label;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use willis_core::{Affine, Spacing};

    fn canvas(n: usize, mm: f64) -> Canvas {
        let corner = -(n as f64 - 1.0) / 2.0 * mm;
        Canvas::new(Grid::new(
            Shape::new(n, n, n),
            Affine::axis_aligned(Spacing::isotropic(mm), Point::new(corner, corner, corner)),
        ))
    }

    fn tube(radius: f32) -> Capsule {
        Capsule {
            a: vec3(-30.0, 0.0, 0.0),
            b: vec3(30.0, 0.0, 0.0),
            radius_a: radius,
            radius_b: radius,
            label: 9,
            signal: 0.8,
        }
    }

    #[test]
    fn coverage_is_the_tubes_cross_section() {
        for (radius, mm) in [(2.0f32, 0.5), (1.0, 0.4), (0.3, 0.8)] {
            let canvas = canvas(33, mm);
            let placed = canvas.place_capsules(&[tube(radius)], 3.0);
            let lumen = Lumen::draw(&canvas, 0..33, &placed);
            let middle = 16;
            let area: f32 = (0..33 * 33).map(|i| lumen.cover[i * 33 + middle]).sum::<f32>() * (mm * mm) as f32;
            let expected = std::f32::consts::PI * radius * radius;
            assert!((area / expected - 1.0).abs() < 0.15, "{radius} {mm}: {area} against {expected}");
        }
    }

    #[test]
    fn slabs_agree_with_the_whole() {
        let canvas = canvas(24, 0.7);
        let placed = canvas.place_capsules(&[tube(1.5)], 3.0);
        let whole = Lumen::draw(&canvas, 0..24, &placed);
        let part = Lumen::draw(&canvas, 10..14, &placed);
        let plane = 24 * 24;
        assert_eq!(part.distance, whole.distance[10 * plane..14 * plane]);
        assert_eq!(part.label, whole.label[10 * plane..14 * plane]);
        assert!(whole.label.contains(&9));
    }

    #[test]
    fn thin_tubes_keep_an_unbroken_mask() {
        let canvas = canvas(33, 0.8);
        let slanted = Capsule { a: vec3(-11.0, -7.0, -5.0), b: vec3(11.0, 7.0, 5.0), ..tube(0.3) };
        let lumen = Lumen::draw(&canvas, 0..33, &canvas.place_capsules(&[slanted], 3.0));
        for x in 4..29 {
            assert!((0..33 * 33).any(|i| lumen.label[i * 33 + x] == 9), "gap at column {x}");
        }
    }
}
