//! `fhir.json`: a FHIR R4 collection of one DiagnosticReport and its Observations, preliminary.
//!
//! The patient is named by the identifier of the source's header only. Without a DICOM source the
//! report has no subject.

use serde_json::{Value, json};
use willis_core::anatomy::column_names;
use willis_core::files::hash::sha256_hex;
use willis_core::{Candidate, Site};

use super::OutputContent;
use super::dicom::codes::{self, Code};
use crate::report::RESEARCH_ONLY;

/// Patient ID of a DICOM header.
const PATIENT_ID: (u16, u16) = (0x0010, 0x0020);
/// Study instance UID of a DICOM header.
const STUDY_UID: (u16, u16) = (0x0020, 0x000D);

/// The bundle. If willis abstains, it has the reason and no Observation.
pub(super) fn bundle(content: &OutputContent) -> Value {
    let prediction = &content.result.prediction;
    let mut observations = Vec::new();
    if prediction.abstain.is_none() {
        observations.push(("sites".to_string(), sites(content)));
        let rows = content.result.candidates.iter();
        observations.extend(rows.map(|c| (format!("candidate {}", c.rank), candidate(content, c))));
    }
    let references: Vec<Value> =
        observations.iter().map(|(role, _)| json!({"reference": urn(content, role)})).collect();
    let conclusion = match (&prediction.abstain, prediction.present()) {
        (Some(reason), _) => format!("No verdict: willis abstains: {reason}. {RESEARCH_ONLY}"),
        (None, p) => format!(
            "Probability that an aneurysm is present: {:.1} %, calibrated for a population in which {:.1} % carry one. \
             {} candidates. {RESEARCH_ONLY}",
            100.0 * p.unwrap_or(f64::NAN),
            100.0 * content.run.prevalence,
            content.result.candidates.len()
        ),
    };
    let mut report = json!({
        "resourceType": "DiagnosticReport",
        "status": "preliminary",
        "code": {"coding": [{"system": "http://loinc.org", "code": "18748-4", "display": "Diagnostic imaging study"}]},
        "identifier": [{"system": "urn:dicom:uid", "value": format!("urn:oid:{}", prediction.series.uid)}],
        "conclusion": conclusion,
        "resultsInterpreter": [{"display": format!("willis {}", content.run.code_version)}],
    });
    if !references.is_empty() {
        report["result"] = Value::from(references);
    }
    if prediction.series.uid.len() == 64 {
        // Not a UID but the hash of a file.
        report["identifier"] = json!([{"value": prediction.series.uid}]);
    }
    add_subject(content, &mut report);
    if let Some(study) = study_uid(content) {
        let identifier = json!({"system": "urn:dicom:uid", "value": format!("urn:oid:{study}")});
        report["imagingStudy"] = json!([{"type": "ImagingStudy", "identifier": identifier}]);
    }
    let entry = |role: &str, resource: Value| json!({"fullUrl": urn(content, role), "resource": resource});
    let entries: Vec<Value> = std::iter::once(entry("report", report))
        .chain(observations.into_iter().map(|(role, resource)| entry(&role, resource)))
        .collect();
    json!({"resourceType": "Bundle", "type": "collection", "entry": entries})
}

/// The probabilities of the series, one component each.
fn sites(content: &OutputContent) -> Value {
    let probabilities = &content.result.prediction.probabilities;
    let component = |name: &'static str| {
        let site = Site::from_name(name).map(codes::artery);
        let p = probabilities.get(name).copied()?;
        Some(json!({"code": concept(site, name), "valueQuantity": percent(p)}))
    };
    let mut observation = observation(content, "Probability of an aneurysm, present and by site");
    observation["component"] = Value::from(column_names().filter_map(component).collect::<Vec<_>>());
    observation
}

fn candidate(content: &OutputContent, candidate: &Candidate) -> Value {
    let mut observation = observation(content, &format!("Aneurysm candidate {}", candidate.rank));
    observation["valueQuantity"] = percent(candidate.probability);
    if let Some(site) = candidate.site {
        observation["bodySite"] = concept(Some(codes::artery(site)), site.name());
    }
    let [x, y, z] = candidate.centre.xyz();
    let mut components = vec![json!({
        "code": concept(Some(codes::DIAMETER), "Diameter"),
        "valueQuantity": millimetres(candidate.diameter_mm),
    })];
    for (name, mm) in [("left", x), ("posterior", y), ("superior", z)] {
        let label = format!("Centre, towards {name} (DICOM patient coordinates)");
        components.push(json!({"code": {"text": label}, "valueQuantity": millimetres(mm)}));
    }
    observation["component"] = Value::from(components);
    observation
}

fn observation(content: &OutputContent, title: &str) -> Value {
    let weights: Vec<String> =
        content.result.prediction.models.iter().map(|model| format!("{} {}", model.name, model.sha256)).collect();
    let mut observation = json!({
        "resourceType": "Observation",
        "status": "preliminary",
        "category": [{"coding": [{
            "system": "http://terminology.hl7.org/CodeSystem/observation-category",
            "code": "imaging",
        }]}],
        "code": concept(Some(codes::ANEURYSM), title),
        "method": {"text": format!("willis {}", content.run.code_version)},
        "device": {"display": format!("willis {}", content.run.code_version)},
        "note": [{"text": RESEARCH_ONLY}, {"text": format!("weights: {}", weights.join("; "))}],
    });
    add_subject(content, &mut observation);
    observation
}

fn add_subject(content: &OutputContent, resource: &mut Value) {
    let id = content.source.map(|source| source.text(PATIENT_ID)).filter(|id| !id.is_empty());
    if let Some(id) = id {
        resource["subject"] = json!({"type": "Patient", "identifier": {"value": id}});
    }
}

fn study_uid(content: &OutputContent) -> Option<String> {
    content.source.map(|source| source.text(STUDY_UID))
}

fn concept(code: Option<Code>, text: &str) -> Value {
    match code {
        Some(code) => json!({
            "coding": [{"system": "http://snomed.info/sct", "code": code.value, "display": code.meaning}],
            "text": text,
        }),
        None => json!({"text": text}),
    }
}

fn percent(p: f64) -> Value {
    let value = (1000.0 * p).round() / 10.0;
    json!({"value": value, "unit": "%", "system": "http://unitsofmeasure.org", "code": "%"})
}

fn millimetres(mm: f64) -> Value {
    let value = (1000.0 * mm).round() / 1000.0;
    json!({"value": value, "unit": "mm", "system": "http://unitsofmeasure.org", "code": "mm"})
}

/// `urn:uuid:` that depends on the prediction and the role only.
fn urn(content: &OutputContent, role: &str) -> String {
    let prediction = &content.result.prediction;
    let key = format!("{} {} {role}", prediction.series.uid, content.run.config_sha256);
    let hash = sha256_hex(key.as_bytes());
    let (a, b, c, d, e) = (&hash[..8], &hash[8..12], &hash[13..16], &hash[17..20], &hash[20..32]);
    format!("urn:uuid:{a}-{b}-8{c}-8{d}-{e}")
}
