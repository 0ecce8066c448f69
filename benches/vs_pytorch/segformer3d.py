"""SegFormer3D in PyTorch, written from the paper (Perera et al., CVPR-W 2024), to compare with ours."""

import torch
import torch.nn.functional as F
from torch import nn

DIMS, HEADS, REDUCTION, DECODER = [32, 64, 160, 256], [1, 2, 5, 8], [4, 2, 1, 1], 256


def to_volume(tokens, grid):
    return tokens.transpose(1, 2).unflatten(2, grid)


def to_tokens(volume):
    return volume.flatten(2).transpose(1, 2)


class PatchEmbed(nn.Module):
    def __init__(self, inputs, outputs, kernel, stride):
        super().__init__()
        self.patch_embeddings = nn.Conv3d(inputs, outputs, kernel, stride, kernel // 2)
        self.norm = nn.LayerNorm(outputs)

    def forward(self, x):
        x = self.patch_embeddings(x)
        return self.norm(to_tokens(x)), x.shape[2:]


class Attention(nn.Module):
    def __init__(self, dim, heads, reduction):
        super().__init__()
        self.heads = heads
        self.query, self.key_value, self.proj = nn.Linear(dim, dim), nn.Linear(dim, 2 * dim), nn.Linear(dim, dim)
        if reduction > 1:
            self.sr, self.sr_norm = nn.Conv3d(dim, dim, reduction, reduction), nn.LayerNorm(dim)

    def forward(self, x, grid):
        split = lambda t: t.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        q = split(self.query(x))
        if hasattr(self, "sr"):
            x = self.sr_norm(to_tokens(self.sr(to_volume(x, grid))))
        k, v = self.key_value(x).chunk(2, -1)
        # The published weights divide by the square root of the number of heads.
        mixed = F.scaled_dot_product_attention(q, split(k), split(v), scale=self.heads**-0.5)
        return self.proj(mixed.transpose(1, 2).flatten(2))


class Depthwise(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.dwconv, self.bn = nn.Conv3d(dim, dim, 3, padding=1, groups=dim), nn.BatchNorm3d(dim)


class MixFfn(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.fc1, self.fc2, self.dwconv = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim), Depthwise(4 * dim)

    def forward(self, x, grid):
        x = self.dwconv.bn(self.dwconv.dwconv(to_volume(self.fc1(x), grid)))
        return self.fc2(to_tokens(F.gelu(x)))


class Block(nn.Module):
    def __init__(self, dim, heads, reduction):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention, self.mlp = Attention(dim, heads, reduction), MixFfn(dim)

    def forward(self, x, grid):
        x = x + self.attention(self.norm1(x), grid)
        return x + self.mlp(self.norm2(x), grid)


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        inputs = [4] + DIMS
        for s in range(4):
            kernel, stride = (7, 4) if s == 0 else (3, 2)
            setattr(self, f"embed_{s + 1}", PatchEmbed(inputs[s], DIMS[s], kernel, stride))
            setattr(self, f"tf_block{s + 1}", nn.ModuleList([Block(DIMS[s], HEADS[s], REDUCTION[s]) for _ in range(2)]))
            setattr(self, f"norm{s + 1}", nn.LayerNorm(DIMS[s]))

    def forward(self, x):
        stages = []
        for s in range(1, 5):
            tokens, grid = getattr(self, f"embed_{s}")(x)
            for block in getattr(self, f"tf_block{s}"):
                tokens = block(tokens, grid)
            x = to_volume(getattr(self, f"norm{s}")(tokens), grid)
            stages.append(x)
        return stages


class Projection(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.proj, self.bn = nn.Linear(dim, DECODER), nn.LayerNorm(DECODER)


class Decoder(nn.Module):
    def __init__(self, classes):
        super().__init__()
        for s in range(4):
            setattr(self, f"linear_c{s + 1}", Projection(DIMS[s]))
        self.linear_fuse = nn.Sequential(nn.Conv3d(4 * DECODER, DECODER, 1, bias=False), nn.BatchNorm3d(DECODER))
        self.linear_pred = nn.Conv3d(DECODER, classes, 1)

    def forward(self, stages):
        parts = []
        for s in [4, 3, 2, 1]:
            project, volume = getattr(self, f"linear_c{s}"), stages[s - 1]
            tokens = project.bn(project.proj(to_tokens(volume)))
            volume = to_volume(tokens, volume.shape[2:])
            parts.append(volume if s == 1 else F.interpolate(volume, stages[0].shape[2:], mode="trilinear"))
        return self.linear_pred(F.relu(self.linear_fuse(torch.cat(parts, 1))))


class SegFormer3D(nn.Module):
    def __init__(self, classes=3):
        super().__init__()
        self.segformer_encoder, self.segformer_decoder = Encoder(), Decoder(classes)

    def forward(self, x):
        return F.interpolate(self.segformer_decoder(self.segformer_encoder(x)), x.shape[2:], mode="trilinear")
