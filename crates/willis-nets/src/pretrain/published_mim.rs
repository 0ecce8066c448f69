//! The published net of MiM with the authors' golden values, run through the masks, the mask tokens
//! and the loss of `pretrain`. Our pre-training puts other encoders and decoders in the net's
//! place.
//!
//! Letters: B batch, T tokens (216 of 16³ voxels), V visible tokens, C channels.
//!
//! Source: Zhuang et al., IEEE TMI 44(9), 2025, arXiv:2404.15580, and the behaviour of the authors'
//! code.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, TensorData};

use super::crops::mask_smallest;
use super::spark::{from_cells, masked_cell_error};
use crate::golden;
use crate::layers::visible::VisibleCells;
use crate::layers::{Conv3d, Conv3dConfig, Init, LayerNorm, LayerNormConfig, Linear, LinearConfig};
use crate::ops;

/// Side of a cube, voxels.
const SIDE: usize = 96;
/// Side of a token, voxels.
const TOKEN: usize = 16;
/// Tokens along an axis.
const GRID: usize = SIDE / TOKEN;
/// Tokens of a cube, T.
const TOKENS: usize = GRID * GRID * GRID;
/// Channels of the encoder's stages.
const CHANNELS: [usize; 4] = [48, 96, 192, 384];
/// Attention heads of the encoder.
const HEADS: usize = 12;
/// Channels of the decoder.
const DECODER_CHANNELS: usize = 576;
/// Attention heads of the decoder.
const DECODER_HEADS: usize = 16;

/// The net, under the names of the official state dict.
#[derive(Module, Debug)]
struct PublishedMim {
    patch_embed1: MimPatchEmbed,
    patch_embed2: MimPatchEmbed,
    patch_embed3: MimPatchEmbed,
    patch_embed4: MimPatchEmbed,
    patch_embed5: Linear,
    stage1_output_decode: Conv3d,
    stage2_output_decode: Conv3d,
    stage3_output_decode: Conv3d,
    blocks1: Vec<MimConvBlock>,
    blocks2: Vec<MimConvBlock>,
    blocks3: Vec<MimConvBlock>,
    blocks4: Vec<MimTransformerBlock>,
    norm: LayerNorm,
    decoder_embed: Linear,
    mask_token: Param<Tensor<3>>,
    decoder_blocks: Vec<MimTransformerBlock>,
    decoder_norm: LayerNorm,
    decoder_pred: Linear,
}

impl PublishedMim {
    fn new(init: &mut Init) -> Self {
        let embed = |i: usize, init: &mut Init| {
            let inputs = if i == 0 { 1 } else { CHANNELS[i - 1] };
            MimPatchEmbed {
                proj: Conv3dConfig::patches(inputs, CHANNELS[i], 2).init(init),
                norm: LayerNormConfig::new(CHANNELS[i]).init(init),
            }
        };
        let fuse = |i: usize, init: &mut Init| Conv3dConfig::patches(CHANNELS[i], CHANNELS[3], 8 >> i).init(init);
        let blocks = |i: usize, init: &mut Init| (0..2).map(|_| MimConvBlock::new(CHANNELS[i], init)).collect();
        let transformer = |count: usize, channels: usize, heads: usize, init: &mut Init| {
            (0..count).map(|_| MimTransformerBlock::new(channels, heads, init)).collect()
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

    /// Features of the visible tokens in their order: x `[B, 1, 96, 96, 96]` -> `[B, V, 384]`.
    fn encode(&self, x: Tensor<5>, visible: &VisibleCells) -> Tensor<3> {
        let device = x.device().inner();
        let stage = |embed: &MimPatchEmbed, blocks: &[MimConvBlock], x| {
            blocks.iter().fold(embed.forward(x), |x, block| block.forward(x, visible))
        };
        let gather = |tokens| visible.gather_tokens(tokens, [GRID; 3]);
        let first = stage(&self.patch_embed1, &self.blocks1, x);
        let second = stage(&self.patch_embed2, &self.blocks2, first.clone());
        let third = stage(&self.patch_embed3, &self.blocks3, second.clone());
        let tokens = self.patch_embed5.forward(to_tokens(self.patch_embed4.forward(third.clone())));
        let tokens = gather(tokens + positions(CHANNELS[3], &device));
        let tokens = self.blocks4.iter().fold(tokens, |x, block| block.forward(x));
        let fused = to_tokens(self.stage1_output_decode.forward(first))
            + to_tokens(self.stage2_output_decode.forward(second))
            + to_tokens(self.stage3_output_decode.forward(third));
        self.norm.forward(tokens + gather(fused))
    }

    /// Standardised voxels of every token: features of the visible tokens of one cube
    /// `[1, V, 384]`, and the numbers of these tokens -> `[1, T, 4096]`.
    fn decode(&self, features: Tensor<3>, visible: &VisibleCells, numbers: &[usize]) -> Tensor<3> {
        let device = features.device().inner();
        // A one-hot matrix puts the visible tokens in their places.
        let mut places = vec![0.0f32; TOKENS * numbers.len()];
        numbers.iter().enumerate().for_each(|(row, token)| places[token * numbers.len() + row] = 1.0);
        let places = Tensor::<3>::from_data(TensorData::new(places, [1, TOKENS, numbers.len()]), &device);
        let placed = ops::channels_first(places.matmul(self.decoder_embed.forward(features)), [GRID; 3]);
        let token = self.mask_token.val().reshape([1, DECODER_CHANNELS, 1, 1, 1]);
        let tokens = to_tokens(visible.fill_hidden(placed, token)) + positions(DECODER_CHANNELS, &device);
        let tokens = self.decoder_blocks.iter().fold(tokens, |x, block| block.forward(x));
        self.decoder_pred.forward(self.decoder_norm.forward(tokens))
    }
}

/// `[B, C, D, H, W]` -> `[B, D H W, C]`.
fn to_tokens(x: Tensor<5>) -> Tensor<3> {
    let [batch, channels, depth, height, width] = x.dims();
    x.reshape([batch, channels, depth * height * width]).swap_dims(1, 2)
}

/// Sine-cosine positions of every token: a third of the channels per axis, `[1, T, C]`.
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

/// Convolution of 2x2x2 blocks, layer norm over channels, GELU.
#[derive(Module, Debug)]
struct MimPatchEmbed {
    proj: Conv3d,
    norm: LayerNorm,
}

impl MimPatchEmbed {
    fn forward(&self, x: Tensor<5>) -> Tensor<5> {
        ops::gelu(channel_norm(&self.norm, self.proj.forward(x)))
    }
}

/// Layer norm over the channels of `[B, C, D, H, W]`.
fn channel_norm(norm: &LayerNorm, x: Tensor<5>) -> Tensor<5> {
    norm.forward(x.permute([0, 2, 3, 4, 1])).permute([0, 4, 1, 2, 3])
}

/// A depthwise convolution of visible cells, then a pointwise net; both residual.
#[derive(Module, Debug)]
struct MimConvBlock {
    norm1: LayerNorm,
    conv1: Conv3d,
    /// The depthwise convolution; the name is the state dict's.
    attn: Conv3d,
    conv2: Conv3d,
    norm2: LayerNorm,
    mlp: MimConvMlp,
}

#[derive(Module, Debug)]
struct MimConvMlp {
    fc1: Conv3d,
    fc2: Conv3d,
}

impl MimConvBlock {
    fn new(channels: usize, init: &mut Init) -> Self {
        let pointwise = |inputs, outputs, init: &mut Init| Conv3dConfig::pointwise(inputs, outputs).init(init);
        let mlp = |init: &mut Init| MimConvMlp {
            fc1: pointwise(channels, 4 * channels, init),
            fc2: pointwise(4 * channels, channels, init),
        };
        Self {
            norm1: LayerNormConfig::new(channels).init(init),
            conv1: pointwise(channels, channels, init),
            attn: Conv3dConfig::depthwise(channels, 5).init(init),
            conv2: pointwise(channels, channels, init),
            norm2: LayerNormConfig::new(channels).init(init),
            mlp: mlp(init),
        }
    }

    fn forward(&self, x: Tensor<5>, visible: &VisibleCells) -> Tensor<5> {
        let masked = visible.mask(self.conv1.forward(channel_norm(&self.norm1, x.clone())));
        let x = x + self.conv2.forward(self.attn.forward(masked));
        let hidden = ops::gelu(self.mlp.fc1.forward(channel_norm(&self.norm2, x.clone())));
        x + self.mlp.fc2.forward(hidden)
    }
}

/// Attention among tokens, then a net of each; both residual.
#[derive(Module, Debug)]
struct MimTransformerBlock {
    norm1: LayerNorm,
    attn: MimAttention,
    norm2: LayerNorm,
    mlp: MimMlp,
}

#[derive(Module, Debug)]
struct MimAttention {
    qkv: Linear,
    proj: Linear,
    heads: usize,
}

#[derive(Module, Debug)]
struct MimMlp {
    fc1: Linear,
    fc2: Linear,
}

impl MimTransformerBlock {
    fn new(channels: usize, heads: usize, init: &mut Init) -> Self {
        let linear = |inputs, outputs, init: &mut Init| LinearConfig::new(inputs, outputs).init(init);
        let norm = |init: &mut Init| LayerNormConfig::new(channels).with_eps(1e-6).init(init);
        let (qkv, proj) = (linear(channels, 3 * channels, init), linear(channels, channels, init));
        Self {
            norm1: norm(init),
            attn: MimAttention { qkv, proj, heads },
            norm2: norm(init),
            mlp: MimMlp { fc1: linear(channels, 4 * channels, init), fc2: linear(4 * channels, channels, init) },
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

#[test]
fn masks_and_loss_equal_the_official_implementation() {
    let device = Device::flex();
    let net = golden::fill(PublishedMim::new(&mut Init::new(0, &device)), &[]);
    let x = (golden::input([1, 1, SIDE, SIDE, SIDE], &device) + 1.0) / 2.0;
    // The official code keeps the 86 tokens with the smallest numbers and masks the others.
    let numbers: Vec<u64> = golden::keys("mask").take(TOKENS).collect();
    let flags = mask_smallest(numbers.iter().map(|number| u64::MAX - number), TOKENS - 86);
    let masked: Vec<usize> = (0..TOKENS).filter(|&token| !flags[token]).take(10).collect();
    assert_eq!(masked, [0, 4, 5, 6, 7, 8, 10, 14, 15, 16]);
    let visible = VisibleCells::new(&flags, 1, [GRID; 3], &device);
    let kept: Vec<usize> = (0..TOKENS).filter(|&token| flags[token]).collect();

    let features = net.encode(x.clone(), &visible);
    // The official code has the visible tokens in ascending order of their numbers.
    let mut order: Vec<usize> = (0..kept.len()).collect();
    order.sort_by_key(|&row| numbers[kept[row]]);
    let values: Vec<f32> = features.to_data().try_to_vec().unwrap();
    let sorted: Vec<f32> = order.iter().flat_map(|row| &values[row * CHANNELS[3]..][..CHANNELS[3]]).copied().collect();
    let sorted = Tensor::<1>::from_floats(sorted.as_slice(), &device);
    let probes = [(0, 0.698913), (4717, 0.694237), (11_008, -2.470852), (33_023, -0.162909)];
    golden::check(sorted, 0.0000938, 1.0046709, probes, 1e-4);

    let prediction = net.decode(features, &visible, &kept);
    let probes = [(0, 0.965821), (126_390, 0.424552), (442_368, 0.948324), (884_735, -0.173273)];
    golden::check(prediction.clone(), 0.0391993, 1.0145595, probes, 1e-4);
    let reconstruction = from_cells(prediction.reshape([TOKENS, TOKEN.pow(3)]), [1, 1, SIDE, SIDE, SIDE], TOKEN);
    let loss = f64::from(masked_cell_error(reconstruction, x, &visible, TOKEN).into_scalar::<f32>());
    assert!((loss - 2.0251479).abs() < 1e-4, "{loss}");
}
