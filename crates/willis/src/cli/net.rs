//! Arguments of `willis net`.

use std::path::PathBuf;

use clap::Subcommand;

use super::{Format, PublishedName};

/// `willis net ...`
#[derive(Debug, Subcommand)]
pub enum NetCommand {
    /// List the published nets.
    #[command(after_help = "Example:\n  willis net list")]
    List,
    /// Print layers, parameters, multiplications, seconds and memory of a net.
    #[command(after_help = "\
Example:
  willis net describe waveformer --size 64

The net runs once on a cube of that size.")]
    Describe {
        /// Net.
        #[arg(value_enum)]
        net: PublishedName,
        /// Side of the cube; by default that of the configuration or of the published net.
        #[arg(long, value_name = "VOXELS")]
        size: Option<usize>,
        /// JSON file with the values that differ from the published configuration.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Format of stdout.
        #[arg(long, value_enum, default_value = "text")]
        format: Format,
    },
    /// Compute the output of a net for an array.
    #[command(after_help = "\
Example:
  willis net run segformer3d --weights pytorch_model.bin --input x.npy --output logits.npy

Weights are safetensors or PyTorch state dicts under the official names; the prefixes `module.` and \
`model.` are stripped. `willis net describe` prints the keys of the configuration.")]
    Run {
        /// Net.
        #[arg(value_enum)]
        net: PublishedName,
        /// Checkpoint.
        #[arg(long, value_name = "FILE")]
        weights: PathBuf,
        /// .npy array, `[C, D, H, W]` or `[B, C, D, H, W]`.
        #[arg(long, value_name = "X.npy")]
        input: PathBuf,
        /// .npy array, `[B, classes, D, H, W]`.
        #[arg(long, value_name = "Y.npy")]
        output: PathBuf,
        /// JSON file with the values that differ from the published configuration; WaveFormer's
        /// `size` is that of the input by default.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
}
