//! The headers of NIfTI-1 and NIfTI-2.

use std::io::Read;

use super::FORMAT;
use super::place::{self, NiftiPlacement};
use crate::files::Malformed;
use crate::files::data_type::{ByteOrder, DataType, Scale, checked_shape};
use crate::series::Finding;
use crate::space::{Grid, Shape};

/// Size of a NIfTI-1 header, bytes.
const LENGTH_1: usize = 348;
/// Size of a NIfTI-2 header, bytes.
const LENGTH_2: usize = 540;
/// Maximum offset of the first voxel, bytes. Header extensions precede the voxels.
const MAX_VOXEL_OFFSET: f64 = (1u32 << 28) as f64;

/// Where the voxels are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NiftiLayout {
    /// In the file of the header (`.nii`).
    Single,
    /// In a file beside it (`.hdr` and `.img`).
    Pair,
}

/// The fields of a header that are needed to read the voxels.
#[derive(Debug)]
pub(super) struct NiftiHeader {
    /// Size of the header, bytes.
    pub length: u64,
    pub layout: NiftiLayout,
    /// Offset of the first voxel in its file; in a single file at least `length`.
    pub voxel_offset: u64,
    pub grid: Grid,
    pub element: DataType,
    pub order: ByteOrder,
    pub scale: Scale,
}

/// A header with access to its fields by offset.
struct NiftiFields {
    bytes: Vec<u8>,
    order: ByteOrder,
    layout: NiftiLayout,
}

macro_rules! getter {
    ($name:ident, $type:ty) => {
        fn $name(&self, offset: usize) -> $type {
            let bytes = &self.bytes[offset..offset + size_of::<$type>()];
            let bytes = bytes.try_into().expect("the slice has the size of the type");
            match self.order {
                ByteOrder::Little => <$type>::from_le_bytes(bytes),
                ByteOrder::Big => <$type>::from_be_bytes(bytes),
            }
        }
    };
}

impl NiftiFields {
    getter!(i16, i16);
    getter!(i32, i32);
    getter!(i64, i64);
    getter!(f32, f32);
    getter!(f64, f64);

    fn is_nifti_2(&self) -> bool {
        self.bytes.len() == LENGTH_2
    }

    fn dims(&self) -> [i64; 8] {
        std::array::from_fn(|i| if self.is_nifti_2() { self.i64(16 + 8 * i) } else { self.i16(40 + 2 * i).into() })
    }

    fn datatype(&self) -> i16 {
        if self.is_nifti_2() { self.i16(12) } else { self.i16(70) }
    }

    fn voxel_offset(&self) -> f64 {
        if self.is_nifti_2() { self.i64(168) as f64 } else { self.f32(108).into() }
    }

    fn scale(&self) -> Scale {
        let [slope, intercept] = self.reals(112, 176);
        Scale { slope, intercept }
    }

    fn place(&self) -> NiftiPlacement {
        let two = self.is_nifti_2();
        let [quaternion, offset] = [self.reals(256, 352), self.reals(268, 376)];
        let sizes: [f64; 4] = self.reals(76, 104);
        NiftiPlacement {
            sform: (if two { self.i32(348) } else { self.i16(254).into() } > 0)
                .then(|| [self.reals(280, 400), self.reals(296, 432), self.reals(312, 464)]),
            qform: (if two { self.i32(344) } else { self.i16(252).into() } > 0).then_some((quaternion, offset)),
            handedness: if sizes[0] < 0.0 { -1.0 } else { 1.0 },
            sizes: [sizes[1], sizes[2], sizes[3]],
            units: (if two { self.i32(500) } else { self.bytes[123].into() }) & 7,
            shape: [1, 2, 3].map(|axis| u64::try_from(self.dims()[axis]).unwrap_or(1)),
        }
    }

    /// Consecutive numbers: `f32` at the first offset in NIfTI-1, `f64` at the second in NIfTI-2.
    fn reals<const N: usize>(&self, one: usize, two: usize) -> [f64; N] {
        std::array::from_fn(|i| if self.is_nifti_2() { self.f64(two + 8 * i) } else { self.f32(one + 4 * i).into() })
    }
}

impl NiftiHeader {
    /// Reads and checks a header. Harmless irregularities become findings.
    pub fn read(reader: &mut dyn Read) -> Result<(Self, Vec<Finding>), Malformed> {
        let fields = read_fields(reader)?;
        let mut findings = Vec::new();
        let shape = shape(fields.dims(), &mut findings)?;
        let element = element(fields.datatype())?;
        let length = fields.bytes.len() as u64;
        // In a pair, the voxels may start at once.
        let (least, usual) = match fields.layout {
            NiftiLayout::Single => (length, length + 4),
            NiftiLayout::Pair => (0, 0),
        };
        let voxel_offset = match fields.voxel_offset() {
            offset if offset >= least as f64 && offset <= MAX_VOXEL_OFFSET => offset as u64,
            offset => {
                let message = format!("the voxels cannot start at byte {offset}; assumed to start at byte {usual}");
                findings.push(Finding::warning("nifti-voxel-offset", message));
                usual
            }
        };
        let scale = match fields.scale() {
            Scale { slope, intercept } if slope.is_finite() && intercept.is_finite() && slope != 0.0 => {
                Scale { slope, intercept }
            }
            // In the standard, a slope of 0 means that there is no scale.
            Scale { slope: 0.0, .. } => Scale::NONE,
            _ => {
                findings
                    .push(Finding::warning("nifti-scale", "slope or intercept is not a number; values are not scaled"));
                Scale::NONE
            }
        };
        let grid = Grid::new(shape, place::to_lps(&fields.place(), &mut findings));
        Ok((Self { length, layout: fields.layout, voxel_offset, grid, element, order: fields.order, scale }, findings))
    }

    /// The little-endian bytes of a file before the first voxel, for a grid in LPS.
    pub fn encode(grid: &Grid, element: DataType) -> Vec<u8> {
        let xyz = [grid.shape.x, grid.shape.y, grid.shape.z];
        let two = xyz.iter().any(|&n| n > i16::MAX as usize);
        let length = if two { LENGTH_2 } else { LENGTH_1 };
        let mut bytes = vec![0; length + 4];
        let mut put = |offset: usize, field: &[u8]| bytes[offset..offset + field.len()].copy_from_slice(field);
        put(0, &(length as i32).to_le_bytes());
        put(if two { 4 } else { 344 }, if two { b"n+2\0\r\n\x1a\n" } else { b"n+1\0" });
        put(if two { 12 } else { 70 }, &code(element).to_le_bytes());
        put(if two { 14 } else { 72 }, &(8 * element.size() as i16).to_le_bytes());
        for (i, n) in [3, xyz[0], xyz[1], xyz[2], 1, 1, 1, 1].into_iter().enumerate() {
            if two { put(16 + 8 * i, &(n as i64).to_le_bytes()) } else { put(40 + 2 * i, &(n as i16).to_le_bytes()) }
        }
        let mut put_reals = |one: usize, at_two: usize, values: &[f64]| {
            for (i, &v) in values.iter().enumerate() {
                if two { put(at_two + 8 * i, &v.to_le_bytes()) } else { put(one + 4 * i, &(v as f32).to_le_bytes()) }
            }
        };
        let place = NiftiPlacement::from_lps(&grid.affine);
        put_reals(112, 176, &[1.0, 0.0]);
        put_reals(76, 104, &[place.handedness, place.sizes[0], place.sizes[1], place.sizes[2]]);
        for (i, row) in place.sform.iter().flatten().enumerate() {
            put_reals(280 + 16 * i, 400 + 32 * i, row);
        }
        if let Some((quaternion, offset)) = place.qform {
            put_reals(256, 352, &quaternion);
            put_reals(268, 376, &offset);
        }
        // Form code 1 is scanner coordinates, unit code 2 is mm.
        let [sform, qform] = [place.sform.is_some() as u8, place.qform.is_some() as u8];
        if two {
            put(168, &(length as i64 + 4).to_le_bytes());
            [(348, sform), (344, qform), (500, 2)].into_iter().for_each(|(offset, value)| put(offset, &[value]));
        } else {
            put(108, &(length as f32 + 4.0).to_le_bytes());
            [(254, sform), (252, qform), (123, 2)].into_iter().for_each(|(offset, value)| put(offset, &[value]));
        }
        bytes
    }
}

fn read_fields(reader: &mut dyn Read) -> Result<NiftiFields, Malformed> {
    let mut bytes = vec![0; LENGTH_1];
    reader.read_exact(&mut bytes).map_err(|error| Malformed::from_io(FORMAT, &error))?;
    let first: [u8; 4] = bytes[..4].try_into().expect("four bytes");
    let (length, order) = match (i32::from_le_bytes(first), i32::from_be_bytes(first)) {
        (348, _) => (LENGTH_1, ByteOrder::Little),
        (_, 348) => (LENGTH_1, ByteOrder::Big),
        (540, _) => (LENGTH_2, ByteOrder::Little),
        (_, 540) => (LENGTH_2, ByteOrder::Big),
        _ => return Err(Malformed::new(FORMAT, "it does not start with a NIfTI header")),
    };
    let magic = if length == LENGTH_2 { &bytes[4..7] } else { &bytes[344..347] };
    let layout = match magic {
        b"n+1" | b"n+2" => NiftiLayout::Single,
        b"ni1" | b"ni2" => NiftiLayout::Pair,
        _ => return Err(Malformed::new(FORMAT, "the NIfTI signature is missing (Analyze 7.5?); convert it to .nii")),
    };
    if length == LENGTH_2 {
        bytes.resize(LENGTH_2, 0);
        reader.read_exact(&mut bytes[LENGTH_1..]).map_err(|error| Malformed::from_io(FORMAT, &error))?;
    }
    Ok(NiftiFields { bytes, order, layout })
}

fn shape(dims: [i64; 8], findings: &mut Vec<Finding>) -> Result<Shape, Malformed> {
    let rank = match dims[0] {
        rank @ 1..=7 => rank as usize,
        rank => return Err(Malformed::new(FORMAT, format!("it declares {rank} dimensions"))),
    };
    let side = |axis: usize| if axis <= rank { u64::try_from(dims[axis]).unwrap_or(0) } else { 1 };
    let shape = checked_shape([side(1), side(2), side(3)]).map_err(|reason| Malformed::new(FORMAT, reason))?;
    let volumes = (4..=rank).map(side).fold(1u64, u64::saturating_mul);
    if volumes > 1 {
        let message = format!("the file holds {volumes} volumes; only the first was read");
        findings.push(Finding::warning("first-volume-only", message));
    }
    Ok(shape)
}

fn element(datatype: i16) -> Result<DataType, Malformed> {
    Ok(match datatype {
        2 => DataType::U8,
        4 => DataType::I16,
        8 => DataType::I32,
        16 => DataType::F32,
        64 => DataType::F64,
        256 => DataType::I8,
        512 => DataType::U16,
        768 => DataType::U32,
        1024 => DataType::I64,
        1280 => DataType::U64,
        other => {
            let reason = format!("voxel type {other} is not read (complex, colour or bits); convert it to float32");
            return Err(Malformed::new(FORMAT, reason));
        }
    })
}

const fn code(element: DataType) -> i16 {
    match element {
        DataType::U8 => 2,
        DataType::I16 => 4,
        DataType::I32 => 8,
        DataType::F32 => 16,
        DataType::F64 => 64,
        DataType::I8 => 256,
        DataType::U16 => 512,
        DataType::U32 => 768,
        DataType::I64 => 1024,
        DataType::U64 => 1280,
    }
}
