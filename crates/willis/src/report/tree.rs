//! The vessel tree: three fixed views as SVG, and the data of the view that can be turned.

use std::fmt::Write as _;

use maud::{Markup, PreEscaped, html};
use willis_core::{Candidate, Point, VesselGraph};

use super::figures::site_colour;
use crate::line::SeriesResult;

/// Distance of points in the data of the turning view, mm.
const STEP_MM: f64 = 0.8;
/// Space around the tree, mm.
const MARGIN_MM: f64 = 6.0;

/// Where the tree is looked at from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TreeView {
    /// The patient faces the reader.
    Front,
    /// From the patient's left; the front is on the left.
    Side,
    /// From above the head; the front is at the top.
    Above,
}

impl TreeView {
    /// Every view.
    pub const ALL: [TreeView; 3] = [TreeView::Front, TreeView::Side, TreeView::Above];

    /// Name for a caption.
    pub const fn name(self) -> &'static str {
        match self {
            TreeView::Front => "from the front",
            TreeView::Side => "from the left side",
            TreeView::Above => "from above",
        }
    }

    /// Letters at the left and right border: the patient's sides.
    pub const fn sides(self) -> (&'static str, &'static str) {
        match self {
            TreeView::Front => ("R", "L"),
            TreeView::Side => ("A", "P"),
            TreeView::Above => ("L", "R"),
        }
    }

    /// Right and down on the page, mm.
    pub const fn project(self, p: Point) -> (f64, f64) {
        match self {
            TreeView::Front => (p.x, -p.z),
            TreeView::Side => (p.y, -p.z),
            TreeView::Above => (-p.x, p.y),
        }
    }
}

/// Left, top, width and height of a tree with its candidates in a view, mm.
pub fn frame(view: TreeView, graph: &VesselGraph, candidates: &[Candidate]) -> [f64; 4] {
    let points = graph.points().map(|p| p.point).chain(candidates.iter().map(|c| c.centre));
    let mut low = (f64::INFINITY, f64::INFINITY);
    let mut high = (f64::NEG_INFINITY, f64::NEG_INFINITY);
    for (x, y) in points.map(|p| view.project(p)) {
        low = (low.0.min(x), low.1.min(y));
        high = (high.0.max(x), high.1.max(y));
    }
    if low.0 > high.0 {
        (low, high) = ((-20.0, -20.0), (20.0, 20.0));
    }
    let margin = 2.0 * MARGIN_MM;
    [low.0 - MARGIN_MM, low.1 - MARGIN_MM, high.0 - low.0 + margin, high.1 - low.1 + margin]
}

/// The tree as SVG: lines as wide as the lumen, coloured by site, with circles at the candidates.
pub fn drawing(view: TreeView, graph: &VesselGraph, candidates: &[Candidate]) -> String {
    let [left, top, width, height] = frame(view, graph, candidates);
    // Square, so that the three views are of one size.
    let side = width.max(height);
    let (left, top) = (left - (side - width) / 2.0, top - (side - height) / 2.0);
    let place = |p: Point| {
        let (x, y) = view.project(p);
        (x - left, y - top)
    };
    let mut svg = format!(
        "<svg viewBox='0 0 {side:.1} {side:.1}' class='graph' role='img' aria-label='Arteries {}'>",
        view.name()
    );
    for edge in &graph.edges {
        let site = graph.nodes[edge.from].site.or(graph.nodes[edge.to].site);
        for pair in edge.points.windows(2) {
            let ((x1, y1), (x2, y2)) = (place(pair[0].point), place(pair[1].point));
            let stroke = (pair[0].radius_mm + pair[1].radius_mm).clamp(0.5, 8.0);
            let _ = write!(
                svg,
                "<path d='M{x1:.1} {y1:.1}L{x2:.1} {y2:.1}' stroke='{}' stroke-width='{stroke:.1}'/>",
                site_colour(site)
            );
        }
    }
    for candidate in candidates.iter().rev() {
        let (x, y) = place(candidate.centre);
        let radius = (candidate.diameter_mm / 2.0 + 1.0).clamp(2.0, 14.0);
        let size = side / 24.0;
        let _ = write!(
            svg,
            "<circle cx='{x:.1}' cy='{y:.1}' r='{radius:.1}' class='mark'/><text x='{:.1}' y='{:.1}' class='rank' style='font-size:{size:.1}px'>{}</text>",
            x + radius + 0.5,
            y - radius * 0.5,
            candidate.rank
        );
    }
    let (first, second) = view.sides();
    let letter = side / 22.0;
    let _ = write!(
        svg,
        "<text class='side' style='font-size:{letter:.1}px' x='{:.1}' y='{:.1}'>{first}</text>\
         <text class='side' style='font-size:{letter:.1}px' x='{:.1}' y='{:.1}' text-anchor='end'>{second}</text></svg>",
        side * 0.02,
        side / 2.0,
        side * 0.98,
        side / 2.0
    );
    svg
}

/// The section with the three views and the one that can be turned.
pub fn section(result: &SeriesResult, shown: &[Candidate]) -> Markup {
    let graph = &result.graph;
    html! {
        section {
            h2 { "Vessel tree" }
            p.note {
                (format!("{:.0} mm", graph.length_mm())) " of arteries in " (graph.edges.len()) " branches. Lines are as wide as the lumen"
                @if result.prediction.abstain.is_none() { ", in the colours of the sites in the table above" }
                "."
            }
            div.three {
                @for view in TreeView::ALL {
                    figure { (PreEscaped(drawing(view, graph, shown))) figcaption { (view.name()) } }
                }
            }
            div.turn {
                canvas #tree width="1040" height="620" tabindex="0" role="img" aria-label="Vessel tree that can be turned" {}
                p.controls {
                    button type="button" data-view="front" { "front" }
                    button type="button" data-view="side" { "left side" }
                    button type="button" data-view="above" { "above" }
                    button type="button" data-view="spin" { "spin" }
                    span.note { "Drag to turn, scroll to zoom, arrow keys turn in steps." }
                }
            }
            script #tree-data type="application/json" { (PreEscaped(data(graph, shown))) }
            script { (PreEscaped(include_str!("tree.js"))) }
        }
    }
}

/// Branches and candidates as JSON: numbers and colours only.
fn data(graph: &VesselGraph, candidates: &[Candidate]) -> String {
    let branches: Vec<serde_json::Value> = graph
        .edges
        .iter()
        .map(|edge| {
            let site = graph.nodes[edge.from].site.or(graph.nodes[edge.to].site);
            let mut kept: Vec<[f64; 4]> = Vec::new();
            let mut last: Option<Point> = None;
            for (i, p) in edge.points.iter().enumerate() {
                let is_end = i + 1 == edge.points.len();
                if is_end || last.is_none_or(|q| q.distance_mm(p.point) >= STEP_MM) {
                    kept.push([round(p.point.x), round(p.point.y), round(p.point.z), round(p.radius_mm)]);
                    last = Some(p.point);
                }
            }
            serde_json::json!({"colour": site_colour(site), "points": kept})
        })
        .collect();
    let marks: Vec<serde_json::Value> = candidates
        .iter()
        .map(|c| {
            let [x, y, z] = c.centre.xyz().map(round);
            serde_json::json!({"rank": c.rank, "at": [x, y, z], "radius": round(c.diameter_mm / 2.0)})
        })
        .collect();
    serde_json::json!({"branches": branches, "candidates": marks}).to_string()
}

fn round(mm: f64) -> f64 {
    (mm * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_views_show_the_sides_that_their_letters_say() {
        let (left, posterior, superior) =
            (Point::new(1.0, 0.0, 0.0), Point::new(0.0, 1.0, 0.0), Point::new(0.0, 0.0, 1.0));
        // Right on the page is positive, up is negative.
        assert_eq!((TreeView::Front.project(left).0, TreeView::Front.project(superior).1), (1.0, -1.0));
        assert_eq!((TreeView::Side.project(posterior).0, TreeView::Side.project(superior).1), (1.0, -1.0));
        assert_eq!((TreeView::Above.project(left).0, TreeView::Above.project(posterior).1), (-1.0, 1.0));
        assert_eq!(TreeView::Above.sides(), ("L", "R"));
    }

    #[test]
    fn a_tree_without_branches_has_a_frame() {
        assert_eq!(frame(TreeView::Front, &VesselGraph::default(), &[]), [-26.0, -26.0, 52.0, 52.0]);
    }
}
