//! `willis predict`: one series, several, or a whole RSNA-layout data set. Finished series are
//! skipped, so a killed run resumes.

use std::collections::HashSet;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use willis_core::anatomy::column_names;
use willis_core::cohort::{self, paths::is_data_set};
use willis_core::files::{atomic::write_atomically, json};
use willis_core::{Modality, Prediction, Sex};
use willis_imaging::ingest::OriginError;

use super::{Outcome, destination};
use crate::cli::{Format, PredictArgs};
use crate::config::Config;
use crate::line::{SeriesResult, predict_path};
use crate::models::Nets;
use crate::outputs::{self, OutputContent, OutputFormat};
use crate::progress::Progress;
use crate::run::{RunRecord, Stage};

/// One input and the folder for its results.
struct PredictJob {
    input: PathBuf,
    folder: PathBuf,
    /// Modality in `train.csv`, for data sets.
    modality: Option<Modality>,
}

/// Runs the command.
pub fn run(args: &PredictArgs, progress: &Progress) -> anyhow::Result<Outcome> {
    destination::folder(&args.output)?;
    let config = configured(args)?;
    let nets = Nets::load(args.line.models.as_deref())?;
    let jobs = jobs(&args.inputs, &args.output)?;
    match &jobs[..] {
        [job] if args.inputs.len() == 1 && job.folder == args.output => single(job, args, &config, &nets, progress),
        _ => several(&jobs, args, &config, &nets, progress),
    }
}

fn configured(args: &PredictArgs) -> anyhow::Result<Config> {
    let mut config = Config::load(args.line.config.as_deref())?;
    let ingest = &mut config.ingest;
    ingest.modality = args.modality.map(Modality::from).or(ingest.modality);
    ingest.sex = args.sex.map(Sex::from).or(ingest.sex);
    ingest.age_years = args.age.or(ingest.age_years);
    if args.series.is_some() {
        ingest.series_uid.clone_from(&args.series);
    }
    ingest.volume = args.volume.map(NonZeroUsize::get).or(ingest.volume);
    config.validate()?;
    Ok(config)
}

/// The series to predict. A single one is written to the output folder itself, several to one
/// folder each, named like their input.
fn jobs(inputs: &[PathBuf], output: &Path) -> anyhow::Result<Vec<PredictJob>> {
    for input in inputs {
        if !input.exists() {
            bail!("{} does not exist", input.display());
        }
    }
    if let [input] = inputs
        && !is_data_set(input)
    {
        return Ok(vec![PredictJob { input: input.clone(), folder: output.to_path_buf(), modality: None }]);
    }
    let mut jobs = Vec::new();
    for input in inputs {
        if is_data_set(input) {
            let cohort = cohort::read(input)?;
            for series in cohort.series {
                let folder = output.join(&series.meta.uid);
                jobs.push(PredictJob { folder, input: series.folder, modality: series.meta.modality });
            }
        } else {
            let name = input
                .file_name()
                .with_context(|| format!("{} has no name for its folder of results", input.display()))?;
            jobs.push(PredictJob { folder: output.join(name), input: input.clone(), modality: None });
        }
    }
    let mut seen = HashSet::new();
    for job in &jobs {
        if !seen.insert(&job.folder) {
            bail!("two inputs would both be written to {}; predict them in two runs", job.folder.display());
        }
    }
    Ok(jobs)
}

fn single(
    job: &PredictJob,
    args: &PredictArgs,
    config: &Config,
    nets: &Nets,
    progress: &Progress,
) -> anyhow::Result<Outcome> {
    let formats = formats(args, &OutputFormat::DEFAULT);
    let source = outputs::source_of(&job.input, &formats, &config.ingest).map_err(|error| unwritable(job, error))?;
    let spinner = progress.spinner("predict");
    spinner.enable_steady_tick(std::time::Duration::from_millis(120));
    let outcome = predict_path(&job.input, nets, config, &|stage| spinner.set_message(stage.name()));
    let (result, run) = outcome.with_context(|| job.input.display().to_string())?;
    spinner.set_message(Stage::Report.name());
    outputs::write(&job.folder, &OutputContent { result: &result, run: &run, source: source.as_ref() }, &formats)?;
    spinner.finish_and_clear();
    match args.format {
        Format::Json => println!("{}", serde_json::to_string_pretty(&result.prediction)?),
        Format::Text => print_summary(&result, &run, &job.folder, &formats),
    }
    Ok(Outcome::Done)
}

/// Prints the fourteen probabilities and the first candidates; if willis abstains, only why.
pub fn print_summary(result: &SeriesResult, run: &RunRecord, folder: &Path, formats: &[OutputFormat]) {
    if let Some(reason) = &result.prediction.abstain {
        println!("no verdict: willis abstains: {reason}");
    } else {
        print_probabilities(result);
    }
    println!("{:.1} s; {}", run.seconds, crate::report::RESEARCH_ONLY);
    let last = if formats.contains(&OutputFormat::Html) { "report.html" } else { "prediction.json" };
    println!("{}", folder.join(last).display());
}

fn print_probabilities(result: &SeriesResult) {
    let mut table = comfy_table::Table::new();
    table.load_preset(comfy_table::presets::NOTHING).set_header(["site", "probability"]);
    for name in column_names() {
        table.add_row([name.to_string(), format!("{:.3}", result.prediction.probabilities[name])]);
    }
    println!("{table}");
    for c in result.candidates.iter().take(5) {
        let site = c.site.map_or("site n/a", |s| s.name());
        let [x, y, z] = c.centre.xyz();
        println!(
            "candidate {}  p {:.3}  {:4.1} mm  at ({x:.1}, {y:.1}, {z:.1}) LPS mm  {site}",
            c.rank, c.probability, c.diameter_mm
        );
    }
}

fn several(
    jobs: &[PredictJob],
    args: &PredictArgs,
    config: &Config,
    nets: &Nets,
    progress: &Progress,
) -> anyhow::Result<Outcome> {
    let bar = progress.bar("predict", jobs.len() as u64);
    let formats = formats(args, &OutputFormat::TABLES);
    let mut failed = 0;
    for job in jobs {
        let mut config = config.clone();
        config.ingest.modality = config.ingest.modality.or(job.modality);
        if !outputs::is_complete(&job.folder, &config.sha256(), &nets.models, &formats)
            && let Err(error) = one_of_several(job, &formats, &config, nets)
        {
            failed += 1;
            bar.suspend(|| eprintln!("failed: {}: {error:#}", job.input.display()));
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    if failed == jobs.len() {
        bail!("none of the {failed} series could be predicted");
    }
    let table = args.output.join("predictions.csv");
    write_table(&table, jobs.iter().map(|job| job.folder.as_path()))?;
    match args.format {
        Format::Text => println!("{} of {} series predicted\n{}", jobs.len() - failed, jobs.len(), table.display()),
        Format::Json => {
            println!(
                "{}",
                serde_json::json!({"predicted": jobs.len() - failed, "failed": failed, "predictions": table})
            )
        }
    }
    Ok(if failed == 0 { Outcome::Done } else { Outcome::SomeFailed })
}

/// Predicts one series and writes its files.
fn one_of_several(job: &PredictJob, formats: &[OutputFormat], config: &Config, nets: &Nets) -> anyhow::Result<()> {
    let source = outputs::source_of(&job.input, formats, &config.ingest).map_err(|error| unwritable(job, error))?;
    let (result, run) = predict_path(&job.input, nets, config, &|_| ())?;
    outputs::write(&job.folder, &OutputContent { result: &result, run: &run, source: source.as_ref() }, formats)
}

/// The formats that were named, or else the default ones.
fn formats(args: &PredictArgs, default: &[OutputFormat]) -> Vec<OutputFormat> {
    let named = if args.tables_only { &OutputFormat::TABLES } else { &args.write[..] };
    let mut formats = if named.is_empty() { default.to_vec() } else { named.to_vec() };
    formats.sort();
    formats.dedup();
    formats
}

/// Why the formats of a job cannot be written about its input.
fn unwritable(job: &PredictJob, error: OriginError) -> anyhow::Error {
    match error {
        OriginError::Ingest(error) => anyhow::Error::from(error).context(job.input.display().to_string()),
        error => anyhow::anyhow!("{}: {error}, or leave the dicom-* formats out of --write", job.input.display()),
    }
}

/// Writes one row per predicted series, in the order of the folders: SeriesInstanceUID and the
/// fourteen columns.
///
/// # Errors
/// when the table cannot be written
pub fn write_table<'a>(path: &Path, folders: impl Iterator<Item = &'a Path>) -> anyhow::Result<()> {
    let mut table = csv::Writer::from_writer(Vec::new());
    table.write_record(["SeriesInstanceUID"].into_iter().chain(column_names()))?;
    for folder in folders {
        let Ok(prediction) = json::read::<Prediction>(&folder.join("prediction.json")) else { continue };
        let values =
            column_names().map(|name| prediction.probabilities.get(name).map_or(String::new(), |p| format!("{p:.6}")));
        table.write_record([prediction.series.uid.clone()].into_iter().chain(values))?;
    }
    let bytes = table.into_inner().context("cannot finish the table")?;
    write_atomically(path, |file| file.write_all(&bytes))?;
    Ok(())
}
