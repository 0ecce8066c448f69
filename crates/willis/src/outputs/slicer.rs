//! `candidates.mrk.json`: a point list for 3D Slicer, markups schema 1.0.3, in LPS.

use willis_core::Candidate;

use crate::line::SeriesResult;

/// The candidates as control points. No label has a probability if willis abstains.
pub(super) fn markups(result: &SeriesResult) -> serde_json::Value {
    let label = |c: &Candidate| match result.prediction.abstain {
        Some(_) => c.rank.to_string(),
        None => format!("{} ({:.0} %)", c.rank, 100.0 * c.probability),
    };
    let points: Vec<_> = result
        .candidates
        .iter()
        .map(|c| {
            serde_json::json!({
                "id": c.rank.to_string(),
                "label": label(c),
                "description": c.site.map_or("", |s| s.name()),
                "position": c.centre.xyz(),
                "positionStatus": "defined",
                "visibility": true,
                "selected": c.rank == 1,
                "locked": true,
            })
        })
        .collect();
    serde_json::json!({
        "@schema": "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/Resources/Schema/markups-schema-v1.0.3.json#",
        "markups": [{
            "type": "Fiducial",
            "coordinateSystem": "LPS",
            "coordinateUnits": "mm",
            "locked": true,
            "controlPoints": points,
        }]
    })
}
