//! Headers of sound series, mutated: the volume is right, declared by a warning, or refused; never
//! silently wrong.

use std::collections::BTreeMap;

use dicom_core::VR;
use dicom_dictionary_std::{tags, uids};
use dicom_object::{FileMetaTableBuilder, InMemDicomObject};
use willis_core::{Severity, Volume};

use super::geometry::vector::{add, cross, dot, scale, sub};
use super::input::InputFile;
use super::testing::{TestSlice, put_decimals, put_text};
use super::{IngestConfig, IngestError, series};

const CASES: u64 = 2000;
const ROWS: u16 = 6;
const COLUMNS: u16 = 5;
const SPACING: [f64; 2] = [1.5, 1.25];
/// Change of the value along each axis of the patient, per mm. Linear, so that interpolation is
/// exact.
const GRADIENT: [f64; 3] = [20.0, -30.0, 40.0];
/// Largest displacement of a voxel that counts as right where the header is true, mm.
const RIGHT_MM: f64 = 0.15;
/// The same where the header is false: positions that are false by a little, and evenly, look
/// sound.
const LOOKS_RIGHT_MM: f64 = 0.3;

/// Pseudorandom numbers (Steele, Lea and Flood 2014).
struct SplitMix64(u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    /// Between -1 and 1.
    fn signed(&mut self) -> f64 {
        self.next() as f64 / u64::MAX as f64 * 2.0 - 1.0
    }

    fn shuffle<T>(&mut self, values: &mut [T]) {
        for i in (1..values.len()).rev() {
            values.swap(i, self.below(i + 1));
        }
    }
}

/// A slice: where it is, and what its header says.
#[derive(Clone)]
struct MutatedSlice {
    truth: [f64; 3],
    position: Option<[f64; 3]>,
    location: Option<f64>,
    orientation: [f64; 6],
    number: i32,
    echo_time: f64,
    acquisition: i32,
    trigger_time: f64,
    uid: usize,
}

struct MutatedSeries {
    orientation: [f64; 6],
    slices: Vec<MutatedSlice>,
}

impl MutatedSeries {
    fn sound(draw: &mut SplitMix64) -> Self {
        let (s, c) = 0.3f64.sin_cos();
        let orientation = draw.of(&[
            [1.0, 0.0, 0.0, 0.0, 1.0, 0.0],
            [1.0, 0.0, 0.0, 0.0, 0.0, -1.0],
            [0.0, 1.0, 0.0, 0.0, 0.0, -1.0],
            [c, s, 0.0, 0.0, 0.0, -1.0],
            [1.0, 0.0, 0.0, 0.0, c, s],
        ]);
        let gap = draw.of(&[0.6, 1.0, 2.5, 5.0]);
        let count = 6 + draw.below(8);
        let [row, column] = axes(&orientation);
        let normal = cross(row, column);
        let tilt = draw.of(&[0.0, 0.0, 0.0, 0.25]);
        let step = add(scale(normal, gap), scale(column, gap * tilt));
        let slices = (0..count)
            .map(|k| {
                let truth = add([-10.0, -20.0, 5.0], scale(step, k as f64));
                MutatedSlice {
                    truth,
                    position: Some(truth),
                    location: Some(dot(truth, normal)),
                    orientation,
                    number: k as i32 + 1,
                    echo_time: 4.0,
                    acquisition: 1,
                    trigger_time: 0.0,
                    uid: k,
                }
            })
            .collect();
        Self { orientation, slices }
    }

    fn normal(&self) -> [f64; 3] {
        let [row, column] = axes(&self.orientation);
        cross(row, column)
    }

    /// Applies one mutation to the headers; returns its number.
    fn mutate(&mut self, draw: &mut SplitMix64) -> usize {
        let normal = self.normal();
        let [row, column] = axes(&self.orientation);
        let any = draw.below(self.slices.len());
        // A header that is false of all slices alike looks sound.
        let upper = any.max(2).min(self.slices.len() - 1);
        let last = self.slices.len() - 1;
        let shift = |slice: &mut MutatedSlice, by: [f64; 3]| slice.position = slice.position.map(|p| add(p, by));
        let kind = draw.below(15);
        match kind {
            0 => {
                let mut numbers: Vec<i32> = self.slices.iter().map(|s| s.number).collect();
                draw.shuffle(&mut numbers);
                self.slices.iter_mut().zip(numbers).for_each(|(s, number)| s.number = number);
            }
            1 => self.slices.iter_mut().for_each(|s| s.number = 1),
            2 => {
                let size = draw.of(&[0.004, 0.03, 0.3, 3.0]);
                for slice in &mut self.slices {
                    shift(slice, [draw.signed() * size, draw.signed() * size, draw.signed() * size]);
                }
            }
            3 => {
                let copy = MutatedSlice { uid: 1000 + any, ..self.slices[any].clone() };
                self.slices.push(copy);
            }
            4 => drop(self.slices.remove(any)),
            5 => {
                let end = draw.of(&[0, last, any]);
                let size = draw.of(&[0.4, 3.0, 15.0]);
                shift(
                    &mut self.slices[end],
                    add(scale(row, draw.signed() * size), scale(column, draw.signed() * size)),
                );
            }
            6 => {
                let by = scale(row, draw.of(&[1.0, 4.0, 20.0]));
                self.slices[upper..].iter_mut().for_each(|s| shift(s, by));
            }
            7 => {
                let by = scale(normal, draw.signed() * draw.of(&[0.2, 2.0, 30.0, 200.0]));
                shift(&mut self.slices[any], by);
            }
            8 => {
                // A thick part above.
                let factor = draw.of(&[1.5, 3.0, 8.0]);
                let Some(base) = self.slices[upper].position else { return kind };
                for slice in &mut self.slices[upper..] {
                    let above = slice.position.map_or(0.0, |p| dot(sub(p, base), normal));
                    shift(slice, scale(normal, above * (factor - 1.0)));
                }
            }
            9 => {
                // A second volume a hair above the first.
                let by = scale(normal, draw.of(&[0.0, 0.2, 0.3, 1.1]));
                let key = draw.below(4);
                let copies: Vec<MutatedSlice> = self.slices.clone();
                let count = copies.len();
                self.slices.extend(copies.into_iter().enumerate().map(|(k, mut slice)| {
                    shift(&mut slice, by);
                    slice.uid += 2000;
                    slice.number += count as i32;
                    match key {
                        0 => slice.echo_time = 20.0,
                        1 => slice.acquisition = 2,
                        2 => slice.trigger_time = 100.0 + k as f64,
                        _ => {}
                    }
                    slice
                }));
            }
            10 => self.slices.iter_mut().for_each(|s| s.acquisition = draw.below(3) as i32),
            11 => self.slices[any].position = None,
            12 => {
                let length = draw.of(&[1.0001, 1.01, 1.5]);
                self.slices.iter_mut().for_each(|s| s.orientation = s.orientation.map(|v| v * length));
            }
            13 => {
                let all = self.slices[0].position;
                self.slices.iter_mut().for_each(|s| s.position = all);
            }
            _ => self.slices.iter_mut().for_each(|s| s.location = Some(draw.signed() * 50.0)),
        }
        kind
    }

    fn files(&self, draw: &mut SplitMix64) -> Vec<InputFile> {
        let mut files: Vec<InputFile> = self.slices.iter().map(|slice| file(slice, &self.orientation)).collect();
        draw.shuffle(&mut files);
        files
    }
}

fn axes(o: &[f64; 6]) -> [[f64; 3]; 2] {
    [[o[0], o[1], o[2]], [o[3], o[4], o[5]]]
}

fn value_at(place: [f64; 3]) -> f64 {
    dot(place, GRADIENT)
}

fn file(slice: &MutatedSlice, orientation: &[f64; 6]) -> InputFile {
    let [row, column] = axes(orientation);
    let pixel = |i: u16| {
        let [down, right] = [f64::from(i / COLUMNS) * SPACING[0], f64::from(i % COLUMNS) * SPACING[1]];
        value_at(add(slice.truth, add(scale(row, right), scale(column, down)))).round() as i16
    };
    let test = TestSlice {
        number: slice.number,
        rows: ROWS,
        columns: COLUMNS,
        position: slice.position,
        orientation: Some(slice.orientation),
        spacing: Some(SPACING),
        modality: "MR",
        values: (0..ROWS * COLUMNS).map(pixel).collect(),
        ..TestSlice::axial(0, 0.0)
    };
    let mut obj = test.object();
    put_text(&mut obj, tags::SOP_INSTANCE_UID, VR::UI, &format!("1.9.{}", slice.uid));
    put_decimals(&mut obj, tags::SLICE_LOCATION, slice.location.as_ref().map(std::slice::from_ref));
    put_decimals(&mut obj, tags::ECHO_TIME, Some(&[slice.echo_time]));
    put_decimals(&mut obj, tags::TRIGGER_TIME, Some(&[slice.trigger_time]));
    put_text(&mut obj, tags::ACQUISITION_NUMBER, VR::IS, &slice.acquisition.to_string());
    InputFile::Unpacked { name: slice.uid.to_string(), bytes: encoded(obj) }
}

fn encoded(obj: InMemDicomObject) -> Vec<u8> {
    let meta = FileMetaTableBuilder::new()
        .transfer_syntax(uids::EXPLICIT_VR_LITTLE_ENDIAN)
        .media_storage_sop_class_uid(uids::MR_IMAGE_STORAGE)
        .media_storage_sop_instance_uid("1.9");
    let mut bytes = Vec::new();
    obj.with_meta(meta).expect("meta is complete").write_all(&mut bytes).expect("memory is writable");
    bytes
}

fn read(files: Vec<InputFile>) -> Result<Volume, IngestError> {
    let config = IngestConfig::default();
    let mut findings = Vec::new();
    let (files, instances) = series::read_headers(std::path::Path::new("test"), files, &config, &mut findings)?;
    series::read_volume(&files, &instances, &config, findings)
}

/// Largest displacement, mm, that explains a voxel's value; along the gradient, so a lower bound.
fn largest_error_mm(volume: &Volume) -> f64 {
    let steepness = dot(GRADIENT, GRADIENT).sqrt();
    let grid = volume.image.grid;
    let error = |(offset, &value): (usize, &f32)| {
        let place = grid.affine.to_world(grid.shape.index(offset).into()).xyz();
        // Stored values are rounded.
        ((f64::from(value) - value_at(place)).abs() - 1.0).max(0.0) / steepness
    };
    volume.image.voxels.iter().enumerate().map(error).fold(0.0, f64::max)
}

/// How far slices lie beyond the ends of the volume, mm.
fn beyond_mm(volume: &Volume, series: &MutatedSeries) -> f64 {
    let normal = series.normal();
    let grid = volume.image.grid;
    let height = |z: usize| dot(grid.affine.to_world(willis_core::Index::new(z, 0, 0).into()).xyz(), normal);
    let (low, high) = (height(0), height(grid.shape.z - 1));
    let beyond = |p: [f64; 3]| (low - dot(p, normal)).max(dot(p, normal) - high);
    series.slices.iter().filter_map(|s| s.position).map(beyond).fold(0.0, f64::max)
}

#[test]
fn mutated_headers_never_give_a_silently_wrong_volume() {
    let mut outcomes: BTreeMap<&str, usize> = BTreeMap::new();
    let mut silent = Vec::new();
    for case in 0..CASES {
        let mut draw = SplitMix64(case);
        let mut series = MutatedSeries::sound(&mut draw);
        let kinds: Vec<usize> = (0..draw.below(4)).map(|_| series.mutate(&mut draw)).collect();
        // In half of the cases the header is true and the slices were moved; in the others the
        // header is false.
        let header_is_true = draw.below(2) == 0;
        if header_is_true {
            series.slices.iter_mut().for_each(|s| s.truth = s.position.unwrap_or(s.truth));
        }
        let outcome = match read(series.files(&mut draw)) {
            Err(_) => "refused",
            Ok(volume) => {
                let warnings: Vec<&str> = volume
                    .findings
                    .iter()
                    .filter(|f| f.severity == Severity::Warning && f.code != "modality-guessed")
                    .map(|f| f.code.as_str())
                    .collect();
                let (error, beyond) = (largest_error_mm(&volume), beyond_mm(&volume, &series));
                let limit = if header_is_true { RIGHT_MM } else { LOOKS_RIGHT_MM };
                let right = error <= limit && beyond <= limit;
                if !right && warnings.is_empty() {
                    silent.push(format!(
                    "case {case}, mutations {kinds:?}, true header {header_is_true}: off by {error:.2} mm, {beyond:.2} mm are missing, {:?}",
                    volume.findings
                ));
                }
                match (right, warnings.is_empty()) {
                    (true, true) => "right",
                    (true, false) => "right and declared",
                    _ => "declared",
                }
            }
        };
        *outcomes.entry(outcome).or_default() += 1;
    }
    println!("{outcomes:?}");
    assert!(
        silent.is_empty(),
        "{} silently wrong, among them\n{}",
        silent.len(),
        silent[..silent.len().min(20)].join("\n")
    );
    // Neither everything warned about nor everything refused.
    assert!(outcomes["right"] > CASES as usize / 5, "{outcomes:?}");
    assert!(outcomes["declared"] > 0 && outcomes["refused"] > 0, "{outcomes:?}");
}

#[test]
fn sound_series_are_read_without_a_warning() {
    for case in 0..100 {
        let mut draw = SplitMix64(case);
        let series = MutatedSeries::sound(&mut draw);
        let volume = read(series.files(&mut draw)).unwrap();
        assert!(largest_error_mm(&volume) < 1e-3 && beyond_mm(&volume, &series) < 1e-6, "{case}");
        let codes: Vec<_> = volume.findings.iter().map(|f| f.code.as_str()).collect();
        assert!(codes.iter().all(|code| ["modality-guessed", "gantry-tilt"].contains(code)), "{codes:?}");
    }
}
