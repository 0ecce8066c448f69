//! `graph.vtp`: centrelines as VTK PolyData (XML, ASCII), one polyline per branch.

use std::fmt::Write as _;

use willis_core::{CentrelinePoint, Site, VesselGraph};

/// The centrelines with the radius at each point, and branch and site of each line.
///
/// Coordinates are LPS mm. `Site` is the value of the vessel masks, 0 without a site; isolated
/// nodes have no line and are left out.
pub(super) fn poly_data(graph: &VesselGraph) -> String {
    let points: Vec<&CentrelinePoint> = graph.edges.iter().flat_map(|edge| &edge.points).collect();
    let lines = graph.edges.len();
    let array = |kind: &str, name: &str, components: usize, values: Vec<String>| {
        format!(
            "<DataArray type=\"{kind}\" Name=\"{name}\" NumberOfComponents=\"{components}\" format=\"ascii\">\n{}\n</DataArray>\n",
            values.join("\n")
        )
    };
    let mut xml = String::from("<?xml version=\"1.0\"?>\n");
    xml.push_str("<VTKFile type=\"PolyData\" version=\"1.0\" byte_order=\"LittleEndian\" header_type=\"UInt64\">\n");
    let _ = writeln!(
        xml,
        "<PolyData>\n<Piece NumberOfPoints=\"{}\" NumberOfVerts=\"0\" NumberOfLines=\"{lines}\" NumberOfStrips=\"0\" NumberOfPolys=\"0\">",
        points.len()
    );
    let place = |p: &&CentrelinePoint| format!("{:.4} {:.4} {:.4}", p.point.x, p.point.y, p.point.z);
    let _ = write!(xml, "<Points>\n{}</Points>\n", array("Float64", "Points", 3, points.iter().map(place).collect()));
    let radius = points.iter().map(|p| format!("{:.4}", p.radius_mm)).collect();
    let _ = write!(xml, "<PointData Scalars=\"Radius\">\n{}</PointData>\n", array("Float64", "Radius", 1, radius));
    let site = |edge: &willis_core::GraphEdge| {
        graph.nodes[edge.from].site.or(graph.nodes[edge.to].site).map_or(0, Site::mask_value).to_string()
    };
    let _ = write!(
        xml,
        "<CellData Scalars=\"Site\">\n{}{}</CellData>\n",
        array("Int32", "Site", 1, graph.edges.iter().map(site).collect()),
        array("Int32", "Branch", 1, (0..lines).map(|i| i.to_string()).collect())
    );
    let mut end = 0;
    let ends = graph.edges.iter().map(|edge| {
        end += edge.points.len();
        end.to_string()
    });
    let offsets = array("Int64", "offsets", 1, ends.collect());
    let connectivity = array("Int64", "connectivity", 1, (0..points.len()).map(|i| i.to_string()).collect());
    let _ = write!(xml, "<Lines>\n{connectivity}{offsets}</Lines>\n");
    xml.push_str("</Piece>\n</PolyData>\n</VTKFile>\n");
    xml
}
