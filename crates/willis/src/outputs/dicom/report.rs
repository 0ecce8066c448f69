//! `report.sr.dcm`: a Comprehensive 3D SR with an Imaging Measurement Report (PS3.16 TID 1500), one
//! measurement group (TID 1410) for each candidate. Preliminary and unverified.

use dicom_core::{DataElement, PrimitiveValue, VR};
use dicom_dictionary_std::{tags, uids};
use dicom_object::InMemDicomObject;
use willis_core::anatomy::{ANEURYSM_PRESENT, column_names};
use willis_core::{Candidate, Point};
use willis_imaging::ingest::SourceSlice;

use super::codes::{self, Code};
use super::object::{
    ObjectKind, Study, WholeFile, ascii, code_item, decimal, put, put_code, put_sequence, referenced_instance,
};
use super::segmentation::tracking_id;
use crate::report::RESEARCH_ONLY;

const KIND: ObjectKind = ObjectKind {
    sop_class: uids::COMPREHENSIVE3_DSR_STORAGE,
    modality: "SR",
    series_number: 9002,
    description: "willis: measurement report, research use only",
    instance: 1,
};

/// The report. If willis abstains, it has the reason and no candidates.
pub(super) fn measurement_report(study: &Study) -> InMemDicomObject {
    let mut object = study.object(&KIND);
    for (tag, value) in [
        (tags::COMPLETION_FLAG, "COMPLETE"),
        (tags::VERIFICATION_FLAG, "UNVERIFIED"),
        (tags::PRELIMINARY_FLAG, "PRELIMINARY"),
        (tags::VALUE_TYPE, "CONTAINER"),
        (tags::CONTINUITY_OF_CONTENT, "SEPARATE"),
    ] {
        put(&mut object, tag, VR::CS, value);
    }
    put_sequence(&mut object, tags::REFERENCED_PERFORMED_PROCEDURE_STEP_SEQUENCE, Vec::new());
    put_sequence(&mut object, tags::PERFORMED_PROCEDURE_CODE_SEQUENCE, Vec::new());
    let mut evidence = InMemDicomObject::new_empty();
    let uid = study.source.text((tags::STUDY_INSTANCE_UID.0, tags::STUDY_INSTANCE_UID.1));
    put(&mut evidence, tags::STUDY_INSTANCE_UID, VR::UI, &uid);
    let series = study.referenced_series(tags::REFERENCED_SOP_SEQUENCE);
    put_sequence(&mut evidence, tags::REFERENCED_SERIES_SEQUENCE, vec![series]);
    put_sequence(&mut object, tags::CURRENT_REQUESTED_PROCEDURE_EVIDENCE_SEQUENCE, vec![evidence]);
    put_code(&mut object, tags::CONCEPT_NAME_CODE_SEQUENCE, codes::MEASUREMENT_REPORT);
    put_template(&mut object, "1500");
    put_sequence(&mut object, tags::CONTENT_SEQUENCE, content(study));
    object
}

fn content(study: &Study) -> Vec<InMemDicomObject> {
    let device = study.uid("device");
    let mut items = vec![
        code(HAS_CONCEPT_MOD, codes::LANGUAGE, codes::ENGLISH),
        code(HAS_OBS_CONTEXT, codes::OBSERVER_TYPE, codes::DEVICE),
        uid(HAS_OBS_CONTEXT, codes::DEVICE_UID, &device),
        text(HAS_OBS_CONTEXT, codes::DEVICE_NAME, "willis"),
        text(HAS_OBS_CONTEXT, codes::DEVICE_MANUFACTURER, "willis"),
        text(HAS_OBS_CONTEXT, codes::DEVICE_MODEL, &format!("willis {}", study.run.code_version)),
        code(HAS_CONCEPT_MOD, codes::PROCEDURE_REPORTED, codes::IMAGING_PROCEDURE),
    ];
    let images = study.source.slices.iter().map(image).collect();
    let group = container(codes::IMAGE_LIBRARY_GROUP, None, images);
    items.push(container(codes::IMAGE_LIBRARY, Some("1600"), vec![group]));
    let prediction = &study.result.prediction;
    if prediction.abstain.is_none() && !study.result.candidates.is_empty() {
        let groups = study.result.candidates.iter().map(|candidate| measurement_group(study, candidate)).collect();
        items.push(container(codes::IMAGING_MEASUREMENTS, None, groups));
    }
    items.push(container(codes::QUALITATIVE, None, evaluations(study)));
    items
}

/// The verdict in words, or why there is none.
fn evaluations(study: &Study) -> Vec<InMemDicomObject> {
    let prediction = &study.result.prediction;
    let mut texts = Vec::new();
    match &prediction.abstain {
        Some(reason) => texts.push(format!("No verdict: willis abstains: {reason}")),
        None => {
            for name in column_names() {
                let Some(p) = prediction.probabilities.get(name) else { continue };
                let what = if name == ANEURYSM_PRESENT { "an aneurysm is present" } else { name };
                texts.push(format!("Probability, {what}: {:.1} %", 100.0 * p));
            }
            texts.push(format!(
                "Probabilities are calibrated for a population in which {:.1} % carry an aneurysm; they rank series and sites.",
                100.0 * study.run.prevalence
            ));
            if study.result.candidates.is_empty() {
                texts.push("No candidate was found.".into());
            }
        }
    }
    texts.extend(prediction.findings.iter().filter(|f| f.code != "abstain").map(|f| format!("Finding: {}", f.message)));
    texts.push(RESEARCH_ONLY.into());
    texts.iter().map(|line| text(CONTAINS, codes::COMMENT, &ascii(line))).collect()
}

/// The group of one candidate.
fn measurement_group(study: &Study, candidate: &Candidate) -> InMemDicomObject {
    let mut items = vec![
        text(HAS_OBS_CONTEXT, codes::TRACKING_ID, &tracking_id(candidate)),
        uid(HAS_OBS_CONTEXT, codes::TRACKING_UID, &study.uid(&tracking_id(candidate))),
        code(CONTAINS, codes::FINDING, codes::ANEURYSM),
    ];
    if let Some(site) = candidate.site {
        let mut place = code(HAS_CONCEPT_MOD, codes::FINDING_SITE, codes::artery(site));
        if let Some(side) = codes::side(site) {
            put_sequence(&mut place, tags::CONTENT_SEQUENCE, vec![code(HAS_CONCEPT_MOD, codes::LATERALITY, side)]);
        }
        items.push(place);
    }
    items.extend([
        text(HAS_CONCEPT_MOD, codes::ALGORITHM_NAME, "willis"),
        text(HAS_CONCEPT_MOD, codes::ALGORITHM_VERSION, &study.run.code_version),
        text(HAS_CONCEPT_MOD, codes::ALGORITHM_PARAMETERS, &study.weights()),
        point(study, candidate.centre),
        number(codes::CERTAINTY, 100.0 * candidate.probability, codes::PERCENT),
        number(codes::DIAMETER, candidate.diameter_mm, codes::MILLIMETRE),
    ]);
    if let Some(site) = candidate.site {
        items.push(text(CONTAINS, codes::COMMENT, site.name()));
    }
    container(codes::MEASUREMENT_GROUP, Some("1410"), items)
}

const CONTAINS: &str = "CONTAINS";
const HAS_CONCEPT_MOD: &str = "HAS CONCEPT MOD";
const HAS_OBS_CONTEXT: &str = "HAS OBS CONTEXT";

fn item(relationship: &str, value_type: &str, name: Option<Code>) -> InMemDicomObject {
    let mut item = InMemDicomObject::new_empty();
    put(&mut item, tags::RELATIONSHIP_TYPE, VR::CS, relationship);
    put(&mut item, tags::VALUE_TYPE, VR::CS, value_type);
    if let Some(name) = name {
        put_code(&mut item, tags::CONCEPT_NAME_CODE_SEQUENCE, name);
    }
    item
}

fn container(name: Code, template: Option<&str>, items: Vec<InMemDicomObject>) -> InMemDicomObject {
    let mut container = item(CONTAINS, "CONTAINER", Some(name));
    put(&mut container, tags::CONTINUITY_OF_CONTENT, VR::CS, "SEPARATE");
    if let Some(template) = template {
        put_template(&mut container, template);
    }
    put_sequence(&mut container, tags::CONTENT_SEQUENCE, items);
    container
}

fn put_template(object: &mut InMemDicomObject, identifier: &str) {
    let mut template = InMemDicomObject::new_empty();
    put(&mut template, tags::MAPPING_RESOURCE, VR::CS, "DCMR");
    put(&mut template, tags::TEMPLATE_IDENTIFIER, VR::CS, identifier);
    put_sequence(object, tags::CONTENT_TEMPLATE_SEQUENCE, vec![template]);
}

fn text(relationship: &str, name: Code, value: &str) -> InMemDicomObject {
    let mut text = item(relationship, "TEXT", Some(name));
    put(&mut text, tags::TEXT_VALUE, VR::UT, value);
    text
}

fn code(relationship: &str, name: Code, value: Code) -> InMemDicomObject {
    let mut code = item(relationship, "CODE", Some(name));
    put_code(&mut code, tags::CONCEPT_CODE_SEQUENCE, value);
    code
}

fn uid(relationship: &str, name: Code, value: &str) -> InMemDicomObject {
    let mut reference = item(relationship, "UIDREF", Some(name));
    put(&mut reference, tags::UID, VR::UI, value);
    reference
}

fn number(name: Code, value: f64, unit: Code) -> InMemDicomObject {
    let mut measured = InMemDicomObject::new_empty();
    // Rounded: the decimal string is what is read, and the binary value must agree with it.
    let value = (value * 1e4).round() / 1e4;
    put(&mut measured, tags::NUMERIC_VALUE, VR::DS, &decimal(value));
    measured.put(DataElement::new(tags::FLOATING_POINT_VALUE, VR::FD, PrimitiveValue::from(value)));
    put_sequence(&mut measured, tags::MEASUREMENT_UNITS_CODE_SEQUENCE, vec![code_item(unit)]);
    let mut number = item(CONTAINS, "NUM", Some(name));
    put_sequence(&mut number, tags::MEASURED_VALUE_SEQUENCE, vec![measured]);
    number
}

fn point(study: &Study, at: Point) -> InMemDicomObject {
    let mut point = item(CONTAINS, "SCOORD3D", Some(codes::IMAGE_REGION));
    let data = PrimitiveValue::F32(at.xyz().map(|mm| mm as f32).to_vec().into());
    point.put(DataElement::new(tags::GRAPHIC_DATA, VR::FL, data));
    put(&mut point, tags::GRAPHIC_TYPE, VR::CS, "POINT");
    put(&mut point, tags::REFERENCED_FRAME_OF_REFERENCE_UID, VR::UI, &study.frame_of_reference());
    point
}

fn image(slice: &SourceSlice) -> InMemDicomObject {
    let mut image = item(CONTAINS, "IMAGE", None);
    put_sequence(&mut image, tags::REFERENCED_SOP_SEQUENCE, vec![referenced_instance(slice, WholeFile::No)]);
    image
}
