use std::path::Path;

use proptest::prelude::*;
use willis_core::files::{mha, nifti};
use willis_core::{Affine, Grid, Index, Point, SeriesMeta, Shape, VoxelPoint};

use super::*;
use crate::shared_data::shared_data;

fn volume(image: Image<f32>, modality: Option<Modality>) -> Arc<Volume> {
    let meta = SeriesMeta { modality, ..SeriesMeta::default() };
    Arc::new(Volume { image, meta, findings: Vec::new() })
}

/// A head with radii of 75 (x), 90 (y) and 100 mm (z) around the origin, with a bright ball of
/// radius 8 mm at `ball`; `values` are those of air, head and ball.
fn head(grid: Grid, ball: Point, values: [f32; 3]) -> Image<f32> {
    let value = |offset| {
        let p = grid.affine.to_world(grid.shape.index(offset).into());
        let inside = (p.x / 75.0).powi(2) + (p.y / 90.0).powi(2) + (p.z / 100.0).powi(2) < 1.0;
        if p.distance_mm(ball) < 8.0 {
            values[2]
        } else if inside {
            values[1]
        } else {
            values[0]
        }
    };
    Image::new(grid, (0..grid.shape.len()).map(value).collect())
}

fn axial() -> Grid {
    let affine = Affine::axis_aligned(Spacing::isotropic(2.0), Point::new(-99.0, -109.0, -119.0));
    Grid::new(Shape::new(120, 110, 100), affine)
}

/// A grid over the same space with other voxel axes, rotated by an angle around z.
fn stored(order: usize, angle: f64) -> Grid {
    let ([sin, cos], s, r) = ([angle.sin(), angle.cos()], 2.0, 119.0);
    let columns = match order {
        // Axial, coronal and sagittal, each with some axes reversed.
        0 => [[-s, 0.0, 0.0], [0.0, s, 0.0], [0.0, 0.0, s]],
        1 => [[s, 0.0, 0.0], [0.0, 0.0, -s], [0.0, -s, 0.0]],
        _ => [[0.0, s, 0.0], [0.0, 0.0, -s], [s, 0.0, 0.0]],
    };
    let turn = |v: [f64; 3]| [cos * v[0] - sin * v[1], sin * v[0] + cos * v[1], v[2]];
    let columns = columns.map(turn);
    // The centre of the grid is the origin of the world.
    let rows = std::array::from_fn(|i| {
        let reach: f64 = columns.iter().map(|c| c[i] / s * r).sum();
        [columns[0][i], columns[1][i], columns[2][i], -reach]
    });
    Grid::new(Shape::new(120, 120, 120), Affine(rows))
}

fn coarse_config() -> HarmoniseConfig {
    HarmoniseConfig { spacing_mm: Spacing::isotropic(2.0), ..HarmoniseConfig::default() }
}

fn centre_of_bright(image: &Image<f32>, above: f32) -> Point {
    let bright = image.voxels.iter().enumerate().filter(|(_, v)| **v > above);
    let mut sum = [0.0; 4];
    for (offset, _) in bright {
        let p = image.grid.affine.to_world(image.grid.shape.index(offset).into());
        [p.x, p.y, p.z, 1.0].into_iter().zip(&mut sum).for_each(|(v, s)| *s += v);
    }
    Point::new(sum[0] / sum[3], sum[1] / sum[3], sum[2] / sum[3])
}

#[test]
fn the_box_is_placed_below_the_vertex_and_values_are_comparable() {
    let ball = Point::new(20.0, -10.0, 0.0);
    for (modality, values, bright) in
        [(Modality::Mra, [0.0, 100.0, 300.0], 2.0), (Modality::Cta, [-1000.0, 40.0, 440.0], 2.0)]
    {
        let result = harmonise(&volume(head(axial(), ball, values), Some(modality)), &coarse_config()).unwrap();
        let scan = region::scan_box(&result.image.grid);
        assert!((scan.high.z - 55.0).abs() < 4.0 && (scan.low.z + 55.0).abs() < 4.0, "{scan:?}");
        assert!((scan.low.x + 65.0).abs() < 3.0 && (scan.low.y + 70.0).abs() < 3.0, "{scan:?}");
        assert!(centre_of_bright(&result.image, 1.5).distance_mm(ball) < 0.6);
        let at = |p: Point| {
            let voxel = result.image.grid.affine.to_voxel(p).unwrap();
            *result.image.at(result.image.grid.shape.nearest(voxel))
        };
        assert!((at(ball) - bright).abs() < 1e-5 && at(Point::new(0.0, 0.0, 0.0)).abs() < 1e-5);
    }
}

#[test]
fn slabs_are_kept_whole_and_cut_heads_start_at_the_top() {
    let image = head(axial(), Point::new(0.0, 0.0, 0.0), [0.0, 100.0, 300.0]);
    let slab = |first: usize, last: usize| {
        let size = image.grid.shape.y * image.grid.shape.x;
        let shape = Shape::new(last - first, image.grid.shape.y, image.grid.shape.x);
        let affine = image.grid.affine.sub_grid(Index::new(first, 0, 0).into(), VoxelPoint::new(1.0, 1.0, 1.0));
        let slab = Image::new(Grid::new(shape, affine), image.voxels[first * size..last * size].to_vec());
        let scan = region::scan_box(&slab.grid);
        let result = harmonise(&volume(slab, Some(Modality::Mra)), &coarse_config()).unwrap();
        (scan, region::scan_box(&result.image.grid), result.findings)
    };
    let (scan, region, _) = slab(40, 80);
    assert_eq!((scan.low.z, scan.high.z), (region.low.z, region.high.z));
    let (scan, region, findings) = slab(5, 80);
    assert!((scan.high.z - region.high.z).abs() < 2.1, "{scan:?} {region:?}");
    assert!(findings.iter().any(|f| f.message.contains("cuts the head")), "{findings:?}");
}

#[test]
fn the_whole_scan_is_kept_without_cropping() {
    let mut config = coarse_config();
    config.roi.crop = Switch::Off;
    let image = head(axial(), Point::new(0.0, 0.0, 0.0), [0.0, 100.0, 300.0]);
    let grid = image.grid;
    let result = harmonise(&volume(image, Some(Modality::T2)), &config).unwrap();
    assert_eq!(result.image.grid, grid);
}

#[test]
fn invalid_values_are_named() {
    assert_eq!(HarmoniseConfig::default().validate(), Ok(()));
    let mut config = coarse_config();
    config.spacing_mm.x = 0.0;
    assert_eq!(config.validate().unwrap_err().to_string(), "spacing_mm.x = 0 must lie between 0.1 and 10");
    let normalise = Normalise::Window { low: 3.0, high: 2.0 };
    let error = HarmoniseConfig { normalise, ..coarse_config() }.validate().unwrap_err();
    assert_eq!(error.field, "normalise.high");
}

#[test]
fn unusable_volumes_are_errors() {
    let image = head(axial(), Point::new(0.0, 0.0, 0.0), [0.0, 100.0, 300.0]);
    let flat = |value| volume(Image::filled(axial(), value), Some(Modality::Mra));
    assert!(matches!(harmonise(&flat(f32::NAN), &coarse_config()), Err(HarmoniseError::Empty)));
    assert!(matches!(harmonise(&flat(0.0), &coarse_config()), Err(HarmoniseError::NoContrast)));
    let mut singular = image;
    singular.grid.affine = Affine([[0.0; 4]; 3]);
    assert!(matches!(harmonise(&volume(singular, None), &coarse_config()), Err(HarmoniseError::SingularPlace)));
}

#[test]
fn missing_fields_take_their_defaults() {
    let config: HarmoniseConfig = serde_json::from_str(
        r#"{"spacing_mm": {"z": 0.5, "y": 0.5, "x": 0.5}, "roi": {"crop": "off"},
            "normalise": {"kind": "window", "low": 0, "high": 100}}"#,
    )
    .unwrap();
    assert_eq!(config.normalise, Normalise::Window { low: 0.0, high: 100.0 });
    assert_eq!(config.roi, RoiConfig { crop: Switch::Off, ..RoiConfig::default() });
    assert!(serde_json::from_str::<HarmoniseConfig>(r#"{"spacing": 1}"#).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6))]
    #[test]
    fn coronal_sagittal_and_oblique_agree_with_axial(
        order in 0usize..3,
        angle in -0.4..0.4f64,
        ball in prop::array::uniform3(-30.0..30.0f64),
    ) {
        let ball = Point::new(ball[0], ball[1], ball[2]);
        let run = |grid| {
            let image = head(grid, ball, [0.0, 100.0, 300.0]);
            harmonise(&volume(image, Some(Modality::Mra)), &coarse_config()).unwrap().image
        };
        let (a, b) = (run(axial()), run(stored(order, angle)));
        prop_assert!(centre_of_bright(&a, 1.0).distance_mm(ball) < 0.8);
        prop_assert!(centre_of_bright(&b, 1.0).distance_mm(ball) < 0.8);
        prop_assert!(a.grid.centre().distance_mm(b.grid.centre()) < 4.5, "{:?} {:?}", a.grid, b.grid);
    }
}

#[test]
fn real_angiography_is_kept_whole_with_bright_vessels() {
    let Some(path) = shared_data("02_chris_mra/chris_MRA.nii.gz") else { return };
    let result = harmonise(&volume(nifti::read(&path).unwrap(), Some(Modality::Mra)), &Default::default()).unwrap();
    let bright = result.image.voxels.iter().filter(|v| **v > 1.0).count() as f64 / result.image.voxels.len() as f64;
    assert!((0.001..0.05).contains(&bright), "{bright} of the voxels are bright");
}

#[test]
fn a_real_crop_without_air_is_normalised_on_its_tissue() {
    let Some(path) = shared_data("04_topcow_crops/topcow_mra.mha") else { return };
    let image = mha::read(&path).unwrap();
    let extent = region::scan_box(&image.grid);
    let result = harmonise(&volume(image, Some(Modality::Mra)), &Default::default()).unwrap();
    let kept = region::scan_box(&result.image.grid);
    assert!(kept.low.distance_mm(extent.low) < 1.1 && kept.high.distance_mm(extent.high) < 1.1);
    let bright = result.image.voxels.iter().filter(|v| **v > 0.8).count() as f64 / result.image.voxels.len() as f64;
    assert!((0.005..0.08).contains(&bright), "{bright} of the voxels are bright");
}

/// Harmonises a head made from FreeSurfer labels and checks that the box contains the brain stem
/// (label 16) and the circle of Willis, which is 20 to 30 mm anterior and 10 to 25 mm superior to
/// the centre of the brain stem.
fn assert_box_contains_brain_stem(labels: &Image<f32>) {
    let stem = centre_of_bright(&labels.map(|&v| f32::from(u8::from(v == 16.0))), 0.5);
    let head = labels.map(|&v| if v > 0.0 { 100.0 } else { 0.0 });
    let result = harmonise(&volume(head, Some(Modality::T2)), &coarse_config()).unwrap();
    let kept = region::scan_box(&result.image.grid);
    let inside = |p: Point, margin: f64| {
        let within = |low: f64, v: f64, high: f64| v - low > margin && high - v > margin;
        within(kept.low.x, p.x, kept.high.x)
            && within(kept.low.y, p.y, kept.high.y)
            && within(kept.low.z, p.z, kept.high.z)
    };
    assert!(inside(Point::new(stem.x, stem.y - 25.0, stem.z + 15.0), 25.0), "{stem:?} {kept:?}");
    assert!(inside(stem, 10.0), "{stem:?} {kept:?}");
}

#[test]
fn a_coarse_whole_head_keeps_brain_stem_and_circle_of_willis() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/synthseg_09_head_4mm.nii.gz");
    assert_box_contains_brain_stem(&nifti::read(&path).unwrap());
}

#[test]
fn whole_heads_keep_brain_stem_and_circle_of_willis() {
    for name in ["05", "09"] {
        let Some(path) = shared_data(&format!("20_synthseg_labels/training_seg_{name}.nii.gz")) else { return };
        assert_box_contains_brain_stem(&nifti::read(&path).unwrap());
    }
}

#[test]
fn a_real_whole_head_gets_a_box() {
    let Some(path) = shared_data("21_whole_head_t1/chris_t1.nii.gz") else { return };
    let image = nifti::read(&path).unwrap();
    let result = harmonise(&volume(image, Some(Modality::T1Post)), &Default::default()).unwrap();
    let kept = region::scan_box(&result.image.grid);
    assert!((kept.high.z - kept.low.z - 110.0).abs() < 1.0);
    let tissue = result.image.voxels.iter().filter(|v| **v > -0.7).count() as f64 / result.image.voxels.len() as f64;
    assert!(tissue > 0.8, "only {tissue} of the box is tissue");
}
