//! `candidates.gsps.dcm`: a Grayscale Softcopy Presentation State (PS3.3 A.33.1) with a circle and a
//! label for each of the first candidates on the slices that it touches.

use dicom_core::{DataElement, PrimitiveValue, VR};
use dicom_dictionary_std::{tags, uids};
use dicom_object::InMemDicomObject;
use willis_core::Candidate;
use willis_imaging::ingest::SourceSlice;

use super::SHOWN;
use super::object::{
    ObjectKind, Study, WholeFile, ascii, put, put_decimals, put_sequence, put_short, referenced_instance,
};
use super::segmentation::{nearest_slice, pixel_of};
use crate::report::RESEARCH_ONLY;

const KIND: ObjectKind = ObjectKind {
    sop_class: uids::GRAYSCALE_SOFTCOPY_PRESENTATION_STATE_STORAGE,
    modality: "PR",
    series_number: 9004,
    description: "willis: marks on candidates, research use only",
    instance: 1,
};

/// Name of the layer of all marks.
const LAYER: &str = "WILLIS";
/// Corners of the polygon that stands for a circle.
const CORNERS: usize = 48;
/// Smallest radius of a circle, pixels.
const MIN_RADIUS_PIXELS: f64 = 3.0;
/// Share of the voxels below and above the displayed window.
const WINDOW: (f64, f64) = (0.01, 0.995);

/// The presentation state. If willis abstains, it says so on the middle slice.
pub(super) fn presentation_state(study: &Study) -> InMemDicomObject {
    let slices = &study.source.slices;
    let first = &slices[0];
    let mut object = study.object(&KIND);
    let (date, time) = study.date_and_time();
    for (tag, vr, value) in [
        (tags::PRESENTATION_CREATION_DATE, VR::DA, date.as_str()),
        (tags::PRESENTATION_CREATION_TIME, VR::TM, time.as_str()),
        (tags::CONTENT_LABEL, VR::CS, "WILLIS"),
        (tags::CONTENT_DESCRIPTION, VR::LO, "Aneurysm candidates"),
        (tags::CONTENT_CREATOR_NAME, VR::PN, ""),
        (tags::PRESENTATION_LUT_SHAPE, VR::CS, "IDENTITY"),
        (tags::RESCALE_TYPE, VR::LO, "US"),
        (tags::LATERALITY, VR::CS, ""),
    ] {
        put(&mut object, tag, vr, value);
    }
    // These belong to images and documents.
    object.remove_element(tags::CONTENT_DATE);
    object.remove_element(tags::CONTENT_TIME);
    put_decimals(&mut object, tags::RESCALE_SLOPE, &[first.rescale.0]);
    put_decimals(&mut object, tags::RESCALE_INTERCEPT, &[first.rescale.1]);
    let (low, high) = window(study);
    let mut voi = InMemDicomObject::new_empty();
    put_decimals(&mut voi, tags::WINDOW_CENTER, &[f64::midpoint(low, high)]);
    put_decimals(&mut voi, tags::WINDOW_WIDTH, &[(high - low).max(1.0)]);
    put_sequence(&mut object, tags::SOFTCOPY_VOILUT_SEQUENCE, vec![voi]);
    put_sequence(
        &mut object,
        tags::REFERENCED_SERIES_SEQUENCE,
        vec![study.referenced_series(tags::REFERENCED_IMAGE_SEQUENCE)],
    );
    put_sequence(&mut object, tags::DISPLAYED_AREA_SELECTION_SEQUENCE, vec![displayed_area(first)]);
    let mut layer = InMemDicomObject::new_empty();
    put(&mut layer, tags::GRAPHIC_LAYER, VR::CS, LAYER);
    put(&mut layer, tags::GRAPHIC_LAYER_ORDER, VR::IS, "1");
    put(&mut layer, tags::GRAPHIC_LAYER_DESCRIPTION, VR::LO, RESEARCH_ONLY);
    put_sequence(&mut object, tags::GRAPHIC_LAYER_SEQUENCE, vec![layer]);
    put_sequence(&mut object, tags::GRAPHIC_ANNOTATION_SEQUENCE, annotations(study));
    object
}

fn annotations(study: &Study) -> Vec<InMemDicomObject> {
    let slices = &study.source.slices;
    let middle = &slices[slices.len() / 2];
    let note = |line: String| vec![annotation(middle, Vec::new(), vec![label(&line, [4.0, 16.0])])];
    if let Some(reason) = &study.result.prediction.abstain {
        return note(format!("No verdict: willis abstains: {reason}"));
    }
    if study.result.candidates.is_empty() {
        return note("willis: no candidate".into());
    }
    study.result.candidates.iter().take(SHOWN).flat_map(|candidate| marks(slices, candidate)).collect()
}

/// Circles of a candidate on every slice that it touches; centre and label on the nearest one.
fn marks(slices: &[SourceSlice], candidate: &Candidate) -> Vec<InMemDicomObject> {
    let radius = candidate.diameter_mm / 2.0;
    let nearest = nearest_slice(slices, candidate.centre);
    let mut marks = Vec::new();
    for (i, slice) in slices.iter().enumerate() {
        let (row, column, off_plane) = pixel_of(slice, candidate.centre);
        if off_plane.abs() >= radius && i != nearest {
            continue;
        }
        // The outer corner of the first pixel is 0\0 (PS3.3 C.10.5.1.2).
        let [top, left] = slice.first_pixel.map(|pixels| pixels as f64 + 0.5);
        let (x, y) = (column + left, row + top);
        let section = (radius * radius - off_plane * off_plane).max(0.0).sqrt();
        let [row_mm, column_mm] = slice.pixel_spacing;
        let (rx, ry) = ((section / column_mm).max(MIN_RADIUS_PIXELS), (section / row_mm).max(MIN_RADIUS_PIXELS));
        let circle: Vec<[f64; 2]> = (0..=CORNERS)
            .map(|corner| {
                let angle = std::f64::consts::TAU * (corner % CORNERS) as f64 / CORNERS as f64;
                [x + rx * angle.cos(), y + ry * angle.sin()]
            })
            .collect();
        let mut graphics = vec![graphic("POLYLINE", &circle)];
        let mut texts = Vec::new();
        if i == nearest {
            graphics.push(graphic("POINT", &[[x, y]]));
            let site = candidate.site.map_or("site n/a", |site| site.name());
            let line = format!(
                "{}: {:.1} %, {:.1} mm, {site}",
                candidate.rank,
                100.0 * candidate.probability,
                candidate.diameter_mm
            );
            texts.push(label(&line, [x + rx + 1.0, y - ry]));
        }
        marks.push(annotation(slice, graphics, texts));
    }
    marks
}

fn annotation(slice: &SourceSlice, graphics: Vec<InMemDicomObject>, texts: Vec<InMemDicomObject>) -> InMemDicomObject {
    let mut item = InMemDicomObject::new_empty();
    put_sequence(&mut item, tags::REFERENCED_IMAGE_SEQUENCE, vec![referenced_instance(slice, WholeFile::No)]);
    put(&mut item, tags::GRAPHIC_LAYER, VR::CS, LAYER);
    if !texts.is_empty() {
        put_sequence(&mut item, tags::TEXT_OBJECT_SEQUENCE, texts);
    }
    if !graphics.is_empty() {
        put_sequence(&mut item, tags::GRAPHIC_OBJECT_SEQUENCE, graphics);
    }
    item
}

fn graphic(kind: &str, points: &[[f64; 2]]) -> InMemDicomObject {
    let mut item = InMemDicomObject::new_empty();
    put(&mut item, tags::GRAPHIC_ANNOTATION_UNITS, VR::CS, "PIXEL");
    put_short(&mut item, tags::GRAPHIC_DIMENSIONS, 2);
    put_short(&mut item, tags::NUMBER_OF_GRAPHIC_POINTS, points.len());
    put_points(&mut item, tags::GRAPHIC_DATA, points.as_flattened());
    put(&mut item, tags::GRAPHIC_TYPE, VR::CS, kind);
    if kind == "POLYLINE" {
        put(&mut item, tags::GRAPHIC_FILLED, VR::CS, "N");
    }
    item
}

fn label(line: &str, at: [f64; 2]) -> InMemDicomObject {
    let mut item = InMemDicomObject::new_empty();
    put(&mut item, tags::ANCHOR_POINT_ANNOTATION_UNITS, VR::CS, "PIXEL");
    put(&mut item, tags::UNFORMATTED_TEXT_VALUE, VR::ST, &ascii(line));
    put_points(&mut item, tags::ANCHOR_POINT, &at);
    put(&mut item, tags::ANCHOR_POINT_VISIBILITY, VR::CS, "N");
    item
}

fn put_points(item: &mut InMemDicomObject, tag: dicom_core::Tag, values: &[f64]) {
    let values: Vec<f32> = values.iter().map(|&v| v as f32).collect();
    item.put(DataElement::new(tag, VR::FL, PrimitiveValue::F32(values.into())));
}

/// The whole image, as large as it fits.
fn displayed_area(slice: &SourceSlice) -> InMemDicomObject {
    let mut area = InMemDicomObject::new_empty();
    let [top, left] = slice.first_pixel;
    let corner = |tag, column: usize, row: usize| {
        DataElement::new(tag, VR::SL, PrimitiveValue::I32(vec![column as i32, row as i32].into()))
    };
    area.put(corner(tags::DISPLAYED_AREA_TOP_LEFT_HAND_CORNER, left + 1, top + 1));
    area.put(corner(tags::DISPLAYED_AREA_BOTTOM_RIGHT_HAND_CORNER, left + slice.columns, top + slice.rows));
    put(&mut area, tags::PRESENTATION_SIZE_MODE, VR::CS, "SCALE TO FIT");
    put_decimals(&mut area, tags::PRESENTATION_PIXEL_SPACING, &slice.pixel_spacing);
    area
}

/// The displayed values: nearly all of the volume's.
fn window(study: &Study) -> (f64, f64) {
    let voxels = &study.result.volume().image.voxels;
    // Every voxel of a small volume, about a hundred thousand of a large one.
    let step = (voxels.len() / 100_000).max(1);
    let mut sample: Vec<f32> = voxels.iter().step_by(step).copied().collect();
    sample.sort_by(f32::total_cmp);
    let at = |share: f64| sample.get((sample.len().saturating_sub(1) as f64 * share) as usize).copied().unwrap_or(0.0);
    (f64::from(at(WINDOW.0)), f64::from(at(WINDOW.1)))
}
