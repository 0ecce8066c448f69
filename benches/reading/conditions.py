"""What dcm2niix, SimpleITK and pydicom make of one folder of DICOM files, or one image file, in a line each.

Needs numpy, nibabel, pydicom, SimpleITK and dcm2niix from PyPI. Usage: python conditions.py FOLDER...
"""

import pathlib
import subprocess
import sys
import tempfile
import warnings

import nibabel
import numpy
import pydicom
import SimpleITK

warnings.simplefilter("ignore")
SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)


def summary(voxels, affine):
    low, high = voxels.min(), voxels.max()
    steps = " ".join(f"{v:.4g}" for v in numpy.sqrt((affine[:3, :3] ** 2).sum(0)))
    third = " ".join(f"{v:.3g}" for v in affine[:3, 2])
    return f"{'x'.join(map(str, voxels.shape))}, steps {steps}, third axis [{third}], values {low:g} to {high:g}"


def by_dcm2niix(path):
    with tempfile.TemporaryDirectory() as folder:
        run = subprocess.run(
            ["dcm2niix", "-z", "n", "-b", "n", "-f", "out", "-o", folder, str(path)], capture_output=True, text=True, check=False)
        lines = [line for line in run.stdout.splitlines() if line.startswith(("Warning", "Error", "Slices not"))]
        for file in sorted(pathlib.Path(folder).glob("*.nii")):
            image = nibabel.load(file)
            yield f"{file.name}: {summary(numpy.asarray(image.dataobj), image.affine)}"
        yield from sorted(set(line[:140] for line in lines if "manufacturer" not in line))


def by_itk(path):
    if path.is_dir():
        reader = SimpleITK.ImageSeriesReader()
        for series in reader.GetGDCMSeriesIDs(str(path)) or ["none"]:
            names = reader.GetGDCMSeriesFileNames(str(path), series)
            if not names:
                yield "no series found"
                continue
            image = SimpleITK.ReadImage(names)
            voxels = SimpleITK.GetArrayFromImage(image)
            yield f"{len(names)} files: {image.GetSize()}, spacing {image.GetSpacing()}, origin {image.GetOrigin()}, values {voxels.min():g} to {voxels.max():g}"
    else:
        image = SimpleITK.ReadImage(str(path))
        yield f"{image.GetSize()}, spacing {image.GetSpacing()}, origin {image.GetOrigin()}, direction {image.GetDirection()}"


def by_pydicom(path):
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    decoded, failures, low, high = 0, {}, numpy.inf, -numpy.inf
    spacing = set()
    for file in files:
        try:
            data = pydicom.dcmread(file)
            voxels = data.pixel_array * float(data.get("RescaleSlope", 1)) + float(data.get("RescaleIntercept", 0))
            spacing.add(str(data.get("PixelSpacing")))
            decoded, low, high = decoded + 1, min(low, voxels.min()), max(high, voxels.max())
        except Exception as error:  # what it says is the result
            failures[f"{type(error).__name__}: {error}"[:120]] = file.name
    yield f"{decoded} of {len(files)} decoded, values {low:g} to {high:g}, spacing {sorted(spacing)[:2]} {list(failures)[:2]}"


def main():
    for name in sys.argv[1:]:
        path = pathlib.Path(name)
        print(f"== {path.parent.name}/{path.name}")
        for reader in (by_dcm2niix, by_itk, by_pydicom):
            try:
                for line in reader(path):
                    print(f"{reader.__name__[3:]:9} {line}")
            except Exception as error:
                print(f"{reader.__name__[3:]:9} {type(error).__name__}: {' '.join(str(error).split())[-160:]}")


if __name__ == "__main__":
    main()
