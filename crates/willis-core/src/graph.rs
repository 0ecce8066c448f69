//! The vessel graph: centrelines between tips and junctions.

use serde::{Deserialize, Serialize};

use crate::anatomy::Site;
use crate::space::Point;

/// A point on a centreline.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct CentrelinePoint {
    /// Place, LPS mm.
    pub point: Point,
    /// Radius of the largest ball inside the lumen, mm.
    pub radius_mm: f64,
}

/// What kind of place a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeKind {
    /// The end of one branch.
    Tip,
    /// Where three or more branches meet.
    Junction,
    /// A lone voxel.
    Isolated,
    /// An artificial node on a ring without junctions.
    Ring,
}

/// A node of the graph.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct GraphNode {
    /// Place and radius.
    pub at: CentrelinePoint,
    /// Kind of place.
    pub kind: NodeKind,
    /// Site, where the vessel map names one.
    pub site: Option<Site>,
}

/// A branch between two nodes; parallel branches and loops are allowed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GraphEdge {
    /// Node at the first point.
    pub from: usize,
    /// Node at the last point.
    pub to: usize,
    /// Points in order, both ends included.
    pub points: Vec<CentrelinePoint>,
    /// Sum of the steps, mm.
    pub length_mm: f64,
}

/// Centrelines of the arteries as a multigraph.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct VesselGraph {
    /// Tips, junctions, rings and isolated points.
    pub nodes: Vec<GraphNode>,
    /// Branches.
    pub edges: Vec<GraphEdge>,
}

impl VesselGraph {
    /// Total length of all branches, mm.
    pub fn length_mm(&self) -> f64 {
        // From 0 on: the sum of nothing would be -0, and be printed so.
        self.edges.iter().fold(0.0, |sum, edge| sum + edge.length_mm)
    }

    /// Every centreline point: of branches, and of nodes without any branch.
    pub fn points(&self) -> impl Iterator<Item = CentrelinePoint> + '_ {
        let lone = self.nodes.iter().filter(|n| n.kind == NodeKind::Isolated).map(|n| n.at);
        self.edges.iter().flat_map(|e| e.points.iter().copied()).chain(lone)
    }
}

/// Centreline points resampled at even steps, with features: the graph as the learned node scorer
/// sees it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct NodeTable {
    /// Place and radius of each node; N of them.
    pub points: Vec<CentrelinePoint>,
    /// Names of the node features, F of them.
    pub feature_names: Vec<&'static str>,
    /// Node features `[N, F]`, row-major.
    pub features: Vec<f32>,
    /// Directed edges `[source, target]`, each present in both directions; E of them, no self
    /// loops.
    pub edges: Vec<[u32; 2]>,
    /// Names of the edge features, G of them.
    pub edge_feature_names: Vec<&'static str>,
    /// Edge features `[E, G]`, row-major.
    pub edge_features: Vec<f32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_graph_without_branches_is_0_mm_long() {
        assert_eq!(format!("{:.0}", VesselGraph::default().length_mm()), "0");
    }
}
