//! Candidate aneurysms and the evidence for each.

use serde::{Deserialize, Serialize};

use crate::anatomy::{SITE_COUNT, Site};
use crate::space::Point;

/// Measurements of the stages at a candidate; `None` if the stage that measures it was off.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Evidence {
    /// Highest aneurysm probability of the segmentation net near the centre, 0 to 1.
    pub aneurysm_peak: Option<f32>,
    /// Aneurysm probability summed over the candidate, mm³.
    pub aneurysm_volume_mm3: Option<f32>,
    /// Highest node score of the graph net near the centre, 0 to 1.
    pub graph_score: Option<f32>,
    /// Score of the nearest blob of the vessel map, 0 to 1.
    pub blob_score: Option<f32>,
    /// Local radius over the branch's median radius.
    pub radius_excess: Option<f32>,
    /// Distance to the nearest junction, mm.
    pub distance_to_junction_mm: Option<f32>,
    /// Vessel probability at the centre, 0 to 1.
    pub vessel_probability: Option<f32>,
    /// Logit of "is an aneurysm" from the candidate classifier.
    pub class_logit: Option<f32>,
    /// Site probabilities from the candidate classifier, column order.
    pub site_probabilities: Option<[f32; SITE_COUNT]>,
    /// Kuramoto order parameter inside the candidate, 0 to 1.
    pub order_inside: Option<f32>,
    /// Kuramoto order parameter in a shell around the candidate, 0 to 1.
    pub order_shell: Option<f32>,
    /// Energy of the last oscillator state, per oscillator.
    pub energy: Option<f32>,
    /// Mean physics residual.
    pub physics_residual: Option<f32>,
}

/// A candidate aneurysm.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// 1 for the most probable.
    pub rank: usize,
    /// Centre, LPS mm.
    pub centre: Point,
    /// Estimated largest diameter, mm.
    pub diameter_mm: f64,
    /// Probability that this is an aneurysm, from the last stage that computed one; calibrated
    /// after the stack.
    pub probability: f64,
    /// Most probable site.
    pub site: Option<Site>,
    /// Distance from the centre to the nearest vessel voxel outside the candidate, mm; `None` if
    /// there are no vessels.
    pub distance_to_vessel_mm: Option<f64>,
    /// Measurements of the stages.
    pub evidence: Evidence,
}

/// Candidates of one series, most probable first.
pub type Candidates = Vec<Candidate>;
