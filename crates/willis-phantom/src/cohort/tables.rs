//! The challenge's two tables: `train.csv` and `train_localizers.csv`.

use std::collections::BTreeMap;
use std::path::Path;

use willis_core::files::atomic::write_atomically;
use willis_core::{Modality, SITE_COUNT, SeriesMeta, Sex, Site, anatomy};

use super::CohortError;
use super::series::{Localizer, SeriesTruth};

/// Name of the table of series.
pub const SERIES_TABLE: &str = "train.csv";
/// Name of the table of lesions.
pub const LOCALIZER_TABLE: &str = "train_localizers.csv";

const UID: &str = "SeriesInstanceUID";
const AGE: &str = "PatientAge";
const SEX: &str = "PatientSex";
const MODALITY: &str = "Modality";
const INSTANCE: &str = "SOPInstanceUID";
const COORDINATES: &str = "coordinates";
const LOCATION: &str = "location";

/// One row of the table of series.
#[derive(Debug, Clone, PartialEq)]
pub struct SeriesRow {
    /// The series.
    pub meta: SeriesMeta,
    /// Whether there is an aneurysm at each site, column order.
    pub sites: [bool; SITE_COUNT],
    /// Whether there is an aneurysm anywhere.
    pub present: bool,
}

/// Writes both tables, sorted by series, each whole or not at all.
///
/// # Errors
/// the table that cannot be written.
pub fn write_tables(root: &Path, truths: &[SeriesTruth]) -> Result<(), CohortError> {
    let mut truths: Vec<&SeriesTruth> = truths.iter().collect();
    truths.sort_by(|a, b| a.series.uid.cmp(&b.series.uid));
    let header = [UID, AGE, SEX, MODALITY].into_iter().chain(anatomy::column_names()).map(String::from).collect();
    let series = std::iter::once(header).chain(truths.iter().map(|truth| series_row(truth))).collect();
    let header = [UID, INSTANCE, COORDINATES, LOCATION].map(String::from).to_vec();
    let localizers = std::iter::once(header).chain(truths.iter().flat_map(|truth| localizer_rows(truth))).collect();
    write_rows(&root.join(SERIES_TABLE), series)?;
    write_rows(&root.join(LOCALIZER_TABLE), localizers)
}

/// Rows of a table of series; columns may stand in any order, further ones are ignored.
///
/// # Errors
/// `MissingColumn`, `BadValue` for a label that is not 0 or 1, an age, sex or modality that is
/// none, or a UID that is unfit as a file name or appears twice.
pub fn read_series_table(path: &Path) -> Result<Vec<SeriesRow>, CohortError> {
    let table = Table::open(path)?;
    let columns = anatomy::column_names().map(|name| table.column(name)).collect::<Result<Vec<_>, _>>()?;
    let [uid, age, sex, modality] = [UID, AGE, SEX, MODALITY].map(|name| table.column(name));
    let (uid, age, sex, modality) = (uid?, age?, sex?, modality?);
    let mut seen = std::collections::BTreeSet::new();
    let row = |number: usize| -> Result<SeriesRow, CohortError> {
        let bad = |column: usize, what: &str| table.bad_value(number, column, what);
        let text = |column: usize| table.cell(number, column);
        if !is_safe_name(text(uid)) || !seen.insert(text(uid).to_string()) {
            return Err(bad(uid, "unique series UID"));
        }
        let mut labels = [false; SITE_COUNT + 1];
        for (label, column) in labels.iter_mut().zip(&columns) {
            *label = parse_label(text(*column)).ok_or_else(|| bad(*column, "label (0 or 1)"))?;
        }
        let meta = SeriesMeta {
            uid: text(uid).to_string(),
            modality: optional(text(modality), Modality::from_name).map_err(|()| bad(modality, MODALITY))?,
            modality_from_voxels: false,
            age_years: optional(text(age), parse_age).map_err(|()| bad(age, AGE))?,
            sex: optional(text(sex), parse_sex).map_err(|()| bad(sex, SEX))?,
        };
        let [sites @ .., present] = labels;
        Ok(SeriesRow { meta, sites, present })
    };
    (1..=table.rows.len()).map(row).collect()
}

/// Lesions by series UID.
///
/// # Errors
/// `MissingColumn`, or `BadValue` for coordinates or a location that cannot be understood.
pub fn read_localizer_table(path: &Path) -> Result<BTreeMap<String, Vec<Localizer>>, CohortError> {
    let table = Table::open(path)?;
    let [uid, instance, coordinates, location] = [UID, INSTANCE, COORDINATES, LOCATION].map(|name| table.column(name));
    let (uid, instance, coordinates, location) = (uid?, instance?, coordinates?, location?);
    let mut localizers: BTreeMap<String, Vec<Localizer>> = BTreeMap::new();
    for number in 1..=table.rows.len() {
        let text = |column: usize| table.cell(number, column);
        let (x, y, frame) =
            parse_coordinates(text(coordinates)).ok_or_else(|| table.bad_value(number, coordinates, COORDINATES))?;
        let site = Site::from_name(text(location)).ok_or_else(|| table.bad_value(number, location, LOCATION))?;
        let instance_uid = text(instance).to_string();
        let of_series = localizers.entry(text(uid).to_string()).or_default();
        of_series.push(Localizer { instance_uid, x, y, frame, site });
    }
    Ok(localizers)
}

fn series_row(truth: &SeriesTruth) -> Vec<String> {
    let meta = &truth.series;
    let has = |site: Site| truth.lesions.iter().any(|lesion| lesion.site == site);
    let labels = Site::ALL.into_iter().map(has).chain([!truth.lesions.is_empty()]);
    let age = meta.age_years.map_or_else(String::new, |years| format!("{years:.0}"));
    let sex = match meta.sex {
        Some(Sex::Female) => "Female",
        Some(Sex::Male) => "Male",
        None => "",
    };
    let facts = [meta.uid.clone(), age, sex.to_string(), meta.modality.map_or("", Modality::name).to_string()];
    facts.into_iter().chain(labels.map(|label| u8::from(label).to_string())).collect()
}

fn localizer_rows(truth: &SeriesTruth) -> impl Iterator<Item = Vec<String>> + '_ {
    truth.localizers.iter().map(|lesion| {
        let coordinates = format_coordinates(lesion);
        vec![truth.series.uid.clone(), lesion.instance_uid.clone(), coordinates, lesion.site.name().to_string()]
    })
}

/// The challenge's notation: a Python dictionary.
fn format_coordinates(lesion: &Localizer) -> String {
    let frame = lesion.frame.map_or_else(String::new, |f| format!(", 'f': {f}"));
    format!("{{'x': {:.2}, 'y': {:.2}{frame}}}", lesion.x, lesion.y)
}

/// Column, row and frame of a Python dictionary with the keys `x`, `y` and, in multi-frame files,
/// `f`.
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

/// An empty cell is missing; any other must parse.
fn optional<T>(text: &str, parse: impl FnOnce(&str) -> Option<T>) -> Result<Option<T>, ()> {
    if text.is_empty() { Ok(None) } else { parse(text).map(Some).ok_or(()) }
}

/// Whether a UID can be a file name: never a path that leads elsewhere.
fn is_safe_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
    !name.is_empty() && !name.starts_with('.') && name.chars().all(plain)
}

/// A CSV file in memory.
struct Table<'a> {
    path: &'a Path,
    header: csv::StringRecord,
    rows: Vec<csv::StringRecord>,
}

impl<'a> Table<'a> {
    fn open(path: &'a Path) -> Result<Self, CohortError> {
        let failed = |source| CohortError::Csv { path: path.to_path_buf(), source };
        let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_path(path).map_err(failed)?;
        let header = reader.headers().map_err(failed)?.clone();
        let rows = reader.records().collect::<Result<_, _>>().map_err(failed)?;
        Ok(Self { path, header, rows })
    }

    fn column(&self, name: &str) -> Result<usize, CohortError> {
        let missing = || CohortError::MissingColumn { path: self.path.to_path_buf(), column: name.to_string() };
        self.header.iter().position(|column| column.trim_start_matches('\u{feff}') == name).ok_or_else(missing)
    }

    /// Cell of a row counted from 1; the reader has made sure that every row has all columns.
    fn cell(&self, number: usize, column: usize) -> &str {
        self.rows[number - 1].get(column).unwrap_or_default()
    }

    fn bad_value(&self, row: usize, column: usize, what: &str) -> CohortError {
        let value = self.cell(row, column).to_string();
        CohortError::BadValue { path: self.path.to_path_buf(), row, column: what.to_string(), value }
    }
}

fn write_rows(path: &Path, rows: Vec<Vec<String>>) -> Result<(), CohortError> {
    write_atomically(path, |file| {
        let mut writer = csv::Writer::from_writer(file);
        rows.iter().try_for_each(|row| writer.write_record(row))?;
        writer.flush()
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coordinates_are_python_dictionaries() {
        let lesion = Localizer { instance_uid: "1".into(), x: 258.3642, y: 261.36, frame: None, site: Site::LeftMca };
        assert_eq!(format_coordinates(&lesion), "{'x': 258.36, 'y': 261.36}");
        let framed = Localizer { frame: Some(7), ..lesion };
        assert_eq!(format_coordinates(&framed), "{'x': 258.36, 'y': 261.36, 'f': 7}");
        assert_eq!(parse_coordinates(&format_coordinates(&framed)), Some((258.36, 261.36, Some(7))));
        assert_eq!(parse_coordinates(r#" {"y": 2, "x": 1} "#), Some((1.0, 2.0, None)));
        for broken in ["", "{}", "{'x': 1}", "{'x': 1, 'y': nan}", "{'x': 1, 'y': 2, 'f': -1}", "{'x': 1, 'q': 2}"] {
            assert_eq!(parse_coordinates(broken), None, "{broken}");
        }
    }

    #[test]
    fn cells_are_read_forgivingly_but_not_guessed() {
        assert_eq!(parse_label("1"), Some(true));
        assert_eq!(parse_label("0.0"), Some(false));
        assert_eq!(parse_label("2"), None);
        assert_eq!(parse_age("065Y"), Some(65.0));
        assert_eq!(parse_age("-3"), None);
        assert_eq!(optional("", parse_sex), Ok(None));
        assert_eq!(optional("unknown", parse_sex), Err(()));
        assert!(is_safe_name("1.2.826.0.1"));
        assert!(!is_safe_name("../1"));
        assert!(!is_safe_name(".."));
    }
}
