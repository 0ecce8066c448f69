//! Values that a user types by name.

use clap::ValueEnum;
use willis_core::{Modality, Sex};
use willis_nets::backbones::BackboneKind;
use willis_nets::pretrain::{Method, MimConfig, SparkConfig};
use willis_phantom::ScanSize;

/// Format of stdout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Text for people.
    Text,
    /// JSON for programs.
    Json,
}

/// Name of a [`Modality`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ModalityName {
    /// CT angiography.
    Cta,
    /// Time-of-flight MR angiography.
    Mra,
    /// T1-weighted MR after contrast agent.
    T1post,
    /// T2-weighted MR.
    T2,
}

impl From<ModalityName> for Modality {
    fn from(name: ModalityName) -> Self {
        match name {
            ModalityName::Cta => Self::Cta,
            ModalityName::Mra => Self::Mra,
            ModalityName::T1post => Self::T1Post,
            ModalityName::T2 => Self::T2,
        }
    }
}

/// Name of a [`Sex`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SexName {
    /// Female.
    Female,
    /// Male.
    Male,
}

impl From<SexName> for Sex {
    fn from(name: SexName) -> Self {
        match name {
            SexName::Female => Self::Female,
            SexName::Male => Self::Male,
        }
    }
}

/// Name of a [`BackboneKind`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BackboneName {
    /// SegFormer3D, the backbone of the embedded segmentation net.
    Segformer3d,
    /// WaveFormer, the encoder of the embedded classifier.
    Waveformer,
    /// Residual-encoder U-Net.
    Resenc,
}

impl From<BackboneName> for BackboneKind {
    fn from(name: BackboneName) -> Self {
        match name {
            BackboneName::Segformer3d => Self::SegFormer3d,
            BackboneName::Waveformer => Self::WaveFormer,
            BackboneName::Resenc => Self::ResEnc,
        }
    }
}

/// Name of a published net.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PublishedName {
    /// SegFormer3D.
    Segformer3d,
    /// WaveFormer.
    Waveformer,
    /// Residual-encoder U-Net.
    Resenc,
    /// StripModel of SynthStrip, which predicts the distance from the brain's surface.
    Synthstrip,
}

impl PublishedName {
    /// The backbone of this name; `None` for SynthStrip.
    pub fn backbone(self) -> Option<BackboneKind> {
        match self {
            Self::Segformer3d => Some(BackboneKind::SegFormer3d),
            Self::Waveformer => Some(BackboneKind::WaveFormer),
            Self::Resenc => Some(BackboneKind::ResEnc),
            Self::Synthstrip => None,
        }
    }
}

/// Name of a pre-training [`Method`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum MethodName {
    /// SparK: reconstruct masked cells; the encoder computes visible cells only.
    Spark,
    /// MiM: reconstruct and align three nested levels of masks.
    Mim,
    /// MiM's levels with SparK's sparse encoder.
    SparkMim,
}

impl From<MethodName> for Method {
    /// The method with its default configuration.
    fn from(name: MethodName) -> Self {
        match name {
            MethodName::Spark => Self::Spark(SparkConfig::default()),
            MethodName::Mim => Self::Mim(MimConfig::default()),
            MethodName::SparkMim => Self::SparkMim(MimConfig::default()),
        }
    }
}

/// Appearance of phantom scans.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AppearanceName {
    /// As scanners show them.
    Realistic,
    /// Two thirds realistic, one third wide; the embedded weights were trained on this.
    Mixed,
    /// Randomised beyond what scanners show.
    Wide,
}

/// Name of a phantom's [`ScanSize`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ScanSizeName {
    /// As hospitals scan: 256 to 512 pixels across.
    Clinical,
    /// Slabs of 160 pixels across about the circle of Willis.
    Small,
    /// Slabs of 48 pixels across, for tests.
    Tiny,
    /// Whole-head CTA of 300 slices of 512 x 512, for measurements of speed and memory.
    Reference,
}

impl From<ScanSizeName> for ScanSize {
    fn from(name: ScanSizeName) -> Self {
        match name {
            ScanSizeName::Clinical => Self::Clinical,
            ScanSizeName::Small => Self::Small,
            ScanSizeName::Tiny => Self::Tiny,
            ScanSizeName::Reference => Self::Reference,
        }
    }
}
