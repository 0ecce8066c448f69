//! `graph.graphml`: the vessel graph for graph libraries, an undirected multigraph.

use std::fmt::Write as _;

use willis_core::{NodeKind, VesselGraph};

/// Attributes: element, name and type.
const KEYS: [(&str, &str, &str); 9] = [
    ("node", "x_mm", "double"),
    ("node", "y_mm", "double"),
    ("node", "z_mm", "double"),
    ("node", "radius_mm", "double"),
    ("node", "kind", "string"),
    ("node", "site", "string"),
    ("edge", "length_mm", "double"),
    ("edge", "mean_radius_mm", "double"),
    ("edge", "points", "string"),
];

/// The graph as GraphML. Coordinates are LPS; `points` is a JSON list of `[x, y, z, radius]`.
pub(super) fn graphml(graph: &VesselGraph) -> String {
    let mut xml = String::from(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<graphml xmlns=\"http://graphml.graphdrawing.org/xmlns\">\n",
    );
    for (element, name, kind) in KEYS {
        let _ = writeln!(xml, "  <key id=\"{name}\" for=\"{element}\" attr.name=\"{name}\" attr.type=\"{kind}\"/>");
    }
    xml.push_str("  <graph id=\"vessels\" edgedefault=\"undirected\">\n");
    let data = |name: &str, value: String| format!("<data key=\"{name}\">{value}</data>");
    for (i, node) in graph.nodes.iter().enumerate() {
        let p = node.at.point;
        let kind = match node.kind {
            NodeKind::Tip => "tip",
            NodeKind::Junction => "junction",
            NodeKind::Isolated => "isolated",
            NodeKind::Ring => "ring",
        };
        let site = node.site.map_or("", |s| s.name()).to_string();
        let values = [
            data("x_mm", format!("{:.4}", p.x)),
            data("y_mm", format!("{:.4}", p.y)),
            data("z_mm", format!("{:.4}", p.z)),
            data("radius_mm", format!("{:.4}", node.at.radius_mm)),
            data("kind", kind.to_string()),
            data("site", site),
        ];
        let _ = writeln!(xml, "    <node id=\"n{i}\">{}</node>", values.concat());
    }
    for (i, edge) in graph.edges.iter().enumerate() {
        let points: Vec<String> = edge
            .points
            .iter()
            .map(|p| format!("[{:.4},{:.4},{:.4},{:.4}]", p.point.x, p.point.y, p.point.z, p.radius_mm))
            .collect();
        let mean = edge.points.iter().map(|p| p.radius_mm).sum::<f64>() / edge.points.len().max(1) as f64;
        let values = [
            data("length_mm", format!("{:.4}", edge.length_mm)),
            data("mean_radius_mm", format!("{mean:.4}")),
            data("points", format!("[{}]", points.join(","))),
        ];
        let (from, to) = (edge.from, edge.to);
        let _ = writeln!(xml, "    <edge id=\"e{i}\" source=\"n{from}\" target=\"n{to}\">{}</edge>", values.concat());
    }
    xml.push_str("  </graph>\n</graphml>\n");
    xml
}
