//! End-to-end tests of comparable intensities, of brain extraction, and of silence about series that
//! are none of ours.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use willis_core::files::{nifti, npy};
use willis_core::{Affine, Grid, Image, Point, Shape, Spacing, VoxelPoint};
use willis_nets::weights::{Precision, Weights};

fn willis(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_willis")).args(args).output().expect("the binary was built for this test")
}

/// Runs a command that must succeed; its stdout.
fn succeed(args: &[&str]) -> String {
    let output = willis(args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// stderr of a command that must fail.
fn fail(args: &[&str]) -> String {
    let output = willis(args);
    assert!(!output.status.success(), "{args:?} succeeded");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary folders have plain names")
}

fn grid(shape: [usize; 3], spacing_mm: f64) -> Grid {
    let affine = Affine::axis_aligned(Spacing::isotropic(spacing_mm), Point::new(0.0, 0.0, 0.0));
    Grid::new(Shape::new(shape[0], shape[1], shape[2]), affine)
}

/// Writes image `k` of the reference: `50(k+1)(1+sin(.37 i + k)) + 3k·(i mod 7)`, 6x5x4.
fn reference(folder: &Path, k: usize) -> String {
    let value = |i: usize| {
        let wave = 1.0 + (0.37 * i as f64 + k as f64).sin();
        (50.0 * (k as f64 + 1.0) * wave + 3.0 * (k * (i % 7)) as f64) as f32
    };
    let path = folder.join(format!("{k}.nii.gz"));
    nifti::write(&path, &Image::new(grid([6, 5, 4], 1.0), (0..120).map(value).collect())).unwrap();
    text(&path).to_string()
}

/// Expected values are those of `intensity-normalization` 3.0.1 and 4.0.0 on the same arrays.
#[test]
fn nyul_commands_give_what_the_python_package_gives() {
    let folder = tempfile::tempdir().unwrap();
    let [a, b] = [0, 1].map(|k| reference(folder.path(), k));
    for suffix in ["npy", "npz"] {
        let standard = folder.path().join(format!("standard.{suffix}"));
        let mapped = folder.path().join(format!("mapped-{suffix}.nii.gz"));
        succeed(&["volume", "nyul", "fit", &a, &b, "-o", text(&standard)]);
        succeed(&["volume", "nyul", "apply", &b, "--standard", text(&standard), "-o", text(&mapped)]);
        let mapped = nifti::read(&mapped).unwrap();
        let lowest = mapped.voxels.iter().copied().fold(f32::INFINITY, f32::min);
        let got = [mapped.voxels[0], mapped.voxels[1], mapped.voxels[2], mapped.voxels[3], lowest];
        for (got, expected) in got.into_iter().zip([85.62787f32, 95.29964, 96.563675, 91.74443, -0.0521959]) {
            assert!((got - expected).abs() < 1e-5 * expected.abs().max(1.0), "{suffix}: {got}, not {expected}");
        }
    }
}

#[test]
fn nyul_commands_refuse_what_would_be_silently_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let image = reference(folder.path(), 0);
    let out = folder.path().join("standard.npy");
    let write = |name: &str, grid: Grid, value: f32| {
        let path = folder.path().join(name);
        nifti::write(&path, &Image::filled(grid, value)).unwrap();
        text(&path).to_string()
    };
    let elsewhere = write("elsewhere.nii.gz", grid([6, 5, 4], 1.1), 1.0);
    let empty = write("empty.nii.gz", grid([6, 5, 4], 1.0), 0.0);
    let negative = write("negative.nii.gz", grid([6, 5, 4], 1.0), -5.0);
    let fit = |arguments: &[&str]| fail(&[&["volume", "nyul", "fit", "-o", text(&out)], arguments].concat());
    assert!(fit(&[&image, "--mask", &elsewhere]).contains("another affine"));
    assert!(fit(&[&image, "--mask", &empty]).contains("no voxel inside its mask"));
    assert!(fit(&[&image, &negative]).contains("image 2 has negative values"));
    assert!(fit(&[&image, &image, "--mask", &image]).contains("2 images but 1 masks"));
    assert!(fit(&[&image, "--low", "5", "--high", "5"]).contains("--high 5 must be greater"));
    let error = fail(&["volume", "nyul", "apply", &image, "--standard", "pd", "-o", "x.nii.gz"]);
    assert!(error.contains("must be by_modality, cta, mra"), "{error}");
    assert!(!out.exists());
}

/// A bottle of water holds no arteries: the reason is given, and no probability.
#[test]
fn a_phantom_bottle_gets_no_probability() {
    let folder = tempfile::tempdir().unwrap();
    let grid = grid([40, 60, 60], 2.0);
    let value = |i: usize| {
        let p = grid.affine.to_world(VoxelPoint::from(grid.shape.index(i)));
        if (p.x - 59.0).hypot(p.y - 59.0) < 40.0 { 100.0 + (i % 7) as f32 } else { (i % 3) as f32 }
    };
    let path = folder.path().join("bottle.nii.gz");
    nifti::write(&path, &Image::new(grid, (0..grid.shape.len()).map(value).collect())).unwrap();
    let out = folder.path().join("out");
    let stdout = succeed(&["predict", text(&path), "--modality", "mra", "-o", text(&out), "--quiet"]);
    assert!(stdout.contains("willis abstains: "), "{stdout}");
    assert!(!stdout.contains("robability") && !stdout.contains("candidate"), "{stdout}");
    let report = fs::read_to_string(out.join("report.html")).unwrap();
    let (_, body) = report.split_once("</style>").unwrap();
    assert!(body.contains("No verdict") && !body.contains('%'), "{body}");
    assert!(!fs::read_to_string(out.join("candidates.mrk.json")).unwrap().contains('%'));
    // The values stay in the JSON.
    assert!(fs::read_to_string(out.join("prediction.json")).unwrap().contains("Aneurysm Present"));
}

/// Values `2u - 1` of the stream of a name: SplitMix64 from its FNV-1a hash.
fn stream(name: &str) -> impl Iterator<Item = f64> + use<> {
    let seed =
        name.bytes().fold(0xcbf2_9ce4_8422_2325u64, |hash, b| (hash ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    (1u64..).map(move |i| {
        let mut z = seed.wrapping_add(i.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 40) as f64 / (1u64 << 24) as f64 * 2.0 - 1.0
    })
}

/// Values of FreeSurfer's own StripModel, with parameters from streams of their names, in PyTorch.
#[test]
fn synthstrip_gives_the_values_of_the_official_net() {
    let folder = tempfile::tempdir().unwrap();
    let [weights, input, output] = ["net.safetensors", "x.npy", "y.npy"].map(|name| folder.path().join(name));
    let widths = [16, 32, 64, 64, 64, 64, 64];
    let mut state = Weights::default();
    let mut conv = |name: String, inputs: usize, outputs: usize| {
        let fan = inputs * 27;
        let kernel = stream(&format!("{name}.conv.weight")).take(outputs * fan);
        let kernel = kernel.map(|t| (t * (3.0 / fan as f64).sqrt()) as f32).collect();
        let bias = stream(&format!("{name}.conv.bias")).take(outputs).map(|t| (0.05 * t) as f32).collect();
        state.insert(format!("model_state_dict.{name}.conv.weight"), vec![outputs, inputs, 3, 3, 3], kernel);
        state.insert(format!("model_state_dict.{name}.conv.bias"), vec![outputs], bias);
    };
    let mut inputs = 1;
    for (level, &outputs) in widths[..6].iter().enumerate() {
        conv(format!("encoder.{level}.0"), inputs, outputs);
        conv(format!("encoder.{level}.1"), outputs, outputs);
        inputs = outputs;
    }
    for (level, &outputs) in widths[1..].iter().rev().enumerate() {
        conv(format!("decoder.{level}.0"), if level == 0 { inputs } else { inputs + outputs }, outputs);
        conv(format!("decoder.{level}.1"), outputs, outputs);
        inputs = outputs;
    }
    conv("remaining.0".into(), inputs + 16, 16);
    conv("remaining.1".into(), 16, 16);
    conv("remaining.2".into(), 16, 1);
    state.save(&weights, Precision::F32).unwrap();
    let voxels: Vec<f32> = stream("input").take(64 * 64 * 64).map(|t| t as f32).collect();
    npy::write_f32(&input, &[1, 1, 64, 64, 64], &voxels).unwrap();

    succeed(&[
        "net",
        "run",
        "synthstrip",
        "--weights",
        text(&weights),
        "--input",
        text(&input),
        "--output",
        text(&output),
    ]);
    let (shape, values) = npy::read_f32(&output).unwrap();
    assert_eq!(shape, [1, 1, 64, 64, 64]);
    let probes = [(0, 0.029730), (1, 0.015226), (37449, -0.025217), (87381, -0.074366), (131_072, 0.056942)];
    for (at, expected) in probes.into_iter().chain([(218_453, 0.000938), (262_143, 0.003773)]) {
        assert!((values[at] - expected).abs() < 1e-4, "[{at}] = {}, not {expected}", values[at]);
    }
    let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / values.len() as f64;
    assert!((mean + 0.020_138_2).abs() < 1e-6, "{mean}");
}

#[test]
fn strip_refuses_what_would_be_silently_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let series = folder.path().join("series.nii.gz");
    nifti::write(&series, &Image::new(grid([8, 8, 8], 2.0), (0..512).map(|i| (i % 9) as f32).collect())).unwrap();
    let before = fs::read(&series).unwrap();
    let mask = folder.path().join("mask.nii.gz");
    let strip = |arguments: &[&str]| fail(&[&["volume", "strip", text(&series)], arguments].concat());
    for (arguments, expected) in [
        (&["-o", text(&series)][..], "is the input and would be overwritten"),
        (&["-o", text(&mask), "--distance", text(&mask)], "is named for two results"),
        (&["-o", text(&mask), "--border", "nan"], "is not a distance between -100 and 100 mm"),
        (&["-o", text(&mask), "--border", "101"], "is not a distance between -100 and 100 mm"),
        (&["-o", text(&mask), "--weights", "missing.pt"], "cannot read checkpoint missing.pt"),
        (&["-o", "mask.png"], "must end in .nii, .nii.gz or .mha"),
    ] {
        let error = strip(arguments);
        assert!(error.contains(expected), "{arguments:?}: {error}");
    }
    assert!(!mask.exists());
    assert_eq!(fs::read(&series).unwrap(), before);
}
