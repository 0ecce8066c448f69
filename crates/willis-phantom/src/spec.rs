//! The specification of a phantom: modality, grid, lesions, realism.

use std::sync::Arc;

use rand::Rng;
use willis_core::{Affine, Grid, Modality, Shape, Spacing, VoxelPoint};

use crate::anatomy::AnatomyLibrary;
use crate::appearance::AppearanceModel;
use crate::atlas::rotation_rows;
use crate::mix::{CohortMix, LesionChoice, LookAlikes, ScanSize};
use crate::random::Draw;
use crate::vector::{Vec3, vec3};

/// Orientation of the slices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlicePlane {
    /// Slices are stacked from feet to head.
    Axial,
    /// Slices are stacked from front to back.
    Coronal,
    /// Slices are stacked from left to right.
    Sagittal,
}

/// Part of the head that a scan covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldOfView {
    /// A box around the circle of Willis.
    Slab,
    /// From the neck to the vertex.
    WholeHead,
}

/// Number of aneurysms in a phantom.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum LesionPlan {
    /// At least one with this probability. One in six of the affected heads has several, at most
    /// five.
    Random {
        /// Probability of at least one aneurysm, 0 to 1.
        prevalence: f64,
    },
    /// None.
    None,
    /// This number, or fewer if the visible arteries leave no room.
    Exact(usize),
}

/// Realism of the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Randomisation {
    /// Varies as clinical series do.
    Realistic,
    /// Contrast, background, noise, cropping and resolution vary far beyond clinical series, so
    /// that networks learn shape (domain randomisation).
    Wide,
}

/// Specification of one phantom. Together with a seed it determines every byte.
#[derive(Debug, Clone, PartialEq)]
pub struct PhantomSpec {
    /// Modality.
    pub modality: Modality,
    /// Size of the scan in voxels: slices, rows, columns.
    pub shape: Shape,
    /// Distance between slices, rows and columns, mm.
    pub spacing: Spacing,
    /// Orientation of the slices.
    pub plane: SlicePlane,
    /// Part of the head that the scan covers.
    pub field_of_view: FieldOfView,
    /// Number of aneurysms.
    pub lesions: LesionPlan,
    /// Gantry tilt, rad. The slices are tilted while the table moves straight, so the grid is
    /// sheared.
    pub tilt_rad: f64,
    /// Rotation of the scanned box about x, y and z, rad.
    pub oblique_rad: [f64; 3],
    /// Realism of the image.
    pub randomise: Randomisation,
    /// Sites and sizes of the aneurysms.
    pub lesion_choice: LesionChoice,
    /// Vessels and tissues that resemble aneurysms.
    pub look_alikes: LookAlikes,
    /// Model of the appearance; [`Self::randomise`] applies to [`AppearanceModel::Plain`].
    pub model: AppearanceModel,
    /// Heads of real people, for the other models.
    pub library: Option<Arc<AnatomyLibrary>>,
}

impl PhantomSpec {
    /// Draws a box of 88 to 136 mm around the circle of Willis, `pixels` across. The slice
    /// thickness depends on the modality.
    fn draw_slab(
        rng: &mut (impl Rng + ?Sized),
        mix: &CohortMix,
        modality: Modality,
        plane: SlicePlane,
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
            lesion_choice: mix.lesion_choice.clone(),
            look_alikes: mix.look_alikes,
            model: AppearanceModel::Plain,
            library: None,
        }
    }

    /// Draws a whole head of 512 x 512 pixels. The slice thickness depends on the modality.
    fn draw_whole(rng: &mut (impl Rng + ?Sized), mix: &CohortMix, modality: Modality, plane: SlicePlane) -> Self {
        const PIXELS: usize = 512;
        let in_plane = rng.uniform(0.35, 0.6);
        let (thin, thick): (f64, f64) = match modality {
            Modality::Cta => (0.5, 3.0),
            Modality::Mra => (0.5, 1.5),
            Modality::T1Post => (0.8, 5.0),
            Modality::T2 => (1.5, 5.0),
        };
        let between = thin * (thick / thin).powf(rng.uniform(0.0, 1.0));
        let along = match plane {
            SlicePlane::Axial => rng.uniform(130.0, 175.0),
            SlicePlane::Coronal => rng.uniform(180.0, 200.0),
            SlicePlane::Sagittal => rng.uniform(140.0, 165.0),
        };
        let turn = |rng: &mut _| (0.1 * Draw::normal(rng)).clamp(-0.3, 0.3);
        Self {
            modality,
            shape: Shape::new((along / between).round() as usize, PIXELS, PIXELS),
            spacing: Spacing::new(between, in_plane, in_plane),
            plane,
            field_of_view: FieldOfView::WholeHead,
            lesions: mix.lesions(rng),
            tilt_rad: if modality == Modality::Cta && rng.chance(0.05) { turn(rng) } else { 0.0 },
            oblique_rad: if rng.chance(0.35) { [turn(rng), turn(rng), turn(rng)] } else { [0.0; 3] },
            randomise: mix.appearance(rng),
            lesion_choice: mix.lesion_choice.clone(),
            look_alikes: mix.look_alikes,
            model: AppearanceModel::Plain,
            library: None,
        }
    }

    /// Draws a box as in [`ScanSize::Small`] in half of the cases, otherwise a box of up to 180 mm or
    /// a whole head of 224 to 256 pixels across.
    fn draw_varied(rng: &mut (impl Rng + ?Sized), mix: &CohortMix, modality: Modality, plane: SlicePlane) -> Self {
        let which = rng.weighted(&[0.5, 0.2, 0.3]);
        let small = Self::draw_slab(rng, mix, modality, plane, 160);
        if which == 0 {
            return small;
        }
        let (across, along, pixels) = match which {
            1 => (rng.uniform(130.0, 180.0), rng.uniform(70.0, 120.0), 192.0),
            _ => (rng.uniform(190.0, 230.0), rng.uniform(125.0, 170.0), rng.uniform(224.0, 256.0).floor()),
        };
        let in_plane = across / pixels;
        let between = small.spacing.z.max(in_plane);
        let field_of_view = if which == 1 { FieldOfView::Slab } else { FieldOfView::WholeHead };
        Self {
            shape: Shape::new(((along / between) as usize).max(16), pixels as usize, pixels as usize),
            spacing: Spacing::new(between, in_plane, in_plane),
            field_of_view,
            ..small
        }
    }

    /// Draws a specification. `mix` must be valid.
    pub fn draw(rng: &mut (impl Rng + ?Sized), mix: &CohortMix) -> Self {
        let mut spec = Self::draw_geometry(rng, mix);
        spec.model = mix.model(rng);
        spec.library = mix.library.clone();
        spec.model.clone().choose_slices(&mut spec, rng);
        spec
    }

    fn draw_geometry(rng: &mut (impl Rng + ?Sized), mix: &CohortMix) -> Self {
        let modality = Modality::ALL[rng.weighted(&mix.modalities)];
        let plane = [SlicePlane::Axial, SlicePlane::Coronal, SlicePlane::Sagittal][rng.weighted(&mix.planes)];
        match mix.size {
            ScanSize::Clinical => {}
            ScanSize::Small => return Self::draw_slab(rng, mix, modality, plane, 160),
            ScanSize::Fine => return Self::draw_slab(rng, mix, modality, plane, 256),
            ScanSize::Tiny => return Self::draw_slab(rng, mix, modality, plane, 48),
            ScanSize::Whole => return Self::draw_whole(rng, mix, modality, plane),
            ScanSize::Varied => return Self::draw_varied(rng, mix, modality, plane),
            ScanSize::Reference => {
                let (lesion_choice, look_alikes) = (mix.lesion_choice.clone(), mix.look_alikes);
                return Self { lesions: mix.lesions(rng), lesion_choice, look_alikes, ..Self::cta_512() };
            }
        }
        let k = mix.coarseness;
        // Extent within a slice and across the stack, then pixel size and slice distance, mm.
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
        let across = if plane == SlicePlane::Axial { across } else { across.max(180.0) };
        let columns = count(across, in_plane * k);
        let rows = if rng.chance(0.75) { columns } else { count(across * 0.85, in_plane * k) };
        let between = if modality == Modality::T2 { between } else { between * k };
        let slab = modality == Modality::Mra && plane == SlicePlane::Axial;
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
            lesion_choice: mix.lesion_choice.clone(),
            look_alikes: mix.look_alikes,
            model: AppearanceModel::Plain,
            library: None,
        }
    }

    /// A box of 160³ voxels of 0.7 mm around the circle of Willis.
    pub fn low_resolution(modality: Modality) -> Self {
        Self {
            modality,
            shape: Shape::new(160, 160, 160),
            spacing: Spacing::isotropic(0.7),
            plane: SlicePlane::Axial,
            field_of_view: FieldOfView::Slab,
            lesions: LesionPlan::Random { prevalence: 0.5 },
            tilt_rad: 0.0,
            oblique_rad: [0.0; 3],
            randomise: Randomisation::Realistic,
            lesion_choice: LesionChoice::default(),
            look_alikes: LookAlikes::default(),
            model: AppearanceModel::Plain,
            library: None,
        }
    }

    /// A CTA of the whole head with 300 slices of 512 x 512, the series of the speed benchmarks.
    pub fn cta_512() -> Self {
        Self {
            shape: Shape::new(300, 512, 512),
            spacing: Spacing::new(0.6, 0.45, 0.45),
            field_of_view: FieldOfView::WholeHead,
            ..Self::low_resolution(Modality::Cta)
        }
    }

    /// The scanner's grid with its centre at `middle`, patient LPS mm.
    pub(crate) fn grid(&self, middle: Vec3) -> Grid {
        let rotation = rotation_rows(self.oblique_rad);
        let turn = |v: Vec3| vec3(rotation[0].dot(v), rotation[1].dot(v), rotation[2].dot(v));
        let (columns, rows) = match self.plane {
            SlicePlane::Axial => (vec3(1.0, 0.0, 0.0), vec3(0.0, 1.0, 0.0)),
            SlicePlane::Coronal => (vec3(1.0, 0.0, 0.0), vec3(0.0, 0.0, -1.0)),
            SlicePlane::Sagittal => (vec3(0.0, 1.0, 0.0), vec3(0.0, 0.0, -1.0)),
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
        for plane in [SlicePlane::Axial, SlicePlane::Coronal, SlicePlane::Sagittal] {
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
    fn whole_heads_have_512_pixels_and_slices_of_half_to_five_millimetres() {
        let mix = CohortMix { size: ScanSize::Whole, planes: [1.0; 3], ..CohortMix::default() };
        let mut rng = stream(2, "whole");
        for _ in 0..200 {
            let spec = PhantomSpec::draw(&mut rng, &mix);
            assert_eq!((spec.shape.y, spec.shape.x), (512, 512));
            assert!((0.35..0.6).contains(&spec.spacing.x) && (0.5..=5.0).contains(&spec.spacing.z));
            assert!((129.0..201.0).contains(&(spec.shape.z as f64 * spec.spacing.z)), "{spec:?}");
        }
    }

    #[test]
    fn draws_follow_the_weights() {
        let mut rng = stream(2, "spec");
        let specs: Vec<_> = (0..400).map(|_| PhantomSpec::draw(&mut rng, &CohortMix::default())).collect();
        let share = |f: &dyn Fn(&PhantomSpec) -> bool| specs.iter().filter(|s| f(s)).count() as f64 / 400.0;
        assert!((share(&|s| s.modality == Modality::Cta) - 0.416).abs() < 0.08);
        assert!((share(&|s| s.plane == SlicePlane::Axial) - 0.965).abs() < 0.04);
        assert!(specs.iter().all(|s| s.shape.len() < 200_000_000 && s.shape.z >= 16));
    }
}
