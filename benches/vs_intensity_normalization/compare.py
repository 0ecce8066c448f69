"""Times Nyúl's method against the Python package intensity-normalization, in turns.

    pip install -r requirements.txt
    cargo build --release -p willis-imaging --bench volumes
    python compare.py path/to/volumes-<hash>

Reading and writing files is not timed on either side. The scale and every voxel must be equal to
1e-5, relative to the value or to 1.
"""

import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np

try:
    from intensity_normalization.methods import nyul  # 4.x

    def package_fit(images):
        return nyul.fit(images)

    def package_apply(fitted, image):
        return fitted(image)

    def scale_of(fitted):
        return fitted.standard_scale

except ImportError:
    from intensity_normalization.adapters.images import create_image
    from intensity_normalization.normalizers.population.nyul import NyulNormalizer

    def package_fit(images):
        return NyulNormalizer().fit_population([create_image(image) for image in images])

    def package_apply(fitted, image):
        return fitted.transform(create_image(image)).get_data()

    def scale_of(fitted):
        return fitted.standard_scale


ROUNDS = 5
SHAPES = {"160 x 160 x 160": (160, 160, 160), "256 x 320 x 320": (256, 320, 320)}


def heads(shape, count=3, seed=1):
    """Ellipsoids of three tissues with bright vessels, noise, and air of exactly 0."""
    rng = np.random.default_rng(seed)
    z, y, x = (np.linspace(-1, 1, n, dtype=np.float32) for n in shape)
    depth = x[None, None] ** 2 + y[None, :, None] ** 2 + z[:, None, None] ** 2
    for _ in range(count):
        gain = rng.uniform(0.5, 3)
        image = np.where(depth < 0.5, 120, np.where(depth < 0.7, 80, 30)).astype(np.float32)
        image += rng.normal(0, 9, shape).astype(np.float32)
        image[rng.random(shape) < 0.02] = 400
        yield np.where(depth < 0.9, np.maximum(image, 1) * np.float32(gain), 0).astype(np.float32)


class Willis:
    def __init__(self, program):
        self.process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, *words):
        self.process.stdin.write(" ".join(words) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline().split()
        return float(answer[0]), np.array(answer[1:], float)


def timed(run):
    start = time.perf_counter()
    result = run()
    return time.perf_counter() - start, result


def worst(ours, theirs):
    return float((np.abs(ours - theirs) / np.maximum(np.abs(theirs), 1)).max())


def main():
    willis = Willis(sys.argv[1])
    print("| work | willis, s | package, s | package / willis | largest difference |")
    print("|---|---|---|---|---|")
    for name, shape in SHAPES.items():
        images = list(heads(shape))
        with tempfile.TemporaryDirectory() as folder:
            paths = [f"{folder}/{i}.npy" for i in range(len(images))]
            for path, image in zip(paths, images):
                np.save(path, image)
            fits, applies = [], []
            for _ in range(ROUNDS):
                seconds, scale = willis.ask("fit", *paths)
                theirs, fitted = timed(lambda: package_fit(images))
                fits.append((seconds, theirs))
                seconds, _ = willis.ask("apply", paths[0], f"{folder}/out.npy")
                theirs, mapped = timed(lambda: package_apply(fitted, images[0]))
                applies.append((seconds, theirs))
            differences = [worst(scale, scale_of(fitted)), worst(np.load(f"{folder}/out.npy"), mapped)]
        assert max(differences) <= 1e-5, differences
        for work, pairs, difference in (("fit, 3 images", fits, differences[0]), ("apply", applies, differences[1])):
            ours, theirs = (statistics.median(side) for side in zip(*pairs))
            ratio = statistics.median(b / a for a, b in pairs)
            print(f"| {work}, {name} | {ours:.3f} | {theirs:.3f} | {ratio:.1f} | {difference:.0e} |", flush=True)


if __name__ == "__main__":
    main()
