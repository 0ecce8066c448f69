//! The condition of the classifier: a vector of what is known about the series and the position of
//! a candidate.

use willis_core::{Grid, Modality, Point, SITE_COUNT, SeriesMeta, Sex, Site, Spacing};

/// Length of a condition: modality or unknown (5), age and whether it is known (2), sex or unknown
/// (3), spacing (3), site of the vessel map or none (14), position in the volume (3), and a
/// constant 1 that distinguishes a condition from the zero vector of a dropped one.
pub const CONDITIONS: usize = 31;

const SITE: usize = 13;
const PLACE_X: usize = SITE + SITE_COUNT + 1;

/// The condition of a candidate. A missing value has an entry of its own and is never replaced by a
/// typical one.
///
/// # Units
/// Age in units of 20 years from 55; spacing in mm; position in units of 50 mm from the centre of
/// the grid, axes x, y, z.
pub fn condition(meta: &SeriesMeta, site: Option<Site>, grid: &Grid, centre: Point) -> [f32; CONDITIONS] {
    let mut vector = [0.0; CONDITIONS];
    let modality = meta.modality.and_then(|m| Modality::ALL.iter().position(|&other| other == m));
    vector[modality.unwrap_or(Modality::ALL.len())] = 1.0;
    if let Some(age) = meta.age_years.filter(|age| age.is_finite()) {
        vector[5] = (age.clamp(0.0, 120.0) - 55.0) / 20.0;
        vector[6] = 1.0;
    }
    vector[match meta.sex {
        Some(Sex::Female) => 7,
        Some(Sex::Male) => 8,
        None => 9,
    }] = 1.0;
    let Spacing { z, y, x } = grid.spacing();
    vector[10..13].copy_from_slice(&[z as f32, y as f32, x as f32]);
    vector[SITE + site.map_or(SITE_COUNT, Site::column)] = 1.0;
    let middle = grid.centre();
    let place = [centre.x - middle.x, centre.y - middle.y, centre.z - middle.z];
    for (entry, mm) in vector[PLACE_X..].iter_mut().zip(place) {
        *entry = (mm / 50.0) as f32;
    }
    vector[CONDITIONS - 1] = 1.0;
    vector
}

/// The condition in the mirrored head: left and right sites are exchanged and the position
/// mirrored.
pub fn mirrored(vector: [f32; CONDITIONS]) -> [f32; CONDITIONS] {
    let mut mirrored = vector;
    for site in Site::ALL {
        mirrored[SITE + site.mirror().column()] = vector[SITE + site.column()];
    }
    mirrored[PLACE_X] = -vector[PLACE_X];
    mirrored
}

#[cfg(test)]
mod tests {
    use super::*;
    use willis_core::{Affine, Shape};

    #[test]
    fn every_entry_has_its_place() {
        let grid = Grid::new(
            Shape::new(11, 11, 11),
            Affine::axis_aligned(Spacing::new(0.9, 0.8, 0.7), Point::new(0.0, 0.0, 0.0)),
        );
        let meta = SeriesMeta { modality: Some(Modality::Mra), age_years: Some(75.0), sex: None, ..Default::default() };
        let vector = condition(&meta, Some(Site::LeftMca), &grid, Point::new(28.5, 4.0, 4.5));
        assert_eq!(vector[..10], [0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0]);
        assert!((vector[10] - 0.9).abs() < 1e-6 && (vector[12] - 0.7).abs() < 1e-6);
        assert_eq!(vector[SITE + Site::LeftMca.column()], 1.0);
        assert!((vector[PLACE_X] - 0.5).abs() < 1e-6 && vector[PLACE_X + 1].abs() < 1e-6);
        let other = mirrored(vector);
        assert_eq!(other[SITE + Site::RightMca.column()], 1.0);
        assert_eq!(other[SITE + Site::LeftMca.column()], 0.0);
        assert!((other[PLACE_X] + 0.5).abs() < 1e-6);
        assert_eq!(mirrored(other), vector);
        let unknown = condition(&SeriesMeta::default(), None, &grid, grid.centre());
        assert_eq!((unknown[4], unknown[6], unknown[9], unknown[SITE + SITE_COUNT]), (1.0, 0.0, 1.0, 1.0));
    }
}
