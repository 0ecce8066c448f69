//! From a specification and a seed to a phantom.

use std::ops::Range;

use rayon::prelude::*;
use willis_core::{Grid, Image, Lesion, Modality, SeriesMeta, Sex, Shape, VoxelPoint};

use crate::atlas::Atlas;
use crate::head::Head;
use crate::lesion::{self, Sac};
use crate::mimics;
use crate::random::{Draw, mix, stream};
use crate::render::{Boxed, Canvas, Capsule, Lumen};
use crate::scanner::{Background, Scanner};
use crate::spec::{FieldOfView, LesionPlan, PhantomSpec, Randomisation};
use crate::vector::{Vec3, vec3};
use crate::veins::{self, Vein};

/// Output slices a task makes at once.
const SLAB: usize = 12;
/// Distance around arteries that is drawn, for the cisterns, mm.
const CISTERN_MM: f64 = 3.2;

/// A synthetic series with its truth.
#[derive(Debug, Clone)]
pub struct Phantom {
    /// Stored values on the scanner's grid.
    pub volume: Image<i16>,
    /// Slope and intercept from stored values to HU (CTA) or brightness (MR).
    pub rescale: (f64, f64),
    /// Site of each arterial voxel as [`willis_core::Site::mask_value`], 0 elsewhere; a sac's voxels carry its parent's site.
    pub sites: Image<u8>,
    /// 1 inside a sac.
    pub aneurysm: Image<u8>,
    /// True lesions, all within the scan.
    pub lesions: Vec<Lesion>,
    /// Header values.
    pub meta: SeriesMeta,
    /// What was asked for.
    pub spec: PhantomSpec,
}

/// What a slab needs to be drawn.
struct Scene<'a> {
    canvas: Canvas,
    /// Drawn slices per output slice.
    thickness: usize,
    arteries: Vec<Boxed<Capsule>>,
    veins: Vec<Boxed<Capsule>>,
    plaques: Vec<Boxed<Capsule>>,
    sacs: Vec<Boxed<&'a Sac>>,
    head: Head,
    /// Patient to mean head.
    to_head: [[f32; 4]; 3],
    scanner: Scanner,
}

/// Output of one slab.
struct Slab {
    stored: Vec<i16>,
    sites: Vec<u8>,
    aneurysm: Vec<u8>,
}

/// Makes a phantom. The same specification and seed give the same bytes at any number of threads.
pub fn synthesise(spec: &PhantomSpec, seed: u64) -> Phantom {
    let mut atlas = Atlas::draw(&mut stream(seed, "atlas"));
    mimics::disturb(&mut atlas, &mut stream(seed, "mimics"));
    let grid = place(spec, &atlas, seed);
    let mut scanner = Scanner::draw(spec.modality, spec.randomise, seed, &mut stream(seed, "scanner"));
    let window = Window::draw(spec, &atlas, &grid, &scanner, seed);
    let sacs = lesion::grow(&atlas, count(spec.lesions, seed), |p| window.shows(p), &mut stream(seed, "lesions"));
    let veins = veins::draw(&atlas.warp, &mut stream(seed, "veins"));
    if spec.randomise == Randomisation::Wide && stream(seed, "one brightness").chance(0.3) {
        scanner.slow_flow_loss = 0.0;
    }

    let thickness = (spec.spacing.z / (1.3 * spec.spacing.x.max(spec.spacing.y))).ceil().clamp(1.0, 12.0) as usize;
    let canvas = Canvas::new(thin(&grid, thickness));
    let scene = Scene {
        arteries: canvas.place_capsules(&window.keep(artery_capsules(&atlas, &scanner, seed)), CISTERN_MM),
        veins: canvas.place_capsules(&vein_capsules(&veins), 1.0),
        plaques: canvas.place_capsules(&plaques(&atlas, &scanner, seed), 1.0),
        sacs: canvas.place_sacs(&sacs),
        head: Head::draw(&mut stream(seed, "head")),
        to_head: atlas.warp.inverse_rows(),
        canvas,
        thickness,
        scanner,
    };
    let starts: Vec<usize> = (0..spec.shape.z).step_by(SLAB).collect();
    let slabs: Vec<Slab> =
        starts.par_iter().map(|z| scene.slab(*z..(z + SLAB).min(spec.shape.z), spec.shape)).collect();
    let mut parts = (Vec::new(), Vec::new(), Vec::new());
    for mut slab in slabs {
        parts.0.append(&mut slab.stored);
        parts.1.append(&mut slab.sites);
        parts.2.append(&mut slab.aneurysm);
    }
    let lesions: Vec<Lesion> = sacs.iter().map(|s| s.truth.clone()).collect();
    let mut phantom = Phantom {
        volume: Image::new(grid, parts.0),
        rescale: scene.scanner.rescale(),
        sites: Image::new(grid, parts.1),
        aneurysm: Image::new(grid, parts.2),
        meta: meta(spec.modality, !lesions.is_empty(), seed),
        lesions,
        spec: spec.clone(),
    };
    mark_centres(&mut phantom);
    phantom
}

/// A lesion smaller than a slice still marks the voxel at its centre.
fn mark_centres(phantom: &mut Phantom) {
    let grid = phantom.volume.grid;
    for lesion in &phantom.lesions {
        if let Some(p) = grid.affine.to_voxel(lesion.centre) {
            let i = grid.shape.offset(grid.shape.nearest(p));
            phantom.aneurysm.voxels[i] = 1;
            phantom.sites.voxels[i] = lesion.site.mask_value();
        }
    }
}

/// The scanner's grid around this patient.
fn place(spec: &PhantomSpec, atlas: &Atlas, seed: u64) -> Grid {
    let mut rng = stream(seed, "placement");
    let wide = spec.randomise == Randomisation::Wide;
    let middle = match spec.field_of_view {
        FieldOfView::Slab => vec3(0.0, 6.0, 4.0) + rng.normal3() * if wide { 9.0 } else { 4.0 },
        FieldOfView::WholeHead => vec3(0.0, 16.0, 8.0) + rng.normal3() * 4.0,
    };
    spec.grid(atlas.warp.place(middle))
}

/// The grid with each slice split into `parts`.
fn thin(grid: &Grid, parts: usize) -> Grid {
    let k = parts as f64;
    let start = VoxelPoint::new(-(k - 1.0) / (2.0 * k), 0.0, 0.0);
    Grid::new(
        Shape::new(grid.shape.z * parts, grid.shape.y, grid.shape.x),
        grid.affine.sub_grid(start, VoxelPoint::new(1.0 / k, 1.0, 1.0)),
    )
}

fn count(plan: LesionPlan, seed: u64) -> usize {
    let mut rng = stream(seed, "lesion count");
    match plan {
        LesionPlan::None => 0,
        LesionPlan::Exact(n) => n,
        LesionPlan::Random { prevalence } if rng.chance(prevalence) => {
            1 + rng.weighted(&[0.84, 0.11, 0.03, 0.01, 0.01])
        }
        LesionPlan::Random { .. } => 0,
    }
}

fn meta(modality: Modality, diseased: bool, seed: u64) -> SeriesMeta {
    let mut rng = stream(seed, "meta");
    let sex = if rng.chance(if diseased { 0.72 } else { 0.6 }) { Sex::Female } else { Sex::Male };
    SeriesMeta {
        uid: format!("2.25.{}", mix(seed)),
        modality: Some(modality),
        age_years: Some((58.0 + 14.0 * rng.normal()).clamp(18.0, 89.0).round() as f32),
        sex: Some(sex),
    }
}

/// The part of the patient's arteries a phantom shows.
struct Window {
    grid: Grid,
    inverse: willis_core::space::WorldToVoxel,
    /// Only arteries in this ball are drawn.
    ball: Option<(Vec3, f64)>,
    /// Only arteries with a site are drawn.
    named_only: bool,
}

impl Window {
    fn draw(spec: &PhantomSpec, atlas: &Atlas, grid: &Grid, scanner: &Scanner, seed: u64) -> Self {
        let mut rng = stream(seed, "window");
        let part = spec.randomise == Randomisation::Wide
            && rng.chance(if scanner.background == Background::Plain { 0.6 } else { 0.1 });
        let wall = &atlas.walls[rng.weighted(&vec![1.0; atlas.walls.len()])];
        let ball = (atlas.at(wall.artery, wall.range[0]).0, rng.uniform(18.0, 50.0));
        Self {
            grid: *grid,
            inverse: grid.affine.inverse().expect("a phantom's axes are never parallel"),
            ball: part.then_some(ball),
            named_only: scanner.background == Background::Plain,
        }
    }

    /// Whether a lesion at this place would be seen whole enough.
    fn shows(&self, p: Vec3) -> bool {
        let v = self.inverse.apply(p.into());
        let well_inside = |v: f64, n: usize| v >= 0.5 && v <= n as f64 - 1.5;
        let s = self.grid.shape;
        well_inside(v.z, s.z) && well_inside(v.y, s.y) && well_inside(v.x, s.x) && self.in_ball(p, 0.75)
    }

    fn in_ball(&self, p: Vec3, factor: f64) -> bool {
        self.ball.is_none_or(|(centre, radius)| (p - centre).length() < radius * factor)
    }

    fn keep(&self, mut capsules: Vec<Capsule>) -> Vec<Capsule> {
        capsules.retain(|c| self.in_ball(c.a, 1.0) && (c.label > 0 || !self.named_only));
        capsules
    }
}

fn artery_capsules(atlas: &Atlas, scanner: &Scanner, seed: u64) -> Vec<Capsule> {
    let mut rng = stream(seed, "flow");
    let mut out = Vec::new();
    for artery in &atlas.arteries {
        let label = artery.site.map_or(0, |s| s.mask_value());
        let own = rng.uniform(0.9, 1.0);
        for (p, r) in artery.points.windows(2).zip(artery.radii.windows(2)) {
            // Blood in small arteries is slower and further from the inflow.
            let slow = f64::from(scanner.slow_flow_loss) * (1.0 - r[0] / 1.4).clamp(0.0, 1.0);
            out.push(Capsule {
                a: p[0],
                b: p[1],
                radius_a: r[0] as f32,
                radius_b: r[1] as f32,
                label,
                signal: (own * (1.0 - slow)) as f32,
            });
        }
    }
    out
}

fn vein_capsules(veins: &[Vein]) -> Vec<Capsule> {
    let pieces = |vein: &Vein| {
        let (radius, signal) = (vein.radius_mm as f32, vein.filling as f32);
        vein.points
            .windows(2)
            .map(|p| Capsule { a: p[0], b: p[1], radius_a: radius, radius_b: radius, label: 0, signal })
            .collect::<Vec<_>>()
    };
    veins.iter().flat_map(pieces).collect()
}

/// Calcified plaques on the walls of carotids and vertebrals.
fn plaques(atlas: &Atlas, scanner: &Scanner, seed: u64) -> Vec<Capsule> {
    let mut rng = stream(seed, "plaques");
    if !scanner.shows_plaque() || rng.chance(0.4) {
        return Vec::new();
    }
    let mut out = Vec::new();
    let bearers: Vec<_> =
        atlas.arteries.iter().filter(|a| ["ica_infra", "ica_supra", "vertebral"].contains(&a.name)).collect();
    for _ in 0..rng.weighted(&[1.0; 9]) {
        let artery = bearers[rng.weighted(&vec![1.0; bearers.len()])];
        let i = (artery.points.len() as f64 * rng.uniform(0.55, 0.99)) as usize;
        let out_of_axis = rng.normal3().unit() * artery.radii[i];
        let at = artery.points[i] + out_of_axis;
        let radius = rng.uniform(0.3, 1.1) as f32;
        let b = at + rng.normal3() * 0.8;
        out.push(Capsule {
            a: at,
            b,
            radius_a: radius,
            radius_b: radius * 0.7,
            label: 0,
            signal: rng.uniform(600.0, 1300.0) as f32,
        });
    }
    out
}

impl Scene<'_> {
    /// Draws some output slices, with one more on either side for the blur.
    fn slab(&self, slices: Range<usize>, shape: Shape) -> Slab {
        let around = slices.start.saturating_sub(1)..(slices.end + 1).min(shape.z);
        let plane = shape.y * shape.x;
        let drawn = around.start * self.thickness..around.end * self.thickness;
        let mut arteries = Lumen::draw(&self.canvas, drawn.clone(), &self.arteries);
        arteries.add_sacs(&self.canvas, drawn.clone(), &self.sacs);
        let veins = Lumen::draw(&self.canvas, drawn.clone(), &self.veins);
        let plaques = (!self.plaques.is_empty()).then(|| Lumen::draw(&self.canvas, drawn.clone(), &self.plaques));

        let mut bright = vec![0.0f32; around.len() * plane];
        let mut sites = vec![0u8; slices.len() * plane];
        let mut aneurysm = vec![0u8; slices.len() * plane];
        let share = 1.0 / self.thickness as f32;
        let middle = self.canvas.middle().f32();
        for z in drawn.clone() {
            let output = z / self.thickness;
            let bright = &mut bright[(output - around.start) * plane..][..plane];
            for y in 0..shape.y {
                let (start, step) = self.canvas.row(z, y);
                let base = ((z - drawn.start) * shape.y + y) * shape.x;
                for x in 0..shape.x {
                    let k = x as f32;
                    let local = [start[0] + step[0] * k, start[1] + step[1] * k, start[2] + step[2] * k];
                    let mut value = self.blood_and_tissue(local, middle, &arteries, &veins, base + x);
                    if let Some(p) = &plaques {
                        value += (p.signal[base + x] - value) * p.cover[base + x];
                    }
                    bright[y * shape.x + x] += share * value;
                }
            }
            if slices.contains(&output) {
                let at = (output - slices.start) * plane;
                let from = (z - drawn.start) * plane;
                for i in 0..plane {
                    sites[at + i] = sites[at + i].max(arteries.label[from + i]);
                    aneurysm[at + i] |= arteries.sac[from + i];
                    if arteries.sac[from + i] == 1 {
                        sites[at + i] = arteries.label[from + i];
                    }
                }
            }
        }
        self.scanner.blur(&mut bright, [around.len(), shape.y, shape.x]);
        let mut stored = Vec::with_capacity(slices.len() * plane);
        for z in slices {
            let slice = &bright[(z - around.start) * plane..][..plane];
            let middle_of_slice = z * self.thickness + self.thickness / 2;
            stored.extend(self.scanner.store(slice, z, [shape.y, shape.x], |y| self.canvas.row(middle_of_slice, y)));
        }
        Slab { stored, sites, aneurysm }
    }

    fn blood_and_tissue(&self, local: [f32; 3], middle: [f32; 3], arteries: &Lumen, veins: &Lumen, i: usize) -> f32 {
        let blood = arteries.cover[i];
        let mut value = 0.0;
        if blood < 1.0 {
            let filled = veins.cover[i];
            if filled < 1.0 {
                value = match self.scanner.background {
                    Background::Plain | Background::Zeroed => {
                        self.scanner.tissue(crate::head::Tissue::Grey, true, local)
                    }
                    _ => {
                        let p = [local[0] + middle[0], local[1] + middle[1], local[2] + middle[2]];
                        let mean = self.to_head.map(|r| r[0] * p[0] + r[1] * p[1] + r[2] * p[2] + r[3]);
                        let (tissue, inside) = self.head.tissue(mean, arteries.distance[i]);
                        self.scanner.tissue(tissue, inside, local)
                    }
                };
            }
            if filled > 0.0 {
                value += (self.scanner.vein(veins.signal[i]) - value) * filled;
            }
        }
        if blood > 0.0 {
            value += (self.scanner.artery(arteries.signal[i], local) - value) * blood;
        }
        value
    }
}
