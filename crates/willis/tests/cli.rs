//! End-to-end tests: the built binary in fresh folders, its output and exit codes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use willis::cli::Cli;
use willis_core::files::nifti;
use willis_core::{Affine, Grid, Image, Point, Shape, Spacing};

fn willis(args: &[&str]) -> Output {
    command(args).output().expect("the binary was built for this test")
}

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_willis"));
    command.args(args);
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn path(p: &Path) -> &str {
    p.to_str().expect("temporary folders have plain names")
}

/// Every file below a folder with its bytes.
fn content(root: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files: Vec<_> = walkdir::WalkDir::new(root)
        .into_iter()
        .filter_map(Result::ok)
        .filter(|e| e.file_type().is_file())
        .map(|e| (e.path().strip_prefix(root).expect("walked from there").to_path_buf(), fs::read(e.path()).unwrap()))
        .collect();
    files.sort();
    files
}

#[test]
fn help_names_every_command() {
    let help = text(&willis(&["--help"]).stdout);
    let commands: Vec<String> = Cli::parser().get_subcommands().map(|command| command.get_name().into()).collect();
    assert!(commands.len() >= 9, "{commands:?}");
    for command in commands {
        let listed = help.lines().any(|line| line.split_whitespace().next() == Some(&command));
        assert!(listed, "{command} is missing from\n{help}");
    }
}

#[test]
fn unknown_names_are_refused_with_the_known_ones() {
    for (arguments, known) in [
        (&["predict", "scan", "-o", "out", "--modality", "pet"][..], "cta, mra, t1post, t2"),
        (&["predict", "scan", "-o", "out", "--sex", "f"], "female, male"),
        (&["net", "describe", "unet"], "segformer3d, waveformer, resenc"),
    ] {
        let output = willis(arguments);
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(error.contains(known), "{error}");
    }
}

#[test]
fn configuration_round_trips() {
    let resolved = willis(&["config", "--resolved"]);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("all.toml");
    fs::write(&file, &resolved.stdout).unwrap();
    let again = willis(&["config", "--resolved", "--config", path(&file)]);
    assert_eq!(text(&resolved.stdout), text(&again.stdout));
}

#[test]
fn an_unknown_value_of_willis_vectors_is_an_error() {
    let run = |value: &str| command(&["config"]).env("WILLIS_VECTORS", value).output().expect("the binary was built");
    for value in ["sse", ""] {
        let output = run(value);
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{error}");
        for part in ["WILLIS_VECTORS", &format!("{value:?}"), "portable, avx2, avx512"] {
            assert!(error.contains(part), "{part} is missing from {error}");
        }
    }
    assert_eq!(run("portable").status.code(), Some(0));
}

#[test]
fn unusable_inputs_end_with_2_and_say_why() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let empty = folder.path().join("empty");
    fs::create_dir(&empty).unwrap();
    let words = folder.path().join("words.dcm");
    fs::write(&words, "these are words, not an image").unwrap();
    let short = folder.path().join("short.nii");
    fs::write(&short, [0u8; 40]).unwrap();
    let missing = folder.path().join("missing");
    for input in [&empty, &words, &short, &missing] {
        let output = willis(&["predict", path(input), "-o", path(&out), "--quiet"]);
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{}: {error}", input.display());
        let name = input.file_name().unwrap().to_str().unwrap();
        assert!(error.contains(name) && !error.contains("panicked"), "{error}");
        assert!(!out.exists(), "nothing may be written for {}", input.display());
    }
}

#[test]
fn dicom_outputs_about_another_format_are_refused_before_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let head = folder.path().join("head.nii.gz");
    let grid = Grid::new(Shape::new(4, 4, 4), Affine::axis_aligned(Spacing::isotropic(1.0), Point::new(0.0, 0.0, 0.0)));
    nifti::write(&head, &Image::filled(grid, 1.0f32)).unwrap();
    let out = folder.path().join("out");
    let output = willis(&["predict", path(&head), "-o", path(&out), "--write", "html,dicom-seg"]);
    assert_eq!(output.status.code(), Some(2));
    let error = text(&output.stderr);
    assert!(error.contains("head.nii.gz") && error.contains("not DICOM") && error.contains("--write"), "{error}");
    assert!(!out.join("prediction.json").exists());
    let error = text(&willis(&["predict", path(&head), "-o", path(&out), "--write", "dicom-rt"]).stderr);
    assert!(error.contains("dicom-sr") && error.contains("fhir"), "{error}");
}

#[test]
fn one_bad_input_does_not_stop_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let good = folder.path().join("good");
    synthesise(&good, 1, 3);
    let series = fs::read_dir(good.join("series")).unwrap().next().unwrap().unwrap().path();
    let bad = folder.path().join("bad.nii");
    fs::write(&bad, "no image").unwrap();
    let out = folder.path().join("out");
    let output = willis(&["predict", path(&series), path(&bad), "-o", path(&out), "--quiet"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("bad.nii"));
    let table = fs::read_to_string(out.join("predictions.csv")).unwrap();
    assert_eq!(table.lines().count(), 2, "{table}");
    assert_eq!(table.lines().next().unwrap().split(',').count(), 15);
}

/// By its brightness this T2 series is taken for T1; its dark arteries show that it is not.
#[test]
fn arteries_correct_a_modality_that_was_guessed_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let (cohort, nifti, out) = (folder.path().join("cohort"), folder.path().join("t2.nii"), folder.path().join("out"));
    synthesise_with(&cohort, 1, 3, "t2", "0");
    let series = fs::read_dir(cohort.join("series")).unwrap().next().unwrap().unwrap().path();
    assert!(willis(&["volume", "convert", path(&series), "-o", path(&nifti)]).status.success());
    let output = willis(&["predict", path(&nifti), "-o", path(&out), "--quiet"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let prediction = fs::read_to_string(out.join("prediction.json")).unwrap();
    assert!(
        prediction.contains("\"modality\": \"MRI T2\"")
            && prediction.contains("taken for MRI T1post from")
            && prediction.contains("corrected to MRI T2"),
        "{prediction}"
    );
}

fn synthesise(folder: &Path, series: usize, seed: u64) {
    synthesise_with(folder, series, seed, "mra", "0");
}

fn synthesise_with(folder: &Path, series: usize, seed: u64, modality: &str, prevalence: &str) {
    let (series, seed) = (series.to_string(), seed.to_string());
    let output = willis(&[
        "cohort",
        "synth",
        "-o",
        path(folder),
        "--series",
        &series,
        "--seed",
        &seed,
        "--size",
        "tiny",
        "--quiet",
        "--modality",
        modality,
        "--prevalence",
        prevalence,
    ]);
    assert!(output.status.success(), "{}", text(&output.stderr));
}

/// Starts a command and kills it (SIGKILL) after a while; returns whether it was still running.
fn kill_after(args: &[&str], wait: Duration) -> bool {
    let mut child = command(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let start = Instant::now();
    while start.elapsed() < wait {
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    true
}

#[test]
fn a_column_of_one_class_is_not_available_and_no_failure() {
    let folder = tempfile::tempdir().unwrap();
    let (cohort, table) = (folder.path().join("cohort"), folder.path().join("predictions.csv"));
    synthesise(&cohort, 2, 3);
    let truth = fs::read_to_string(cohort.join("train.csv")).unwrap();
    let columns: Vec<&str> = willis_core::anatomy::column_names().collect();
    let mut predictions = format!("SeriesInstanceUID,{}\n", columns.join(","));
    for row in truth.lines().skip(1) {
        predictions += &format!("{}{}\n", row.split(',').next().unwrap(), ",0.25".repeat(columns.len()));
    }
    fs::write(&table, predictions).unwrap();
    let evaluate = |format: &str| {
        let output = willis(&["evaluate", "--data", path(&cohort), "--predictions", path(&table), "--format", format]);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    let report = evaluate("text");
    let row = report.lines().find(|line| line.contains("AUC Aneurysm Present ")).unwrap();
    assert!(row.contains("n/a") && row.contains("one class only; 0 positive"), "{row}");
    let json: serde_json::Value = serde_json::from_str(&evaluate("json")).unwrap();
    assert_eq!(json["auc"]["Aneurysm Present"], serde_json::Value::Null);
    let figures = json["figures"].as_array().unwrap();
    let figure = figures.iter().find(|figure| figure["id"] == "auc_aneurysm_present").unwrap();
    assert_eq!(figure["undefined"], "one class only");
}

#[test]
fn a_killed_synthesis_resumes_to_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let (whole, broken) = (folder.path().join("whole"), folder.path().join("broken"));
    synthesise(&whole, 4, 11);
    let args = [
        "cohort",
        "synth",
        "-o",
        path(&broken),
        "--series",
        "4",
        "--seed",
        "11",
        "--size",
        "tiny",
        "--quiet",
        "--modality",
        "mra",
        "--prevalence",
        "0",
    ];
    let mut kills = 0;
    for wait in [40, 90, 160, 300] {
        kills += usize::from(kill_after(&args, Duration::from_millis(wait)));
    }
    assert!(kills > 0, "the run was too fast to be killed");
    synthesise(&broken, 4, 11);
    let resumed: std::collections::BTreeMap<_, _> = content(&broken).into_iter().collect();
    for (file, bytes) in content(&whole) {
        assert!(resumed.get(&file) == Some(&bytes), "{} differs after the resume", file.display());
    }
}

#[test]
fn a_killed_training_resumes_to_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    synthesise(&data, 4, 5);
    let (whole, broken) = (folder.path().join("whole"), folder.path().join("broken"));
    let config = folder.path().join("tiny.toml");
    fs::write(&config, [TINY_TRAINING, TINY_SEGFORMER].concat()).unwrap();
    let args = |run: &'static str| {
        let run = folder.path().join(run);
        ["train", "segment", "--data", path(&data), "-o", path(&run), "--steps", "40", "--folds", "2"]
            .into_iter()
            .chain(["--config", path(&config), "--quiet"])
            .map(String::from)
            .collect::<Vec<_>>()
    };
    let run = |args: &[String]| {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let output = willis(&args);
        assert!(output.status.success(), "{}", text(&output.stderr));
    };
    run(&args("whole"));
    let killed: Vec<String> = args("broken");
    let killed: Vec<&str> = killed.iter().map(String::as_str).collect();
    let mut kills = 0;
    for wait in [300, 500, 700] {
        kills += usize::from(kill_after(&killed, Duration::from_millis(wait)));
    }
    assert!(kills > 0, "the run was too fast to be killed");
    run(&args("broken"));
    let weights = |run: &Path| fs::read(run.join("segment.safetensors")).unwrap();
    assert!(weights(&whole) == weights(&broken), "the resumed training differs");

    // The weights of a training start another one.
    let from = whole.join("segment.safetensors");
    let mut next = args("next");
    next.extend(["--from".into(), path(&from).into()]);
    next[7] = "1".into();
    run(&next);
    assert!(weights(&folder.path().join("next")) != weights(&whole));
}

#[test]
fn a_training_starts_from_a_pre_trained_encoder() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let data = at("data");
    synthesise_with(&data, 4, 5, "mra", "1");
    for (backbone, tables) in [("segformer3d", TINY_SEGFORMER), ("waveformer", TINY_WAVEFORMER)] {
        fs::write(at(backbone), [TINY_TRAINING, TINY_PRETRAINING, tables].concat()).unwrap();
    }
    let common = |backbone: &str, run: &Path| {
        let config = at(backbone);
        let options = ["--steps", "2", "--quiet", "--data", path(&data), "--config", path(&config), "-o", path(run)];
        options.map(String::from)
    };
    let pretrain = |method: &str, backbone: &str, run: &Path| {
        let arguments = ["pretrain", "--method", method, "--backbone", backbone];
        command(&arguments).args(common(backbone, run)).output().unwrap()
    };
    for (method, backbone) in
        [("spark", "segformer3d"), ("mim", "segformer3d"), ("spark-mim", "segformer3d"), ("spark", "waveformer")]
    {
        let run = at(&[method, backbone].concat());
        let output = pretrain(method, backbone, &run);
        assert!(output.status.success(), "{}", text(&output.stderr));
        let epochs = fs::read_to_string(run.join("epochs.csv")).unwrap();
        assert!(epochs.lines().nth(1).unwrap().starts_with("2,"), "{epochs}");
        assert!(run.join("panels/step-000002.png").exists());
    }
    // A run folder resumes only its own method and backbone.
    let refused = pretrain("mim", "segformer3d", &at("sparksegformer3d"));
    assert!(text(&refused.stderr).contains("another method or backbone"), "{}", text(&refused.stderr));
    let models = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models");
    let train = |arguments: &[&str], backbone: &str, run: &Path, encoder: &Path| {
        let folds = ["--folds", "2", "--encoder", path(encoder)];
        command(&["train"]).args(arguments).args(folds).args(common(backbone, run)).output().unwrap()
    };
    let backbone_of = |backbone: &str| at(&["spark", backbone].concat()).join("backbone.safetensors");
    for (arguments, backbone) in [
        (&["segment"][..], "segformer3d"),
        (&["segment", "--backbone", "waveformer"], "waveformer"),
        (&["examine", "--models", models], "waveformer"),
    ] {
        let run = at(&arguments.concat().replace('/', ""));
        let output = train(arguments, backbone, &run, &backbone_of(backbone));
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert!(run.join("scores.json").exists());
    }
    // The weights of a segmentation net are not an encoder.
    let output = train(&["segment"], "segformer3d", &at("refused"), &at("segment").join("segment.safetensors"));
    assert!(!output.status.success());
    assert!(text(&output.stderr).contains("is not an encoder of this segmentation net"), "{}", text(&output.stderr));
}

/// Pre-training to go with [`TINY_TRAINING`].
const TINY_PRETRAINING: &str = r#"
[pretrain]
patch = 32
cell = 16
batch = 1
epoch_steps = 2
probe_cubes = 8
decoder_width = 32

[train.examine]
batch = 2

[train.examine.net.encoder]
kind = "waveformer"
embed_dim = 8
"#;

/// A training that takes seconds and writes a checkpoint after every step.
const TINY_TRAINING: &str = r#"
[train]
validation_cases = 0

[train.segment.train]
checkpoint_seconds = 0.0

[train.segment.sample]
patch = 32
batch = 1
"#;

/// A SegFormer3D that goes with [`TINY_TRAINING`].
const TINY_SEGFORMER: &str = r#"
[train.segment.net]
kind = "branched"

[train.segment.net.backbone]
embed_dims = [8, 16, 16, 16]
heads = [1, 2, 2, 2]
depths = [1, 1, 1, 1]
decoder_dim = 16

[pretrain.backbone]
kind = "segformer3d"
embed_dims = [8, 16, 16, 16]
heads = [1, 2, 2, 2]
depths = [1, 1, 1, 1]
decoder_dim = 16
"#;

/// A WaveFormer that goes with [`TINY_TRAINING`].
const TINY_WAVEFORMER: &str = r#"
[train.segment.net]
kind = "plain"

[train.segment.net.backbone]
kind = "waveformer"
size = [32, 32, 32]
embed_dim = 8
head_dim = 4

[pretrain.backbone]
kind = "waveformer"
size = [32, 32, 32]
embed_dim = 8
head_dim = 4
"#;
