//! `willis pretrain`: pre-trains a backbone on unlabelled volumes.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use image::{GrayImage, ImageFormat, Luma};
use willis_core::cohort::{self, paths::is_data_set};
use willis_core::files::{atomic::write_atomically, case};
use willis_nets::backbones::BackboneKind;
use willis_nets::ops::cpu;
use willis_nets::pretrain::{Epoch, Method, Panel, PretrainConfig, fit};
use willis_nets::train::TrainConfig;
use willis_nets::weights::Precision;

use super::Outcome;
use crate::cases::{prepare, prepare_unlabelled};
use crate::cli::PretrainArgs;
use crate::config::Config;
use crate::progress::Progress;

/// File of the pre-trained backbone in the run folder.
const BACKBONE: &str = "backbone.safetensors";
/// File of the resolved configuration in the run folder.
const RECORD: &str = "config.toml";
/// Table with one row per epoch in the run folder.
const EPOCHS: &str = "epochs.csv";
/// Header of [`EPOCHS`].
const EPOCHS_HEADER: &str = "step,loss,probe_r2,spread";

/// Runs the command.
pub fn run(args: &PretrainArgs, progress: &Progress) -> anyhow::Result<Outcome> {
    let mut config = Config::load(args.config.as_deref())?;
    let steps = args.steps.unwrap_or(config.pretrain.train.steps);
    let train = TrainConfig { steps, seed: args.seed, ..config.pretrain.train.clone() };
    config.pretrain = PretrainConfig { train, ..config.pretrain };
    // The configured sizes apply to the configured backbone and method only.
    if let Some(kind) = args.backbone.map(BackboneKind::from).filter(|&kind| kind != config.pretrain.backbone.kind()) {
        config.pretrain.backbone = PretrainConfig::default_backbone(kind);
    }
    if let Some(method) = args.method.map(Method::from).filter(|method| !method.is_same_kind(&config.pretrain.method)) {
        config.pretrain.method = method;
    }
    config.validate()?;
    std::fs::create_dir_all(&args.output).with_context(|| format!("cannot create {}", args.output.display()))?;
    let record = args.output.join(RECORD);
    if record.exists() {
        let begun = Config::load(Some(&record))?.pretrain;
        let same = begun.method.is_same_kind(&config.pretrain.method)
            && begun.backbone.kind() == config.pretrain.backbone.kind();
        ensure!(same, "{} holds a run of another method or backbone; choose another folder", args.output.display());
    }
    let resolved = config.resolved();
    write_atomically(&record, |file| file.write_all(resolved.as_bytes()))?;
    let folders = case_folders(&args.data, &config, &args.output.join("volumes"), progress)?;
    let recipe = &config.pretrain;

    let bar = progress.bar("pretrain", steps as u64);
    let mut failed = None;
    let done = fit(
        folders.len(),
        |i| case::load(&folders[i]).map(|case| case.image),
        recipe,
        &args.output,
        &cpu(),
        |step| {
            bar.set_position(step.step as u64);
            bar.set_message(format!("loss {:.4}", step.loss));
        },
        |epoch| {
            failed = failed.take().or(report(epoch, &args.output).err());
            if epoch.collapsed() {
                bar.suspend(|| {
                    eprintln!(
                        "step {}: the encoder has collapsed; its features are the same for every cube",
                        epoch.step
                    )
                });
            }
        },
    )?;
    bar.finish_and_clear();
    if let Some(error) = failed {
        return Err(error);
    }
    if done.finished {
        done.weights.save(&args.output.join(BACKBONE), Precision::F16)?;
    }
    println!("{} of {steps} steps on {} volumes", done.step, folders.len());
    if let Ok(epochs) = std::fs::read_to_string(args.output.join(EPOCHS)) {
        print!("{epochs}");
    }
    Ok(Outcome::Done)
}

/// Folders of the cases of a data set, or of the series of a folder.
fn case_folders(data: &Path, config: &Config, cache: &Path, progress: &Progress) -> anyhow::Result<Vec<PathBuf>> {
    if is_data_set(data) {
        let cases = prepare(&cohort::read(data)?, config, 1, progress)?;
        return Ok(cases.into_iter().map(|case| case.folder).collect());
    }
    prepare_unlabelled(data, config, cache, progress)
}

/// Adds a row to the table of epochs and writes the picture. Rows of later steps, left by a killed
/// run, are dropped.
fn report(epoch: &Epoch, run: &Path) -> anyhow::Result<()> {
    let path = run.join(EPOCHS);
    let old = std::fs::read_to_string(&path).unwrap_or_default();
    let step_of = |row: &str| row.split(',').next().and_then(|step| step.parse::<usize>().ok());
    let mut rows: Vec<&str> = old.lines().filter(|row| step_of(row).is_some_and(|step| step < epoch.step)).collect();
    let row = format!("{},{:.5},{:.4},{:.5}", epoch.step, epoch.loss, epoch.probe, epoch.spread);
    rows.insert(0, EPOCHS_HEADER);
    rows.push(&row);
    let table = rows.join("\n") + "\n";
    write_atomically(&path, |file| file.write_all(table.as_bytes()))?;
    let panels = run.join("panels");
    std::fs::create_dir_all(&panels).with_context(|| panels.display().to_string())?;
    let mut png = std::io::Cursor::new(Vec::new());
    picture(&epoch.panel).write_to(&mut png, ImageFormat::Png)?;
    write_atomically(&panels.join(format!("step-{:06}.png", epoch.step)), |file| file.write_all(png.get_ref()))?;
    Ok(())
}

/// The three slices side by side, four pixels per voxel. Black is two standard deviations below the
/// mean of the cube, white three above.
fn picture(panel: &Panel) -> GrayImage {
    const ZOOM: u32 = 4;
    const GAP: u32 = 8;
    let side = panel.side as u32 * ZOOM;
    let mut picture = GrayImage::from_pixel(3 * side + 2 * GAP, side, Luma([255]));
    for (i, slice) in (0..).zip([&panel.image, &panel.masked, &panel.reconstruction]) {
        for y in 0..side {
            for x in 0..side {
                let value = slice[(y / ZOOM) as usize * panel.side + (x / ZOOM) as usize];
                let grey = ((value + 2.0) / 5.0 * 255.0).clamp(0.0, 255.0) as u8;
                picture.put_pixel(i * (side + GAP) + x, y, Luma([grey]));
            }
        }
    }
    picture
}
