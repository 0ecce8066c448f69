//! Pictures of the report: projections, slices and the vessel graph. This module draws; it computes
//! no result.

use std::fmt::Write as _;
use std::io::Cursor;

use base64::Engine as _;
use image::{ImageFormat, RgbImage};
use willis_core::{Candidate, Image, Index, Point, Site, VesselMap};

/// Direction of view, with the axes of the picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum View {
    /// From below: x to the right, y down.
    Axial,
    /// From the front: x to the right, z up.
    Coronal,
    /// From the patient's left: y to the right, z up.
    Sagittal,
}

impl View {
    /// Every view.
    pub const ALL: [View; 3] = [View::Axial, View::Coronal, View::Sagittal];

    /// Name for a caption.
    pub const fn name(self) -> &'static str {
        match self {
            View::Axial => "axial",
            View::Coronal => "coronal",
            View::Sagittal => "sagittal",
        }
    }

    /// Letters at the left and right border of the picture: the patient's sides.
    pub const fn sides(self) -> (&'static str, &'static str) {
        match self {
            View::Axial | View::Coronal => ("R", "L"),
            View::Sagittal => ("A", "P"),
        }
    }
}

/// A picture with its size in the patient.
pub struct Picture {
    /// `data:image/png;base64,...`
    pub data_url: String,
    /// Width, mm.
    pub width_mm: f64,
    /// Height, mm.
    pub height_mm: f64,
}

/// A patient-aligned image seen as a stack of planes perpendicular to a view.
struct ViewPlanes {
    view: View,
    shape: [usize; 3],
    spacing: [f64; 3],
    origin: Point,
}

impl ViewPlanes {
    fn of<T>(view: View, image: &Image<T>) -> Self {
        let grid = &image.grid;
        let origin = grid.affine.to_world(willis_core::VoxelPoint::new(0.0, 0.0, 0.0));
        Self { view, shape: grid.shape.zyx(), spacing: grid.spacing().zyx(), origin }
    }

    /// Columns, rows and depth of the view.
    fn size(&self) -> (usize, usize, usize) {
        let [z, y, x] = self.shape;
        match self.view {
            View::Axial => (x, y, z),
            View::Coronal => (x, z, y),
            View::Sagittal => (y, z, x),
        }
    }

    fn pixel_mm(&self) -> (f64, f64) {
        let [z, y, x] = self.spacing;
        match self.view {
            View::Axial => (x, y),
            View::Coronal => (x, z),
            View::Sagittal => (y, z),
        }
    }

    fn index(&self, column: usize, row: usize, depth: usize) -> Index {
        let up = |row: usize| self.shape[0] - 1 - row;
        match self.view {
            View::Axial => Index::new(depth, row, column),
            View::Coronal => Index::new(up(row), depth, column),
            View::Sagittal => Index::new(up(row), column, depth),
        }
    }

    /// Millimetres from the top left corner of the picture.
    fn project(&self, p: Point) -> (f64, f64) {
        let (dx, dy, dz) = (p.x - self.origin.x, p.y - self.origin.y, p.z - self.origin.z);
        let up = self.shape[0] as f64 * self.spacing[0] - dz - 0.5 * self.spacing[0];
        match self.view {
            View::Axial => (dx + 0.5 * self.spacing[2], dy + 0.5 * self.spacing[1]),
            View::Coronal => (dx + 0.5 * self.spacing[2], up),
            View::Sagittal => (dy + 0.5 * self.spacing[1], up),
        }
    }
}

/// Projection along a view: the maximum of the vessel probability along each ray, over the mean
/// intensity in grey.
pub fn projection(map: &VesselMap, view: View) -> Picture {
    picture_of(projection_image(map, view).0, ViewPlanes::of(view, &map.vessel).pixel_mm())
}

/// Millimetres from the top left corner of a projection.
pub fn project(map: &VesselMap, view: View, point: Point) -> (f64, f64) {
    ViewPlanes::of(view, &map.vessel).project(point)
}

/// The pixels of a projection, with its width and height in mm.
pub fn projection_image(map: &VesselMap, view: View) -> (RgbImage, [f64; 2]) {
    let planes = ViewPlanes::of(view, &map.vessel);
    let (columns, rows, depth) = planes.size();
    let intensity = &map.source.image;
    let mut mean = vec![0.0f32; columns * rows];
    let mut brightest = vec![0.0f32; columns * rows];
    for row in 0..rows {
        for column in 0..columns {
            let (mut sum, mut peak) = (0.0, 0.0f32);
            for d in 0..depth {
                let index = planes.index(column, row, d);
                sum += intensity.at(index).clamp(-1.0, 2.0);
                peak = peak.max(*map.vessel.at(index));
            }
            mean[row * columns + column] = sum / depth.max(1) as f32;
            brightest[row * columns + column] = peak;
        }
    }
    let (low, high) = range(&mean);
    let picture = RgbImage::from_fn(columns as u32, rows as u32, |c, r| {
        let i = r as usize * columns + c as usize;
        let grey = 70.0 * (mean[i] - low) / (high - low).max(1e-6);
        let glow = ((brightest[i] - 0.15) / 0.85).clamp(0.0, 1.0);
        let blend = |colour: f32| (grey * (1.0 - glow) + colour * glow).clamp(0.0, 255.0) as u8;
        image::Rgb([blend(255.0), blend(196.0), blend(120.0)])
    });
    let (x_mm, y_mm) = planes.pixel_mm();
    (picture, [columns as f64 * x_mm, rows as f64 * y_mm])
}

/// Width and height of a slice through a candidate, mm.
pub const SLICE_MM: f64 = 40.0;
/// Width and height of a slice in the report, pixels.
const SLICE_PIXELS: u32 = 160;

/// A square slice through a point, with the border of the vessel map.
pub fn slice(map: &VesselMap, view: View, centre: Point) -> Picture {
    let step = SLICE_MM / f64::from(SLICE_PIXELS);
    picture_of(slice_image(map, view, centre, SLICE_PIXELS), (step, step))
}

/// The pixels of a slice of [`SLICE_MM`].
pub fn slice_image(map: &VesselMap, view: View, centre: Point, pixels: u32) -> RgbImage {
    let image = &map.source.image;
    let inverse = image.grid.affine.inverse().expect("a harmonised grid is never singular");
    let step = SLICE_MM / f64::from(pixels);
    let sample = |c: i64, r: i64| {
        let a = (c as f64 + 0.5) * step - SLICE_MM / 2.0;
        let b = (r as f64 + 0.5) * step - SLICE_MM / 2.0;
        let p = match view {
            View::Axial => Point::new(centre.x + a, centre.y + b, centre.z),
            View::Coronal => Point::new(centre.x + a, centre.y, centre.z - b),
            View::Sagittal => Point::new(centre.x, centre.y + a, centre.z - b),
        };
        let v = inverse.apply(p);
        image.grid.shape.contains(v).then(|| image.grid.shape.nearest(v))
    };
    let vessel = |c: i64, r: i64| sample(c, r).is_some_and(|i| *map.vessel.at(i) >= 0.5);
    RgbImage::from_fn(pixels, pixels, |c, r| {
        let (c, r) = (i64::from(c), i64::from(r));
        let Some(index) = sample(c, r) else { return image::Rgb([0, 0, 0]) };
        let grey = (255.0 * (image.at(index) + 1.5) / 5.0).clamp(0.0, 255.0) as u8;
        let inside = vessel(c, r);
        let border = inside && !(vessel(c - 1, r) && vessel(c + 1, r) && vessel(c, r - 1) && vessel(c, r + 1));
        if border { image::Rgb([255, 150, 60]) } else { image::Rgb([grey, grey, grey]) }
    })
}

/// SVG circles with rank numbers at the candidates, in the millimetres of [`projection`].
pub fn candidate_marks(map: &VesselMap, view: View, candidates: &[Candidate]) -> String {
    let planes = ViewPlanes::of(view, &map.vessel);
    let mut svg = String::new();
    for candidate in candidates.iter().rev() {
        let (x, y) = planes.project(candidate.centre);
        let radius = (candidate.diameter_mm / 2.0 + 1.5).clamp(2.5, 14.0);
        let strength = 0.45 + 0.55 * candidate.probability;
        let _ = write!(
            svg,
            "<circle cx='{x:.1}' cy='{y:.1}' r='{radius:.1}' class='mark' opacity='{strength:.2}'/>\
             <text x='{:.1}' y='{:.1}' class='rank' opacity='{strength:.2}'>{}</text>",
            x + radius + 0.6,
            y - radius * 0.5,
            candidate.rank
        );
    }
    svg
}

/// Colour of a site, the same for left and right; grey without a site.
pub fn site_colour(site: Option<Site>) -> &'static str {
    match site {
        None => "#8a8f98",
        Some(Site::LeftInfraclinoidIca | Site::RightInfraclinoidIca) => "#b5543a",
        Some(Site::LeftSupraclinoidIca | Site::RightSupraclinoidIca) => "#e2803c",
        Some(Site::LeftMca | Site::RightMca) => "#3f8fd2",
        Some(Site::Acom) => "#b86bd0",
        Some(Site::LeftAca | Site::RightAca) => "#7d6be0",
        Some(Site::LeftPcom | Site::RightPcom) => "#d9a520",
        Some(Site::BasilarTip) => "#2fa36b",
        Some(Site::OtherPosterior) => "#3aa6a0",
    }
}

/// Red, green and blue of [`site_colour`].
pub fn site_rgb(site: Option<Site>) -> [u8; 3] {
    let digits = u32::from_str_radix(&site_colour(site)[1..], 16).expect("colours are hexadecimal");
    [(digits >> 16) as u8, (digits >> 8) as u8, digits as u8]
}

/// The 0.5th and 99.5th percentile.
fn range(values: &[f32]) -> (f32, f32) {
    let mut sorted = values.to_vec();
    sorted.sort_by(f32::total_cmp);
    let at = |q: f64| sorted.get(((sorted.len().saturating_sub(1)) as f64 * q) as usize).copied().unwrap_or(0.0);
    (at(0.005), at(0.995))
}

fn picture_of(picture: RgbImage, (pixel_x_mm, pixel_y_mm): (f64, f64)) -> Picture {
    let (width, height) = picture.dimensions();
    let mut png = Cursor::new(Vec::new());
    picture.write_to(&mut png, ImageFormat::Png).expect("writing a PNG to memory cannot fail");
    let encoded = base64::engine::general_purpose::STANDARD.encode(png.into_inner());
    Picture {
        data_url: format!("data:image/png;base64,{encoded}"),
        width_mm: f64::from(width) * pixel_x_mm,
        height_mm: f64::from(height) * pixel_y_mm,
    }
}
