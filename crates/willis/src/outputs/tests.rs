//! Objects are written about real series of six orientations and read back with dicom-rs.

use std::path::Path;
use std::sync::Arc;

use dicom_core::{DataElement, PrimitiveValue, Tag, VR};
use dicom_dictionary_std::tags;
use dicom_object::{DefaultDicomObject, InMemDicomObject, OpenFileOptions, open_file};
use willis_core::{
    Affine, Candidate, CentrelinePoint, Evidence, Finding, GraphEdge, GraphNode, Grid, HarmonisedVolume, Image,
    Modality, ModelRef, NodeKind, Point, SeriesMeta, SeriesSummary, Shape, Site, Spacing, VesselGraph, VesselMap,
    VoxelPoint,
};
use willis_imaging::ingest::ingest;
use willis_phantom::{Phantom, SeriesUids, write_instances};

use super::*;
use crate::config::Config;

const CENTRE: Point = Point::new(1.37, -2.41, 3.73);
const DIAMETER: f64 = 7.0;
/// Frames of candidate 1 in the segmentation, and so on.
const LABEL: &str = "Candidate 1";

/// Directions of columns, rows and slices.
const ORIENTATIONS: [(&str, [[f64; 3]; 3]); 6] = [
    ("axial", [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]),
    ("coronal", [[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]]),
    ("sagittal", [[0.0, 1.0, 0.0], [0.0, 0.0, -1.0], [-1.0, 0.0, 0.0]]),
    ("oblique", [[0.8, 0.36, 0.48], [-0.6, 0.48, 0.64], [0.0, -0.8, 0.6]]),
    ("flipped", [[-1.0, 0.0, 0.0], [0.0, -1.0, 0.0], [0.0, 0.0, 1.0]]),
    ("tilted", [[1.0, 0.0, 0.0], [0.0, 0.96, 0.28], [0.0, 0.0, 1.0]]),
];

/// Writes a series whose middle is near the centre.
fn write_source(folder: &Path, [columns, rows, slices]: [[f64; 3]; 3]) {
    let shape = Shape::new(21, 27, 30);
    let (dx, dy, dz) = (0.8, 0.9, 1.2);
    let mut affine = Affine(std::array::from_fn(|i| [columns[i] * dx, rows[i] * dy, slices[i] * dz, 0.0]));
    let middle = affine.to_world(VoxelPoint::new(10.0, 13.0, 15.0)).xyz();
    for (i, row) in affine.0.iter_mut().enumerate() {
        row[3] = CENTRE.xyz()[i] + 0.3 - middle[i];
    }
    let grid = Grid::new(shape, affine);
    let phantom = Phantom {
        volume: Image::new(grid, (0..shape.len()).map(|i| (i % 97) as i16).collect()),
        rescale: (1.0, 0.0),
        sites: Image::filled(grid, 0),
        aneurysm: Image::filled(grid, 0),
        lesions: Vec::new(),
        meta: SeriesMeta { modality: Some(Modality::Mra), ..SeriesMeta::default() },
    };
    write_instances(folder, &phantom, &SeriesUids::new(7, 0)).unwrap();
}

fn graph() -> VesselGraph {
    let at = |x: f64, y: f64| CentrelinePoint { point: Point::new(x, y, 0.0), radius_mm: 1.25 };
    let node = |x, y| GraphNode { at: at(x, y), kind: NodeKind::Junction, site: Some(Site::RightMca) };
    let edge = |from, to, points: &[(f64, f64)]| GraphEdge {
        from,
        to,
        points: points.iter().map(|&(x, y)| at(x, y)).collect(),
        length_mm: 4.0,
    };
    // Two branches that form a loop, and one node apart.
    VesselGraph {
        nodes: vec![node(0.0, 0.0), node(4.0, 0.0), node(9.0, 9.0)],
        edges: vec![
            edge(0, 1, &[(0.0, 0.0), (2.0, 1.0), (4.0, 0.0)]),
            edge(1, 0, &[(4.0, 0.0), (2.0, -1.0), (0.0, 0.0)]),
        ],
    }
}

/// A result about the series in a folder: the right MCA is a box, and there is one candidate.
fn result(folder: &Path, abstain: Option<&str>) -> SeriesResult {
    let volume = Arc::new(ingest(folder, &IngestConfig::default()).unwrap());
    let grid = Grid::new(
        Shape::new(24, 24, 24),
        Affine::axis_aligned(Spacing::isotropic(1.0), Point::new(CENTRE.x - 12.0, CENTRE.y - 12.0, CENTRE.z - 12.0)),
    );
    let is_vessel = |i: usize| {
        let at = grid.shape.index(i);
        (6..18).contains(&at.x) && (10..14).contains(&at.y) && (10..14).contains(&at.z)
    };
    let vessel: Vec<f32> = (0..grid.shape.len()).map(|i| f32::from(u8::from(is_vessel(i)))).collect();
    let site = vessel.iter().map(|&p| if p > 0.5 { Site::RightMca.mask_value() } else { 0 }).collect();
    let image = Image::filled(grid, 0.0f32);
    let (meta, findings) = (volume.meta.clone(), Vec::new());
    let prediction = Prediction {
        schema: Prediction::SCHEMA,
        series: SeriesSummary {
            uid: meta.uid.clone(),
            modality: meta.modality,
            shape_zyx: volume.image.grid.shape.zyx(),
            spacing_zyx_mm: volume.image.grid.spacing().zyx(),
        },
        probabilities: Prediction::probability_map([0.05; 13], 0.4),
        abstain: abstain.map(String::from),
        findings: vec![Finding::info("oblique", "turned by 3° – that is 1 × 2 mm²")],
        models: vec![ModelRef { name: "segment.safetensors".into(), sha256: "ab".repeat(32) }],
    };
    let source = Arc::new(HarmonisedVolume { image: image.clone(), meta, source: volume, findings });
    let map = VesselMap { vessel: Image::new(grid, vessel), aneurysm: image, site: Image::new(grid, site), source };
    let candidate = Candidate {
        rank: 1,
        centre: CENTRE,
        diameter_mm: DIAMETER,
        probability: 0.375,
        site: Some(Site::RightMca),
        distance_to_vessel_mm: None,
        evidence: Evidence { graph_score: Some(0.5), ..Evidence::default() },
    };
    SeriesResult { map, graph: graph(), candidates: vec![candidate], prediction }
}

/// The files of a format about the series in a folder.
fn written(folder: &Path, format: OutputFormat, abstain: Option<&str>) -> Vec<OutputFile> {
    let result = result(folder, abstain);
    let run = RunRecord::new(&Config::default(), &result.prediction.models, Vec::new(), &[]);
    let source = source_of(folder, &[format], &IngestConfig::default()).unwrap();
    files(&OutputContent { result: &result, run: &run, source: source.as_ref() }, format).unwrap()
}

fn object(folder: &Path, format: OutputFormat, abstain: Option<&str>) -> DefaultDicomObject {
    OpenFileOptions::new().from_reader(&written(folder, format, abstain)[0].content[..]).unwrap()
}

fn items(object: &InMemDicomObject, tag: Tag) -> &[InMemDicomObject] {
    object.element(tag).unwrap().items().unwrap()
}

fn only(object: &InMemDicomObject, tag: Tag) -> &InMemDicomObject {
    let [item] = items(object, tag) else { panic!("one item in {tag}") };
    item
}

fn numbers(object: &InMemDicomObject, tag: Tag) -> Vec<f64> {
    object.element(tag).unwrap().to_multi_float64().unwrap()
}

fn string(object: &InMemDicomObject, tag: Tag) -> String {
    object.element(tag).unwrap().to_str().unwrap().trim_end_matches(['\0', ' ']).to_string()
}

/// All content items of a report.
fn content(object: &InMemDicomObject) -> Vec<&InMemDicomObject> {
    let own = object.get(tags::CONTENT_SEQUENCE).and_then(|e| e.items()).unwrap_or_default();
    own.iter().flat_map(|item| std::iter::once(item).chain(content(item))).collect()
}

/// Position of a pixel (column, row), pixel centres at whole numbers, by PS3.3 C.7.6.2.1.1.
fn place(position: &[f64], orientation: &[f64], spacing: &[f64], (column, row): (f64, f64)) -> [f64; 3] {
    std::array::from_fn(|i| position[i] + orientation[i] * spacing[1] * column + orientation[i + 3] * spacing[0] * row)
}

/// Centre of the segment with a label, the mean of its pixels.
fn centre_of_segment(seg: &InMemDicomObject, label: &str) -> [f64; 3] {
    let segments = items(seg, tags::SEGMENT_SEQUENCE);
    let segment = segments.iter().find(|s| string(s, tags::SEGMENT_LABEL) == label).unwrap();
    let number: u32 = segment.element(tags::SEGMENT_NUMBER).unwrap().to_int().unwrap();
    let shared = only(seg, tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE);
    let orientation = numbers(only(shared, tags::PLANE_ORIENTATION_SEQUENCE), tags::IMAGE_ORIENTATION_PATIENT);
    let spacing = numbers(only(shared, tags::PIXEL_MEASURES_SEQUENCE), tags::PIXEL_SPACING);
    let size = |tag| seg.element(tag).unwrap().to_int::<usize>().unwrap();
    let (rows, columns) = (size(tags::ROWS), size(tags::COLUMNS));
    let bytes = seg.element(tags::PIXEL_DATA).unwrap().to_bytes().unwrap();
    let (mut sum, mut count) = ([0.0; 3], 0.0);
    for (k, frame) in items(seg, tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE).iter().enumerate() {
        let own = only(frame, tags::SEGMENT_IDENTIFICATION_SEQUENCE);
        if own.element(tags::REFERENCED_SEGMENT_NUMBER).unwrap().to_int::<u32>().unwrap() != number {
            continue;
        }
        let position = numbers(only(frame, tags::PLANE_POSITION_SEQUENCE), tags::IMAGE_POSITION_PATIENT);
        for pixel in 0..rows * columns {
            let bit = k * rows * columns + pixel;
            if bytes[bit / 8] >> (bit % 8) & 1 == 1 {
                let at = ((pixel % columns) as f64, (pixel / columns) as f64);
                let p = place(&position, &orientation, &spacing, at);
                sum = std::array::from_fn(|i| sum[i] + p[i]);
                count += 1.0;
            }
        }
    }
    assert!(count > 10.0, "{label} has {count} pixels");
    sum.map(|v| v / count)
}

fn distance(a: [f64; 3], b: Point) -> f64 {
    Point::new(a[0], a[1], a[2]).distance_mm(b)
}

#[test]
fn a_centre_reads_back_in_every_orientation() {
    for (name, directions) in ORIENTATIONS {
        let folder = tempfile::tempdir().unwrap();
        write_source(folder.path(), directions);

        let sr = object(folder.path(), OutputFormat::DicomSr, None);
        let points: Vec<_> = content(&sr).into_iter().filter(|i| string(i, tags::VALUE_TYPE) == "SCOORD3D").collect();
        let [point] = &points[..] else { panic!("{name}: one point") };
        let at = numbers(point, tags::GRAPHIC_DATA);
        assert!(distance([at[0], at[1], at[2]], CENTRE) < 1e-4, "{name}: {at:?}");

        let seg = object(folder.path(), OutputFormat::DicomSeg, None);
        let centre = centre_of_segment(&seg, LABEL);
        assert!(distance(centre, CENTRE) < 0.1, "{name}: {centre:?}");
        // The middle of the box of the vessel, sampled at steps of up to 1.2 mm.
        let vessel = centre_of_segment(&seg, Site::RightMca.name());
        let middle = Point::new(CENTRE.x - 0.5, CENTRE.y - 0.5, CENTRE.z - 0.5);
        assert!(distance(vessel, middle) < 0.65, "{name}: {vessel:?}");

        let gsps = object(folder.path(), OutputFormat::DicomGsps, None);
        let annotations = items(&gsps, tags::GRAPHIC_ANNOTATION_SEQUENCE);
        let graphics = |a: &InMemDicomObject| items(a, tags::GRAPHIC_OBJECT_SEQUENCE).to_vec();
        let is_point = |g: &InMemDicomObject| string(g, tags::GRAPHIC_TYPE) == "POINT";
        let marked: Vec<_> = annotations.iter().filter(|a| graphics(a).iter().any(is_point)).collect();
        let [marked] = &marked[..] else { panic!("{name}: one slice with the centre") };
        let pixel = numbers(graphics(marked).iter().find(|g| is_point(g)).unwrap(), tags::GRAPHIC_DATA);
        let uid = string(only(marked, tags::REFERENCED_IMAGE_SEQUENCE), tags::REFERENCED_SOP_INSTANCE_UID);
        let slice = open_file(folder.path().join(format!("{uid}.dcm"))).unwrap();
        let (position, orientation) =
            (numbers(&slice, tags::IMAGE_POSITION_PATIENT), numbers(&slice, tags::IMAGE_ORIENTATION_PATIENT));
        let spacing = numbers(&slice, tags::PIXEL_SPACING);
        let on_slice = place(&position, &orientation, &spacing, (pixel[0] - 0.5, pixel[1] - 0.5));
        let off: [f64; 3] = std::array::from_fn(|i| CENTRE.xyz()[i] - on_slice[i]);
        let along = |o: &[f64]| (0..3).map(|i| o[i] * off[i]).sum::<f64>();
        assert!(along(&orientation[..3]).abs() < 1e-3 && along(&orientation[3..]).abs() < 1e-3, "{name}: {off:?}");
        assert!(distance(on_slice, CENTRE) < 0.61, "{name}: the nearest slice is half a step away at most");
    }
}

#[test]
fn objects_belong_to_the_study_and_are_the_same_each_time() {
    let folder = tempfile::tempdir().unwrap();
    write_source(folder.path(), ORIENTATIONS[3].1);
    // A name in another character set, which must arrive as it is.
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let path = entry.unwrap().path();
        let mut file = open_file(&path).unwrap();
        file.put(DataElement::new(tags::SPECIFIC_CHARACTER_SET, VR::CS, PrimitiveValue::from("ISO_IR 100")));
        file.put(DataElement::new(tags::PATIENT_NAME, VR::PN, PrimitiveValue::from("Müller^Zoë")));
        file.put(DataElement::new(tags::STUDY_DATE, VR::DA, PrimitiveValue::from("20260102")));
        file.write_to_file(&path).unwrap();
    }
    let uids = SeriesUids::new(7, 0);
    let mut seen = std::collections::BTreeSet::new();
    for format in [OutputFormat::DicomSeg, OutputFormat::DicomSr, OutputFormat::DicomSc, OutputFormat::DicomGsps] {
        let (first, second) = (written(folder.path(), format, None), written(folder.path(), format, None));
        assert!(!first.is_empty() && first[0].name == format.first_file());
        assert!(first.iter().zip(&second).all(|(a, b)| a.content == b.content), "{format:?}");
        let object = object(folder.path(), format, None);
        assert_eq!(string(&object, tags::STUDY_INSTANCE_UID), uids.study());
        assert_eq!(string(&object, tags::PATIENT_ID), uids.patient());
        assert_eq!(string(&object, tags::PATIENT_NAME), "Müller^Zoë");
        assert_eq!(string(&object, tags::SERIES_DATE), "20260102");
        assert_eq!(string(&object, tags::SOFTWARE_VERSIONS), env!("CARGO_PKG_VERSION"));
        assert_eq!(string(&object, tags::DEVICE_SERIAL_NUMBER).len(), 64, "a hash of the weights");
        let uid = string(&object, tags::SOP_INSTANCE_UID);
        assert!(uid.starts_with("2.25.") && uid.len() <= 64 && seen.insert(uid));
        if format == OutputFormat::DicomSr {
            let evidence = only(&object, tags::CURRENT_REQUESTED_PROCEDURE_EVIDENCE_SEQUENCE);
            let series = only(evidence, tags::REFERENCED_SERIES_SEQUENCE);
            assert_eq!(string(series, tags::SERIES_INSTANCE_UID), uids.series());
            assert_eq!(items(series, tags::REFERENCED_SOP_SEQUENCE).len(), 21);
            assert_eq!(string(&object, tags::VERIFICATION_FLAG), "UNVERIFIED");
            assert_eq!(string(&object, tags::PRELIMINARY_FLAG), "PRELIMINARY");
        } else {
            assert_eq!(
                string(only(&object, tags::REFERENCED_SERIES_SEQUENCE), tags::SERIES_INSTANCE_UID),
                uids.series()
            );
        }
    }
    let printed =
        format!("{:?}", source_of(folder.path(), &[OutputFormat::DicomSr], &IngestConfig::default()).unwrap());
    assert!(!printed.contains("ller") && !printed.contains(&uids.patient()), "{printed}");
}

#[test]
fn an_abstention_has_its_reason_and_no_candidate() {
    let folder = tempfile::tempdir().unwrap();
    write_source(folder.path(), ORIENTATIONS[0].1);
    let reason = Some("is this a head?");
    let sr = object(folder.path(), OutputFormat::DicomSr, reason);
    let texts: Vec<String> = content(&sr)
        .into_iter()
        .filter(|i| i.get(tags::TEXT_VALUE).is_some())
        .map(|i| string(i, tags::TEXT_VALUE))
        .collect();
    assert!(texts.iter().any(|t| t.contains("is this a head?")) && !texts.concat().contains('%'), "{texts:?}");
    assert!(content(&sr).iter().all(|i| string(i, tags::VALUE_TYPE) != "NUM"));
    let seg = object(folder.path(), OutputFormat::DicomSeg, reason);
    let labels: Vec<String> =
        items(&seg, tags::SEGMENT_SEQUENCE).iter().map(|s| string(s, tags::SEGMENT_LABEL)).collect();
    assert_eq!(labels, [Site::RightMca.name()]);
    assert_eq!(written(folder.path(), OutputFormat::DicomSc, reason).len(), 1);
    let gsps = object(folder.path(), OutputFormat::DicomGsps, reason);
    let note = only(only(&gsps, tags::GRAPHIC_ANNOTATION_SEQUENCE), tags::TEXT_OBJECT_SEQUENCE);
    assert!(string(note, tags::UNFORMATTED_TEXT_VALUE).contains("is this a head?"));
    let text = |format| String::from_utf8(written(folder.path(), format, reason)[0].content.clone()).unwrap();
    assert!(text(OutputFormat::Csv).contains(",7.000,,Right Middle"), "{}", text(OutputFormat::Csv));
    let fhir = text(OutputFormat::Fhir);
    assert!(fhir.contains("is this a head?") && !fhir.contains("Observation") && !fhir.contains('%'), "{fhir}");
}

#[test]
fn tables_and_graphs_hold_what_the_result_holds() {
    let folder = tempfile::tempdir().unwrap();
    write_source(folder.path(), ORIENTATIONS[0].1);
    let text = |format| String::from_utf8(written(folder.path(), format, None)[0].content.clone()).unwrap();

    let table = text(OutputFormat::Csv);
    let (header, row) = table.trim_end().split_once('\n').unwrap();
    let cells: std::collections::BTreeMap<&str, &str> = header.split(',').zip(row.split(',')).collect();
    assert_eq!((cells["centre_left_mm"], cells["probability"], cells["graph_score"]), ("1.3700", "0.375000", "0.5"));
    assert_eq!((cells["distance_to_vessel_mm"], cells["energy"]), ("", ""));

    let graphml = text(OutputFormat::Graphml);
    assert_eq!((graphml.matches("<node ").count(), graphml.matches("<edge ").count()), (3, 2));

    // Every parent is written before its children, and the loop is open.
    let swc = text(OutputFormat::Swc);
    let samples: Vec<Vec<f64>> = swc
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split(' ').map(|v| v.parse().unwrap()).collect())
        .collect();
    assert_eq!(samples.len(), 6);
    assert_eq!(samples.iter().filter(|s| s[6] == -1.0).count(), 2, "{swc}");
    assert!(samples.iter().enumerate().all(|(i, s)| s[0] == i as f64 + 1.0 && s[6] < s[0] && s[5] == 1.25), "{swc}");

    let vtp = text(OutputFormat::Vtk);
    assert!(vtp.contains("NumberOfPoints=\"6\"") && vtp.contains("NumberOfLines=\"2\""), "{vtp}");

    let fhir: serde_json::Value = serde_json::from_str(&text(OutputFormat::Fhir)).unwrap();
    let entries = fhir["entry"].as_array().unwrap();
    let report = &entries[0]["resource"];
    assert_eq!(report["status"], "preliminary");
    let references: Vec<_> = report["result"].as_array().unwrap().iter().map(|r| &r["reference"]).collect();
    assert_eq!(references, entries[1..].iter().map(|e| &e["fullUrl"]).collect::<Vec<_>>());
    assert_eq!(report["subject"]["identifier"]["value"], SeriesUids::new(7, 0).patient());
    assert_eq!(entries[2]["resource"]["valueQuantity"]["value"], 37.5);

    let pdf = &written(folder.path(), OutputFormat::Pdf, None)[0].content;
    assert!(pdf.starts_with(b"%PDF-") && *pdf == written(folder.path(), OutputFormat::Pdf, None)[0].content);
}

#[test]
fn without_a_study_dicom_is_refused_and_fhir_has_no_subject() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("head.nii.gz");
    let grid = Grid::new(Shape::new(4, 4, 4), Affine::axis_aligned(Spacing::isotropic(1.0), CENTRE));
    nifti::write(&path, &Image::filled(grid, 1.0f32)).unwrap();
    let source = |formats: &[OutputFormat]| source_of(&path, formats, &IngestConfig::default());
    let refused = source(&[OutputFormat::Html, OutputFormat::DicomSr]).unwrap_err().to_string();
    assert!(refused.contains("not DICOM"), "{refused}");
    assert_eq!(source(&[OutputFormat::Fhir]).unwrap(), None);

    // A header without a frame of reference is named with its attribute.
    let series = folder.path().join("series");
    write_source(&series, ORIENTATIONS[0].1);
    for entry in std::fs::read_dir(&series).unwrap() {
        let path = entry.unwrap().path();
        let mut file = open_file(&path).unwrap();
        file.remove_element(tags::FRAME_OF_REFERENCE_UID);
        file.write_to_file(&path).unwrap();
    }
    let refused = source_of(&series, &[OutputFormat::DicomSeg], &IngestConfig::default()).unwrap_err().to_string();
    assert!(refused.contains("(0020,0052)"), "{refused}");
}
