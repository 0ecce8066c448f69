//! Arguments of `willis volume`.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Subcommand;

use super::{Format, NyulCommand};

/// `willis volume ...`
#[derive(Debug, Subcommand)]
pub enum VolumeCommand {
    /// Print shape, spacing, affine, modality and findings of a series.
    #[command(after_help = "Example:\n  willis volume info scan/ --format json")]
    Info {
        /// Any input of `willis predict`, or a single slice.
        input: PathBuf,
        /// Volume to read from a series with several (echoes, time points); 1 is the largest.
        #[arg(long, value_name = "N")]
        volume: Option<NonZeroUsize>,
        /// Format of stdout.
        #[arg(long, value_enum, default_value = "text")]
        format: Format,
    },
    /// Convert a series to NIfTI or MetaImage.
    #[command(after_help = "Example:\n  willis volume convert scan/ -o scan.nii.gz")]
    Convert {
        /// Any input of `willis predict`, or a single slice.
        input: PathBuf,
        /// Volume to read from a series with several (echoes, time points); 1 is the largest.
        #[arg(long, value_name = "N")]
        volume: Option<NonZeroUsize>,
        /// .nii, .nii.gz or .mha file.
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
    },
    /// Thin a mask to its skeleton (Lee).
    #[command(after_help = "Example:\n  willis volume skeleton vessels.nii.gz -o skeleton.nii.gz")]
    Skeleton {
        /// Mask; every voxel above zero is foreground.
        input: PathBuf,
        /// .nii or .nii.gz file.
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
    },
    /// Trace the vessel graph of a mask.
    #[command(after_help = "Example:\n  willis volume graph vessels.nii.gz -o graph.json")]
    Graph {
        /// Mask; every voxel above zero is foreground.
        input: PathBuf,
        /// .json file.
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
    },
    /// Standardise intensity histograms (Nyúl).
    #[command(
        subcommand,
        after_help = "\
Examples:
  willis volume nyul fit a.nii.gz b.nii.gz -o standard.npy
  willis volume nyul apply c.nii.gz --standard standard.npy -o c-standard.nii.gz"
    )]
    Nyul(NyulCommand),
}
