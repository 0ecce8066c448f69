"""WaveFormer in PyTorch, written from the paper (Al Hasan et al., MICCAI 2025), to compare with ours.

The three errors of the published code are corrected, as in `quirks: fixed`. A net takes inputs of one
size.
"""

import torch
import torch.nn.functional as F
from torch import nn

C = 48
LEVELS = [3, 2, 1, 0]


def haar(x):
    """[B, D, H, W, C] -> low-pass part and seven detail sub-bands."""
    parts = [x]
    for axis in (1, 2, 3):
        split = []
        for part in parts:
            pairs = part.unflatten(axis, (-1, 2))
            even, odd = pairs.select(axis + 1, 0), pairs.select(axis + 1, 1)
            split += [(even + odd) * 0.5**0.5, (even - odd) * 0.5**0.5]
        parts = split
    return parts[0], parts[1:]


def unhaar(low, details):
    parts = [low] + list(details)
    for axis in (3, 2, 1):
        joined = []
        for a, d in zip(parts[::2], parts[1::2]):
            joined.append(torch.stack([(a + d) * 0.5**0.5, (a - d) * 0.5**0.5], axis + 1).flatten(axis, axis + 1))
        parts = joined
    return parts[0]


def first(x):
    return x.permute(0, 4, 1, 2, 3)


def last(x):
    return x.permute(0, 2, 3, 4, 1)


class Conv(nn.Module):
    def __init__(self, *args, transposed=False, **keys):
        super().__init__()
        self.conv = (nn.ConvTranspose3d if transposed else nn.Conv3d)(*args, **keys)

    def forward(self, x):
        return self.conv(x)


class WindowAttention(nn.Module):
    def __init__(self, dim, window):
        super().__init__()
        self.heads, self.window = dim // 16, window
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 3, self.heads))
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        place = torch.stack(torch.meshgrid(*[torch.arange(window)] * 3, indexing="ij")).flatten(1)
        away = place[:, :, None] - place[:, None, :] + window - 1
        side = 2 * window - 1
        self.index = (away[0] * side + away[1]) * side + away[2]

    def forward(self, x):
        b, d, h, w, c = x.shape
        s = self.window
        n = [d // s, h // s, w // s]
        windows = x.view(b, n[0], s, n[1], s, n[2], s, c).permute(0, 1, 3, 5, 2, 4, 6, 7).reshape(-1, s**3, c)
        q, k, v = self.qkv(windows).unflatten(2, (3, self.heads, 16)).permute(2, 0, 3, 1, 4)
        bias = self.relative_position_bias_table[self.index].permute(2, 0, 1)[None]
        o = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        o = self.proj(o.transpose(1, 2).flatten(2))
        return o.view(b, *n, s, s, s, c).permute(0, 1, 4, 2, 5, 3, 6, 7).reshape(b, d, h, w, c)


class FeedForward(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.pwconv, self.dwconv = nn.Conv3d(dim, 4 * dim, 1), nn.Conv3d(4 * dim, 4 * dim, 3, padding=1, groups=4 * dim)
        self.norm1, self.norm2, self.fc = nn.LayerNorm(4 * dim), nn.LayerNorm(4 * dim), nn.Linear(4 * dim, dim)

    def forward(self, z):
        h = F.gelu(self.norm1(last(self.pwconv(first(z)))))
        h = F.gelu(self.norm2(last(self.dwconv(first(h)))))
        return self.fc(h)


class Block(nn.Module):
    def __init__(self, dim, window, levels):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim, 1e-6), nn.LayerNorm(dim, 1e-6)
        self.attn, self.mlp, self.levels = WindowAttention(dim, window), FeedForward(dim), levels

    def forward(self, x):
        y, total, details = self.norm1(x), 0, []
        for _ in range(max(self.levels, 1)):
            if self.levels:
                y, high = haar(y)
                details.append(high)
            o = self.attn(y)
            total = total + (last(F.interpolate(first(o), x.shape[1:4], mode="trilinear")) if self.levels else o)
        x = x + total
        z = self.norm2(x)
        return x + z + self.mlp(z), details[::-1]


class Merging(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.reduction, self.norm = nn.Linear(8 * dim, 2 * dim, bias=False), nn.LayerNorm(8 * dim, 1e-6)

    def forward(self, x):
        b, d, h, w, c = x.shape
        x = x.view(b, d // 2, 2, h // 2, 2, w // 2, 2, c).permute(0, 1, 3, 5, 2, 4, 6, 7).flatten(4)
        return self.reduction(self.norm(x))


class Embed(nn.Module):
    def __init__(self, inputs):
        super().__init__()
        self.proj = nn.Conv3d(inputs, C, 2, 2)


class Encoder(nn.Module):
    def __init__(self, inputs, side):
        super().__init__()
        self.patch_embed = Embed(inputs)
        for s in range(4):
            blocks = nn.ModuleList([Block(C << s, side // 16, LEVELS[s]) for _ in range(2)])
            setattr(self, f"block{s + 1}", blocks)
            if s:
                setattr(self, f"downsample_{s}", Merging(C << (s - 1)))

    def forward(self, x):
        x, stages = last(self.patch_embed.proj(x)), []
        for s in range(4):
            if s:
                x = getattr(self, f"downsample_{s}")(x)
            for block in getattr(self, f"block{s + 1}"):
                x, details = block(x)
            stages.append((first(F.layer_norm(x, x.shape[-1:])), details))
        return stages


class Res(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.conv1 = Conv(inputs, outputs, 3, padding=1, bias=False)
        self.conv2 = Conv(outputs, outputs, 3, padding=1, bias=False)
        if inputs != outputs:
            self.conv3 = Conv(inputs, outputs, 1, bias=False)

    def forward(self, x):
        h = F.leaky_relu(F.instance_norm(self.conv1(x)), 0.01)
        h = F.instance_norm(self.conv2(h))
        shortcut = F.instance_norm(self.conv3(x)) if hasattr(self, "conv3") else x
        return F.leaky_relu(h + shortcut, 0.01)


class Layer(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.layer = Res(inputs, outputs)

    def forward(self, x):
        return self.layer(x)


class Calibration(nn.Module):
    def __init__(self, dim):
        super().__init__()
        narrow = dim // 4
        self.reduce, self.conv, self.expand = nn.Conv3d(dim, narrow, 1), nn.Conv3d(narrow, narrow, 3, padding=1), nn.Conv3d(narrow, dim, 1)
        self.residual, self.fc1, self.fc2 = nn.Conv3d(dim, dim, 1), nn.Linear(dim, narrow), nn.Linear(narrow, dim)

    def forward(self, x):
        h = F.relu(F.instance_norm(self.reduce(x)))
        h = F.instance_norm(self.expand(F.relu(F.instance_norm(self.conv(h)))))
        gate = torch.sigmoid(self.fc2(F.relu(self.fc1(h.mean((2, 3, 4))))))
        return F.relu(h * gate[:, :, None, None, None] + self.residual(x))


class WaveletDecoder(nn.Module):
    def __init__(self, bottleneck, dim):
        super().__init__()
        self.conv_lf_block, self.conv_block = Conv(bottleneck, dim, 3, padding=1, bias=False), Res(2 * dim, dim)

    def forward(self, z, details, skip):
        low = last(self.conv_lf_block(z))
        for level in details:
            low = unhaar(low, level)
        return self.conv_block(torch.cat([first(low), skip], 1))


class Up(nn.Module):
    def __init__(self, dim, factor, deep):
        super().__init__()
        large = lambda: nn.Upsample(scale_factor=factor, mode="trilinear", align_corners=True)
        self.conv1 = nn.Sequential(large(), nn.Conv3d(dim, dim, 3, padding=1, groups=dim))
        self.norm, self.conv2 = nn.GroupNorm(dim, dim), nn.Conv3d(dim, 2 * dim, 1)
        mix = nn.Conv3d(2 * dim, dim if deep else C, 1)
        self.conv3 = nn.Sequential(mix, nn.GELU(), nn.Conv3d(dim, C, 1)) if deep else mix
        self.res_conv = nn.Sequential(large(), nn.Conv3d(dim, C, 1))

    def forward(self, x):
        return self.conv3(F.gelu(self.conv2(self.norm(self.conv1(x))))) + self.res_conv(x)


class Full(nn.Module):
    def __init__(self):
        super().__init__()
        self.transp_conv, self.conv_block = Conv(3 * C, C, 2, 2, bias=False, transposed=True), Res(2 * C, C)

    def forward(self, x, skip):
        return self.conv_block(torch.cat([self.transp_conv(x), skip], 1))


class Out(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.conv = Conv(C, classes, 1)


class WaveFormer(nn.Module):
    def __init__(self, side, inputs=4, classes=4):
        super().__init__()
        self.waveformer_encoder, self.encoder1, self.encoder10 = Encoder(inputs, side), Layer(inputs, C), Calibration(8 * C)
        for s in range(3):
            setattr(self, f"encoder{s + 2}", Layer(C << s, C << s))
            setattr(self, f"decoder{s + 2}", WaveletDecoder(8 * C, C << s))
        self.learnable_up3, self.learnable_up4 = Up(2 * C, 2, False), Up(4 * C, 4, True)
        self.decoder1, self.out = Full(), Out(classes)

    def forward(self, x):
        stages = self.waveformer_encoder(x)
        z = self.encoder10(stages[3][0])
        decoded = []
        for s in range(3):
            features, details = stages[s]
            decoded.append(getattr(self, f"decoder{s + 2}")(z, details, getattr(self, f"encoder{s + 2}")(features)))
        joined = torch.cat([self.learnable_up4(decoded[2]), self.learnable_up3(decoded[1]), decoded[0]], 1)
        return self.out.conv(self.decoder1(joined, self.encoder1(x)))
