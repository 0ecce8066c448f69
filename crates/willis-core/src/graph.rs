//! The vessel graph: centrelines between endpoints and junctions.

use serde::{Deserialize, Serialize};

use crate::anatomy::Site;
use crate::space::Point;

/// A point on a centreline.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct CentrelinePoint {
    /// Position, LPS mm.
    pub point: Point,
    /// Radius of the largest inscribed ball, mm.
    pub radius_mm: f64,
}

/// Topological type of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeKind {
    /// The end of one branch.
    Tip,
    /// A point where three or more branches meet.
    Junction,
    /// A point without branches.
    Isolated,
    /// An artificial node on a closed loop without junctions.
    Ring,
}

/// A node of the graph.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct GraphNode {
    /// Position and radius.
    pub at: CentrelinePoint,
    /// Topological type.
    pub kind: NodeKind,
    /// Site, if the vessel map assigns one.
    pub site: Option<Site>,
}

/// A branch between two nodes; parallel branches and loops are allowed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GraphEdge {
    /// Node at the first point.
    pub from: usize,
    /// Node at the last point.
    pub to: usize,
    /// Points in order, including both ends.
    pub points: Vec<CentrelinePoint>,
    /// Length along the points, mm.
    pub length_mm: f64,
}

/// Centrelines of the arteries as a multigraph.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct VesselGraph {
    /// Nodes.
    pub nodes: Vec<GraphNode>,
    /// Branches.
    pub edges: Vec<GraphEdge>,
}

impl VesselGraph {
    /// Total length of all branches, mm.
    pub fn length_mm(&self) -> f64 {
        // `sum()` of nothing is -0.0, which would be printed with its sign.
        self.edges.iter().fold(0.0, |sum, edge| sum + edge.length_mm)
    }

    /// All centreline points, of branches and of isolated nodes.
    pub fn points(&self) -> impl Iterator<Item = CentrelinePoint> + '_ {
        let lone = self.nodes.iter().filter(|n| n.kind == NodeKind::Isolated).map(|n| n.at);
        self.edges.iter().flat_map(|e| e.points.iter().copied()).chain(lone)
    }
}

/// Input of the graph net: centreline points resampled at even steps, with features.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct NodeTable {
    /// Position and radius of each of the N nodes.
    pub points: Vec<CentrelinePoint>,
    /// Names of the F node features.
    pub feature_names: Vec<&'static str>,
    /// Node features `[N, F]`, row-major.
    pub features: Vec<f32>,
    /// The E directed edges `[source, target]`, each present in both directions; no self loops.
    pub edges: Vec<[u32; 2]>,
    /// Names of the G edge features.
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
