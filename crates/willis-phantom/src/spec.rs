//! What to synthesise: modality, grid, lesions, how far from realistic.

use rand::Rng;
use willis_core::{Affine, Grid, Modality, Shape, Spacing, VoxelPoint};

use crate::atlas::rotation_rows;
use crate::random::Draw;
use crate::vector::{Vec3, vec3};

/// Plane of the slices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plane {
    /// Slices run from feet to head.
    Axial,
    /// Slices run from front to back.
    Coronal,
    /// Slices run from left to right.
    Sagittal,
}

/// What the scan covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldOfView {
    /// A box around the circle of Willis.
    Slab,
    /// From the neck to the vertex.
    WholeHead,
}

/// How many aneurysms there are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum LesionPlan {
    /// At least one with this probability; one in six of those heads has several, up to five.
    Random {
        /// Probability of at least one, 0 to 1.
        prevalence: f64,
    },
    /// None.
    None,
    /// This many, fewer only where the scan leaves no room.
    Exact(usize),
}

/// How far from a clinical series the image may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Randomisation {
    /// Like clinical series.
    Realistic,
    /// Contrasts, backgrounds, noise, cropping and resolution far beyond clinical ones, so that
    /// nets learn shape.
    Wide,
}

/// One phantom to be made; with a seed it decides every byte.
#[derive(Debug, Clone, PartialEq)]
pub struct PhantomSpec {
    /// Kind of series.
    pub modality: Modality,
    /// Voxels as scanned: slices, rows, columns.
    pub shape: Shape,
    /// Voxel size as scanned: between slices, rows, columns, mm.
    pub spacing: Spacing,
    /// Plane of the slices.
    pub plane: Plane,
    /// What the scan covers.
    pub field_of_view: FieldOfView,
    /// How many aneurysms.
    pub lesions: LesionPlan,
    /// Gantry tilt: slices stay parallel to the tilted plane while the table moves straight, so the
    /// grid is sheared, rad.
    pub tilt_rad: f64,
    /// Turn of the scanned box about x, y and z, rad.
    pub oblique_rad: [f64; 3],
    /// Clinical or wide.
    pub randomise: Randomisation,
}

/// How large drawn scans are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScanSize {
    /// As hospitals scan: 256 to 512 pixels across.
    Clinical,
    /// Slabs of 160 pixels across about the circle of Willis, at most 160 slices.
    Small,
    /// Slabs of 48 pixels across, for tests.
    Tiny,
    /// [`PhantomSpec::cta_512`], whatever the shares say.
    Reference,
}

/// Shares from which [`PhantomSpec::draw`] draws; the default is the challenge's training set
/// (rsna-challenge.md §1.3).
#[derive(Debug, Clone, PartialEq)]
pub struct CohortMix {
    /// Weight of each modality, in the order of [`Modality::ALL`].
    pub modalities: [f64; 4],
    /// Weight of axial, coronal and sagittal planes.
    pub planes: [f64; 3],
    /// Probability of at least one aneurysm.
    pub prevalence: f64,
    /// Aneurysms of a head that has any; drawn as [`LesionPlan::Random`] does when `None`.
    pub lesions: Option<usize>,
    /// Factor on the in-plane voxel size; 1 is clinical, larger is smaller and faster.
    pub coarseness: f64,
    /// How large scans are; `coarseness` is for clinical ones only.
    pub size: ScanSize,
    /// Share of series that are randomised widely; the others look clinical.
    pub wide_share: f64,
}

impl Default for CohortMix {
    fn default() -> Self {
        Self {
            modalities: [1808.0, 1252.0, 305.0, 983.0],
            planes: [0.965, 0.020, 0.015],
            prevalence: 1864.0 / 4348.0,
            lesions: None,
            coarseness: 1.0,
            size: ScanSize::Clinical,
            wide_share: 0.0,
        }
    }
}

impl CohortMix {
    fn lesions(&self, rng: &mut (impl Rng + ?Sized)) -> LesionPlan {
        match self.lesions {
            None => LesionPlan::Random { prevalence: self.prevalence },
            Some(count) if rng.chance(self.prevalence) => LesionPlan::Exact(count),
            Some(_) => LesionPlan::None,
        }
    }

    fn appearance(&self, rng: &mut (impl Rng + ?Sized)) -> Randomisation {
        if rng.chance(self.wide_share) { Randomisation::Wide } else { Randomisation::Realistic }
    }
}

impl PhantomSpec {
    /// A slab of 88 to 136 mm about the circle of Willis, `pixels` across; slices are thick where
    /// the modality's often are.
    fn draw_slab(
        rng: &mut (impl Rng + ?Sized),
        mix: &CohortMix,
        modality: Modality,
        plane: Plane,
        pixels: usize,
    ) -> Self {
        let extent = rng.uniform(88.0, 136.0);
        let in_plane = extent / pixels as f64;
        let thick = match modality {
            Modality::Cta | Modality::Mra => rng.uniform(0.5, 1.2),
            Modality::T1Post => rng.uniform(0.8, 2.0),
            Modality::T2 => rng.uniform(1.0, 4.5),
        };
        let between = if rng.chance(0.4) { in_plane } else { thick.max(in_plane) };
        let turn = |rng: &mut _| (0.1 * Draw::normal(rng)).clamp(-0.3, 0.3);
        Self {
            modality,
            shape: Shape::new(((extent / between) as usize).clamp(16, pixels), pixels, pixels),
            spacing: Spacing::new(between, in_plane, in_plane),
            plane,
            field_of_view: FieldOfView::Slab,
            lesions: mix.lesions(rng),
            tilt_rad: 0.0,
            oblique_rad: if rng.chance(0.35) { [turn(rng), turn(rng), turn(rng)] } else { [0.0; 3] },
            randomise: mix.appearance(rng),
        }
    }

    /// Draws a series as a hospital might have scanned it.
    pub fn draw(rng: &mut (impl Rng + ?Sized), mix: &CohortMix) -> Self {
        let modality = Modality::ALL[rng.weighted(&mix.modalities)];
        let plane = [Plane::Axial, Plane::Coronal, Plane::Sagittal][rng.weighted(&mix.planes)];
        match mix.size {
            ScanSize::Clinical => {}
            ScanSize::Small => return Self::draw_slab(rng, mix, modality, plane, 160),
            ScanSize::Tiny => return Self::draw_slab(rng, mix, modality, plane, 48),
            ScanSize::Reference => return Self { lesions: mix.lesions(rng), ..Self::cta_512() },
        }
        let k = mix.coarseness.max(0.2);
        // Field of view across and along the slices, and voxel sizes, mm.
        let (across, along, in_plane, between) = match modality {
            Modality::Cta => {
                (rng.uniform(190.0, 235.0), rng.uniform(130.0, 190.0), rng.uniform(0.40, 0.50), rng.uniform(0.5, 1.25))
            }
            Modality::Mra => {
                (rng.uniform(160.0, 210.0), rng.uniform(70.0, 115.0), rng.uniform(0.30, 0.55), rng.uniform(0.5, 0.9))
            }
            Modality::T1Post => {
                (rng.uniform(200.0, 240.0), rng.uniform(130.0, 170.0), rng.uniform(0.45, 0.95), rng.uniform(0.9, 1.6))
            }
            Modality::T2 => {
                (rng.uniform(200.0, 235.0), rng.uniform(120.0, 150.0), rng.uniform(0.40, 0.80), rng.uniform(2.0, 5.5))
            }
        };
        let count = |mm: f64, step: f64| (mm / step).round().max(16.0) as usize;
        let across = if plane == Plane::Axial { across } else { across.max(180.0) };
        let columns = count(across, in_plane * k);
        let rows = if rng.chance(0.75) { columns } else { count(across * 0.85, in_plane * k) };
        let between = if modality == Modality::T2 { between } else { between * k };
        let slab = modality == Modality::Mra && plane == Plane::Axial;
        let small = |rng: &mut _, sd: f64| (sd * Draw::normal(rng)).clamp(-0.35, 0.35);
        let oblique = if rng.chance(0.35) { [small(rng, 0.12), small(rng, 0.03), small(rng, 0.03)] } else { [0.0; 3] };
        Self {
            modality,
            shape: Shape::new(count(along, between), rows, columns),
            spacing: Spacing::new(between, in_plane * k, in_plane * k),
            plane,
            field_of_view: if slab { FieldOfView::Slab } else { FieldOfView::WholeHead },
            lesions: mix.lesions(rng),
            tilt_rad: if modality == Modality::Cta && rng.chance(0.05) { small(rng, 0.2) } else { 0.0 },
            oblique_rad: oblique,
            randomise: mix.appearance(rng),
        }
    }

    /// A box of 160³ voxels of 0.7 mm around the circle of Willis: what the nets train on.
    pub fn low_resolution(modality: Modality) -> Self {
        Self {
            modality,
            shape: Shape::new(160, 160, 160),
            spacing: Spacing::isotropic(0.7),
            plane: Plane::Axial,
            field_of_view: FieldOfView::Slab,
            lesions: LesionPlan::Random { prevalence: 0.5 },
            tilt_rad: 0.0,
            oblique_rad: [0.0; 3],
            randomise: Randomisation::Realistic,
        }
    }

    /// A wide phantom as large as [`PhantomSpec::low_resolution`], with voxels of 0.35 to 1.1 mm,
    /// slices up to twice as thick, and a turned box.
    pub fn wide(rng: &mut (impl Rng + ?Sized), modality: Modality) -> Self {
        let in_plane = 0.35 * (1.1f64 / 0.35).powf(rng.uniform(0.0, 1.0));
        let between = (in_plane * rng.uniform(0.8, 2.0)).min(1.6);
        Self {
            spacing: Spacing::new(between, in_plane, in_plane),
            oblique_rad: [0; 3].map(|_| (0.12 * rng.normal()).clamp(-0.35, 0.35)),
            randomise: Randomisation::Wide,
            ..Self::low_resolution(modality)
        }
    }

    /// A whole head of 300 slices of 512 x 512: the series the speed goal is stated for.
    pub fn cta_512() -> Self {
        Self {
            shape: Shape::new(300, 512, 512),
            spacing: Spacing::new(0.6, 0.45, 0.45),
            field_of_view: FieldOfView::WholeHead,
            ..Self::low_resolution(Modality::Cta)
        }
    }

    /// The scanner's grid, its middle at a place in the patient.
    pub(crate) fn grid(&self, middle: Vec3) -> Grid {
        let rotation = rotation_rows(self.oblique_rad);
        let turn = |v: Vec3| vec3(rotation[0].dot(v), rotation[1].dot(v), rotation[2].dot(v));
        let (columns, rows) = match self.plane {
            Plane::Axial => (vec3(1.0, 0.0, 0.0), vec3(0.0, 1.0, 0.0)),
            Plane::Coronal => (vec3(1.0, 0.0, 0.0), vec3(0.0, 0.0, -1.0)),
            Plane::Sagittal => (vec3(0.0, 1.0, 0.0), vec3(0.0, 0.0, -1.0)),
        };
        let normal = columns.cross(rows);
        let tilted = rows * self.tilt_rad.cos() + normal * self.tilt_rad.sin();
        let steps = [turn(columns) * self.spacing.x, turn(tilted) * self.spacing.y, turn(normal) * self.spacing.z];
        let [c, r, s] = steps;
        let mut affine = Affine([[c.x, r.x, s.x, 0.0], [c.y, r.y, s.y, 0.0], [c.z, r.z, s.z, 0.0]]);
        let half = |n: usize| (n as f64 - 1.0) / 2.0;
        let corner = affine.to_world(VoxelPoint::new(half(self.shape.z), half(self.shape.y), half(self.shape.x)));
        for (row, (m, k)) in affine.0.iter_mut().zip([(middle.x, corner.x), (middle.y, corner.y), (middle.z, corner.z)])
        {
            row[3] = m - k;
        }
        Grid::new(self.shape, affine)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::stream;

    #[test]
    fn grids_are_centred_right_handed_and_spaced() {
        for plane in [Plane::Axial, Plane::Coronal, Plane::Sagittal] {
            let spec = PhantomSpec {
                plane,
                oblique_rad: [0.1, 0.05, -0.1],
                spacing: Spacing::new(2.0, 0.5, 0.6),
                shape: Shape::new(20, 30, 41),
                ..PhantomSpec::low_resolution(Modality::Mra)
            };
            let grid = spec.grid(vec3(1.0, -2.0, 3.0));
            assert!(grid.centre().distance_mm(willis_core::Point::new(1.0, -2.0, 3.0)) < 1e-9);
            assert!(grid.affine.determinant() > 0.0);
            assert!((grid.spacing().z - 2.0).abs() < 1e-9 && (grid.spacing().x - 0.6).abs() < 1e-9);
        }
    }

    #[test]
    fn wide_phantoms_vary_in_resolution() {
        let mut rng = stream(3, "spec");
        let sizes: Vec<f64> = (0..50).map(|_| PhantomSpec::wide(&mut rng, Modality::Cta).spacing.x).collect();
        assert!(sizes.iter().all(|mm| (0.35..=1.1).contains(mm)));
        assert!(sizes.iter().any(|mm| *mm < 0.5) && sizes.iter().any(|mm| *mm > 0.9));
    }

    #[test]
    fn draws_follow_the_shares() {
        let mut rng = stream(2, "spec");
        let specs: Vec<_> = (0..400).map(|_| PhantomSpec::draw(&mut rng, &CohortMix::default())).collect();
        let share = |f: &dyn Fn(&PhantomSpec) -> bool| specs.iter().filter(|s| f(s)).count() as f64 / 400.0;
        assert!((share(&|s| s.modality == Modality::Cta) - 0.416).abs() < 0.08);
        assert!((share(&|s| s.plane == Plane::Axial) - 0.965).abs() < 0.04);
        assert!(specs.iter().all(|s| s.shape.len() < 200_000_000 && s.shape.z >= 16));
    }
}
