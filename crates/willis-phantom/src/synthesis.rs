//! Making a phantom from a specification and a seed.

use rayon::prelude::*;
use willis_core::{Image, Lesion, Modality, SeriesMeta, Sex};

use crate::appearance::{AppearanceModel, Scan, ScanInput, dress};
use crate::atlas::Atlas;
use crate::lesion;
use crate::mimics;
use crate::random::{Draw, splitmix64, stream};
use crate::scanner::Scanner;
use crate::scene::{Look, RenderedSlices, Scene, SceneInput};
use crate::spec::{LesionPlan, PhantomSpec, Randomisation};
use crate::visibility::{VisibleArteries, place};

/// A synthetic series and its truth.
#[derive(Debug, Clone)]
pub struct Phantom {
    /// Stored values on the scanner's grid, 0 to 4095.
    pub volume: Image<i16>,
    /// Slope and intercept that convert stored values to HU (CTA) or signal intensity (MR).
    pub rescale: (f64, f64),
    /// Site of each arterial voxel as [`willis_core::Site::mask_value`], 0 elsewhere. The voxels of
    /// a sac have the site of the parent artery.
    pub sites: Image<u8>,
    /// 1 inside an aneurysm sac, 0 elsewhere.
    pub aneurysm: Image<u8>,
    /// True lesions, all inside the scan.
    pub lesions: Vec<Lesion>,
    /// Age, sex, modality and a UID.
    pub meta: SeriesMeta,
}

/// Makes a phantom. The result depends only on the specification and the seed, not on the number of
/// threads.
pub fn synthesise(spec: &PhantomSpec, seed: u64) -> Phantom {
    let mut atlas = Atlas::draw(&mut stream(seed, "atlas"));
    mimics::add(&mut atlas, spec.look_alikes, &mut stream(seed, "mimics"));
    if spec.model != AppearanceModel::Plain {
        mimics::add_shapes(&mut atlas, spec.look_alikes, &mut stream(seed, "more mimics"));
    }
    let grid = place(spec, &atlas, seed);
    let mut scanner = Scanner::draw(spec.modality, spec.randomise, seed, &mut stream(seed, "scanner"));
    let visible = VisibleArteries::draw(spec, &atlas, &grid, &scanner, seed);
    let (count, choice) = (lesion_count(spec.lesions, seed), &spec.lesion_choice);
    let mut sacs = lesion::grow(&atlas, count, choice, |p| visible.shows(p), &mut stream(seed, "lesions"));
    if spec.randomise == Randomisation::Wide && stream(seed, "one brightness").chance(0.3) {
        scanner.slow_flow_loss = 0.0;
    }

    let look = match &spec.model {
        AppearanceModel::Plain => Look::Plain(Box::new(scanner)),
        model => {
            let (library, look_alikes, modality) = (spec.library.as_ref(), spec.look_alikes, spec.modality);
            let scan = Scan::draw(&ScanInput { model, modality, look_alikes, library, atlas: &atlas, grid, seed });
            dress(&mut sacs, scan.flow(), model.pathology(), &mut stream(seed, "dress"));
            Look::Scan(Box::new(scan))
        }
    };
    let scene = Scene::new(SceneInput { spec, grid, atlas: &atlas, sacs: &sacs, visible: &visible, look, seed });
    let rendered: Vec<RenderedSlices> = scene.blocks().into_par_iter().map(|slices| scene.render(slices)).collect();
    let (mut stored, mut bright, mut sites, mut aneurysm) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for mut block in rendered {
        stored.append(&mut block.stored);
        bright.append(&mut block.bright);
        sites.append(&mut block.sites);
        aneurysm.append(&mut block.aneurysm);
    }
    if !bright.is_empty() {
        stored = scene.acquire(bright);
    }
    let lesions: Vec<Lesion> = sacs.iter().map(|s| s.truth.clone()).collect();
    let mut phantom = Phantom {
        volume: Image::new(grid, stored),
        rescale: scene.rescale(),
        sites: Image::new(grid, sites),
        aneurysm: Image::new(grid, aneurysm),
        meta: meta(spec.modality, !lesions.is_empty(), seed),
        lesions,
    };
    label_centres(&mut phantom);
    phantom
}

/// Labels the voxel at the centre of every lesion, because a lesion thinner than a slice may
/// otherwise have no voxel.
fn label_centres(phantom: &mut Phantom) {
    let grid = phantom.volume.grid;
    for lesion in &phantom.lesions {
        if let Some(p) = grid.affine.to_voxel(lesion.centre) {
            let i = grid.shape.offset(grid.shape.nearest(p));
            phantom.aneurysm.voxels[i] = 1;
            phantom.sites.voxels[i] = lesion.site.mask_value();
        }
    }
}

fn lesion_count(plan: LesionPlan, seed: u64) -> usize {
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
        uid: format!("2.25.{}", splitmix64(seed)),
        modality: Some(modality),
        modality_from_voxels: false,
        age_years: Some((58.0 + 14.0 * rng.normal()).clamp(18.0, 89.0).round() as f32),
        sex: Some(sex),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::appearance::{RandomConfig, ScannerConfig, TexturedConfig};
    use std::collections::HashSet;
    use willis_core::{Shape, Site, Spacing};

    fn small(modality: Modality, lesions: LesionPlan) -> PhantomSpec {
        PhantomSpec {
            shape: Shape::new(56, 60, 64),
            spacing: Spacing::isotropic(1.6),
            lesions,
            ..PhantomSpec::low_resolution(modality)
        }
    }

    #[test]
    fn the_result_does_not_depend_on_the_number_of_threads() {
        let spec = small(Modality::Mra, LesionPlan::Exact(2));
        let with = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads start");
            pool.install(|| synthesise(&spec, 11))
        };
        let (one, three) = (with(1), with(3));
        assert_eq!(one.volume, three.volume);
        assert_eq!(one.sites, three.sites);
        assert_eq!(one.aneurysm, three.aneurysm);
        assert_eq!(one.lesions, three.lesions);
        assert_ne!(one.volume, synthesise(&spec, 12).volume);
    }

    #[test]
    fn lesion_centres_are_labelled_with_their_site() {
        for (seed, modality) in (0..6).zip(Modality::ALL.into_iter().cycle()) {
            for randomise in [Randomisation::Realistic, Randomisation::Wide] {
                let spec = PhantomSpec { randomise, ..small(modality, LesionPlan::Exact(2)) };
                let phantom = synthesise(&spec, seed);
                for lesion in &phantom.lesions {
                    let voxel = phantom.volume.grid.affine.to_voxel(lesion.centre).expect("the grid is regular");
                    assert!(phantom.volume.grid.shape.contains(voxel));
                    let index = phantom.volume.grid.shape.nearest(voxel);
                    assert_eq!(*phantom.aneurysm.at(index), 1);
                    assert_eq!(*phantom.sites.at(index), lesion.site.mask_value());
                }
                let labelled = |i: usize| phantom.aneurysm.voxels[i] == 0 || phantom.sites.voxels[i] > 0;
                assert!((0..phantom.sites.voxels.len()).all(labelled));
                let marked = phantom.aneurysm.voxels.contains(&1);
                assert_eq!(marked, !phantom.lesions.is_empty());
            }
        }
    }

    #[test]
    fn a_phantom_without_lesions_has_none() {
        let phantom = synthesise(&small(Modality::Cta, LesionPlan::None), 3);
        assert!(phantom.lesions.is_empty() && !phantom.aneurysm.voxels.contains(&1));
        assert_eq!(phantom.rescale, (1.0, -1024.0));
    }

    #[test]
    fn all_sites_occur_and_left_has_larger_x() {
        let phantoms: Vec<Phantom> =
            (0..4).map(|seed| synthesise(&small(Modality::Mra, LesionPlan::None), seed)).collect();
        let seen: HashSet<u8> = phantoms.iter().flat_map(|p| p.sites.voxels.iter().copied()).collect();
        assert!(Site::ALL.iter().all(|s| seen.contains(&s.mask_value())), "{seen:?}");
        for phantom in &phantoms {
            let mean_x = |site: Site| {
                let grid = phantom.sites.grid;
                let of_site = phantom.sites.voxels.iter().enumerate().filter(|(_, v)| **v == site.mask_value());
                let xs: Vec<f64> = of_site.map(|(i, _)| grid.affine.to_world(grid.shape.index(i).into()).x).collect();
                xs.iter().sum::<f64>() / xs.len() as f64
            };
            assert!(mean_x(Site::LeftMca) > mean_x(Site::RightMca) + 30.0);
        }
    }

    #[test]
    fn blood_is_brighter_than_brain_in_tof_and_cta_and_darker_in_t2() {
        for (modality, sign) in [(Modality::Mra, 1.0), (Modality::Cta, 1.0), (Modality::T2, -1.0)] {
            let phantom = synthesise(&small(modality, LesionPlan::None), 21);
            let median = |want: &dyn Fn(u8) -> bool| {
                let picked = phantom.volume.voxels.iter().zip(&phantom.sites.voxels).filter(|(_, s)| want(**s));
                let mut values: Vec<i16> = picked.map(|(v, _)| *v).collect();
                values.sort_unstable();
                f64::from(values[values.len() / 2])
            };
            let carotid = [Site::LeftSupraclinoidIca.mask_value(), Site::RightSupraclinoidIca.mask_value()];
            let (blood, rest) = (median(&|s| carotid.contains(&s)), median(&|s| s == 0));
            assert!(sign * (blood - rest) > 30.0, "{modality:?}: blood {blood}, rest {rest}");
        }
    }

    /// Hashes of the first release: data sets and benchmarks of the plain model stay what they were.
    #[test]
    fn the_plain_model_keeps_its_bytes() {
        let expected = [0xe991_a1bf_5620_9ed8, 0x3d54_8e2c_f171_b08a, 0x9d0a_df88_7580_b9da, 0x89c1_6e48_e1d1_4447u64];
        for ((seed, modality), expected) in (0..).zip(Modality::ALL).zip(expected) {
            let spec = PhantomSpec {
                shape: Shape::new(24, 30, 32),
                spacing: Spacing::isotropic(3.0),
                lesions: LesionPlan::Exact(2),
                ..PhantomSpec::low_resolution(modality)
            };
            let bytes = synthesise(&spec, seed).volume.voxels.into_iter().flat_map(i16::to_le_bytes);
            let hash = bytes.fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3u64));
            assert_eq!(hash, expected, "{modality:?}");
        }
    }

    #[test]
    fn every_model_is_deterministic_and_labels_its_lesions() {
        let models = [
            AppearanceModel::Scanner(ScannerConfig { artefacts: 1.0, pathology: 1.0 }),
            AppearanceModel::Random(RandomConfig::default()),
            AppearanceModel::Textured(TexturedConfig::default()),
        ];
        let mut seen = HashSet::new();
        for model in models {
            for modality in Modality::ALL {
                let spec = PhantomSpec { model: model.clone(), ..small(modality, LesionPlan::Exact(1)) };
                let with = |threads| {
                    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads start");
                    pool.install(|| synthesise(&spec, 17))
                };
                let (one, two) = (with(1), with(2));
                assert_eq!(one.volume, two.volume);
                assert_eq!((one.lesions.len(), one.aneurysm.voxels.contains(&1)), (1, true));
                assert!(seen.insert(one.volume.voxels), "{modality:?} repeats another model");
            }
        }
    }

    /// The plain model darkens a sac with its size; with contrast agent no scanner does.
    #[test]
    fn large_sacs_of_ct_angiograms_are_as_bright_as_arteries() {
        let carotids = [Site::LeftSupraclinoidIca.mask_value(), Site::RightSupraclinoidIca.mask_value()];
        let model = AppearanceModel::Scanner(ScannerConfig { artefacts: 0.0, pathology: 0.0 });
        for seed in 0..4 {
            let choice = crate::LesionChoice { sites: None, diameter_mm: Some([14.0, 16.0]) };
            let spec = PhantomSpec {
                model: model.clone(),
                lesion_choice: choice,
                ..small(Modality::Cta, LesionPlan::Exact(1))
            };
            let phantom = synthesise(&spec, seed);
            let median = |want: &dyn Fn(usize) -> bool| {
                let all = phantom.volume.voxels.iter().enumerate().filter(|(i, _)| want(*i));
                let mut values: Vec<i16> = all.map(|(_, v)| *v).collect();
                values.sort_unstable();
                values.get(values.len() / 2).map(|v| f64::from(*v) - 1024.0)
            };
            let sac = median(&|i| phantom.aneurysm.voxels[i] == 1);
            let artery = median(&|i| carotids.contains(&phantom.sites.voxels[i]) && phantom.aneurysm.voxels[i] == 0);
            if let (Some(sac), Some(artery)) = (sac, artery) {
                // Partial volume darkens the thin artery, not the sac.
                assert!(sac > 0.85 * artery, "{seed}: sac {sac}, artery {artery}");
            }
        }
    }

    #[test]
    fn thick_oblique_and_tilted_series_are_made() {
        let spec = PhantomSpec {
            shape: Shape::new(20, 64, 60),
            spacing: Spacing::new(5.0, 1.6, 1.6),
            plane: crate::SlicePlane::Coronal,
            oblique_rad: [0.1, 0.0, 0.05],
            tilt_rad: 0.1,
            ..small(Modality::T2, LesionPlan::Exact(1))
        };
        let phantom = synthesise(&spec, 5);
        assert_eq!(phantom.volume.grid.shape, spec.shape);
        assert_eq!(phantom.lesions.len(), 1);
    }
}
