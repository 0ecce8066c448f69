//! Polarity of a series: whether its arteries are bright or dark, decided by the vessel net.

use willis_core::image::Image;
use willis_core::space::Index;
use willis_core::{HarmonisedVolume, Switch};
use willis_kernels::runtime::keep_threads_awake;

use super::infer::{SegmentConfig, SlidingWindows, cut, is_flat, segment_window};
use super::net::{IN_CHANNELS, SegmentNet};

/// Vessel probability from which a voxel counts as artery. The net is rarely this sure of tissue
/// that only looks like an artery in the negative of a head.
const ARTERY_PROBABILITY: f32 = 0.98;

/// Fewest windows after which the search may stop early.
///
/// The three limits of the search were set on 36 synthetic series with the embedded net: after two
/// windows every series had a ratio of at least 1.54, in favour of the same polarity as after
/// twelve windows, and at least 728 voxels in the better polarity.
const MIN_WINDOWS: usize = 2;

/// Ratio of artery voxels between the polarities from which the better one is clearly ahead.
const CLEAR_RATIO: f64 = 1.5;

/// Fewest artery voxels of the better polarity that decide anything.
pub const MIN_CLEAR_VOXELS: usize = 400;

/// Voxels that the vessel net is sure are artery, in a volume and in its negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArteryVoxels {
    /// In the volume as it is.
    pub as_is: usize,
    /// In the volume with the sign of every intensity changed.
    pub inverted: usize,
}

impl ArteryVoxels {
    /// Whether the negative shows more arteries, and enough of them to be believed.
    pub fn favours_inversion(self) -> bool {
        self.inverted > self.as_is && self.inverted >= MIN_CLEAR_VOXELS
    }

    fn is_clear(self) -> bool {
        let (fewer, more) = (self.as_is.min(self.inverted), self.as_is.max(self.inverted));
        more as f64 >= CLEAR_RATIO * fewer as f64 && more >= MIN_CLEAR_VOXELS
    }
}

/// Counts the artery voxels of a volume in both polarities.
///
/// Windows are taken without overlap, from the middle of the volume outwards, until one polarity is
/// clearly ahead. A voxel counts in every window that contains it, and so does the repeated border
/// of a volume that is smaller than a window.
pub fn arteries_by_polarity(net: &SegmentNet, volume: &HarmonisedVolume, config: &SegmentConfig) -> ArteryVoxels {
    keep_threads_awake(|| count_by_polarity(net, &volume.image, config))
}

fn count_by_polarity(net: &SegmentNet, image: &Image<f32>, config: &SegmentConfig) -> ArteryVoxels {
    let windows = SlidingWindows::new(net, image.grid.shape, &SegmentConfig { overlap: 0.0, ..config.clone() });
    let mut starts = windows.starts();
    let distance_from_middle = |start: &Index| -> usize {
        let axes = [start.z, start.y, start.x].into_iter().zip(windows.side).zip(image.grid.shape.zyx());
        axes.map(|((start, side), extent)| (2 * start + side).abs_diff(extent).pow(2)).sum()
    };
    starts.sort_by_key(distance_from_middle);
    let (mut arteries, mut windows_seen) = (ArteryVoxels { as_is: 0, inverted: 0 }, 0);
    for start in starts {
        let channels = cut(image, start, windows.side);
        let voxels = channels.len() / IN_CHANNELS;
        if is_flat(&channels[..voxels]) {
            continue;
        }
        let mut negative = channels.clone();
        negative[..voxels].iter_mut().for_each(|v| *v = -*v);
        for (count, channels) in [(&mut arteries.as_is, channels), (&mut arteries.inverted, negative)] {
            let maps = segment_window(net, channels, windows.side, Switch::Off);
            *count += maps.vessel.iter().filter(|&&p| p >= ARTERY_PROBABILITY).count();
        }
        windows_seen += 1;
        if windows_seen >= MIN_WINDOWS && arteries.is_clear() {
            break;
        }
    }
    arteries
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use willis_core::space::Shape;

    use super::super::infer::tests::image;
    use super::*;
    use crate::layers::Init;

    #[test]
    fn the_negative_exchanges_the_two_counts() {
        let net = super::super::net::tests::tiny().init(&mut Init::new(2, &Device::flex())).with_background_shift(-4.0);
        let config = SegmentConfig { window: 32, ..SegmentConfig::default() };
        let image = image(Shape::new(40, 33, 70));
        let plain = count_by_polarity(&net, &image, &config);
        assert_ne!(plain.as_is, plain.inverted);
        let negative = count_by_polarity(&net, &image.map(|v| -v), &config);
        assert_eq!(negative, ArteryVoxels { as_is: plain.inverted, inverted: plain.as_is });
    }

    #[test]
    fn only_enough_voxels_favour_inversion() {
        let favours = |as_is, inverted| ArteryVoxels { as_is, inverted }.favours_inversion();
        assert!(favours(0, MIN_CLEAR_VOXELS));
        assert!(!favours(0, MIN_CLEAR_VOXELS - 1));
        assert!(!favours(500, 500));
        assert!(favours(500, 501));
    }
}
