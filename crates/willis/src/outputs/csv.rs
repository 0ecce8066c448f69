//! `candidates.csv`: one row per candidate, for spreadsheets and statistics.

use willis_core::Candidate;

use crate::line::SeriesResult;

/// Columns before those of the evidence.
const COLUMNS: [&str; 8] = [
    "rank",
    "centre_left_mm",
    "centre_posterior_mm",
    "centre_superior_mm",
    "diameter_mm",
    "probability",
    "site",
    "distance_to_vessel_mm",
];

/// The table. Missing values are empty, and so are all probabilities if willis abstains.
pub(super) fn table(result: &SeriesResult) -> Vec<u8> {
    // Every measurement that is one number; the names are those of candidates.json.
    let default = Candidate {
        rank: 0,
        centre: willis_core::Point::new(0.0, 0.0, 0.0),
        diameter_mm: 0.0,
        probability: 0.0,
        site: None,
        distance_to_vessel_mm: None,
        evidence: willis_core::Evidence::default(),
    };
    let values = |c: &Candidate| match serde_json::to_value(&c.evidence) {
        Ok(serde_json::Value::Object(map)) => map,
        _ => serde_json::Map::new(),
    };
    let names: Vec<String> = values(&default).keys().filter(|name| *name != "site_probabilities").cloned().collect();
    let mut table = csv::Writer::from_writer(Vec::new());
    let header = COLUMNS.into_iter().chain(names.iter().map(String::as_str));
    table.write_record(header).expect("writing to memory cannot fail");
    for c in &result.candidates {
        let evidence = values(c);
        let number =
            |name: &String| evidence.get(name).filter(|v| v.is_number()).map_or(String::new(), |v| v.to_string());
        let probability = result.prediction.abstain.is_none().then(|| format!("{:.6}", c.probability));
        let own = [
            c.rank.to_string(),
            format!("{:.4}", c.centre.x),
            format!("{:.4}", c.centre.y),
            format!("{:.4}", c.centre.z),
            format!("{:.3}", c.diameter_mm),
            probability.unwrap_or_default(),
            c.site.map_or("", |s| s.name()).to_string(),
            c.distance_to_vessel_mm.map_or(String::new(), |mm| format!("{mm:.3}")),
        ];
        let row = own.into_iter().chain(names.iter().map(number));
        table.write_record(row).expect("all rows have the columns of the header");
    }
    table.into_inner().expect("writing to memory cannot fail")
}
