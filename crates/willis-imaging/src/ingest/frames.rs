//! The compressed stream of each frame, joined from its fragments (PS3.5 annex A.4).

use std::borrow::Cow;
use std::ops::Range;

use super::streams::starts_stream;

/// Why the streams of frames cannot be told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum FrameError {
    #[error("a frame is missing")]
    Missing,
    #[error("its frames cannot be told apart without an offset table")]
    NoOffsets,
}

/// How the fragments of a file are divided into frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Division {
    /// One frame, one fragment for each frame, or by an offset table.
    Stated,
    /// By the fragments that begin a stream.
    ByStreams,
}

/// The compressed bytes of one frame of `frames`.
///
/// # Errors
/// [`FrameError`] when the frame is not there.
pub(super) fn frame_stream<'a>(
    data: &'a [u8],
    offsets: &[u64],
    fragments: &[Range<usize>],
    frame: usize,
    frames: usize,
) -> Result<(Cow<'a, [u8]>, Division), FrameError> {
    let (own, division) = if frames == 1 {
        (fragments, Division::Stated)
    } else if fragments.len() == frames {
        (fragments.get(frame..=frame).unwrap_or_default(), Division::Stated)
    } else if let Some(own) = by_offsets(offsets, fragments, frame, frames) {
        (own, Division::Stated)
    } else {
        (by_streams(data, fragments, frame, frames)?, Division::ByStreams)
    };
    let stream = match own {
        [] => return Err(FrameError::Missing),
        [whole] => Cow::Borrowed(&data[whole.clone()]),
        parts => Cow::Owned(parts.iter().flat_map(|r| &data[r.clone()]).copied().collect()),
    };
    Ok((stream, division))
}

/// Fragments of a frame by the offset table; `None` if the offsets are not those of fragments.
fn by_offsets<'a>(
    offsets: &[u64],
    fragments: &'a [Range<usize>],
    frame: usize,
    frames: usize,
) -> Option<&'a [Range<usize>]> {
    if offsets.len() != frames {
        return None;
    }
    // Offsets count from the item header of the first fragment.
    let origin = fragments.first()?.start;
    let index = |offset: u64| fragments.binary_search_by_key(&offset, |f| (f.start - origin) as u64).ok();
    let from = index(offsets[frame])?;
    let to = offsets.get(frame + 1).map_or(Some(fragments.len()), |&offset| index(offset))?;
    fragments.get(from..to).filter(|own| !own.is_empty())
}

/// Fragments of a frame when each frame begins with the signature of its compression.
fn by_streams<'a>(
    data: &[u8],
    fragments: &'a [Range<usize>],
    frame: usize,
    frames: usize,
) -> Result<&'a [Range<usize>], FrameError> {
    let mut starts: Vec<usize> = (0..fragments.len()).filter(|&i| starts_stream(&data[fragments[i].clone()])).collect();
    if starts.len() != frames {
        return Err(FrameError::NoOffsets);
    }
    starts.push(fragments.len());
    fragments.get(starts[frame]..starts[frame + 1]).ok_or(FrameError::Missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fragments_are_joined_by_the_offset_table() {
        let data: Vec<u8> = (0..60).collect();
        let fragments = [8..10, 18..20, 28..30];
        let stream = |frame| frame_stream(&data, &[0, 20], &fragments, frame, 2).map(|(stream, _)| stream.to_vec());
        assert_eq!(stream(0), Ok(vec![8, 9, 18, 19]));
        assert_eq!(stream(1), Ok(vec![28, 29]));
    }

    #[test]
    fn fragments_are_joined_by_the_starts_of_streams() {
        let mut data = vec![0u8; 60];
        for start in [8, 38] {
            data[start..start + 4].copy_from_slice(&[0xff, 0xd8, 0xff, 0xf7]);
        }
        let fragments = [8..12, 20..22, 38..42];
        // An absent table, and one that points at no fragment.
        for offsets in [&[][..], &[0, 17]] {
            let frame = |frame| frame_stream(&data, offsets, &fragments, frame, 2).map(|(s, d)| (s.len(), d));
            assert_eq!(frame(0), Ok((6, Division::ByStreams)));
            assert_eq!(frame(1), Ok((4, Division::ByStreams)));
        }
        assert_eq!(frame_stream(&data, &[], &[8..12, 20..22, 24..25], 0, 2).unwrap_err(), FrameError::NoOffsets);
    }
}
