//! Sliding-window inference; needs four values per voxel besides the window itself.

use std::sync::Arc;

use burn::tensor::{Tensor, TensorData};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use willis_core::image::{HarmonisedVolume, Image, VesselMap};
use willis_core::space::{Index, Shape, VoxelPoint};
use willis_core::{InvalidValue, Site, Switch};
use willis_kernels::activation::softmax_across;
use willis_kernels::runtime::keep_threads_awake;

use super::net::{COORDINATE_MM, IN_CHANNELS, SegmentNet};
use crate::loss::segmentation::CHANNELS;
use crate::rules::require;

/// Windows of the vessel net's inference.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SegmentConfig {
    /// Side of a window in voxels, a multiple of 32, best that of the training patches. A
    /// WaveFormer has its own window size, whatever this value.
    pub window: usize,
    /// Share of a window that overlaps the next one, 0 to 0.9.
    pub overlap: f64,
    /// Whether each window is also predicted mirrored left to right and the two outputs averaged.
    /// Doubles the time.
    pub mirror: Switch,
}

impl Default for SegmentConfig {
    fn default() -> Self {
        Self { window: 64, overlap: 0.25, mirror: Switch::On }
    }
}

impl SegmentConfig {
    /// Checks every value.
    ///
    /// # Errors
    /// [`InvalidValue`] names the first value that breaks its rule.
    pub fn validate(&self) -> Result<(), InvalidValue> {
        let whole = self.window > 0 && self.window.is_multiple_of(32);
        require("window", self.window, whole, "must be a positive multiple of 32")?;
        require("overlap", self.overlap, (0.0..=0.9).contains(&self.overlap), "must lie between 0 and 0.9")
    }
}

/// Predicts vessel, aneurysm and site of every voxel of a harmonised volume.
///
/// Overlapping windows are blended with Gaussian weights. A voxel's site is taken from the window
/// in which its weight is highest.
pub fn segment(net: &SegmentNet, volume: &Arc<HarmonisedVolume>, config: &SegmentConfig) -> VesselMap {
    let maps = segment_image(net, &volume.image, config);
    let grid = volume.image.grid;
    VesselMap {
        vessel: Image::new(grid, maps.vessel),
        aneurysm: Image::new(grid, maps.aneurysm),
        site: Image::new(grid, maps.site),
        source: Arc::clone(volume),
    }
}

/// Vessel probability, aneurysm probability and site of each voxel.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct SegmentMaps {
    pub vessel: Vec<f32>,
    pub aneurysm: Vec<f32>,
    pub site: Vec<u8>,
}

pub(super) fn segment_image(net: &SegmentNet, image: &Image<f32>, config: &SegmentConfig) -> SegmentMaps {
    keep_threads_awake(|| blend_windows(net, image, config))
}

/// Predicts every window and blends the outputs.
fn blend_windows(net: &SegmentNet, image: &Image<f32>, config: &SegmentConfig) -> SegmentMaps {
    let shape = image.grid.shape;
    let n = shape.len();
    let mut maps = SegmentMaps { vessel: vec![0.0; n], aneurysm: vec![0.0; n], site: vec![0; n] };
    let (mut total, mut highest) = (vec![0.0f32; n], vec![0.0f32; n]);
    let windows = SlidingWindows::new(net, shape, config);
    let window = windows.side;
    let weights = window.map(gaussian);
    for start in windows.starts() {
        let channels = cut(image, start, window);
        if is_flat(&channels[..window.iter().product()]) {
            continue;
        }
        let found = segment_window(net, channels, window, config.mirror);
        for (wz, &weight_z) in weights[0].iter().enumerate().take(shape.z - start.z) {
            for (wy, &weight_y) in weights[1].iter().enumerate().take(shape.y - start.y) {
                for (wx, &weight_x) in weights[2].iter().enumerate().take(shape.x - start.x) {
                    let to = shape.offset(Index::new(start.z + wz, start.y + wy, start.x + wx));
                    let from = (wz * window[1] + wy) * window[2] + wx;
                    let weight = weight_z * weight_y * weight_x;
                    total[to] += weight;
                    maps.vessel[to] += weight * found.vessel[from];
                    maps.aneurysm[to] += weight * found.aneurysm[from];
                    if weight > highest[to] {
                        highest[to] = weight;
                        maps.site[to] = found.site[from];
                    }
                }
            }
        }
    }
    let SegmentMaps { vessel, aneurysm, site } = &mut maps;
    for ((v, a), (s, w)) in vessel.iter_mut().zip(aneurysm).zip(site.iter_mut().zip(total)) {
        let w = w.max(f32::MIN_POSITIVE);
        (*v, *a) = ((*v / w).clamp(0.0, 1.0), (*a / w).clamp(0.0, 1.0));
        // The net predicts a site everywhere; it is kept where "artery" is at least as probable as
        // not.
        if *v < 0.5 {
            *s = 0;
        }
    }
    maps
}

/// Windows of one size that cover a volume.
pub(super) struct SlidingWindows {
    pub side: [usize; 3],
    starts: [Vec<usize>; 3],
}

impl SlidingWindows {
    pub fn new(net: &SegmentNet, shape: Shape, config: &SegmentConfig) -> Self {
        let side = match net.window() {
            Some(side) => [side; 3],
            None => shape.zyx().map(|extent| side_along(extent, config)),
        };
        Self { side, starts: [0, 1, 2].map(|axis| starts(shape.zyx()[axis], side[axis], config.overlap)) }
    }

    /// First voxel of each window.
    pub fn starts(&self) -> Vec<Index> {
        let [zs, ys, xs] = &self.starts;
        let rows = zs.iter().flat_map(|&z| ys.iter().map(move |&y| (z, y)));
        rows.flat_map(|(z, y)| xs.iter().map(move |&x| Index::new(z, y, x))).collect()
    }
}

/// Side of a window along an axis: the configured one, or the extent rounded up to a multiple of 32
/// if that is smaller.
fn side_along(extent: usize, config: &SegmentConfig) -> usize {
    config.window.min(extent.next_multiple_of(32))
}

/// First voxels of the windows along an axis, evenly spaced; the last window ends at the border.
fn starts(extent: usize, window: usize, overlap: f64) -> Vec<usize> {
    let last = extent.saturating_sub(window);
    let step = (window as f64 * (1.0 - overlap)) as usize;
    let count = last.div_ceil(step);
    (0..=count).map(|i| (i * last).checked_div(count).unwrap_or(0)).collect()
}

/// Gaussian weights along an axis, with a standard deviation of a quarter of the window.
fn gaussian(window: usize) -> Vec<f32> {
    let middle = (window as f32 - 1.0) / 2.0;
    let weight = |i: usize| (-0.5 * ((i as f32 - middle) / (window as f32 / 4.0)).powi(2)).exp();
    (0..window).map(weight).collect()
}

/// Input channels of a window `[4, D, H, W]`; outside the volume its border voxels are repeated.
pub(super) fn cut(image: &Image<f32>, start: Index, window: [usize; 3]) -> Vec<f32> {
    let (shape, affine, centre) = (image.grid.shape, image.grid.affine, image.grid.centre());
    let [nz, ny, nx] = window;
    let voxels = nz * ny * nx;
    let mut channels = vec![0.0f32; IN_CHANNELS * voxels];
    let mut planes: Vec<Vec<&mut [f32]>> = (0..nz).map(|_| Vec::with_capacity(IN_CHANNELS)).collect();
    for channel in channels.chunks_mut(voxels) {
        planes.iter_mut().zip(channel.chunks_mut(ny * nx)).for_each(|(planes, plane)| planes.push(plane));
    }
    planes.into_par_iter().enumerate().for_each(|(wz, mut plane)| {
        for wy in 0..ny {
            for wx in 0..nx {
                let (z, y, x) = (start.z + wz, start.y + wy, start.x + wx);
                let inside = Index::new(z.min(shape.z - 1), y.min(shape.y - 1), x.min(shape.x - 1));
                let at = wy * nx + wx;
                plane[0][at] = *image.at(inside);
                let p = affine.to_world(VoxelPoint::new(z as f64, y as f64, x as f64));
                let offset = [p.x - centre.x, p.y - centre.y, p.z - centre.z];
                for (channel, mm) in plane[1..].iter_mut().zip(offset) {
                    channel[at] = (mm / COORDINATE_MM) as f32;
                }
            }
        }
    });
    channels
}

/// Whether a window has one value everywhere, as air and padding do.
pub(super) fn is_flat(image: &[f32]) -> bool {
    image.iter().all(|v| (v - image[0]).abs() < 1e-3)
}

/// Predicts a window from its channels `[4, D, H, W]`.
pub(super) fn segment_window(
    net: &SegmentNet,
    mut channels: Vec<f32>,
    window: [usize; 3],
    mirror: Switch,
) -> SegmentMaps {
    let [d, h, w] = window;
    let voxels = d * h * w;
    let views = if mirror == Switch::On { 2 } else { 1 };
    if mirror == Switch::On {
        let mirrored = mirrored(&channels, w);
        channels.extend(mirrored);
    }
    let x = Tensor::from_data(TensorData::new(channels, [views, IN_CHANNELS, d, h, w]), &net.device());
    let logits = net.forward(x).into_data().convert::<f32>().try_into_vec().expect("logits were just converted to f32");
    decode(if mirror == Switch::On { averaged(logits, voxels, w) } else { logits }, voxels)
}

/// Channels of the mirrored head: rows reversed, and the sign of the x coordinate changed.
fn mirrored(channels: &[f32], width: usize) -> Vec<f32> {
    let mut mirrored = channels.to_vec();
    mirrored.chunks_exact_mut(width).for_each(<[f32]>::reverse);
    let voxels = channels.len() / IN_CHANNELS;
    mirrored[voxels..2 * voxels].iter_mut().for_each(|x| *x = -*x);
    mirrored
}

/// Mean of the logits of a window and of its mirror image `[2, 15, N]` -> `[15, N]`. The rows of
/// the mirror image are reversed and its left and right sites exchanged.
fn averaged(mut logits: Vec<f32>, voxels: usize, width: usize) -> Vec<f32> {
    let (plain, other) = logits.split_at_mut(CHANNELS * voxels);
    plain.par_chunks_exact_mut(voxels).enumerate().for_each(|(channel, mean)| {
        let swapped = Site::from_mask_value(channel as u8).map_or(channel, |site| site.mirror().mask_value().into());
        let other = &other[swapped * voxels..][..voxels];
        for (mean, other) in mean.chunks_exact_mut(width).zip(other.chunks_exact(width)) {
            mean.iter_mut().zip(other.iter().rev()).for_each(|(a, b)| *a = 0.5 * (*a + b));
        }
    });
    logits.truncate(CHANNELS * voxels);
    logits
}

/// Voxels decoded by one task.
const RUN: usize = 4096;

/// Logits `[15, N]` -> probabilities of vessel and aneurysm, and the most probable site.
fn decode(mut logits: Vec<f32>, voxels: usize) -> SegmentMaps {
    let mut maps = SegmentMaps { vessel: vec![0.0; voxels], aneurysm: vec![0.0; voxels], site: vec![1; voxels] };
    let mut runs: Vec<Vec<&mut [f32]>> = Vec::new();
    runs.resize_with(voxels.div_ceil(RUN), || Vec::with_capacity(CHANNELS));
    for row in logits.chunks_exact_mut(voxels) {
        runs.iter_mut().zip(row.chunks_mut(RUN)).for_each(|(run, part)| run.push(part));
    }
    let of_runs =
        maps.vessel.par_chunks_mut(RUN).zip(maps.aneurysm.par_chunks_mut(RUN)).zip(maps.site.par_chunks_mut(RUN));
    runs.into_par_iter().zip(of_runs).for_each(|(mut rows, ((vessel, aneurysm), site))| {
        let (lesion, classes) = rows.split_last_mut().expect("fifteen channels");
        softmax_across(classes);
        let mut highest = classes[1].to_vec();
        for (class, row) in (1..).zip(&classes[1..]) {
            for (((&p, highest), site), vessel) in row.iter().zip(&mut highest).zip(&mut *site).zip(&mut *vessel) {
                *vessel += p;
                (*highest, *site) = if p > *highest { (p, class) } else { (*highest, *site) };
            }
        }
        // The sigmoid of x is the softmax of x against 0.
        softmax_across(&mut [&mut *lesion, &mut vec![0.0; site.len()]]);
        aneurysm.copy_from_slice(lesion);
    });
    maps
}

/// Number of windows that cover a volume, for estimates of time.
pub fn window_count(shape: Shape, config: &SegmentConfig) -> usize {
    let along = |extent: usize| starts(extent, side_along(extent, config), config.overlap).len();
    shape.zyx().into_iter().map(along).product()
}

#[cfg(test)]
pub(super) mod tests {
    use willis_core::space::{Affine, Grid, Point, Spacing};

    use burn::tensor::Device;

    use super::*;
    use crate::layers::Init;
    use crate::loss::segmentation::CLASSES;

    pub fn image(shape: Shape) -> Image<f32> {
        let grid = Grid::new(shape, Affine::axis_aligned(Spacing::isotropic(0.6), Point::new(0.0, 0.0, 0.0)));
        Image::new(grid, (0..shape.len()).map(|i| (i % 97) as f32 / 97.0).collect())
    }

    fn tiny() -> SegmentNet {
        super::super::net::tests::tiny().init(&mut Init::new(2, &Device::flex()))
    }

    #[test]
    fn windows_cover_every_voxel() {
        assert_eq!(starts(96, 96, 0.25), [0]);
        assert_eq!(starts(20, 32, 0.25), [0]);
        assert_eq!(starts(100, 32, 0.5), [0, 13, 27, 40, 54, 68]);
        for extent in 1..200 {
            let starts = starts(extent, 32, 0.25);
            assert!(starts.windows(2).all(|pair| pair[1] > pair[0] && pair[1] - pair[0] <= 24));
            assert!(starts[starts.len() - 1] + 32 >= extent);
        }
    }

    #[test]
    fn invalid_values_are_named() {
        SegmentConfig::default().validate().unwrap();
        for (config, message) in [
            (SegmentConfig { window: 0, ..SegmentConfig::default() }, "window = 0 must be a positive multiple of 32"),
            (SegmentConfig { window: 40, ..SegmentConfig::default() }, "window = 40 must be a positive multiple of 32"),
            (SegmentConfig { overlap: 1.0, ..SegmentConfig::default() }, "overlap = 1 must lie between 0 and 0.9"),
        ] {
            assert_eq!(config.validate().unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn decoding_by_hand() {
        let mut logits = vec![0.0; CHANNELS];
        logits[7] = 2.0;
        logits[CLASSES] = -1.0;
        let maps = decode(logits, 1);
        let sites = 12.0 + 2f32.exp();
        assert!((maps.vessel[0] - sites / (sites + 1.0)).abs() < 1e-6);
        assert!((maps.aneurysm[0] - 1.0 / (1.0 + 1f32.exp())).abs() < 1e-6);
        assert_eq!(maps.site, [7]);
    }

    #[test]
    fn any_shape_is_segmented_and_the_thread_count_changes_nothing() {
        let net = tiny();
        let config = SegmentConfig { window: 32, ..SegmentConfig::default() };
        let image = image(Shape::new(20, 40, 33));
        let with_threads = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| segment_image(&net, &image, &config))
        };
        let maps = with_threads(1);
        assert_eq!(maps.vessel.len(), image.voxels.len());
        for probability in [&maps.vessel, &maps.aneurysm] {
            let range = |pick: fn(f32, f32) -> f32| probability.iter().copied().reduce(pick).unwrap();
            let (low, high) = (range(f32::min), range(f32::max));
            assert!(0.0 < low && low + 1e-3 < high && high < 1.0, "from {low} to {high}");
        }
        assert_eq!(maps, with_threads(3));
    }

    #[test]
    fn a_mirrored_head_gives_the_mirrored_maps() {
        let net = tiny();
        let config = SegmentConfig { window: 32, mirror: Switch::On, ..SegmentConfig::default() };
        let image = image(Shape::new(32, 32, 32));
        let mut mirror = image.clone();
        mirror.voxels.chunks_exact_mut(32).for_each(<[f32]>::reverse);
        let (maps, mut other) = (segment_image(&net, &image, &config), segment_image(&net, &mirror, &config));
        other.vessel.chunks_exact_mut(32).for_each(<[f32]>::reverse);
        other.site.chunks_exact_mut(32).for_each(<[u8]>::reverse);
        let same = maps.vessel.iter().zip(&other.vessel).all(|(a, b)| (a - b).abs() < 1e-4);
        assert!(
            same && maps.vessel != segment_image(&net, &image, &SegmentConfig { mirror: Switch::Off, ..config }).vessel
        );
        for (site, other) in maps.site.iter().zip(&other.site) {
            assert_eq!(*other, Site::from_mask_value(*site).map_or(0, |site| site.mirror().mask_value()));
        }
    }

    #[test]
    fn air_is_background() {
        let air = image(Shape::new(32, 32, 32)).map(|_| -1.0);
        let maps = segment_image(&tiny(), &air, &SegmentConfig::default());
        assert!(maps.vessel.iter().all(|&p| p == 0.0) && maps.site.iter().all(|&s| s == 0));
    }
}
