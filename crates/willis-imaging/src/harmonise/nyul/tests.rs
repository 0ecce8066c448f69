use std::path::Path;

use willis_core::Modality;
use willis_core::files::npy;

use super::*;

/// Image `k` of the reference: `50(k+1)(1+sin(.37 i + k)) + 3k·(i mod 7)`, 6x5x4.
fn fixture(k: usize) -> Vec<f32> {
    let value = |i: usize| {
        let wave = 1.0 + (0.37 * i as f64 + k as f64).sin();
        (50.0 * (k as f64 + 1.0) * wave + 3.0 * (k * (i % 7)) as f64) as f32
    };
    (0..120).map(value).collect()
}

fn standard_of(images: &[Vec<f32>], options: FitOptions) -> Standard {
    fit(images.iter().map(|image| foreground(image, None)), options).unwrap()
}

fn check(got: f64, expected: f64) {
    assert!((got - expected).abs() < 1e-5 * expected.abs().max(1.0), "{got} instead of {expected}");
}

/// Scale of both images, from versions 3.0.1 and 4.0.0 of the package.
const EXPECTED: [f64; 11] =
    [1.0, 4.3977118, 11.608921, 24.185980, 33.997443, 50.370787, 66.436810, 77.483832, 88.614509, 95.585417, 100.0];

#[test]
fn fit_and_map_match_the_package() {
    let images = [fixture(0), fixture(1)];
    let standard = standard_of(&images, FitOptions::default());
    standard.scale.iter().zip(EXPECTED).for_each(|(&got, expected)| check(got, expected));
    let map = standard.map(&foreground(&images[1], None).unwrap()).unwrap();
    let mapped = map.apply_all(&images[1]);
    // Voxels [0, 0, :] of the reference.
    mapped
        .iter()
        .zip([85.62787, 95.29964, 96.563675, 91.74443])
        .for_each(|(&got, expected)| check(got.into(), expected));
    check(mapped.iter().copied().fold(f32::INFINITY, f32::min).into(), -0.0521959);
    check(mapped.iter().copied().fold(f32::NEG_INFINITY, f32::max).into(), 100.34617);
}

#[test]
fn files_of_both_versions_of_the_package_are_read() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/nyul");
    for (name, tolerance) in [("package_3.npy", 2e-5), ("package_4.npz", 2e-5)] {
        let standard = Standard::load(&folder.join(name)).unwrap();
        assert_eq!(standard.percentiles, [1.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0, 99.0]);
        let far = standard.scale.iter().zip(EXPECTED).any(|(a, b)| (a - b).abs() > tolerance);
        assert!(!far, "{name}: {:?}", standard.scale);
    }
}

#[test]
fn files_round_trip() {
    let folder = tempfile::tempdir().unwrap();
    let standard = standard_of(&[fixture(0)], FitOptions::default());
    let path = folder.path().join("a.npy");
    standard.save(&path).unwrap();
    assert_eq!(Standard::load(&path).unwrap(), standard);
    let path = folder.path().join("a.npz");
    standard.save(&path).unwrap();
    let read = Standard::load(&path).unwrap();
    assert_eq!(read.percentiles, standard.percentiles);
    read.scale.iter().zip(&standard.scale).for_each(|(&a, &b)| check(a, b));
}

#[test]
fn malformed_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("standard.npy");
    let reason = |shape: &[usize], values: &[f64]| {
        npy::write_f64(&path, shape, values).unwrap();
        Standard::load(&path).unwrap_err().to_string()
    };
    assert!(reason(&[2], &[1.0, 2.0]).contains("expected [2, 11]"));
    assert!(reason(&[3, 1], &[1.0, 2.0, 3.0]).contains("expected [2, 11]"));
    assert!(reason(&[2, 0], &[]).contains("no landmarks"));
    assert!(reason(&[2, 11], &[f64::NAN; 22]).contains("rise"));
    assert!(reason(&[2, 2], &[1.0, 100.0, 1.0, 101.0]).contains("percentiles"));
    std::fs::write(&path, b"PK\x03\x04").unwrap();
    assert!(Standard::load(&path).unwrap_err().to_string().contains("standard.npy"));
    assert!(Standard::load(Path::new("/nonexistent.npy")).unwrap_err().to_string().contains("nonexistent"));
}

#[test]
fn unusable_images_are_named_by_number() {
    let fit = |images: Vec<Vec<f32>>| {
        fit(images.iter().map(|image| foreground(image, None)), FitOptions::default()).unwrap_err()
    };
    assert!(matches!(fit(vec![vec![5.0; 9]]), NyulError::Constant { image: 1, value: 5.0 }));
    assert!(matches!(fit(vec![vec![1.0, 2.0], vec![f32::NAN]]), NyulError::EmptyMask { image: 2 }));
    assert!(matches!(fit(vec![vec![1.0, 2.0], vec![-1.0]]), NyulError::NegativeWithoutMask { image: 2 }));
    assert!(matches!(fit(vec![]), NyulError::NoImages));
}

#[test]
fn the_mask_chooses_the_voxels_of_the_landmarks_only() {
    let image = fixture(1);
    let mask: Vec<f32> = (0..120).map(|i| if i % 3 == 0 { 0.0 } else { 2.0 }).collect();
    let inside = foreground(&image, Some(&mask)).unwrap();
    assert_eq!(inside.len(), 80);
    assert_eq!(foreground(&[-3.0, f32::NAN, 2.0], Some(&[1.0, 1.0, 0.0])).unwrap(), [-3.0]);
    let standard = standard_of(&[fixture(0)], FitOptions::default());
    // The whole image is mapped, background and all, by the landmarks of the mask.
    let mapped = standard.map(&inside).unwrap().apply_all(&image);
    assert_eq!(mapped.len(), 120);
    assert_ne!(mapped, standard.map(&foreground(&image, None).unwrap()).unwrap().apply_all(&image));
}

/// Five heads of one scanner; in one of them a bright lesion fills 8 % of the mask, and one has the
/// landmarks of a mask that took in air.
#[test]
fn the_median_is_robust_against_pathology() {
    let head = |i: usize| (0..5000).map(|v| 40.0 + i as f32 + (v % 100) as f32).collect::<Vec<f32>>();
    let healthy: Vec<Vec<f32>> = (0..5).map(head).collect();
    let mut odd = healthy.clone();
    odd[1][..400].fill(900.0);
    odd[3][..700].fill(1.0);
    let shift = |average| {
        let options = FitOptions { average, ..FitOptions::default() };
        let (a, b) = (standard_of(&healthy, options), standard_of(&odd, options));
        a.scale.iter().zip(&b.scale).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
    };
    assert!(shift(Average::Mean) > 10.0, "{}", shift(Average::Mean));
    assert!(shift(Average::Median) < 0.5, "{}", shift(Average::Median));
}

#[test]
fn anchors_and_even_medians_by_hand() {
    let images = [vec![10.0, 20.0], vec![10.0, 40.0]];
    let scale = |options| standard_of(&images, options).scale;
    let as_is = scale(FitOptions { anchor: Anchor::AsIs, average: Average::Median });
    check(as_is[5], 20.0);
    check(scale(FitOptions { anchor: Anchor::Ends { low: -1.0, high: 1.0 }, average: Average::Mean })[5], 0.0);
}

#[test]
fn the_shipped_standards_have_air_at_0_and_tissue_at_50() {
    for modality in Modality::ALL {
        let standard = shipped(modality);
        assert_eq!(standard.scale.len(), 11);
        assert!((standard.at(50.0) - 50.0).abs() < 10.0, "{}: {:?}", modality.name(), standard.scale);
        assert!(standard.scale.windows(2).all(|w| w[0] < w[1]), "{}: {:?}", modality.name(), standard.scale);
    }
}
