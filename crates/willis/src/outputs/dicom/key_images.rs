//! `key-image-N.sc.dcm`: Secondary Capture images (PS3.3 A.8.1) for viewers that show neither
//! Segmentations nor presentation states: three planes through each of the first candidates.

use dicom_core::{DataElement, PrimitiveValue, VR};
use dicom_dictionary_std::{tags, uids};
use dicom_object::InMemDicomObject;
use image::{Rgb, RgbImage};
use willis_core::Candidate;

use super::SHOWN;
use super::codes;
use super::glyphs;
use super::object::{ObjectKind, Study, WholeFile, ascii, put, put_code, put_sequence, put_short, referenced_instance};
use super::segmentation::nearest_slice;
use crate::report::RESEARCH_ONLY;
use crate::report::figures::{SLICE_MM, View, slice_image};

/// Width and height of one plane, pixels.
const PLANE: u32 = 320;
/// Height of the lines of text above and below the planes, pixels.
const TEXT: u32 = 28;
/// Pixels per dot of the letters.
const SCALE: u32 = 2;
const WHITE: Rgb<u8> = Rgb([235, 235, 235]);
const AMBER: Rgb<u8> = Rgb([255, 190, 90]);
const BLUE: Rgb<u8> = Rgb([89, 208, 255]);

/// The images; one with a line of text if there is no candidate to show or willis abstains.
pub(super) fn key_images(study: &Study) -> Vec<InMemDicomObject> {
    let result = study.result;
    let middle = study.source.slices.len() / 2;
    let note = |line: &str| vec![object(study, 1, line, &text_image(line), middle)];
    if let Some(reason) = &result.prediction.abstain {
        return note(&format!("No verdict: willis abstains: {reason}"));
    }
    if result.candidates.is_empty() {
        return note("willis: no candidate");
    }
    result
        .candidates
        .iter()
        .take(SHOWN)
        .enumerate()
        .map(|(i, candidate)| {
            let caption = caption(candidate);
            let nearest = nearest_slice(&study.source.slices, candidate.centre);
            object(study, i + 1, &caption, &triptych(study, candidate, &caption), nearest)
        })
        .collect()
}

fn caption(candidate: &Candidate) -> String {
    let site = candidate.site.map_or("site n/a", |site| site.name());
    let (p, mm) = (100.0 * candidate.probability, candidate.diameter_mm);
    format!("Candidate {}: {p:.1} %, {mm:.1} mm, {site}", candidate.rank)
}

/// Three planes of 40 mm side by side, with captions.
fn triptych(study: &Study, candidate: &Candidate, caption: &str) -> RgbImage {
    let mut picture = RgbImage::new(3 * PLANE, PLANE + 2 * TEXT);
    glyphs::write(&mut picture, (6, 7), caption, SCALE, WHITE);
    for (k, view) in (0u32..).zip(View::ALL) {
        let plane = slice_image(&study.result.map, view, candidate.centre, PLANE);
        let left = k * PLANE;
        for (x, y, &pixel) in plane.enumerate_pixels() {
            picture.put_pixel(left + x, TEXT + y, pixel);
        }
        cross(&mut picture, left + PLANE / 2, TEXT + PLANE / 2);
        let (first, second) = view.sides();
        glyphs::write(&mut picture, (left + 6, TEXT + PLANE / 2), first, SCALE, WHITE);
        glyphs::write(&mut picture, (left + PLANE - 18, TEXT + PLANE / 2), second, SCALE, WHITE);
        let name = format!("{}, {SLICE_MM:.0} mm", view.name());
        glyphs::write(&mut picture, (left + 6, TEXT + PLANE - 22), &name, SCALE, WHITE);
    }
    glyphs::write(&mut picture, (6, PLANE + TEXT + 7), RESEARCH_ONLY, SCALE, AMBER);
    picture
}

/// Four strokes around a centre.
fn cross(picture: &mut RgbImage, x: u32, y: u32) {
    for step in 16..36 {
        for (dx, dy) in [(step, 0), (-step, 0), (0, step), (0, -step)] {
            picture.put_pixel(x.wrapping_add_signed(dx), y.wrapping_add_signed(dy), BLUE);
        }
    }
}

/// One or two lines of text on black.
fn text_image(line: &str) -> RgbImage {
    let mut picture = RgbImage::new(3 * PLANE, 4 * TEXT);
    let fit = ((3 * PLANE - 12) / (glyphs::ADVANCE * SCALE)) as usize;
    let line = ascii(line);
    for (row, part) in (0u32..).zip(line.as_bytes().chunks(fit).take(2)) {
        glyphs::write(&mut picture, (6, 7 + row * TEXT), &String::from_utf8_lossy(part), SCALE, WHITE);
    }
    glyphs::write(&mut picture, (6, 3 * TEXT), RESEARCH_ONLY, SCALE, AMBER);
    picture
}

/// The object of a picture that was made about a slice and its neighbours.
fn object(study: &Study, instance: usize, caption: &str, picture: &RgbImage, slice: usize) -> InMemDicomObject {
    let mut object = study.object(&ObjectKind {
        sop_class: uids::SECONDARY_CAPTURE_IMAGE_STORAGE,
        modality: "OT",
        series_number: 9003,
        description: "willis: key images, research use only",
        instance,
    });
    for (tag, vr, value) in [
        (tags::CONVERSION_TYPE, VR::CS, "WSD"),
        (tags::IMAGE_TYPE, VR::CS, "DERIVED\\SECONDARY"),
        (tags::IMAGE_COMMENTS, VR::LT, &ascii(caption)),
        (tags::PATIENT_ORIENTATION, VR::CS, ""),
        (tags::LATERALITY, VR::CS, ""),
        (tags::BURNED_IN_ANNOTATION, VR::CS, "NO"),
        (tags::LOSSY_IMAGE_COMPRESSION, VR::CS, "00"),
        (tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "RGB"),
    ] {
        put(&mut object, tag, vr, value);
    }
    let (width, height) = picture.dimensions();
    for (tag, value) in [
        (tags::SAMPLES_PER_PIXEL, 3),
        (tags::PLANAR_CONFIGURATION, 0),
        (tags::ROWS, height as usize),
        (tags::COLUMNS, width as usize),
        (tags::BITS_ALLOCATED, 8),
        (tags::BITS_STORED, 8),
        (tags::HIGH_BIT, 7),
        (tags::PIXEL_REPRESENTATION, 0),
    ] {
        put_short(&mut object, tag, value);
    }
    let mut source = referenced_instance(&study.source.slices[slice], WholeFile::No);
    put_code(&mut source, tags::PURPOSE_OF_REFERENCE_CODE_SEQUENCE, codes::SOURCE_IMAGE);
    put_sequence(&mut object, tags::SOURCE_IMAGE_SEQUENCE, vec![source]);
    let series = study.referenced_series(tags::REFERENCED_INSTANCE_SEQUENCE);
    put_sequence(&mut object, tags::REFERENCED_SERIES_SEQUENCE, vec![series]);
    let mut pixels = picture.as_raw().clone();
    if pixels.len() % 2 == 1 {
        pixels.push(0);
    }
    object.put(DataElement::new(tags::PIXEL_DATA, VR::OB, PrimitiveValue::U8(pixels.into())));
    object
}
