//! From a vessel map and its node table to candidates.

use serde::{Deserialize, Serialize};
use willis_core::{Candidate, Candidates, Evidence, Image, NodeTable, Point, SITE_COUNT, Site, VesselMap};

use super::net::ProposeNet;
use super::peaks::{PeakBounds, Region, regions};
use super::vessel::Vessel;
use willis_core::Switch;

/// How candidates are found.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProposeConfig {
    /// The node scorer; off for the ablation without a graph.
    pub graph: Switch,
    /// Most candidates of a series.
    pub max_candidates: usize,
    /// Places among them that are kept for seeds no net has found.
    pub seed_places: usize,
    /// Lowest aneurysm probability of a peak.
    pub peak_floor: f32,
    /// Lowest node score of a peak on the graph.
    pub score_floor: f32,
    /// Candidates nearer than this, or than the radius of the better one, are one; mm.
    pub merge_mm: f64,
    /// A radius counts for no more than this, so that a large vague region does not swallow a sac
    /// beside it; mm.
    pub max_merge_mm: f64,
    /// No candidate reaches farther than this from its peak; half of the largest aneurysm, mm.
    pub reach_mm: f64,
    /// A voxel of at least this vessel probability is a vessel voxel.
    pub vessel_threshold: f32,
    /// Connected vessel voxels are an arterial tree from this share of all of them on.
    pub tree_share: f64,
    /// No candidate's centre lies farther than this from every arterial tree, so that what looks
    /// like an artery but is none proposes nothing; mm. `inf` keeps all.
    pub max_distance_to_tree_mm: f64,
}

impl Default for ProposeConfig {
    fn default() -> Self {
        Self {
            graph: Switch::On,
            max_candidates: 24,
            seed_places: 8,
            peak_floor: 0.02,
            score_floor: 0.02,
            merge_mm: 3.0,
            max_merge_mm: 5.0,
            reach_mm: 15.0,
            vessel_threshold: 0.5,
            tree_share: 0.03,
            max_distance_to_tree_mm: 12.0,
        }
    }
}

/// The best candidates of a series, most probable first: peaks of the aneurysm channel and of the
/// node scores, near ones merged, then the seeds (candidates of a detector without learning, best
/// first) that lie near none of them. What lies far from every arterial tree is none; the distance
/// to the nearest vessel is only measured.
///
/// Without a net, or when the table has other features than the net was trained on, only the
/// aneurysm channel and the seeds speak.
pub fn propose(
    net: Option<&ProposeNet>,
    map: &VesselMap,
    table: &NodeTable,
    seeds: &[Candidate],
    config: &ProposeConfig,
) -> Candidates {
    let net = net.filter(|_| config.graph == Switch::On);
    let scores = net.and_then(|net| net.scores(table)).unwrap_or_default();
    let bounds = PeakBounds {
        floor: config.peak_floor,
        fraction: 0.5,
        radius_mm: config.reach_mm,
        count: 4 * config.max_candidates,
    };
    let vessel = Vessel::of(map, config);
    let judged = |region| judge(region, map, table, &scores, seeds, &vessel, config);
    let on_tree = |place: Point| vessel.distance_to_tree_mm(place) <= config.max_distance_to_tree_mm;
    let node_ball = |node: usize| ball_region(map, table.points[node].point, table.points[node].radius_mm);
    let sacs = regions(&map.aneurysm, bounds).into_iter().filter(|sac| on_tree(sac.centre)).map(judged).collect();
    let peaks = node_peaks(&scores, table, config.score_floor);
    let on_tree_node = |&node: &usize| on_tree(table.points[node].point);
    let nodes = peaks.into_iter().filter(on_tree_node).map(|node| judged(node_ball(node))).collect();
    let mut candidates = separate(sacs, nodes, config);
    candidates.truncate(config.max_candidates.saturating_sub(config.seed_places));
    for seed in seeds {
        let near = candidates.iter().any(|c| is_same(c, seed.centre, config));
        if candidates.len() < config.max_candidates && !near && on_tree(seed.centre) {
            candidates.push(judged(ball_region(map, seed.centre, seed.diameter_mm / 2.0)));
        }
    }
    for (place, candidate) in candidates.iter_mut().enumerate() {
        candidate.rank = place + 1;
    }
    candidates
}

/// Nodes that score at least as high as all their neighbours, and at least the floor.
fn node_peaks(scores: &[f32], table: &NodeTable, floor: f32) -> Vec<usize> {
    let mut is_peak: Vec<bool> = scores.iter().map(|&score| score >= floor).collect();
    for &[from, to] in &table.edges {
        let (from, to) = (from as usize, to as usize);
        // Of two equal neighbours the first is the peak.
        if let (Some(a), Some(b)) = (scores.get(from), scores.get(to))
            && (a > b || (a == b && from < to))
        {
            is_peak[to] = false;
        }
    }
    (0..scores.len()).filter(|&node| is_peak[node]).collect()
}

/// The ball around a point as a region.
fn ball_region(map: &VesselMap, centre: Point, radius_mm: f64) -> Region {
    let ball: Vec<usize> = ball(&map.aneurysm, centre, radius_mm.max(1.0)).map(|(offset, _)| offset).collect();
    let voxel_mm3 = map.aneurysm.grid.affine.determinant().abs() as f32;
    let values = || ball.iter().map(|&offset| map.aneurysm.voxels[offset]);
    Region {
        peak: values().fold(0.0, f32::max),
        centre,
        diameter_mm: 2.0 * radius_mm,
        volume_mm3: values().sum::<f32>() * voxel_mm3,
        voxels: ball,
    }
}

/// The candidate of a region, with its evidence.
fn judge(
    region: Region,
    map: &VesselMap,
    table: &NodeTable,
    scores: &[f32],
    seeds: &[Candidate],
    vessel: &Vessel,
    config: &ProposeConfig,
) -> Candidate {
    let reach_mm = config.merge_mm.max(region.diameter_mm / 2.0);
    let near = |node: &usize| table.points[*node].point.distance_mm(region.centre) <= reach_mm;
    let graph_score = (0..scores.len()).filter(near).map(|node| scores[node]).fold(None, max_of);
    let nearest = (0..table.points.len()).min_by(|&a, &b| {
        let distance = |node: usize| table.points[node].point.distance_mm(region.centre);
        distance(a).total_cmp(&distance(b))
    });
    let feature = |name: &str| node_feature(table, nearest?, name);
    let blob_score = seeds
        .iter()
        .filter(|s| s.centre.distance_mm(region.centre) <= reach_mm)
        .map(|s| s.probability as f32)
        .reduce(f32::max);
    let (distance_to_vessel_mm, nearest_site) = vessel.nearest_outside(region.centre, &region.voxels);
    let peak = region.peak.clamp(0.0, 1.0);
    let doubt = (1.0 - f64::from(peak)) * (1.0 - f64::from(graph_score.unwrap_or(0.0)));
    Candidate {
        rank: 0,
        centre: region.centre,
        diameter_mm: region.diameter_mm,
        probability: 1.0 - doubt,
        site: majority_site(&map.site, region.centre, reach_mm).or(nearest_site),
        distance_to_vessel_mm,
        evidence: Evidence {
            aneurysm_peak: Some(peak),
            aneurysm_volume_mm3: Some(region.volume_mm3),
            graph_score,
            blob_score,
            radius_excess: feature("radius_excess_branch"),
            distance_to_junction_mm: feature("distance_to_junction_cm").map(|cm| 10.0 * cm),
            vessel_probability: value_at(&map.vessel, region.centre),
            ..Evidence::default()
        },
    }
}

fn max_of(best: Option<f32>, value: f32) -> Option<f32> {
    Some(best.map_or(value, |best| best.max(value)))
}

fn node_feature(table: &NodeTable, node: usize, name: &str) -> Option<f32> {
    let column = table.feature_names.iter().position(|&n| n == name)?;
    table.features.get(node * table.feature_names.len() + column).copied()
}

fn value_at(image: &Image<f32>, point: Point) -> Option<f32> {
    let place = image.grid.affine.to_voxel(point)?;
    image.grid.shape.contains(place).then(|| *image.at(image.grid.shape.nearest(place)))
}

/// All candidates, best first, without those that are the same as another one: of two sacs the more
/// probable stays, and a sac stays before a node, which lies on the centreline of the parent and
/// not in the sac.
fn separate(sacs: Candidates, nodes: Candidates, config: &ProposeConfig) -> Candidates {
    let mut kept = Candidates::new();
    for mut candidates in [sacs, nodes] {
        sort(&mut candidates);
        for candidate in candidates {
            if !kept.iter().any(|other| is_same(other, candidate.centre, config)) {
                kept.push(candidate);
            }
        }
    }
    sort(&mut kept);
    kept
}

fn sort(candidates: &mut Candidates) {
    candidates.sort_by(|a, b| b.probability.total_cmp(&a.probability).then(b.diameter_mm.total_cmp(&a.diameter_mm)));
}

/// Whether a place belongs to a candidate that is there already.
fn is_same(candidate: &Candidate, place: Point, config: &ProposeConfig) -> bool {
    let radius_mm = (candidate.diameter_mm / 2.0).min(config.max_merge_mm);
    candidate.centre.distance_mm(place) < config.merge_mm.max(radius_mm)
}

/// Most frequent site within a distance; the first in column order on ties.
fn majority_site(site: &Image<u8>, centre: Point, reach_mm: f64) -> Option<Site> {
    let mut counts = [0usize; SITE_COUNT];
    for (offset, _) in ball(site, centre, reach_mm) {
        if let Some(site) = Site::from_mask_value(site.voxels[offset]) {
            counts[site.column()] += 1;
        }
    }
    let best = (0..SITE_COUNT).rev().max_by_key(|&column| counts[column])?;
    (counts[best] > 0).then(|| Site::from_column(best)).flatten()
}

/// Offsets and distances of the voxels of a ball that lie on the grid.
fn ball<T>(image: &Image<T>, centre: Point, radius_mm: f64) -> impl Iterator<Item = (usize, f64)> + '_ {
    let grid = image.grid;
    let middle = grid.affine.to_voxel(centre);
    let range = move |at: f64, step: f64, n: usize| {
        let half = if step > 0.0 { (radius_mm / step).ceil() } else { 0.0 };
        (at - half).floor().max(0.0) as usize..((at + half).ceil() + 1.0).clamp(0.0, n as f64) as usize
    };
    let spacing = grid.spacing();
    middle
        .into_iter()
        .flat_map(move |m| {
            let (ys, xs) = (range(m.y, spacing.y, grid.shape.y), range(m.x, spacing.x, grid.shape.x));
            range(m.z, spacing.z, grid.shape.z).flat_map(move |z| {
                let xs = xs.clone();
                ys.clone().flat_map(move |y| xs.clone().map(move |x| willis_core::Index::new(z, y, x)))
            })
        })
        .map(move |index| (grid.shape.offset(index), grid.affine.to_world(index.into()).distance_mm(centre)))
        .filter(move |&(_, distance)| distance <= radius_mm)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::propose::net::ProposeNetConfig;
    use burn::tensor::Device;
    use std::sync::Arc;
    use willis_core::{Affine, CentrelinePoint, Grid, HarmonisedVolume, SeriesMeta, Shape, Spacing, Volume};

    /// A vessel along x at y = z = 8 mm, of site ACoM, and aneurysm balls
    /// `(centre, radius, probability)`.
    fn map(balls: &[(Point, f64, f32)]) -> VesselMap {
        let grid =
            Grid::new(Shape::new(32, 32, 64), Affine::axis_aligned(Spacing::isotropic(0.5), Point::new(0.0, 0.0, 0.0)));
        let points = || (0..grid.shape.len()).map(|offset| grid.affine.to_world(grid.shape.index(offset).into()));
        let tube = |p: &Point| (p.y - 8.0).hypot(p.z - 8.0) <= 1.0;
        let ball = |p: &Point| balls.iter().filter(|b| p.distance_mm(b.0) <= b.1).map(|b| b.2).fold(0.0, f32::max);
        let image = Image::filled(grid, 0.0f32);
        let meta = SeriesMeta::default();
        let source = Volume { image: image.clone(), meta: meta.clone(), findings: vec![] };
        VesselMap {
            vessel: Image::new(grid, points().map(|p| f32::from(tube(&p)).max(ball(&p))).collect()),
            aneurysm: Image::new(grid, points().map(|p| ball(&p)).collect()),
            site: Image::new(grid, points().map(|p| if tube(&p) { Site::Acom.mask_value() } else { 0 }).collect()),
            source: Arc::new(HarmonisedVolume { image, meta, source: Arc::new(source), findings: vec![] }),
        }
    }

    fn table() -> NodeTable {
        let points =
            (0..16).map(|i| CentrelinePoint { point: Point::new(2.0 * f64::from(i), 8.0, 8.0), radius_mm: 1.0 });
        let edges = (0..15u32).flat_map(|i| [[i, i + 1], [i + 1, i]]).collect();
        NodeTable {
            points: points.collect(),
            feature_names: vec!["radius_excess_branch", "distance_to_junction_cm"],
            features: (0..16).flat_map(|i| [1.0 + i as f32 / 10.0, i as f32 / 5.0]).collect(),
            edges,
            edge_feature_names: vec![],
            edge_features: vec![],
        }
    }

    #[test]
    fn two_sacs_become_two_candidates_with_evidence() {
        let (big, small) = (Point::new(10.0, 11.0, 8.0), Point::new(24.0, 8.0, 10.5));
        let found =
            propose(None, &map(&[(big, 2.5, 0.9), (small, 1.5, 0.3)]), &table(), &[], &ProposeConfig::default());
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].rank, found[1].rank), (1, 2));
        assert!(found[0].centre.distance_mm(big) < 0.2 && found[1].centre.distance_mm(small) < 0.2);
        assert!((found[0].diameter_mm - 5.0).abs() < 0.5);
        assert_eq!(found[0].site, Some(Site::Acom));
        assert!((found[0].probability - 0.9).abs() < 1e-6);
        assert_eq!(found[0].evidence.radius_excess, Some(1.5));
        assert_eq!(found[0].evidence.distance_to_junction_mm, Some(10.0));
        assert!((found[0].distance_to_vessel_mm.unwrap() - 2.5).abs() < 0.6);
    }

    #[test]
    fn a_sac_far_from_any_vessel_is_kept() {
        let far = Point::new(10.0, 2.0, 2.0);
        let found = propose(None, &map(&[(far, 1.5, 0.6)]), &table(), &[], &ProposeConfig::default());
        assert_eq!(found.len(), 1);
        assert!(found[0].distance_to_vessel_mm.unwrap() > 6.0);
        assert_eq!(found[0].site, Some(Site::Acom));
    }

    #[test]
    fn what_lies_far_from_every_tree_is_none() {
        let island = (Point::new(28.0, 2.0, 2.0), 1.2, 0.8);
        let map = map(&[(Point::new(10.0, 9.5, 8.0), 1.5, 0.6), island]);
        let found = |max_distance_to_tree_mm| {
            let config = ProposeConfig { tree_share: 0.1, max_distance_to_tree_mm, ..ProposeConfig::default() };
            propose(None, &map, &table(), &[], &config).len()
        };
        // The island's middle lies 7.5 mm from the tube's surface.
        assert_eq!([found(7.0), found(8.0), found(f64::INFINITY)], [1, 2, 2]);
        // Without a share to have, the island is a tree of its own.
        let config = ProposeConfig { tree_share: 0.0, max_distance_to_tree_mm: 1.0, ..ProposeConfig::default() };
        assert_eq!(propose(None, &map, &table(), &[], &config).len(), 2);
    }

    #[test]
    fn node_peaks_join_the_candidates() {
        let scores: Vec<f32> = (0..16).map(|i| if i == 7 { 0.9 } else { 0.1 }).collect();
        assert_eq!(node_peaks(&scores, &table(), 0.2), [7]);
        assert_eq!(node_peaks(&[0.5; 16], &table(), 0.2), [0]);
        let table = table();
        let net = ProposeNetConfig::for_table(&table).init(1, &Device::flex());
        let found = propose(Some(&net), &map(&[]), &table, &[], &ProposeConfig::default());
        assert!(!found.is_empty());
        assert!(found.iter().all(|c| c.evidence.graph_score.is_some() && c.diameter_mm == 2.0));
        assert_eq!(found, propose(Some(&net), &map(&[]), &table, &[], &ProposeConfig::default()));
    }

    #[test]
    fn nothing_gives_nothing() {
        assert!(propose(None, &map(&[]), &NodeTable::default(), &[], &ProposeConfig::default()).is_empty());
    }

    #[test]
    fn seeds_fill_the_places_kept_for_them() {
        let ball = (Point::new(10.0, 10.0, 8.0), 2.0, 0.9);
        let seed = |x: f64, probability: f64| Candidate {
            rank: 0,
            centre: Point::new(x, 8.0, 8.0),
            diameter_mm: 2.0,
            probability,
            site: None,
            distance_to_vessel_mm: None,
            evidence: Evidence::default(),
        };
        let seeds = [seed(10.5, 0.5), seed(20.0, 0.4), seed(26.0, 0.3)];
        let config = ProposeConfig { max_candidates: 2, seed_places: 1, ..ProposeConfig::default() };
        let found = propose(None, &map(&[ball]), &table(), &seeds, &config);
        // The first seed is the ball itself, the third finds no place.
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].evidence.blob_score, Some(0.5));
        assert_eq!(found[1].centre, seeds[1].centre);
        assert_eq!(found[1].evidence.blob_score, Some(0.4));
    }
}
