//! What a run was: versions, configuration, seconds and peak memory per stage. Written to
//! `run.json`.

use std::time::Instant;

use serde::{Deserialize, Serialize};
use willis_core::ModelRef;
use willis_core::series::Finding;

/// One stage of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StageRecord {
    /// Name of the stage.
    pub name: String,
    /// Wall-clock seconds.
    pub seconds: f64,
    /// Highest resident memory of the process during the stage, MiB; `None` where the system does
    /// not tell.
    pub peak_mib: Option<u64>,
}

/// A whole run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// Version of this layout.
    pub schema: u32,
    /// Version of willis.
    pub code_version: String,
    /// SHA-256 of the resolved configuration.
    pub config_sha256: String,
    /// CPU threads used.
    pub threads: usize,
    /// Share of series with an aneurysm that the probabilities refer to.
    pub prevalence: f64,
    /// Weights that took part.
    pub models: Vec<ModelRef>,
    /// The stages in order.
    pub stages: Vec<StageRecord>,
    /// Sum of the stages, seconds.
    pub seconds: f64,
    /// Every guess, repair and fallback.
    pub findings: Vec<Finding>,
}

impl RunRecord {
    /// Version of the layout that this code writes.
    pub const SCHEMA: u32 = 1;
}

/// Times stages one after the other.
#[derive(Default)]
pub struct StageClock {
    stages: Vec<StageRecord>,
}

impl StageClock {
    /// Runs one stage and records how long it took and how much memory the process held at most
    /// meanwhile.
    pub fn time<T>(&mut self, name: &str, stage: impl FnOnce() -> T) -> T {
        reset_peak_memory();
        let start = Instant::now();
        let value = stage();
        let record =
            StageRecord { name: name.into(), seconds: start.elapsed().as_secs_f64(), peak_mib: peak_memory_mib() };
        tracing::debug!(stage = name, seconds = record.seconds, peak_mib = record.peak_mib, "stage done");
        self.stages.push(record);
        value
    }

    /// The stages so far, in order.
    pub fn into_stages(self) -> Vec<StageRecord> {
        self.stages
    }
}

/// Highest resident memory since the last reset, MiB (Linux).
pub fn peak_memory_mib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib / 1024)
}

/// Starts a new measurement of the peak; where the system does not allow it the peak is that of the
/// whole process.
fn reset_peak_memory() {
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_are_recorded_in_order() {
        let mut clock = StageClock::default();
        let sum: u64 = clock.time("first", || (0..1000u64).sum());
        clock.time("second", || ());
        let stages = clock.into_stages();
        assert_eq!(sum, 499_500);
        assert_eq!(stages.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), ["first", "second"]);
        assert!(stages.iter().all(|s| s.seconds >= 0.0));
    }
}
