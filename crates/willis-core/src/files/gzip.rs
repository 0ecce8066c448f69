//! Writing gzip streams on all cores.
//!
//! The content is cut into chunks that are deflated in parallel and joined into one stream, which
//! every reader of gzip understands. The bytes do not depend on the number of threads.
//!
//! # Source
//! RFC 1951 and RFC 1952; the method is that of pigz (Mark Adler).

use std::io::{self, Write};

use flate2::{Compress, Compression, Crc, FlushCompress};
use rayon::prelude::*;

/// Uncompressed bytes of a chunk. A chunk does not refer to the content before it, which costs
/// less than a thousandth of its size.
const CHUNK: usize = 1 << 20;
/// Chunks that are kept before they are deflated together.
const CHUNKS: usize = 16;
/// Deflate, no flags, no time, unknown system (RFC 1952 section 2.3).
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
/// The last block of a stream, which is empty.
const LAST_BLOCK: [u8; 2] = [3, 0];

/// A gzip stream that is being written; [`Self::finish`] completes it.
pub(super) struct GzipWriter<W: Write> {
    writer: W,
    level: Compression,
    pending: Vec<u8>,
    checksum: Crc,
}

impl<W: Write> GzipWriter<W> {
    /// Starts a stream.
    pub fn new(mut writer: W, level: Compression) -> io::Result<Self> {
        writer.write_all(&HEADER)?;
        Ok(Self { writer, level, pending: Vec::new(), checksum: Crc::new() })
    }

    /// Deflates and writes what is pending.
    fn write_pending(&mut self) -> io::Result<()> {
        let level = self.level;
        let deflated: Vec<io::Result<(Vec<u8>, Crc)>> =
            self.pending.par_chunks(CHUNK).map(|chunk| deflate(chunk, level)).collect();
        for chunk in deflated {
            let (bytes, checksum) = chunk?;
            self.writer.write_all(&bytes)?;
            self.checksum.combine(&checksum);
        }
        self.pending.clear();
        Ok(())
    }

    /// Ends the stream.
    pub fn finish(mut self) -> io::Result<()> {
        self.write_pending()?;
        self.writer.write_all(&LAST_BLOCK)?;
        self.writer.write_all(&self.checksum.sum().to_le_bytes())?;
        self.writer.write_all(&self.checksum.amount().to_le_bytes())
    }
}

impl<W: Write> Write for GzipWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = CHUNK * CHUNKS - self.pending.len();
        let taken = &bytes[..bytes.len().min(room)];
        self.pending.extend_from_slice(taken);
        if taken.len() == room {
            self.write_pending()?;
        }
        Ok(taken.len())
    }

    /// Does nothing: a stream is complete after [`Self::finish`] alone.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A chunk as deflate blocks that end at a byte, and its checksum.
fn deflate(chunk: &[u8], level: Compression) -> io::Result<(Vec<u8>, Crc)> {
    let mut checksum = Crc::new();
    checksum.update(chunk);
    let mut compress = Compress::new(level, false);
    let mut bytes = Vec::with_capacity(chunk.len() / 2 + 1024);
    loop {
        let rest = &chunk[compress.total_in() as usize..];
        compress.compress_vec(rest, &mut bytes, FlushCompress::Sync).map_err(io::Error::other)?;
        // Room that is left means that nothing more is to come.
        if compress.total_in() as usize == chunk.len() && bytes.len() < bytes.capacity() {
            return Ok((bytes, checksum));
        }
        bytes.reserve(chunk.len() / 4 + 1024);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    /// Content that deflates well, then hardly at all.
    fn content(length: usize) -> Vec<u8> {
        let noise = |i: u64| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8;
        (0..length as u64).map(|i| if i % 5_000_000 < 2_500_000 { (i / 1000) as u8 } else { noise(i) }).collect()
    }

    fn zipped(content: &[u8], piece: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut writer = GzipWriter::new(&mut bytes, Compression::new(3)).unwrap();
        content.chunks(piece).for_each(|part| writer.write_all(part).unwrap());
        writer.finish().unwrap();
        bytes
    }

    #[test]
    fn the_stream_is_one_member_that_holds_the_content() {
        for length in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, CHUNK * CHUNKS, CHUNK * CHUNKS + 7] {
            let content = content(length);
            let bytes = zipped(&content, 100_000);
            // A decoder of a single member, which checks the checksum and leaves what follows.
            let mut rest = &bytes[..];
            let mut decoder = flate2::bufread::GzDecoder::new(&mut rest);
            let mut back = Vec::new();
            decoder.read_to_end(&mut back).unwrap();
            assert!(back == content && rest.is_empty(), "{length}");
        }
    }

    #[test]
    fn the_bytes_depend_on_the_content_alone() {
        let content = content(CHUNK * 3 / 2);
        let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        let alone = one.install(|| zipped(&content, usize::MAX));
        assert!(alone == zipped(&content, 12_345));
        assert!(alone.len() < content.len() * 3 / 4, "{}", alone.len());
    }
}
