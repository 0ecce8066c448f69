//! The report: one HTML file that opens offline and shows what willis saw and why.

pub mod figures;

use figures::{Picture, View};
use maud::{DOCTYPE, Markup, PreEscaped, html};
use willis_core::anatomy::ANEURYSM_PRESENT;
use willis_core::{Candidate, Finding, Severity, Site};

use crate::line::SeriesResult;
use crate::run::RunRecord;

/// Candidates drawn in the pictures and given a triptych.
const SHOWN: usize = 6;

/// Words that every output carries.
pub const RESEARCH_ONLY: &str = "Research use only. Not a medical device. Not for diagnosis.";

/// The whole report as one HTML document.
pub fn html(result: &SeriesResult, run: &RunRecord) -> String {
    let shown = &result.candidates[..result.candidates.len().min(SHOWN)];
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
                (headline(result))
                (projections(result, shown))
                (probabilities(result, run))
                (candidate_table(&result.candidates))
                (triptychs(result, shown))
                (graph(result, shown))
                (findings(&result.prediction.findings))
                (provenance(result, run))
            }
        }
    }
    .into_string()
}

fn percent(p: f64) -> String {
    format!("{:.1} %", 100.0 * p)
}

fn headline(result: &SeriesResult) -> Markup {
    let series = &result.prediction.series;
    let [nz, ny, nx] = series.shape_zyx;
    let [dz, dy, dx] = series.spacing_zyx_mm;
    html! {
        section.headline {
            div.big {
                span.value { (result.prediction.present().map_or("n/a".into(), percent)) }
                span.label { "probability that an aneurysm is present" }
            }
            dl {
                dt { "modality" } dd { (series.modality.map_or("unknown", |m| m.name())) }
                dt { "series as read" } dd { (nx) " × " (ny) " × " (nz) " voxels of " (format!("{dx:.2} × {dy:.2} × {dz:.2}")) " mm" }
                dt { "arteries traced" } dd { (format!("{:.0} mm", result.graph.length_mm())) " in " (result.graph.edges.len()) " branches" }
                dt { "candidates" } dd { (result.candidates.len()) }
            }
            @if let Some(reason) = &result.prediction.abstain {
                p.abstain { "willis abstains: " (reason) }
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
            h2 { "Arteries, projected" }
            p.note { "Maximum of the vessel probability over the mean intensity of the region of interest; circles are the first " (shown.len()) " candidates, numbered by rank." }
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
            h2 { "Probabilities" }
            table.probabilities {
                (row(ANEURYSM_PRESENT, "#d8453a"))
                @for site in Site::ALL { (row(site.name(), figures::site_colour(Some(site)))) }
            }
            p.note {
                "Calibrated on phantom series made by willis itself, for a population in which " (percent(run.prevalence))
                " carry an aneurysm (stack.prevalence); in routine imaging aneurysms are far rarer (3 to 5 %), so these "
                "numbers rank series and sites, they are not the chance that this patient has an aneurysm."
            }
        }
    }
}

fn millimetres(value: Option<f64>) -> String {
    value.map_or("n/a".into(), |v| format!("{v:.1}"))
}

fn optional(value: Option<f32>) -> String {
    value.map_or("n/a".into(), |v| format!("{v:.2}"))
}

fn candidate_table(candidates: &[Candidate]) -> Markup {
    html! {
        section {
            h2 { "Candidates" }
            @if candidates.is_empty() { p { "None." } }
            @else {
                div.scroll { table.candidates {
                    thead { tr {
                        th { "rank" } th { "probability" } th { "site" } th { "diameter, mm" } th { "centre L, P, S, mm" }
                        th { "to vessel, mm" } th { "net peak" } th { "graph score" } th { "order in / shell" } th { "energy" }
                    } }
                    tbody { @for c in candidates {
                        tr {
                            td { (c.rank) } td { (percent(c.probability)) } td { (c.site.map_or("n/a", |s| s.name())) }
                            td { (format!("{:.1}", c.diameter_mm)) }
                            td { (format!("{:.1}, {:.1}, {:.1}", c.centre.x, c.centre.y, c.centre.z)) }
                            td { (millimetres(c.distance_to_vessel_mm)) }
                            td { (optional(c.evidence.aneurysm_peak)) } td { (optional(c.evidence.graph_score)) }
                            td { (optional(c.evidence.order_inside)) " / " (optional(c.evidence.order_shell)) }
                            td { (optional(c.evidence.energy)) }
                        }
                    } }
                } }
            }
        }
    }
}

fn triptychs(result: &SeriesResult, shown: &[Candidate]) -> Markup {
    html! {
        section {
            h2 { "First candidates, in three slices of 40 mm" }
            p.note { "The orange line is the border of the vessel map." }
            @for c in shown {
                div.triptych {
                    h3 { (c.rank) ". " (c.site.map_or("site n/a", |s| s.name())) span.sub { (percent(c.probability)) ", " (format!("{:.1} mm", c.diameter_mm)) } }
                    div.three {
                        @for view in View::ALL {
                            figure {
                                (with_overlay(&figures::slice(&result.map, view, c.centre), view, "<path class='cross' d='M20 15.5V18M20 22v2.5M15.5 20H18M22 20h2.5'/>"))
                                figcaption { (view.name()) }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn graph(result: &SeriesResult, shown: &[Candidate]) -> Markup {
    html! {
        section {
            h2 { "Vessel graph" }
            p.note { (result.graph.nodes.len()) " nodes, " (result.graph.edges.len()) " branches; width is the lumen's, colours are the sites of the table above." }
            div.three {
                @for view in View::ALL {
                    figure { (PreEscaped(figures::graph_drawing(&result.map, view, &result.graph, shown))) figcaption { (view.name()) } }
                }
            }
        }
    }
}

fn findings(findings: &[Finding]) -> Markup {
    html! {
        section {
            h2 { "Findings about the input, guesses and repairs" }
            @if findings.is_empty() { p { "None." } }
            @else { ul.findings { @for f in findings {
                li.warn[f.severity == Severity::Warning] { code { (f.code) } " " (f.message) }
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
                thead { tr { th { "stage" } th { "seconds" } th { "peak memory, MiB" } } }
                @for stage in &run.stages {
                    tr { td { (stage.name) } td { (format!("{:.2}", stage.cost.seconds)) } td { (stage.cost.peak_mib.map_or("n/a".into(), |m| m.to_string())) } }
                }
            } }
            p.warning { (RESEARCH_ONLY) }
        }
    }
}
