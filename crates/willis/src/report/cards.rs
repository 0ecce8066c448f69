//! The first candidates as cards: three planes, measurements, and the evidence in words.

use maud::{Markup, html};
use willis_core::{Candidate, Evidence, Site};

use super::figures::{self, SLICE_MM, View};
use super::{percent, with_overlay};
use crate::line::SeriesResult;

/// Four strokes around the centre of a plane.
const CROSS: &str = "<path class='cross' d='M20 15.5V18M20 22v2.5M15.5 20H18M22 20h2.5'/>";

/// The section of the first candidates.
pub fn section(result: &SeriesResult, shown: &[Candidate]) -> Markup {
    html! {
        section.long {
            h2 { "Candidates" }
            @if shown.is_empty() { p { "No place was proposed as a candidate." } }
            @else {
                p.note {
                    "The first " (shown.len()) " of " (result.candidates.len()) " by probability. Each plane is "
                    (format!("{SLICE_MM:.0} mm")) " wide; the orange line is the border of the vessel map, the blue cross the centre."
                }
                div.cards { @for c in shown { (card(result, c)) } }
            }
        }
    }
}

/// Measurements and evidence of a candidate in words, each with its unit.
pub fn facts(c: &Candidate) -> Vec<(&'static str, String)> {
    measurements(c).into_iter().chain(evidence(&c.evidence)).collect()
}

fn measurements(c: &Candidate) -> Vec<(&'static str, String)> {
    let [x, y, z] = c.centre.xyz();
    let centre =
        [direction(x, "left", "right"), direction(y, "posterior", "anterior"), direction(z, "superior", "inferior")];
    let mut rows = vec![("diameter", format!("{:.1} mm", c.diameter_mm)), ("centre", centre.join(", "))];
    rows.extend(c.distance_to_vessel_mm.map(|mm| ("nearest other vessel", format!("{mm:.1} mm away"))));
    rows
}

fn card(result: &SeriesResult, c: &Candidate) -> Markup {
    html! {
        article.card {
            header {
                h3 { span.number-badge { (c.rank) } (c.site.map_or("site not recognised", Site::name)) }
                span.chance { (percent(c.probability)) }
            }
            div.three {
                @for view in View::ALL {
                    figure {
                        (with_overlay(&figures::slice(&result.map, view, c.centre), view, CROSS))
                        figcaption { (view.name()) }
                    }
                }
            }
            dl { @for (name, value) in measurements(c) { dt { (name) } dd { (value) } } }
            @let measured = evidence(&c.evidence);
            @if !measured.is_empty() {
                ul.evidence { @for (name, value) in &measured { li { span { (name) } b { (value) } } } }
            }
        }
    }
}

/// A coordinate in words: `12.3 mm left`.
fn direction(mm: f64, towards: &str, away: &str) -> String {
    format!("{:.1} mm {}", mm.abs(), if mm < 0.0 { away } else { towards })
}

/// The measurements that there are, named in words, each with its unit or range.
fn evidence(e: &Evidence) -> Vec<(&'static str, String)> {
    let share = |v: f32| format!("{:.0} of 100", 100.0 * v);
    let all = [
        ("vessel net, aneurysm score", e.aneurysm_peak.map(share)),
        ("volume marked as aneurysm", e.aneurysm_volume_mm3.map(|v| format!("{v:.1} mm³"))),
        ("graph net, score", e.graph_score.map(share)),
        ("blob detector, score", e.blob_score.map(share)),
        ("radius against the branch's median", e.radius_excess.map(|v| format!("{v:.2} ×"))),
        ("distance to the next junction", e.distance_to_junction_mm.map(|v| format!("{v:.1} mm"))),
        ("vessel probability at the centre", e.vessel_probability.map(share)),
        ("oscillator synchrony inside", e.order_inside.map(share)),
        ("oscillator synchrony around it", e.order_shell.map(share)),
        ("flow equations, residual (no unit)", e.physics_residual.map(|v| format!("{v:.2}"))),
    ];
    all.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evidence_has_words_and_units_and_only_what_was_measured() {
        let measured = Evidence { aneurysm_peak: Some(0.824), radius_excess: Some(1.5), ..Evidence::default() };
        let expected = [
            ("vessel net, aneurysm score", "82 of 100".to_string()),
            ("radius against the branch's median", "1.50 ×".to_string()),
        ];
        assert_eq!(evidence(&measured), expected);
        assert_eq!(direction(-2.74, "left", "right"), "2.7 mm right");
    }
}
