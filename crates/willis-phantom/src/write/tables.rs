//! Writes `train.csv` and `train_localizers.csv`.

use std::path::Path;

use willis_core::cohort::paths::{LOCALIZER_TABLE, SERIES_TABLE};
use willis_core::cohort::tables::{LOCALIZER_COLUMNS, SERIES_COLUMNS};
use willis_core::cohort::{HeaderContent, Localizer, ScanTruth, SeriesTruth, SiteKnowledge};
use willis_core::files::atomic::write_atomically;
use willis_core::{Modality, SeriesMeta, Sex, Site, anatomy};

use super::WriteCohortError;

/// Writes both tables, sorted by series UID. Each is written atomically.
///
/// # Errors
/// `File` for a table that cannot be written.
pub fn write_tables(root: &Path, truths: &[SeriesTruth]) -> Result<(), WriteCohortError> {
    let mut truths: Vec<&SeriesTruth> = truths.iter().collect();
    truths.sort_by(|a, b| a.series.uid.cmp(&b.series.uid));
    let header = SERIES_COLUMNS.into_iter().chain(anatomy::column_names()).map(String::from).collect();
    let series = std::iter::once(header).chain(truths.iter().map(|truth| series_row(truth))).collect();
    let header = LOCALIZER_COLUMNS.map(String::from).to_vec();
    let localizers = std::iter::once(header).chain(truths.iter().flat_map(|truth| localizer_rows(truth))).collect();
    write_rows(&root.join(SERIES_TABLE), series)?;
    write_rows(&root.join(LOCALIZER_TABLE), localizers)
}

fn series_row(truth: &SeriesTruth) -> Vec<String> {
    let bare = |scan: &ScanTruth| scan.header != HeaderContent::Full;
    // The table says what the header says.
    let meta = if truth.scan.as_ref().is_some_and(bare) {
        SeriesMeta { uid: truth.series.uid.clone(), ..SeriesMeta::default() }
    } else {
        truth.series.clone()
    };
    let sites = truth.scan.as_ref().map_or(SiteKnowledge::Known, |scan| scan.sites);
    let known = sites == SiteKnowledge::Known;
    let has = |site: Site| known && truth.lesions.iter().any(|lesion| lesion.site == site);
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

/// Coordinates as the challenge writes them: a Python dictionary.
fn format_coordinates(lesion: &Localizer) -> String {
    let frame = lesion.frame.map_or_else(String::new, |f| format!(", 'f': {f}"));
    format!("{{'x': {:.2}, 'y': {:.2}{frame}}}", lesion.x, lesion.y)
}

fn write_rows(path: &Path, rows: Vec<Vec<String>>) -> Result<(), WriteCohortError> {
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
    }
}
