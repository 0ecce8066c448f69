//! How a freshly trained net does on the series of the left-out fold: printed, and `scores.json` in
//! the run's folder.

use std::path::Path;

use serde::{Serialize, Serializer};
use willis_core::files::atomic::write_atomically;
use willis_stats::bootstrap::{self, Interval};

/// Name of the figures in a run's folder.
const FILE_NAME: &str = "scores.json";
/// Resampled sets of series behind an interval.
const SAMPLES: usize = 500;

/// Figures of a net.
#[derive(Debug, Serialize)]
pub(super) struct Scores {
    /// Series of the left-out fold.
    cases: usize,
    #[serde(serialize_with = "as_map")]
    figures: Vec<(&'static str, Figure)>,
}

/// A figure with its 95 % interval over series; `None` where undefined.
#[derive(Debug, Serialize)]
pub(super) struct Figure {
    value: Option<f64>,
    interval: Option<Interval>,
}

impl Figure {
    /// `figure` of all series, and of sets of as many drawn from them with replacement.
    pub fn of(cases: usize, figure: impl Fn(&[usize]) -> Option<f64> + Sync) -> Self {
        let all: Vec<usize> = (0..cases).collect();
        Self { value: figure(&all), interval: bootstrap::interval(cases, 0, SAMPLES, figure) }
    }

    /// A figure that does not depend on the series.
    pub fn fact(value: f64) -> Self {
        Self { value: Some(value), interval: None }
    }

    /// Prints it as one line.
    pub fn print(&self, name: &str) {
        let value = self.value.map_or("n/a".into(), |v| format!("{v:.3}"));
        let interval = self.interval.map_or("n/a".into(), |i| format!("{:.3} to {:.3}", i.lo, i.hi));
        println!("  {name:56} {value}  ({interval})");
    }
}

impl Scores {
    pub fn new(cases: usize, figures: Vec<(&'static str, Figure)>) -> Self {
        Self { cases, figures }
    }

    /// Writes the file and prints a line for each figure.
    pub fn report(&self, run: &Path) -> anyhow::Result<()> {
        let json = serde_json::to_vec_pretty(self)?;
        write_atomically(&run.join(FILE_NAME), |file| file.write_all(&json))?;
        println!("{} series of the left-out fold, with 95 % intervals:", self.cases);
        self.figures.iter().for_each(|(name, figure)| figure.print(&name.replace('_', " ")));
        Ok(())
    }
}

fn as_map<S: Serializer>(figures: &[(&'static str, Figure)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(figures.iter().map(|(name, figure)| (name, figure)))
}
