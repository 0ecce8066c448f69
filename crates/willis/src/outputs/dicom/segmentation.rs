//! `vessels.seg.dcm`: a binary Segmentation (PS3.3 A.51) on the source slices, with one segment for
//! each site that has voxels and one for each candidate.
//!
//! A pixel has the site of the vessel map's voxel that contains its centre. A candidate is drawn as
//! the ball of its centre and diameter, which is what the other outputs state. Frames without a
//! pixel are left out.

use std::collections::BTreeMap;

use dicom_core::{DataElement, PrimitiveValue, VR};
use dicom_dictionary_std::{tags, uids};
use dicom_object::InMemDicomObject;
use rayon::prelude::*;
use willis_core::{Candidate, Point, Site};
use willis_imaging::ingest::SourceSlice;

use super::codes;
use super::object::{
    ObjectKind, Study, WholeFile, code_item, put, put_code, put_decimals, put_sequence, put_short, referenced_instance,
};
use crate::report::figures::site_rgb;

const KIND: ObjectKind = ObjectKind {
    sop_class: uids::SEGMENTATION_STORAGE,
    modality: "SEG",
    series_number: 9001,
    description: "willis: arteries and candidates, research use only",
    instance: 1,
};

/// What a segment shows.
#[derive(Debug, Clone, Copy)]
enum Content<'a> {
    Site(Site),
    Candidate(&'a Candidate),
}

/// Pixels of one segment on one slice: one bit each, the first in the lowest bit.
type Bits = Vec<u8>;

/// The Segmentation.
pub(super) fn segmentation(study: &Study) -> InMemDicomObject {
    let frames = frames(study);
    let sites = Site::ALL.into_iter().map(Content::Site);
    // Silence about candidates if willis abstains.
    let candidates = study.result.candidates.iter().filter(|_| study.result.prediction.abstain.is_none());
    let all: Vec<Content> = sites.chain(candidates.map(Content::Candidate)).collect();
    let mut shown: Vec<usize> = (0..all.len()).filter(|segment| frames.contains_key(segment)).collect();
    if shown.is_empty() {
        shown.push(0);
    }

    let first = &study.source.slices[0];
    let mut object = study.object(&KIND);
    study.put_frame_of_reference(&mut object);
    for (tag, vr, value) in [
        (tags::IMAGE_TYPE, VR::CS, "DERIVED\\PRIMARY"),
        (tags::LOSSY_IMAGE_COMPRESSION, VR::CS, "00"),
        (tags::SEGMENTATION_TYPE, VR::CS, "BINARY"),
        (tags::SEGMENTS_OVERLAP, VR::CS, "YES"),
        (tags::CONTENT_LABEL, VR::CS, "WILLIS"),
        (tags::CONTENT_DESCRIPTION, VR::LO, "Arteries by site and aneurysm candidates"),
        (tags::CONTENT_CREATOR_NAME, VR::PN, ""),
        (tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "MONOCHROME2"),
    ] {
        put(&mut object, tag, vr, value);
    }
    for (tag, value) in [
        (tags::SAMPLES_PER_PIXEL, 1),
        (tags::ROWS, first.rows),
        (tags::COLUMNS, first.columns),
        (tags::BITS_ALLOCATED, 1),
        (tags::BITS_STORED, 1),
        (tags::HIGH_BIT, 0),
        (tags::PIXEL_REPRESENTATION, 0),
    ] {
        put_short(&mut object, tag, value);
    }
    let segments = shown.iter().enumerate().map(|(i, &segment)| segment_item(study, i + 1, all[segment])).collect();
    put_sequence(&mut object, tags::SEGMENT_SEQUENCE, segments);
    put_sequence(
        &mut object,
        tags::REFERENCED_SERIES_SEQUENCE,
        vec![study.referenced_series(tags::REFERENCED_INSTANCE_SEQUENCE)],
    );
    put_dimensions(study, &mut object);
    put_sequence(&mut object, tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE, vec![shared_groups(study)]);

    let (mut items, mut pixels) = (Vec::new(), BitStream::default());
    let size = first.rows * first.columns;
    for (number, segment) in (1..).zip(&shown) {
        let empty = BTreeMap::from([(0, vec![0; size.div_ceil(8)])]);
        for (&slice, bits) in frames.get(segment).unwrap_or(&empty) {
            items.push(frame_item(&study.source.slices[slice], number, slice + 1));
            pixels.extend(bits, size);
        }
    }
    put(&mut object, tags::NUMBER_OF_FRAMES, VR::IS, &items.len().to_string());
    put_sequence(&mut object, tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE, items);
    object.put(DataElement::new(tags::PIXEL_DATA, VR::OB, PrimitiveValue::U8(pixels.bytes().into())));
    object
}

/// Pixels by segment and slice; segments are numbered from 0, sites first.
fn frames(study: &Study) -> BTreeMap<usize, BTreeMap<usize, Bits>> {
    let slices = &study.source.slices;
    let drawn: Vec<Vec<(usize, Bits)>> = slices.par_iter().map(|slice| draw(study, slice)).collect();
    let mut frames: BTreeMap<usize, BTreeMap<usize, Bits>> = BTreeMap::new();
    for (slice, segments) in drawn.into_iter().enumerate() {
        for (segment, bits) in segments {
            frames.entry(segment).or_default().insert(slice, bits);
        }
    }
    if study.result.prediction.abstain.is_none() {
        for (rank, candidate) in study.result.candidates.iter().enumerate() {
            // A ball between the centres of all pixels: the nearest pixel.
            frames.entry(Site::ALL.len() + rank).or_insert_with(|| nearest_pixel(slices, candidate.centre));
        }
    }
    frames.retain(|_, by_slice| !by_slice.is_empty());
    frames
}

/// Pixels of all segments on one slice.
fn draw(study: &Study, slice: &SourceSlice) -> Vec<(usize, Bits)> {
    let map = &study.result.map;
    let bytes = (slice.rows * slice.columns).div_ceil(8);
    let mut segments: BTreeMap<usize, Bits> = BTreeMap::new();
    let mut set = |segment: usize, pixel: usize| {
        segments.entry(segment).or_insert_with(|| vec![0; bytes])[pixel / 8] |= 1 << (pixel % 8);
    };
    if let Some(inverse) = map.site.grid.affine.inverse() {
        let shape = map.site.grid.shape;
        for row in 0..slice.rows {
            for column in 0..slice.columns {
                let voxel = inverse.apply(place(slice, row as f64, column as f64));
                if !shape.contains(voxel) {
                    continue;
                }
                let index = shape.nearest(voxel);
                let site = Site::from_mask_value(*map.site.at(index)).filter(|_| *map.vessel.at(index) >= 0.5);
                if let Some(site) = site {
                    set(site.column(), row * slice.columns + column);
                }
            }
        }
    }
    if study.result.prediction.abstain.is_none() {
        for (rank, candidate) in study.result.candidates.iter().enumerate() {
            ball(slice, candidate, |pixel| set(Site::ALL.len() + rank, pixel));
        }
    }
    segments.into_iter().collect()
}

/// Calls `set` with the pixels of a slice inside the ball of a candidate.
fn ball(slice: &SourceSlice, candidate: &Candidate, mut set: impl FnMut(usize)) {
    let radius = candidate.diameter_mm / 2.0;
    let (row, column, off_plane) = pixel_of(slice, candidate.centre);
    if off_plane.abs() > radius {
        return;
    }
    let range = |at: f64, step: f64, count: usize| {
        let reach = radius / step + 1.0;
        (at - reach).floor().max(0.0) as usize..((at + reach).ceil().max(0.0) as usize + 1).min(count)
    };
    for r in range(row, slice.pixel_spacing[0], slice.rows) {
        for c in range(column, slice.pixel_spacing[1], slice.columns) {
            if place(slice, r as f64, c as f64).distance_mm(candidate.centre) <= radius {
                set(r * slice.columns + c);
            }
        }
    }
}

/// The pixel nearest to a point, with its slice; none if the point is outside all slices.
fn nearest_pixel(slices: &[SourceSlice], point: Point) -> BTreeMap<usize, Bits> {
    let nearest = nearest_slice(slices, point);
    let slice = &slices[nearest];
    let (row, column, _) = pixel_of(slice, point);
    let inside = |at: f64, count: usize| (at.round() >= 0.0 && at.round() < count as f64).then(|| at.round() as usize);
    match (inside(row, slice.rows), inside(column, slice.columns)) {
        (Some(r), Some(c)) => {
            let pixel = r * slice.columns + c;
            let mut bits = vec![0; (slice.rows * slice.columns).div_ceil(8)];
            bits[pixel / 8] |= 1 << (pixel % 8);
            BTreeMap::from([(nearest, bits)])
        }
        _ => BTreeMap::new(),
    }
}

/// The slice whose plane is nearest to a point.
pub(super) fn nearest_slice(slices: &[SourceSlice], point: Point) -> usize {
    let distance = |slice: &SourceSlice| pixel_of(slice, point).2.abs();
    let nearest = (0..slices.len()).min_by(|&a, &b| distance(&slices[a]).total_cmp(&distance(&slices[b])));
    nearest.unwrap_or_default()
}

/// Centre of a pixel, LPS mm.
pub(super) fn place(slice: &SourceSlice, row: f64, column: f64) -> Point {
    let [along_row, along_column] = slice.directions;
    let [row_mm, column_mm] = slice.pixel_spacing;
    let at = |i: usize| slice.position[i] + along_row[i] * column * column_mm + along_column[i] * row * row_mm;
    Point::new(at(0), at(1), at(2))
}

/// Row, column and distance from the plane (mm) of a point; pixel centres are at whole numbers.
pub(super) fn pixel_of(slice: &SourceSlice, point: Point) -> (f64, f64, f64) {
    let d: [f64; 3] = std::array::from_fn(|i| point.xyz()[i] - slice.position[i]);
    let dot = |a: [f64; 3]| a[0] * d[0] + a[1] * d[1] + a[2] * d[2];
    let [a, b] = slice.directions;
    let normal = [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
    (dot(b) / slice.pixel_spacing[0], dot(a) / slice.pixel_spacing[1], dot(normal))
}

fn segment_item(study: &Study, number: usize, content: Content) -> InMemDicomObject {
    let mut item = InMemDicomObject::new_empty();
    put_short(&mut item, tags::SEGMENT_NUMBER, number);
    put(&mut item, tags::SEGMENT_ALGORITHM_TYPE, VR::CS, "AUTOMATIC");
    put(&mut item, tags::SEGMENT_ALGORITHM_NAME, VR::LO, "willis");
    put_sequence(&mut item, tags::SEGMENTATION_ALGORITHM_IDENTIFICATION_SEQUENCE, vec![study.algorithm()]);
    let (label, category, kind, side, colour) = match content {
        Content::Site(site) => {
            let (kind, side) = (codes::artery(site), codes::side(site));
            (site.name().to_string(), codes::ANATOMICAL_STRUCTURE, kind, side, site_rgb(Some(site)))
        }
        Content::Candidate(candidate) => {
            let label = format!("Candidate {}", candidate.rank);
            put(&mut item, tags::TRACKING_ID, VR::UT, &tracking_id(candidate));
            put(&mut item, tags::TRACKING_UID, VR::UI, &study.uid(&tracking_id(candidate)));
            let region = candidate.site.map(|site| {
                let mut region = code_item(codes::artery(site));
                if let Some(side) = codes::side(site) {
                    put_code(&mut region, tags::ANATOMIC_REGION_MODIFIER_SEQUENCE, side);
                }
                region
            });
            put_sequence(&mut item, tags::ANATOMIC_REGION_SEQUENCE, region.into_iter().collect());
            if candidate.site.is_none() {
                item.remove_element(tags::ANATOMIC_REGION_SEQUENCE);
            }
            (label, codes::ALTERED_STRUCTURE, codes::ANEURYSM, None, [0x59, 0xd0, 0xff])
        }
    };
    put(&mut item, tags::SEGMENT_LABEL, VR::LO, &label);
    put_code(&mut item, tags::SEGMENTED_PROPERTY_CATEGORY_CODE_SEQUENCE, category);
    let mut kind = code_item(kind);
    if let Some(side) = side {
        put_code(&mut kind, tags::SEGMENTED_PROPERTY_TYPE_MODIFIER_CODE_SEQUENCE, side);
    }
    put_sequence(&mut item, tags::SEGMENTED_PROPERTY_TYPE_CODE_SEQUENCE, vec![kind]);
    let lab = PrimitiveValue::U16(cie_lab(colour).to_vec().into());
    item.put(DataElement::new(tags::RECOMMENDED_DISPLAY_CIE_LAB_VALUE, VR::US, lab));
    item
}

/// Name of a candidate in all objects about a series.
pub(super) fn tracking_id(candidate: &Candidate) -> String {
    format!("willis candidate {}", candidate.rank)
}

fn put_dimensions(study: &Study, object: &mut InMemDicomObject) {
    let uid = study.uid("dimensions");
    let mut organization = InMemDicomObject::new_empty();
    put(&mut organization, tags::DIMENSION_ORGANIZATION_UID, VR::UI, &uid);
    put_sequence(object, tags::DIMENSION_ORGANIZATION_SEQUENCE, vec![organization]);
    let index = |pointer, group, label| {
        let mut item = InMemDicomObject::new_empty();
        item.put(DataElement::new(tags::DIMENSION_INDEX_POINTER, VR::AT, PrimitiveValue::Tags(vec![pointer].into())));
        item.put(DataElement::new(tags::FUNCTIONAL_GROUP_POINTER, VR::AT, PrimitiveValue::Tags(vec![group].into())));
        put(&mut item, tags::DIMENSION_ORGANIZATION_UID, VR::UI, &uid);
        put(&mut item, tags::DIMENSION_DESCRIPTION_LABEL, VR::LO, label);
        item
    };
    let indices = vec![
        index(tags::REFERENCED_SEGMENT_NUMBER, tags::SEGMENT_IDENTIFICATION_SEQUENCE, "Segment"),
        index(tags::IMAGE_POSITION_PATIENT, tags::PLANE_POSITION_SEQUENCE, "Slice"),
    ];
    put_sequence(object, tags::DIMENSION_INDEX_SEQUENCE, indices);
}

/// What all frames have in common: orientation and pixel size.
fn shared_groups(study: &Study) -> InMemDicomObject {
    let slices = &study.source.slices;
    let first = &slices[0];
    let mut orientation = InMemDicomObject::new_empty();
    put_decimals(&mut orientation, tags::IMAGE_ORIENTATION_PATIENT, first.directions.as_flattened());
    let mut measures = InMemDicomObject::new_empty();
    put_decimals(&mut measures, tags::PIXEL_SPACING, &first.pixel_spacing);
    let step = slices
        .get(1)
        .map(|second| pixel_of(first, Point::new(second.position[0], second.position[1], second.position[2])).2.abs());
    let step = step.filter(|mm| *mm > 0.0);
    let thickness = first.thickness_mm.or(step).unwrap_or(1.0);
    put_decimals(&mut measures, tags::SLICE_THICKNESS, &[thickness]);
    put_decimals(&mut measures, tags::SPACING_BETWEEN_SLICES, &[step.unwrap_or(thickness)]);
    let mut shared = InMemDicomObject::new_empty();
    put_sequence(&mut shared, tags::PLANE_ORIENTATION_SEQUENCE, vec![orientation]);
    put_sequence(&mut shared, tags::PIXEL_MEASURES_SEQUENCE, vec![measures]);
    shared
}

/// The functional groups of one frame; `number` of the segment and `plane` of the slice, from 1.
fn frame_item(slice: &SourceSlice, number: u32, plane: usize) -> InMemDicomObject {
    let mut content = InMemDicomObject::new_empty();
    let values = PrimitiveValue::U32(vec![number, plane as u32].into());
    content.put(DataElement::new(tags::DIMENSION_INDEX_VALUES, VR::UL, values));
    let mut position = InMemDicomObject::new_empty();
    put_decimals(&mut position, tags::IMAGE_POSITION_PATIENT, &slice.position);
    let mut segment = InMemDicomObject::new_empty();
    put_short(&mut segment, tags::REFERENCED_SEGMENT_NUMBER, number as usize);
    let mut source = referenced_instance(slice, WholeFile::No);
    put(&mut source, tags::SPATIAL_LOCATIONS_PRESERVED, VR::CS, "YES");
    put_code(&mut source, tags::PURPOSE_OF_REFERENCE_CODE_SEQUENCE, codes::SOURCE_IMAGE);
    let mut derivation = InMemDicomObject::new_empty();
    put_sequence(&mut derivation, tags::SOURCE_IMAGE_SEQUENCE, vec![source]);
    put_code(&mut derivation, tags::DERIVATION_CODE_SEQUENCE, codes::DERIVATION_SEGMENTATION);
    let mut item = InMemDicomObject::new_empty();
    put_sequence(&mut item, tags::FRAME_CONTENT_SEQUENCE, vec![content]);
    put_sequence(&mut item, tags::PLANE_POSITION_SEQUENCE, vec![position]);
    put_sequence(&mut item, tags::SEGMENT_IDENTIFICATION_SEQUENCE, vec![segment]);
    put_sequence(&mut item, tags::DERIVATION_IMAGE_SEQUENCE, vec![derivation]);
    item
}

/// Bits of frames one after the other; a frame need not end at a byte.
#[derive(Default)]
struct BitStream {
    bytes: Vec<u8>,
    bits: usize,
}

impl BitStream {
    /// Appends the first `count` bits.
    fn extend(&mut self, bits: &[u8], count: usize) {
        let shift = self.bits % 8;
        if shift == 0 {
            self.bytes.extend_from_slice(&bits[..count.div_ceil(8)]);
        } else {
            for &byte in &bits[..count.div_ceil(8)] {
                if let Some(last) = self.bytes.last_mut() {
                    *last |= byte << shift;
                }
                self.bytes.push(byte >> (8 - shift));
            }
        }
        self.bits += count;
        self.bytes.truncate(self.bits.div_ceil(8));
    }

    /// All bytes, an even number.
    fn bytes(mut self) -> Vec<u8> {
        if self.bytes.len() % 2 == 1 {
            self.bytes.push(0);
        }
        self.bytes
    }
}

/// The colour as DICOM stores it: L* from 0 to 100, a* and b* from -128 to 127, each over 16 bits.
fn cie_lab(rgb: [u8; 3]) -> [u16; 3] {
    let linear = rgb.map(|c| {
        let c = f64::from(c) / 255.0;
        if c <= 0.04045 { c / 12.92 } else { ((c + 0.055) / 1.055).powf(2.4) }
    });
    let [r, g, b] = linear;
    // sRGB to XYZ over the white point D65.
    let x = (0.4124 * r + 0.3576 * g + 0.1805 * b) / 0.9505;
    let y = 0.2126 * r + 0.7152 * g + 0.0722 * b;
    let z = (0.0193 * r + 0.1192 * g + 0.9505 * b) / 1.089;
    let f = |t: f64| if t > 0.008856 { t.cbrt() } else { 7.787 * t + 16.0 / 116.0 };
    let lab = [116.0 * f(y) - 16.0, 500.0 * (f(x) - f(y)), 200.0 * (f(y) - f(z))];
    let scaled = [lab[0] / 100.0, (lab[1] + 128.0) / 255.0, (lab[2] + 128.0) / 255.0];
    scaled.map(|v| (v.clamp(0.0, 1.0) * 65535.0).round() as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_follow_each_other_bit_by_bit() {
        let mut stream = BitStream::default();
        // Three frames of five pixels: 10110, 00001, 11111.
        for bits in [0b01101, 0b10000, 0b11111] {
            stream.extend(&[bits], 5);
        }
        assert_eq!(stream.bytes(), [0b0000_1101, 0b0111_1110]);
    }

    #[test]
    fn colours_are_scaled_to_sixteen_bits() {
        assert_eq!(cie_lab([0, 0, 0]), [0, 32896, 32896]);
        let [l, a, b] = cie_lab([255, 255, 255]);
        assert!(l == 65535 && a.abs_diff(32896) < 20 && b.abs_diff(32896) < 20, "{l} {a} {b}");
    }
}
