//! The loss of the vessel net.
//!
//! Vessels: cross-entropy over background and sites, Tversky loss of the union of all sites, and
//! skeleton recall per site. Aneurysms: focal loss and Tversky loss.
//!
//! Letters: B batch, N voxels of a patch.
//!
//! Source: Kirchhoff et al., ECCV 2024, arXiv:2404.03010 (skeleton recall); Lin et al., ICCV 2017,
//! arXiv:1708.02002 (focal loss); [`super::tversky`].

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use willis_core::{InvalidValue, SITE_COUNT};
use willis_kernels::activation::softmax_across;

use super::tversky::{SoftCounts, Tversky, TverskyLoss};
use crate::rules::non_negative;

/// Number of classes: background and the sites.
pub const CLASSES: usize = SITE_COUNT + 1;
/// Channels of the logits: the classes, then the aneurysm channel.
pub const CHANNELS: usize = CLASSES + 1;

/// Configuration of the loss: the weights of its terms.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SegmentationLossConfig {
    /// Weight of background voxels in the cross-entropy; vessel voxels have weight 1.
    pub background_weight: f64,
    /// Weight of the cross-entropy.
    pub cross_entropy: f64,
    /// Weight of the Tversky term of the vessels.
    pub vessel_tversky: f64,
    /// Weight of the skeleton recall term.
    pub skeleton_recall: f64,
    /// Weight of the focal term of the aneurysms.
    pub focal: f64,
    /// Weight of the Tversky term of the aneurysms, if the batch has any.
    pub aneurysm_tversky: f64,
    /// In both aneurysm terms, aneurysms with fewer voxels than this weigh as much as one with this
    /// many; with 0, every voxel weighs the same. Otherwise the loss of a large aneurysm dominates
    /// that of a small one (Kofler et al., arXiv:2205.08209).
    pub small_lesion_voxels: f64,
    /// Weight of the soft clDice loss ([`super::cldice`]); 0 disables it.
    pub soft_cldice: f64,
    /// Configuration of both Tversky terms.
    pub tversky: Tversky,
}

impl Default for SegmentationLossConfig {
    fn default() -> Self {
        Self {
            background_weight: 0.1,
            cross_entropy: 1.0,
            vessel_tversky: 1.0,
            skeleton_recall: 0.5,
            focal: 1.0,
            aneurysm_tversky: 1.0,
            small_lesion_voxels: 0.0,
            soft_cldice: 0.0,
            tversky: Tversky::default(),
        }
    }
}

impl SegmentationLossConfig {
    /// Checks every value.
    ///
    /// # Errors
    /// [`InvalidValue`] names the first value that breaks its rule.
    pub fn validate(&self) -> Result<(), InvalidValue> {
        for (field, weight) in [
            ("background_weight", self.background_weight),
            ("cross_entropy", self.cross_entropy),
            ("vessel_tversky", self.vessel_tversky),
            ("skeleton_recall", self.skeleton_recall),
            ("focal", self.focal),
            ("aneurysm_tversky", self.aneurysm_tversky),
            ("small_lesion_voxels", self.small_lesion_voxels),
            ("soft_cldice", self.soft_cldice),
        ] {
            non_negative(field, weight)?;
        }
        self.tversky.validate().map_err(|error| error.within("tversky"))
    }
}

/// The target of a batch of patches; each field has `B N` values.
#[derive(Debug, Clone, Copy)]
pub struct SegmentationTarget<'a> {
    /// Class of each voxel, below [`CLASSES`].
    pub sites: &'a [u8],
    /// Weight of each aneurysm voxel, 0 elsewhere.
    pub aneurysm: &'a [f32],
    /// Class of each voxel of the tubed skeleton, 0 elsewhere.
    pub tube: &'a [u8],
}

/// The unweighted terms, their weighted sum, and its gradient with respect to the logits.
#[derive(Debug, Clone, PartialEq)]
pub struct SegmentationLoss {
    /// Weighted sum of the terms.
    pub total: f64,
    /// Weighted mean cross-entropy, nats.
    pub cross_entropy: f64,
    /// Tversky loss of the vessels, 0 to 1.
    pub vessel_tversky: f64,
    /// One minus the recall of the tubed skeletons, mean over the sites present; 0 to 1.
    pub skeleton_recall: f64,
    /// Focal loss, divided by the total weight of the aneurysm voxels.
    pub focal: f64,
    /// Tversky loss of the aneurysms, 0 to 1; 0 if there are none.
    pub aneurysm_tversky: f64,
    /// Gradient of `total` with respect to the logits, `[B, 15, N]`.
    pub gradient: Vec<f32>,
}

/// Voxels per task. Fixed, so that sums do not depend on the number of threads.
const CHUNK_VOXELS: usize = 8192;
/// Lower bound of the total weight that divides the focal term.
const MIN_FOCAL_VOXELS: f64 = 200.0;

/// Computes the loss and its gradient, which reuses the memory of the logits.
///
/// # Shapes
/// logits `[B, 15, N]`, N voxels in C order
///
/// # Panics
/// if the numbers of values do not fit each other or a class is out of range (programmer error)
pub fn segmentation_loss(
    logits: Vec<f32>,
    batch: usize,
    target: SegmentationTarget<'_>,
    config: &SegmentationLossConfig,
) -> SegmentationLoss {
    let voxels = target.sites.len();
    assert_eq!(logits.len(), voxels * CHANNELS, "{voxels} voxels with {CHANNELS} channels each");
    assert!(voxels.is_multiple_of(batch) && target.aneurysm.len() == voxels && target.tube.len() == voxels);
    let mut gradient = logits;
    let sums = chunks(&mut gradient, voxels / batch)
        .into_par_iter()
        .map(|mut chunk| chunk.probabilities(target, config.background_weight))
        .collect::<Vec<_>>()
        .into_iter()
        .fold(LossSums::default(), LossSums::merge);
    let derivatives = LossDerivatives::new(&sums, config);
    chunks(&mut gradient, voxels / batch).into_par_iter().for_each(|mut chunk| chunk.gradient(target, &derivatives));
    let aneurysm_tversky = if sums.lesion_voxels > 0.0 { derivatives.aneurysm.value } else { 0.0 };
    let terms = [
        (sums.cross_entropy / sums.weight.max(f64::MIN_POSITIVE), config.cross_entropy),
        (derivatives.vessel.value, config.vessel_tversky),
        (sums.skeleton_loss(), config.skeleton_recall),
        (sums.focal / derivatives.focal_voxels, config.focal),
        (aneurysm_tversky, config.aneurysm_tversky),
    ];
    SegmentationLoss {
        total: terms.iter().map(|(term, weight)| term * weight).sum(),
        cross_entropy: terms[0].0,
        vessel_tversky: terms[1].0,
        skeleton_recall: terms[2].0,
        focal: terms[3].0,
        aneurysm_tversky,
        gradient,
    }
}

/// LossSums over voxels, computed in the first pass.
#[derive(Debug, Clone, Copy, Default)]
struct LossSums {
    cross_entropy: f64,
    weight: f64,
    vessel: SoftCounts,
    tube_hit: [f64; CLASSES],
    tube: [f64; CLASSES],
    focal: f64,
    aneurysm: SoftCounts,
    lesion_voxels: f64,
    background_weight: f64,
}

impl LossSums {
    fn merge(self, other: Self) -> Self {
        let add = |a: [f64; CLASSES], b: [f64; CLASSES]| std::array::from_fn(|class| a[class] + b[class]);
        Self {
            cross_entropy: self.cross_entropy + other.cross_entropy,
            weight: self.weight + other.weight,
            vessel: self.vessel.merge(other.vessel),
            tube_hit: add(self.tube_hit, other.tube_hit),
            tube: add(self.tube, other.tube),
            focal: self.focal + other.focal,
            aneurysm: self.aneurysm.merge(other.aneurysm),
            lesion_voxels: self.lesion_voxels + other.lesion_voxels,
            background_weight: other.background_weight,
        }
    }

    fn tubes_present(&self) -> f64 {
        self.tube.iter().filter(|&&voxels| voxels > 0.0).count() as f64
    }

    fn skeleton_loss(&self) -> f64 {
        let missed = |(hit, all): (&f64, &f64)| if *all > 0.0 { 1.0 - hit / all } else { 0.0 };
        self.tube_hit.iter().zip(&self.tube).map(missed).sum::<f64>() / self.tubes_present().max(1.0)
    }
}

/// Derivatives that many voxels share, with the weights of the terms; used in the second pass.
#[derive(Debug)]
struct LossDerivatives {
    cross_entropy: f64,
    background_weight: f64,
    vessel: TverskyLoss,
    vessel_weight: f64,
    tube: [f64; CLASSES],
    focal_voxels: f64,
    focal: f64,
    aneurysm: TverskyLoss,
    aneurysm_weight: f64,
}

impl LossDerivatives {
    fn new(sums: &LossSums, config: &SegmentationLossConfig) -> Self {
        let tubes = sums.tubes_present().max(1.0);
        let focal_voxels = sums.lesion_voxels.max(MIN_FOCAL_VOXELS);
        let tube = sums.tube.map(|all| if all > 0.0 { -config.skeleton_recall / (all * tubes) } else { 0.0 });
        Self {
            cross_entropy: config.cross_entropy / sums.weight.max(f64::MIN_POSITIVE),
            background_weight: config.background_weight,
            vessel: config.tversky.loss(sums.vessel),
            vessel_weight: config.vessel_tversky,
            tube,
            focal_voxels,
            focal: config.focal / focal_voxels,
            aneurysm: config.tversky.loss(sums.aneurysm),
            aneurysm_weight: if sums.lesion_voxels > 0.0 { config.aneurysm_tversky } else { 0.0 },
        }
    }
}

/// A range of voxels of all channels.
struct VoxelChunk<'a> {
    /// Index of the first voxel in the targets.
    start: usize,
    rows: Vec<&'a mut [f32]>,
}

/// Splits channel-major values into ranges of voxels.
fn chunks(values: &mut [f32], voxels: usize) -> Vec<VoxelChunk<'_>> {
    let mut chunks = Vec::new();
    for (item, volume) in values.chunks_mut(voxels * CHANNELS).enumerate() {
        let mut rows: Vec<_> = volume.chunks_mut(voxels).map(|row| row.chunks_mut(CHUNK_VOXELS)).collect();
        for start in (0..voxels).step_by(CHUNK_VOXELS) {
            let rows = rows.iter_mut().filter_map(Iterator::next).collect();
            chunks.push(VoxelChunk { start: item * voxels + start, rows });
        }
    }
    chunks
}

impl VoxelChunk<'_> {
    /// Replaces logits by probabilities and returns the sums over the voxels.
    fn probabilities(&mut self, target: SegmentationTarget<'_>, background_weight: f64) -> LossSums {
        let mut sums = LossSums { background_weight, ..LossSums::default() };
        let (lesion_row, class_rows) = self.rows.split_last_mut().expect("fifteen rows");
        softmax_across(class_rows);
        for i in 0..lesion_row.len() {
            let voxel = self.start + i;
            let (site, tube) = (usize::from(target.sites[voxel]), usize::from(target.tube[voxel]));
            let weight = if site == 0 { background_weight } else { 1.0 };
            sums.weight += weight;
            sums.cross_entropy -= weight * f64::from(class_rows[site][i].max(f32::MIN_POSITIVE).ln());
            sums.vessel.add(1.0 - class_rows[0][i], f32::from(u8::from(site != 0)));
            if tube != 0 {
                sums.tube[tube] += 1.0;
                sums.tube_hit[tube] += f64::from(class_rows[tube][i]);
            }
            let p = 1.0 / (1.0 + (-lesion_row[i]).exp());
            lesion_row[i] = p;
            let lesion = target.aneurysm[voxel];
            sums.aneurysm.add(p, lesion);
            sums.lesion_voxels += f64::from(lesion);
            sums.focal += f64::from(focal(p, lesion).0);
        }
        sums
    }

    /// Replaces probabilities by the gradient with respect to the logits.
    fn gradient(&mut self, target: SegmentationTarget<'_>, derivatives: &LossDerivatives) {
        let (lesion_row, class_rows) = self.rows.split_last_mut().expect("fifteen rows");
        let voxels = self.start..self.start + lesion_row.len();
        let (sites, tubes) = (&target.sites[voxels.clone()], &target.tube[voxels.clone()]);
        let cross_entropy =
            [derivatives.background_weight, 1.0].map(|weight| (weight * derivatives.cross_entropy) as f32);
        // Derivatives with respect to the probability of the background, whose complement is the
        // union of the vessels, and to those of the tubed skeletons.
        let vessel = &derivatives.vessel;
        let d_background = [vessel.d_other, vessel.d_target].map(|d| -(d * derivatives.vessel_weight) as f32);
        let d_tube = derivatives.tube.map(|d| d as f32);
        // The softmax derivative of each voxel: a factor of all classes, and a summand of two.
        let (scale, added): (Vec<f32>, Vec<[f32; 2]>) = sites
            .iter()
            .zip(tubes)
            .enumerate()
            .map(|(i, (&site, &tube))| {
                let (vessel, tube) = (usize::from(site != 0), usize::from(tube));
                let added = [d_background[vessel] * class_rows[0][i], d_tube[tube] * class_rows[tube][i]];
                (cross_entropy[vessel] - added[0] - added[1], added)
            })
            .unzip();
        for row in class_rows.iter_mut() {
            row.iter_mut().zip(&scale).for_each(|(p, scale)| *p *= scale);
        }
        for (i, (&site, &tube)) in sites.iter().zip(tubes).enumerate() {
            class_rows[usize::from(site)][i] -= cross_entropy[usize::from(site != 0)];
            class_rows[0][i] += added[i][0];
            class_rows[usize::from(tube)][i] += added[i][1];
        }
        let aneurysm = &derivatives.aneurysm;
        for (value, &lesion) in lesion_row.iter_mut().zip(&target.aneurysm[voxels]) {
            let p = *value;
            let d_tversky = if lesion > 0.0 { f64::from(lesion) * aneurysm.d_target } else { aneurysm.d_other };
            let d_p = (d_tversky * derivatives.aneurysm_weight) as f32;
            *value = focal(p, lesion).1 * derivatives.focal as f32 + d_p * p * (1.0 - p);
        }
    }
}

/// Focal loss `-w (1 - q)^2 ln q` of a voxel and its derivative with respect to the logit.
///
/// q is the probability of the true label, and w the weight: `target` for target voxels, 1 for all
/// others, whose `target` is 0.
fn focal(p: f32, target: f32) -> (f32, f32) {
    let (q, signed_weight, weight) = if target > 0.0 { (p, target, target) } else { (1.0 - p, -1.0, 1.0) };
    let log = q.max(f32::MIN_POSITIVE).ln();
    let rest = 1.0 - q;
    (-weight * rest * rest * log, signed_weight * rest * rest * (2.0 * q * log - rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden;
    use crate::loss::assert_gradient;

    const VOXELS: usize = 12;

    fn target() -> SegmentationTarget<'static> {
        SegmentationTarget {
            sites: &[0, 0, 3, 3, 0, 13, 0, 1, 1, 1, 0, 0],
            aneurysm: &[0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 2.5, 0.0, 0.0, 0.0, 0.0],
            tube: &[0, 0, 3, 0, 0, 13, 0, 0, 1, 1, 0, 0],
        }
    }

    fn logits() -> Vec<f32> {
        golden::stream("input").take(VOXELS * CHANNELS).map(|t| 2.0 * t as f32).collect()
    }

    #[test]
    fn gradient_equals_finite_differences() {
        let config = SegmentationLossConfig::default();
        for batch in [1, 2] {
            let loss = |x: &[f32]| segmentation_loss(x.to_vec(), batch, target(), &config);
            let x = logits();
            let all: Vec<usize> = (0..x.len()).collect();
            // Probabilities are f32; with a smaller step their rounding errors dominate.
            assert_gradient(4e-3, |x| loss(x).total, &x, &loss(&x).gradient, &all);
        }
    }

    #[test]
    fn confident_truth_has_no_loss_and_confident_error_a_large_one() {
        let confident = |right: f32| {
            let mut logits = vec![-right; VOXELS * CHANNELS];
            for (voxel, (&site, &lesion)) in target().sites.iter().zip(target().aneurysm).enumerate() {
                logits[usize::from(site) * VOXELS + voxel] = right;
                logits[(CHANNELS - 1) * VOXELS + voxel] = if lesion > 0.0 { right } else { -right };
            }
            segmentation_loss(logits, 1, target(), &SegmentationLossConfig::default())
        };
        let good = confident(20.0);
        assert!(good.total < 1e-3 && good.gradient.iter().all(|g| g.abs() < 1e-3), "{good:?}");
        let bad = confident(-20.0);
        assert!(bad.total > 5.0 && bad.gradient.iter().all(|g| g.is_finite()));
    }

    #[test]
    fn invalid_values_are_named() {
        let tversky = Tversky { gamma: 0.0, ..Tversky::default() };
        let config = SegmentationLossConfig { tversky, ..SegmentationLossConfig::default() };
        assert_eq!(config.validate().unwrap_err().to_string(), "tversky.gamma = 0 must be finite and above 0");
        let config = SegmentationLossConfig { focal: f64::NAN, ..SegmentationLossConfig::default() };
        assert_eq!(config.validate().unwrap_err().field, "focal");
        assert!(SegmentationLossConfig::default().validate().is_ok());
    }

    #[test]
    fn skeleton_recall_by_hand() {
        // Equal logits: every class has probability 1/14, so the recall of every tube is 1/14.
        let loss = segmentation_loss(vec![0.0; VOXELS * CHANNELS], 1, target(), &SegmentationLossConfig::default());
        assert!((loss.skeleton_recall - 13.0 / 14.0).abs() < 1e-6);
        assert!((loss.cross_entropy - 14f64.ln()).abs() < 1e-5);
    }
}
