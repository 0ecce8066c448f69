"""`willis volume convert` against dcm2niix: the same voxels at the same places, and the time.

Needs numpy, nibabel, pydicom and dcm2niix from PyPI. Usage:

    python compare.py --willis target/release/willis --data ../shared/data          # voxels
    python compare.py --willis target/release/willis --time                         # time

Two conversions agree when their affines, brought to the same order and direction of axes, differ by
at most 1e-4 and their voxels by at most what single precision rounds. Where they do not, the findings
of willis are printed: they must declare the difference.
"""

import argparse
import pathlib
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time

import nibabel
import numpy
import pydicom
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

AFFINE = 1e-4
SLICES = 300
PAIRS = 7


def canonical(path):
    """First volume in RAS order, with its affine."""
    image = nibabel.load(path)
    if image.ndim > 3:
        image = image.slicer[..., 0]
    image = nibabel.as_closest_canonical(image)
    voxels = numpy.asarray(image.dataobj)
    if voxels.dtype.names:  # colour: its luminance (ITU-R BT.601)
        voxels = 0.299 * voxels["R"] + 0.587 * voxels["G"] + 0.114 * voxels["B"]
    return voxels.astype(numpy.float64), image.affine


def series_of(data, scratch):
    """(name, folder or file) of every DICOM series at hand."""
    found = []
    for name, archive in [
        ("dicom2nifti", data / "43_dicom2nifti" / "dicom2nifti_tests_subset.tar.gz"),
        ("t1-gd", data / "06_vsseg001_t1gd_dicom" / "VS-SEG-001_t1_gd_120.tar.gz"),
        ("t1-inflow", data / "22_t1_inflow_dicom" / "anat_T1w.tar.xz"),
        ("t2-missing-slice", data / "23_t2_missing_slice" / "axial_t2_fse.tar.xz"),
    ]:
        if archive.exists():
            folder = scratch / name
            with tarfile.open(archive) as tar:
                tar.extractall(folder, filter="data")
            leaves = sorted({file.parent for file in folder.rglob("*") if file.is_file() and is_dicom(file)})
            found += [(str(leaf.relative_to(scratch)), leaf) for leaf in leaves]
    enhanced = data / "48_dicom_enhanced" / "In"
    if enhanced.exists():
        found += [(f"enhanced/{file.name}", file) for file in sorted((enhanced / "Philips").iterdir())]
        found += [("enhanced/" + folder.name, folder) for folder in sorted((enhanced / "Siemens").iterdir())]
    reports = data / "60_field_reports"
    if reports.exists():
        folders = sorted(path for path in reports.iterdir() if path.is_dir() and any(path.glob("*.dcm")))
        found += [(f"reports/{folder.name}", folder) for folder in folders]
    return found


def is_dicom(path):
    with open(path, "rb") as file:
        return file.read(132)[128:] == b"DICM" or path.suffix == ".dcm"


def theirs(source, folder):
    """Conversions by dcm2niix, largest first; images that it resampled come first."""
    folder.mkdir()
    if source.is_file():
        command = ["dcm2niix", "-z", "n", "-b", "n", "-s", "y", "-f", "out_%s", "-o", str(folder), str(source)]
    else:
        command = ["dcm2niix", "-z", "n", "-b", "n", "-f", "out_%s", "-o", str(folder), str(source)]
    subprocess.run(command, capture_output=True, check=False)
    files = list(folder.glob("*.nii"))
    return sorted(files, key=lambda file: (-numpy.prod(nibabel.load(file).shape[:3]), file.name))


def same_place(ours, reference):
    """Largest difference of affines and voxels, or why they cannot be compared."""
    voxels, affine = ours
    other, other_affine = reference
    if voxels.shape != other.shape:
        return None, f"shape {voxels.shape} instead of {other.shape}"
    place = numpy.abs(affine - other_affine).max()
    value = numpy.abs(voxels - other).max()
    scale = max(1.0, numpy.abs(other).max())
    return (place, value / scale), None


def compare(arguments):
    differ = 0
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        for number, (name, source) in enumerate(series_of(arguments.data, scratch)):
            references = theirs(source, scratch / f"reference-{number}")
            given = source.parent / f"{source.name}_ground_truth.nii.gz"
            references += [given] if given.exists() else []
            output = scratch / "ours.nii"
            run = subprocess.run(
                [arguments.willis, "volume", "convert", str(source), "-o", str(output)],
                capture_output=True, text=True, check=False,
            )
            warnings = [line for line in run.stderr.splitlines() if line]
            if run.returncode:
                print(f"REFUSED   {name}: {warnings[-1] if warnings else ''}; dcm2niix wrote {len(references)}")
                continue
            ours = canonical(output)
            results = [(same_place(ours, canonical(file)), file) for file in references]
            agreeing = [
                (difference, file) for (difference, _), file in results
                if difference and difference[0] <= AFFINE and difference[1] <= 1e-6
            ]
            if agreeing:
                (place, value), _ = min(agreeing, key=lambda pair: pair[0])
                print(f"EQUAL     {name}: affine {place:.1e}, voxels {value:.1e} ({len(agreeing)} of {len(results)})")
                continue
            if not references:
                print(f"ALONE     {name}: dcm2niix wrote nothing")
                continue
            declared = "DECLARED" if warnings else "DIFFERS "
            differ += not warnings
            why = "; ".join(text or f"affine {d[0]:.3g}, voxels {d[1]:.3g}" for (d, text), _ in results)
            print(f"{declared}  {name}: {why}")
            for line in warnings:
                print("          ", line[:300])
    print(f"{differ} differ without a finding")
    return differ


def write_series(folder):
    """A CT series of 300 slices of 512 x 512."""
    generator = numpy.random.default_rng(1)
    plane = generator.integers(0, 2000, (512, 512), dtype=numpy.int16)
    series = generate_uid()
    for k in range(SLICES):
        data = pydicom.Dataset()
        data.file_meta = pydicom.dataset.FileMetaDataset()
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
        data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = generate_uid()
        data.SeriesInstanceUID, data.StudyInstanceUID, data.Modality = series, series, "CT"
        data.InstanceNumber, data.SeriesNumber = k + 1, 1
        data.ImagePositionPatient, data.ImageOrientationPatient = [-120, -120, 0.6 * k], [1, 0, 0, 0, 1, 0]
        data.PixelSpacing, data.SliceThickness = [0.47, 0.47], 0.6
        data.RescaleSlope, data.RescaleIntercept = 1, -1024
        data.Rows, data.Columns, data.SamplesPerPixel, data.PhotometricInterpretation = 512, 512, 1, "MONOCHROME2"
        data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 1
        data.PixelData = numpy.roll(plane, k, axis=0).tobytes()
        data.save_as(folder / f"{(k * 77) % SLICES:03}.dcm", enforce_file_format=True)


def by_pydicom(folder, output):
    """The series in pydicom, NumPy and nibabel, in this process: imports do not count."""
    slices = [pydicom.dcmread(file) for file in folder.iterdir()]
    slices.sort(key=lambda data: data.ImagePositionPatient[2])
    volume = numpy.stack([
        data.pixel_array.astype(numpy.float32) * float(data.RescaleSlope) + float(data.RescaleIntercept)
        for data in slices
    ])
    nibabel.Nifti1Image(volume.transpose(2, 1, 0), numpy.eye(4)).to_filename(output)


def timed(task):
    start = time.perf_counter()
    task()
    return time.perf_counter() - start


def times(arguments):
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        folder = scratch / "series"
        folder.mkdir()
        write_series(folder)
        quiet = {"check": True, "capture_output": True}
        tasks = {
            "willis": lambda: subprocess.run(
                [arguments.willis, "volume", "convert", str(folder), "-o", str(scratch / "a.nii")], **quiet),
            "dcm2niix": lambda: subprocess.run(
                ["dcm2niix", "-z", "n", "-b", "n", "-w", "1", "-f", "b", "-o", str(scratch), str(folder)], **quiet),
            "pydicom": lambda: by_pydicom(folder, scratch / "c.nii"),
        }
        taken = {name: [] for name in tasks}
        for pair in range(PAIRS + 1):
            for name, task in tasks.items():
                seconds = timed(task)
                if pair:  # the first warms up
                    taken[name].append(seconds)
        ours = statistics.median(taken["willis"])
        print(f"{SLICES} slices of 512 x 512, {PAIRS} pairs, medians")
        for name, seconds in taken.items():
            middle = statistics.median(seconds)
            print(f"{name:10} {middle:6.3f} s  ({min(seconds):.3f} to {max(seconds):.3f})  willis takes {ours / middle:.2f} of it")
    return 0


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--willis", required=True)
    parser.add_argument("--data", type=pathlib.Path)
    parser.add_argument("--time", action="store_true")
    arguments = parser.parse_args()
    sys.exit(bool(times(arguments) if arguments.time else compare(arguments)))


if __name__ == "__main__":
    main()
