//! Command line: exactly what was typed. What it means is in the modules of the commands.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use willis_nets::backbones::published::Backbone;

/// Finds intracranial aneurysms in CT and MR series. Research use only; not a medical device.
#[derive(Debug, Parser)]
#[command(
    name = "willis",
    version,
    propagate_version = true,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub struct Cli {
    /// CPU threads; 0 takes every core.
    #[arg(long, global = true, default_value_t = 0, value_name = "N")]
    pub threads: usize,
    /// More words on stderr; twice for still more.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// No progress bars.
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a phantom series, read it as DICOM, predict it, report it.
    #[command(after_help = "Example:\n  willis demo -o demo\n  # then open demo/report.html in a browser")]
    Demo(DemoArgs),
    /// Predict one or more series.
    #[command(
        after_help = "Examples:\n  willis predict scan/ -o out\n  willis predict head.nii.gz --modality mra -o out\n  willis predict cohort/ -o out          # every series of an RSNA-layout data set, resumable\n\nOne series is written to DIR itself, several to one folder each, with DIR/predictions.csv beside them."
    )]
    Predict(PredictArgs),
    /// Make, check or split data sets in the RSNA 2025 layout.
    #[command(subcommand)]
    Cohort(CohortCommand),
    /// Pre-train a backbone on volumes without labels.
    #[command(
        after_help = "Example:\n  willis pretrain --data phantoms -o runs/spark --steps 5000\n  willis train segment --data phantoms -o runs/segment --encoder runs/spark/backbone.safetensors\n\nDIR is an RSNA-layout data set or any folder of series (DICOM folders, .zip, .nii, .nii.gz, .mha). RUN gets\nbackbone.safetensors, log.csv, epochs.csv and a picture per epoch: image, what the encoder saw, what the net painted.\nA killed run goes on from its checkpoint."
    )]
    Pretrain(PretrainArgs),
    /// Train a learned stage from a data set.
    #[command(subcommand)]
    Train(TrainCommand),
    /// Score predictions against the truth; every figure with a bootstrap interval.
    #[command(after_help = "Example:\n  willis evaluate --data cohort --predictions out/predictions.csv --format json")]
    Evaluate(EvaluateArgs),
    /// The algorithms on their own: files in, files out.
    #[command(subcommand)]
    Volume(VolumeCommand),
    /// The backbones on their own, with published weights.
    #[command(subcommand)]
    Net(NetCommand),
    /// Print the configuration.
    #[command(after_help = "Example:\n  willis config --resolved > willis.toml")]
    Config(ConfigArgs),
}

/// Table for people or JSON for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Table.
    Text,
    /// JSON.
    Json,
}

/// Device of the nets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DeviceName {
    /// The processor.
    Cpu,
}

/// Where weights and configuration come from.
#[derive(Debug, Clone, Args)]
pub struct LineArgs {
    /// TOML file with what differs from the defaults.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Folder with weights to use instead of the embedded ones.
    #[arg(long, value_name = "DIR")]
    pub models: Option<PathBuf>,
    /// Where the nets run.
    #[arg(long, value_enum, default_value = "cpu")]
    pub device: DeviceName,
}

/// `willis demo`
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Folder for everything the demo makes.
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
    /// DICOM folder, .zip of one, multi-frame .dcm, .nii, .nii.gz, .mha, or an RSNA-layout data
    /// set.
    #[arg(required = true, value_name = "INPUT")]
    pub inputs: Vec<PathBuf>,
    /// Folder for the results.
    #[arg(short, long, value_name = "DIR")]
    pub output: PathBuf,
    /// Kind of series: cta, mra, t1post or t2. Guessed when neither given nor in the header.
    #[arg(long)]
    pub modality: Option<String>,
    /// Age in years, where the header does not say.
    #[arg(long)]
    pub age: Option<f32>,
    /// Sex, where the header does not say.
    #[arg(long, value_parser = ["female", "male"])]
    pub sex: Option<String>,
    /// The series to take from a folder with several.
    #[arg(long, value_name = "UID")]
    pub series: Option<String>,
    /// Only the JSON files, no report, graph or NIfTI (the default for several inputs).
    #[arg(long)]
    pub tables_only: bool,
    /// What stdout carries.
    #[arg(long, value_enum, default_value = "text")]
    pub format: Format,
    /// Weights and configuration.
    #[command(flatten)]
    pub line: LineArgs,
}

/// `willis pretrain`
#[derive(Debug, Args)]
pub struct PretrainArgs {
    /// Objective.
    #[arg(long, value_enum, default_value = "spark")]
    pub method: MethodName,
    /// Net that is pre-trained.
    #[arg(long, value_enum, default_value = "segformer3d")]
    pub backbone: BackboneName,
    /// RSNA-layout data set or folder of series.
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// Run folder.
    #[arg(short, long, value_name = "RUN")]
    pub output: PathBuf,
    /// Optimiser steps; the recipe's number when absent.
    #[arg(long)]
    pub steps: Option<usize>,
    /// Seed.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// TOML file with what differs from the defaults.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Objectives of pre-training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum MethodName {
    /// SparK: masked cells are painted from the others, which are all that the encoder sees.
    Spark,
    /// MiM: three levels of masks, one inside the other, painted and aligned with each other.
    Mim,
    /// Both: MiM's levels, and an encoder that sees nothing of what is masked.
    SparkMim,
}

/// Nets that are pre-trained and find vessels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BackboneName {
    /// SegFormer3D; the vessel net of the embedded weights.
    Segformer3d,
    /// WaveFormer; the classifier's encoder, too.
    Waveformer,
    /// Residual-encoder U-Net; pre-trained with its decoder (S3D).
    Resenc,
}

impl From<BackboneName> for Backbone {
    fn from(name: BackboneName) -> Self {
        match name {
            BackboneName::Segformer3d => Self::Segformer3d,
            BackboneName::Waveformer => Self::Waveformer,
            BackboneName::Resenc => Self::Resenc,
        }
    }
}

/// `willis cohort ...`
#[derive(Debug, Subcommand)]
pub enum CohortCommand {
    /// Make a phantom data set: DICOM series, train.csv, train_localizers.csv, segmentations,
    /// truth.
    #[command(
        after_help = "Example:\n  willis cohort synth -o phantoms --series 200 --seed 1\n\nThe same seed gives the same bytes. A killed run goes on where it stopped."
    )]
    Synth {
        /// Folder for the data set.
        #[arg(short, long, value_name = "DIR")]
        output: PathBuf,
        /// Number of series.
        #[arg(long)]
        series: usize,
        /// Seed.
        #[arg(long, default_value_t = 0)]
        seed: u64,
        /// Appearance of the scans.
        #[arg(long, value_enum, default_value = "realistic")]
        appearance: Appearance,
        /// Size of the scans.
        #[arg(long, value_enum, default_value = "small")]
        size: ScanSize,
        /// Only this kind of series (cta, mra, t1post, t2); all four in the challenge's shares when
        /// absent.
        #[arg(long)]
        modality: Option<String>,
        /// Share of series with an aneurysm; the challenge's when absent.
        #[arg(long)]
        prevalence: Option<f64>,
        /// Aneurysms in each head that has any, as far as there is room; as in the challenge
        /// (mostly one) when absent.
        #[arg(long, value_name = "N")]
        lesions: Option<usize>,
    },
    /// Read every series and list what is odd about it.
    Check {
        /// RSNA-layout data set.
        data: PathBuf,
        /// What stdout carries.
        #[arg(long, value_enum, default_value = "text")]
        format: Format,
    },
    /// Patient-grouped folds, stratified by aneurysm and modality.
    Split {
        /// RSNA-layout data set.
        data: PathBuf,
        /// Number of folds.
        #[arg(long, default_value_t = 5)]
        folds: usize,
        /// What stdout carries.
        #[arg(long, value_enum, default_value = "text")]
        format: Format,
    },
}

/// How phantoms look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Appearance {
    /// As scanners would show them.
    Realistic,
    /// Two thirds realistic, one third wide: what the embedded weights were trained on.
    Mixed,
    /// Randomised beyond the realistic.
    Wide,
}

/// How large phantom scans are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ScanSize {
    /// As hospitals scan, 256 to 512 pixels across.
    Clinical,
    /// Slabs of 160 pixels across about the circle of Willis.
    Small,
    /// Slabs of 48 pixels across, for tests.
    Tiny,
    /// Whole-head CTA of 300 slices of 512 x 512, on which speed and memory are measured.
    Reference,
}

/// What every training shares.
#[derive(Debug, Clone, Args)]
pub struct TrainArgs {
    /// RSNA-layout data set.
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// Run folder: weights, checkpoint, log. A killed run goes on from its checkpoint.
    #[arg(short, long, value_name = "RUN")]
    pub output: PathBuf,
    /// Optimiser steps; the recipe's number when absent.
    #[arg(long)]
    pub steps: Option<usize>,
    /// Seed.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Fold that is left out of the training.
    #[arg(long, default_value_t = 4)]
    pub fold: usize,
    /// Number of folds.
    #[arg(long, default_value_t = 5)]
    pub folds: usize,
    /// Most series to train on (of the left-out fold for the stack); all when absent.
    #[arg(long, value_name = "N")]
    pub cases: Option<usize>,
    /// TOML file with what differs from the defaults.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// `willis train segment`
#[derive(Debug, Args)]
pub struct TrainSegmentArgs {
    /// Data and run folder.
    #[command(flatten)]
    pub train: TrainArgs,
    /// Net; the configuration's (SegFormer3D with a full-resolution branch) when absent.
    #[arg(long, value_enum)]
    pub backbone: Option<BackboneName>,
    /// Weights to start from, of a net of the same configuration; random ones when absent.
    #[arg(long, value_name = "FILE")]
    pub from: Option<PathBuf>,
    /// Pre-trained encoder to start from (backbone.safetensors of `willis pretrain`); the rest
    /// starts from random weights.
    #[arg(long, value_name = "FILE", conflicts_with = "from")]
    pub encoder: Option<PathBuf>,
    /// Each layer of a pre-trained encoder learns at this fraction of the next one's rate; 1 is one
    /// rate for all.
    #[arg(long, default_value_t = 0.9, requires = "encoder", value_name = "FRACTION")]
    pub layer_decay: f64,
}

/// `willis train examine`
#[derive(Debug, Args)]
pub struct TrainExamineArgs {
    /// Data and run folder.
    #[command(flatten)]
    pub train: TrainArgs,
    /// Folder with segment.safetensors and propose.safetensors.
    #[arg(long, value_name = "DIR")]
    pub models: PathBuf,
    /// Weights to start from, of a net of the same configuration; random ones when absent.
    #[arg(long, value_name = "FILE")]
    pub from: Option<PathBuf>,
    /// Pre-trained encoder to start from (backbone.safetensors of
    /// `willis pretrain --backbone waveformer`).
    #[arg(long, value_name = "FILE", conflicts_with_all = ["from", "plain"])]
    pub encoder: Option<PathBuf>,
    /// Each layer of a pre-trained encoder learns at this fraction of the next one's rate; 1 is one
    /// rate for all.
    #[arg(long, default_value_t = 0.9, requires = "encoder", value_name = "FRACTION")]
    pub layer_decay: f64,
    /// A plain 3D CNN instead of WaveFormer with AKOrN and FiLM: the baseline of the results table.
    #[arg(long)]
    pub plain: bool,
}

/// `willis train ...`
#[derive(Debug, Subcommand)]
pub enum TrainCommand {
    /// Vessel segmentation: which voxels are artery, of which site, which aneurysm.
    #[command(
        after_help = "Examples:\n  willis train segment --data phantoms -o runs/segment --steps 9000\n  willis train segment --data phantoms -o runs/waveformer --backbone waveformer\n  willis train segment --data phantoms -o runs/tuned --encoder runs/spark/backbone.safetensors"
    )]
    Segment(TrainSegmentArgs),
    /// Graph node scorer: GATv2 over the traced centrelines.
    Propose {
        /// Data and run folder.
        #[command(flatten)]
        train: TrainArgs,
        /// Folder with segment.safetensors.
        #[arg(long, value_name = "DIR")]
        models: PathBuf,
    },
    /// Expert classifier: WaveFormer, AKOrN and FiLM on a patch about each candidate.
    #[command(
        after_help = "Example:\n  willis train examine --data phantoms --models weights -o runs/classifier --steps 4000"
    )]
    Examine(TrainExamineArgs),
    /// Stacking: boosted trees over the evidence of the fold that no net was trained on; with
    /// --folds 1 --fold 0, over all series of a data set that no net was trained on.
    Stack {
        /// Data and run folder.
        #[command(flatten)]
        train: TrainArgs,
        /// Folder with the weights of the three nets.
        #[arg(long, value_name = "DIR")]
        models: PathBuf,
    },
}

/// `willis evaluate`
#[derive(Debug, Args)]
pub struct EvaluateArgs {
    /// RSNA-layout data set with the truth.
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// Table with SeriesInstanceUID and the fourteen columns; folders of candidates beside it are
    /// scored too.
    #[arg(long, value_name = "FILE")]
    pub predictions: PathBuf,
    /// Also score two detectors without learning on the predicted vessel maps: blobs, and local
    /// radius excess.
    #[arg(long)]
    pub baselines: bool,
    /// Bootstrap samples.
    #[arg(long, default_value_t = 1000)]
    pub bootstrap: usize,
    /// What stdout carries.
    #[arg(long, value_enum, default_value = "text")]
    pub format: Format,
}

/// `willis volume ...`
#[derive(Debug, Subcommand)]
pub enum VolumeCommand {
    /// Shape, spacing, affine, modality and findings of a series.
    Info {
        /// Anything `predict` reads.
        input: PathBuf,
        /// What stdout carries.
        #[arg(long, value_enum, default_value = "text")]
        format: Format,
    },
    /// Any readable series to NIfTI.
    Convert {
        /// Anything `predict` reads.
        input: PathBuf,
        /// .nii or .nii.gz.
        #[arg(short, long)]
        output: PathBuf,
    },
    /// Lee skeleton of a mask.
    Skeleton {
        /// Mask; every voxel above zero is foreground.
        input: PathBuf,
        /// .nii or .nii.gz.
        #[arg(short, long)]
        output: PathBuf,
    },
    /// Vessel graph of a mask, as JSON.
    Graph {
        /// Mask; every voxel above zero is foreground.
        input: PathBuf,
        /// .json
        #[arg(short, long)]
        output: PathBuf,
    },
    /// Nyúl histogram standardisation.
    #[command(subcommand)]
    Nyul(NyulCommand),
}

/// `willis net ...`
#[derive(Debug, Subcommand)]
pub enum NetCommand {
    /// The backbones there are.
    List,
    /// Layers, parameters, multiplications, seconds and memory of a backbone.
    #[command(
        after_help = "Example:\n  willis net describe waveformer --size 64\n\nThe net runs once on a cube of that size."
    )]
    Describe {
        /// Name, as `willis net list` gives it.
        net: String,
        /// Side of the cube; the configuration's when absent.
        #[arg(long)]
        size: Option<usize>,
        /// JSON file with what differs from the published configuration.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// What stdout carries.
        #[arg(long, value_enum, default_value = "text")]
        format: Format,
    },
    /// Logits of a backbone for an array.
    #[command(
        after_help = "Example:\n  willis net run segformer3d --weights pytorch_model.bin --input x.npy --output logits.npy\n\nWeights: safetensors or PyTorch, under the official names; `module.` and `model.` are stripped. The configuration's keys are\nin_channels, num_classes, size, attention_scale (\"heads\" | \"head_dim\"), quirks (\"official\" | \"fixed\"), multi_scale, hf_refinement."
    )]
    Run {
        /// Name, as `willis net list` gives it.
        net: String,
        /// Checkpoint.
        #[arg(long, value_name = "FILE")]
        weights: PathBuf,
        /// `[C, D, H, W]` or `[B, C, D, H, W]`, .npy.
        #[arg(long, value_name = "X.npy")]
        input: PathBuf,
        /// `[B, classes, D, H, W]`, .npy.
        #[arg(long, value_name = "Y.npy")]
        output: PathBuf,
        /// JSON file with what differs from the published configuration; size is the input's when
        /// absent.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
}

/// `willis volume nyul ...`
#[derive(Debug, Subcommand)]
pub enum NyulCommand {
    /// Learn the standard scale of several images.
    Fit {
        /// Images.
        #[arg(required = true)]
        images: Vec<PathBuf>,
        /// One mask per image, in order; voxels above zero count. Without masks: image above zero.
        #[arg(long, num_args = 1..)]
        mask: Vec<PathBuf>,
        /// .npy, shape (2, 11).
        #[arg(short, long)]
        output: PathBuf,
    },
    /// Map an image to a standard scale.
    Apply {
        /// Image.
        image: PathBuf,
        /// Standard scale from `fit`.
        #[arg(long)]
        standard: PathBuf,
        /// Mask; without it, image above zero.
        #[arg(long)]
        mask: Option<PathBuf>,
        /// .nii or .nii.gz.
        #[arg(short, long)]
        output: PathBuf,
    },
}

/// `willis config`
#[derive(Debug, Args)]
pub struct ConfigArgs {
    /// Every key with its value, after the file given.
    #[arg(long)]
    pub resolved: bool,
    /// TOML file with what differs from the defaults.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}
