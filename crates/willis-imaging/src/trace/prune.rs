//! Pruning of spurs: short dead ends that thinning leaves on rough walls.

use willis_core::{GraphEdge, GraphNode, NodeKind, VesselGraph};

/// Which dead ends are spurs.
#[derive(Debug, Clone, Copy)]
pub(super) struct SpurRule {
    /// Maximum length as a multiple of the radius at the junction ...
    pub radius_factor: f64,
    /// ... plus this length, mm.
    pub extra_mm: f64,
}

/// Removes spurs, shortest first, and sets the kinds of the nodes.
///
/// A spur is a dead end shorter than `radius_factor * radius at the junction + extra_mm` whose tip
/// is not in `keep`. Where a junction loses its third branch, the remaining two are joined. The
/// last two branches of a junction are never removed, so no component disappears.
pub(super) fn prune(mut graph: VesselGraph, keep: &[bool], rule: SpurRule) -> VesselGraph {
    loop {
        let removed = remove_spurs(&mut graph, keep, rule);
        join_at_degree_two(&mut graph);
        if !removed {
            break;
        }
    }
    compact(graph)
}

/// Number of branch ends at each node; a loop counts twice.
fn degrees(graph: &VesselGraph) -> Vec<usize> {
    let mut degrees = vec![0; graph.nodes.len()];
    for edge in &graph.edges {
        degrees[edge.from] += 1;
        degrees[edge.to] += 1;
    }
    degrees
}

/// Removes the spurs of the present graph; returns whether there were any.
fn remove_spurs(graph: &mut VesselGraph, keep: &[bool], rule: SpurRule) -> bool {
    let mut degrees = degrees(graph);
    let spur = |edge: &GraphEdge| {
        let (tip, junction) = match (degrees[edge.from], degrees[edge.to]) {
            (1, 3..) => (edge.from, edge.to),
            (3.., 1) => (edge.to, edge.from),
            _ => return None,
        };
        let limit = rule.radius_factor * graph.nodes[junction].at.radius_mm + rule.extra_mm;
        (!keep[tip] && edge.length_mm < limit).then_some((tip, junction))
    };
    let mut spurs: Vec<(usize, usize, usize)> =
        graph.edges.iter().enumerate().filter_map(|(i, e)| spur(e).map(|(tip, junction)| (i, tip, junction))).collect();
    spurs.sort_by(|a, b| graph.edges[a.0].length_mm.total_cmp(&graph.edges[b.0].length_mm).then(a.0.cmp(&b.0)));
    let mut drop = vec![false; graph.edges.len()];
    for (i, tip, junction) in spurs {
        if degrees[junction] >= 3 {
            degrees[junction] -= 1;
            degrees[tip] = 0;
            drop[i] = true;
        }
    }
    let mut dropped = drop.iter();
    graph.edges.retain(|_| !dropped.next().expect("one flag per edge"));
    drop.contains(&true)
}

/// Joins the two branches at every node of degree two.
fn join_at_degree_two(graph: &mut VesselGraph) {
    let mut incident: Vec<Vec<usize>> = vec![Vec::new(); graph.nodes.len()];
    for (i, edge) in graph.edges.iter().enumerate() {
        incident[edge.from].push(i);
        incident[edge.to].push(i);
    }
    let mut edges: Vec<Option<GraphEdge>> = std::mem::take(&mut graph.edges).into_iter().map(Some).collect();
    for node in 0..graph.nodes.len() {
        let [a, b] = incident[node][..] else { continue };
        if a == b {
            continue;
        }
        let (first, second) = (edges[a].take(), edges[b].take());
        let (first, second) = first.zip(second).expect("incident branches exist");
        let (first, second) = (oriented(first, |e| e.to == node), oriented(second, |e| e.from == node));
        incident[node].clear();
        if let Some(end) = incident[second.to].iter_mut().find(|i| **i == b) {
            *end = a;
        }
        let mut points = first.points;
        points.extend_from_slice(&second.points[1..]);
        let length_mm = first.length_mm + second.length_mm;
        edges[a] = Some(GraphEdge { from: first.from, to: second.to, points, length_mm });
    }
    graph.edges = edges.into_iter().flatten().collect();
}

/// The branch, reversed unless `is_oriented`.
fn oriented(mut edge: GraphEdge, is_oriented: impl Fn(&GraphEdge) -> bool) -> GraphEdge {
    if !is_oriented(&edge) {
        edge.points.reverse();
        std::mem::swap(&mut edge.from, &mut edge.to);
    }
    edge
}

/// Removes the nodes that lost all their branches, and sets the kinds of the others.
fn compact(graph: VesselGraph) -> VesselGraph {
    let degrees = degrees(&graph);
    let mut new_index = vec![usize::MAX; graph.nodes.len()];
    let mut nodes = Vec::new();
    for (i, node) in graph.nodes.into_iter().enumerate() {
        if degrees[i] == 0 && node.kind != NodeKind::Isolated {
            continue;
        }
        new_index[i] = nodes.len();
        let kind = match degrees[i] {
            0 => NodeKind::Isolated,
            1 => NodeKind::Tip,
            2 => NodeKind::Ring,
            _ => NodeKind::Junction,
        };
        nodes.push(GraphNode { kind, ..node });
    }
    let renumber = |e: GraphEdge| GraphEdge { from: new_index[e.from], to: new_index[e.to], ..e };
    VesselGraph { nodes, edges: graph.edges.into_iter().map(renumber).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use willis_core::{CentrelinePoint, Point};

    fn star(lengths: &[f64]) -> VesselGraph {
        let at = |x: f64| CentrelinePoint { point: Point::new(x, 0.0, 0.0), radius_mm: 2.0 };
        let node = |x: f64| GraphNode { at: at(x), kind: NodeKind::Tip, site: None };
        let mut graph = VesselGraph { nodes: vec![node(0.0)], edges: Vec::new() };
        for (i, &length_mm) in lengths.iter().enumerate() {
            graph.nodes.push(node(length_mm));
            graph.edges.push(GraphEdge { from: i + 1, to: 0, points: vec![at(length_mm), at(0.0)], length_mm });
        }
        graph
    }

    const RULE: SpurRule = SpurRule { radius_factor: 1.0, extra_mm: 1.0 };

    #[test]
    fn a_spur_is_removed_and_its_junction_dissolved() {
        let graph = prune(star(&[9.0, 2.9, 8.0]), &[false; 4], RULE);
        assert_eq!((graph.nodes.len(), graph.edges.len()), (2, 1));
        assert!(graph.nodes.iter().all(|n| n.kind == NodeKind::Tip));
        assert_eq!(graph.edges[0].length_mm, 17.0);
        let xs: Vec<f64> = graph.edges[0].points.iter().map(|p| p.point.x).collect();
        assert_eq!(xs, [9.0, 0.0, 8.0]);
    }

    #[test]
    fn long_ends_candidates_and_last_branches_are_kept() {
        assert_eq!(prune(star(&[9.0, 3.0, 8.0]), &[false; 4], RULE).edges.len(), 3);
        assert_eq!(prune(star(&[9.0, 2.0, 8.0]), &[false, false, true, false], RULE).edges.len(), 3);
        // All three are short: the two longest make one branch.
        let graph = prune(star(&[1.0, 2.0, 2.5]), &[false; 4], RULE);
        assert_eq!((graph.edges.len(), graph.edges[0].length_mm), (1, 4.5));
    }
}
