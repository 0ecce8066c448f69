//! `willis cohort`: make, check and split data sets in the RSNA layout.

use std::path::Path;

use anyhow::{Context, ensure};
use serde_json::json;
use willis_core::{Modality, Severity, cohort};
use willis_imaging::ingest::{IngestConfig, ingest};
use willis_phantom::{self as phantom, CohortMix};

use super::Outcome;
use crate::cli::{Appearance, CohortCommand, Format, ScanSize};
use crate::progress::Progress;

/// Runs one of the cohort commands.
pub fn run(command: &CohortCommand, progress: &Progress) -> anyhow::Result<Outcome> {
    match command {
        CohortCommand::Synth { output, series, seed, appearance, size, modality, prevalence, lesions } => {
            let modality = modality
                .as_deref()
                .map(|name| {
                    Modality::from_name(name)
                        .with_context(|| format!("unknown modality {name}; use cta, mra, t1post or t2"))
                })
                .transpose()?;
            let mut mix = mix(*appearance, *size, modality);
            mix.prevalence = prevalence.unwrap_or(mix.prevalence);
            mix.lesions = *lesions;
            ensure!(
                (0.0..=1.0).contains(&mix.prevalence),
                "the prevalence must lie between 0 and 1, got {}",
                mix.prevalence
            );
            let bar = progress.bar("synth", *series as u64);
            phantom::synthesise_cohort(output, *series, *seed, &mix, &|done| bar.set_position(done as u64))?;
            bar.finish_and_clear();
            println!("{}", output.display());
            Ok(Outcome::Done)
        }
        CohortCommand::Check { data, format } => check(data, *format, progress),
        CohortCommand::Split { data, folds, format } => split(data, *folds, *format),
    }
}

fn check(data: &Path, format: Format, progress: &Progress) -> anyhow::Result<Outcome> {
    let cohort = cohort::read(data)?;
    let bar = progress.bar("check", cohort.series.len() as u64);
    let mut rows = Vec::new();
    for series in &cohort.series {
        let config = IngestConfig { modality: series.meta.modality, ..IngestConfig::default() };
        let result = ingest(&series.folder, &config);
        let findings = match &result {
            Ok(volume) => volume.findings.clone(),
            Err(_) => Vec::new(),
        };
        let shape = result.as_ref().ok().map(|v| v.image.grid.shape.zyx());
        rows.push((series.meta.uid.clone(), shape, findings, result.err().map(|e| e.to_string())));
        bar.inc(1);
    }
    bar.finish_and_clear();
    let unreadable = rows.iter().filter(|r| r.3.is_some()).count();
    if format == Format::Json {
        let list: Vec<_> = rows
            .iter()
            .map(|(uid, shape, findings, error)| json!({"uid": uid, "shape_zyx": shape, "findings": findings, "error": error}))
            .collect();
        println!("{}", serde_json::to_string_pretty(&json!({"series": list, "unreadable": unreadable}))?);
    } else {
        for (uid, shape, findings, error) in &rows {
            let shape = shape.map_or("unreadable".into(), |[z, y, x]| format!("{z}x{y}x{x}"));
            println!("{uid}  {shape}");
            error.iter().for_each(|e| println!("    error: {e}"));
            for f in findings {
                let mark = if f.severity == Severity::Warning { "warning" } else { "note" };
                println!("    {mark}: {}: {}", f.code, f.message);
            }
        }
        println!("{} series, {unreadable} unreadable", rows.len());
    }
    Ok(if unreadable == 0 { Outcome::Done } else { Outcome::SomeFailed })
}

fn split(data: &Path, folds: usize, format: Format) -> anyhow::Result<Outcome> {
    let cohort = cohort::read(data)?;
    let fold_of = crate::cases::fold_of_series(&cohort, folds)?;
    if format == Format::Json {
        let map: serde_json::Map<_, _> =
            cohort.series.iter().zip(&fold_of).map(|(s, &f)| (s.meta.uid.clone(), json!(f))).collect();
        println!("{}", serde_json::to_string_pretty(&json!({"folds": folds, "fold_of_series": map}))?);
    } else {
        println!("SeriesInstanceUID,fold");
        cohort.series.iter().zip(&fold_of).for_each(|(series, fold)| println!("{},{fold}", series.meta.uid));
    }
    Ok(Outcome::Done)
}

fn mix(appearance: Appearance, size: ScanSize, modality: Option<Modality>) -> CohortMix {
    let shares = CohortMix::default();
    let only = |m: Modality| Modality::ALL.map(|each| f64::from(u8::from(each == m)));
    CohortMix {
        modalities: modality.map_or(shares.modalities, only),
        wide_share: match appearance {
            Appearance::Realistic => 0.0,
            Appearance::Mixed => 1.0 / 3.0,
            Appearance::Wide => 1.0,
        },
        size: match size {
            ScanSize::Clinical => phantom::ScanSize::Clinical,
            ScanSize::Small => phantom::ScanSize::Small,
            ScanSize::Tiny => phantom::ScanSize::Tiny,
            ScanSize::Reference => phantom::ScanSize::Reference,
        },
        ..shares
    }
}
