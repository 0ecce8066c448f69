//! Configuration of pre-training, and the rules by which its parts fit together.

use serde::{Deserialize, Serialize};
use willis_core::InvalidValue;
use willis_core::files::FileError;

use crate::backbones::{BackboneConfig, BackboneKind};
use crate::pretrain::spark::SparkNetConfig;
use crate::rules::{at_least_one, non_negative, positive, require};
use crate::segment::IN_CHANNELS;
use crate::train::{AdamWConfig, NetOptimiser, TrainConfig, TrainError};

/// Side of the cells that MiM masks, voxels: the decoder's features are aligned at this stride.
pub(super) const MIM_CELL: usize = 16;
/// Fewest cubes of the linear probe: half of them are fitted, half tested.
const MIN_PROBE_CUBES: usize = 8;

/// The objective and its masks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Method {
    /// SparK: masked cells are reconstructed by an encoder that computes from visible cells only.
    Spark(SparkConfig),
    /// MiM: three nested levels of masks are reconstructed and aligned with each other. The encoder
    /// runs densely over the masked input.
    Mim(MimConfig),
    /// MiM's levels with SparK's encoder.
    SparkMim(MimConfig),
}

impl Method {
    /// Whether both are the same method, whatever their configurations.
    pub fn is_same_kind(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}

/// Masks of SparK.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SparkConfig {
    /// Share of the cells that is masked.
    pub masked_share: f64,
}

impl Default for SparkConfig {
    fn default() -> Self {
        Self { masked_share: 0.75 }
    }
}

/// Levels of MiM and weights of its losses.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MimConfig {
    /// Share of the octants of the first level that is masked.
    pub coarse_masked: f64,
    /// Masked octants of each first-level cube that become cubes of the second level.
    pub middle: usize,
    /// Share of the cells that is masked on the second level.
    pub middle_masked: f64,
    /// Masked cells of each second-level cube that become cubes of the third level.
    pub fine: usize,
    /// Share of the cells that is masked on the third level.
    pub fine_masked: f64,
    /// Weight of the alignment between levels; 0 for the ablation.
    pub align_weight: f64,
    /// Temperature of the alignment, by which cosines are divided.
    pub temperature: f64,
    /// Weight of HybridMIM's first auxiliary loss: how many of the eight cells of each region are
    /// masked, predicted from the coarsest features. The paper has 0.1. Not for `spark_mim`, whose
    /// encoder is given the mask.
    pub count_weight: f64,
    /// Weight of HybridMIM's second auxiliary loss: which of the eight cells are masked. The same
    /// applies.
    pub position_weight: f64,
}

impl Default for MimConfig {
    fn default() -> Self {
        Self {
            coarse_masked: 0.5,
            middle: 2,
            middle_masked: 0.6,
            fine: 1,
            fine_masked: 0.5,
            align_weight: 0.1,
            temperature: 0.2,
            count_weight: 0.0,
            position_weight: 0.0,
        }
    }
}

impl MimConfig {
    /// Whether HybridMIM's auxiliary losses are computed.
    pub(super) fn has_region_losses(&self) -> bool {
        self.count_weight > 0.0 || self.position_weight > 0.0
    }

    /// Checks that every level masks something in which the next level has a cube.
    fn validate(&self, cells: usize) -> Result<(), InvalidValue> {
        for (field, share, parts) in [
            ("coarse_masked", self.coarse_masked, 8),
            ("middle_masked", self.middle_masked, cells),
            ("fine_masked", self.fine_masked, cells),
        ] {
            check_share(field, share, parts)?;
        }
        at_least_one("middle", self.middle)?;
        at_least_one("fine", self.fine)?;
        non_negative("align_weight", self.align_weight)?;
        non_negative("count_weight", self.count_weight)?;
        non_negative("position_weight", self.position_weight)?;
        positive("temperature", self.temperature)
    }
}

/// How a backbone is pre-trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PretrainConfig {
    /// The objective and its masks.
    pub method: Method,
    /// The backbone. The encoder of SegFormer3D or WaveFormer takes intensity and world
    /// coordinates, as in the vessel net; WaveFormer's size is `patch`. The residual-encoder U-Net
    /// is pre-trained with its decoder and has one channel in and out: the standardised intensity.
    pub backbone: BackboneConfig,
    /// Channels of SparK's decoder at the coarsest stage, a multiple of 32. The U-Net has its own
    /// decoder.
    pub decoder_width: usize,
    /// Optimiser, steps, seed.
    pub train: TrainConfig,
    /// Side of the cubes that are cropped from volumes, voxels; a multiple of the cell and of the
    /// backbone's coarsest stride.
    pub patch: usize,
    /// Side of the cells of a mask, voxels.
    pub cell: usize,
    /// Volumes per step. SparK crops one cube from each, MiM one of the first level and those of
    /// the other levels inside it.
    pub batch: usize,
    /// Steps between reports.
    pub epoch_steps: usize,
    /// Cubes of the linear probe.
    pub probe_cubes: usize,
}

impl Default for PretrainConfig {
    fn default() -> Self {
        Self {
            method: Method::Spark(SparkConfig::default()),
            backbone: BackboneConfig::default(),
            decoder_width: 128,
            train: TrainConfig {
                steps: 5000,
                learning_rate: 1e-3,
                optimiser: NetOptimiser::AdamW(AdamWConfig { clip_norm: 5.0, ..AdamWConfig::default() }),
                ..TrainConfig::default()
            },
            patch: 64,
            cell: 16,
            batch: 2,
            epoch_steps: 250,
            probe_cubes: 48,
        }
    }
}

impl PretrainConfig {
    /// The default sizes of a backbone for pre-training.
    pub fn default_backbone(kind: BackboneKind) -> BackboneConfig {
        let mut config = kind.config();
        if let BackboneConfig::ResEnc(config) = &mut config {
            (config.in_channels, config.num_classes) = (1, 1);
        }
        config
    }

    /// Checks that the parts fit together.
    ///
    /// # Errors
    /// the first field whose value breaks a rule
    pub fn validate(&self) -> Result<(), InvalidValue> {
        let (patch, cell) = (self.patch, self.cell);
        self.validate_backbone().map_err(|error| error.within("backbone"))?;
        self.train.validate().map_err(|error| error.within("train"))?;
        at_least_one("batch", self.batch)?;
        at_least_one("epoch_steps", self.epoch_steps)?;
        let enough = self.probe_cubes >= MIN_PROBE_CUBES;
        require("probe_cubes", self.probe_cubes, enough, &format!("must be at least {MIN_PROBE_CUBES}"))?;
        at_least_one("decoder_width", self.decoder_width)?;
        multiple("decoder_width", self.decoder_width, 32, "so that every step up halves it")?;
        at_least_one("cell", cell)?;
        at_least_one("patch", patch)?;
        multiple("cell", cell, self.backbone.mask_stride(), "to which the backbone resolves masks")?;
        multiple("patch", patch, cell, "the side of a cell")?;
        multiple("patch", patch, self.backbone.coarsest_stride(), "the backbone's coarsest stride")?;
        let cells = (patch / cell).pow(3);
        let within = |error: InvalidValue| error.within("method");
        match &self.method {
            Method::Spark(config) => return check_share("masked_share", config.masked_share, cells).map_err(within),
            Method::Mim(config) => config.validate(cells).map_err(within)?,
            Method::SparkMim(config) => {
                config.validate(cells).map_err(within)?;
                for (field, weight) in
                    [("count_weight", config.count_weight), ("position_weight", config.position_weight)]
                {
                    if weight > 0.0 {
                        let rule = "must be 0 for spark_mim, whose encoder is given the mask";
                        return Err(within(InvalidValue::new(field, weight, rule)));
                    }
                }
            }
        }
        if let BackboneConfig::ResEnc(_) = self.backbone {
            return Err(InvalidValue::new(
                "method.kind",
                self.method_name(),
                "is not available for the U-Net; use spark",
            ));
        }
        if cell != MIM_CELL {
            return Err(InvalidValue::new("cell", cell, format!("must be {MIM_CELL} for MiM")));
        }
        multiple("patch", patch, 2 * cell, "because MiM masks octants")
    }

    fn validate_backbone(&self) -> Result<(), InvalidValue> {
        self.backbone.validate()?;
        match &self.backbone {
            BackboneConfig::ResEnc(_) => self.backbone.validate_channels(1, 1)?,
            // The decoder and its classes are not pre-trained.
            other => other.validate_channels(IN_CHANNELS, other.num_classes())?,
        }
        match self.backbone.window() {
            Some(size) if size != [self.patch; 3] => {
                let rule = format!("must be {:?}, the sides of the patches", [self.patch; 3]);
                Err(InvalidValue::new("size", format!("{size:?}"), rule))
            }
            _ => Ok(()),
        }
    }

    fn method_name(&self) -> &'static str {
        match self.method {
            Method::Spark(_) => "spark",
            Method::Mim(_) => "mim",
            Method::SparkMim(_) => "spark_mim",
        }
    }

    /// The net around the encoder of a backbone that has no decoder of its own here.
    pub(super) fn spark_net(&self) -> SparkNetConfig {
        SparkNetConfig { encoder: self.backbone.clone(), decoder_width: self.decoder_width }
    }
}

/// Checks that a value is a multiple of another one, for a reason.
fn multiple(field: &str, value: usize, of: usize, reason: &str) -> Result<(), InvalidValue> {
    require(field, value, value.is_multiple_of(of), &format!("must be a multiple of {of}, {reason}"))
}

/// Checks that a share of `parts` masks at least one of them and leaves one visible.
fn check_share(field: &str, share: f64, parts: usize) -> Result<(), InvalidValue> {
    let holds = share < 1.0 && share * parts as f64 >= 1.0;
    require(field, share, holds, &format!("must mask at least one of {parts} parts and leave one visible"))
}

/// Why pre-training stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PretrainError {
    /// The configuration breaks a rule.
    #[error(transparent)]
    Config(#[from] InvalidValue),
    /// No volumes were given.
    #[error("there are no volumes to pre-train on")]
    NoVolumes,
    /// No volume can be read, at the start or any more.
    #[error("none of {count} volumes can be read; the last error was: {source}")]
    Unreadable {
        /// Number of volumes that were tried.
        count: usize,
        /// Why the last one failed.
        source: FileError,
    },
    /// The training loop stopped.
    #[error(transparent)]
    Train(TrainError),
}

impl From<TrainError> for PretrainError {
    /// An error of this module that ended the training loop is unwrapped.
    fn from(error: TrainError) -> Self {
        match error {
            TrainError::Batch(source) => match source.downcast::<Self>() {
                Ok(error) => *error,
                Err(source) => Self::Train(TrainError::Batch(source)),
            },
            error => Self::Train(error),
        }
    }
}
