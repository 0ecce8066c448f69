//! The backbones by name, with published configurations and official state dicts: what `willis net`
//! runs.

pub mod state_dict;

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use crate::backbones::resenc::{self, ResEnc, ResEncConfig};
use crate::backbones::segformer3d::{self, AttentionScale, SegFormer3d, SegFormer3dConfig};
use crate::backbones::waveformer::{self, Quirks, Waveformer, WaveformerConfig};
use crate::layers::Init;
use crate::weights::{Mismatch, Weights, WeightsError};

/// A backbone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Backbone {
    /// SegFormer3D.
    Segformer3d,
    /// WaveFormer.
    Waveformer,
    /// Residual-encoder U-Net.
    Resenc,
}

/// Which slips of the published code a net keeps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum QuirksName {
    /// All, for published checkpoints.
    #[default]
    Official,
    /// None, for new training.
    Fixed,
}

/// What a net is built with; keys that a backbone does not have are ignored by it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NetConfig {
    /// Channels of the input.
    pub in_channels: usize,
    /// Channels of the logits.
    pub num_classes: usize,
    /// Side of the cube the net is built for.
    pub size: usize,
    /// What SegFormer3D's attention logits are divided by.
    pub attention_scale: AttentionScale,
    /// Slips of WaveFormer's published code.
    pub quirks: QuirksName,
    /// Whether WaveFormer attends on every scale of a stage.
    pub multi_scale: bool,
    /// Whether WaveFormer weighs its sub-bands.
    pub hf_refinement: bool,
}

impl Default for NetConfig {
    fn default() -> Self {
        Self {
            in_channels: 4,
            num_classes: 3,
            size: 128,
            attention_scale: AttentionScale::Heads,
            quirks: QuirksName::Official,
            multi_scale: true,
            hf_refinement: false,
        }
    }
}

/// Why a net cannot be built.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum NetError {
    /// A size that the backbone cannot have.
    #[error("size {size} is no positive multiple of {multiple} up to 512, which {backbone} needs")]
    Size {
        /// The size.
        size: usize,
        /// What it must be a multiple of.
        multiple: usize,
        /// The backbone.
        backbone: &'static str,
    },
    /// A number of channels that makes no net.
    #[error("in_channels and num_classes must be 1 to 4096")]
    Channels,
}

impl Backbone {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Segformer3d, Self::Waveformer, Self::Resenc];

    /// What users type.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Segformer3d => "segformer3d",
            Self::Waveformer => "waveformer",
            Self::Resenc => "resenc",
        }
    }

    /// One line about it.
    pub const fn about(self) -> &'static str {
        match self {
            Self::Segformer3d => "hierarchical transformer, all-MLP decoder (Perera et al., CVPR-W 2024)",
            Self::Waveformer => "windowed attention on wavelet scales, wavelet decoders (Al Hasan et al., MICCAI 2025)",
            Self::Resenc => "residual-encoder U-Net, nnU-Net's ResEnc-L (Isensee et al., MICCAI 2024)",
        }
    }

    /// The backbone of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|backbone| backbone.name() == name)
    }

    /// The configuration of the published net.
    pub fn published(self) -> NetConfig {
        let (in_channels, num_classes, size) = match self {
            Self::Segformer3d => (4, 3, 128),
            Self::Waveformer => (4, 4, 128),
            Self::Resenc => (1, 1, 64),
        };
        NetConfig { in_channels, num_classes, size, ..NetConfig::default() }
    }

    /// A net with initial parameters.
    ///
    /// # Errors
    /// [`NetError`]
    pub fn build(self, config: &NetConfig, seed: u64, device: &Device) -> Result<Net, NetError> {
        let multiple = match self {
            Self::Segformer3d | Self::Resenc => 32,
            Self::Waveformer => 16,
        };
        let size = config.size;
        if size == 0 || size > 512 || !size.is_multiple_of(multiple) {
            return Err(NetError::Size { size, multiple, backbone: self.name() });
        }
        if ![config.in_channels, config.num_classes].iter().all(|channels| (1..=4096).contains(channels)) {
            return Err(NetError::Channels);
        }
        let init = &mut Init::new(seed, device);
        Ok(match self {
            Self::Segformer3d => {
                let config = SegFormer3dConfig {
                    in_channels: config.in_channels,
                    num_classes: config.num_classes,
                    attention_scale: config.attention_scale,
                    ..SegFormer3dConfig::default()
                };
                Net::Segformer3d(Box::new(config.init(init)))
            }
            Self::Waveformer => {
                let quirks = match config.quirks {
                    QuirksName::Official => Quirks::OFFICIAL,
                    QuirksName::Fixed => Quirks::FIXED,
                };
                let inner = WaveformerConfig {
                    multi_scale: config.multi_scale,
                    hf_refinement: config.hf_refinement,
                    ..WaveformerConfig::published(config.in_channels, size, quirks)
                };
                Net::Waveformer(Box::new(Waveformer::new(&inner, config.num_classes, init)))
            }
            Self::Resenc => {
                let config = ResEncConfig::published(config.in_channels, config.num_classes);
                Net::Resenc(Box::new(config.init(init)), config)
            }
        })
    }
}

/// A built backbone.
#[derive(Debug)]
pub enum Net {
    /// SegFormer3D.
    Segformer3d(Box<SegFormer3d>),
    /// WaveFormer.
    Waveformer(Box<Waveformer>),
    /// Residual-encoder U-Net with its sizes.
    Resenc(Box<ResEnc>, ResEncConfig),
}

impl Net {
    /// Logits and their shape of plain values on the CPU: `[B, in, D, H, W]` ->
    /// `[B, classes, D, H, W]`.
    ///
    /// # Panics
    /// if the values do not fill the shape, or the shape is not one the net takes (programmer
    /// error)
    pub fn logits(&self, shape: [usize; 5], values: Vec<f32>) -> ([usize; 5], Vec<f32>) {
        let x = Tensor::from_data(TensorData::new(values, shape), &crate::ops::cpu());
        let logits = self.forward(x);
        (logits.dims(), logits.into_data().convert::<f32>().try_to_vec().expect("data was just converted to f32"))
    }

    /// x `[B, in, D, H, W]` -> logits `[B, classes, D, H, W]`.
    pub fn forward(&self, x: Tensor<5>) -> Tensor<5> {
        match self {
            Self::Segformer3d(net) => net.forward(x),
            Self::Waveformer(net) => net.forward(x),
            Self::Resenc(net, _) => net.forward(x),
        }
    }

    /// Its parameters and stored statistics under the official names.
    pub fn weights(&self) -> Weights {
        match self {
            Self::Segformer3d(net) => Weights::of(net.as_ref()).renamed(&segformer3d::OFFICIAL_NAMES),
            Self::Waveformer(net) => Weights::of(net.as_ref()).renamed(&waveformer::OFFICIAL_NAMES),
            Self::Resenc(net, config) => Weights::of(net.as_ref()).renamed(&borrowed(&config.official_names())),
        }
    }

    /// The net with weights under the official names.
    ///
    /// # Errors
    /// [`WeightsError::Mismatch`] with everything that does not fit
    pub fn with_weights(self, given: Weights) -> Result<Self, WeightsError> {
        let given = if matches!(self, Self::Resenc(..)) { resenc::canonical(&given) } else { given };
        let mismatch = Mismatch::between(&self.weights(), &given);
        if !mismatch.is_empty() {
            return Err(mismatch.into());
        }
        Ok(match self {
            Self::Segformer3d(net) => Self::Segformer3d(Box::new(renamed(*net, given, &segformer3d::OFFICIAL_NAMES)?)),
            Self::Waveformer(net) => Self::Waveformer(Box::new(renamed(*net, given, &waveformer::OFFICIAL_NAMES)?)),
            Self::Resenc(net, config) => {
                let net = renamed(*net, given, &borrowed(&config.official_names()))?;
                Self::Resenc(Box::new(net), config)
            }
        })
    }
}

fn borrowed(names: &[(String, String)]) -> Vec<(&str, &str)> {
    names.iter().map(|(ours, official)| (ours.as_str(), official.as_str())).collect()
}

fn renamed<M: Module>(net: M, given: Weights, names: &[(&str, &str)]) -> Result<M, WeightsError> {
    let ours: Vec<(&str, &str)> = names.iter().map(|&(ours, official)| (official, ours)).collect();
    given.renamed(&ours).apply(net)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_net_takes_its_own_weights_back_under_official_names() {
        for backbone in Backbone::ALL {
            let config = NetConfig { size: 32, hf_refinement: true, ..backbone.published() };
            let build = |seed| backbone.build(&config, seed, &Device::flex()).unwrap();
            let weights = build(1).weights();
            let again = build(2).with_weights(weights.clone()).unwrap().weights();
            assert_eq!(again, weights, "{}", backbone.name());
            assert_eq!(Backbone::from_name(backbone.name()), Some(backbone));
        }
    }

    #[test]
    fn foreign_weights_are_refused_whole() {
        let build = |backbone: Backbone| {
            let config = NetConfig { size: 32, ..backbone.published() };
            backbone.build(&config, 1, &Device::flex()).unwrap()
        };
        let error = build(Backbone::Waveformer).with_weights(build(Backbone::Segformer3d).weights()).unwrap_err();
        let WeightsError::Mismatch { mismatch } = error else { panic!("{error}") };
        assert!(mismatch.missing.len() > 100 && mismatch.unexpected.len() > 100);
    }

    #[test]
    fn sizes_that_make_no_net_are_refused() {
        for size in [0, 20, 1 << 40] {
            let config = NetConfig { size, ..NetConfig::default() };
            assert!(matches!(
                Backbone::Waveformer.build(&config, 0, &Device::flex()),
                Err(NetError::Size { multiple: 16, .. })
            ));
        }
    }
}
