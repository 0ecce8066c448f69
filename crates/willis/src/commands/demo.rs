//! `willis demo`: makes a phantom series, writes it as DICOM and takes it down the line like any
//! other series.

use anyhow::Context;
use willis_core::Modality;
use willis_phantom::{LesionPlan, PhantomSpec, SeriesUids, synthesise, write_instances};

use super::{Outcome, destination, predict::print_summary};
use crate::cli::DemoArgs;
use crate::config::Config;
use crate::line::predict_path;
use crate::models::Nets;
use crate::outputs::{self, OutputContent, OutputFormat};
use crate::progress::Progress;
use crate::run::Stage;

/// Runs the command.
pub fn run(args: &DemoArgs, progress: &Progress) -> anyhow::Result<Outcome> {
    destination::folder(&args.output)?;
    let config = Config::load(args.line.config.as_deref())?;
    let nets = Nets::load(args.line.models.as_deref())?;
    let spinner = progress.spinner("demo");
    spinner.enable_steady_tick(std::time::Duration::from_millis(120));

    spinner.set_message("scanning a phantom with one aneurysm (TOF-MRA)");
    let spec = PhantomSpec { lesions: LesionPlan::Exact(1), ..PhantomSpec::low_resolution(Modality::Mra) };
    let phantom = synthesise(&spec, args.seed);
    let series = args.output.join("dicom");
    write_instances(&series, &phantom, &SeriesUids::new(args.seed, 0))?;

    let (result, run) = predict_path(&series, &nets, &config, &|stage| spinner.set_message(stage.name()))?;
    spinner.set_message(Stage::Report.name());
    let content = OutputContent { result: &result, run: &run, source: None };
    outputs::write(&args.output, &content, &OutputFormat::DEFAULT)?;
    spinner.finish_and_clear();

    for lesion in &phantom.lesions {
        let nearest = result.candidates.iter().map(|c| (c.centre.distance_mm(lesion.centre), c.rank));
        let (distance, rank) = nearest.min_by(|a, b| a.0.total_cmp(&b.0)).context("no candidate was found")?;
        let diameter = lesion.diameter_mm.unwrap_or_default();
        println!(
            "truth: {diameter:.1} mm aneurysm, {}; nearest candidate is number {rank}, {distance:.1} mm away",
            lesion.site.name()
        );
    }
    print_summary(&result, &run, &args.output, &OutputFormat::DEFAULT);
    Ok(Outcome::Done)
}
