//! Mosaics: one frame that holds all slices of a volume as tiles, as Siemens scanners export
//! echo-planar series.
//!
//! # Source
//! The CSA header as described by nibabel (`nibabel/nicom/siemens_csa.rst`). The position in the
//! header is where the first pixel of one slice would be if a slice were as large as the mosaic, so
//! it is moved by half the difference of the sizes.

use super::geometry::normal_of;
use super::geometry::vector::{add, dot, scale};
use super::slices::Slice;

/// Size of the name of a CSA element, bytes.
const CSA_NAME: usize = 64;
/// Elements of a CSA header, at most.
const CSA_ELEMENTS: u32 = 1024;
/// Tiles of a mosaic, at most.
const MAX_TILES: usize = 1024;

/// What the header says about a mosaic.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Mosaic {
    pub tiles: usize,
    /// Direction in which the tiles ascend, LPS.
    pub normal: [f64; 3],
}

/// What a mosaic lacks to be taken apart.
pub(super) type MissingName = &'static str;

impl Mosaic {
    /// Reads the number of tiles and their direction from the Siemens CSA header; the number may
    /// also stand in an element of its own.
    ///
    /// # Errors
    /// the name of what is missing.
    pub fn of(number: Option<i64>, csa: Option<&[u8]>) -> Result<Self, MissingName> {
        let numbers = |name| csa.and_then(|csa| csa_numbers(csa, name));
        let stated = numbers("NumberOfImagesInMosaic").and_then(|n| n.first().map(|&n| n as i64));
        let tiles = stated.filter(|&n| n > 0).or(number).unwrap_or(0);
        let normal = numbers("SliceNormalVector").and_then(|n| <[f64; 3]>::try_from(n).ok());
        match (usize::try_from(tiles), normal) {
            (Ok(tiles @ 1..=MAX_TILES), Some(normal)) => Ok(Self { tiles, normal }),
            (Ok(1..=MAX_TILES), None) => Err("SliceNormalVector (CSA header)"),
            _ => Err("NumberOfImagesInMosaic"),
        }
    }

    /// The slices in the tiles of a frame.
    ///
    /// # Errors
    /// the name of what is missing.
    pub fn slices(&self, frame: &Slice) -> Result<Vec<Slice>, MissingName> {
        let side = (1..).find(|side| side * side >= self.tiles).unwrap_or(1);
        if !frame.rows.is_multiple_of(side) || !frame.columns.is_multiple_of(side) {
            return Err("a size that is a multiple of its tiles");
        }
        let (rows, columns) = (frame.rows / side, frame.columns / side);
        let corner = frame.position.ok_or("ImagePositionPatient")?;
        let o = frame.orientation.ok_or("ImageOrientationPatient")?;
        let [row_mm, column_mm] = frame.pixel_spacing.ok_or("PixelSpacing")?;
        let step = frame.slice_step_mm.ok_or("SpacingBetweenSlices")?;
        let normal = normal_of(frame);
        let ascending = dot(normal, self.normal);
        if ascending.abs() < 0.5 {
            return Err("a SliceNormalVector that is normal to its slices");
        }
        let along = |axis: [f64; 3], mm: f64, whole: usize, tile: usize| scale(axis, mm * (whole - tile) as f64 / 2.0);
        let first = add(
            add(corner, along([o[0], o[1], o[2]], column_mm, frame.columns, columns)),
            along([o[3], o[4], o[5]], row_mm, frame.rows, rows),
        );
        let tile = |k: usize| Slice {
            rows,
            columns,
            position: Some(add(first, scale(normal, k as f64 * step * ascending.signum()))),
            slice_location: None,
            tile: Some([k / side * rows, k % side * columns]),
            ..frame.clone()
        };
        Ok((0..self.tiles).map(tile).collect())
    }
}

/// Numbers of an element of a Siemens CSA header; `None` when it is absent or damaged.
fn csa_numbers(csa: &[u8], name: &str) -> Option<Vec<f64>> {
    let word =
        |at: usize| -> Option<u32> { Some(u32::from_le_bytes(csa.get(at..at.checked_add(4)?)?.try_into().ok()?)) };
    let second = csa.starts_with(b"SV10");
    let mut at = if second { 8 } else { 0 };
    let elements = word(at)?.min(CSA_ELEMENTS);
    at += 8;
    // The first version adds the number of items of the first element to every length.
    let mut added = None;
    for _ in 0..elements {
        let this = csa.get(at..at + CSA_NAME)?.split(|&b| b == 0).next()?;
        let items = word(at + CSA_NAME + 12)?;
        at += CSA_NAME + 20;
        let mut values = Vec::new();
        for _ in 0..items.min(CSA_ELEMENTS) {
            let length = if second { word(at + 4)? } else { word(at)?.checked_sub(*added.get_or_insert(items))? };
            at += 16;
            let end = at.checked_add(length as usize)?;
            let text = String::from_utf8_lossy(csa.get(at..end)?).into_owned();
            values.extend(text.trim_matches(['\0', ' ']).parse::<f64>().ok().filter(|v| v.is_finite()));
            at = end.next_multiple_of(4);
        }
        if this == name.as_bytes() {
            return Some(values);
        }
    }
    None
}

/// Cuts a tile out of a decoded frame.
pub(super) fn cut(frame: &[f32], frame_columns: usize, tile: [usize; 2], columns: usize, out: &mut [f32]) {
    for (row, target) in out.chunks_exact_mut(columns).enumerate() {
        let start = (tile[0] + row) * frame_columns + tile[1];
        target.copy_from_slice(&frame[start..start + columns]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A CSA header of the second version.
    fn csa(elements: &[(&str, &[&str])]) -> Vec<u8> {
        let mut bytes = b"SV10\x04\x03\x02\x01".to_vec();
        bytes.extend((elements.len() as u32).to_le_bytes());
        bytes.extend(77u32.to_le_bytes());
        for (name, values) in elements {
            let mut field = name.as_bytes().to_vec();
            field.resize(CSA_NAME, 0);
            bytes.extend(field);
            for word in [1, 0, 0, values.len() as u32, 77] {
                bytes.extend(u32::to_le_bytes(word));
            }
            for value in *values {
                let length = value.len() as u32;
                [length, length, 77, length].iter().for_each(|w| bytes.extend(w.to_le_bytes()));
                bytes.extend(value.as_bytes());
                bytes.resize(bytes.len().next_multiple_of(4), 0);
            }
        }
        bytes
    }

    fn frame() -> Slice {
        Slice {
            rows: 6,
            columns: 8,
            position: Some([-10.0, -20.0, 30.0]),
            orientation: Some([1.0, 0.0, 0.0, 0.0, 1.0, 0.0]),
            pixel_spacing: Some([2.0, 3.0]),
            slice_step_mm: Some(4.0),
            ..Slice::default()
        }
    }

    #[test]
    fn tiles_are_slices_with_positions_of_their_own() {
        let header = csa(&[
            ("Other", &["a", "b"]),
            ("NumberOfImagesInMosaic", &["3"]),
            ("SliceNormalVector", &["0.0", "0.0", "-1.0"]),
        ]);
        let mosaic = Mosaic::of(None, Some(&header)).unwrap();
        let slices = mosaic.slices(&frame()).unwrap();
        assert_eq!(slices.iter().map(|s| (s.rows, s.columns)).collect::<Vec<_>>(), [(3, 4); 3]);
        // Half of 8 - 4 columns of 3 mm and of 6 - 3 rows of 2 mm.
        assert_eq!(slices[0].position, Some([-4.0, -17.0, 30.0]));
        assert_eq!(slices[2].position, Some([-4.0, -17.0, 22.0]));
        assert_eq!(slices.iter().map(|s| s.tile.unwrap()).collect::<Vec<_>>(), [[0, 0], [0, 4], [3, 0]]);
        let pixels: Vec<f32> = (0..48).map(|i| i as f32).collect();
        let mut tile = vec![0.0; 12];
        cut(&pixels, 8, [3, 4], 4, &mut tile);
        assert_eq!(tile[..5], [28.0, 29.0, 30.0, 31.0, 36.0]);
    }

    #[test]
    fn what_is_missing_is_named() {
        let normal = csa(&[("SliceNormalVector", &["0", "0", "1"])]);
        assert_eq!(Mosaic::of(None, None).unwrap_err(), "NumberOfImagesInMosaic");
        assert_eq!(Mosaic::of(Some(4), None).unwrap_err(), "SliceNormalVector (CSA header)");
        assert_eq!(Mosaic::of(Some(1 << 40), Some(&normal)).unwrap_err(), "NumberOfImagesInMosaic");
        let mosaic = Mosaic::of(Some(4), Some(&normal)).unwrap();
        let spacing = Slice { slice_step_mm: None, ..frame() };
        assert_eq!(mosaic.slices(&spacing).unwrap_err(), "SpacingBetweenSlices");
        assert!(mosaic.slices(&Slice { rows: 7, ..frame() }).unwrap_err().contains("multiple"));
        // A prefix is damaged, unless it lacks only the padding of three bytes at the end.
        for end in 0..normal.len() - 3 {
            assert!(Mosaic::of(Some(4), Some(&normal[..end])).is_err(), "{end}");
        }
    }
}
