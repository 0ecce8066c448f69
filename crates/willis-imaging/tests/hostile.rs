//! Hostile and damaged files: no panic, no hang, and little memory. This test has a process of its
//! own because it measures the peak memory of the process.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError, mpsc};
use std::time::Duration;

use willis_imaging::ingest::{IngestConfig, ingest};

/// Held by the test that is running, so that each measures its own memory.
static ALONE: Mutex<()> = Mutex::new(());
/// Maximum growth of the peak memory, KiB.
const MAX_GROWTH_KIB: u64 = 256 << 10;
/// Far longer than any case takes.
const HANG: Duration = Duration::from_secs(60);
const MUTATIONS: u64 = 2000;

/// Peak resident memory of this process, KiB; `None` where the system does not report it.
fn peak_kib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok())
}

/// Reads on a thread of its own; fails when reading panics or does not return. Whether a volume was
/// made.
fn read(path: &Path, what: &str) -> bool {
    let (send, receive) = mpsc::channel();
    let path = path.to_path_buf();
    let thread = std::thread::spawn(move || {
        let config = IngestConfig { max_voxels: 1 << 24, min_slices: 1, ..IngestConfig::default() };
        let _ = send.send(ingest(&path, &config).is_ok());
    });
    let outcome = receive.recv_timeout(HANG);
    assert!(!matches!(outcome, Err(mpsc::RecvTimeoutError::Timeout)), "{what}: reading does not return");
    thread.join().unwrap_or_else(|_| panic!("{what}: reading panicked"));
    outcome.expect("the thread sent its outcome")
}

/// An element of explicit VR with a length of 32 bits.
fn long(tag: [u16; 2], vr: &[u8; 2], length: u32, value: &[u8]) -> Vec<u8> {
    [&tag[0].to_le_bytes()[..], &tag[1].to_le_bytes(), vr, &[0, 0], &length.to_le_bytes(), value].concat()
}

/// An element of explicit VR with a length of 16 bits.
fn short(tag: [u16; 2], vr: &[u8; 2], value: &[u8]) -> Vec<u8> {
    let length = (value.len() as u16).to_le_bytes();
    [&tag[0].to_le_bytes()[..], &tag[1].to_le_bytes(), vr, &length, value].concat()
}

/// A slice of `rows` and `columns` with the given pixel data, and `extra` elements before it.
fn slice(syntax: &str, z: usize, size: [u16; 2], extra: &[u8], pixels: &[u8]) -> Vec<u8> {
    let mut file = [&[0; 128], &b"DICM"[..], &short([2, 0x10], b"UI", syntax.as_bytes())].concat();
    let position = format!("0\\0\\{z:04}");
    let number = |element, value: u16| short([0x28, element], b"US", &value.to_le_bytes());
    for element in [
        short([0x08, 0x60], b"CS", b"CT"),
        extra.to_vec(),
        short([0x20, 0x32], b"DS", position.as_bytes()),
        short([0x20, 0x37], b"DS", b"1\\0\\0\\0\\1\\0 "),
        number(0x02, 1),
        short([0x28, 0x04], b"CS", b"MONOCHROME2 "),
        number(0x10, size[0]),
        number(0x11, size[1]),
        short([0x28, 0x30], b"DS", b"1\\1 "),
        number(0x100, 16),
        number(0x101, 16),
        pixels.to_vec(),
    ] {
        file.extend(element);
    }
    file
}

fn encapsulated(fragments: &[&[u8]]) -> Vec<u8> {
    let item = |bytes: &[u8]| [b"\xfe\xff\x00\xe0", &(bytes.len() as u32).to_le_bytes()[..], bytes].concat();
    let items: Vec<u8> = fragments.iter().flat_map(|f| item(f)).collect();
    [long([0x7fe0, 0x10], b"OB", u32::MAX, &item(&[])), items, b"\xfe\xff\xdd\xe0\0\0\0\0".to_vec()].concat()
}

/// Files whose sizes promise far more than they hold. All but those that end well are refused.
fn hostile() -> Vec<(&'static str, Vec<u8>)> {
    const EXPLICIT: &str = "1.2.840.10008.1.2.1\0";
    let native = long([0x7fe0, 0x10], b"OW", 32, &[7; 32]);
    let values = b"\xff\xff\xff\x7f".repeat(1000);
    let un =
        long([0x29, 0x1010], b"UN", u32::MAX, &[b"\xfe\xff\x00\xe0", &4000u32.to_le_bytes()[..], &values].concat());
    let un = [un, b"\xfe\xff\xdd\xe0\0\0\0\0".to_vec()].concat();
    let nested = long([0x08, 0x1140], b"SQ", u32::MAX, b"\xfe\xff\x00\xe0\xff\xff\xff\xff").repeat(100_000);
    let ambiguous = long([0x29, 0x1010], b"UN", u32::MAX, b"\xfe\xff\x00\xe0\xff\xff\xff\xff").repeat(24);
    let sof = |rows: u16, columns: u16| {
        let size = [rows.to_be_bytes(), columns.to_be_bytes()].concat();
        [
            &b"\xff\xd8\xff\xc3\x00\x0b\x10"[..],
            &size,
            b"\x01\x01\x11\x00\xff\xda\x00\x08\x01\x01\x00\x01\x00\x00\xff\xd9",
        ]
        .concat()
    };
    let jls = [&b"\xff\xd8\xff\xf7\x00\x0b\x10\xff\xff\xff\xff\x01\x01\x11\x00"[..], &[0; 40]].concat();
    let siz = |size: u32, tile: u32| {
        let words: Vec<u8> = [size, size, 0, 0, tile, tile, 0, 0].iter().flat_map(|v| v.to_be_bytes()).collect();
        [&b"\xff\x4f\xff\x51\x00\x29\x00\x00"[..], &words, b"\x00\x01\x0f\x01\x01\xff\x52\x00\x0c"].concat()
    };
    let mut deflated = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
    (0..1000).for_each(|_| std::io::Write::write_all(&mut deflated, &[0; 1 << 20]).unwrap());
    let deflated = [slice("1.2.840.10008.1.2.1.99", 0, [4, 4], &[], &[])[..162].to_vec(), deflated.finish().unwrap()];
    let frames = short([0x28, 0x08], b"IS", b"2000000000");
    let bytes = long([0x7fe0, 0x10], b"OW", 4 << 20, &vec![1; 4 << 20]);
    vec![
        ("values of UN that look like lengths", slice(EXPLICIT, 1, [4, 4], &un, &native)),
        ("deep nesting", slice(EXPLICIT, 1, [4, 4], &nested, &native)),
        ("nesting that is ambiguous at every level", slice(EXPLICIT, 1, [4, 4], &ambiguous, &native)),
        ("a value of 4 GiB", slice(EXPLICIT, 1, [4, 4], &long([0x29, 0x1010], b"OB", u32::MAX - 1, b"ab"), &native)),
        ("pixels of 4 GiB", slice(EXPLICIT, 1, [4, 4], &[], &long([0x7fe0, 0x10], b"OW", u32::MAX - 1, b"ab"))),
        ("65535 x 65535 native", slice(EXPLICIT, 1, [u16::MAX; 2], &[], &native)),
        ("two billion frames", slice(EXPLICIT, 1, [4, 4], &frames, &native)),
        ("a frame for each two bytes", slice(EXPLICIT, 1, [1, 1], &[], &bytes)),
        ("many empty elements", slice(EXPLICIT, 1, [4, 4], &short([0x10, 0x10], b"PN", b"").repeat(1 << 21), &native)),
        ("a deflate bomb", deflated.concat()),
        (
            "JPEG of 65535 x 65535",
            slice("1.2.840.10008.1.2.4.70", 1, [u16::MAX; 2], &[], &encapsulated(&[&sof(u16::MAX, u16::MAX)])),
        ),
        ("JPEG of 4000 x 4000", slice("1.2.840.10008.1.2.4.70", 1, [4000; 2], &[], &encapsulated(&[&sof(4000, 4000)]))),
        (
            "JPEG of another size",
            slice("1.2.840.10008.1.2.4.70", 1, [4, 4], &[], &encapsulated(&[&sof(u16::MAX, u16::MAX)])),
        ),
        ("JPEG-LS of 65535 x 65535", slice("1.2.840.10008.1.2.4.80", 1, [4, 4], &[], &encapsulated(&[&jls]))),
        (
            "JPEG 2000 of 2^31",
            slice("1.2.840.10008.1.2.4.90", 1, [4, 4], &[], &encapsulated(&[&siz(1 << 31, 1 << 31)])),
        ),
        (
            "JPEG 2000 of many tiles",
            slice("1.2.840.10008.1.2.4.90", 1, [2048; 2], &[], &encapsulated(&[&siz(2048, 1)])),
        ),
        ("many fragments", slice("1.2.840.10008.1.2.4.80", 1, [4, 4], &[], &encapsulated(&vec![&b""[..]; 1 << 21]))),
    ]
}

#[test]
fn hostile_sizes_take_little_memory() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let before = peak_kib();
    for (what, bytes) in hostile() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a"), &bytes).unwrap();
        let kept = bytes.len() as u64 >> 10;
        drop(bytes);
        read(folder.path(), what);
        if let Some((before, after)) = before.zip(peak_kib()) {
            assert!(after - before < MAX_GROWTH_KIB, "{what}: {} KiB for {kept} KiB", after - before);
        }
    }
}

/// Elements of VR UN whose items hold what could be lengths are legal: the slices are read.
#[test]
fn values_that_look_like_lengths_are_not_lengths() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let before = peak_kib();
    let folder = tempfile::tempdir().unwrap();
    for z in 0..24 {
        let value = b"\x29\x00\x01\x10\xff\xff\xff\x7f".repeat(1000);
        let private = [b"\x29\x00\x10\x10", &(value.len() as u32).to_le_bytes()[..], &value].concat();
        let item = [b"\xfe\xff\x00\xe0\xff\xff\xff\xff", &private[..], b"\xfe\xff\x0d\xe0\0\0\0\0"].concat();
        let un = [long([0x29, 0x1020], b"UN", u32::MAX, &item), b"\xfe\xff\xdd\xe0\0\0\0\0".to_vec()].concat();
        let native = long([0x7fe0, 0x10], b"OW", 32, &[7; 32]);
        let file = slice("1.2.840.10008.1.2.1\0", z, [4, 4], &un, &native);
        std::fs::write(folder.path().join(z.to_string()), file).unwrap();
    }
    assert!(read(folder.path(), "UN of undefined length"));
    if let Some((before, after)) = before.zip(peak_kib()) {
        assert!(after - before < MAX_GROWTH_KIB, "{} KiB", after - before);
    }
}

/// A small generator of repeatable numbers (xorshift).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end.max(1) as u64) as usize
    }
}

/// Changes a sound file at random: bytes, lengths, order and end. Headers are changed more often
/// than pixels.
fn mutate(bytes: &mut Vec<u8>, numbers: &mut Numbers) {
    for _ in 0..=numbers.below(4) {
        let within = if numbers.below(4) > 0 { bytes.len().min(3000) } else { bytes.len() };
        let at = numbers.below(within);
        match numbers.below(7) {
            0 => bytes[at] = numbers.below(256) as u8,
            1 => bytes[at] ^= 1 << numbers.below(8),
            2 => bytes.truncate(at.max(1)),
            3 | 4 => {
                let length = [u32::MAX, 0x7fff_ffff, 0x00ff_ffff, 0xffff, 0][numbers.below(5)];
                let end = (at + 4).min(bytes.len());
                bytes[at..end].copy_from_slice(&length.to_le_bytes()[..end - at]);
            }
            5 => {
                let piece = bytes[at..(at + numbers.below(64)).min(bytes.len())].to_vec();
                let to = numbers.below(within);
                bytes.splice(to..to, piece);
            }
            _ => drop(bytes.drain(at..(at + numbers.below(16)).min(bytes.len()))),
        }
        if bytes.is_empty() {
            return;
        }
    }
}

/// Sound files: those of the repository, and compressed ones.
fn sound_files() -> Vec<Vec<u8>> {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let names = ["t1_inflow/1", "t1_inflow_big_endian/1", "t1_inflow_deflated/1", "t1_inflow_rle/1"];
    let mut files: Vec<Vec<u8>> =
        names.iter().map(|name| std::fs::read(fixtures.join(format!("{name}.dcm"))).unwrap()).collect();
    let ramp: Vec<u16> = (0..4096u16).map(|i| i * 13 % 4096).collect();
    let mut jls = Vec::new();
    jpegls::encode(&ramp, 64, 64, &mut jls).unwrap();
    files.push(slice("1.2.840.10008.1.2.4.80", 1, [64, 64], &[], &encapsulated(&[&jls])));
    let eight = oxiarc_jpeg::EncodeOptions::default();
    let bytes: Vec<u8> = ramp.iter().map(|v| (v >> 4) as u8).collect();
    let jpeg = oxiarc_jpeg::encode_to_vec_with_options(&bytes, 64, 64, oxiarc_jpeg::InputColor::Luma, &eight).unwrap();
    files.push(slice("1.2.840.10008.1.2.4.50", 1, [64, 64], &[], &encapsulated(&[&jpeg])));
    // JPEG 2000 and 12-bit JPEG, where real files are present.
    let real = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/41_dicom_ct_transfer_syntaxes");
    for name in [
        "CTImage.dcm_JPEG2000LosslessOnlyTransferSyntax_1.2.840.10008.1.2.4.90.dcm",
        "CT0012.fragmented_no_bot_jpeg_baseline.51.dcm",
    ] {
        let path: PathBuf = real.join(name);
        match std::fs::read(&path) {
            Ok(bytes) => files.push(bytes),
            Err(_) => println!("skipped: {name} is not present"),
        }
    }
    files
}

#[test]
fn mutated_files_never_panic_hang_or_take_much_memory() {
    let sound = sound_files();
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let before = peak_kib();
    let (mut numbers, mut read_well) = (Numbers(0x9e37_79b9_7f4a_7c15), 0);
    let folder = tempfile::tempdir().unwrap();
    for case in 0..MUTATIONS {
        let original = &sound[case as usize % sound.len()];
        let mut bytes = original.clone();
        mutate(&mut bytes, &mut numbers);
        std::fs::write(folder.path().join("a"), bytes).unwrap();
        read_well += u64::from(read(folder.path(), &format!("case {case}")));
        if let Some((before, after)) = before.zip(peak_kib()) {
            assert!(after - before < MAX_GROWTH_KIB, "case {case}: {} KiB", after - before);
        }
    }
    println!("{read_well} of {MUTATIONS} cases gave a volume");
    assert!((1..MUTATIONS).contains(&read_well));
}
