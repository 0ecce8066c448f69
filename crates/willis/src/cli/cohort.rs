//! Arguments of `willis cohort`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{AppearanceName, Format, ModalityName, ScanSizeName};

/// `willis cohort ...`
#[derive(Debug, Subcommand)]
pub enum CohortCommand {
    /// Make a data set of phantoms.
    #[command(after_help = "\
Example:
  willis cohort synth -o phantoms --series 200 --seed 1

DIR gets DICOM series, train.csv, train_localizers.csv, segmentations and the truth. The same seed \
gives the same bytes. A run that was killed resumes.")]
    Synth(SynthArgs),
    /// Read every series and list its findings.
    #[command(after_help = "Example:\n  willis cohort check phantoms --format json")]
    Check {
        /// RSNA-layout data set.
        data: PathBuf,
        /// Format of stdout.
        #[arg(long, value_enum, default_value = "text")]
        format: Format,
    },
    /// Print patient-grouped folds, stratified by aneurysm and modality.
    #[command(after_help = "Example:\n  willis cohort split phantoms --folds 5 > folds.csv")]
    Split {
        /// RSNA-layout data set.
        data: PathBuf,
        /// Number of folds.
        #[arg(long, default_value_t = 5, value_name = "N")]
        folds: usize,
        /// Format of stdout.
        #[arg(long, value_enum, default_value = "text")]
        format: Format,
    },
}

/// `willis cohort synth`
#[derive(Debug, Args)]
pub struct SynthArgs {
    /// Folder for the data set.
    #[arg(short, long, value_name = "DIR")]
    pub output: PathBuf,
    /// Number of series.
    #[arg(long, value_name = "N")]
    pub series: usize,
    /// Seed.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Appearance of the scans.
    #[arg(long, value_enum, default_value = "realistic")]
    pub appearance: AppearanceName,
    /// Size of the scans.
    #[arg(long, value_enum, default_value = "small")]
    pub size: ScanSizeName,
    /// Modality of all series; by default all four in the challenge's shares.
    #[arg(long, value_enum, ignore_case = true)]
    pub modality: Option<ModalityName>,
    /// Share of series with an aneurysm, 0 to 1; the challenge's by default.
    #[arg(long, value_name = "SHARE")]
    pub prevalence: Option<f64>,
    /// Aneurysms in each head that has any, as far as there is room; as in the challenge (mostly
    /// one) by default.
    #[arg(long, value_name = "N")]
    pub lesions: Option<usize>,
    /// Distribution of the series (TOML), in place of the options above; see configs/cohorts.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["appearance", "size", "modality", "prevalence", "lesions"])]
    pub mix: Option<PathBuf>,
    /// Label maps of whole heads (SynthSeg's numbers) for all but the plain appearance.
    #[arg(long, value_name = "DIR")]
    pub heads: Option<PathBuf>,
    /// CT of the Visible Human Female's head (NIfTI) whose bone some CT angiograms show.
    #[arg(long, value_name = "FILE")]
    pub bone: Option<PathBuf>,
}
