//! Scoreboard: figures of merit under stable identifiers, printed as a table for people or
//! serialised as JSON for programs.
//!
//! `willis evaluate` and every `willis train` use it. A figure that is undefined is printed as
//! `n/a` with the reason.

use std::fmt::{self, Display, Formatter};
use std::path::Path;

use serde::Serialize;
use willis_core::files::json;
use willis_stats::figure::{Figure, Undefined};

/// Name of a training's scoreboard in its run folder.
const FILE_NAME: &str = "scores.json";
/// Bootstrap samples behind the intervals of a training's figures.
pub const TRAINING_SAMPLES: usize = 500;

/// Figures of merit over the same series.
#[derive(Debug, Serialize)]
pub struct Scoreboard {
    /// Number of series.
    series: usize,
    /// In the order of the table.
    figures: Vec<LabelledFigure>,
    /// Series that the bootstrap draws together.
    #[serde(skip)]
    groups: Vec<Vec<usize>>,
    #[serde(skip)]
    samples: usize,
}

/// A figure with the words for people.
#[derive(Debug, Serialize)]
struct LabelledFigure {
    #[serde(flatten)]
    figure: Figure,
    name: String,
    note: String,
}

impl Scoreboard {
    /// An empty scoreboard over `series` series, with intervals from `samples` bootstrap samples.
    pub fn new(series: usize, samples: usize) -> Self {
        Self::by_group((0..series).map(|i| vec![i]).collect(), samples)
    }

    /// An empty scoreboard over series that belong together in groups, such as those of a patient.
    pub fn by_group(groups: Vec<Vec<usize>>, samples: usize) -> Self {
        Self { series: groups.iter().map(Vec::len).sum(), figures: Vec::new(), groups, samples }
    }

    /// Adds a metric; it gets indices of series, with repeats in a bootstrap sample.
    ///
    /// # Panics
    /// if the identifier is taken (programmer error)
    pub fn add(
        &mut self,
        id: impl Into<String>,
        name: impl Into<String>,
        note: impl Into<String>,
        metric: impl Fn(&[usize]) -> Result<f64, Undefined> + Sync,
    ) {
        let of_some = |sample: &[usize]| if sample.is_empty() { Err(Undefined::Empty) } else { metric(sample) };
        self.push(Figure::by_group(id.into(), &self.groups, self.samples, of_some), name.into(), note.into());
    }

    /// Adds a number that does not vary with the choice of series.
    ///
    /// # Panics
    /// if the identifier is taken (programmer error)
    pub fn add_constant(&mut self, id: impl Into<String>, name: impl Into<String>, value: f64) {
        self.push(Figure::constant(id.into(), self.series, value), name.into(), String::new());
    }

    fn push(&mut self, figure: Figure, name: String, note: String) {
        let is_taken = self.figures.iter().any(|each| each.figure.id == figure.id);
        assert!(!is_taken, "two figures are called {}", figure.id);
        self.figures.push(LabelledFigure { figure, name, note });
    }

    /// Value of a figure; `None` where undefined.
    ///
    /// # Panics
    /// if there is no such figure (programmer error)
    pub fn value(&self, id: &str) -> Option<f64> {
        let found = self.figures.iter().find(|each| each.figure.id == id);
        found.unwrap_or_else(|| panic!("there is no figure {id}")).figure.value
    }

    /// Value of a figure; `None` where undefined or where there is no such figure.
    pub fn find(&self, id: &str) -> Option<f64> {
        self.figures.iter().find(|each| each.figure.id == id)?.figure.value
    }

    /// Writes `scores.json` into the folder of a training and prints the table.
    ///
    /// # Errors
    /// when the file cannot be written
    pub fn report(&self, run: &Path) -> anyhow::Result<()> {
        json::write(&run.join(FILE_NAME), self)?;
        println!("{self}\n{} left-out series; intervals are 95 % bootstrap intervals over series", self.series);
        Ok(())
    }
}

impl Display for Scoreboard {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let number = |v: f64| format!("{v:.3}");
        let mut table = comfy_table::Table::new();
        table.load_preset(comfy_table::presets::NOTHING).set_header(["figure", "value", "95 % interval", ""]);
        for LabelledFigure { figure, name, note } in &self.figures {
            let value = figure.value.map_or("n/a".into(), number);
            let interval = figure.interval.map_or("n/a".into(), |i| format!("{} to {}", number(i.lo), number(i.hi)));
            let reason = figure.undefined.map(|reason| reason.to_string());
            let notes: Vec<&str> =
                reason.iter().chain(Some(note)).map(String::as_str).filter(|n| !n.is_empty()).collect();
            table.add_row([name.clone(), value, interval, notes.join("; ")]);
        }
        write!(f, "{table}")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use willis_stats::metrics::auroc;

    use super::*;

    fn scoreboard(labels: [bool; 4]) -> Scoreboard {
        let mut scoreboard = Scoreboard::new(4, 100);
        scoreboard.add("auc", "AUC", "4 series", |sample| {
            let (scores, labels): (Vec<f64>, Vec<bool>) = sample.iter().map(|&i| (i as f64, labels[i])).unzip();
            auroc(&scores, &labels)
        });
        scoreboard.add_constant("parameters_millions", "million parameters", 2.5);
        scoreboard
    }

    #[test]
    fn figures_are_found_by_identifier() {
        let scoreboard = scoreboard([false, false, true, true]);
        assert_eq!((scoreboard.value("auc"), scoreboard.value("parameters_millions")), (Some(1.0), Some(2.5)));
        let json = serde_json::to_value(&scoreboard).unwrap();
        assert_eq!((&json["series"], &json["figures"][0]["id"]), (&4.into(), &"auc".into()));
        assert_eq!((&json["figures"][0]["name"], &json["figures"][0]["value"]), (&"AUC".into(), &1.0.into()));
        let ids: HashSet<&str> = scoreboard.figures.iter().map(|each| &*each.figure.id).collect();
        assert_eq!(ids.len(), scoreboard.figures.len());
    }

    #[test]
    fn one_class_is_not_available_with_its_reason() {
        let scoreboard = scoreboard([true; 4]);
        let table = scoreboard.to_string();
        let row: Vec<&str> =
            table.lines().nth(1).unwrap().split("  ").map(str::trim).filter(|c| !c.is_empty()).collect();
        assert_eq!(row, ["AUC", "n/a", "n/a", "one class only; 4 series"], "{table}");
        let json = serde_json::to_value(&scoreboard).unwrap();
        assert_eq!(json["figures"][0]["value"], serde_json::Value::Null);
        assert_eq!(json["figures"][0]["undefined"], "one class only");
    }

    #[test]
    #[should_panic(expected = "two figures are called auc")]
    fn an_identifier_stands_for_one_figure() {
        scoreboard([true; 4]).add_constant("auc", "AUC", 0.5);
    }
}
