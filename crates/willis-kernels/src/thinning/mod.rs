//! Thinning of a mask to its one-voxel-wide skeleton.
//!
//! Source: Lee, Kashyap & Chu, CVGIP 56(6), 1994. The result equals scikit-image's
//! `skeletonize(method='lee')` voxel for voxel: the order of the borders, the tests for the Euler
//! number and for simple points, and the second test before deletion are the same. Only voxels on
//! the surface are tested, on 3x3x3 neighbourhoods stored as 27 bits.

use std::sync::LazyLock;

use rayon::prelude::*;

/// Bit of the centre voxel in a neighbourhood. The bit of a neighbour is
/// `9 (dz + 1) + 3 (dy + 1) + dx + 1`.
const CENTRE: u32 = 1 << 13;

/// Surface voxels per task.
const CHUNK: usize = 4096;

/// Skeleton of the non-zero voxels, as 0 or 1.
///
/// The skeleton has the topology of the mask, except that solid blocks of even size may vanish;
/// callers that need every component must compare and restore. The result depends on the order of
/// the axes, so the mask should be on canonical axes.
///
/// # Shapes
/// `mask` and result C-order `[z, y, x]`; a mask of one slice is thinned as a 2D image
/// # Panics
/// If the length of `mask` does not match `shape`.
pub fn skeletonize(mask: &[u8], shape: [usize; 3]) -> Vec<u8> {
    let [nz, ny, nx] = shape;
    assert_eq!(mask.len(), nz * ny * nx, "mask does not match shape {shape:?}");
    let mut skeleton = vec![0u8; mask.len()];
    let Some((low, high)) = bounding_box(mask, shape) else { return skeleton };
    let mut padded = PaddedMask::crop(mask, shape, low, high);
    padded.thin(if nz == 1 { 4 } else { 6 });
    let [_, py, px] = padded.shape;
    for z in low[0]..=high[0] {
        for y in low[1]..=high[1] {
            let from = ((z - low[0] + 1) * py + y - low[1] + 1) * px + 1;
            let to = (z * ny + y) * nx + low[2];
            let width = high[2] - low[2] + 1;
            skeleton[to..to + width].copy_from_slice(&padded.voxels[from..from + width]);
        }
    }
    skeleton
}

/// First and last index with foreground along each axis.
fn bounding_box(mask: &[u8], [_, ny, nx]: [usize; 3]) -> Option<([usize; 3], [usize; 3])> {
    let (mut low, mut high) = ([usize::MAX; 3], [0; 3]);
    for (row, voxels) in mask.chunks(nx.max(1)).enumerate() {
        let Some(first) = voxels.iter().position(|&m| m != 0) else { continue };
        let last = voxels.iter().rposition(|&m| m != 0).expect("the row has a foreground voxel");
        for (axis, (a, b)) in [(row / ny, row / ny), (row % ny, row % ny), (first, last)].into_iter().enumerate() {
            low[axis] = low[axis].min(a);
            high[axis] = high[axis].max(b);
        }
    }
    (low[0] != usize::MAX).then_some((low, high))
}

/// The bounding box of the foreground with one layer of zeros around it.
struct PaddedMask {
    voxels: Vec<u8>,
    shape: [usize; 3],
}

impl PaddedMask {
    fn crop(mask: &[u8], [_, ny, nx]: [usize; 3], low: [usize; 3], high: [usize; 3]) -> Self {
        let shape = [0, 1, 2].map(|axis| high[axis] - low[axis] + 3);
        let mut voxels = vec![0u8; shape.iter().product()];
        for z in low[0]..=high[0] {
            for y in low[1]..=high[1] {
                let from = &mask[(z * ny + y) * nx + low[2]..(z * ny + y) * nx + high[2] + 1];
                let to = ((z - low[0] + 1) * shape[1] + y - low[1] + 1) * shape[2] + 1;
                for (value, &m) in voxels[to..].iter_mut().zip(from) {
                    *value = u8::from(m != 0);
                }
            }
        }
        Self { voxels, shape }
    }

    /// Offsets in memory of the six face neighbours, in the order in which borders are removed.
    fn directions(&self) -> [isize; 6] {
        let (row, slice) = (self.shape[2] as isize, (self.shape[1] * self.shape[2]) as isize);
        [-row, row, 1, -1, slice, -slice]
    }

    /// Removes border voxels from the first `n_directions` directions in turn until none can be
    /// removed.
    fn thin(&mut self, n_directions: usize) {
        let directions = self.directions();
        let mut surface: Vec<usize> = (0..self.voxels.len())
            .into_par_iter()
            .filter(|&i| self.voxels[i] != 0 && directions.iter().any(|&d| self.is_empty(i, d)))
            .collect();
        let mut on_surface = vec![false; self.voxels.len()];
        surface.iter().for_each(|&i| on_surface[i] = true);
        loop {
            let mut deleted = 0;
            for &direction in &directions[..n_directions] {
                let removable = self.removable(&surface, direction);
                let mut exposed = Vec::new();
                for i in removable {
                    if !is_simple(self.neighbourhood(i)) {
                        continue;
                    }
                    self.voxels[i] = 0;
                    deleted += 1;
                    for d in directions {
                        let j = i.wrapping_add_signed(d);
                        if self.voxels[j] != 0 && !on_surface[j] {
                            on_surface[j] = true;
                            exposed.push(j);
                        }
                    }
                }
                exposed.sort_unstable();
                surface = self.merge(&surface, &exposed);
            }
            if deleted == 0 {
                return;
            }
        }
    }

    /// Surface voxels that can be removed from one direction, in raster order, each tested as if no
    /// other were removed.
    fn removable(&self, surface: &[usize], direction: isize) -> Vec<usize> {
        let is_removable = |&i: &usize| {
            self.is_empty(i, direction) && {
                let block = self.neighbourhood(i);
                block.count_ones() != 2 && keeps_euler_number(block) && is_simple(block)
            }
        };
        surface
            .par_chunks(CHUNK)
            .flat_map_iter(|chunk| chunk.iter().copied().filter(is_removable).collect::<Vec<_>>())
            .collect()
    }

    /// Merges two sorted lists, dropping deleted voxels.
    fn merge(&self, a: &[usize], b: &[usize]) -> Vec<usize> {
        let mut merged = Vec::with_capacity(a.len() + b.len());
        let mut b = b.iter().copied().peekable();
        for &i in a.iter().filter(|&&i| self.voxels[i] != 0) {
            while let Some(j) = b.next_if(|&j| j < i) {
                merged.push(j);
            }
            merged.push(i);
        }
        merged.extend(b);
        merged
    }

    fn is_empty(&self, i: usize, step: isize) -> bool {
        self.voxels[i.wrapping_add_signed(step)] == 0
    }

    /// The 3x3x3 block around a voxel as 27 bits.
    fn neighbourhood(&self, i: usize) -> u32 {
        let (row, slice) = (self.shape[2], self.shape[1] * self.shape[2]);
        let corner = i - slice - row - 1;
        let mut bits = 0;
        for dz in 0..3 {
            for dy in 0..3 {
                let start = corner + dz * slice + dy * row;
                let v = &self.voxels[start..start + 3];
                bits |= u32::from(v[0] | v[1] << 1 | v[2] << 2) << (9 * dz + 3 * dy);
            }
        }
        bits
    }
}

/// Whether deleting the centre keeps the Euler number.
///
/// That is so if the sum of `8V - 4E + 2F - 1` over the octants is zero. Within an octant, V is 1
/// if all voxels but the centre are empty, E counts the empty edges at the centre, and F counts the
/// empty face neighbours.
fn keeps_euler_number(block: u32) -> bool {
    let slice = |dz: u32| (block >> (9 * dz) & 0x1ff) as usize;
    let tables = &*EULER;
    let middle = slice(1);
    let mut sum = 0;
    for outer in [slice(0), slice(2)] {
        for quadrant in 0..4 {
            let near = tables.quadrant[quadrant][middle] & 7;
            sum += i32::from(tables.octant[usize::from(tables.quadrant[quadrant][outer] << 3 | near)]);
        }
    }
    sum == 0
}

/// Lookup tables of [`keeps_euler_number`].
struct EulerTables {
    /// The voxels of a quadrant, by quadrant and 9-bit slice: bit 0 is the x neighbour, bit 1 the y
    /// neighbour, bit 2 the diagonal neighbour, bit 3 the middle.
    quadrant: [[u8; 512]; 4],
    /// Contribution of an octant to the sum, by the quadrants of its two slices: the low three bits
    /// are from the centre slice, the high four bits from the outer slice.
    octant: [i8; 128],
}

static EULER: LazyLock<EulerTables> = LazyLock::new(|| {
    let mut tables = EulerTables { quadrant: [[0; 512]; 4], octant: [0; 128] };
    for (quadrant, table) in tables.quadrant.iter_mut().enumerate() {
        let (x, y) = (if quadrant & 1 == 0 { 0 } else { 2 }, if quadrant & 2 == 0 { 0 } else { 2 });
        for (slice, entry) in table.iter_mut().enumerate() {
            let bit = |y: usize, x: usize| (slice >> (3 * y + x) & 1) as u8;
            *entry = bit(1, x) | bit(y, 1) << 1 | bit(y, x) << 2 | bit(1, 1) << 3;
        }
    }
    for (octant, entry) in tables.octant.iter_mut().enumerate() {
        let empty = |mask: usize| i8::from(octant & mask == 0);
        // Bits: 0 x, 1 y, 2 xy, 3 xz, 4 yz, 5 xyz, 6 z.
        let vertex = empty(0x7f);
        let edges = empty(0b000_0111) + empty(0b100_1001) + empty(0b101_0010);
        let faces = empty(1) + empty(2) + empty(64);
        *entry = 8 * vertex - 4 * edges + 2 * faces - 1;
    }
    tables
});

/// Whether the foreground voxels around the centre form at most one 26-connected component.
fn is_simple(block: u32) -> bool {
    let neighbours = block & !CENTRE;
    let mut reached = neighbours & neighbours.wrapping_neg();
    let mut frontier = reached;
    while frontier != 0 {
        let bit = frontier.trailing_zeros() as usize;
        frontier &= frontier - 1;
        let new = NEIGHBOURS[bit] & neighbours & !reached;
        reached |= new;
        frontier |= new;
    }
    reached == neighbours
}

/// For each voxel of a block, its neighbours in the block.
const NEIGHBOURS: [u32; 27] = {
    let mut table = [0; 27];
    let mut a = 0usize;
    while a < 27 {
        let mut b = 0usize;
        while b < 27 {
            let close =
                (a / 9).abs_diff(b / 9) <= 1 && (a / 3 % 3).abs_diff(b / 3 % 3) <= 1 && (a % 3).abs_diff(b % 3) <= 1;
            if close && a != b {
                table[a] |= 1 << b;
            }
            b += 1;
        }
        a += 1;
    }
    table
};

#[cfg(test)]
mod tests;
