//! The nets around the backbone that is pre-trained.

use burn::module::Module;
use burn::tensor::{Device, Tensor};

use super::mim::{MimNet, MimNetConfig};
use super::spark::{Encoding, S3d, SparkNet, destandardised, masked_cell_error, masked_error};
use super::{Method, PretrainConfig};
use crate::backbones::BackboneConfig;
use crate::layers::Init;
use crate::layers::standardise;
use crate::layers::visible::VisibleCells;
use crate::weights::Weights;

/// The net around the backbone that is pre-trained.
#[derive(Module, Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one net at a time")]
pub(super) enum PretrainNet {
    /// SparK around an encoder.
    Spark(SparkNet),
    /// MiM around an encoder.
    Mim(MimNet),
    /// SparK around the residual-encoder U-Net.
    S3d(S3d),
}

/// Output of a [`PretrainNet`].
pub(super) struct PretrainOutput {
    /// `[B, 1, D, H, W]`.
    pub reconstruction: Tensor<5>,
    /// For MiM: features of the decoder on the grid of cells.
    pub cells: Option<Tensor<5>>,
    /// For MiM: coarsest stage of the encoder.
    pub coarsest: Option<Tensor<5>>,
}

impl PretrainConfig {
    /// A net with initial parameters.
    pub(super) fn init(&self, init: &mut Init) -> PretrainNet {
        match (&self.backbone, &self.method) {
            (BackboneConfig::ResEnc(config), _) => PretrainNet::S3d(S3d::new(config, init)),
            (_, Method::Spark(_)) => PretrainNet::Spark(self.spark_net().init(init)),
            (_, Method::Mim(mim)) => {
                PretrainNet::Mim(self.mim_net(Encoding::Dense, mim.has_region_losses()).init(init))
            }
            (_, Method::SparkMim(_)) => PretrainNet::Mim(self.mim_net(Encoding::Sparse, false).init(init)),
        }
    }

    fn mim_net(&self, encoding: Encoding, region_losses: bool) -> MimNetConfig {
        MimNetConfig { net: self.spark_net(), encoding, region_losses }
    }
}

impl PretrainNet {
    /// Reconstruction of the volume from its visible cells.
    ///
    /// # Shapes
    /// x `[B, in_channels, D, H, W]` -> [`PretrainOutput`]
    pub fn forward(&self, x: Tensor<5>, visible: &VisibleCells) -> PretrainOutput {
        let alone = |reconstruction| PretrainOutput { reconstruction, cells: None, coarsest: None };
        match self {
            Self::Spark(net) => alone(net.forward(x, visible, Encoding::Sparse).reconstruction),
            Self::Mim(net) => {
                let output = net.forward(x, visible);
                PretrainOutput {
                    reconstruction: output.reconstruction,
                    cells: Some(output.cells),
                    coarsest: Some(output.coarsest),
                }
            }
            Self::S3d(net) => alone(net.forward(x, visible)),
        }
    }

    /// The net of MiM, if this is one.
    pub fn mim(&self) -> Option<&MimNet> {
        match self {
            Self::Mim(net) => Some(net),
            Self::Spark(_) | Self::S3d(_) => None,
        }
    }

    /// Reconstruction loss.
    ///
    /// # Shapes
    /// reconstruction and intensity `[B, 1, D, H, W]`, cells of `cell³` voxels -> `[1]`
    pub fn error(
        &self,
        reconstruction: Tensor<5>,
        intensity: Tensor<5>,
        visible: &VisibleCells,
        cell: usize,
    ) -> Tensor<1> {
        match self {
            Self::Spark(_) | Self::Mim(_) => masked_cell_error(reconstruction, intensity, visible, cell),
            Self::S3d(_) => masked_error(reconstruction, intensity, visible),
        }
    }

    /// A reconstruction in units of the standardised intensity, for pictures.
    ///
    /// # Shapes
    /// reconstruction and intensity `[B, 1, D, H, W]` -> the same shape
    pub fn in_units_of(&self, reconstruction: Tensor<5>, intensity: Tensor<5>, cell: usize) -> Tensor<5> {
        match self {
            Self::Spark(_) | Self::Mim(_) => destandardised(reconstruction, standardise(intensity), cell),
            Self::S3d(_) => reconstruction,
        }
    }

    /// Coarsest features of the unmasked volume.
    ///
    /// # Shapes
    /// x `[B, in_channels, D, H, W]` -> `[B, C, d, h, w]`
    pub fn bottleneck(&self, x: Tensor<5>) -> Tensor<5> {
        let stages = match self {
            Self::Spark(net) => net.encode(x, None),
            Self::Mim(net) => net.encode(x),
            Self::S3d(net) => net.backbone().encode(x, None),
        };
        stages.into_iter().next_back().expect("every backbone has stages")
    }

    /// Device of the parameters.
    pub fn device(&self) -> Device {
        match self {
            Self::Spark(net) => net.device(),
            Self::Mim(net) => net.device(),
            Self::S3d(net) => net.device(),
        }
    }

    /// Weights of the pre-trained encoder, or of the whole U-Net, under the backbone's own names.
    pub fn backbone_weights(&self) -> Weights {
        match self {
            Self::Spark(net) => net.encoder_weights(),
            Self::Mim(net) => net.encoder_weights(),
            Self::S3d(net) => Weights::of(net.backbone()),
        }
    }
}
