//! One patient in one scanner, rendered in blocks of slices.

use std::ops::Range;

use willis_core::{Grid, Shape, VoxelPoint};

use crate::appearance::Scan;
use crate::atlas::Atlas;
use crate::head::{HeadAnatomy, Tissue};
use crate::lesion::SacShape;
use crate::random::{Draw, stream};
use crate::render::{Bounded, Canvas, Capsule, VesselRaster};
use crate::scanner::Scanner;
use crate::spec::PhantomSpec;
use crate::veins::{self, Vein};
use crate::visibility::VisibleArteries;

/// Number of thin slices that one task renders at once; bounds its memory.
const DRAWN_SLICES: usize = 12;
/// Distances to arterial walls are computed up to this value, for the cisterns; mm.
const CISTERN_MM: f64 = 3.2;

/// The parts of a scene.
pub(crate) struct SceneInput<'a> {
    /// Specification of the phantom.
    pub spec: &'a PhantomSpec,
    /// The scanner's grid.
    pub grid: Grid,
    /// Arteries of the patient.
    pub atlas: &'a Atlas,
    /// Aneurysms of the patient.
    pub sacs: &'a [SacShape],
    /// Arteries that the image shows.
    pub visible: &'a VisibleArteries,
    /// The scanner.
    pub look: Look,
    /// Seed of everything that is drawn here.
    pub seed: u64,
}

/// What gives tissue and blood their brightness.
#[derive(Debug, Clone)]
pub(crate) enum Look {
    /// The plain scanner.
    Plain(Box<Scanner>),
    /// An acquisition of another model.
    Scan(Box<Scan>),
}

/// Everything that is needed to render slices.
pub(crate) struct Scene<'a> {
    shape: Shape,
    canvas: Canvas,
    /// Thin slices that are averaged to one output slice.
    thickness: usize,
    arteries: Vec<Bounded<Capsule>>,
    veins: Vec<Bounded<Capsule>>,
    plaques: Vec<Bounded<Capsule>>,
    sacs: Vec<Bounded<&'a SacShape>>,
    head: HeadAnatomy,
    /// Affine map from the patient to the mean head.
    to_head: [[f32; 4]; 3],
    look: Look,
}

/// Consecutive slices of the output.
pub(crate) struct RenderedSlices {
    /// Stored values; empty if the whole volume is acquired at once.
    pub stored: Vec<i16>,
    /// Brightness; empty if [`Self::stored`] is not.
    pub bright: Vec<f32>,
    /// Site of each arterial voxel as mask value, 0 elsewhere.
    pub sites: Vec<u8>,
    /// 1 inside an aneurysm sac, 0 elsewhere.
    pub aneurysm: Vec<u8>,
}

/// The grid with each slice divided into `parts`.
fn divide_slices(grid: &Grid, parts: usize) -> Grid {
    let k = parts as f64;
    let start = VoxelPoint::new(-(k - 1.0) / (2.0 * k), 0.0, 0.0);
    Grid::new(
        Shape::new(grid.shape.z * parts, grid.shape.y, grid.shape.x),
        grid.affine.sub_grid(start, VoxelPoint::new(1.0 / k, 1.0, 1.0)),
    )
}

fn artery_capsules(atlas: &Atlas, scanner: &Scanner, seed: u64) -> Vec<Capsule> {
    let mut rng = stream(seed, "flow");
    let mut out = Vec::new();
    for artery in &atlas.arteries {
        let label = artery.site.map_or(0, |s| s.mask_value());
        let own = rng.uniform(0.9, 1.0);
        for (p, r) in artery.points.windows(2).zip(artery.radii.windows(2)) {
            // Blood in small arteries is slower and farther from the inflow.
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

/// `cavernous` is the filling of the cavernous sinus relative to the other veins.
fn vein_capsules(veins: &[Vein], cavernous: f64) -> Vec<Capsule> {
    let pieces = |vein: &Vein| {
        let filling = if vein.cavernous { vein.filling * cavernous } else { vein.filling };
        let (radius, signal) = (vein.radius_mm as f32, filling as f32);
        vein.points
            .windows(2)
            .map(|p| Capsule { a: p[0], b: p[1], radius_a: radius, radius_b: radius, label: 0, signal })
            .collect::<Vec<_>>()
    };
    veins.iter().flat_map(pieces).collect()
}

/// Vessels without a site that are inside the head: a real head may be smaller than the mean one.
fn inside_head(mut capsules: Vec<Capsule>, scan: &Scan, to_head: &[[f32; 4]; 3]) -> Vec<Capsule> {
    capsules.retain(|capsule| {
        let p = capsule.a.f32();
        let mean = to_head.map(|r| r[0] * p[0] + r[1] * p[1] + r[2] * p[2] + r[3]);
        capsule.label > 0 || scan.sample(mean, 99.0).air < 0.5
    });
    capsules
}

/// Calcified plaques on the walls of the carotid and vertebral arteries.
fn plaques(atlas: &Atlas, shown: bool, seed: u64) -> Vec<Capsule> {
    let mut rng = stream(seed, "plaques");
    if !shown || rng.chance(0.4) {
        return Vec::new();
    }
    let mut out = Vec::new();
    let arteries: Vec<_> =
        atlas.arteries.iter().filter(|a| ["ica_infra", "ica_supra", "vertebral"].contains(&a.name)).collect();
    for _ in 0..rng.weighted(&[1.0; 9]) {
        let artery = arteries[rng.weighted(&vec![1.0; arteries.len()])];
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

impl<'a> Scene<'a> {
    /// Places the patient on the scanner's grid.
    pub fn new(input: SceneInput<'a>) -> Self {
        let SceneInput { spec, grid, atlas, sacs, visible, look, seed } = input;
        // Thick slices average thin ones, which gives partial volumes as in a scanner.
        let thickness = (spec.spacing.z / (1.3 * spec.spacing.x.max(spec.spacing.y))).ceil().clamp(1.0, 12.0) as usize;
        let canvas = Canvas::new(divide_slices(&grid, thickness));
        let veins = veins::draw(&atlas.warp, &mut stream(seed, "veins"));
        let to_head = atlas.warp.inverse_rows();
        let (arteries, veins, solid) = match &look {
            Look::Plain(scanner) => (
                artery_capsules(atlas, scanner, seed),
                vein_capsules(&veins, 1.0),
                plaques(atlas, scanner.shows_plaque(), seed),
            ),
            Look::Scan(scan) => {
                let mut rng = stream(seed, "cavernous sinus");
                let cavernous = if rng.chance(0.4) { 0.0 } else { rng.uniform(0.0, 1.3) };
                let in_head = |capsules: Vec<Capsule>| inside_head(capsules, scan, &to_head);
                let mut solid = plaques(atlas, scan.shows_plaque(), seed);
                solid.extend_from_slice(scan.metal());
                (in_head(scan.arteries()), in_head(vein_capsules(&veins, cavernous)), solid)
            }
        };
        Self {
            shape: spec.shape,
            arteries: canvas.place_capsules(&visible.keep(arteries), CISTERN_MM),
            veins: canvas.place_capsules(&veins, 1.0),
            plaques: canvas.place_capsules(&solid, 1.0),
            sacs: canvas.place_sacs(sacs),
            head: HeadAnatomy::draw(spec.look_alikes, &mut stream(seed, "head")),
            to_head,
            canvas,
            thickness,
            look,
        }
    }

    /// Slope and intercept of the stored values.
    pub fn rescale(&self) -> (f64, f64) {
        match &self.look {
            Look::Plain(scanner) => scanner.rescale(),
            Look::Scan(scan) => scan.acquisition.rescale(),
        }
    }

    /// Stored values of a whole volume of brightness.
    pub fn acquire(&self, bright: Vec<f32>) -> Vec<i16> {
        match &self.look {
            Look::Plain(_) => Vec::new(),
            Look::Scan(scan) => scan.acquisition.store(bright, self.shape.zyx()),
        }
    }

    /// Ranges of output slices that can be rendered with bounded memory.
    pub fn blocks(&self) -> Vec<Range<usize>> {
        let step = (DRAWN_SLICES / self.thickness).max(1);
        (0..self.shape.z).step_by(step).map(|z| z..(z + step).min(self.shape.z)).collect()
    }

    /// Renders output slices. One more slice on either side is rendered for the blur.
    pub fn render(&self, slices: Range<usize>) -> RenderedSlices {
        let shape = self.shape;
        // Thick slices are not blurred across slices.
        let halo = usize::from(self.thickness < 3 && matches!(self.look, Look::Plain(_)));
        let around = slices.start.saturating_sub(halo)..(slices.end + halo).min(shape.z);
        let plane = shape.y * shape.x;
        let drawn = around.start * self.thickness..around.end * self.thickness;
        let mut arteries = VesselRaster::draw(&self.canvas, drawn.clone(), &self.arteries);
        arteries.add_sacs(&self.canvas, drawn.clone(), &self.sacs);
        let veins = VesselRaster::draw(&self.canvas, drawn.clone(), &self.veins);
        let plaques =
            (!self.plaques.is_empty()).then(|| VesselRaster::draw(&self.canvas, drawn.clone(), &self.plaques));

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
                    let mut value = self.brightness(local, middle, &arteries, &veins, base + x);
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
        let Look::Plain(scanner) = &self.look else {
            return RenderedSlices { stored: Vec::new(), bright, sites, aneurysm };
        };
        scanner.blur(&mut bright, [around.len(), shape.y, shape.x], halo > 0);
        let mut stored = Vec::with_capacity(slices.len() * plane);
        for z in slices {
            let slice = &bright[(z - around.start) * plane..][..plane];
            let middle_of_slice = z * self.thickness + self.thickness / 2;
            stored.extend(scanner.store(slice, z, [shape.y, shape.x], |y| self.canvas.row(middle_of_slice, y)));
        }
        RenderedSlices { stored, bright: Vec::new(), sites, aneurysm }
    }

    /// Brightness of voxel `i` of a block at `local`, mm from the grid's centre `middle`.
    fn brightness(
        &self,
        local: [f32; 3],
        middle: [f32; 3],
        arteries: &VesselRaster,
        veins: &VesselRaster,
        i: usize,
    ) -> f32 {
        let (blood, filled) = (arteries.cover[i], veins.cover[i]);
        let mean = || {
            let p = [local[0] + middle[0], local[1] + middle[1], local[2] + middle[2]];
            self.to_head.map(|r| r[0] * p[0] + r[1] * p[1] + r[2] * p[2] + r[3])
        };
        let mut value = 0.0;
        match &self.look {
            Look::Plain(scanner) => {
                if blood < 1.0 && filled < 1.0 {
                    value = if scanner.only_vessels {
                        scanner.tissue(Tissue::Grey, true, local)
                    } else {
                        let (tissue, inside) = self.head.tissue(mean(), arteries.distance[i]);
                        scanner.tissue(tissue, inside, local)
                    };
                }
                if blood < 1.0 && filled > 0.0 {
                    value += (scanner.vein(veins.signal[i]) - value) * filled;
                }
                if blood > 0.0 {
                    value += (scanner.artery(arteries.signal[i], local) - value) * blood;
                }
            }
            Look::Scan(scan) => {
                let mean = mean();
                if blood < 1.0 && filled < 1.0 {
                    value = scan.tissue(mean, local, arteries.distance[i]);
                }
                if blood < 1.0 && filled > 0.0 {
                    value += (scan.vein(veins.signal[i], mean, local) - value) * filled;
                }
                if blood > 0.0 {
                    value += (scan.artery(arteries.signal[i], mean, local) - value) * blood;
                }
            }
        }
        value
    }
}
