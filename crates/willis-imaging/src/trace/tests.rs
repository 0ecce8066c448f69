use super::testing::{bulge, from_segment, map_of, mask};
use super::*;
use proptest::prelude::*;
use willis_core::{Point, Shape, Spacing};

fn torus(p: Point) -> bool {
    (((p.y - 16.0).powi(2) + (p.x - 16.0).powi(2)).sqrt() - 9.0).powi(2) + (p.z - 16.0).powi(2) <= 9.0
}

const CUBE: Shape = Shape::new(32, 32, 32);

#[test]
fn a_torus_with_a_tail_is_a_loop_and_a_branch() {
    let tail = |p: Point| (p.y - 16.0).powi(2) + (p.z - 16.0).powi(2) <= 4.0 && p.x >= 25.0;
    let graph = graph_from_mask(&mask(CUBE, Spacing::isotropic(1.0), |p| torus(p) || tail(p)), &TraceConfig::default());
    let nodes: Vec<_> = graph.nodes.iter().map(|n| (n.at.point.xyz(), n.kind)).collect();
    assert_eq!(nodes, [([26.0, 16.0, 16.0], NodeKind::Junction), ([30.0, 16.0, 16.0], NodeKind::Tip)]);
    let ring = graph.edges.iter().find(|e| e.from == e.to).unwrap();
    assert_eq!(ring.points.len(), 51);
    assert!((ring.length_mm - 59.941125).abs() < 1e-6, "{}", ring.length_mm);
    let branch = graph.edges.iter().find(|e| e.from != e.to).unwrap();
    assert_eq!((branch.length_mm, branch.points.len()), (4.0, 5));
}

#[test]
fn a_torus_is_a_ring() {
    let graph = graph_from_mask(
        &mask(CUBE, Spacing::isotropic(0.5), |p| torus(Point::new(p.x * 2.0, p.y * 2.0, p.z * 2.0))),
        &TraceConfig::default(),
    );
    assert_eq!((graph.nodes.len(), graph.nodes[0].kind), (1, NodeKind::Ring));
    assert_eq!((graph.edges.len(), graph.edges[0].from, graph.edges[0].to), (1, 0, 0));
    // Between a smooth circle of radius 4.5 mm and its staircase.
    assert!(graph.length_mm() > std::f64::consts::PI * 9.0 && graph.length_mm() < 36.0);
}

#[test]
fn tubes_on_anisotropic_grids_keep_radius_and_length() {
    for (spacing, radius) in [
        (Spacing::isotropic(0.5), 2.0),
        (Spacing::new(1.0, 0.4, 0.4), 2.0),
        (Spacing::new(0.6, 0.6, 0.3), 1.55),
        (Spacing::isotropic(0.3), 1.1),
    ] {
        let shape = Shape::new((40.0 / spacing.z) as usize, (12.0 / spacing.y) as usize, (12.0 / spacing.x) as usize);
        let (a, b) = (Point::new(6.0, 6.0, 5.0), Point::new(6.0, 6.0, 35.0));
        let graph =
            graph_from_mask(&mask(shape, spacing, |p| from_segment(p, a, b) <= radius), &TraceConfig::default());
        assert_eq!((graph.nodes.len(), graph.edges.len()), (2, 1), "{spacing:?}");
        let edge = &graph.edges[0];
        // Thinning shortens each end by about one radius, in voxels.
        let shortest = 30.0 + 2.0 * radius - 2.0 * (radius / spacing.x + 1.0) * spacing.z;
        assert!((shortest..30.0 + 2.0 * radius).contains(&edge.length_mm), "{spacing:?}: {}", edge.length_mm);
        let mut radii: Vec<f64> = edge.points.iter().map(|p| p.radius_mm).collect();
        let middle = median(&mut radii).unwrap();
        assert!((middle - radius).abs() <= 0.75 * spacing.x.max(spacing.y), "{spacing:?}: {middle} for {radius}");
        for p in edge.points.iter().filter(|p| (8.0..32.0).contains(&p.point.z)) {
            assert!((p.point.x - 6.0).abs() <= spacing.x && (p.point.y - 6.0).abs() <= spacing.y, "{p:?}");
        }
    }
}

#[test]
fn empty_masks_single_voxels_and_solid_blocks() {
    let config = TraceConfig { min_component_mm3: 0.0, ..TraceConfig::default() };
    let none = mask(CUBE, Spacing::isotropic(1.0), |_| false);
    assert_eq!(graph_from_mask(&none, &config), VesselGraph::default());
    // Thinning deletes a solid block of even size; it is restored as a point.
    for side in [1.0, 2.0, 4.0] {
        let block =
            mask(CUBE, Spacing::isotropic(1.0), |p| [p.x, p.y, p.z].iter().all(|v| (5.0..5.0 + side).contains(v)));
        let graph = graph_from_mask(&block, &config);
        assert_eq!((graph.nodes.len(), graph.edges.len(), graph.nodes[0].kind), (1, 0, NodeKind::Isolated), "{side}");
        assert!(graph.nodes[0].at.radius_mm > 0.0);
    }
    let small = mask(CUBE, Spacing::isotropic(1.0), |p| p == Point::new(5.0, 5.0, 5.0));
    assert_eq!(graph_from_mask(&small, &TraceConfig::default()), VesselGraph::default());
    // If every voxel is foreground, the border of the array bounds the radii.
    let full = graph_from_mask(&mask(Shape::new(5, 5, 9), Spacing::isotropic(1.0), |_| true), &config);
    assert!(full.points().all(|p| p.radius_mm.is_finite() && p.radius_mm > 0.0));
}

#[test]
fn weak_voxels_need_a_strong_voxel_and_nodes_get_sites() {
    let tube = |p: Point, y: f64| (p.y - y).powi(2) + (p.z - 8.0).powi(2) <= 4.0 && (4.0..=28.0).contains(&p.x);
    let shape = Shape::new(16, 32, 32);
    let spacing = Spacing::isotropic(1.0);
    let strong = mask(shape, spacing, |p| tube(p, 8.0));
    let weak = mask(shape, spacing, |p| tube(p, 24.0));
    let mut vessel = strong.map(|&m| f32::from(m) * 0.4);
    vessel.voxels.iter_mut().zip(&weak.voxels).for_each(|(v, &m)| *v += f32::from(m) * 0.45);
    let strong_voxel = shape.offset(Index::new(8, 8, 16));
    vessel.voxels[strong_voxel] = 0.9;
    let site = strong.map(|&m| m * Site::LeftMca.mask_value());
    let map = map_of(vessel.clone(), vessel.map(|_| 0.0), site);
    let graph = trace(&map, &TraceConfig::default());
    assert_eq!(graph.edges.len(), 1);
    assert!(graph.nodes.iter().all(|n| n.site == Some(Site::LeftMca) && (n.at.point.y - 8.0).abs() <= 1.0));
    assert!(graph.edges[0].length_mm > 18.0);
}

#[test]
fn node_tables_describe_the_bulge() {
    let (_, map) = bulge();
    let config = TraceConfig::default();
    let graph = trace(&map, &config);
    let table = nodes::node_table(&graph, &map, &config);
    let (n, f) = (table.points.len(), table.feature_names.len());
    assert_eq!((table.features.len(), table.edge_features.len()), (n * f, table.edges.len() * 6));
    assert!(table.features.iter().chain(&table.edge_features).all(|v| v.is_finite() && v.abs() <= 10.0));
    for pair in table.edges.chunks(2) {
        assert_eq!((pair[0][0], pair[0][1]), (pair[1][1], pair[1][0]));
        assert_ne!(pair[0][0], pair[0][1]);
    }
    let mut distinct = table.edges.clone();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), table.edges.len());
    let length: f32 = table.edge_features.chunks(6).map(|row| row[0]).sum();
    assert!((f64::from(length) / 2.0 - graph.length_mm()).abs() < 1e-3);
    let feature =
        |i: usize, name: &str| table.features[i * f + table.feature_names.iter().position(|n| *n == name).unwrap()];
    let nearest = |p: Point| {
        (0..n)
            .min_by(|&a, &b| table.points[a].point.distance_mm(p).total_cmp(&table.points[b].point.distance_mm(p)))
            .unwrap()
    };
    let (sac, plain) = (nearest(Point::new(45.0, 16.0, 10.0)), nearest(Point::new(66.0, 16.0, 10.0)));
    assert!(feature(sac, "radius_excess_branch") > 1.6 && feature(plain, "radius_excess_branch") < 1.3);
    assert!(feature(sac, "radius_excess_window") > 1.6 && feature(plain, "radius_excess_window") < 1.3);
    assert!(feature(sac, "aneurysm_mean_1_5r") > 0.2 && feature(plain, "aneurysm_max_3mm") == 0.0);
    assert!(feature(plain, "contrast") > 0.9 && feature(plain, "is_known_site") == 1.0);
    assert!((feature(sac, "distance_to_junction_cm") - 2.5).abs() < 0.4);
    let junction = graph.nodes.iter().position(|n| n.kind == NodeKind::Junction).unwrap();
    assert_eq!((feature(junction, "is_junction"), feature(junction, "distance_to_junction_cm")), (1.0, 0.0));
}

#[test]
fn samples_of_loops_and_parallel_branches_form_a_simple_graph() {
    let at = |x: f64, y: f64| CentrelinePoint { point: Point::new(x, y, 0.0), radius_mm: 1.0 };
    let node = |x: f64| GraphNode { at: at(x, 0.0), kind: NodeKind::Junction, site: None };
    let edge = |from, to, points: Vec<CentrelinePoint>| GraphEdge { from, to, length_mm: length_mm(&points), points };
    let graph = VesselGraph {
        nodes: vec![node(0.0), node(1.0)],
        edges: vec![
            edge(0, 1, vec![at(0.0, 0.0), at(1.0, 0.0)]),
            edge(0, 1, vec![at(0.0, 0.0), at(0.5, 0.5), at(1.0, 0.0)]),
            edge(1, 1, vec![at(1.0, 0.0), at(2.0, 0.5), at(2.0, -0.5), at(1.0, 0.0)]),
        ],
    };
    let samples = samples::CentrelineSamples::new(&graph, 1.5);
    let mut pairs: Vec<_> = samples.links.iter().map(|&(a, b, _)| (a.min(b), a.max(b))).collect();
    pairs.sort_unstable();
    assert_eq!(pairs, [(0, 1), (0, 2), (1, 2), (1, 3), (1, 4), (3, 4)]);
    let total: f64 = samples.links.iter().map(|l| l.2).sum();
    assert!((total - graph.length_mm()).abs() < 1e-9);
    // A right angle, measured over chords of 2 mm: π/2 over 2 mm.
    let corner = VesselGraph {
        nodes: vec![node(0.0), node(1.0)],
        edges: vec![edge(0, 1, vec![at(0.0, 0.0), at(2.0, 0.0), at(2.0, 2.0)])],
    };
    let curve = &samples::CentrelineSamples::new(&corner, 1.5).curves[0];
    assert!((curve.curvature_per_mm(2.0, 2.0) - std::f64::consts::FRAC_PI_4).abs() < 1e-9);
    assert!((curve.tortuosity() - (2f64.sqrt() - 1.0)).abs() < 1e-9);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    /// For any mask, branches end at their nodes, lengths are sums of steps, radii are positive,
    /// and every component has a node.
    #[test]
    fn graphs_are_sound(percent in 5u32..95, seed in any::<u32>(), spacing in prop::array::uniform3(0.3..2.0f64)) {
        let mut state = seed;
        let spacing = Spacing::new(spacing[0], spacing[1], spacing[2]);
        let mut image = mask(Shape::new(9, 10, 11), spacing, |_| false);
        for v in &mut image.voxels {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *v = u8::from((state >> 16) % 100 < percent);
        }
        let config = TraceConfig { min_component_mm3: 0.0, ..TraceConfig::default() };
        let graph = graph_from_mask(&image, &config);
        for edge in &graph.edges {
            prop_assert!(edge.points.len() >= 2);
            prop_assert_eq!(edge.points[0], graph.nodes[edge.from].at);
            prop_assert_eq!(edge.points[edge.points.len() - 1], graph.nodes[edge.to].at);
            prop_assert!((edge.length_mm - length_mm(&edge.points)).abs() < 1e-9);
        }
        prop_assert!(graph.points().all(|p| p.radius_mm > 0.0 && p.radius_mm.is_finite()));
        let mut degree = vec![0; graph.nodes.len()];
        graph.edges.iter().for_each(|e| { degree[e.from] += 1; degree[e.to] += 1; });
        for (node, degree) in graph.nodes.iter().zip(&degree) {
            let kind = match degree { 0 => NodeKind::Isolated, 1 => NodeKind::Tip, 2 => NodeKind::Ring, _ => NodeKind::Junction };
            prop_assert_eq!(node.kind, kind);
        }
        // The graph has as many pieces as the mask has components.
        let mut piece: Vec<usize> = (0..graph.nodes.len()).collect();
        for _ in 0..graph.nodes.len() {
            for e in &graph.edges {
                let low = piece[e.from].min(piece[e.to]);
                piece[e.from] = low;
                piece[e.to] = low;
            }
        }
        let pieces = piece.iter().enumerate().filter(|(i, p)| i == *p).count();
        use willis_kernels::components::{Connectivity, label};
        let components = label(&image.voxels, [9, 10, 11], Connectivity::TwentySix).sizes.len();
        // A component inside a filled cavity disappears.
        prop_assert!(pieces <= components && (pieces == 0) == (components == 0), "{pieces} {components}");
        prop_assert_eq!(&graph, &graph_from_mask(&image, &config));
    }
}
