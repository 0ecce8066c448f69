//! MiM's net: convolutions that see only visible cells, a transformer over the visible tokens, and
//! a transformer that paints the rest.
//!
//! Letters: B batch, T tokens (216 of 16³ voxels), V visible tokens, C channels.
//!
//! Source: Zhuang et al., IEEE TMI 44(9) 2025, arXiv:2404.15580, and the behaviour of the authors'
//! code.

use burn::module::{Module, Param};
use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::layers::visible::VisibleCells;
use crate::layers::{Conv3d, Conv3dConfig, Init, LayerNorm, LayerNormConfig, Linear, LinearConfig};
use crate::ops;

/// Side of the cube that every level is presented as, voxels.
pub const SIDE: usize = 96;
/// Side of a token, voxels.
pub const TOKEN: usize = 16;
/// Tokens along an axis.
pub const GRID: usize = SIDE / TOKEN;
/// Tokens of a cube, T.
pub const TOKENS: usize = GRID * GRID * GRID;

const CHANNELS: [usize; 4] = [48, 96, 192, 384];
const HEADS: usize = 12;
const DECODER_CHANNELS: usize = 576;
const DECODER_HEADS: usize = 16;

/// Which tokens are visible; the same number in every item of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Visible {
    /// Numbers of the visible tokens of each item, in the order in which they are given to the
    /// transformer.
    items: Vec<Vec<usize>>,
}

impl Visible {
    /// From the numbers of the visible tokens of each item.
    ///
    /// # Panics
    /// if the items see different numbers of tokens, or a number is no token's (programmer error)
    pub fn new(items: Vec<Vec<usize>>) -> Self {
        assert!(items.windows(2).all(|pair| pair[0].len() == pair[1].len()), "as many visible tokens in every item");
        assert!(items.iter().flatten().all(|&token| token < TOKENS), "tokens are numbered to {TOKENS}");
        Self { items }
    }

    /// The `kept` tokens with the smallest numbers of each item; `[B][T]`.
    pub fn smallest(numbers: &[Vec<f64>], kept: usize) -> Self {
        let order = |numbers: &Vec<f64>| {
            let mut order: Vec<usize> = (0..numbers.len()).collect();
            order.sort_by(|&a, &b| numbers[a].total_cmp(&numbers[b]).then(a.cmp(&b)));
            order.truncate(kept);
            order
        };
        Self::new(numbers.iter().map(order).collect())
    }

    /// Flags of the masked tokens, item by item.
    pub fn masked(&self) -> Vec<bool> {
        let flags = |item: &Vec<usize>| {
            let mut flags = vec![true; TOKENS];
            item.iter().for_each(|&token| flags[token] = false);
            flags
        };
        self.items.iter().flat_map(flags).collect()
    }

    fn active(&self, device: &Device) -> VisibleCells {
        let flags: Vec<bool> = self.masked().into_iter().map(|masked| !masked).collect();
        VisibleCells::new(&flags, self.items.len(), [GRID; 3], device)
    }

    /// `[B, V, C]` index of `order[v]` for every channel.
    fn index(orders: &[Vec<usize>], channels: usize, device: &Device) -> Tensor<3, Int> {
        let (batch, count) = (orders.len(), orders.first().map_or(0, Vec::len));
        let numbers: Vec<i32> = orders.iter().flatten().map(|&token| token as i32).collect();
        let index = Tensor::<3, Int>::from_data(TensorData::new(numbers, [batch, count, 1]), device);
        index.expand([batch, count, channels])
    }

    /// Visible tokens of `[B, T, C]` -> `[B, V, C]`.
    fn gather(&self, tokens: Tensor<3>) -> Tensor<3> {
        let index = Self::index(&self.items, tokens.dims()[2], &tokens.device().inner());
        tokens.gather(1, index)
    }

    /// Visible tokens and, in the other places, one token: `[B, V, C]`, `[1, 1, C]` -> `[B, T, C]`.
    fn scatter(&self, visible: Tensor<3>, token: Tensor<3>) -> Tensor<3> {
        let [batch, count, channels] = visible.dims();
        let device = visible.device().inner();
        let filled = Tensor::cat(vec![visible, token.expand([batch, TOKENS - count, channels])], 1);
        // Where each token lies in the concatenation.
        let places = |item: &Vec<usize>| {
            let mut places = vec![usize::MAX; TOKENS];
            item.iter().enumerate().for_each(|(place, &token)| places[token] = place);
            let hidden = places.iter_mut().filter(|place| **place == usize::MAX);
            (count..).zip(hidden).for_each(|(next, place)| *place = next);
            places
        };
        let places: Vec<Vec<usize>> = self.items.iter().map(places).collect();
        filled.gather(1, Self::index(&places, channels, &device))
    }
}

/// The net.
#[derive(Module, Debug)]
pub struct Mim {
    patch_embed1: PatchEmbed,
    patch_embed2: PatchEmbed,
    patch_embed3: PatchEmbed,
    patch_embed4: PatchEmbed,
    patch_embed5: Linear,
    stage1_output_decode: Conv3d,
    stage2_output_decode: Conv3d,
    stage3_output_decode: Conv3d,
    blocks1: Vec<ConvBlock>,
    blocks2: Vec<ConvBlock>,
    blocks3: Vec<ConvBlock>,
    blocks4: Vec<TransformerBlock>,
    norm: LayerNorm,
    decoder_embed: Linear,
    mask_token: Param<Tensor<3>>,
    decoder_blocks: Vec<TransformerBlock>,
    decoder_norm: LayerNorm,
    decoder_pred: Linear,
}

impl Mim {
    /// A net with initial parameters.
    pub fn new(init: &mut Init) -> Self {
        let embed =
            |i: usize, init: &mut Init| PatchEmbed::new(if i == 0 { 1 } else { CHANNELS[i - 1] }, CHANNELS[i], init);
        let fuse = |i: usize, init: &mut Init| {
            let side = 8 >> i;
            Conv3dConfig::patches(CHANNELS[i], CHANNELS[3], side).init(init)
        };
        let blocks = |i: usize, init: &mut Init| (0..2).map(|_| ConvBlock::new(CHANNELS[i], init)).collect();
        let transformer = |count: usize, channels: usize, heads: usize, init: &mut Init| {
            (0..count).map(|_| TransformerBlock::new(channels, heads, init)).collect()
        };
        Self {
            patch_embed1: embed(0, init),
            patch_embed2: embed(1, init),
            patch_embed3: embed(2, init),
            patch_embed4: embed(3, init),
            patch_embed5: LinearConfig::new(CHANNELS[3], CHANNELS[3]).init(init),
            stage1_output_decode: fuse(0, init),
            stage2_output_decode: fuse(1, init),
            stage3_output_decode: fuse(2, init),
            blocks1: blocks(0, init),
            blocks2: blocks(1, init),
            blocks3: blocks(2, init),
            blocks4: transformer(11, CHANNELS[3], HEADS, init),
            norm: LayerNormConfig::new(CHANNELS[3]).with_eps(1e-6).init(init),
            decoder_embed: LinearConfig::new(CHANNELS[3], DECODER_CHANNELS).init(init),
            mask_token: init.normal([1, 1, DECODER_CHANNELS], 0.02),
            decoder_blocks: transformer(8, DECODER_CHANNELS, DECODER_HEADS, init),
            decoder_norm: LayerNormConfig::new(DECODER_CHANNELS).with_eps(1e-6).init(init),
            decoder_pred: LinearConfig::new(DECODER_CHANNELS, TOKEN.pow(3)).init(init),
        }
    }

    /// What the encoder makes of the visible tokens: x `[B, 1, 96, 96, 96]` -> `[B, V, 384]`.
    pub fn encode(&self, x: Tensor<5>, visible: &Visible) -> Tensor<3> {
        let device = x.device().inner();
        let active = visible.active(&device);
        let stage = |embed: &PatchEmbed, blocks: &[ConvBlock], x| {
            blocks.iter().fold(embed.forward(x), |x, block| block.forward(x, &active))
        };
        let first = stage(&self.patch_embed1, &self.blocks1, x);
        let second = stage(&self.patch_embed2, &self.blocks2, first.clone());
        let third = stage(&self.patch_embed3, &self.blocks3, second.clone());
        let tokens = self.patch_embed5.forward(to_tokens(self.patch_embed4.forward(third.clone())));
        let tokens = visible.gather(tokens + positions(CHANNELS[3], &device));
        let tokens = self.blocks4.iter().fold(tokens, |x, block| block.forward(x));
        let fused = to_tokens(self.stage1_output_decode.forward(first))
            + to_tokens(self.stage2_output_decode.forward(second))
            + to_tokens(self.stage3_output_decode.forward(third));
        self.norm.forward(tokens + visible.gather(fused))
    }

    /// Decoder features of every token: `[B, V, 384]` -> `[B, T, 576]`.
    pub fn decode(&self, latent: Tensor<3>, visible: &Visible) -> Tensor<3> {
        let device = latent.device().inner();
        let tokens = visible.scatter(self.decoder_embed.forward(latent), self.mask_token.val());
        let tokens = tokens + positions(DECODER_CHANNELS, &device);
        self.decoder_norm.forward(self.decoder_blocks.iter().fold(tokens, |x, block| block.forward(x)))
    }

    /// Voxels of every token: decoder features `[B, T, 576]` -> `[B, T, 4096]`.
    pub fn paint(&self, features: Tensor<3>) -> Tensor<3> {
        self.decoder_pred.forward(features)
    }
}

/// Mean squared error over the masked tokens, each standardised by its own mean and unbiased
/// variance.
///
/// # Shapes
/// prediction `[B, T, 4096]`, x `[B, 1, 96, 96, 96]` -> `[1]`
pub fn reconstruction_error(prediction: Tensor<3>, x: Tensor<5>, visible: &Visible) -> Tensor<1> {
    let target = voxels_of_tokens(x);
    let [batch, tokens, voxels] = target.dims();
    let centred = target.clone() - target.mean_dim(2);
    let variance = centred.clone().square().sum_dim(2) / (voxels - 1) as f64;
    let target = centred / (variance + 1e-6).sqrt();
    let masked: Vec<f32> = visible.masked().into_iter().map(f32::from).collect();
    let masked = Tensor::<3>::from_data(TensorData::new(masked, [batch, tokens, 1]), &target.device().inner());
    let error = (prediction - target).square().mean_dim(2) * masked.clone();
    error.sum() / masked.sum()
}

/// `[B, 1, 96, 96, 96]` -> `[B, T, 4096]`; tokens and voxels within them in C order.
pub fn voxels_of_tokens(x: Tensor<5>) -> Tensor<3> {
    let batch = x.dims()[0];
    let blocks = x.reshape([batch, GRID, TOKEN, GRID, TOKEN, GRID, TOKEN]);
    blocks.permute([0, 1, 3, 5, 2, 4, 6]).reshape([batch, TOKENS, TOKEN.pow(3)])
}

/// `[B, C, D, H, W]` -> `[B, D H W, C]`.
fn to_tokens(x: Tensor<5>) -> Tensor<3> {
    let [batch, channels, depth, height, width] = x.dims();
    x.reshape([batch, channels, depth * height * width]).swap_dims(1, 2)
}

/// Sines and cosines of the place of every token: a third of the channels per axis, `[1, T, C]`.
fn positions(channels: usize, device: &Device) -> Tensor<3> {
    let half = channels / 6;
    let value = |token: usize, channel: usize| {
        let place = [token / (GRID * GRID), token / GRID % GRID, token % GRID][channel / (2 * half)];
        let within = channel % (2 * half);
        let angle = place as f64 / 10_000f64.powf((within % half) as f64 / half as f64);
        if within < half { angle.sin() } else { angle.cos() }
    };
    let values: Vec<f32> = (0..TOKENS * channels).map(|i| value(i / channels, i % channels) as f32).collect();
    Tensor::from_data(TensorData::new(values, [1, TOKENS, channels]), device)
}

/// Half the resolution: convolution of 2x2x2 blocks, layer norm over channels, GELU.
#[derive(Module, Debug)]
struct PatchEmbed {
    proj: Conv3d,
    norm: LayerNorm,
}

impl PatchEmbed {
    fn new(inputs: usize, outputs: usize, init: &mut Init) -> Self {
        Self {
            proj: Conv3dConfig::patches(inputs, outputs, 2).init(init),
            norm: LayerNormConfig::new(outputs).init(init),
        }
    }

    fn forward(&self, x: Tensor<5>) -> Tensor<5> {
        ops::gelu(channel_norm(&self.norm, self.proj.forward(x)))
    }
}

/// Layer norm over the channels of `[B, C, D, H, W]`.
fn channel_norm(norm: &LayerNorm, x: Tensor<5>) -> Tensor<5> {
    norm.forward(x.permute([0, 2, 3, 4, 1])).permute([0, 4, 1, 2, 3])
}

/// A depthwise convolution that sees only visible cells, then a pointwise net; both residual.
#[derive(Module, Debug)]
struct ConvBlock {
    norm1: LayerNorm,
    conv1: Conv3d,
    /// The depthwise convolution; the published name says "attention".
    attn: Conv3d,
    conv2: Conv3d,
    norm2: LayerNorm,
    mlp: ConvMlp,
}

#[derive(Module, Debug)]
struct ConvMlp {
    fc1: Conv3d,
    fc2: Conv3d,
}

impl ConvBlock {
    fn new(channels: usize, init: &mut Init) -> Self {
        let pointwise = |inputs, outputs, init: &mut Init| Conv3dConfig::pointwise(inputs, outputs).init(init);
        Self {
            norm1: LayerNormConfig::new(channels).init(init),
            conv1: pointwise(channels, channels, init),
            attn: Conv3dConfig::depthwise(channels, 5).init(init),
            conv2: pointwise(channels, channels, init),
            norm2: LayerNormConfig::new(channels).init(init),
            mlp: ConvMlp { fc1: pointwise(channels, 4 * channels, init), fc2: pointwise(4 * channels, channels, init) },
        }
    }

    fn forward(&self, x: Tensor<5>, active: &VisibleCells) -> Tensor<5> {
        let seen = active.mask(self.conv1.forward(channel_norm(&self.norm1, x.clone())));
        let x = x + self.conv2.forward(self.attn.forward(seen));
        let hidden = ops::gelu(self.mlp.fc1.forward(channel_norm(&self.norm2, x.clone())));
        x + self.mlp.fc2.forward(hidden)
    }
}

/// Attention among tokens, then a net of each; both residual.
#[derive(Module, Debug)]
struct TransformerBlock {
    norm1: LayerNorm,
    attn: Attention,
    norm2: LayerNorm,
    mlp: Mlp,
}

#[derive(Module, Debug)]
struct Attention {
    qkv: Linear,
    proj: Linear,
    heads: usize,
}

#[derive(Module, Debug)]
struct Mlp {
    fc1: Linear,
    fc2: Linear,
}

impl TransformerBlock {
    fn new(channels: usize, heads: usize, init: &mut Init) -> Self {
        Self {
            norm1: LayerNormConfig::new(channels).with_eps(1e-6).init(init),
            attn: Attention {
                qkv: LinearConfig::new(channels, 3 * channels).init(init),
                proj: LinearConfig::new(channels, channels).init(init),
                heads,
            },
            norm2: LayerNormConfig::new(channels).with_eps(1e-6).init(init),
            mlp: Mlp {
                fc1: LinearConfig::new(channels, 4 * channels).init(init),
                fc2: LinearConfig::new(4 * channels, channels).init(init),
            },
        }
    }

    /// x `[B, N, C]` -> the same shape.
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let channels = x.dims()[2];
        let qkv = self.attn.qkv.forward(self.norm1.forward(x.clone()));
        let (q, key_value) = (qkv.clone().narrow(2, 0, channels), qkv.narrow(2, channels, 2 * channels));
        let scale = 1.0 / ((channels / self.attn.heads) as f64).sqrt();
        let x = x + self.attn.proj.forward(ops::attention(q, key_value, self.attn.heads, scale));
        let hidden = ops::gelu(self.mlp.fc1.forward(self.norm2.forward(x.clone())));
        x + self.mlp.fc2.forward(hidden)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden;

    #[test]
    fn positions_of_tokens() {
        let device = Device::flex();
        let table = positions(384, &device).into_data().try_to_vec::<f32>().unwrap();
        let mean = table.iter().map(|&v| f64::from(v)).sum::<f64>() / table.len() as f64;
        assert!((mean - 0.5013260).abs() < 1e-6);
        for (index, expected) in [(11_849, 1.0), (27_648, 0.909_297), (41_472, 0.141_120), (69_120, -0.958_924)] {
            assert!((table[index] - expected).abs() < 1e-6, "{index}");
        }
    }

    #[test]
    fn golden_values() {
        let device = Device::flex();
        let net = golden::fill(Mim::new(&mut Init::new(0, &device)), &[]);
        let x = (golden::input([1, 1, SIDE, SIDE, SIDE], &device) + 1.0) / 2.0;
        let noise: Vec<f64> = golden::stream("mask").take(TOKENS).collect();
        let visible = Visible::smallest(&[noise], 86);
        let masked: Vec<usize> =
            visible.masked().iter().enumerate().filter(|(_, masked)| **masked).map(|(i, _)| i).take(10).collect();
        assert_eq!(masked, [0, 4, 5, 6, 7, 8, 10, 14, 15, 16]);
        let latent = net.encode(x.clone(), &visible);
        let probes = [(0, 0.698913), (4717, 0.694237), (11_008, -2.470852), (33_023, -0.162909)];
        golden::check(latent.clone(), 0.0000938, 1.0046709, probes, 1e-4);
        let prediction = net.paint(net.decode(latent, &visible));
        let probes = [(0, 0.965821), (126_390, 0.424552), (442_368, 0.948324), (884_735, -0.173273)];
        golden::check(prediction.clone(), 0.0391993, 1.0145595, probes, 1e-4);
        let loss = f64::from(reconstruction_error(prediction, x, &visible).into_scalar::<f32>());
        assert!((loss - 2.0251479).abs() < 1e-4, "{loss}");
    }

    #[test]
    fn the_encoder_has_the_published_number_of_parameters() {
        let net = Mim::new(&mut Init::new(0, &Device::flex()));
        let decoder = [
            net.decoder_embed.num_params(),
            net.mask_token.shape().num_elements(),
            net.decoder_blocks.iter().map(Module::num_params).sum(),
            net.decoder_norm.num_params(),
            net.decoder_pred.num_params(),
        ];
        // The published number counts the fixed positions of the tokens.
        let encoder = net.num_params() - decoder.iter().sum::<usize>() + TOKENS * CHANNELS[3];
        assert_eq!(encoder, 33_974_544);
    }

    #[test]
    fn nothing_masked_influences_the_latent() {
        let device = Device::flex();
        let net = Mim::new(&mut Init::new(5, &device));
        let numbers: Vec<f64> = (0..TOKENS).map(|i| ((i * 37) % TOKENS) as f64).collect();
        let visible = Visible::smallest(&[numbers], 20);
        let x = golden::input([1, 1, SIDE, SIDE, SIDE], &device);
        let seen = visible.active(&device).mask(x.clone());
        let latent = |x| net.encode(x, &visible).into_data();
        latent(x.clone()).assert_eq(&latent(seen.clone() + (x - seen) * 7.0), true);
    }
}
