//! The four transformer stages.

use burn::module::Module;
use burn::tensor::Tensor;

use super::{AttentionScale, SegFormer3dConfig};
use crate::layers::visible::VisibleCells;
use crate::layers::{
    Conv3d, Conv3dConfig, Init, LayerNorm, LayerNormConfig, Linear, LinearConfig, SpaceNorm, SpaceNormConfig,
};
use crate::ops;

/// Keys and values of each stage's attention are reduced by this factor along every axis.
const REDUCTION: [usize; 4] = [4, 2, 1, 1];

/// Four stages of patch embedding and transformer blocks.
#[derive(Module, Debug)]
pub struct SegFormerEncoder {
    embed_1: OverlapPatchEmbed,
    embed_2: OverlapPatchEmbed,
    embed_3: OverlapPatchEmbed,
    embed_4: OverlapPatchEmbed,
    tf_block1: Vec<SegFormerBlock>,
    tf_block2: Vec<SegFormerBlock>,
    tf_block3: Vec<SegFormerBlock>,
    tf_block4: Vec<SegFormerBlock>,
    norm1: LayerNorm,
    norm2: LayerNorm,
    norm3: LayerNorm,
    norm4: LayerNorm,
}

impl SegFormerEncoder {
    pub(super) fn new(config: &SegFormer3dConfig, init: &mut Init) -> Self {
        let dims = config.embed_dims;
        let mut blocks = |stage: usize| -> Vec<SegFormerBlock> {
            (0..config.depths[stage]).map(|_| SegFormerBlock::new(config, stage, init)).collect()
        };
        let (tf_block1, tf_block2, tf_block3, tf_block4) = (blocks(0), blocks(1), blocks(2), blocks(3));
        Self {
            embed_1: OverlapPatchEmbed::new(config.in_channels, dims[0], 7, 4, init),
            embed_2: OverlapPatchEmbed::new(dims[0], dims[1], 3, 2, init),
            embed_3: OverlapPatchEmbed::new(dims[1], dims[2], 3, 2, init),
            embed_4: OverlapPatchEmbed::new(dims[2], dims[3], 3, 2, init),
            tf_block1,
            tf_block2,
            tf_block3,
            tf_block4,
            norm1: LayerNormConfig::new(dims[0]).init(init),
            norm2: LayerNormConfig::new(dims[1]).init(init),
            norm3: LayerNormConfig::new(dims[2]).init(init),
            norm4: LayerNormConfig::new(dims[3]).init(init),
        }
    }

    /// Tokens of the four stages, finest first. With `visible`, they are computed from visible
    /// cells only and are zero in hidden ones.
    ///
    /// # Shapes
    /// x `[B, in_channels, D, H, W]` -> `[B, N, embed_dims[s]]` on grids of strides 4, 8, 16 and 32
    pub fn forward(&self, x: Tensor<5>, visible: Option<&VisibleCells>) -> [Tokens; 4] {
        let stage = |x: Tensor<5>, embed: &OverlapPatchEmbed, blocks: &[SegFormerBlock], norm: &LayerNorm| {
            let tokens = embed.forward(x).masked(visible);
            let tokens = blocks.iter().fold(tokens, |tokens, block| block.forward(tokens, visible));
            tokens.map(|x| norm.forward(x)).masked(visible)
        };
        let first = stage(x, &self.embed_1, &self.tf_block1, &self.norm1);
        let second = stage(first.clone().into_volume(), &self.embed_2, &self.tf_block2, &self.norm2);
        let third = stage(second.clone().into_volume(), &self.embed_3, &self.tf_block3, &self.norm3);
        let fourth = stage(third.clone().into_volume(), &self.embed_4, &self.tf_block4, &self.norm4);
        [first, second, third, fourth]
    }
}

/// A feature map as a sequence of tokens, one per voxel of its grid.
#[derive(Debug, Clone)]
pub struct Tokens {
    /// `[B, N, C]` with N the product of `grid`.
    pub x: Tensor<3>,
    /// `[D, H, W]`.
    pub grid: [usize; 3],
}

impl Tokens {
    /// The tokens of x `[B, C, D, H, W]`.
    pub fn from_volume(x: Tensor<5>) -> Self {
        let [batch, channels, depth, height, width] = x.dims();
        Self { x: ops::channels_last(x, [batch, depth * height * width, channels]), grid: [depth, height, width] }
    }

    /// The feature map `[B, C, D, H, W]`.
    pub fn into_volume(self) -> Tensor<5> {
        ops::channels_first(self.x, self.grid)
    }

    /// The tokens with zeros in hidden cells.
    fn masked(self, visible: Option<&VisibleCells>) -> Self {
        let grid = self.grid;
        match visible {
            Some(visible) => self.map(|x| visible.mask_tokens(x, grid)),
            None => self,
        }
    }

    /// Tokens on the same grid, whose number of channels may change.
    pub fn map(self, f: impl FnOnce(Tensor<3>) -> Tensor<3>) -> Self {
        Self { x: f(self.x), grid: self.grid }
    }
}

/// Strided convolution with overlapping kernels, and a layer norm.
#[derive(Module, Debug)]
struct OverlapPatchEmbed {
    patch_embeddings: Conv3d,
    norm: LayerNorm,
}

impl OverlapPatchEmbed {
    fn new(inputs: usize, outputs: usize, kernel: usize, stride: usize, init: &mut Init) -> Self {
        Self {
            patch_embeddings: Conv3dConfig::new(inputs, outputs, kernel).with_stride(stride).init(init),
            norm: LayerNormConfig::new(outputs).init(init),
        }
    }

    fn forward(&self, x: Tensor<5>) -> Tokens {
        Tokens::from_volume(self.patch_embeddings.forward(x)).map(|x| self.norm.forward(x))
    }
}

/// Transformer block: attention and feed-forward net, both residual with pre-norm.
#[derive(Module, Debug)]
struct SegFormerBlock {
    norm1: LayerNorm,
    attention: ReducedAttention,
    norm2: LayerNorm,
    mlp: MixFfn,
}

impl SegFormerBlock {
    fn new(config: &SegFormer3dConfig, stage: usize, init: &mut Init) -> Self {
        let channels = config.embed_dims[stage];
        Self {
            norm1: LayerNormConfig::new(channels).init(init),
            attention: ReducedAttention::new(config, stage, init),
            norm2: LayerNormConfig::new(channels).init(init),
            mlp: MixFfn::new(config, stage, init),
        }
    }

    fn forward(&self, tokens: Tokens, visible: Option<&VisibleCells>) -> Tokens {
        let grid = tokens.grid;
        let tokens = tokens.map(|x| {
            let normed = Tokens { x: self.norm1.forward(x.clone()), grid };
            x + self.attention.forward(normed, visible)
        });
        let tokens = tokens.map(|x| {
            let normed = Tokens { x: self.norm2.forward(x.clone()), grid };
            x + self.mlp.forward(normed, visible)
        });
        tokens.masked(visible)
    }
}

/// Multi-head attention with keys and values on a reduced grid.
#[derive(Module, Debug)]
struct ReducedAttention {
    query: Linear,
    key_value: Linear,
    proj: Linear,
    sr: Option<Conv3d>,
    sr_norm: Option<LayerNorm>,
    heads: usize,
    divisor: f64,
}

impl ReducedAttention {
    fn new(config: &SegFormer3dConfig, stage: usize, init: &mut Init) -> Self {
        let (channels, heads, reduction) = (config.embed_dims[stage], config.heads[stage], REDUCTION[stage]);
        assert_eq!(channels % heads, 0, "{channels} channels of stage {stage} are no multiple of {heads} heads");
        let divisor = match config.attention_scale {
            AttentionScale::Heads => heads,
            AttentionScale::HeadDim => channels / heads,
        };
        Self {
            query: LinearConfig::new(channels, channels).init(init),
            key_value: LinearConfig::new(channels, 2 * channels).init(init),
            proj: LinearConfig::new(channels, channels).init(init),
            sr: (reduction > 1).then(|| Conv3dConfig::patches(channels, channels, reduction).init(init)),
            sr_norm: (reduction > 1).then(|| LayerNormConfig::new(channels).init(init)),
            heads,
            divisor: (divisor as f64).sqrt(),
        }
    }

    fn forward(&self, tokens: Tokens, visible: Option<&VisibleCells>) -> Tensor<3> {
        let query = self.query.forward(tokens.x.clone());
        let reduced = match (&self.sr, &self.sr_norm) {
            (Some(conv), Some(norm)) => {
                Tokens::from_volume(conv.forward(tokens.masked(visible).into_volume())).map(|x| norm.forward(x))
            }
            _ => tokens,
        };
        let grid = reduced.grid;
        let reduced = match visible {
            Some(visible) => visible.gather_tokens(reduced.x, grid),
            None => reduced.x,
        };
        // The channels of `key_value` are ordered as [key or value, head, channel of the head].
        let mixed = ops::attention(query, self.key_value.forward(reduced), self.heads, 1.0 / self.divisor);
        self.proj.forward(mixed)
    }
}

/// Mix-FFN: a feed-forward net with a depthwise convolution between its linear layers.
#[derive(Module, Debug)]
struct MixFfn {
    fc1: Linear,
    dwconv: DepthwiseConvNorm,
    fc2: Linear,
}

#[derive(Module, Debug)]
struct DepthwiseConvNorm {
    dwconv: Conv3d,
    bn: SpaceNorm,
}

impl MixFfn {
    fn new(config: &SegFormer3dConfig, stage: usize, init: &mut Init) -> Self {
        let channels = config.embed_dims[stage];
        let hidden = 4 * channels;
        Self {
            fc1: LinearConfig::new(channels, hidden).init(init),
            dwconv: DepthwiseConvNorm {
                dwconv: Conv3dConfig::depthwise(hidden, 3).init(init),
                bn: SpaceNormConfig::new(hidden, config.statistics).init(init),
            },
            fc2: LinearConfig::new(hidden, channels).init(init),
        }
    }

    fn forward(&self, tokens: Tokens, visible: Option<&VisibleCells>) -> Tensor<3> {
        let volume = tokens.map(|x| self.fc1.forward(x)).masked(visible).into_volume();
        let DepthwiseConvNorm { dwconv, bn } = &self.dwconv;
        let volume = match visible {
            Some(visible) => visible.norm(bn, visible.mask(dwconv.forward(volume))),
            None => dwconv.forward_normed(volume, bn),
        };
        self.fc2.forward(Tokens::from_volume(ops::gelu(volume)).x)
    }
}
