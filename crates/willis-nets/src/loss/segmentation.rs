//! The loss of the vessel net: cross-entropy over background and sites, Tversky over the union of
//! the sites, skeleton recall per site, and focal loss with Tversky for the aneurysm channel.
//!
//! Sources: Kirchhoff et al., ECCV 2024, arXiv:2404.03010 (skeleton recall); Lin et al., ICCV 2017,
//! arXiv:1708.02002 (focal loss); [`super::tversky`].

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use willis_core::{InvalidValue, SITE_COUNT};
use willis_kernels::activation::softmax_across;

use super::tversky::{Overlap, Tversky, TverskyLoss};
use crate::rules::{non_negative, positive};

/// Background and the sites, as mask values.
pub const CLASSES: usize = SITE_COUNT + 1;
/// Channels of the logits: the classes, then the aneurysm.
pub const CHANNELS: usize = CLASSES + 1;

/// Weights of the terms.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SegmentationLossConfig {
    /// Weight of a background voxel in the cross-entropy, against 1 for a vessel voxel.
    pub background_weight: f64,
    /// Weight of the cross-entropy.
    pub cross_entropy: f64,
    /// Weight of the Tversky term of the vessels.
    pub vessel_tversky: f64,
    /// Weight of the skeleton recall term.
    pub skeleton_recall: f64,
    /// Weight of the focal term of the aneurysms.
    pub focal: f64,
    /// Weight of the Tversky term of the aneurysms, where the patch has any.
    pub aneurysm_tversky: f64,
    /// Aneurysms of fewer voxels weigh as much as one of this many in both terms of the aneurysms;
    /// 0 lets every voxel weigh the same (after Kofler et al., arXiv:2205.08209: without it the
    /// loss of a large sac drowns that of a small one).
    pub small_lesion_voxels: f64,
    /// Weight of one minus clDice of soft centrelines ([`super::cldice`]); 0 leaves it out.
    pub soft_cldice: f64,
    /// False-positive and false-negative weights of both Tversky terms.
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
            ("tversky.w_fp", self.tversky.w_fp),
            ("tversky.w_fn", self.tversky.w_fn),
        ] {
            non_negative(field, weight)?;
        }
        positive("tversky.gamma", self.tversky.gamma)
    }
}

/// What a batch of patches should give; each `B x N` voxels.
#[derive(Debug, Clone, Copy)]
pub struct SegmentationTarget<'a> {
    /// Class of each voxel, below [`CLASSES`].
    pub sites: &'a [u8],
    /// Weight of each voxel of an aneurysm, 0 elsewhere.
    pub aneurysm: &'a [f32],
    /// Class of each voxel of the tube around the skeleton, 0 elsewhere.
    pub tube: &'a [u8],
}

/// Terms before weighting, their weighted sum, and its gradient by the logits.
#[derive(Debug, Clone, PartialEq)]
pub struct SegmentationLoss {
    /// Weighted sum.
    pub total: f64,
    /// Weighted mean cross-entropy, nats.
    pub cross_entropy: f64,
    /// 0 to 1.
    pub vessel_tversky: f64,
    /// One minus recall of the tubes, mean over the sites present; 0 to 1.
    pub skeleton_recall: f64,
    /// Focal loss over the weight of the aneurysm voxels.
    pub focal: f64,
    /// 0 to 1; 0 without any aneurysm.
    pub aneurysm_tversky: f64,
    /// Gradient of `total`, shaped like the logits.
    pub gradient: Vec<f32>,
}

/// Voxels that one task works on; fixed, so that sums do not depend on the number of threads.
const CHUNK: usize = 8192;
/// The focal term is divided by the weight of the aneurysm voxels, at least this many.
const MIN_FOCAL_VOXELS: f64 = 200.0;

/// Loss of logits `[B, 15, N]`, N voxels in C order, whose memory becomes that of the gradient.
///
/// # Panics
/// if logits or targets do not hold `B x N` voxels or a class is out of range (programmer error)
pub fn segmentation_loss(
    logits: Vec<f32>,
    batch: usize,
    target: SegmentationTarget<'_>,
    config: &SegmentationLossConfig,
) -> SegmentationLoss {
    let voxels = target.sites.len();
    assert_eq!(logits.len(), voxels * CHANNELS, "logits do not fit {voxels} voxels");
    assert!(voxels.is_multiple_of(batch) && target.aneurysm.len() == voxels && target.tube.len() == voxels);
    let mut gradient = logits;
    let sums = chunks(&mut gradient, voxels / batch)
        .into_par_iter()
        .map(|mut chunk| chunk.probabilities(target, config.background_weight))
        .collect::<Vec<_>>()
        .into_iter()
        .fold(Sums::default(), Sums::merge);
    let slopes = Slopes::new(&sums, config);
    chunks(&mut gradient, voxels / batch).into_par_iter().for_each(|mut chunk| chunk.gradient(target, &slopes));
    let aneurysm_tversky = if sums.lesion_voxels > 0.0 { slopes.aneurysm.value } else { 0.0 };
    let terms = [
        (sums.cross_entropy / sums.weight.max(f64::MIN_POSITIVE), config.cross_entropy),
        (slopes.vessel.value, config.vessel_tversky),
        (sums.skeleton_loss(), config.skeleton_recall),
        (sums.focal / slopes.focal_voxels, config.focal),
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

/// What the first pass sums over voxels.
#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    cross_entropy: f64,
    weight: f64,
    vessel: Overlap,
    tube_hit: [f64; CLASSES],
    tube: [f64; CLASSES],
    focal: f64,
    aneurysm: Overlap,
    lesion_voxels: f64,
    background_weight: f64,
}

impl Sums {
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

/// What the second pass needs: derivatives that are the same for many voxels, already weighted.
#[derive(Debug)]
struct Slopes {
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

impl Slopes {
    fn new(sums: &Sums, config: &SegmentationLossConfig) -> Self {
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

/// The rows of all channels over a run of voxels.
struct Chunk<'a> {
    /// Offset of the first voxel in the targets.
    start: usize,
    rows: Vec<&'a mut [f32]>,
}

/// The channel-major values cut into runs of voxels.
fn chunks(values: &mut [f32], voxels: usize) -> Vec<Chunk<'_>> {
    let mut chunks = Vec::new();
    for (item, volume) in values.chunks_mut(voxels * CHANNELS).enumerate() {
        let mut rows: Vec<_> = volume.chunks_mut(voxels).map(|row| row.chunks_mut(CHUNK)).collect();
        for start in (0..voxels).step_by(CHUNK) {
            let rows = rows.iter_mut().filter_map(Iterator::next).collect();
            chunks.push(Chunk { start: item * voxels + start, rows });
        }
    }
    chunks
}

impl Chunk<'_> {
    /// Turns logits into probabilities in place and sums what the loss needs.
    fn probabilities(&mut self, target: SegmentationTarget<'_>, background_weight: f64) -> Sums {
        let mut sums = Sums { background_weight, ..Sums::default() };
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

    /// Turns probabilities into the gradient by the logits in place.
    fn gradient(&mut self, target: SegmentationTarget<'_>, slopes: &Slopes) {
        let (lesion_row, class_rows) = self.rows.split_last_mut().expect("fifteen rows");
        let places = self.start..self.start + lesion_row.len();
        let (sites, tubes) = (&target.sites[places.clone()], &target.tube[places.clone()]);
        let cross_entropy = [slopes.background_weight, 1.0].map(|weight| (weight * slopes.cross_entropy) as f32);
        // Derivatives by the probabilities of the background (the vessels' union is what it leaves)
        // and of the tube.
        let union = [slopes.vessel.by_other, slopes.vessel.by_target].map(|by| -(by * slopes.vessel_weight) as f32);
        let by_tube = slopes.tube.map(|by| by as f32);
        let of_places = sites.iter().zip(tubes).enumerate();
        let (scale, added): (Vec<f32>, Vec<[f32; 2]>) = of_places
            .map(|(i, (&site, &tube))| {
                let (vessel, tube) = (usize::from(site != 0), usize::from(tube));
                let added = [union[vessel] * class_rows[0][i], by_tube[tube] * class_rows[tube][i]];
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
        for (p_or_slope, &lesion) in lesion_row.iter_mut().zip(&target.aneurysm[places]) {
            let p = *p_or_slope;
            let overlap =
                if lesion > 0.0 { f64::from(lesion) * slopes.aneurysm.by_target } else { slopes.aneurysm.by_other };
            let by_p = (overlap * slopes.aneurysm_weight) as f32;
            *p_or_slope = focal(p, lesion).1 * slopes.focal as f32 + by_p * p * (1.0 - p);
        }
    }
}

/// `-w (1 - q)^2 ln q` with q the probability of the truth, and its derivative by the logit; w is
/// the weight of a target voxel, 1 for any other, whose `target` is 0.
fn focal(p: f32, target: f32) -> (f32, f32) {
    let (q, slope, weight) = if target > 0.0 { (p, target, target) } else { (1.0 - p, -1.0, 1.0) };
    let log = q.max(f32::MIN_POSITIVE).ln();
    let rest = 1.0 - q;
    (-weight * rest * rest * log, slope * rest * rest * (2.0 * q * log - rest))
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
            // Probabilities are of 32 bits: with a smaller step their rounding shows.
            assert_gradient(4e-3, |x| loss(x).total, &x, &loss(&x).gradient, &all);
        }
    }

    #[test]
    fn a_sure_truth_costs_nothing_and_a_sure_error_much() {
        let sure = |right: f32| {
            let mut logits = vec![-right; VOXELS * CHANNELS];
            for (voxel, (&site, &lesion)) in target().sites.iter().zip(target().aneurysm).enumerate() {
                logits[usize::from(site) * VOXELS + voxel] = right;
                logits[(CHANNELS - 1) * VOXELS + voxel] = if lesion > 0.0 { right } else { -right };
            }
            segmentation_loss(logits, 1, target(), &SegmentationLossConfig::default())
        };
        let good = sure(20.0);
        assert!(good.total < 1e-3 && good.gradient.iter().all(|g| g.abs() < 1e-3), "{good:?}");
        let bad = sure(-20.0);
        assert!(bad.total > 5.0 && bad.gradient.iter().all(|g| g.is_finite()));
    }

    #[test]
    fn skeleton_recall_by_hand() {
        // Equal logits: every class has probability 1/14, so every tube is recalled by 1/14.
        let loss = segmentation_loss(vec![0.0; VOXELS * CHANNELS], 1, target(), &SegmentationLossConfig::default());
        assert!((loss.skeleton_recall - 13.0 / 14.0).abs() < 1e-6);
        assert!((loss.cross_entropy - 14f64.ln()).abs() < 1e-5);
    }
}
