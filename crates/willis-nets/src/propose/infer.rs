//! Candidates of a vessel map and its node table.

use serde::{Deserialize, Serialize};
use willis_core::{
    Candidate, Candidates, Evidence, Image, InvalidValue, NodeTable, Point, SITE_COUNT, Site, Switch, VesselMap,
};

use super::net::ProposeNet;
use super::peaks::{PeakBounds, PeakRegion, peak_regions};
use super::vessel::VesselVoxels;
use crate::rules::{at_least_one, fraction, non_negative, positive, require};

/// Search for candidates.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProposeConfig {
    /// Whether the node scorer is used.
    pub graph: Switch,
    /// Largest number of candidates of a series.
    pub max_candidates: usize,
    /// How many of `max_candidates` are reserved for seeds that the nets did not find.
    pub seed_places: usize,
    /// Lowest aneurysm probability of a peak.
    pub peak_floor: f32,
    /// Lowest score of a node that is a peak on the graph.
    pub score_floor: f32,
    /// Two candidates are merged if their distance is less than this or than the radius of the
    /// better one, mm.
    pub merge_mm: f64,
    /// Upper limit of the radius in `merge_mm`, so that a large vague region does not absorb a sac
    /// beside it, mm.
    pub max_merge_mm: f64,
    /// Largest distance of a candidate's voxels from its peak: half of the largest aneurysm, mm.
    pub reach_mm: f64,
    /// Vessel probability from which a voxel counts as vessel.
    pub vessel_threshold: f32,
    /// Share of all vessel voxels from which a connected component is an arterial tree.
    pub tree_share: f64,
    /// Candidates whose centre is farther than this from every arterial tree are discarded, mm;
    /// `inf` keeps all.
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

impl ProposeConfig {
    /// Checks every value.
    ///
    /// # Errors
    /// [`InvalidValue`] names the first value that breaks its rule.
    pub fn validate(&self) -> Result<(), InvalidValue> {
        at_least_one("max_candidates", self.max_candidates)?;
        let rule = format!("leaves none of max_candidates = {} to the nets", self.max_candidates);
        require("seed_places", self.seed_places, self.seed_places < self.max_candidates, &rule)?;
        fraction("peak_floor", self.peak_floor)?;
        fraction("score_floor", self.score_floor)?;
        non_negative("merge_mm", self.merge_mm)?;
        non_negative("max_merge_mm", self.max_merge_mm)?;
        positive("reach_mm", self.reach_mm)?;
        fraction("vessel_threshold", self.vessel_threshold)?;
        fraction("tree_share", self.tree_share)?;
        let limit = self.max_distance_to_tree_mm;
        require("max_distance_to_tree_mm", limit, limit >= 0.0, "must be at least 0")
    }
}

/// The best candidates of a series, most probable first.
///
/// The peaks of the aneurysm probability and of the node scores are merged where they are near each
/// other. Then `seeds` are added that are near none of them: candidates of a detector without
/// learning, best first. Peaks and seeds farther than `max_distance_to_tree_mm` from every arterial
/// tree are discarded.
///
/// Without a net, or if the table has other features than the net was trained on, the node scores
/// are left out.
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
    let vessels = VesselVoxels::of(map, config.vessel_threshold, config.tree_share);
    let sources = EvidenceSources { map, table, scores: &scores, seeds, vessels: &vessels };
    let on_tree = |place: Point| vessels.distance_to_tree_mm(place) <= config.max_distance_to_tree_mm;
    let node_ball = |node: usize| ball_region(map, table.points[node].point, table.points[node].radius_mm);
    let sacs = peak_regions(&map.aneurysm, bounds).into_iter().filter(|sac| on_tree(sac.centre));
    let sacs = sacs.map(|region| sources.candidate(region, config.merge_mm)).collect();
    let nodes = node_peaks(&scores, table, config.score_floor).into_iter();
    let nodes = nodes.filter(|&node| on_tree(table.points[node].point));
    let nodes = nodes.map(|node| sources.candidate(node_ball(node), config.merge_mm)).collect();
    let mut candidates = merge(sacs, nodes, config);
    candidates.truncate(config.max_candidates - config.seed_places);
    for seed in seeds {
        let is_known = candidates.iter().any(|c| is_same(c, seed.centre, config));
        if candidates.len() < config.max_candidates && !is_known && on_tree(seed.centre) {
            let region = ball_region(map, seed.centre, seed.diameter_mm / 2.0);
            candidates.push(sources.candidate(region, config.merge_mm));
        }
    }
    for (place, candidate) in candidates.iter_mut().enumerate() {
        candidate.rank = place + 1;
    }
    candidates
}

/// Nodes whose score is at least the floor and at least that of every neighbour.
fn node_peaks(scores: &[f32], table: &NodeTable, floor: f32) -> Vec<usize> {
    let mut is_peak: Vec<bool> = scores.iter().map(|&score| score >= floor).collect();
    for &[from, to] in &table.edges {
        let (from, to) = (from as usize, to as usize);
        // Of two neighbours with equal scores the first is the peak.
        if let (Some(a), Some(b)) = (scores.get(from), scores.get(to))
            && (a > b || (a == b && from < to))
        {
            is_peak[to] = false;
        }
    }
    (0..scores.len()).filter(|&node| is_peak[node]).collect()
}

/// The voxels of a ball as a region; the radius is taken as at least 1 mm.
fn ball_region(map: &VesselMap, centre: Point, radius_mm: f64) -> PeakRegion {
    let ball: Vec<usize> = ball(&map.aneurysm, centre, radius_mm.max(1.0)).map(|(offset, _)| offset).collect();
    let voxel_mm3 = map.aneurysm.grid.affine.determinant().abs() as f32;
    let values = || ball.iter().map(|&offset| map.aneurysm.voxels[offset]);
    PeakRegion {
        peak: values().fold(0.0, f32::max),
        centre,
        diameter_mm: 2.0 * radius_mm,
        volume_mm3: values().sum::<f32>() * voxel_mm3,
        voxels: ball,
    }
}

/// Artifacts of a series from which the evidence of a candidate is measured.
struct EvidenceSources<'a> {
    map: &'a VesselMap,
    table: &'a NodeTable,
    /// Score of every node; empty without a node scorer.
    scores: &'a [f32],
    seeds: &'a [Candidate],
    vessels: &'a VesselVoxels,
}

impl EvidenceSources<'_> {
    /// The candidate of a region, with its evidence. Nodes and seeds belong to it up to `merge_mm`
    /// or its radius from its centre.
    fn candidate(&self, region: PeakRegion, merge_mm: f64) -> Candidate {
        let Self { map, table, scores, seeds, vessels } = *self;
        let reach_mm = merge_mm.max(region.diameter_mm / 2.0);
        let is_near = |node: &usize| table.points[*node].point.distance_mm(region.centre) <= reach_mm;
        let graph_score = (0..scores.len()).filter(is_near).map(|node| scores[node]).fold(None, max_of);
        let nearest = (0..table.points.len()).min_by(|&a, &b| {
            let distance = |node: usize| table.points[node].point.distance_mm(region.centre);
            distance(a).total_cmp(&distance(b))
        });
        let feature = |name: &str| node_feature(table, nearest?, name);
        let blob_score = seeds
            .iter()
            .filter(|seed| seed.centre.distance_mm(region.centre) <= reach_mm)
            .map(|seed| seed.probability as f32)
            .reduce(f32::max);
        let (distance_to_vessel_mm, nearest_site) = vessels.nearest_outside(region.centre, &region.voxels);
        let peak = region.peak.clamp(0.0, 1.0);
        // Neither the segmentation net nor the node scorer sees an aneurysm here.
        let none = (1.0 - f64::from(peak)) * (1.0 - f64::from(graph_score.unwrap_or(0.0)));
        Candidate {
            rank: 0,
            centre: region.centre,
            diameter_mm: region.diameter_mm,
            probability: 1.0 - none,
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

/// All candidates, best first, without duplicates.
///
/// Of two sacs the more probable one is kept. Of a sac and a node the sac is kept, because the node
/// lies on the centreline of the parent artery and not in the sac.
fn merge(sacs: Candidates, nodes: Candidates, config: &ProposeConfig) -> Candidates {
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

/// Whether a place is near enough to a candidate to be the same one.
fn is_same(candidate: &Candidate, place: Point, config: &ProposeConfig) -> bool {
    let radius_mm = (candidate.diameter_mm / 2.0).min(config.max_merge_mm);
    candidate.centre.distance_mm(place) < config.merge_mm.max(radius_mm)
}

/// Most frequent site within a distance; of equally frequent ones the first in column order.
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

/// Offsets, and distances from the centre in mm, of the voxels of a ball that are on the grid.
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
    use crate::layers::Init;
    use crate::propose::net::ProposeNetConfig;
    use burn::tensor::Device;
    use std::sync::Arc;
    use willis_core::{Affine, CentrelinePoint, Grid, HarmonisedVolume, SeriesMeta, Shape, Spacing, Volume};

    /// An ACoM along x at y = z = 8 mm, and aneurysm balls `(centre, radius, probability)`.
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
    fn candidates_far_from_every_tree_are_discarded() {
        let island = (Point::new(28.0, 2.0, 2.0), 1.2, 0.8);
        let map = map(&[(Point::new(10.0, 9.5, 8.0), 1.5, 0.6), island]);
        let found = |max_distance_to_tree_mm| {
            let config = ProposeConfig { tree_share: 0.1, max_distance_to_tree_mm, ..ProposeConfig::default() };
            propose(None, &map, &table(), &[], &config).len()
        };
        // The centre of the island is 7.5 mm from the surface of the tube.
        assert_eq!([found(7.0), found(8.0), found(f64::INFINITY)], [1, 2, 2]);
        // With a tree share of 0 the island is a tree of its own.
        let config = ProposeConfig { tree_share: 0.0, max_distance_to_tree_mm: 1.0, ..ProposeConfig::default() };
        assert_eq!(propose(None, &map, &table(), &[], &config).len(), 2);
    }

    #[test]
    fn node_peaks_join_the_candidates() {
        let scores: Vec<f32> = (0..16).map(|i| if i == 7 { 0.9 } else { 0.1 }).collect();
        assert_eq!(node_peaks(&scores, &table(), 0.2), [7]);
        assert_eq!(node_peaks(&[0.5; 16], &table(), 0.2), [0]);
        let table = table();
        let net = ProposeNetConfig::for_table(&table).init(&mut Init::new(1, &Device::flex()));
        let found = propose(Some(&net), &map(&[]), &table, &[], &ProposeConfig::default());
        assert!(!found.is_empty());
        assert!(found.iter().all(|c| c.evidence.graph_score.is_some() && c.diameter_mm == 2.0));
        assert_eq!(found, propose(Some(&net), &map(&[]), &table, &[], &ProposeConfig::default()));
    }

    #[test]
    fn invalid_values_are_named() {
        let default = ProposeConfig::default;
        default().validate().unwrap();
        ProposeConfig { max_distance_to_tree_mm: f64::INFINITY, ..default() }.validate().unwrap();
        for (config, message) in [
            (
                ProposeConfig { max_candidates: 8, ..default() },
                "seed_places = 8 leaves none of max_candidates = 8 to the nets",
            ),
            (ProposeConfig { max_candidates: 0, ..default() }, "max_candidates = 0 must be at least 1"),
            (ProposeConfig { peak_floor: -0.1, ..default() }, "peak_floor = -0.1 must lie between 0 and 1"),
            (
                ProposeConfig { max_distance_to_tree_mm: f64::NAN, ..default() },
                "max_distance_to_tree_mm = NaN must be at least 0",
            ),
        ] {
            assert_eq!(config.validate().unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn an_empty_map_has_no_candidates() {
        assert!(propose(None, &map(&[]), &NodeTable::default(), &[], &ProposeConfig::default()).is_empty());
    }

    #[test]
    fn seeds_fill_the_places_reserved_for_them() {
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
        // The first seed is in the ball, and no place is left for the third.
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].evidence.blob_score, Some(0.5));
        assert_eq!(found[1].centre, seeds[1].centre);
        assert_eq!(found[1].evidence.blob_score, Some(0.4));
    }
}
