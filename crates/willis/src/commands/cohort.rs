//! `willis cohort`: makes, checks and splits data sets in the RSNA layout.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, ensure};
use serde_json::json;
use willis_core::cohort::BENCHMARK_SEEDS;
use willis_core::{Finding, Modality, Severity, Volume, cohort};
use willis_imaging::ingest::{IngestConfig, ingest};
use willis_phantom::{AnatomyLibrary, CohortMix, synthesise_cohort};

use super::Outcome;
use crate::cli::{AppearanceName, CohortCommand, Format, SynthArgs};
use crate::progress::Progress;

/// Runs one of the cohort commands.
pub fn run(command: &CohortCommand, progress: &Progress) -> anyhow::Result<Outcome> {
    match command {
        CohortCommand::Synth(args) => synth(args, progress),
        CohortCommand::Check { data, format } => check(data, *format, progress),
        CohortCommand::Split { data, folds, format } => split(data, *folds, *format),
    }
}

fn synth(args: &SynthArgs, progress: &Progress) -> anyhow::Result<Outcome> {
    let mix = mix(args)?;
    ensure!((0.0..=1.0).contains(&mix.prevalence), "--prevalence {} must lie between 0 and 1", mix.prevalence);
    ensure!(
        !BENCHMARK_SEEDS.contains(&args.seed),
        "--seed {} is kept for benchmarks, as all from {} to {} are; choose another",
        args.seed,
        BENCHMARK_SEEDS.start,
        BENCHMARK_SEEDS.end - 1
    );
    let bar = progress.bar("synth", args.series as u64);
    synthesise_cohort(&args.output, args.series, args.seed, &mix, &|done| bar.set_position(done as u64))?;
    bar.finish_and_clear();
    println!("{}", args.output.display());
    Ok(Outcome::Done)
}

fn mix(args: &SynthArgs) -> anyhow::Result<CohortMix> {
    let mut mix = match &args.mix {
        Some(path) => {
            let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
            toml::from_str(&text).with_context(|| format!("{} is no distribution of series", path.display()))?
        }
        None => mix_of_options(args),
    };
    if args.heads.is_some() || args.bone.is_some() {
        ensure!(!mix.models.is_empty(), "--heads and --bone need --mix with other models than the plain one");
        let library = AnatomyLibrary::read(args.heads.as_deref(), args.bone.as_deref())?;
        for name in library.left_out() {
            eprintln!("left out: {name} is no label map of a whole head");
        }
        mix.library = Some(Arc::new(library));
    }
    Ok(mix)
}

fn mix_of_options(args: &SynthArgs) -> CohortMix {
    let shares = CohortMix::default();
    let only = |modality: Modality| Modality::ALL.map(|each| f64::from(u8::from(each == modality)));
    CohortMix {
        modalities: args.modality.map_or(shares.modalities, |name| only(name.into())),
        wide_share: match args.appearance {
            AppearanceName::Realistic => 0.0,
            AppearanceName::Mixed => 1.0 / 3.0,
            AppearanceName::Wide => 1.0,
        },
        size: args.size.into(),
        prevalence: args.prevalence.unwrap_or(shares.prevalence),
        lesions: args.lesions,
        ..shares
    }
}

fn check(data: &Path, format: Format, progress: &Progress) -> anyhow::Result<Outcome> {
    let cohort = cohort::read(data)?;
    let bar = progress.bar("check", cohort.series.len() as u64);
    let mut checked = Vec::new();
    for series in &cohort.series {
        let config = IngestConfig { modality: series.meta.modality, ..IngestConfig::default() };
        checked
            .push((&series.meta.uid, ingest(&series.folder, &config).map(|volume| (shape(&volume), volume.findings))));
        bar.inc(1);
    }
    bar.finish_and_clear();
    let unreadable = checked.iter().filter(|(_, result)| result.is_err()).count();
    match format {
        Format::Json => {
            let list: Vec<_> = checked
                .iter()
                .map(|(uid, result)| match result {
                    Ok((shape, findings)) => {
                        json!({"uid": uid, "shape_zyx": shape, "findings": findings, "error": null})
                    }
                    Err(error) => json!({"uid": uid, "shape_zyx": null, "findings": [], "error": error.to_string()}),
                })
                .collect();
            println!("{}", serde_json::to_string_pretty(&json!({"series": list, "unreadable": unreadable}))?);
        }
        Format::Text => {
            for (uid, result) in &checked {
                match result {
                    Ok(([z, y, x], findings)) => {
                        println!("{uid}  {z}x{y}x{x}");
                        findings.iter().for_each(print_finding);
                    }
                    Err(error) => println!("{uid}  unreadable\n    error: {error}"),
                }
            }
            println!("{} series, {unreadable} unreadable", checked.len());
        }
    }
    Ok(if unreadable == 0 { Outcome::Done } else { Outcome::SomeFailed })
}

fn shape(volume: &Volume) -> [usize; 3] {
    volume.image.grid.shape.zyx()
}

fn print_finding(finding: &Finding) {
    let severity = match finding.severity {
        Severity::Warning => "warning",
        Severity::Info => "note",
    };
    println!("    {severity}: {}: {}", finding.code, finding.message);
}

fn split(data: &Path, folds: usize, format: Format) -> anyhow::Result<Outcome> {
    let cohort = cohort::read(data)?;
    let fold_of = crate::cases::fold_of_series(&cohort, folds)?;
    let pairs = cohort.series.iter().map(|series| &series.meta.uid).zip(&fold_of);
    match format {
        Format::Json => {
            let map: serde_json::Map<_, _> = pairs.map(|(uid, &fold)| (uid.clone(), json!(fold))).collect();
            println!("{}", serde_json::to_string_pretty(&json!({"folds": folds, "fold_of_series": map}))?);
        }
        Format::Text => {
            println!("SeriesInstanceUID,fold");
            pairs.for_each(|(uid, fold)| println!("{uid},{fold}"));
        }
    }
    Ok(Outcome::Done)
}
