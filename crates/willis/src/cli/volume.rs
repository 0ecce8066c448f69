//! Arguments of `willis volume`.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, Subcommand};

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
    /// Find the brain: mask, distances from its surface, stripped image.
    #[command(after_help = "\
Examples:
  willis volume strip head.nii.gz -o mask.nii.gz
  willis volume strip scan/ -o mask.nii.gz --distance distance.nii.gz --border 15
  willis volume strip head.nii.gz -o mask.nii.gz --weights synthstrip.1.pt

Without --weights the embedded net runs, at 2 mm. A mask with a border of 1 mm leaves out the \
arteries of the skull base.")]
    Strip(StripArgs),
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

/// `willis volume strip`
#[derive(Debug, Args)]
pub struct StripArgs {
    /// Any input of `willis predict`.
    pub input: PathBuf,
    /// Volume to read from a series with several (echoes, time points); 1 is the largest.
    #[arg(long, value_name = "N")]
    pub volume: Option<NonZeroUsize>,
    /// .nii or .nii.gz file for the mask.
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// .nii or .nii.gz file for the signed distance from the surface, mm, negative inside.
    #[arg(long, value_name = "FILE")]
    pub distance: Option<PathBuf>,
    /// .nii or .nii.gz file for the image without what is outside of the mask.
    #[arg(long, value_name = "FILE")]
    pub image: Option<PathBuf>,
    /// Distance from the surface up to which the mask extends, mm.
    #[arg(long, default_value_t = 1.0, allow_negative_numbers = true, value_name = "MM")]
    pub border: f64,
    /// Weights: FreeSurfer's synthstrip.1.pt (or the same tensors as safetensors), or
    /// brain.safetensors of `willis train brain`.
    #[arg(long, value_name = "FILE")]
    pub weights: Option<PathBuf>,
}
