//! Command line as the user typed it. The modules of the commands interpret it.

mod benchmark;
mod cohort;
mod names;
mod net;
mod nyul;
mod physics;
mod train;
mod volume;

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::outputs::OutputFormat;

pub use benchmark::BenchmarkArgs;
pub use cohort::{CohortCommand, SynthArgs};
pub use names::{AppearanceName, BackboneName, Format, MethodName, ModalityName, PublishedName, ScanSizeName, SexName};
pub use net::NetCommand;
pub use nyul::{AverageName, NyulApplyArgs, NyulCommand, NyulFitArgs};
pub use physics::{CaseName, OptimiserName, PhysicsCommand, PrecisionName, SamplerName, SolveArgs};
pub use train::{FoldArgs, PretrainArgs, TrainArgs, TrainBrainArgs, TrainCommand, TrainExamineArgs, TrainSegmentArgs};
pub use volume::{StripArgs, VolumeCommand};

/// Columns of the help.
const HELP_WIDTH: usize = 100;
/// Heading of the options that every command takes.
const GLOBAL_OPTIONS: &str = "Global options";
/// First sentence, examples, usage, arguments. clap cuts the full stop off a description.
const HELP_TEMPLATE: &str = "{about}.{after-help}\n\n{usage-heading} {usage}\n\n{all-args}";

/// Find intracranial aneurysms in CT and MR series. Research use only; not a medical device.
#[derive(Debug, Parser)]
#[command(
    name = "willis",
    version,
    propagate_version = true,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = "Examples:\n  willis demo\n  willis predict scan/ -o out"
)]
pub struct Cli {
    /// CPU threads; 0 uses every core.
    #[arg(long, global = true, default_value_t = 0, value_name = "N", help_heading = GLOBAL_OPTIONS)]
    pub threads: usize,
    /// Increase verbosity; repeat for more.
    #[arg(short, long, global = true, action = clap::ArgAction::Count, help_heading = GLOBAL_OPTIONS)]
    pub verbose: u8,
    /// Show no progress bars.
    #[arg(short, long, global = true, help_heading = GLOBAL_OPTIONS)]
    pub quiet: bool,
    /// Command to run.
    #[command(subcommand)]
    pub command: Command,
}

impl Cli {
    /// The parser of the command line, with the examples of each command right after its first
    /// sentence.
    pub fn parser() -> clap::Command {
        examples_first(Self::command())
    }

    /// Parses the arguments of the process; prints help or an error and exits where asked to.
    pub fn from_arguments() -> Self {
        let matches = Self::parser().get_matches();
        Self::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
    }
}

fn examples_first(command: clap::Command) -> clap::Command {
    command.help_template(HELP_TEMPLATE).max_term_width(HELP_WIDTH).mut_subcommands(examples_first)
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a phantom series, predict it and write its report.
    #[command(after_help = "Example:\n  willis demo -o demo\n\nThen open demo/report.html in a browser.")]
    Demo(DemoArgs),
    /// Predict one or more series.
    #[command(after_help = "\
Examples:
  willis predict scan/ -o out
  willis predict head.nii.gz --modality mra -o out
  willis predict scan/ -o out --write html,dicom-seg,dicom-sr
  willis predict cohort/ -o out          # every series of an RSNA-layout data set

The files of a single series are written to DIR itself. Several series get a folder each, and \
DIR/predictions.csv has one row per series. A run that was killed resumes: finished series are \
skipped.")]
    Predict(PredictArgs),
    /// Make, check or split a data set in the RSNA 2025 layout.
    #[command(
        subcommand,
        after_help = "Examples:\n  willis cohort synth -o phantoms --series 200\n  willis cohort check phantoms"
    )]
    Cohort(CohortCommand),
    /// Pre-train a backbone on unlabelled volumes.
    #[command(after_help = "\
Example:
  willis pretrain --data phantoms -o runs/spark --steps 5000
  willis train segment --data phantoms -o runs/segment --encoder runs/spark/backbone.safetensors

RUN gets backbone.safetensors, log.csv, epochs.csv and a picture per epoch: the image, the input of \
the encoder, and the reconstruction. A run that was killed resumes from its checkpoint.")]
    Pretrain(PretrainArgs),
    /// Train a learned stage on a data set.
    #[command(
        subcommand,
        after_help = "\
Examples:
  willis train segment --data phantoms -o runs/segment
  mkdir weights && cp runs/segment/segment.safetensors weights
  willis train propose --data phantoms -o runs/propose --models weights

The stages are trained in the order segment, propose, examine, stack; each needs the weights of \
those before it."
    )]
    Train(TrainCommand),
    /// Score predictions against the truth.
    #[command(after_help = "\
Example:
  willis predict cohort -o out
  willis evaluate --data cohort --predictions out/predictions.csv

Every figure has a 95 % bootstrap interval over series. A figure that is undefined, such as an AUC \
without positive series, is n/a.")]
    Evaluate(EvaluateArgs),
    /// Make the series of a benchmark, predict them and score the predictions.
    #[command(after_help = "\
Examples:
  willis benchmark small -o runs/small --series 20
  willis benchmark small -o runs/small            # goes on from there
  willis benchmark small -o release/small --final

Every benchmark has heads for development and final ones, which are for the figures of a release. \
DIR gets data/, a folder per series, predictions.csv, figures.json and benchmark.json. A run that \
was killed resumes.")]
    Benchmark(BenchmarkArgs),
    /// Run one of the deterministic algorithms on files.
    #[command(
        subcommand,
        after_help = "Examples:\n  willis volume info scan/\n  willis volume convert scan/ -o scan.nii.gz"
    )]
    Volume(VolumeCommand),
    /// Describe or run a published backbone.
    #[command(subcommand, after_help = "Examples:\n  willis net list\n  willis net describe waveformer --size 64")]
    Net(NetCommand),
    /// Solve partial differential equations by physics-informed nets.
    #[command(subcommand, after_help = "Example:\n  willis physics solve poiseuille -o channel")]
    Physics(PhysicsCommand),
    /// Print the configuration or its hash.
    #[command(after_help = "Example:\n  willis config --resolved > willis.toml")]
    Config(ConfigArgs),
}

/// Weights and configuration of the line.
#[derive(Debug, Clone, Args)]
pub struct LineArgs {
    /// TOML file with the values that differ from the defaults.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Folder with weights to use instead of the embedded ones.
    #[arg(long, value_name = "DIR")]
    pub models: Option<PathBuf>,
}

/// `willis demo`
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Folder for the series and its results.
    #[arg(short, long, default_value = "willis-demo", value_name = "DIR")]
    pub output: PathBuf,
    /// Seed of the phantom.
    #[arg(long, default_value_t = 3)]
    pub seed: u64,
    /// Weights and configuration.
    #[command(flatten)]
    pub line: LineArgs,
}

/// `willis predict`
#[derive(Debug, Args)]
pub struct PredictArgs {
    /// DICOM folder, .zip of one, multi-frame .dcm, .nii, .nii.gz, .mha, or RSNA-layout data set.
    #[arg(required = true, value_name = "INPUT")]
    pub inputs: Vec<PathBuf>,
    /// Folder for the results.
    #[arg(short, long, value_name = "DIR")]
    pub output: PathBuf,
    /// Modality; guessed when neither given nor in the header.
    #[arg(long, value_enum, ignore_case = true)]
    pub modality: Option<ModalityName>,
    /// Age in years; used when the header does not say.
    #[arg(long, value_name = "YEARS")]
    pub age: Option<f32>,
    /// Sex; used when the header does not say.
    #[arg(long, value_enum, ignore_case = true)]
    pub sex: Option<SexName>,
    /// Series to read from a folder with several.
    #[arg(long, value_name = "UID")]
    pub series: Option<String>,
    /// Volume to read from a series with several (echoes, time points); 1 is the largest.
    #[arg(long, value_name = "N")]
    pub volume: Option<NonZeroUsize>,
    /// Files to write besides prediction.json, candidates.json and run.json, separated by commas.
    ///
    /// A single series gets nifti,slicer,graph,html unless formats are named, several series nifti.
    /// The dicom-* formats need DICOM input: they belong to its study.
    #[arg(long, value_name = "LIST", value_enum, value_delimiter = ',')]
    pub write: Vec<OutputFormat>,
    /// Write only the JSON files and the vessel map; the default for several series.
    #[arg(long, conflicts_with = "write")]
    pub tables_only: bool,
    /// Format of stdout.
    #[arg(long, value_enum, default_value = "text")]
    pub format: Format,
    /// Weights and configuration.
    #[command(flatten)]
    pub line: LineArgs,
}

/// `willis evaluate`
#[derive(Debug, Args)]
pub struct EvaluateArgs {
    /// RSNA-layout data set with the truth.
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// Table with SeriesInstanceUID and the fourteen columns. Candidates and vessel maps are read
    /// from the folders beside it.
    #[arg(long, value_name = "FILE")]
    pub predictions: PathBuf,
    /// Also score two detectors without learning on the predicted vessel maps: blobs and radius
    /// excess.
    #[arg(long)]
    pub baselines: bool,
    /// Data set that the weights were trained on, repeatable; one with the same heads is refused.
    #[arg(long, value_name = "DIR")]
    pub trained_on: Vec<PathBuf>,
    /// Number of bootstrap samples.
    #[arg(long, default_value_t = 1000, value_name = "N")]
    pub bootstrap: usize,
    /// Format of stdout.
    #[arg(long, value_enum, default_value = "text")]
    pub format: Format,
}

/// `willis config`
#[derive(Debug, Args)]
pub struct ConfigArgs {
    /// Print every key with its value instead of the hash.
    #[arg(long)]
    pub resolved: bool,
    /// TOML file with the values that differ from the defaults.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every command with its path, `willis train segment` for one.
    fn commands() -> Vec<(String, clap::Command)> {
        fn add(path: String, command: &clap::Command, into: &mut Vec<(String, clap::Command)>) {
            for each in command.get_subcommands().filter(|each| each.get_name() != "help") {
                add(format!("{path} {}", each.get_name()), each, into);
            }
            into.push((path, command.clone()));
        }
        let mut parser = Cli::parser();
        parser.build();
        let mut commands = Vec::new();
        add("willis".into(), &parser, &mut commands);
        commands
    }

    #[test]
    fn the_parser_is_consistent() {
        Cli::parser().debug_assert();
    }

    /// The default used to be fold 4, whatever the number of folds.
    #[test]
    fn the_left_out_fold_is_the_last_one_by_default() {
        for (options, left_out) in
            [(&[][..], 4), (&["--folds", "2"], 1), (&["--folds", "1"], 0), (&["--folds", "2", "--fold", "0"], 0)]
        {
            let arguments = ["willis", "train", "segment", "--data", "d", "-o", "r"];
            let matches = Cli::parser().get_matches_from(arguments.iter().chain(options));
            let Command::Train(TrainCommand::Segment(args)) = Cli::from_arg_matches(&matches).unwrap().command else {
                panic!("train segment was parsed as another command");
            };
            assert_eq!(args.train.folds.left_out(), left_out, "{options:?}");
        }
    }

    #[test]
    fn every_help_opens_with_one_sentence_and_examples() {
        let commands = commands();
        assert!(commands.len() > 20, "{}", commands.len());
        for (path, mut command) in commands {
            let help = command.render_long_help().to_string();
            let paragraphs: Vec<&str> = help.split("\n\n").collect();
            let about = paragraphs[0];
            assert!(about.ends_with('.') && !about.contains('\n'), "{path}: {help}");
            assert!(paragraphs[1].trim_start().starts_with("Example"), "{path}: {help}");
            assert!(paragraphs[1].contains(&format!("  {path}")), "{path}: {help}");
        }
    }

    #[test]
    fn no_help_is_wider_than_the_page() {
        for (path, mut command) in commands() {
            let help = command.render_long_help().to_string();
            let widest = help.lines().map(|line| line.chars().count()).max();
            assert!(widest <= Some(HELP_WIDTH), "{path}: {widest:?}\n{help}");
        }
    }
}
