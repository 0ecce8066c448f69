//! What a benchmark consists of: the files of `configs/benchmarks`.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, bail, ensure};
use serde::{Deserialize, Serialize};
use willis_core::cohort::{BENCHMARK_SEEDS, CohortOrigin};
use willis_phantom::CohortMix;

/// Names and contents of the benchmarks that willis brings along.
const EMBEDDED: [(&str, &str); 7] = [
    ("standard", include_str!("../../../../../configs/benchmarks/standard.toml")),
    ("clinical", include_str!("../../../../../configs/benchmarks/clinical.toml")),
    ("small", include_str!("../../../../../configs/benchmarks/small.toml")),
    ("sites", include_str!("../../../../../configs/benchmarks/sites.toml")),
    ("modality", include_str!("../../../../../configs/benchmarks/modality.toml")),
    ("bare", include_str!("../../../../../configs/benchmarks/bare.toml")),
    ("quiet", include_str!("../../../../../configs/benchmarks/quiet.toml")),
];

/// One of the two sets of heads of a benchmark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeadSet {
    /// For development, as often as wanted.
    Development,
    /// For the figures of a release, once per release.
    Final,
}

/// A number for each set of heads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PerSet<T> {
    /// For development.
    development: T,
    /// For releases.
    #[serde(rename = "final")]
    last: T,
}

impl<T: Copy> PerSet<T> {
    /// The number for one set.
    pub const fn of(&self, set: HeadSet) -> T {
        match set {
            HeadSet::Development => self.development,
            HeadSet::Final => self.last,
        }
    }
}

/// A benchmark.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Benchmark {
    /// Its name, from that of its file.
    #[serde(skip)]
    pub name: String,
    /// Seeds of the first part; each part after it has the next one.
    seeds: PerSet<u64>,
    /// Its parts.
    pub parts: Vec<BenchmarkPart>,
}

/// A part of a benchmark: series of the same kind.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BenchmarkPart {
    /// Its name.
    pub name: String,
    /// Number of series.
    pub series: PerSet<usize>,
    /// What they are drawn from.
    #[serde(default)]
    pub mix: CohortMix,
}

impl Benchmark {
    /// One of the benchmarks that willis brings along, or that of a file.
    ///
    /// # Errors
    /// when there is no such benchmark, or a value in its file is invalid
    pub fn load(name: &str) -> anyhow::Result<Self> {
        if let Some((name, text)) = EMBEDDED.iter().find(|(each, _)| *each == name) {
            return Self::parse(name, text);
        }
        let path = Path::new(name);
        if !path.is_file() {
            let names = EMBEDDED.map(|(name, _)| name).join(", ");
            bail!("there is no benchmark or file {name}; the benchmarks are {names}");
        }
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {name}"))?;
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Self::parse(&stem, &text).with_context(|| name.to_string())
    }

    fn parse(name: &str, text: &str) -> anyhow::Result<Self> {
        let benchmark = Self { name: name.into(), ..toml::from_str(text)? };
        ensure!(!benchmark.parts.is_empty(), "a benchmark needs at least one of [[parts]]");
        let mut names = BTreeSet::new();
        for part in &benchmark.parts {
            ensure!(names.insert(&part.name), "two parts are called {}", part.name);
            part.mix.validate().with_context(|| format!("part {}", part.name))?;
        }
        let sets = [HeadSet::Development, HeadSet::Final].map(|set| benchmark.seeds(set));
        for seed in sets.iter().flatten() {
            ensure!(
                BENCHMARK_SEEDS.contains(seed),
                "seed {seed} is not one of those kept for benchmarks, {} to {}; training sets may use it",
                BENCHMARK_SEEDS.start,
                BENCHMARK_SEEDS.end - 1
            );
        }
        if let Some(seed) = sets[0].iter().find(|seed| sets[1].contains(seed)) {
            bail!("development and final heads would be the same: both have seed {seed}");
        }
        Ok(benchmark)
    }

    /// Seed of each part.
    pub fn seeds(&self, set: HeadSet) -> Vec<u64> {
        (self.seeds.of(set)..).take(self.parts.len()).collect()
    }

    /// The record of its data set. It does not depend on the numbers of series.
    pub fn origin(&self, set: HeadSet) -> CohortOrigin {
        let seeds = self.seeds(set);
        let mixes: Vec<_> = self.parts.iter().map(|part| (&part.name, &part.mix)).collect();
        CohortOrigin {
            seed: seeds[0],
            mix: format!("{mixes:?}"),
            benchmark: Some(self.name.clone()),
            more_seeds: seeds[1..].to_vec(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETS: [HeadSet; 2] = [HeadSet::Development, HeadSet::Final];

    #[test]
    fn no_two_benchmarks_share_a_seed() {
        let mut seen = BTreeSet::new();
        for (name, _) in EMBEDDED {
            let benchmark = Benchmark::load(name).unwrap();
            for seed in SETS.iter().flat_map(|set| benchmark.seeds(*set)) {
                assert!(seen.insert(seed), "{name}: {seed}");
            }
            assert!(benchmark.origin(HeadSet::Final).is_for_evaluation());
        }
    }

    #[test]
    fn invalid_benchmarks_are_refused_with_the_reason() {
        let of = |seeds: &str, part: &str| {
            let series = "series = { development = 1, final = 2 }";
            Benchmark::parse("b", &format!("seeds = {seeds}\n[[parts]]\nname = \"a\"\n{series}\n{part}"))
        };
        let good = "{ development = 9000001, final = 9000002 }";
        assert_eq!(of(good, "").unwrap().seeds(HeadSet::Final), [9_000_002]);
        for (seeds, part, message) in [
            ("{ development = 3, final = 9000002 }", "", "seed 3 is not one of those kept"),
            ("{ development = 9000001, final = 9000001 }", "", "both have seed 9000001"),
            (good, "mix = { prevalence = 2.0 }", "prevalence = 2 must be between 0 and 1"),
            (good, "mix = { prevalance = 0.5 }", "unknown field"),
            (good, "[[parts]]\nname = \"a\"\nseries = { development = 1, final = 2 }", "two parts are called a"),
        ] {
            let error = format!("{:#}", of(seeds, part).unwrap_err());
            assert!(error.contains(message), "{error}");
        }
        let error = Benchmark::load("standrd").unwrap_err().to_string();
        assert!(error.contains("standard, clinical, small"), "{error}");
    }
}
