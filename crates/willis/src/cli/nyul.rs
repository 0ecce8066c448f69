//! Arguments of `willis volume nyul`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

/// `willis volume nyul ...`
#[derive(Debug, Subcommand)]
pub enum NyulCommand {
    /// Learn the standard scale of several images.
    #[command(after_help = "\
Examples:
  willis volume nyul fit a.nii.gz b.nii.gz -o standard.npy
  willis volume nyul fit a.nii.gz b.nii.gz --mask brain-a.nii.gz brain-b.nii.gz -o standard.npz
  willis volume nyul fit series/* --roi --average median -o mra.npy   # for the configuration")]
    Fit(NyulFitArgs),
    /// Map an image to a standard scale.
    #[command(
        after_help = "Example:\n  willis volume nyul apply c.nii.gz --standard standard.npy -o c-standard.nii.gz"
    )]
    Apply(NyulApplyArgs),
}

/// `willis volume nyul fit`
#[derive(Debug, Args)]
pub struct NyulFitArgs {
    /// Images or series.
    #[arg(required = true)]
    pub images: Vec<PathBuf>,
    /// One mask per image, in order; voxels above zero count. By default the voxels of the image
    /// above zero count.
    #[arg(long, num_args = 1.., value_name = "FILE")]
    pub mask: Vec<PathBuf>,
    /// Measure the tissue of the region of interest as `willis predict` sees it, with air at 0 and
    /// its median at 50. Scales for `harmonise.normalise` are fitted so.
    #[arg(long, conflicts_with_all = ["mask", "low", "high"])]
    pub roi: bool,
    /// How the landmarks of several images become one.
    #[arg(long, value_enum, default_value = "mean")]
    pub average: AverageName,
    /// Intensity of the first landmark on the scale.
    #[arg(long, default_value_t = 1.0, value_name = "VALUE", allow_negative_numbers = true)]
    pub low: f64,
    /// Intensity of the last landmark on the scale.
    #[arg(long, default_value_t = 100.0, value_name = "VALUE", allow_negative_numbers = true)]
    pub high: f64,
    /// Standard scale, as the Python package `intensity-normalization` stores it: .npy as version
    /// 3, .npz as version 4.
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
}

/// `willis volume nyul apply`
#[derive(Debug, Args)]
pub struct NyulApplyArgs {
    /// Image.
    pub image: PathBuf,
    /// Standard scale from `willis volume nyul fit` or the Python package (.npy, .npz), or the name
    /// of a modality for the scale that comes with willis (cta, mra, t1post, t2).
    #[arg(long, value_name = "FILE or NAME")]
    pub standard: String,
    /// Mask; voxels above zero count. By default the voxels of the image above zero count.
    #[arg(long, value_name = "FILE")]
    pub mask: Option<PathBuf>,
    /// .nii or .nii.gz file.
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
}

/// Name of an average.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AverageName {
    /// As the Python package.
    Mean,
    /// Robust against lesions and implants in some of the images.
    Median,
}
