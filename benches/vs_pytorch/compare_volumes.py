"""Times the exact distance transform and Lee's thinning on a 300 x 512 x 512 mask of vessels.

The rivals are scipy, edt and scikit-image. Used like compare.py. The results must be the same
voxels.
"""

import statistics
import tempfile
import time

import numpy as np
from scipy import ndimage
from skimage.morphology import skeletonize

from compare import Willis

SHAPE, SPACING = (300, 512, 512), (0.6, 0.45, 0.45)


def vessels(seed=1):
    """Sixty winding tubes of 0.6 to 3 mm radius."""
    rng = np.random.default_rng(seed)
    mask = np.zeros(SHAPE, np.uint8)
    spacing = np.array(SPACING)
    for _ in range(60):
        place, direction = rng.uniform(0.2, 0.8, 3) * np.array(SHAPE) * spacing, rng.normal(size=3)
        radius = rng.uniform(0.6, 3.0)
        for _ in range(int(rng.uniform(100, 400))):
            direction = direction / np.linalg.norm(direction) + 0.25 * rng.normal(size=3)
            place = place + 0.5 * direction / np.linalg.norm(direction)
            low = np.maximum(((place - radius) / spacing).astype(int), 0)
            high = np.minimum(((place + radius) / spacing).astype(int) + 2, SHAPE)
            if (low >= high).any():
                break
            grid = np.ogrid[low[0] : high[0], low[1] : high[1], low[2] : high[2]]
            inside = sum(((g * s - p) ** 2) for g, s, p in zip(grid, spacing, place)) <= radius**2
            mask[low[0] : high[0], low[1] : high[1], low[2] : high[2]] |= inside
    return mask


def seconds(run):
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def row(name, willis, op, rivals):
    ours, theirs = [], {rival: [] for rival in rivals}
    for _ in range(3):
        ours += willis.ask(op, "forward", 1)
        for rival, run in rivals.items():
            theirs[rival].append(seconds(run))
    a = statistics.median(ours)
    for rival, times in theirs.items():
        b = statistics.median(times)
        print(f"| {name} | {a:.3f} | {rival} | {b:.3f} | {a / b:.3f} |", flush=True)


def main():
    mask, willis = vessels(), Willis()
    print(f"{int(mask.sum())} of {mask.size} voxels\n")
    print("| work | willis, s | peer | s | ratio |\n|---|---|---|---|---|")
    with tempfile.NamedTemporaryFile() as file, tempfile.NamedTemporaryFile() as output:
        mask.tofile(file.name)
        op = dict(name="distance", mask=file.name, shape=SHAPE, spacing_mm=SPACING)
        willis.ask(op, "forward", 0, output.name)
        ours = np.fromfile(output.name, np.float32).reshape(SHAPE)
        expected = ndimage.distance_transform_edt(mask, sampling=SPACING)
        assert np.allclose(np.sqrt(ours), expected, rtol=1e-5, atol=1e-5)
        rivals = {"scipy": lambda: ndimage.distance_transform_edt(mask, sampling=SPACING)}
        try:
            import edt

            rivals["edt, 2 threads"] = lambda: edt.edtsq(mask, anisotropy=SPACING, parallel=2)
        except ImportError:
            pass
        row("distance transform", willis, op, rivals)
        op = dict(name="skeleton", mask=file.name, shape=SHAPE)
        willis.ask(op, "forward", 0, output.name)
        ours = np.fromfile(output.name, np.uint8).reshape(SHAPE)
        assert ((ours != 0) == (skeletonize(mask) != 0)).all(), "another skeleton"
        row("Lee thinning", willis, op, {"scikit-image": lambda: skeletonize(mask)})


if __name__ == "__main__":
    main()
