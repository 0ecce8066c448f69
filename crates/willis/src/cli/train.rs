//! Arguments of `willis train` and `willis pretrain`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{BackboneName, MethodName};

/// `willis pretrain`
#[derive(Debug, Args)]
pub struct PretrainArgs {
    /// Method; from the configuration by default (spark).
    #[arg(long, value_enum)]
    pub method: Option<MethodName>,
    /// Backbone to pre-train; from the configuration by default (segformer3d).
    #[arg(long, value_enum)]
    pub backbone: Option<BackboneName>,
    /// RSNA-layout data set, or folder of DICOM folders, .zip, .nii, .nii.gz and .mha files.
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// Run folder.
    #[arg(short, long, value_name = "RUN")]
    pub output: PathBuf,
    /// Optimiser steps; from the configuration by default.
    #[arg(long, value_name = "N")]
    pub steps: Option<usize>,
    /// Seed.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// TOML file with the values that differ from the defaults.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// `willis train ...`
#[derive(Debug, Subcommand)]
pub enum TrainCommand {
    /// Train the segmentation net: artery, site and aneurysm of each voxel.
    #[command(after_help = "\
Examples:
  willis train segment --data phantoms -o runs/segment --steps 9000
  willis train segment --data phantoms -o runs/waveformer --backbone waveformer
  willis train segment --data phantoms -o runs/tuned --encoder runs/spark/backbone.safetensors")]
    Segment(TrainSegmentArgs),
    /// Train the graph net that scores nodes of the vessel graph.
    #[command(after_help = "Example:\n  willis train propose --data phantoms -o runs/propose --models weights")]
    Propose {
        /// Data and run folder.
        #[command(flatten)]
        train: TrainArgs,
        /// Folder with segment.safetensors.
        #[arg(long, value_name = "DIR")]
        models: PathBuf,
    },
    /// Train the classifier that examines a patch about each candidate.
    #[command(after_help = "\
Example:
  willis train examine --data phantoms -o runs/examine --models weights --steps 4000")]
    Examine(TrainExamineArgs),
    /// Train the net that finds the brain, on images generated from label maps.
    #[command(after_help = "\
Examples:
  willis train brain --labels labels/ -o runs/brain --config configs/brain.toml
  willis train brain --labels labels/ -o runs/tuned --from runs/brain/brain.safetensors

The maps are NIfTI files of whole heads with FreeSurfer's or SynthSeg's numbers. The last one in \
order of names is left out of the training, and images generated from it are scored at the end.")]
    Brain(TrainBrainArgs),
    /// Fit the boosted trees that stack the evidence.
    #[command(after_help = "\
Examples:
  willis train stack --data phantoms -o runs/stack --models weights
  willis train stack --data held-out -o runs/stack --models weights --folds 1

The stack is fitted on the left-out fold, which no net may have been trained on. With --folds 1 it \
is fitted on every series of the data set.")]
    Stack {
        /// Data and run folder.
        #[command(flatten)]
        train: TrainArgs,
        /// Folder with the weights of the three nets.
        #[arg(long, value_name = "DIR")]
        models: PathBuf,
    },
}

/// Arguments of every training.
#[derive(Debug, Clone, Args)]
pub struct TrainArgs {
    /// RSNA-layout data set.
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// Run folder for weights, checkpoint and log. A run that was killed resumes from its
    /// checkpoint.
    #[arg(short, long, value_name = "RUN")]
    pub output: PathBuf,
    /// Optimiser steps; from the configuration by default.
    #[arg(long, value_name = "N")]
    pub steps: Option<usize>,
    /// Seed.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// The folds.
    #[command(flatten)]
    pub folds: FoldArgs,
    /// Train on at most this many series (the stack: of the left-out fold); on all by default.
    #[arg(long, value_name = "N")]
    pub cases: Option<usize>,
    /// TOML file with the values that differ from the defaults.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Folds of a data set and the one that is left out.
#[derive(Debug, Clone, Copy, Args)]
pub struct FoldArgs {
    /// Number of folds.
    #[arg(long, default_value_t = 5, value_name = "N")]
    pub folds: usize,
    /// Left-out fold, numbered from 0; the last one by default.
    #[arg(long, value_name = "N")]
    pub fold: Option<usize>,
}

impl FoldArgs {
    /// The left-out fold.
    pub fn left_out(self) -> usize {
        self.fold.unwrap_or(self.folds.saturating_sub(1))
    }
}

/// `willis train segment`
#[derive(Debug, Args)]
pub struct TrainSegmentArgs {
    /// Data and run folder.
    #[command(flatten)]
    pub train: TrainArgs,
    /// Backbone; from the configuration by default (SegFormer3D with a full-resolution branch).
    #[arg(long, value_enum)]
    pub backbone: Option<BackboneName>,
    /// Start from the weights of a net with the same configuration.
    #[arg(long, value_name = "FILE")]
    pub from: Option<PathBuf>,
    /// Start from a pre-trained encoder (backbone.safetensors of `willis pretrain`); the other
    /// layers start from random weights.
    #[arg(long, value_name = "FILE", conflicts_with = "from")]
    pub encoder: Option<PathBuf>,
    /// Learning rate of each layer of a pre-trained encoder as a fraction of the next layer's.
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
    /// Start from the weights of a net with the same configuration.
    #[arg(long, value_name = "FILE")]
    pub from: Option<PathBuf>,
    /// Start from a pre-trained encoder (backbone.safetensors of `willis pretrain --backbone
    /// waveformer`).
    #[arg(long, value_name = "FILE", conflicts_with_all = ["from", "plain"])]
    pub encoder: Option<PathBuf>,
    /// Learning rate of each layer of a pre-trained encoder as a fraction of the next layer's.
    #[arg(long, default_value_t = 0.9, requires = "encoder", value_name = "FRACTION")]
    pub layer_decay: f64,
    /// Train a plain 3D CNN instead of WaveFormer with AKOrN and FiLM: the baseline of the results
    /// table.
    #[arg(long)]
    pub plain: bool,
}

/// `willis train brain`
#[derive(Debug, Args)]
pub struct TrainBrainArgs {
    /// Folder of label maps, .nii or .nii.gz.
    #[arg(long, value_name = "DIR")]
    pub labels: PathBuf,
    /// Run folder for weights, checkpoint and log. A run that was killed resumes from its
    /// checkpoint.
    #[arg(short, long, value_name = "RUN")]
    pub output: PathBuf,
    /// Optimiser steps; from the configuration by default.
    #[arg(long, value_name = "N")]
    pub steps: Option<usize>,
    /// Seed.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Start from the weights of a net with the same channels; its spacing may differ.
    #[arg(long, value_name = "FILE")]
    pub from: Option<PathBuf>,
    /// TOML file with the values that differ from the defaults.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}
