//! Rasterises vessels and sacs to distances, coverage and labels.

use willis_core::{Grid, Point, Shape, VoxelPoint};

use crate::lesion::{SacShape, smooth_min};
use crate::vector::{Vec3, vec3};

/// A straight piece of a vessel between two centreline points.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Capsule {
    /// Start, LPS mm.
    pub a: Vec3,
    /// End, LPS mm.
    pub b: Vec3,
    /// Radius at `a`, mm.
    pub radius_a: f32,
    /// Radius at `b`, mm.
    pub radius_b: f32,
    /// Mask value of the site; 0 for vessels without a site.
    pub label: u8,
    /// Brightness relative to the blood of its kind of vessel, about 1; in HU for plaques.
    pub signal: f32,
}

/// The grid that vessels are rasterised on. Positions are in single precision relative to its
/// centre.
#[derive(Debug, Clone)]
pub(crate) struct Canvas {
    pub shape: Shape,
    grid: Grid,
    /// Centre of the grid, LPS mm.
    middle: Vec3,
    /// First voxel relative to the centre, mm.
    origin: [f32; 3],
    /// Step of one voxel along x, y, z, LPS mm.
    steps: [[f32; 3]; 3],
    /// Voxels per millimetre along z, y, x.
    reach: [f64; 3],
    /// Edge of a cube with the volume of a voxel, mm.
    pub voxel_mm: f32,
}

/// An object and the range of voxels that it may touch.
#[derive(Debug, Clone)]
pub(crate) struct Bounded<T> {
    item: T,
    /// First voxel `[z, y, x]`.
    low: [i64; 3],
    /// Last voxel `[z, y, x]`.
    high: [i64; 3],
}

/// Vessels rasterised to a block of slices; one value per voxel.
#[derive(Debug, Clone)]
pub(crate) struct VesselRaster {
    /// Signed distance to the nearest wall, mm; negative inside, [`FAR_MM`] far from all vessels.
    pub distance: Vec<f32>,
    /// Fraction of the voxel inside a vessel, 0 to 1.
    pub cover: Vec<f32>,
    /// Relative brightness of the blood.
    pub signal: Vec<f32>,
    /// Mask value of the site.
    pub label: Vec<u8>,
    /// 1 inside a sac; empty until [`Self::add_sacs`].
    pub sac: Vec<u8>,
}

/// Distance of voxels that are far from all vessels, mm.
pub(crate) const FAR_MM: f32 = 99.0;

impl Canvas {
    /// Creates a canvas on a grid.
    ///
    /// # Panics
    /// If the affine of the grid is singular. That of a [`crate::PhantomSpec`] never is.
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

    /// Centre of the grid, LPS mm.
    pub fn middle(&self) -> Vec3 {
        self.middle
    }

    /// First voxel of a row relative to the centre, and the step along the row, mm.
    pub fn row(&self, z: usize, y: usize) -> ([f32; 3], [f32; 3]) {
        let start = std::array::from_fn(|i| self.origin[i] + self.steps[2][i] * z as f32 + self.steps[1][i] * y as f32);
        (start, self.steps[0])
    }

    fn bounded<T>(&self, item: T, ends: [Vec3; 2], radius_mm: f64) -> Option<Bounded<T>> {
        let [a, b] = ends.map(|p| self.grid.affine.to_voxel(p.into()));
        let (a, b) = (a?, b?);
        let extent = [self.shape.z, self.shape.y, self.shape.x];
        let pairs = [(a.z, b.z), (a.y, b.y), (a.x, b.x)];
        let low: [i64; 3] =
            std::array::from_fn(|i| ((pairs[i].0.min(pairs[i].1) - radius_mm * self.reach[i]).ceil() as i64).max(0));
        let high: [i64; 3] = std::array::from_fn(|i| {
            ((pairs[i].0.max(pairs[i].1) + radius_mm * self.reach[i]).floor() as i64).min(extent[i] as i64 - 1)
        });
        (0..3).all(|i| low[i] <= high[i]).then_some(Bounded { item, low, high })
    }

    /// Capsules with the voxels within `margin_mm` of them, without those outside the grid. Their
    /// ends become relative to the centre.
    pub fn place_capsules(&self, capsules: &[Capsule], margin_mm: f64) -> Vec<Bounded<Capsule>> {
        let place = |c: &Capsule| {
            let local = Capsule { a: c.a - self.middle, b: c.b - self.middle, ..*c };
            self.bounded(local, [c.a, c.b], f64::from(c.radius_a.max(c.radius_b)) + margin_mm)
        };
        capsules.iter().filter_map(place).collect()
    }

    /// Sacs with the voxels that they may touch, without those outside the grid.
    pub fn place_sacs<'a>(&self, sacs: &'a [SacShape]) -> Vec<Bounded<&'a SacShape>> {
        let place = |sac: &'a SacShape| {
            let (centre, radius) = sac.bound();
            self.bounded(sac, [centre, centre], radius)
        };
        sacs.iter().filter_map(place).collect()
    }
}

impl VesselRaster {
    /// Rasterises capsules to the slices `slab` of a canvas. Each voxel takes the label of the
    /// nearest wall and the signal of the capsule that covers it most.
    pub fn draw(canvas: &Canvas, slab: std::ops::Range<usize>, capsules: &[Bounded<Capsule>]) -> Self {
        let n = slab.len() * canvas.shape.y * canvas.shape.x;
        let mut raster = Self {
            distance: vec![FAR_MM; n],
            cover: vec![0.0; n],
            signal: vec![1.0; n],
            label: vec![0; n],
            sac: Vec::new(),
        };
        for bounded in capsules {
            raster.add_capsule(canvas, &slab, bounded);
        }
        raster
    }

    fn add_capsule(&mut self, canvas: &Canvas, slab: &std::ops::Range<usize>, bounded: &Bounded<Capsule>) {
        let c = &bounded.item;
        let (a, axis) = (c.a.f32(), (c.b - c.a).f32());
        let inverse_square = 1.0 / (axis[0] * axis[0] + axis[1] * axis[1] + axis[2] * axis[2]).max(1e-12);
        let grow = c.radius_b - c.radius_a;
        let voxel = canvas.voxel_mm;
        let radius = c.radius_a.max(c.radius_b);
        // A vessel thinner than a voxel covers only part of it, but its labels must stay connected.
        let largest_cover = (std::f32::consts::PI * radius * radius / (voxel * voxel)).min(1.0);
        let slack = (0.55 * voxel - radius).max(0.0);
        let (low, high) = ((bounded.low[0].max(slab.start as i64)) as usize, bounded.high[0].min(slab.end as i64 - 1));
        for z in low as i64..=high {
            for y in bounded.low[1]..=bounded.high[1] {
                let (start, step) = canvas.row(z as usize, y as usize);
                let base = ((z as usize - slab.start) * canvas.shape.y + y as usize) * canvas.shape.x;
                for x in bounded.low[2]..=bounded.high[2] {
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
                    let cover = (0.5 - distance / voxel).clamp(0.0, 1.0) * largest_cover;
                    if cover > self.cover[i] {
                        self.cover[i] = cover;
                        self.signal[i] = c.signal;
                    }
                }
            }
        }
    }

    /// Blends sacs into the vessels and labels their voxels.
    pub fn add_sacs(&mut self, canvas: &Canvas, slab: std::ops::Range<usize>, sacs: &[Bounded<&SacShape>]) {
        self.sac = vec![0; self.distance.len()];
        for bounded in sacs {
            let sac = bounded.item;
            let label = sac.truth.site.mask_value();
            let low = bounded.low[0].max(slab.start as i64);
            for z in low..=bounded.high[0].min(slab.end as i64 - 1) {
                for y in bounded.low[1]..=bounded.high[1] {
                    let (start, step) = canvas.row(z as usize, y as usize);
                    let base = ((z as usize - slab.start) * canvas.shape.y + y as usize) * canvas.shape.x;
                    for x in bounded.low[2]..=bounded.high[2] {
                        let at = |i: usize| f64::from(start[i] + step[i] * x as f32);
                        let p = canvas.middle + vec3(at(0), at(1), at(2));
                        self.add_sac_voxel(base + x as usize, sac, p, label, canvas.voxel_mm);
                    }
                }
            }
        }
    }

    fn add_sac_voxel(&mut self, i: usize, sac: &SacShape, p: Vec3, label: u8, voxel_mm: f32) {
        let to_sac = sac.distance(p);
        let to_vessel = f64::from(self.distance[i]);
        let joined = smooth_min(to_vessel, to_sac, sac.fillet_mm) as f32;
        if joined >= self.distance[i] {
            return;
        }
        self.distance[i] = joined;
        let cover = (0.5 - joined / voxel_mm).clamp(0.0, 1.0);
        if cover > self.cover[i] {
            let weight = 1.0 - self.cover[i] / cover;
            self.signal[i] += (sac.signal_at(p) - self.signal[i]) * weight;
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
    fn coverage_adds_up_to_the_cross_section_of_a_tube() {
        for (radius, mm) in [(2.0f32, 0.5), (1.0, 0.4), (0.3, 0.8)] {
            let canvas = canvas(33, mm);
            let placed = canvas.place_capsules(&[tube(radius)], 3.0);
            let raster = VesselRaster::draw(&canvas, 0..33, &placed);
            let middle = 16;
            let area: f32 = (0..33 * 33).map(|i| raster.cover[i * 33 + middle]).sum::<f32>() * (mm * mm) as f32;
            let expected = std::f32::consts::PI * radius * radius;
            assert!((area / expected - 1.0).abs() < 0.15, "{radius} {mm}: {area} against {expected}");
        }
    }

    #[test]
    fn a_block_equals_the_same_slices_of_the_whole_grid() {
        let canvas = canvas(24, 0.7);
        let placed = canvas.place_capsules(&[tube(1.5)], 3.0);
        let whole = VesselRaster::draw(&canvas, 0..24, &placed);
        let part = VesselRaster::draw(&canvas, 10..14, &placed);
        let plane = 24 * 24;
        assert_eq!(part.distance, whole.distance[10 * plane..14 * plane]);
        assert_eq!(part.label, whole.label[10 * plane..14 * plane]);
        assert!(whole.label.contains(&9));
    }

    #[test]
    fn labels_of_thin_tubes_are_connected() {
        let canvas = canvas(33, 0.8);
        let slanted = Capsule { a: vec3(-11.0, -7.0, -5.0), b: vec3(11.0, 7.0, 5.0), ..tube(0.3) };
        let raster = VesselRaster::draw(&canvas, 0..33, &canvas.place_capsules(&[slanted], 3.0));
        for x in 4..29 {
            assert!((0..33 * 33).any(|i| raster.label[i * 33 + x] == 9), "gap at column {x}");
        }
    }
}
