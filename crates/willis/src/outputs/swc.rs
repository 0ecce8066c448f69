//! `graph.swc`: centrelines as trees, for neuron and vessel tracing programs.

use std::collections::VecDeque;
use std::fmt::Write as _;

use willis_core::{CentrelinePoint, VesselGraph};

/// Type of a sample: undefined.
const KIND: u8 = 0;

/// The graph as SWC: LPS mm, one tree for each connected part.
///
/// SWC has no loops. Where a branch closes one, as in the circle of Willis, its last sample lies on
/// the junction but is not connected to it.
pub(super) fn swc(graph: &VesselGraph) -> String {
    let mut writer = SwcWriter::default();
    let mut sample_of: Vec<Option<usize>> = vec![None; graph.nodes.len()];
    let mut is_drawn = vec![false; graph.edges.len()];
    let mut at_node: Vec<Vec<usize>> = vec![Vec::new(); graph.nodes.len()];
    for (i, edge) in graph.edges.iter().enumerate() {
        at_node[edge.from].push(i);
        at_node[edge.to].push(i);
    }
    for root in 0..graph.nodes.len() {
        if sample_of[root].is_some() {
            continue;
        }
        sample_of[root] = Some(writer.add(graph.nodes[root].at, None));
        let mut queue = VecDeque::from([root]);
        while let Some(node) = queue.pop_front() {
            for &i in &at_node[node] {
                if std::mem::replace(&mut is_drawn[i], true) {
                    continue;
                }
                let edge = &graph.edges[i];
                let is_forward = edge.from == node;
                let other = if is_forward { edge.to } else { edge.from };
                let ordered: Vec<CentrelinePoint> =
                    if is_forward { edge.points.clone() } else { edge.points.iter().rev().copied().collect() };
                let mut last = sample_of[node];
                for &point in ordered.iter().skip(1) {
                    last = Some(writer.add(point, last));
                }
                if sample_of[other].is_none() {
                    sample_of[other] = last;
                    queue.push_back(other);
                }
            }
        }
    }
    writer.text
}

/// Lines of a file, numbered from 1.
struct SwcWriter {
    text: String,
    samples: usize,
}

impl Default for SwcWriter {
    fn default() -> Self {
        let text = "# Centrelines traced by willis. Patient coordinates (LPS), mm.\n\
                    # Branches that close a loop end on a junction without being connected to it.\n\
                    # id type x y z radius parent\n";
        Self { text: text.into(), samples: 0 }
    }
}

impl SwcWriter {
    fn add(&mut self, at: CentrelinePoint, parent: Option<usize>) -> usize {
        self.samples += 1;
        let parent = parent.map_or("-1".to_string(), |parent| parent.to_string());
        let p = at.point;
        let _ = writeln!(
            self.text,
            "{} {KIND} {:.4} {:.4} {:.4} {:.4} {parent}",
            self.samples, p.x, p.y, p.z, at.radius_mm
        );
        self.samples
    }
}
