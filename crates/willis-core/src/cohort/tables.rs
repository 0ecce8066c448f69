//! Reading the challenge's two tables, `train.csv` and `train_localizers.csv`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::{CohortError, Localizer};
use crate::{Modality, SITE_COUNT, SeriesMeta, Sex, Site, anatomy};

/// Columns that come before the fourteen labels in the table of series: UID, age, sex, modality.
pub const SERIES_COLUMNS: [&str; 4] = ["SeriesInstanceUID", "PatientAge", "PatientSex", "Modality"];
/// Columns of the table of lesions: series UID, instance UID, coordinates, site.
pub const LOCALIZER_COLUMNS: [&str; 4] = ["SeriesInstanceUID", "SOPInstanceUID", "coordinates", "location"];

/// One row of the table of series.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct SeriesRow {
    /// The series.
    pub meta: SeriesMeta,
    /// Whether there is an aneurysm at each site, in the order of [`Site::ALL`].
    pub sites: [bool; SITE_COUNT],
    /// Whether there is an aneurysm anywhere.
    pub present: bool,
}

/// Reads a table of series. The columns may be in any order; other columns are ignored.
///
/// # Errors
/// `Csv`, `MissingColumn`, or `BadValue` for a label other than 0 or 1, an invalid age, sex or
/// modality, and a UID that appears twice or cannot be a file name.
pub(super) fn read_series_table(path: &Path) -> Result<Vec<SeriesRow>, CohortError> {
    let table = CsvTable::open(path)?;
    let label_columns = anatomy::column_names().map(|name| table.column(name)).collect::<Result<Vec<_>, _>>()?;
    let [uid, age, sex, modality] = table.columns(SERIES_COLUMNS)?;
    let mut seen = BTreeSet::new();
    let row = |number: usize| -> Result<SeriesRow, CohortError> {
        let text = |column: usize| table.cell(number, column);
        if !is_safe_name(text(uid)) || !seen.insert(text(uid).to_string()) {
            return Err(table.bad_value(number, uid, "unique series UID"));
        }
        let mut labels = [false; SITE_COUNT + 1];
        for (label, &column) in labels.iter_mut().zip(&label_columns) {
            *label = parse_label(text(column)).ok_or_else(|| table.bad_value(number, column, "label (0 or 1)"))?;
        }
        let invalid = |column: usize, name: &'static str| table.bad_value(number, column, name);
        let meta = SeriesMeta {
            uid: text(uid).to_string(),
            modality: optional(text(modality), Modality::from_name).ok_or_else(|| invalid(modality, "modality"))?,
            modality_from_voxels: false,
            age_years: optional(text(age), parse_age).ok_or_else(|| invalid(age, "age"))?,
            sex: optional(text(sex), parse_sex).ok_or_else(|| invalid(sex, "sex"))?,
        };
        let [sites @ .., present] = labels;
        Ok(SeriesRow { meta, sites, present })
    };
    (1..=table.rows.len()).map(row).collect()
}

/// Reads a table of lesions into one list per series UID.
///
/// # Errors
/// `Csv`, `MissingColumn`, or `BadValue` for invalid coordinates or an unknown location.
pub(super) fn read_localizer_table(path: &Path) -> Result<BTreeMap<String, Vec<Localizer>>, CohortError> {
    let table = CsvTable::open(path)?;
    let [uid, instance, coordinates, location] = table.columns(LOCALIZER_COLUMNS)?;
    let mut localizers: BTreeMap<String, Vec<Localizer>> = BTreeMap::new();
    for number in 1..=table.rows.len() {
        let text = |column: usize| table.cell(number, column);
        let (x, y, frame) = parse_coordinates(text(coordinates))
            .ok_or_else(|| table.bad_value(number, coordinates, "dictionary of coordinates"))?;
        let site = Site::from_name(text(location)).ok_or_else(|| table.bad_value(number, location, "location"))?;
        let instance_uid = text(instance).to_string();
        let of_series = localizers.entry(text(uid).to_string()).or_default();
        of_series.push(Localizer { instance_uid, x, y, frame, site });
    }
    Ok(localizers)
}

/// Parses a Python dictionary with the keys `x` (column), `y` (row) and, for multi-frame files, `f`
/// (frame).
fn parse_coordinates(text: &str) -> Option<(f64, f64, Option<usize>)> {
    let inner = text.trim().strip_prefix('{')?.strip_suffix('}')?;
    let (mut x, mut y, mut frame) = (None, None, None);
    for pair in inner.split(',').filter(|pair| !pair.trim().is_empty()) {
        let (key, value) = pair.split_once(':')?;
        let value: f64 = value.trim().parse().ok().filter(|v: &f64| v.is_finite())?;
        match key.trim().trim_matches(['\'', '"']) {
            "x" => x = Some(value),
            "y" => y = Some(value),
            "f" if value >= 0.0 && value.fract() == 0.0 => frame = Some(value as usize),
            _ => return None,
        }
    }
    Some((x?, y?, frame))
}

fn parse_label(text: &str) -> Option<bool> {
    match text.parse::<f64>().ok()? {
        0.0 => Some(false),
        1.0 => Some(true),
        _ => None,
    }
}

fn parse_age(text: &str) -> Option<f32> {
    text.trim_end_matches(['Y', 'y']).parse().ok().filter(|years| (0.0..=150.0).contains(years))
}

fn parse_sex(text: &str) -> Option<Sex> {
    match text.to_ascii_lowercase().as_str() {
        "female" | "f" => Some(Sex::Female),
        "male" | "m" => Some(Sex::Male),
        _ => None,
    }
}

/// Parses a cell that may be empty: `Some(None)` if it is, `None` if it is invalid.
fn optional<T>(text: &str, parse: impl FnOnce(&str) -> Option<T>) -> Option<Option<T>> {
    if text.is_empty() { Some(None) } else { parse(text).map(Some) }
}

/// Whether a UID can be a file name. A name that could lead out of the data set is refused.
fn is_safe_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
    !name.is_empty() && !name.starts_with('.') && name.chars().all(plain)
}

/// A CSV file in memory.
struct CsvTable<'a> {
    path: &'a Path,
    header: csv::StringRecord,
    rows: Vec<csv::StringRecord>,
}

impl<'a> CsvTable<'a> {
    fn open(path: &'a Path) -> Result<Self, CohortError> {
        let failed = |source| CohortError::Csv { path: path.to_path_buf(), source };
        let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_path(path).map_err(failed)?;
        let header = reader.headers().map_err(failed)?.clone();
        let rows = reader.records().collect::<Result<_, _>>().map_err(failed)?;
        Ok(Self { path, header, rows })
    }

    /// Index of a column. A byte order mark before the first name is ignored.
    fn column(&self, name: &str) -> Result<usize, CohortError> {
        let missing = || CohortError::MissingColumn { path: self.path.to_path_buf(), column: name.to_string() };
        self.header.iter().position(|column| column.trim_start_matches('\u{feff}') == name).ok_or_else(missing)
    }

    fn columns<const N: usize>(&self, names: [&str; N]) -> Result<[usize; N], CohortError> {
        let mut indices = [0; N];
        for (index, name) in indices.iter_mut().zip(names) {
            *index = self.column(name)?;
        }
        Ok(indices)
    }

    /// Cell of a row counted from 1. The reader has checked that every row has all columns.
    fn cell(&self, number: usize, column: usize) -> &str {
        self.rows[number - 1].get(column).unwrap_or_default()
    }

    fn bad_value(&self, row: usize, column: usize, expected: &'static str) -> CohortError {
        let value = self.cell(row, column).to_string();
        CohortError::BadValue { path: self.path.to_path_buf(), row, expected, value }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coordinates_are_python_dictionaries() {
        assert_eq!(parse_coordinates("{'x': 258.36, 'y': 261.36}"), Some((258.36, 261.36, None)));
        assert_eq!(parse_coordinates("{'x': 258.36, 'y': 261.36, 'f': 7}"), Some((258.36, 261.36, Some(7))));
        assert_eq!(parse_coordinates(r#" {"y": 2, "x": 1} "#), Some((1.0, 2.0, None)));
        for broken in ["", "{}", "{'x': 1}", "{'x': 1, 'y': nan}", "{'x': 1, 'y': 2, 'f': -1}", "{'x': 1, 'q': 2}"] {
            assert_eq!(parse_coordinates(broken), None, "{broken}");
        }
    }

    #[test]
    fn cells_accept_common_notations_and_refuse_others() {
        assert_eq!(parse_label("1"), Some(true));
        assert_eq!(parse_label("0.0"), Some(false));
        assert_eq!(parse_label("2"), None);
        assert_eq!(parse_age("065Y"), Some(65.0));
        assert_eq!(parse_age("-3"), None);
        assert_eq!(optional("", parse_sex), Some(None));
        assert_eq!(optional("unknown", parse_sex), None);
        assert!(is_safe_name("1.2.826.0.1"));
        assert!(!is_safe_name("../1"));
        assert!(!is_safe_name(".."));
    }

    /// A table of one series without an aneurysm, with a byte order mark and an unknown column.
    fn table() -> String {
        let names: Vec<&str> = anatomy::column_names().collect();
        let header = format!("\u{feff}{},Note,{}", SERIES_COLUMNS.join(","), names.join(","));
        format!("{header}\n1.2.3,61,Female,MRA,none,{}\n", ["0"; SITE_COUNT + 1].join(","))
    }

    #[test]
    fn a_table_of_series_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("train.csv");
        std::fs::write(&path, table()).unwrap();
        let [row] = &read_series_table(&path).unwrap()[..] else { panic!("one row") };
        let expected = SeriesMeta {
            uid: "1.2.3".into(),
            modality: Some(Modality::Mra),
            modality_from_voxels: false,
            age_years: Some(61.0),
            sex: Some(Sex::Female),
        };
        assert_eq!(row, &SeriesRow { meta: expected, sites: [false; SITE_COUNT], present: false });
    }

    #[test]
    fn invalid_tables_of_series_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("train.csv");
        for (find, put) in [("1.2.3", "../3"), (",61,", ",old,"), ("MRA", "PET"), (",Female,", ",2,"), (",0,", ",2,")] {
            std::fs::write(&path, table().replacen(find, put, 1)).unwrap();
            assert!(matches!(read_series_table(&path), Err(CohortError::BadValue { row: 1, .. })), "{put}");
        }
        std::fs::write(&path, table().replacen("Modality", "Series", 1)).unwrap();
        assert!(matches!(read_series_table(&path), Err(CohortError::MissingColumn { .. })));
        let row = table().lines().nth(1).unwrap().to_string();
        std::fs::write(&path, format!("{}{row}\n", table())).unwrap();
        assert!(matches!(read_series_table(&path), Err(CohortError::BadValue { row: 2, .. })), "duplicate series");
    }
}
