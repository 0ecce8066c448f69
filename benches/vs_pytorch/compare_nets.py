"""Times our backbones against the same nets in PyTorch with the same weights.

Prints a Markdown table. Used like compare.py: the first argument is a net's name or a whole row's,
and `eager` after it skips the compiled PyTorch, whose compilation takes minutes. Logits are compared
before the timing. PyTorch runs eagerly, with channels-last memory, and compiled where that works.
Memory is the peak of the resident memory of a process that runs only the net, minus its resident
memory before the first run (weights and input).
"""

import json
import statistics
import struct
import subprocess
import sys
import tempfile
import time

import numpy as np
import torch

from compare import THREADS, Willis, values
from segformer3d import SegFormer3D
from waveformer import WaveFormer

TURNS = 3


def load_safetensors(path):
    data = open(path, "rb").read()
    length = struct.unpack("<Q", data[:8])[0]
    tensors = {}
    for name, entry in json.loads(data[8 : 8 + length]).items():
        if name != "__metadata__":
            start, end = entry["data_offsets"]
            array = np.frombuffer(data[8 + length + start : 8 + length + end], np.float32).reshape(entry["shape"])
            tensors[name] = torch.from_numpy(array.copy())
    return tensors


def step(net, x):
    y = net(x)
    y.backward(torch.ones_like(y))
    net.zero_grad()


def forward(net, x):
    with torch.no_grad():
        return net(x)


def seconds(run):
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def peer(name, side):
    return SegFormer3D() if name == "segformer3d" else WaveFormer(side)


def memory(name, phase, side):
    """Runs in a process of its own."""
    torch.set_num_threads(THREADS)
    net = peer(name, side).train(phase == "step")
    x = values([1, 4] + [side] * 3, 1)
    resident = lambda figure: int(open("/proc/self/status").read().split(figure)[1].split()[0]) / 1024
    # Lets the largest resident set start again from now.
    open("/proc/self/clear_refs", "w").write("5")
    before = resident("VmRSS:")
    for _ in range(2):
        (step if phase == "step" else forward)(net, x)
    print(resident("VmHWM:") - before)


def main():
    torch.set_num_threads(THREADS)
    willis = Willis()
    print("| net | willis, s | PyTorch eager | ratio | channels last | ratio | compiled | ratio | willis, MiB | PyTorch | ratio |")
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    rows = [("segformer3d", side) for side in (64, 96, 128)] + [("waveformer", side) for side in (64, 96)]
    wanted = sys.argv[1] if len(sys.argv) > 1 else ""
    for name, side, phase in [(n, s, p) for n, s in rows for p in ("forward", "step") if wanted in f"{n} {p} 4×{s}³"]:
        op = dict(name="net", net=name, side=side)
        net = peer(name, side)
        with tempfile.NamedTemporaryFile() as file:
            willis.ask(op, "forward", 0, file.name)
            ours = np.fromfile(file.name, np.float32)
            missing = net.load_state_dict(load_safetensors(file.name + ".safetensors"), strict=False).missing_keys
        assert all("num_batches_tracked" in key for key in missing), missing
        x = values([1, 4] + [side] * 3, 1)
        expected = forward(net.eval(), x).numpy().ravel()
        worst = np.abs(ours - expected).max() / np.abs(expected).max()
        assert worst < 1e-4, f"logits differ by {worst:.1e}"
        net.train(phase == "step")
        run = step if phase == "step" else forward
        last = peer(name, side).train(phase == "step").to(memory_format=torch.channels_last_3d)
        x_last = x.to(memory_format=torch.channels_last_3d)
        rivals = [lambda: run(net, x), lambda: run(last, x_last)]
        try:
            if sys.argv[2:] != ["eager"]:
                compiled = torch.compile(net)
                run(compiled, x)
                rivals.append(lambda: run(compiled, x))
        except Exception as error:
            print(f"not compiled: {type(error).__name__}", file=sys.stderr)
        for rival in rivals:
            rival()
        ours, theirs = [], [[] for _ in rivals]
        for _ in range(TURNS):
            ours += willis.ask(op, phase, 1)
            for rival, times in zip(rivals, theirs):
                times.append(seconds(rival))
        a = statistics.median(ours)
        row = f"| {name} {phase} 4×{side}³ | {a:.3f} "
        for times in theirs + [None] * (3 - len(theirs)):
            row += f"| {statistics.median(times):.3f} | {a / statistics.median(times):.2f} " if times else "| n/a | n/a "
        fresh = Willis()
        fresh.ask(op, phase, 1)
        mine = fresh.extra_mib
        other = float(subprocess.run([sys.executable, __file__, name, phase, str(side)], capture_output=True, text=True).stdout)
        ratio = f"{mine / other:.2f}" if other > 0 else "n/a"
        print(row + f"| {mine:.0f} | {other:.0f} | {ratio} |", flush=True)


if __name__ == "__main__":
    memory(sys.argv[1], sys.argv[2], int(sys.argv[3])) if len(sys.argv) > 3 else main()
