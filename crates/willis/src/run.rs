//! The stages of the line, and the record of a run: versions, configuration, seconds and peak
//! memory per stage. Written to `run.json`.

use std::time::Instant;

use serde::{Deserialize, Serialize};
use willis_core::ModelRef;
use willis_core::series::Finding;

use crate::config::Config;

/// A stage of the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Reads a series.
    Ingest,
    /// Puts it on patient axes, at working spacing, with comparable intensities.
    Harmonise,
    /// Makes arteries bright.
    Polarity,
    /// Finds arteries, aneurysms and sites, voxel by voxel.
    Segment,
    /// Traces the vessel graph.
    Trace,
    /// Proposes candidates.
    Propose,
    /// Gathers evidence on each candidate.
    Examine,
    /// Turns the evidence into probabilities.
    Stack,
    /// Writes the files of the prediction.
    Report,
}

impl Stage {
    /// Name in messages, records and file names.
    pub const fn name(self) -> &'static str {
        match self {
            Stage::Ingest => "ingest",
            Stage::Harmonise => "harmonise",
            Stage::Polarity => "polarity",
            Stage::Segment => "segment",
            Stage::Trace => "trace",
            Stage::Propose => "propose",
            Stage::Examine => "examine",
            Stage::Stack => "stack",
            Stage::Report => "report",
        }
    }
}

/// Time and memory of one stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StageRecord {
    /// Name of the stage.
    pub name: String,
    /// Wall-clock time and memory.
    #[serde(flatten)]
    pub cost: Cost,
}

/// What a piece of work cost.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// Wall-clock seconds.
    pub seconds: f64,
    /// Highest resident memory of the process meanwhile, MiB; `None` where the system does not
    /// report it.
    pub peak_mib: Option<u64>,
}

/// Runs `work` and measures its time and the peak memory of the process.
pub fn measure<T>(work: impl FnOnce() -> T) -> (T, Cost) {
    reset_peak_memory();
    let start = Instant::now();
    let value = work();
    (value, Cost { seconds: start.elapsed().as_secs_f64(), peak_mib: peak_memory_mib() })
}

/// Record of a run of the line.
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
    /// Weights that were used.
    pub models: Vec<ModelRef>,
    /// The stages in order.
    pub stages: Vec<StageRecord>,
    /// Sum over the stages, seconds.
    pub seconds: f64,
    /// Every guess, repair and fallback.
    pub findings: Vec<Finding>,
}

impl RunRecord {
    /// Version of the layout that this code writes.
    pub const SCHEMA: u32 = 1;

    /// The record of a run that has just ended.
    pub fn new(config: &Config, models: &[ModelRef], stages: Vec<StageRecord>, findings: &[Finding]) -> Self {
        Self {
            schema: Self::SCHEMA,
            code_version: env!("CARGO_PKG_VERSION").into(),
            config_sha256: config.sha256(),
            threads: rayon::current_num_threads(),
            prevalence: config.stack.prevalence,
            models: models.to_vec(),
            seconds: stages.iter().map(|stage| stage.cost.seconds).sum(),
            stages,
            findings: findings.to_vec(),
        }
    }
}

/// Runs stages one after the other and records what each of them cost.
pub struct StageClock<'a> {
    on_stage: &'a dyn Fn(Stage),
    records: Vec<StageRecord>,
}

impl<'a> StageClock<'a> {
    /// `on_stage` is called with each stage before it starts.
    pub fn new(on_stage: &'a dyn Fn(Stage)) -> Self {
        Self { on_stage, records: Vec::new() }
    }

    /// Runs one stage and records its time and memory.
    pub fn run<T>(&mut self, stage: Stage, work: impl FnOnce() -> T) -> T {
        (self.on_stage)(stage);
        let (value, cost) = measure(work);
        tracing::debug!(stage = stage.name(), seconds = cost.seconds, peak_mib = cost.peak_mib, "stage done");
        self.records.push(StageRecord { name: stage.name().into(), cost });
        value
    }

    /// Records of the stages so far, in order.
    pub fn into_records(self) -> Vec<StageRecord> {
        self.records
    }
}

/// Highest resident memory since the last reset, MiB (Linux).
fn peak_memory_mib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib / 1024)
}

/// Resets the peak; where the system does not allow it the peak is that of the whole process.
fn reset_peak_memory() {
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::time::Duration;

    use super::*;

    #[test]
    fn stages_are_announced_and_recorded_in_order() {
        let announced = RefCell::new(Vec::new());
        let on_stage = |stage| announced.borrow_mut().push(stage);
        let mut clock = StageClock::new(&on_stage);
        clock.run(Stage::Ingest, || std::thread::sleep(Duration::from_millis(20)));
        assert_eq!(clock.run(Stage::Harmonise, || (0..1000u64).sum::<u64>()), 499_500);
        let records = clock.into_records();
        assert_eq!(*announced.borrow(), [Stage::Ingest, Stage::Harmonise]);
        assert_eq!(records.iter().map(|r| r.name.as_str()).collect::<Vec<_>>(), ["ingest", "harmonise"]);
        assert!(records[0].cost.seconds >= 0.02, "{:?}", records[0]);
    }

    #[test]
    fn a_record_is_flat() {
        let record = StageRecord { name: "trace".into(), cost: Cost { seconds: 1.5, peak_mib: Some(7) } };
        let json = serde_json::to_string(&record).unwrap();
        assert_eq!(json, r#"{"name":"trace","seconds":1.5,"peak_mib":7}"#);
        assert_eq!(serde_json::from_str::<StageRecord>(&json).unwrap(), record);
    }
}
