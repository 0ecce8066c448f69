"""Times the operations of willis against those of PyTorch on the CPU and prints a Markdown table.

    python -m venv .venv && .venv/bin/pip install -r benches/vs_pytorch/requirements.txt
    .venv/bin/python benches/vs_pytorch/compare.py            # or a part of an operation's name

The Rust side is the bench program `vs_pytorch` of willis-nets, which this script builds. Both sides
get the same sizes, inputs and number of threads, and each is one process for the whole run. Every
operation is timed A B A B ..., a few rounds at a time; the table shows medians. Before that, outputs
and gradients are compared with those of PyTorch in 64 bits, to 1e-4 of the largest value. The
allocator of the Rust side caches as much freed memory as in `willis train`. The limit of an
operation is the time of a large matrix product for its arithmetic, or of copying for its memory,
whichever is longer.
"""

import functools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

THREADS = 2
TURNS = 7
# Seconds before each turn. PyTorch's threads spin for a while after their work and would take a core
# from the other side.
REST = 0.3
# Seconds of warm-up before the timing. Until then the system may keep both threads on one core.
WARM = 0.05
ROOT = Path(__file__).resolve().parents[2]


def conv(inputs, outputs, side, kernel=3, stride=1, padding=1, groups=1):
    sizes = dict(inputs=inputs, outputs=outputs, side=side, kernel=kernel, stride=stride, padding=padding, groups=groups)
    return dict(name="conv", **sizes)


OPERATIONS = {
    "conv 1→16, 96³": conv(1, 16, 96),
    "conv 16→32, 64³": conv(16, 32, 64),
    "conv 32→64, 48³": conv(32, 64, 48),
    "conv 1→16, 96³, stride 2": conv(1, 16, 96, stride=2),
    "conv 16→32, 64³, stride 2": conv(16, 32, 64, stride=2),
    "conv 32→64, 48³, stride 2": conv(32, 64, 48, stride=2),
    "conv k7 s4 4→32, 128³": conv(4, 32, 128, kernel=7, stride=4, padding=3),
    "conv 1×1×1 128→128, 24³": conv(128, 128, 24, kernel=1, padding=0),
    "depthwise 64, 32³": conv(64, 64, 32, groups=64),
    "depthwise 256, 32³": conv(256, 256, 32, groups=256),
    "transposed k2 s2 64→32, 24³": dict(name="conv_transposed", inputs=64, outputs=32, side=24),
    "max pool 2, 32×64³": dict(name="max_pool", channels=32, side=64),
    "trilinear ×2, 32×32³": dict(name="trilinear", channels=32, side=32),
    "gelu, 4 M": dict(name="gelu", length=1 << 22),
    "softmax [8, 4096, 512]": dict(name="softmax", shape=[8, 4096, 512]),
    "layer norm [32768, 64]": dict(name="layer_norm", rows=32768, width=64),
    "instance norm 32×64³": dict(name="instance_norm", channels=32, side=64),
    "linear [4096, 256]×[256, 1024]": dict(name="linear", rows=4096, inputs=256, outputs=1024),
    "attention 32768×512, d 32": dict(name="attention", queries=32768, keys=512, heads=1, head_dim=32),
}


def values(shape, salt, scale=1.0):
    i = np.arange(int(np.prod(shape)), dtype=np.uint64)
    whole = (i * np.uint64(2654435761) + np.uint64(salt * 40503)) & np.uint64(0xFFFFFFFF)
    return torch.from_numpy(((whole / 4294967296.0 - 0.5).astype(np.float32) * np.float32(scale)).reshape(shape))


def torch_side(op):
    """The shapes of x, weight and bias, the weight's scale, and the operation."""
    fan = lambda inputs: 2.0 / np.sqrt(inputs)
    n = op["name"]
    if n == "conv":
        k, g = op["kernel"], op["groups"]
        weight = [op["outputs"], op["inputs"] // g, k, k, k]
        run = lambda x, w, b: F.conv3d(x, w, b, op["stride"], op["padding"], groups=g)
        return [1, op["inputs"]] + [op["side"]] * 3, weight, [op["outputs"]], fan(op["inputs"] // g * k**3), run
    if n == "conv_transposed":
        weight = [op["inputs"], op["outputs"], 2, 2, 2]
        run = lambda x, w, b: F.conv_transpose3d(x, w, b, 2)
        return [1, op["inputs"]] + [op["side"]] * 3, weight, [op["outputs"]], fan(op["inputs"]), run
    if n == "max_pool":
        return [1, op["channels"]] + [op["side"]] * 3, [1], [1], 1.0, lambda x, w, b: F.max_pool3d(x, 2)
    if n == "trilinear":
        run = lambda x, w, b: F.interpolate(x, scale_factor=2, mode="trilinear")
        return [1, op["channels"]] + [op["side"]] * 3, [1], [1], 1.0, run
    if n == "gelu":
        return [op["length"]], [1], [1], 1.0, lambda x, w, b: F.gelu(x)
    if n == "softmax":
        return op["shape"], [1], [1], 1.0, lambda x, w, b: F.softmax(x, -1)
    if n == "layer_norm":
        width = op["width"]
        return [1, op["rows"], width], [width], [width], 1.0, lambda x, w, b: F.layer_norm(x, [width], w, b)
    if n == "instance_norm":
        c = op["channels"]
        return [1, c] + [op["side"]] * 3, [c], [c], 1.0, lambda x, w, b: F.instance_norm(x, weight=w, bias=b)
    if n == "linear":
        return [op["rows"], op["inputs"]], [op["outputs"], op["inputs"]], [op["outputs"]], fan(op["inputs"]), F.linear
    if n == "attention":
        heads, d = op["heads"], op["head_dim"]

        def run(q, kv, b):
            k, v = kv.chunk(2, -1)
            split = lambda t: t.unflatten(-1, (heads, d)).transpose(1, 2)
            return F.scaled_dot_product_attention(split(q), split(k), split(v)).transpose(1, 2).flatten(2)

        return [1, op["queries"], heads * d], [1, op["keys"], 2 * heads * d], [1], 4.0, run
    raise ValueError(n)


class Torch:
    def __init__(self, op):
        x, w, b, scale, self.run = torch_side(op)
        self.inputs = [values(x, 1), values(w, 2, scale), values(b, 3)]

    def times(self, phase, rounds):
        inputs = [t.clone().requires_grad_(phase == "step") for t in self.inputs]

        def once():
            start = time.perf_counter()
            with torch.set_grad_enabled(phase == "step"):
                y = self.run(*inputs)
                if phase == "step":
                    y.backward(torch.ones_like(y))
            for t in inputs:
                t.grad = None
            return time.perf_counter() - start

        warm = time.perf_counter()
        while time.perf_counter() - warm < WARM:
            once()
        return [once() for _ in range(rounds)]

    def work(self, op):
        """Floating-point operations of the forward pass, and bytes of its inputs and output."""
        x, w, _ = self.inputs
        with torch.no_grad():
            y = self.run(*self.inputs)
        products = {
            "conv": y.numel() * w.numel() // op.get("outputs", 1),
            "conv_transposed": x.numel() * w.numel() // op.get("inputs", 1),
            "linear": y.numel() * op.get("inputs", 0),
            "attention": 2 * x.numel() * op.get("keys", 0),
        }
        return 2 * products.get(op["name"], 0), 4 * (x.numel() + w.numel() + y.numel())

    def results(self):
        inputs = [t.double().requires_grad_() for t in self.inputs]
        y = self.run(*inputs)
        (y * values(list(y.shape), 4).double()).sum().backward()
        return [y.detach()] + [t.grad for t in inputs[:2] if t.grad is not None]


@functools.cache
def worker():
    """Builds the Rust side and returns the path of the program."""
    command = "cargo bench --no-run --message-format=json -p willis-nets --bench vs_pytorch".split()
    built = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    messages = [json.loads(line) for line in built.stdout.splitlines()]
    programs = [m["executable"] for m in messages if m.get("target", {}).get("name") == "vs_pytorch"]
    return next(filter(None, programs))


class Willis:
    def __init__(self):
        env = dict(RAYON_NUM_THREADS=str(THREADS))
        self.process = subprocess.Popen([worker()], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)

    def ask(self, operation, phase, rounds=0, output=None):
        request = dict(operation=operation, phase=phase, rounds=rounds, output=output)
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        self.extra_mib = answer["extra_mib"]
        return answer["seconds"]


def agree(willis, op, theirs):
    with tempfile.NamedTemporaryFile() as file:
        willis.ask(op, "check", output=file.name)
        ours = np.fromfile(file.name, np.float32)
    expected = theirs.results()
    parts, start = [], 0
    for tensor in expected:
        parts.append(ours[start : start + tensor.numel()])
        start += tensor.numel()
    worst = max(float(np.abs(a - t.numpy().ravel()).max() / t.abs().max().clamp(min=1e-9)) for a, t in zip(parts, expected))
    # The gradient of a weight that the operation does not use is missing on one side, or zero.
    assert worst <= 1e-4, f"{op}: results differ by {worst:.1e} of the largest value"
    return worst


def main():
    torch.set_num_threads(THREADS)
    wanted = sys.argv[1] if len(sys.argv) > 1 else ""
    willis = Willis()
    copy = statistics.median(willis.ask(dict(name="copy", length=1 << 26), "forward", 5))
    gemm = statistics.median(willis.ask(dict(name="gemm", side=1536), "forward", 5))
    bandwidth, arithmetic = 2 * 4 * (1 << 26) / copy, 2 * 1536**3 / gemm
    print(f"copy {bandwidth / 1e9:.1f} GB/s, matrix product {arithmetic / 1e9:.0f} GFLOP/s, {THREADS} threads\n")
    print("| operation | forward, ms | PyTorch | ratio | of the limit | forward + backward, ms | PyTorch | ratio | difference |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name, op in OPERATIONS.items():
        if wanted not in name:
            continue
        theirs = Torch(op)
        worst = agree(willis, op, theirs)
        row = f"| {name} "
        for phase in ["forward", "step"]:
            ours, other = [], []
            for _ in range(TURNS):
                time.sleep(REST)
                ours += willis.ask(op, phase, 3)
                time.sleep(REST)
                other += theirs.times(phase, 3)
            a, b = statistics.median(ours), statistics.median(other)
            row += f"| {a * 1e3:.2f} | {b * 1e3:.2f} | {a / b:.2f} "
            if phase == "forward":
                operations, size = theirs.work(op)
                limits = {"arithmetic": operations / arithmetic, "memory": size / bandwidth}
                limit = max(limits, key=limits.get)
                row += f"| {limits[limit] / a:.0%} ({limit}) "
        print(row + f"| {worst:.0e} |", flush=True)


if __name__ == "__main__":
    main()
