//! Tracing and the two detectors without learning on real arterial trees (IntrA, Yang et al., CVPR
//! 2020), where the data is present.

#[path = "../src/shared_data.rs"]
mod shared_data;

use std::path::Path;

use willis_core::{Candidates, Image, NodeKind, Point, files};
use willis_imaging::detect::{blob, excess};
use willis_imaging::trace::{TraceConfig, graph_from_mask};

use shared_data::shared_data;

/// An aneurysm labelled by an expert.
struct LabelledAneurysm {
    centre: Point,
    diameter_mm: f64,
}

fn labelled(folder: &Path, case: &str) -> Vec<LabelledAneurysm> {
    let table = std::fs::read_to_string(folder.join("ground_truth.csv")).expect("the data set has its table");
    let of_case = table.lines().map(|line| line.split(',').collect::<Vec<_>>()).filter(|row| row[1] == case);
    let parse = |row: Vec<&str>| {
        let c: Vec<f64> = row[3].split(' ').map(|v| v.parse().expect("a coordinate")).collect();
        LabelledAneurysm { centre: Point::new(c[0], c[1], c[2]), diameter_mm: row[5].parse().expect("a diameter") }
    };
    of_case.map(parse).collect()
}

/// Rank of the first candidate within the sac, or within 3 mm of its centre.
fn rank_of(truth: &LabelledAneurysm, found: &Candidates) -> Option<usize> {
    let reach = (truth.diameter_mm / 2.0).max(3.0);
    found.iter().find(|c| c.centre.distance_mm(truth.centre) <= reach).map(|c| c.rank)
}

#[test]
fn aneurysms_of_real_trees_are_among_the_candidates() {
    let Some(folder) = shared_data("10_intra") else { return };
    let cases = std::env::var("WILLIS_INTRA_CASES").unwrap_or("AN149".into());
    let (mut n, mut by_excess, mut by_blob) = (0, 0, 0);
    for case in cases.split(' ') {
        let path = folder.join(format!("{case}_vesselmask_0.4mm.nii.gz"));
        let image = files::nifti::read(&path).expect("a readable mask");
        let mask: Image<u8> = image.map(|&v| u8::from(v > 0.5));
        let start = std::time::Instant::now();
        let graph = graph_from_mask(&mask, &TraceConfig::default());
        let traced = start.elapsed();
        let [tips, junctions] =
            [NodeKind::Tip, NodeKind::Junction].map(|kind| graph.nodes.iter().filter(|n| n.kind == kind).count());
        println!(
            "{case}: {tips} tips, {junctions} junctions, {:.0} mm, {:.1} % covered, {traced:.1?}",
            graph.length_mm(),
            100.0 * covered(&mask, &graph),
        );
        let widest = excess::candidates(&graph, &excess::ExcessConfig::default());
        let start = std::time::Instant::now();
        let blobs = blob::candidates(&image, Some(&mask), &blob::BlobConfig::default());
        println!("  blobs {:.1?}", start.elapsed());
        for truth in labelled(&folder, case) {
            let (e, b) = (rank_of(&truth, &widest), rank_of(&truth, &blobs));
            println!("  {:.1} mm: rank {e:?} by excess, {b:?} by blobs", truth.diameter_mm);
            n += 1;
            by_excess += usize::from(e.is_some());
            by_blob += usize::from(b.is_some());
        }
    }
    println!("{n} aneurysms: {by_excess} among 15 by excess, {by_blob} by blobs");
    assert!(n > 0, "the table lists no aneurysm of {cases}");
    assert!(2 * by_blob.max(by_excess) >= n, "{by_excess} and {by_blob} of {n}");
}

/// Fraction of the voxels of the mask within twice the radius plus 1 mm of a centreline point.
fn covered(mask: &Image<u8>, graph: &willis_core::VesselGraph) -> f64 {
    let mut near = vec![false; mask.voxels.len()];
    let (shape, spacing) = (mask.grid.shape, mask.grid.spacing());
    let inverse = mask.grid.affine.inverse().expect("a regular grid");
    for p in graph.points() {
        let (at, reach) = (inverse.apply(p.point), 2.0 * p.radius_mm + 1.0);
        let span =
            |c: f64, s: f64, n: usize| ((c - reach / s).max(0.0) as usize)..((c + reach / s) as usize + 1).min(n);
        for z in span(at.z, spacing.z, shape.z) {
            for y in span(at.y, spacing.y, shape.y) {
                for x in span(at.x, spacing.x, shape.x) {
                    let d =
                        [(z as f64 - at.z) * spacing.z, (y as f64 - at.y) * spacing.y, (x as f64 - at.x) * spacing.x];
                    if d.iter().map(|v| v * v).sum::<f64>() <= reach * reach {
                        near[(z * shape.y + y) * shape.x + x] = true;
                    }
                }
            }
        }
    }
    let total = mask.voxels.iter().filter(|&&m| m != 0).count();
    mask.voxels.iter().zip(near).filter(|(m, near)| **m != 0 && *near).count() as f64 / total.max(1) as f64
}
