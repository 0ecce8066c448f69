//! What can be chosen in pre-training, and which choices fit together.

use serde::{Deserialize, Serialize};

use crate::backbones::published::Backbone;
use crate::backbones::resenc::ResEncConfig;
use crate::backbones::segformer3d::SegFormer3dConfig;
use crate::backbones::waveformer::WaveformerConfig;
use crate::pretrain::spark::{EncoderConfig, LightConfig};
use crate::segment::IN_CHANNELS;
use crate::train::{TrainConfig, TrainError};

/// The objective.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// SparK: masked cells are painted from the seen ones, which are all that the encoder sees.
    Spark,
    /// MiM: three levels of masks, one inside the other, painted and aligned; the encoder runs over
    /// the whole masked input.
    Mim,
    /// MiM's levels with SparK's encoder, which sees nothing of what is masked.
    SparkMim,
}

/// The levels of MiM.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NestedConfig {
    /// Share of the octants of the first level that is masked.
    pub coarse_masked: f64,
    /// Masked octants of each first-level cube that become cubes of the second.
    pub middle: usize,
    /// Share of the cells that is masked on the second level.
    pub middle_masked: f64,
    /// Masked cells of each second-level cube that become cubes of the third.
    pub fine: usize,
    /// Share of the cells that is masked on the third level.
    pub fine_masked: f64,
    /// Weight of the alignment between levels; 0 for the ablation.
    pub align_weight: f64,
    /// Cosines are divided by this.
    pub temperature: f64,
    /// Weight of HybridMIM's first question to the coarsest features, how many of the eight cells
    /// of each region are masked; its paper has 0.1. Only for the method `mim`, whose encoder is
    /// not told.
    pub count_weight: f64,
    /// Weight of HybridMIM's second question, which of the cells are masked; as above.
    pub position_weight: f64,
}

impl NestedConfig {
    /// Whether HybridMIM's questions are asked.
    pub(super) fn asks_regions(&self) -> bool {
        self.count_weight > 0.0 || self.position_weight > 0.0
    }

    /// Whether every level has a masked part, the next level a cube in it, and cosines something to
    /// be divided by.
    fn has_children(&self, cells: usize) -> bool {
        let some_masked = |share: f64, parts: usize| share * parts as f64 >= 1.0;
        let shares = [(self.coarse_masked, 8), (self.middle_masked, cells), (self.fine_masked, cells)];
        let masked = shares.into_iter().all(|(share, parts)| some_masked(share, parts));
        masked && self.middle > 0 && self.fine > 0 && self.temperature > 0.0
    }
}

impl Default for NestedConfig {
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

/// How a backbone is pre-trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PretrainConfig {
    /// The objective.
    pub method: Method,
    /// The levels of MiM.
    pub nested: NestedConfig,
    /// What is pre-trained: the encoder of SegFormer3D or WaveFormer, fed as in the vessel net with
    /// intensity and world coordinates, or the residual-encoder U-Net, fed with standardised
    /// intensity.
    pub backbone: Backbone,
    /// Sizes of SegFormer3D: four channels in.
    pub segformer3d: SegFormer3dConfig,
    /// Sizes of WaveFormer: four channels in, its size that of the patches.
    pub waveformer: WaveformerConfig,
    /// Channels of the light decoder behind these two at the coarsest stage.
    pub decoder_width: usize,
    /// Sizes of the residual-encoder U-Net: one channel in, one out.
    pub resenc: ResEncConfig,
    /// Optimiser, steps, seed.
    pub train: TrainConfig,
    /// Side of the cubes that are cut from volumes, voxels; a multiple of the cell.
    pub patch: usize,
    /// Side of the cells that are masked or not, voxels; a multiple of the coarsest stage's voxel.
    pub cell: usize,
    /// Volumes of a step: SparK cuts a cube from each, MiM one of the first level with its
    /// children.
    pub batch: usize,
    /// Share of the cells that SparK masks.
    pub masked_share: f64,
    /// Steps from one report to the next.
    pub epoch_steps: usize,
    /// Cubes of the linear probe.
    pub probe_cubes: usize,
}

impl PretrainConfig {
    /// The net around SegFormer3D's or WaveFormer's encoder.
    ///
    /// # Panics
    /// for the U-Net, which has its own decoder (programmer error)
    pub(super) fn light(&self) -> LightConfig {
        let encoder = match self.backbone {
            Backbone::Segformer3d => EncoderConfig::Segformer3d(self.segformer3d.clone()),
            Backbone::Waveformer => EncoderConfig::Waveformer(self.waveformer.clone()),
            Backbone::Resenc => panic!("the U-Net paints with its own decoder"),
        };
        LightConfig { encoder, decoder_width: self.decoder_width }
    }
}

impl Default for PretrainConfig {
    fn default() -> Self {
        Self {
            method: Method::Spark,
            nested: NestedConfig::default(),
            backbone: Backbone::Segformer3d,
            segformer3d: SegFormer3dConfig::willis(),
            waveformer: WaveformerConfig::default(),
            decoder_width: 128,
            resenc: ResEncConfig::default(),
            train: TrainConfig { steps: 5000, learning_rate: 1e-3, clip_norm: 5.0, ..TrainConfig::default() },
            patch: 64,
            cell: 16,
            batch: 2,
            masked_share: 0.75,
            epoch_steps: 250,
            probe_cubes: 48,
        }
    }
}

/// Why pre-training stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PretrainError {
    /// Sizes that do not fit together.
    #[error(
        "patch {patch} and cell {cell} do not fit the backbone: the patch must be a multiple of the cell and of {coarsest}, the cell of {voxel}"
    )]
    Sizes {
        /// Side of a cube.
        patch: usize,
        /// Side of a cell.
        cell: usize,
        /// Side of a voxel of the coarsest stage.
        coarsest: usize,
        /// Side of a voxel of the coarsest stage that a mask must fit.
        voxel: usize,
    },
    /// Sizes that make no such net.
    #[error("the backbone needs {needed}; change the configuration")]
    Net {
        /// What it needs.
        needed: &'static str,
    },
    /// Nothing to learn from.
    #[error("there is no volume to pre-train on")]
    NoVolumes,
    /// The loop stopped.
    #[error(transparent)]
    Train(#[from] TrainError),
}

/// Whether the sizes fit together.
pub(super) fn check(config: &PretrainConfig) -> Result<(), PretrainError> {
    let (patch, cell) = (config.patch, config.cell);
    let refused = |needed| Err(PretrainError::Net { needed });
    let (coarsest, voxel) = match config.backbone {
        Backbone::Segformer3d => {
            if !config.segformer3d.is_sound() || config.segformer3d.in_channels != IN_CHANNELS {
                return refused("four channels in, and heads that divide its channels");
            }
            // Its keys lie on a grid of 16 voxels; the fourth stage, of 32, counts as seen where
            // cells are smaller.
            (32, 16)
        }
        Backbone::Waveformer => {
            let WaveformerConfig { in_channels, size, .. } = config.waveformer;
            if !config.waveformer.is_sound() || in_channels != IN_CHANNELS || size != [patch; 3] {
                return refused("four channels in, the patches' size, and a head_dim that divides embed_dim");
            }
            (16, 16)
        }
        Backbone::Resenc => {
            if config.method != Method::Spark {
                return refused("the method spark: MiM is built around segformer3d and waveformer");
            }
            let ResEncConfig { in_channels, num_classes, .. } = config.resenc;
            if [in_channels, num_classes] != [1, 1] || !config.resenc.is_sound() {
                return refused("one channel in and out, two or more stages, blocks for each");
            }
            (config.resenc.coarsest(), config.resenc.coarsest())
        }
    };
    if config.backbone != Backbone::Resenc {
        if config.decoder_width == 0 || !config.decoder_width.is_multiple_of(32) {
            return refused("a decoder_width that is a multiple of 32");
        }
        if config.method != Method::Spark && (cell != 16 || !patch.is_multiple_of(2 * cell)) {
            return refused("for MiM cells of 16 voxels, an even number along each side");
        }
        if config.method != Method::Spark && !config.nested.has_children((patch / cell).pow(3)) {
            return refused("on every level of MiM a masked part and a cube in it, and a temperature above 0");
        }
        if config.method == Method::SparkMim && config.nested.asks_regions() {
            return refused(
                "the method mim for count_weight and position_weight: a sparse encoder is told what is masked",
            );
        }
    }
    let fits = |side: usize, unit: usize| side > 0 && side.is_multiple_of(unit);
    match fits(cell, voxel) && fits(patch, cell) && fits(patch, coarsest) {
        true => Ok(()),
        false => Err(PretrainError::Sizes { patch, cell, coarsest, voxel }),
    }
}
