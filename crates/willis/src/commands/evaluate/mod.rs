//! `willis evaluate`: predictions against the truth.

mod figures;
mod measured;
mod series;
mod strata;
mod table;

use std::path::{Path, PathBuf};

use anyhow::{bail, ensure};
use serde_json::{Map, Value, json};
use willis_core::anatomy::column_names;
use willis_core::cohort;

pub use self::measured::Measured;
use super::Outcome;
use crate::cli::{EvaluateArgs, Format};
use crate::scoreboard::Scoreboard;

/// The figures of a data set.
pub struct Evaluation {
    scoreboard: Scoreboard,
    scored: usize,
    missing: usize,
}

/// Runs the command.
pub fn run(args: &EvaluateArgs) -> anyhow::Result<Outcome> {
    refuse_common_heads(&args.data, &args.trained_on)?;
    let evaluation = evaluate(&args.data, &args.predictions, args.baselines, args.bootstrap)?;
    evaluation.print(args.format)
}

/// Refuses to score on heads that the weights were trained on.
///
/// # Errors
/// when a data set of `trained_on` has a seed of `data`, or no record of its seeds
pub fn refuse_common_heads(data: &Path, trained_on: &[PathBuf]) -> anyhow::Result<()> {
    let Some(origin) = cohort::read_origin(data)? else { return Ok(()) };
    for training in trained_on {
        let Some(other) = cohort::read_origin(training)? else {
            bail!("{} has no cohort.json, so it is not known which heads it holds", training.display());
        };
        let common: Vec<String> = origin.common_seeds(&other).iter().map(u64::to_string).collect();
        ensure!(
            common.is_empty(),
            "{} and {} hold the same heads (seed {}); evaluate on heads that nothing was trained on",
            data.display(),
            training.display(),
            common.join(", ")
        );
    }
    Ok(())
}

/// Scores a table of predictions, with the folders beside it, against a data set.
///
/// # Errors
/// when a file cannot be read, or no series of the data set has a row in the table
pub fn evaluate(data: &Path, predictions: &Path, baselines: bool, samples: usize) -> anyhow::Result<Evaluation> {
    let cohort = cohort::read(data)?;
    let table = table::read_predictions(predictions)?;
    let series = series::read(&cohort, &table, predictions.parent().unwrap_or(Path::new(".")), baselines)?;
    ensure!(!series.is_empty(), "no series of {} has a row in {}", data.display(), predictions.display());
    let (scored, missing) = (series.len(), cohort.series.len() - series.len());
    Ok(Evaluation { scoreboard: figures::scoreboard(&series, samples), scored, missing })
}

impl Evaluation {
    /// Prints all figures.
    ///
    /// # Errors
    /// when they cannot be written as JSON
    pub fn print(&self, format: Format) -> anyhow::Result<Outcome> {
        match format {
            Format::Json => println!("{}", serde_json::to_string_pretty(&self.to_json()?)?),
            Format::Text => {
                println!("{}\n{} series scored, {} without a prediction", self.scoreboard, self.scored, self.missing);
                if let Some(check) = self.blob_check() {
                    println!("{check}");
                }
            }
        }
        Ok(if self.missing == 0 { Outcome::Done } else { Outcome::SomeFailed })
    }

    /// The figures with those of the challenge on top.
    ///
    /// # Errors
    /// when they cannot be written as JSON
    pub fn to_json(&self) -> anyhow::Result<Value> {
        let board = &self.scoreboard;
        let auc: Map<_, _> =
            column_names().map(|column| (column.to_string(), json!(board.value(&figures::auc_id(column))))).collect();
        let mut json = serde_json::to_value(board)?;
        json["missing"] = json!(self.missing);
        json["challenge_score"] = json!(board.value(figures::CHALLENGE_SCORE));
        json["auc"] = Value::Object(auc);
        json["at_least_blobs"] = json!(self.at_least_blobs().map(|parts| parts.iter().all(|part| part.1 >= part.2)));
        Ok(json)
    }

    /// Number of candidates, the line's recall and that of the blob detector; `None` without either.
    fn at_least_blobs(&self) -> Option<Vec<(usize, f64, f64)>> {
        let of = |k: usize| {
            let line = self.scoreboard.find(&figures::recall_id(k))?;
            Some((k, line, self.scoreboard.find(&figures::blob_recall_id(k))?))
        };
        figures::RECALL_RANKS.into_iter().map(of).collect()
    }

    /// Whether the line finds at least what the blob detector finds, in words.
    fn blob_check(&self) -> Option<String> {
        let parts = self.at_least_blobs()?;
        let short: Vec<String> = parts
            .iter()
            .filter(|(_, line, blobs)| line < blobs)
            .map(|(k, line, blobs)| format!("{line:.3} against {blobs:.3} at {k}"))
            .collect();
        Some(if short.is_empty() {
            "check passed: the line's recall is at least that of blobs on intensities at 1, 5 and 15".into()
        } else {
            format!("check FAILED: the line finds less than blobs on intensities: {}", short.join(", "))
        })
    }
}
