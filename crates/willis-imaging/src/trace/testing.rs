//! Synthetic masks and vessel maps for tests.

use std::sync::Arc;

use willis_core::{Affine, Grid, HarmonisedVolume, Image, Point, SeriesMeta, Shape, Spacing, VesselMap, Volume};

/// A mask of the points in mm that are `inside`, on an axis-aligned grid whose first voxel is at
/// the origin.
pub fn mask(shape: Shape, spacing: Spacing, inside: impl Fn(Point) -> bool) -> Image<u8> {
    let grid = Grid::new(shape, Affine::axis_aligned(spacing, Point::new(0.0, 0.0, 0.0)));
    let at = |i: usize| u8::from(inside(grid.affine.to_world(shape.index(i).into())));
    Image::new(grid, (0..shape.len()).map(at).collect())
}

/// Distance from the segment between two points, mm.
pub fn from_segment(p: Point, a: Point, b: Point) -> f64 {
    let sub = |u: Point, v: Point| [u.x - v.x, u.y - v.y, u.z - v.z];
    let dot = |u: [f64; 3], v: [f64; 3]| u[0] * v[0] + u[1] * v[1] + u[2] * v[2];
    let (ab, ap) = (sub(b, a), sub(p, a));
    let t = (dot(ap, ab) / dot(ab, ab)).clamp(0.0, 1.0);
    p.distance_mm(Point::new(a.x + t * ab[0], a.y + t * ab[1], a.z + t * ab[2]))
}

/// A vessel map whose image is the vessel probability.
pub fn map_of(vessel: Image<f32>, aneurysm: Image<f32>, site: Image<u8>) -> VesselMap {
    let image = vessel.clone();
    let volume = Volume { image: image.clone(), meta: SeriesMeta::default(), findings: Vec::new() };
    let source =
        HarmonisedVolume { image, meta: SeriesMeta::default(), source: Arc::new(volume), findings: Vec::new() };
    VesselMap { vessel, aneurysm, site, source: Arc::new(source) }
}

/// Mask and map of a straight tube of radius 2 mm along x, with a side branch and a ball of radius
/// 4 mm at (45, 16, 10).
pub fn bulge() -> (Image<u8>, VesselMap) {
    let (a, b) = (Point::new(6.0, 16.0, 10.0), Point::new(74.0, 16.0, 10.0));
    let (c, d) = (Point::new(20.0, 16.0, 10.0), Point::new(20.0, 40.0, 10.0));
    let sac = Point::new(45.0, 16.0, 10.0);
    let inside = |p: Point| from_segment(p, a, b) <= 2.2 || from_segment(p, c, d) <= 1.6 || p.distance_mm(sac) <= 4.3;
    let image = mask(Shape::new(22, 48, 80), Spacing::isotropic(1.0), inside);
    let vessel = image.map(|&m| f32::from(m));
    let aneurysm =
        mask(image.grid.shape, Spacing::isotropic(1.0), |p| p.distance_mm(sac) <= 4.3).map(|&m| f32::from(m));
    let site = image.map(|&m| m * 3);
    (image, map_of(vessel, aneurysm, site))
}
