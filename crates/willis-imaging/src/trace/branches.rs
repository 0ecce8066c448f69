//! Skeleton voxels to nodes and branches, by the rule of `sknw`: a skeleton voxel with exactly two
//! skeleton voxels among its 26 neighbours is part of a branch, any other is part of a node, and
//! adjacent node voxels form one node.

/// Nodes and branches of a skeleton, as voxel offsets.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Branches {
    /// Voxels of each node.
    pub nodes: Vec<Vec<usize>>,
    /// Branches between nodes.
    pub branches: Vec<Branch>,
}

/// A branch: its end nodes and the voxels between them, in order.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Branch {
    pub from: usize,
    pub to: usize,
    pub voxels: Vec<usize>,
}

/// Reads the multigraph off a skeleton that does not touch the border of its array.
///
/// A ring without a node gets one at its first voxel in raster order. A branch of a single voxel
/// that returns to its own node encloses nothing and is left out.
pub(super) fn branches(skeleton: &[u8], shape: [usize; 3]) -> Branches {
    let mut tracer = Tracer::new(skeleton, shape);
    tracer.cluster_nodes();
    for node in 0..tracer.graph.nodes.len() {
        for start in tracer.graph.nodes[node].clone() {
            tracer.follow_all(start);
        }
    }
    for start in 0..tracer.voxels.len() {
        if tracer.node_of[start].is_none() && !tracer.visited[start] {
            tracer.node_of[start] = Some(tracer.graph.nodes.len());
            tracer.graph.nodes.push(vec![start]);
            tracer.follow_all(start);
        }
    }
    tracer.finish()
}

/// Extracts the graph. All indices refer to `voxels`, the offsets of the skeleton voxels in raster
/// order.
struct Tracer {
    voxels: Vec<usize>,
    neighbours: Vec<Vec<usize>>,
    node_of: Vec<Option<usize>>,
    visited: Vec<bool>,
    graph: Branches,
}

impl Tracer {
    fn new(skeleton: &[u8], [_, ny, nx]: [usize; 3]) -> Self {
        let voxels: Vec<usize> = (0..skeleton.len()).filter(|&i| skeleton[i] != 0).collect();
        let steps: Vec<isize> = (0..27isize)
            .filter(|&i| i != 13)
            .map(|i| ((i / 9 - 1) * ny as isize + i / 3 % 3 - 1) * nx as isize + i % 3 - 1)
            .collect();
        let position = |offset: usize| voxels.binary_search(&offset).ok();
        let neighbours: Vec<Vec<usize>> = voxels
            .iter()
            .map(|&v| steps.iter().filter_map(|&step| position(v.wrapping_add_signed(step))).collect())
            .collect();
        let (node_of, visited) = (vec![None; voxels.len()], vec![false; voxels.len()]);
        Self { voxels, neighbours, node_of, visited, graph: Branches::default() }
    }

    fn is_node_voxel(&self, i: usize) -> bool {
        self.neighbours[i].len() != 2
    }

    fn cluster_nodes(&mut self) {
        for first in 0..self.voxels.len() {
            if self.node_of[first].is_some() || !self.is_node_voxel(first) {
                continue;
            }
            let node = self.graph.nodes.len();
            self.node_of[first] = Some(node);
            let mut members = vec![first];
            let mut next = 0;
            while next < members.len() {
                for &j in &self.neighbours[members[next]] {
                    if self.node_of[j].is_none() && self.is_node_voxel(j) {
                        self.node_of[j] = Some(node);
                        members.push(j);
                    }
                }
                next += 1;
            }
            members.sort_unstable();
            self.graph.nodes.push(members);
        }
    }

    /// Follows every branch from a node voxel that was not followed yet.
    fn follow_all(&mut self, start: usize) {
        for first in self.neighbours[start].clone() {
            if self.node_of[first].is_some() || self.visited[first] {
                continue;
            }
            let branch = self.follow(start, first);
            if branch.from != branch.to || branch.voxels.len() > 1 {
                self.graph.branches.push(branch);
            }
        }
    }

    fn follow(&mut self, start: usize, first: usize) -> Branch {
        let from = self.node_of[start].expect("branches start at a node voxel");
        let (mut previous, mut here) = (start, first);
        let mut voxels = Vec::new();
        loop {
            self.visited[here] = true;
            voxels.push(here);
            let pair = &self.neighbours[here];
            let next = if pair[0] == previous { pair[1] } else { pair[0] };
            if let Some(to) = self.node_of[next] {
                return Branch { from, to, voxels };
            }
            (previous, here) = (here, next);
        }
    }

    fn finish(self) -> Branches {
        let Self { voxels, mut graph, .. } = self;
        let lists = graph.nodes.iter_mut().chain(graph.branches.iter_mut().map(|b| &mut b.voxels));
        lists.flatten().for_each(|i| *i = voxels[*i]);
        graph
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: [usize; 3] = [3, 9, 9];

    /// A skeleton of the voxels `(y, x)` in the middle slice.
    fn draw(voxels: &[(usize, usize)]) -> Vec<u8> {
        let mut skeleton = vec![0; 243];
        voxels.iter().for_each(|&(y, x)| skeleton[at(y, x)] = 1);
        skeleton
    }

    fn at(y: usize, x: usize) -> usize {
        81 + 9 * y + x
    }

    #[test]
    fn lines_points_pairs_and_empty_skeletons() {
        let line = branches(&draw(&[(1, 1), (1, 2), (2, 3), (2, 4)]), SHAPE);
        assert_eq!(line.nodes, [vec![at(1, 1)], vec![at(2, 4)]]);
        assert_eq!(line.branches, [Branch { from: 0, to: 1, voxels: vec![at(1, 2), at(2, 3)] }]);
        let point = branches(&draw(&[(4, 4)]), SHAPE);
        assert_eq!((point.nodes.len(), point.branches.len()), (1, 0));
        // Two adjacent tips are one node.
        let pair = branches(&draw(&[(4, 4), (4, 5)]), SHAPE);
        assert_eq!((pair.nodes, pair.branches.len()), (vec![vec![at(4, 4), at(4, 5)]], 0));
        assert_eq!(branches(&draw(&[]), SHAPE), Branches::default());
    }

    #[test]
    fn a_ring_gets_one_node() {
        let ring = branches(&draw(&[(2, 3), (2, 4), (3, 2), (4, 2), (5, 3), (5, 4), (3, 5), (4, 5)]), SHAPE);
        assert_eq!(ring.nodes, [vec![at(2, 3)]]);
        assert_eq!((ring.branches[0].from, ring.branches[0].to, ring.branches[0].voxels.len()), (0, 0, 7));
    }

    #[test]
    fn parallel_branches_are_kept() {
        // A lens between two junctions, each with a tail.
        let lens = [(4, 1), (4, 2), (3, 3), (3, 4), (3, 5), (5, 3), (5, 4), (5, 5), (4, 6), (4, 7)];
        let graph = branches(&draw(&lens), SHAPE);
        // Each tail is one voxel, a tip that is adjacent to its junction and merges with it.
        assert_eq!(graph.nodes.len(), 2);
        let ends: Vec<_> = graph.branches.iter().map(|b| (b.from, b.to, b.voxels.len())).collect();
        assert_eq!(ends, [(0, 1, 3), (0, 1, 3)]);
    }
}
