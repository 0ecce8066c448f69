//! `willis benchmark`: makes the series of a benchmark, predicts them and scores the predictions.
//! Finished series are kept, so a killed run resumes and a small one can grow.

mod spec;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use willis_core::ModelRef;
use willis_core::cohort::paths::{series_folder, truth_file};
use willis_core::cohort::{HeaderContent, SeriesTruth};
use willis_core::files::json;
use willis_phantom::{CohortWriter, SeriesUids};

use self::spec::{Benchmark, BenchmarkPart, HeadSet};
use super::evaluate::{self, Measured};
use super::{Outcome, destination, predict};
use crate::cli::BenchmarkArgs;
use crate::config::Config;
use crate::line::predict_path;
use crate::models::Nets;
use crate::outputs::{self, OutputContent, OutputFormat};
use crate::progress::Progress;
use crate::run::measure;

/// Content of `benchmark.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct BenchmarkRecord {
    /// Version of this layout.
    schema: u32,
    /// Name of the benchmark.
    benchmark: String,
    /// Which of its heads were used.
    heads: HeadSet,
    /// Seed of each part.
    seeds: Vec<u64>,
    /// What was predicted with, the last one last. The final heads are meant to be used once per
    /// release.
    runs: Vec<BenchmarkRun>,
}

/// What a benchmark was predicted with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct BenchmarkRun {
    /// Version of willis.
    code_version: String,
    /// SHA-256 of the configuration.
    config_sha256: String,
    /// Weights.
    models: Vec<ModelRef>,
}

impl BenchmarkRecord {
    const SCHEMA: u32 = 1;
}

/// Runs the command.
pub fn run(args: &BenchmarkArgs, progress: &Progress) -> anyhow::Result<Outcome> {
    destination::folder(&args.output)?;
    let benchmark = Benchmark::load(&args.benchmark)?;
    let heads = if args.last { HeadSet::Final } else { HeadSet::Development };
    let config = Config::load(args.line.config.as_deref())?;
    let nets = Nets::load(args.line.models.as_deref())?;
    let data = args.output.join("data");
    let mut run = Run {
        cohort: CohortWriter::claim(&data, &benchmark.origin(heads))?,
        data,
        results: args.output.clone(),
        config,
        nets,
        keep: args.keep,
        folders: Vec::new(),
        failed: 0,
        seconds: [0.0; 2],
    };
    evaluate::refuse_common_heads(&run.data, &args.trained_on)?;
    record(&benchmark, heads, &run)?;

    let count = |part: &BenchmarkPart| part.series.of(heads).min(args.series.unwrap_or(usize::MAX));
    let bar = progress.bar(&benchmark.name, benchmark.parts.iter().map(count).sum::<usize>() as u64);
    for (part, seed) in benchmark.parts.iter().zip(benchmark.seeds(heads)) {
        for index in 0..count(part) as u64 {
            bar.set_message(part.name.clone());
            run.series(part, seed, index)?;
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    let (series, [making, predicting]) = (run.folders.len(), run.seconds);
    eprintln!("{series} series; this run took {making:.0} s to make and {predicting:.0} s to predict its own");
    run.finish(args)
}

/// Notes what the heads are predicted with. Warns where the final heads are used, and more so where
/// they had been used before.
fn record(benchmark: &Benchmark, heads: HeadSet, run: &Run) -> anyhow::Result<()> {
    let path = run.results.join("benchmark.json");
    let mut runs = if path.exists() { json::read::<BenchmarkRecord>(&path)?.runs } else { Vec::new() };
    let this = BenchmarkRun {
        code_version: env!("CARGO_PKG_VERSION").into(),
        config_sha256: run.config.sha256(),
        models: run.nets.models.clone(),
    };
    runs.retain(|earlier| *earlier != this);
    if heads == HeadSet::Final {
        eprintln!("warning: the final heads are meant to be predicted once per release, not to choose between weights");
        if !runs.is_empty() {
            eprintln!(
                "warning: they have been predicted with {} other set(s) of weights or settings; benchmark.json lists them",
                runs.len()
            );
        }
    }
    runs.push(this);
    let (name, seeds) = (benchmark.name.clone(), benchmark.seeds(heads));
    json::write(&path, &BenchmarkRecord { schema: BenchmarkRecord::SCHEMA, benchmark: name, heads, seeds, runs })?;
    Ok(())
}

/// A benchmark that is being run.
struct Run {
    cohort: CohortWriter,
    /// Folder of the data set.
    data: PathBuf,
    /// Folder of the predictions.
    results: PathBuf,
    config: Config,
    nets: Nets,
    /// Whether images are kept.
    keep: bool,
    /// Folders of the predictions so far.
    folders: Vec<PathBuf>,
    failed: usize,
    /// Spent on making and on predicting series.
    seconds: [f64; 2],
}

impl Run {
    /// Makes and predicts one series, as far as that has not been done, and deletes its images.
    fn series(&mut self, part: &BenchmarkPart, seed: u64, index: u64) -> anyhow::Result<()> {
        let uid = SeriesUids::new(seed, index).series();
        let (images, truth) = (series_folder(&self.data, &uid), truth_file(&self.data, &uid));
        let folder = self.results.join(&uid);
        let known: Option<SeriesTruth> = if truth.exists() { Some(json::read(&truth)?) } else { None };
        let complete = known.as_ref().is_some_and(|truth| self.is_complete(&folder, truth));
        if known.is_some() && !complete && !images.exists() {
            // Without its truth, which is written last, a series counts as missing and is made again.
            std::fs::remove_file(&truth)?;
        }
        let cohort = &mut self.cohort;
        let (added, cost) = measure(|| cohort.add_drawn(seed, index, &part.mix, Some(&part.name)).cloned());
        let truth = added?;
        if !complete {
            self.seconds[0] += cost.seconds;
            let (done, cost) = measure(|| self.predict(&images, &folder, &truth));
            self.seconds[1] += cost.seconds;
            if let Err(error) = done {
                self.failed += 1;
                eprintln!("failed: {}: {error:#}", images.display());
                return Ok(());
            }
        }
        if !self.keep && images.exists() {
            std::fs::remove_dir_all(&images)?;
        }
        self.folders.push(folder);
        Ok(())
    }

    /// The configuration for a series. The table of a data set says the modality, unless the header
    /// does not.
    fn config(&self, truth: &SeriesTruth) -> Config {
        let mut config = self.config.clone();
        let full = truth.scan.as_ref().is_none_or(|scan| scan.header == HeaderContent::Full);
        config.ingest.modality = config.ingest.modality.or(truth.series.modality.filter(|_| full));
        config
    }

    fn is_complete(&self, folder: &Path, truth: &SeriesTruth) -> bool {
        outputs::is_complete(folder, &self.config(truth).sha256(), &self.nets.models, &OutputFormat::TABLES)
            && Measured::read(folder).is_some()
    }

    fn predict(&self, images: &Path, folder: &Path, truth: &SeriesTruth) -> anyhow::Result<()> {
        let (result, run) = predict_path(images, &self.nets, &self.config(truth), &|_| ())?;
        std::fs::create_dir_all(folder)?;
        Measured::of(&result).write(folder)?;
        let content = OutputContent { result: &result, run: &run, source: None };
        outputs::write(folder, &content, &OutputFormat::TABLES)
    }

    /// Writes the tables and scores the predictions.
    fn finish(self, args: &BenchmarkArgs) -> anyhow::Result<Outcome> {
        self.cohort.finish()?;
        let table = self.results.join("predictions.csv");
        predict::write_table(&table, self.folders.iter().map(PathBuf::as_path))?;
        let evaluation = evaluate::evaluate(&self.data, &table, false, args.bootstrap)?;
        json::write(&self.results.join("figures.json"), &evaluation.to_json()?)?;
        let outcome = evaluation.print(args.format)?;
        Ok(if self.failed == 0 { outcome } else { Outcome::SomeFailed })
    }
}
