//! Arguments of `willis benchmark`.

use std::path::PathBuf;

use clap::Args;

use super::{Format, LineArgs};

/// `willis benchmark`
#[derive(Debug, Args)]
pub struct BenchmarkArgs {
    /// standard, clinical, small, sites, modality, bare, quiet, or a TOML file like those.
    #[arg(value_name = "NAME|FILE")]
    pub benchmark: String,
    /// Folder for data, predictions and figures.
    #[arg(short, long, value_name = "DIR")]
    pub output: PathBuf,
    /// Use the final heads instead of those for development; once per release.
    #[arg(long = "final")]
    pub last: bool,
    /// Stop each part after this number of series.
    #[arg(long, value_name = "N")]
    pub series: Option<usize>,
    /// Keep the images; by default those of a series are deleted once it is predicted.
    #[arg(long)]
    pub keep: bool,
    /// Data set that the weights were trained on, repeatable; one with the same heads is refused.
    #[arg(long, value_name = "DIR")]
    pub trained_on: Vec<PathBuf>,
    /// Number of bootstrap samples.
    #[arg(long, default_value_t = 1000, value_name = "N")]
    pub bootstrap: usize,
    /// Format of stdout.
    #[arg(long, value_enum, default_value = "text")]
    pub format: Format,
    /// Weights and configuration.
    #[command(flatten)]
    pub line: LineArgs,
}
