//! The report: one HTML file, readable offline, with the probabilities, the candidates and their
//! evidence.

pub(crate) mod cards;
pub mod circle;
pub mod figures;
pub mod tree;
mod verdict;

pub(crate) use verdict::first_warnings;

use figures::{Picture, View};
use maud::{DOCTYPE, Markup, PreEscaped, html};
use willis_core::anatomy::ANEURYSM_PRESENT;
use willis_core::{Candidate, Finding, Severity, Site};

use crate::line::SeriesResult;
use crate::run::RunRecord;

/// Number of candidates that are drawn in the pictures and shown in slices.
pub(crate) const SHOWN: usize = 6;

/// Notice in every output.
pub const RESEARCH_ONLY: &str = "Research use only. Not a medical device. Not for diagnosis.";

/// The whole report as one HTML document.
///
/// If willis abstains, the reason stands in the place of the probability, no probability is shown
/// anywhere, and the candidates are folded away without marks in the pictures.
pub fn html(result: &SeriesResult, run: &RunRecord) -> String {
    let shown = &result.candidates[..result.candidates.len().min(SHOWN)];
    let body =
        if result.prediction.abstain.is_some() { abstaining_body(result) } else { verdict_body(result, run, shown) };
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "willis report" }
                style { (PreEscaped(include_str!("style.css"))) }
            }
            body {
                header {
                    h1 { "willis" span.sub { "intracranial aneurysm report" } }
                    p.warning { (RESEARCH_ONLY) }
                }
                (verdict::guesses(&result.prediction.findings))
                (headline(result))
                (body)
                (findings(&result.prediction.findings))
                (provenance(result, run))
            }
        }
    }
    .into_string()
}

/// The body of a report with probabilities.
fn verdict_body(result: &SeriesResult, run: &RunRecord, shown: &[Candidate]) -> Markup {
    html! {
        (probabilities(result, run))
        (cards::section(result, shown))
        (projections(result, shown))
        (tree::section(result, shown))
        section.long {
            h2 { "All candidates" }
            (candidate_table(&result.candidates, Probabilities::Shown))
        }
    }
}

/// The body of a report that abstains.
fn abstaining_body(result: &SeriesResult) -> Markup {
    html! {
        (projections(result, &[]))
        section.long {
            details.folded {
                summary { "What the nets marked all the same (" (result.candidates.len()) ")" }
                p.note { "The nets were not made for a series like this one, so these places mean little. Their values are in candidates.json, those of the series in prediction.json." }
                (candidate_table(&result.candidates, Probabilities::Hidden))
            }
        }
        (tree::section(result, &[]))
    }
}

/// Whether a table shows probabilities.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Probabilities {
    Shown,
    Hidden,
}

/// A probability for people.
pub(crate) fn percent(p: f64) -> String {
    format!("{:.1} %", 100.0 * p)
}

fn headline(result: &SeriesResult) -> Markup {
    let series = &result.prediction.series;
    let [nz, ny, nx] = series.shape_zyx;
    let [dz, dy, dx] = series.spacing_zyx_mm;
    html! {
        section.headline {
            (verdict::verdict(&result.prediction))
            dl {
                dt { "modality" } dd { (series.modality.map_or("unknown", |m| m.name())) }
                dt { "series as read" } dd { (nx) " × " (ny) " × " (nz) " voxels of " (format!("{dx:.2} × {dy:.2} × {dz:.2}")) " mm" }
                dt { "arteries traced" } dd { (format!("{:.0} mm", result.graph.length_mm())) " in " (result.graph.edges.len()) " branches" }
                @if result.prediction.abstain.is_none() { dt { "candidates" } dd { (result.candidates.len()) } }
            }
        }
    }
}

fn with_overlay(picture: &Picture, view: View, overlay: &str) -> Markup {
    let (w, h) = (picture.width_mm, picture.height_mm);
    let (left, right) = view.sides();
    html! {
        svg viewBox=(format!("0 0 {w:.1} {h:.1}")) role="img" {
            image href=(picture.data_url) width=(format!("{w:.1}")) height=(format!("{h:.1}")) preserveAspectRatio="none" {}
            text.side x="2" y=(format!("{:.1}", h / 2.0)) { (left) }
            text.side x=(format!("{:.1}", w - 5.0)) y=(format!("{:.1}", h / 2.0)) { (right) }
            (PreEscaped(overlay))
        }
    }
}

fn projections(result: &SeriesResult, shown: &[Candidate]) -> Markup {
    html! {
        section {
            h2 { "Projections of the arteries" }
            p.note {
                "Maximum of the vessel probability along each ray, over the mean intensity."
                @if !shown.is_empty() { " Circles mark the first " (shown.len()) " candidates by rank." }
            }
            div.three {
                @for view in View::ALL {
                    figure {
                        (with_overlay(&figures::projection(&result.map, view), view, &figures::candidate_marks(&result.map, view, shown)))
                        figcaption { (view.name()) }
                    }
                }
            }
        }
    }
}

fn probabilities(result: &SeriesResult, run: &RunRecord) -> Markup {
    let of = |name: &str| result.prediction.probabilities.get(name).copied().unwrap_or(f64::NAN);
    let row = |name: &str, colour: &str| {
        let p = of(name);
        html! {
            tr {
                th scope="row" { span.dot style=(format!("background:{colour}")) {} (name) }
                td.bar { span style=(format!("width:{:.1}%", 100.0 * p.clamp(0.0, 1.0))) {} }
                td.number { (percent(p)) }
            }
        }
    };
    html! {
        section {
            h2 { "Probability by site" }
            (PreEscaped(circle::svg(|site| of(site.name()))))
            p.scale { span { "0 %" } span.ramp {} span { "100 %" } span.note { "Schematic, seen as axial slices are: the patient's right is on the left." } }
            table.probabilities {
                (row(ANEURYSM_PRESENT, "#d8453a"))
                @for site in Site::ALL { (row(site.name(), figures::site_colour(Some(site)))) }
            }
            p.note {
                "Calibrated on phantom series made by willis itself, for a population in which " (percent(run.prevalence))
                " carry an aneurysm (stack.prevalence). In routine imaging aneurysms are far rarer (3 to 5 %): these numbers rank "
                "series and sites, and are not the chance that this patient has an aneurysm."
            }
        }
    }
}

fn candidate_table(candidates: &[Candidate], probabilities: Probabilities) -> Markup {
    let millimetres = |value: Option<f64>| value.map_or("n/a".into(), |v| format!("{v:.1}"));
    let shown = probabilities == Probabilities::Shown;
    html! {
        @if candidates.is_empty() { p { "None." } }
        @else {
            p.note { "Centres are patient coordinates: millimetres towards left, posterior and superior (LPS). The last column is the distance to the nearest vessel outside the candidate." }
            div.scroll { table.candidates {
                thead { tr {
                    th { "rank" } @if shown { th { "probability" } } th { "site" } th { "diameter, mm" } th { "centre L, P, S, mm" } th { "to vessel, mm" }
                } }
                tbody { @for c in candidates {
                    tr {
                        td { (c.rank) } @if shown { td { (percent(c.probability)) } }
                        td.wrap { (c.site.map_or("n/a", Site::name)) }
                        td { (format!("{:.1}", c.diameter_mm)) }
                        td { (format!("{:.1}, {:.1}, {:.1}", c.centre.x, c.centre.y, c.centre.z)) }
                        td { (millimetres(c.distance_to_vessel_mm)) }
                    }
                } }
            } }
            @if shown { (evidence_table(candidates)) }
        }
    }
}

/// Fold-out with the evidence for each candidate; unfolded on paper.
fn evidence_table(candidates: &[Candidate]) -> Markup {
    let number = |value: Option<f32>| value.map_or("n/a".into(), |v| format!("{v:.2}"));
    html! {
        details {
            summary { "Evidence for each candidate" }
            dl.legend {
                dt { "peak" } dd { "highest aneurysm probability of the segmentation net near the centre, 0 to 1" }
                dt { "graph" } dd { "highest node score of the graph net near the centre, 0 to 1" }
                dt { "order in, shell" } dd { "Kuramoto order parameter inside the candidate and in a shell around it, 0 to 1" }
                dt { "energy" } dd { "energy of the last oscillator state, per oscillator" }
            }
            div.scroll { table.candidates {
                thead { tr {
                    th { "rank" } th { "peak" } th { "graph" } th { "order in" } th { "shell" } th { "energy" }
                } }
                tbody { @for c in candidates {
                    tr {
                        td { (c.rank) }
                        td { (number(c.evidence.aneurysm_peak)) } td { (number(c.evidence.graph_score)) }
                        td { (number(c.evidence.order_inside)) } td { (number(c.evidence.order_shell)) }
                        td { (number(c.evidence.energy)) }
                    }
                } }
            } }
        }
    }
}

fn findings(findings: &[Finding]) -> Markup {
    html! {
        section {
            h2 { "Findings, guesses and repairs" }
            @if findings.is_empty() { p { "None." } }
            @else { ul.findings { @for f in findings {
                li.warn[f.severity == Severity::Warning] { (f.message) " " code { (f.code) } }
            } } }
        }
    }
}

fn provenance(result: &SeriesResult, run: &RunRecord) -> Markup {
    html! {
        section {
            h2 { "How this was made" }
            div.scroll { table.plain {
                tr { th { "willis" } td { (run.code_version) } }
                tr { th { "configuration" } td { code { (run.config_sha256) } } }
                @for model in &result.prediction.models { tr { th { (model.name) } td { code { (model.sha256) } } } }
            } }
            div.scroll { table.plain {
                thead { tr { th { "stage" } th { "time, s" } th { "peak memory, MiB" } } }
                @for stage in &run.stages {
                    tr { td { (stage.name) } td { (format!("{:.2}", stage.cost.seconds)) } td { (stage.cost.peak_mib.map_or("n/a".into(), |m| m.to_string())) } }
                }
            } }
            p.warning { (RESEARCH_ONLY) }
        }
    }
}

#[cfg(test)]
mod tests;
