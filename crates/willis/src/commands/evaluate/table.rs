//! Reading a table of predictions.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, bail};
use willis_core::anatomy::{SITE_COUNT, column_names};

/// Probabilities of the fourteen columns by series instance UID.
pub type PredictionTable = BTreeMap<String, [f64; SITE_COUNT + 1]>;

/// Reads a table of predictions.
///
/// # Errors
/// when it cannot be read or has a row that is no prediction
pub fn read_predictions(path: &Path) -> anyhow::Result<PredictionTable> {
    let name = path.display().to_string();
    let file = File::open(path).with_context(|| format!("cannot read {name}"))?;
    parse_predictions(file, &name)
}

/// Reads a table of predictions; `name` is that of the file, for messages.
///
/// # Errors
/// for the first row that repeats a series, or has a value that is not a probability.
fn parse_predictions(table: impl Read, name: &str) -> anyhow::Result<PredictionTable> {
    let mut reader = csv::Reader::from_reader(table);
    let header = reader.headers().with_context(|| format!("cannot read {name}"))?.clone();
    let column = |wanted: &str| {
        header.iter().position(|h| h == wanted).with_context(|| format!("{name} has no column \"{wanted}\""))
    };
    let uid = column("SeriesInstanceUID")?;
    let columns = column_names().map(|c| Ok((c, column(c)?))).collect::<anyhow::Result<Vec<_>>>()?;
    let mut rows = BTreeMap::<String, (usize, [f64; SITE_COUNT + 1])>::new();
    for (index, row) in reader.records().enumerate() {
        let line = index + 2;
        let row = row.with_context(|| format!("{name}, row {line} cannot be read"))?;
        let mut values = [0.0; SITE_COUNT + 1];
        for (value, &(title, c)) in values.iter_mut().zip(&columns) {
            *value = row[c].trim().parse().ok().filter(|p| (0.0..=1.0).contains(p)).with_context(|| {
                format!("{name}, row {line}, column \"{title}\": \"{}\" is not a probability from 0 to 1", &row[c])
            })?;
        }
        if let Some((first, _)) = rows.insert(row[uid].to_string(), (line, values)) {
            bail!("{name}, row {line} repeats the series of row {first}; keep one row for each series");
        }
    }
    Ok(rows.into_iter().map(|(uid, (_, values))| (uid, values)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A table of two series, in which the last value of the second is `value`.
    fn table(second: &str, value: &str) -> String {
        let header: Vec<&str> = column_names().collect();
        let halves = vec!["0.5"; SITE_COUNT].join(",");
        format!("SeriesInstanceUID,{}\n1.2,{halves},1\n{second},{halves},{value}\n", header.join(","))
    }

    #[test]
    fn rows_that_are_no_predictions_are_named() {
        let read = |second, value| parse_predictions(table(second, value).as_bytes(), "p.csv");
        assert_eq!(read("1.3", "0").unwrap().len(), 2);
        for value in ["NaN", "inf", "-inf", "1.7", "-3", "", "high", "1e-400x"] {
            let error = read("1.3", value).unwrap_err().to_string();
            assert!(error.starts_with("p.csv, row 3, column \"Aneurysm Present\""), "{error}");
        }
        let error = read("1.2", "0.25").unwrap_err().to_string();
        assert!(error.contains("row 3 repeats the series of row 2"), "{error}");
        assert!(parse_predictions(&b"a,b\n1,2\n"[..], "p.csv").unwrap_err().to_string().contains("no column"));
    }
}
