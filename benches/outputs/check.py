"""Opens every output of `willis predict --write ...` with independent programs.

    python check.py CASE...

A case is a folder with `dicom/` (the series) and `out/` (all outputs of it). Prints a Markdown table
of formats, readers and verdicts, and a table of how far each reader puts the first candidate from
the centre in candidates.json. Ends with 1 if a reader fails or a distance exceeds 0.1 mm.
"""

import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import highdicom
import nibabel
import networkx
import numpy
import pydicom
import pypdf
import SimpleITK
import vtk
from fhir.resources.R4B.bundle import Bundle

TOLERANCE_MM = 0.1
FAILED = []


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    return done.returncode, done.stdout + done.stderr


def verdict(reader, check):
    """One line about a file, or the error of the reader."""
    try:
        return check()
    except Exception as error:  # the table shows what failed
        FAILED.append(f"{reader}: {error}")
        return f"FAILED: {type(error).__name__}: {error}"


def dciodvfy(path):
    _, text = run("dciodvfy", str(path))
    errors = [line for line in text.splitlines() if line.startswith("Error")]
    assert not errors, "; ".join(errors)
    return f"no errors ({sum(line.startswith('Warning') for line in text.splitlines())} warnings)"


def pixel_to_world(dataset, column, row):
    orientation = numpy.array(dataset.ImageOrientationPatient, float)
    spacing = numpy.array(dataset.PixelSpacing, float)
    position = numpy.array(dataset.ImagePositionPatient, float)
    return position + orientation[:3] * spacing[1] * column + orientation[3:] * spacing[0] * row


def content(item):
    for child in item.get("ContentSequence", []):
        yield child
        yield from content(child)


def sr_pydicom(out):
    points = [c.GraphicData for c in content(pydicom.dcmread(out / "report.sr.dcm")) if c.ValueType == "SCOORD3D"]
    return numpy.array(points[0], float)


def sr_highdicom(out):
    groups = highdicom.sr.srread(out / "report.sr.dcm").content.get_planar_roi_measurement_groups()
    return numpy.array(groups[0].roi.value, float).ravel()


def sr_dcmtk(out):
    code, text = run("dsrdump", "+Pl", str(out / "report.sr.dcm"))
    assert code == 0, text
    return numpy.array([float(v) for v in re.search(r"POINT,,([^)]*)\)", text).group(1).split("/")])


def candidate_segment(seg):
    return next(s.SegmentNumber for s in seg.SegmentSequence if s.SegmentLabel == "Candidate 1")


def seg_pydicom(out):
    seg = pydicom.dcmread(out / "vessels.seg.dcm")
    number, frames = candidate_segment(seg), seg.pixel_array
    shared = seg.SharedFunctionalGroupsSequence[0]
    plane = pydicom.Dataset()
    plane.ImageOrientationPatient = shared.PlaneOrientationSequence[0].ImageOrientationPatient
    plane.PixelSpacing = shared.PixelMeasuresSequence[0].PixelSpacing
    points = []
    for frame, item in zip(frames, seg.PerFrameFunctionalGroupsSequence):
        if item.SegmentIdentificationSequence[0].ReferencedSegmentNumber == number:
            plane.ImagePositionPatient = item.PlanePositionSequence[0].ImagePositionPatient
            points += [pixel_to_world(plane, c, r) for r, c in numpy.argwhere(frame)]
    return numpy.mean(points, axis=0)


def seg_highdicom(out):
    """Frame by frame: a tilted stack is not a volume for highdicom."""
    seg = highdicom.seg.segread(out / "vessels.seg.dcm")
    number, shared = candidate_segment(seg), seg.SharedFunctionalGroupsSequence[0]
    points = []
    for frame, groups in zip(seg.pixel_array, seg.PerFrameFunctionalGroupsSequence):
        if groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber == number:
            transform = highdicom.spatial.PixelToReferenceTransformer(
                image_position=groups.PlanePositionSequence[0].ImagePositionPatient,
                image_orientation=shared.PlaneOrientationSequence[0].ImageOrientationPatient,
                pixel_spacing=shared.PixelMeasuresSequence[0].PixelSpacing,
            )
            points.append(transform(numpy.argwhere(frame)[:, ::-1]))
    return numpy.concatenate(points).mean(0)


def marked_slice(case):
    """Pixel of the first candidate's centre, and the file that it is on."""
    gsps = pydicom.dcmread(case / "out/candidates.gsps.dcm")
    for annotation in gsps.GraphicAnnotationSequence:
        for graphic in annotation.GraphicObjectSequence:
            if graphic.GraphicType == "POINT":
                uid = annotation.ReferencedImageSequence[0].ReferencedSOPInstanceUID
                files = case.glob("dicom/**/*")
                path = next(f for f in files if f.is_file() and pydicom.dcmread(f, stop_before_pixels=True).SOPInstanceUID == uid)
                return numpy.array(graphic.GraphicData, float) - 0.5, path
    raise ValueError("no mark")


def in_plane(path, point, centre):
    """Distance within the plane of a slice; the centre may be half a step off it."""
    dataset = pydicom.dcmread(path, stop_before_pixels=True)
    orientation = numpy.array(dataset.ImageOrientationPatient, float)
    difference = numpy.array(centre) - point
    return float(numpy.hypot(difference @ orientation[:3], difference @ orientation[3:]))


def centres(case):
    """Distance of the first candidate by each reader, mm."""
    out = case / "out"
    centre = json.loads((out / "candidates.json").read_text())["candidates"][0]["centre"]
    rows = {}
    for name, read in [
        ("SR, pydicom", sr_pydicom),
        ("SR, highdicom", sr_highdicom),
        ("SR, dcmtk", sr_dcmtk),
        ("SEG centroid, pydicom", seg_pydicom),
        ("SEG centroid, highdicom", seg_highdicom),
    ]:
        try:
            rows[name] = f"{numpy.linalg.norm(read(out) - centre):.4f}"
        except Exception as error:
            rows[name] = f"FAILED: {error}"
    pixel, path = marked_slice(case)
    dataset = pydicom.dcmread(path, stop_before_pixels=True)
    rows["GSPS, pydicom"] = f"{in_plane(path, pixel_to_world(dataset, *pixel), centre):.4f}"
    image = SimpleITK.ReadImage(str(path))
    physical = image.TransformContinuousIndexToPhysicalPoint([*pixel.tolist(), 0.0][: image.GetDimension()])
    rows["GSPS, SimpleITK"] = f"{in_plane(path, numpy.array(physical), centre):.4f}"
    for name, value in rows.items():
        if value.startswith("FAILED") or float(value) > TOLERANCE_MM:
            FAILED.append(f"{case.name}: {name}: {value}")
    return rows


def formats(out):
    """Rows of format, reader and verdict."""
    rows = []

    def row(file, reader, check):
        rows.append((file, reader, verdict(f"{file}, {reader}", check)))

    table = json.loads((out / "candidates.json").read_text())["candidates"]
    graph = json.loads((out / "graph.json").read_text())

    def nifti():
        image = nibabel.load(out / "vessels.nii.gz")
        return f"{image.shape}, {len(numpy.unique(image.get_fdata())) - 1} sites"

    def nifti_itk():
        image = SimpleITK.ReadImage(str(out / "vessels.nii.gz"))
        index = image.TransformPhysicalPointToIndex(table[0]["centre"])
        inside = all(0 <= i < n for i, n in zip(index, image.GetSize()))
        assert inside, "the first candidate is outside"
        return "first candidate inside"

    def slicer():
        points = json.loads((out / "candidates.mrk.json").read_text())["markups"][0]
        assert points["coordinateSystem"] == "LPS" and points["controlPoints"][0]["position"] == table[0]["centre"]
        return f"{len(points['controlPoints'])} points, LPS"

    def graphml():
        read = networkx.read_graphml(out / "graph.graphml", force_multigraph=True)
        assert (read.number_of_nodes(), read.number_of_edges()) == (len(graph["nodes"]), len(graph["edges"]))
        return f"{read.number_of_nodes()} nodes, {read.number_of_edges()} edges"

    def poly_data():
        reader = vtk.vtkXMLPolyDataReader()
        reader.SetFileName(str(out / "graph.vtp"))
        reader.Update()
        data = reader.GetOutput()
        assert data.GetNumberOfLines() == len(graph["edges"]), data.GetNumberOfLines()
        assert data.GetPointData().GetArray("Radius").GetNumberOfTuples() == data.GetNumberOfPoints()
        return f"{data.GetNumberOfPoints()} points, {data.GetNumberOfLines()} lines, radius and site"

    def swc():
        samples = numpy.loadtxt(out / "graph.swc", ndmin=2)
        assert (samples[:, 6] < samples[:, 0]).all() and (samples[:, 0] == numpy.arange(1, len(samples) + 1)).all()
        return f"{len(samples)} samples, {int((samples[:, 6] == -1).sum())} trees"

    def csv_table():
        with open(out / "candidates.csv", newline="") as file:
            read = list(csv.DictReader(file))
        assert len(read) == len(table)
        return f"{len(read)} rows, {len(read[0]) if read else 0} columns"

    def fhir():
        bundle = Bundle.model_validate_json((out / "fhir.json").read_text())
        return f"valid R4, {len(bundle.entry)} resources"

    def pdf():
        read = pypdf.PdfReader(out / "report.pdf")
        text = "".join(page.extract_text() for page in read.pages)
        assert "Research use only" in text
        return f"{len(read.pages)} pages, text readable"

    def seg():
        read = highdicom.seg.segread(out / "vessels.seg.dcm")
        return f"{read.number_of_segments} segments, {read.NumberOfFrames} frames"

    def seg_itk():
        image = SimpleITK.ReadImage(str(out / "vessels.seg.dcm"))
        return f"{image.GetSize()}"

    def sr():
        groups = highdicom.sr.srread(out / "report.sr.dcm").content.get_planar_roi_measurement_groups()
        assert len(groups) in (0, len(table))
        return f"{len(groups)} measurement groups"

    def dsrdump():
        code, text = run("dsrdump", str(out / "report.sr.dcm"))
        messages = [line for line in text.splitlines() if line.startswith(("E:", "W:", "F:"))]
        assert code == 0 and not messages, messages
        return "no message"

    def key_image(path):
        image = SimpleITK.ReadImage(str(path))
        assert image.GetNumberOfComponentsPerPixel() == 3
        return f"{image.GetSize()[:2]}, RGB"

    def gsps():
        _, text = run("dcmpschk", str(out / "candidates.gsps.dcm"))
        problems = [line for line in text.splitlines() if line.startswith(("E:", "F:"))]
        assert not problems, problems
        return "no errors"

    row("vessels.nii.gz", "nibabel", nifti)
    row("vessels.nii.gz", "SimpleITK", nifti_itk)
    row("candidates.mrk.json", "json", slicer)
    row("graph.graphml", "networkx", graphml)
    row("graph.vtp", "vtk", poly_data)
    row("graph.swc", "numpy", swc)
    row("candidates.csv", "csv", csv_table)
    row("fhir.json", "fhir.resources (R4B)", fhir)
    row("report.pdf", "pypdf", pdf)
    row("vessels.seg.dcm", "dciodvfy", lambda: dciodvfy(out / "vessels.seg.dcm"))
    row("vessels.seg.dcm", "highdicom", seg)
    row("vessels.seg.dcm", "SimpleITK", seg_itk)
    row("report.sr.dcm", "dciodvfy", lambda: dciodvfy(out / "report.sr.dcm"))
    row("report.sr.dcm", "highdicom", sr)
    row("report.sr.dcm", "dsrdump", dsrdump)
    row("key-image-1.sc.dcm", "dciodvfy", lambda: dciodvfy(out / "key-image-1.sc.dcm"))
    row("key-image-1.sc.dcm", "SimpleITK", lambda: key_image(out / "key-image-1.sc.dcm"))
    row("candidates.gsps.dcm", "dciodvfy", lambda: dciodvfy(out / "candidates.gsps.dcm"))
    row("candidates.gsps.dcm", "dcmpschk", gsps)
    return rows


def main():
    cases = [Path(argument) for argument in sys.argv[1:]]
    by_case = {case.name: formats(case / "out") for case in cases}
    print("| file | reader | " + " | ".join(by_case) + " |")
    print("|---|---" + "|---" * len(by_case) + "|")
    for k, (file, reader, _) in enumerate(next(iter(by_case.values()))):
        print(f"| {file} | {reader} | " + " | ".join(rows[k][2] for rows in by_case.values()) + " |")
    print()
    marked = [case for case in cases if json.loads((case / "out/prediction.json").read_text())["abstain"] is None]
    distances = {case.name: centres(case) for case in marked}
    if distances:
        names = list(next(iter(distances.values())))
        print("| series | " + " | ".join(names) + " |")
        print("|---" * (len(names) + 1) + "|")
        for case, row in distances.items():
            print(f"| {case} | " + " | ".join(row[name] for name in names) + " |")
    for failure in FAILED:
        print(failure, file=sys.stderr)
    sys.exit(1 if FAILED else 0)


main()
