//! Lesion-level detection: free-response ROC and recall among the top candidates.

use willis_core::{Candidate, Lesion};

use crate::figure::Undefined;

/// Candidates and lesions of one series, matched.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SeriesDetections {
    /// Score of each candidate and index of the lesion it hits, if any.
    pub candidates: Vec<(f64, Option<usize>)>,
    /// Number of true lesions.
    pub lesions: usize,
}

/// Free-response ROC curve.
#[derive(Debug, Clone, PartialEq)]
pub struct Froc {
    /// Number of true lesions in all series, at least one.
    pub lesions: usize,
    /// Number of series.
    pub series: usize,
    /// False positives per series and sensitivity at each threshold, in decreasing order of
    /// thresholds.
    pub points: Vec<(f64, f64)>,
}

impl Froc {
    /// Numbers of false positives per scan at which sensitivity is reported by convention.
    pub const STANDARD_RATES: [f64; 7] = [0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0];

    /// Highest sensitivity at no more than `rate` false positives per scan; not interpolated.
    pub fn sensitivity_at(&self, rate: f64) -> f64 {
        self.points.iter().take_while(|(fp, _)| *fp <= rate).last().map_or(0.0, |(_, sensitivity)| *sensitivity)
    }
}

/// Largest distance of a hit from the lesion's centre, mm, unless the lesion's radius is larger.
pub const TOLERANCE_MM: f64 = 3.0;

/// Matches candidates with lesions. A candidate hits the nearest lesion whose centre is within the
/// lesion's radius or `tolerance_mm`, whichever is larger.
pub fn detections(candidates: &[Candidate], lesions: &[Lesion], tolerance_mm: f64) -> SeriesDetections {
    let hit = |candidate: &Candidate| {
        let within = |(index, lesion): (usize, &Lesion)| {
            let reach = tolerance_mm.max(lesion.diameter_mm.unwrap_or(0.0) / 2.0);
            let distance = candidate.centre.distance_mm(lesion.centre);
            (distance <= reach).then_some((distance, index))
        };
        lesions.iter().enumerate().filter_map(within).min_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, index)| index)
    };
    let candidates = candidates.iter().map(|c| (c.probability, hit(c))).collect();
    SeriesDetections { candidates, lesions: lesions.len() }
}

/// Sensitivity against false positives per scan over all thresholds.
///
/// A lesion counts once, at its highest score; further hits of the same lesion are neither true nor
/// false positives. Equal scores share a threshold.
///
/// # Errors
/// `NoLesions`, `NotANumber`.
pub fn froc(series: &[SeriesDetections]) -> Result<Froc, Undefined> {
    let lesions: usize = series.iter().map(|s| s.lesions).sum();
    let mut events: Vec<(f64, Option<(usize, usize)>)> = series
        .iter()
        .enumerate()
        .flat_map(|(i, s)| s.candidates.iter().map(move |(score, hit)| (*score, hit.map(|lesion| (i, lesion)))))
        .collect();
    if lesions == 0 {
        return Err(Undefined::NoLesions);
    }
    if events.iter().any(|(score, _)| score.is_nan()) {
        return Err(Undefined::NotANumber);
    }
    events.sort_by(|a, b| b.0.total_cmp(&a.0));
    let mut found = std::collections::BTreeSet::new();
    let mut false_positives = 0usize;
    let points = events
        .chunk_by(|a, b| a.0 == b.0)
        .map(|threshold| {
            for (_, hit) in threshold {
                match hit {
                    Some(lesion) => drop(found.insert(*lesion)),
                    None => false_positives += 1,
                }
            }
            (false_positives as f64 / series.len() as f64, found.len() as f64 / lesions as f64)
        })
        .collect();
    Ok(Froc { lesions, series: series.len(), points })
}

/// Share of all lesions that one of the `k` best candidates of their series hits.
///
/// Candidates of equal score rank in the order given.
///
/// # Errors
/// `NoLesions`.
pub fn recall_at(series: &[SeriesDetections], k: usize) -> Result<f64, Undefined> {
    let lesions: usize = series.iter().map(|s| s.lesions).sum();
    let found = |s: &SeriesDetections| {
        let mut best: Vec<&(f64, Option<usize>)> = s.candidates.iter().collect();
        best.sort_by(|a, b| b.0.total_cmp(&a.0));
        best.iter().take(k).filter_map(|(_, hit)| *hit).collect::<std::collections::BTreeSet<_>>().len()
    };
    if lesions == 0 {
        return Err(Undefined::NoLesions);
    }
    Ok(series.iter().map(found).sum::<usize>() as f64 / lesions as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use willis_core::{Evidence, Point, Site};

    fn series() -> Vec<SeriesDetections> {
        vec![
            SeriesDetections {
                candidates: vec![(0.9, Some(0)), (0.8, None), (0.7, Some(0)), (0.3, Some(1))],
                lesions: 2,
            },
            SeriesDetections { candidates: vec![(0.8, None), (0.4, None)], lesions: 1 },
        ]
    }

    #[test]
    fn hand_worked_curve() {
        let curve = froc(&series()).unwrap();
        let third = 1.0 / 3.0;
        // Thresholds 0.9, 0.8 (two false positives), 0.7 (lesion 0 again), 0.4, 0.3.
        assert_eq!(curve.points, [(0.0, third), (1.0, third), (1.0, third), (1.5, third), (1.5, 2.0 * third)]);
        assert_eq!(curve.sensitivity_at(1.0), third);
        assert_eq!(curve.sensitivity_at(2.0), 2.0 * third);
        assert_eq!(froc(&[SeriesDetections::default()]), Err(Undefined::NoLesions));
    }

    #[test]
    fn hand_worked_recall() {
        for (k, expected) in [(0, 0.0), (1, 1.0 / 3.0), (3, 1.0 / 3.0), (4, 2.0 / 3.0), (15, 2.0 / 3.0)] {
            assert_eq!(recall_at(&series(), k), Ok(expected), "k = {k}");
        }
        assert_eq!(recall_at(&[], 5), Err(Undefined::NoLesions));
    }

    #[test]
    fn the_nearest_lesion_within_tolerance_is_hit() {
        let lesion = |x: f64, diameter_mm: Option<f64>| Lesion {
            centre: Point::new(x, 0.0, 0.0),
            diameter_mm,
            site: Site::Acom,
            neck: None,
            neck_width_mm: None,
        };
        let candidate = |x: f64| Candidate {
            rank: 1,
            centre: Point::new(x, 0.0, 0.0),
            diameter_mm: 3.0,
            probability: 0.5,
            site: None,
            distance_to_vessel_mm: None,
            evidence: Evidence::default(),
        };
        let lesions = [lesion(0.0, Some(10.0)), lesion(6.0, None)];
        let matched = detections(&[-4.9, 3.5, 8.0, 8.5].map(candidate), &lesions, 2.5);
        assert_eq!(matched.candidates.map_hits(), [Some(0), Some(1), Some(1), Some(1)]);
        let matched = detections(&[candidate(9.0)], &lesions, 2.5);
        assert_eq!(matched.candidates.map_hits(), [None]);
    }

    trait Hits {
        fn map_hits(&self) -> Vec<Option<usize>>;
    }

    impl Hits for Vec<(f64, Option<usize>)> {
        fn map_hits(&self) -> Vec<Option<usize>> {
            self.iter().map(|(_, hit)| *hit).collect()
        }
    }
}
