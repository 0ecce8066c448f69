//! The true lesions of a series.

use serde::{Deserialize, Serialize};

use crate::{Lesion, SeriesMeta, Site};

/// A lesion as the challenge marks it: one pixel of one slice.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Localizer {
    /// SOP instance UID of the slice's file.
    pub instance_uid: String,
    /// Column in pixels; 0 is the centre of the first.
    pub x: f64,
    /// Row in pixels; 0 is the centre of the first.
    pub y: f64,
    /// Frame of a multi-frame file, from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frame: Option<usize>,
    /// Site.
    pub site: Site,
}

/// The lesions of a series: the content of `truth/<uid>.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SeriesTruth {
    /// Version of this layout.
    pub schema: u32,
    /// The series.
    pub series: SeriesMeta,
    /// Lesions, LPS mm.
    pub lesions: Vec<Lesion>,
    /// The lesions as pixels, in the same order.
    pub localizers: Vec<Localizer>,
}

impl SeriesTruth {
    /// Version of the layout that this code writes.
    pub const SCHEMA: u32 = 1;
}
