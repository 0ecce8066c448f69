//! The top of the report: what was guessed, and the verdict.

use maud::{Markup, html};
use willis_core::{Finding, Prediction, Severity};

use super::percent;

/// Number of warnings at the top; the others are counted and stand with the findings.
const TOP: usize = 5;
/// Parts of the codes of findings about modality or geometry, which decide whether anything below
/// is right.
const DECISIVE: [&str; 12] = [
    "modality",
    "guessed",
    "no-place",
    "orientation",
    "position",
    "spacing",
    "slice",
    "series",
    "volume",
    "uneven",
    "time-points",
    "no-head",
];

/// All warnings but that of an abstention, those about modality and geometry first.
pub(crate) fn first_warnings(findings: &[Finding]) -> Vec<&Finding> {
    let warnings = findings.iter().filter(|f| f.severity == Severity::Warning && f.code != "abstain");
    let decisive = |f: &&Finding| DECISIVE.iter().any(|part| f.code.contains(part));
    let (first, others): (Vec<&Finding>, Vec<&Finding>) = warnings.partition(decisive);
    [first, others].concat()
}

/// The first warnings; nothing without any.
pub(super) fn guesses(findings: &[Finding]) -> Markup {
    let all = first_warnings(findings);
    html! {
        @if !all.is_empty() {
            section.guesses {
                h2 { "Guessed or repaired: check before reading on" }
                ul { @for f in all.iter().take(TOP) { li { (f.message) } } }
                @if all.len() > TOP { p.note { (all.len() - TOP) " more under Findings below." } }
            }
        }
    }
}

/// The probability of an aneurysm, or the reason why there is none.
pub(super) fn verdict(prediction: &Prediction) -> Markup {
    html! {
        @if let Some(reason) = &prediction.abstain {
            div.abstain {
                span.label { "No verdict. willis abstains:" }
                span.value { (reason) }
            }
        } @else {
            div.big {
                span.value { (prediction.present().map_or("n/a".into(), percent)) }
                span.label { "probability that an aneurysm is present" }
            }
        }
    }
}
