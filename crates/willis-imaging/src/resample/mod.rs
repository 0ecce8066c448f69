//! Resampling of images to other grids: interpolation in world space, block averages, and an
//! anti-aliasing filter.
//!
//! A position within half a voxel of an image is inside it and takes the value at the border; every
//! other position is outside. Every position is outside an image whose affine is singular. Results
//! do not depend on the number of threads.

use std::borrow::Cow;

use rayon::prelude::*;
use willis_core::{Grid, Image};

mod antialias;
mod blocks;
mod route;

pub use antialias::antialiased;

use route::{AxisTaps, Route};

/// Resamples an image to a grid by trilinear interpolation; voxels outside the image are `outside`.
pub fn linear(image: &Image<f32>, grid: &Grid, outside: f32) -> Image<f32> {
    match Route::between(&image.grid, grid) {
        Some(Route::Aligned([z_taps, y_taps, x_taps])) => fill(grid, outside, |z, y, row| {
            if let (Some(z), Some(y)) = (z_taps.get(z), y_taps.get(y)) {
                let corners = [(z.low, y.low), (z.low, y.high), (z.high, y.low), (z.high, y.high)].map(|(z, y)| z + y);
                aligned_row(&image.voxels, corners, [z.weight, y.weight], &x_taps, row);
            }
        }),
        Some(Route::Oblique(map)) => fill(grid, outside, |z, y, row| {
            for (x, value) in row.iter_mut().enumerate() {
                let [x, y, z] = map.at(z, y, x);
                let shape = &image.grid.shape;
                let taps = (
                    route::tap(z, shape.z, shape.y * shape.x),
                    route::tap(y, shape.y, shape.x),
                    route::tap(x, shape.x, 1),
                );
                if let (Some(z), Some(y), Some(x)) = taps {
                    let along_x =
                        |base: usize| blend(image.voxels[base + x.low], image.voxels[base + x.high], x.weight);
                    let along_y = |base: usize| blend(along_x(base + y.low), along_x(base + y.high), y.weight);
                    *value = blend(along_y(z.low), along_y(z.high), z.weight);
                }
            }
        }),
        None => Image::filled(*grid, outside),
    }
}

/// Resamples an image to a grid by nearest neighbour; voxels outside the image are `outside`.
pub fn nearest(image: &Image<u8>, grid: &Grid, outside: u8) -> Image<u8> {
    match Route::between(&image.grid, grid) {
        Some(Route::Aligned([z_taps, y_taps, x_taps])) => fill(grid, outside, |z, y, row| {
            if let (Some(z), Some(y)) = (z_taps.get(z), y_taps.get(y)) {
                let base = z.nearest() + y.nearest();
                for (value, x) in row[x_taps.start..].iter_mut().zip(&x_taps.taps) {
                    *value = image.voxels[base + x.nearest()];
                }
            }
        }),
        Some(Route::Oblique(map)) => fill(grid, outside, |z, y, row| {
            for (x, value) in row.iter_mut().enumerate() {
                let [x, y, z] = map.at(z, y, x);
                let shape = &image.grid.shape;
                let taps = (
                    route::tap(z, shape.z, shape.y * shape.x),
                    route::tap(y, shape.y, shape.x),
                    route::tap(x, shape.x, 1),
                );
                if let (Some(z), Some(y), Some(x)) = taps {
                    *value = image.voxels[z.nearest() + y.nearest() + x.nearest()];
                }
            }
        }),
        None => Image::filled(*grid, outside),
    }
}

/// Resamples an image to a grid by trilinear interpolation; voxels outside the image are `outside`.
///
/// To avoid aliasing, the image is first averaged over blocks of whole voxels along every axis on
/// which the grid is more than 1.5 times coarser.
pub fn area(image: &Image<f32>, grid: &Grid, outside: f32) -> Image<f32> {
    let averaged = match route::steps(&image.grid, grid) {
        // The block is the step rounded to whole voxels.
        Some(steps) if steps.iter().any(|&s| s > 1.5) => {
            Cow::Owned(blocks::mean(image, steps.map(|s| s.round().max(1.0) as usize)))
        }
        _ => Cow::Borrowed(image),
    };
    linear(&averaged, grid, outside)
}

/// Computes an image row by row, with slices in parallel; every voxel is initially `value`.
fn fill<T: Copy + Send>(grid: &Grid, value: T, row: impl Fn(usize, usize, &mut [T]) + Sync) -> Image<T> {
    let mut image = Image::filled(*grid, value);
    let shape = grid.shape;
    if !shape.is_empty() {
        image.voxels.par_chunks_mut(shape.y * shape.x).enumerate().for_each(|(z, slice)| {
            slice.chunks_mut(shape.x).enumerate().for_each(|(y, voxels)| row(z, y, voxels));
        });
    }
    image
}

/// One output row from the four image rows that start at `corners`: (z low, y low), (z low, y
/// high), (z high, y low), (z high, y high).
fn aligned_row(voxels: &[f32], corners: [usize; 4], [wz, wy]: [f32; 2], x_taps: &AxisTaps, row: &mut [f32]) {
    for (value, x) in row[x_taps.start..].iter_mut().zip(&x_taps.taps) {
        let [a, b, c, d] = corners.map(|base| blend(voxels[base + x.low], voxels[base + x.high], x.weight));
        *value = blend(blend(a, b, wy), blend(c, d, wy), wz);
    }
}

/// Linear interpolation: `low` at weight 0, `high` at weight 1.
fn blend(low: f32, high: f32, weight: f32) -> f32 {
    low + (high - low) * weight
}

#[cfg(test)]
mod tests;
