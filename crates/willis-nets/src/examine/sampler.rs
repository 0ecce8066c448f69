//! Which examples a batch of the expert classifier consists of.
//!
//! Every choice depends on the run's seed and the number of the batch alone, so that a resumed run
//! draws the same batches.

use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use willis_core::{InvalidValue, SITE_COUNT};

use super::data::Example;
use crate::rules::require;

/// How batches are put together.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ExamineSampler {
    /// Random examples: of eight, three are hits, one is near a lesion without being a hit, and
    /// four belong to no lesion.
    Mixed,
    /// A fixed share of lesions; both classes are gone through in shuffled order.
    Dual(DualConfig),
    /// Examples of a few labels at a time, each with a fixed share of positives.
    Tri(TriConfig),
}

/// Configuration of [`ExamineSampler::Dual`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DualConfig {
    /// Share of positives, of which a batch has at least one.
    pub positive_rate: f64,
}

impl Default for DualConfig {
    fn default() -> Self {
        Self { positive_rate: 0.5 }
    }
}

/// Configuration of [`ExamineSampler::Tri`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TriConfig {
    /// Labels per batch, a divisor of the batch.
    pub labels: usize,
    /// Share of positives among the examples of a label, at least one.
    pub positive_rate: f64,
}

impl Default for TriConfig {
    fn default() -> Self {
        Self { labels: 2, positive_rate: 0.5 }
    }
}

impl ExamineSampler {
    pub(super) fn validate(&self, batch: usize) -> Result<(), InvalidValue> {
        let rate = |rate: f64| require("positive_rate", rate, rate > 0.0 && rate < 1.0, "must be above 0 and below 1");
        match self {
            Self::Mixed => Ok(()),
            Self::Dual(config) => rate(config.positive_rate),
            Self::Tri(config) => {
                let divides = config.labels >= 1 && batch.is_multiple_of(config.labels);
                require("labels", config.labels, divides, &format!("must divide batch = {batch}"))?;
                rate(config.positive_rate)
            }
        }
    }
}

/// An example of a batch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sampled<'a> {
    pub example: &'a Example,
    /// The only label it counts for, 0 for "aneurysm" or 1 + column of the site; `None` for all.
    pub label: Option<usize>,
}

/// The examples of all cases by what they are drawn for.
#[derive(Debug)]
pub(super) struct Pools<'a> {
    lesions: Vec<&'a Example>,
    /// Lesions near enough to count as hits.
    hits: Vec<&'a Example>,
    /// Lesions that are no hits.
    near: Vec<&'a Example>,
    others: Vec<&'a Example>,
}

impl<'a> Pools<'a> {
    /// Sorts examples; `None` unless there are lesions and others.
    pub fn new(examples: impl Iterator<Item = &'a Example>) -> Result<Self, OneClass> {
        let (lesions, others): (Vec<_>, Vec<_>) = examples.partition(|e| e.truth.site.is_some());
        if lesions.is_empty() || others.is_empty() {
            return Err(OneClass { lesions: lesions.len(), others: others.len() });
        }
        let (hits, near) = lesions.iter().partition(|e| e.truth.hit);
        Ok(Self { lesions, hits, near, others })
    }

    /// The examples of batch `number`.
    pub fn batch(
        &self,
        sampler: &ExamineSampler,
        size: usize,
        seed: u64,
        number: usize,
        rng: &mut ChaCha8Rng,
    ) -> Vec<Sampled<'a>> {
        match sampler {
            ExamineSampler::Mixed => (0..size).map(|i| Sampled { example: self.mixed(i, rng), label: None }).collect(),
            ExamineSampler::Dual(config) => {
                let examples = self.of_label(0, size, config.positive_rate, seed, number);
                examples.into_iter().map(|example| Sampled { example, label: None }).collect()
            }
            ExamineSampler::Tri(config) => self.tri(config, size, seed, number),
        }
    }

    /// The i-th example of a mixed batch.
    fn mixed(&self, i: usize, rng: &mut ChaCha8Rng) -> &'a Example {
        let pool = match i % 8 {
            6 if !self.near.is_empty() => &self.near,
            0 | 2 | 4 | 6 if !self.hits.is_empty() => &self.hits,
            0 | 2 | 4 | 6 => &self.lesions,
            _ => &self.others,
        };
        pool[rng.random_range(0..pool.len())]
    }

    /// Positives of a label, then negatives. Examples near a lesion count for "aneurysm" alone,
    /// since they may be on another artery.
    fn of_label(&self, label: usize, size: usize, positive_rate: f64, seed: u64, number: usize) -> Vec<&'a Example> {
        let is_positive = |e: &&&Example| label == 0 || e.truth.site.is_some_and(|site| site.column() + 1 == label);
        let lesions = if label == 0 { &self.lesions } else { &self.hits };
        let (positives, negatives): (Vec<&Example>, Vec<&Example>) = lesions.iter().partition(|e| is_positive(e));
        let negatives = [negatives, self.others.clone()].concat();
        let count = ((positive_rate * size as f64) as usize).clamp(1, size);
        let stream = 2 * label as u64;
        let positives = in_turn(&positives, count, number, seed, stream);
        [positives, in_turn(&negatives, size - count, number, seed, stream + 1)].concat()
    }

    fn tri(&self, config: &TriConfig, size: usize, seed: u64, number: usize) -> Vec<Sampled<'a>> {
        let has_positive =
            |label: &usize| self.hits.iter().any(|e| e.truth.site.is_some_and(|s| s.column() + 1 == *label));
        let labels: Vec<usize> = std::iter::once(0).chain((1..=SITE_COUNT).filter(has_positive)).collect();
        // The streams of the labels' own pools are below this one.
        let stream = 2 * (SITE_COUNT as u64 + 1);
        let chosen = in_turn(&labels, config.labels, number, seed, stream);
        let share = size / config.labels;
        let of = |label: usize| {
            let examples = self.of_label(label, share, config.positive_rate, seed, number);
            examples.into_iter().map(move |example| Sampled { example, label: Some(label) })
        };
        chosen.into_iter().flat_map(of).collect()
    }
}

/// Why there are no pools.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OneClass {
    pub lesions: usize,
    pub others: usize,
}

/// The items of batch `number` if a pool is gone through `count` items at a time, and shuffled anew
/// at every turn.
fn in_turn<T: Copy>(pool: &[T], count: usize, number: usize, seed: u64, stream: u64) -> Vec<T> {
    let mut order: (usize, Vec<usize>) = (usize::MAX, Vec::new());
    let item = |position: usize| {
        let turn = position / pool.len();
        if order.0 != turn {
            let mut rng = ChaCha8Rng::seed_from_u64(seed ^ (turn as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
            // Streams of batches count up from 1; those of pools down from the highest.
            rng.set_stream(u64::MAX - 1 - stream);
            let mut indices: Vec<usize> = (0..pool.len()).collect();
            indices.shuffle(&mut rng);
            order = (turn, indices);
        }
        pool[order.1[position % pool.len()]]
    };
    if pool.is_empty() { Vec::new() } else { (number * count..(number + 1) * count).map(item).collect() }
}

#[cfg(test)]
mod tests {
    use half::f16;
    use willis_core::Site;

    use super::super::condition::CONDITIONS;
    use super::super::data::CandidateTruth;
    use super::*;

    /// Four hits at one site, two at another, one near miss and ten others, told apart by their
    /// log-diameters.
    fn examples() -> Vec<Example> {
        let example = |site, hit, i: usize| Example {
            values: vec![f16::ZERO],
            condition: [0.0; CONDITIONS],
            spacing_mm: [1.0; 3],
            truth: CandidateTruth { site, offset_vox: [0.0; 3], log_diameter: i as f32, hit },
        };
        let sites = |i: usize| match i {
            0..4 => (Some(Site::LeftMca), true),
            4..6 => (Some(Site::BasilarTip), true),
            6 => (Some(Site::BasilarTip), false),
            _ => (None, false),
        };
        (0..17).map(|i| example(sites(i).0, sites(i).1, i)).collect()
    }

    #[test]
    fn a_pool_is_gone_through_before_it_repeats() {
        let pool: Vec<usize> = (0..7).collect();
        let drawn: Vec<usize> = (0..7).flat_map(|number| in_turn(&pool, 3, number, 5, 0)).collect();
        for turn in drawn.chunks(7) {
            let mut turn = turn.to_vec();
            turn.sort_unstable();
            assert_eq!(turn, pool);
        }
        assert_ne!(drawn[..7], drawn[7..14]);
        assert_ne!(drawn[..3], in_turn(&pool, 3, 0, 6, 0));
    }

    #[test]
    fn a_dual_batch_has_its_share_of_positives_first() {
        let examples = examples();
        let pools = Pools::new(examples.iter()).unwrap();
        let sampler = ExamineSampler::Dual(DualConfig { positive_rate: 0.3 });
        sampler.validate(8).unwrap();
        let rng = &mut ChaCha8Rng::seed_from_u64(0);
        for number in 0..5 {
            let batch = pools.batch(&sampler, 8, 1, number, rng);
            let positive: Vec<bool> = batch.iter().map(|s| s.example.truth.site.is_some()).collect();
            assert_eq!(positive, [true, true, false, false, false, false, false, false]);
        }
        // At least one.
        let rare = ExamineSampler::Dual(DualConfig { positive_rate: 0.01 });
        assert!(pools.batch(&rare, 8, 1, 0, rng)[0].example.truth.site.is_some());
    }

    #[test]
    fn a_tri_batch_has_positives_and_negatives_of_each_of_its_labels() {
        let examples = examples();
        let pools = Pools::new(examples.iter()).unwrap();
        let sampler = ExamineSampler::Tri(TriConfig { labels: 2, positive_rate: 0.5 });
        let mut labels = std::collections::BTreeSet::new();
        for number in 0..6 {
            let batch = pools.batch(&sampler, 8, 1, number, &mut ChaCha8Rng::seed_from_u64(0));
            for (i, sampled) in batch.iter().enumerate() {
                let label = sampled.label.unwrap();
                let truth = sampled.example.truth;
                let is_positive = match label {
                    0 => truth.site.is_some(),
                    label => truth.hit && truth.site.unwrap().column() + 1 == label,
                };
                assert_eq!(is_positive, i % 4 < 2, "batch {number}, example {i}");
                labels.insert(label);
            }
        }
        assert_eq!(labels.len(), 3, "presence and two sites: {labels:?}");
        let error = sampler.validate(9).unwrap_err();
        assert_eq!(error.to_string(), "labels = 2 must divide batch = 9");
    }

    #[test]
    fn both_classes_are_needed() {
        let examples = examples();
        assert_eq!(Pools::new(examples[..3].iter()).unwrap_err(), OneClass { lesions: 3, others: 0 });
    }
}
