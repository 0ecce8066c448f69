//! Connected components of a mask, by union-find over runs of voxels.

/// Which voxels count as neighbours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connectivity {
    /// Voxels with a common face.
    Six,
    /// Voxels with a common face, edge or corner.
    TwentySix,
}

/// The connected components of a mask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Components {
    /// Label of each voxel, C-order `[z, y, x]`: 0 is background; components are numbered from 1 in
    /// the raster order of their first voxels.
    pub labels: Vec<u32>,
    /// Number of voxels of each component; component `k` is at index `k - 1`.
    pub sizes: Vec<usize>,
}

/// Foreground voxels `first..end` of one row.
#[derive(Clone, Copy)]
struct VoxelRun {
    row: usize,
    first: usize,
    end: usize,
}

/// Labels the connected components of the non-zero voxels.
///
/// # Shapes
/// `mask` C-order `[z, y, x]` of `shape`
/// # Panics
/// If the length of `mask` does not match `shape`, or `mask` has more than `u32::MAX` runs.
pub fn label(mask: &[u8], shape: [usize; 3], connectivity: Connectivity) -> Components {
    let [nz, ny, nx] = shape;
    assert_eq!(mask.len(), nz * ny * nx, "mask does not match shape {shape:?}");
    if mask.is_empty() {
        return Components { labels: Vec::new(), sizes: Vec::new() };
    }
    let (runs, row_starts) = find_runs(mask, nx);
    assert!(runs.len() <= u32::MAX as usize, "more than u32::MAX runs");
    let mut parent: Vec<u32> = (0..runs.len() as u32).collect();
    let (earlier, reach): (&[(usize, isize)], usize) = match connectivity {
        Connectivity::Six => (&[(0, -1), (1, 0)], 0),
        Connectivity::TwentySix => (&[(0, -1), (1, -1), (1, 0), (1, 1)], 1),
    };
    for row in 0..nz * ny {
        let (z, y) = (row / ny, row % ny);
        for &(dz, dy) in earlier {
            let Some(other_y) = y.checked_add_signed(dy).filter(|&v| v < ny) else { continue };
            if z < dz {
                continue;
            }
            let other = (z - dz) * ny + other_y;
            let (here, there) = (row_starts[row]..row_starts[row + 1], row_starts[other]..row_starts[other + 1]);
            join_touching(&runs, &mut parent, here, there, reach);
        }
    }
    number(&runs, &mut parent, mask.len(), nx)
}

/// Fills the cavities of a mask: the background voxels that are not connected to the border of the
/// array through faces.
///
/// # Shapes
/// `mask` and result C-order `[z, y, x]` of `shape`
/// # Panics
/// As [`label`].
pub fn fill_holes(mask: &[u8], shape: [usize; 3]) -> Vec<u8> {
    let [nz, ny, nx] = shape;
    let background: Vec<u8> = mask.iter().map(|&m| u8::from(m == 0)).collect();
    let components = label(&background, shape, Connectivity::Six);
    let mut open = vec![false; components.sizes.len() + 1];
    for row in 0..nz * ny {
        let (z, y) = (row / ny, row % ny);
        let labels = &components.labels[row * nx..(row + 1) * nx];
        if z == 0 || z + 1 == nz || y == 0 || y + 1 == ny {
            labels.iter().for_each(|&l| open[l as usize] = true);
        } else {
            open[labels[0] as usize] = true;
            open[labels[nx - 1] as usize] = true;
        }
    }
    components.labels.iter().map(|&l| u8::from(l == 0 || !open[l as usize])).collect()
}

/// Keeps the largest component of a mask, the first in raster order among equals. An empty mask
/// stays empty.
///
/// # Shapes
/// `mask` and result C-order `[z, y, x]` of `shape`
/// # Panics
/// As [`label`].
pub fn largest(mask: &[u8], shape: [usize; 3], connectivity: Connectivity) -> Vec<u8> {
    let components = label(mask, shape, connectivity);
    let best =
        (1..).zip(&components.sizes).fold((0u32, 0usize), |best, (l, &n)| if n > best.1 { (l, n) } else { best });
    components.labels.iter().map(|&l| u8::from(l != 0 && l == best.0)).collect()
}

/// All runs in raster order, and for each row the index of its first run.
fn find_runs(mask: &[u8], nx: usize) -> (Vec<VoxelRun>, Vec<usize>) {
    let mut runs = Vec::new();
    let mut row_starts = vec![0];
    for (row, voxels) in mask.chunks(nx).enumerate() {
        let mut start = 0;
        while let Some(offset) = voxels[start..].iter().position(|&m| m != 0) {
            let first = start + offset;
            let end = voxels[first..].iter().position(|&m| m == 0).map_or(nx, |n| first + n);
            runs.push(VoxelRun { row, first, end });
            start = end;
        }
        row_starts.push(runs.len());
    }
    (runs, row_starts)
}

/// Joins the runs of two rows that overlap when one of them is extended by `reach` voxels on both
/// sides.
fn join_touching(
    runs: &[VoxelRun],
    parent: &mut [u32],
    mut here: std::ops::Range<usize>,
    mut there: std::ops::Range<usize>,
    reach: usize,
) {
    while !here.is_empty() && !there.is_empty() {
        let (a, b) = (runs[here.start], runs[there.start]);
        if a.first < b.end + reach && b.first < a.end + reach {
            join(parent, here.start as u32, there.start as u32);
        }
        if a.end < b.end {
            here.start += 1;
        } else {
            there.start += 1;
        }
    }
}

/// Root of a run, with path halving.
fn root(parent: &mut [u32], mut i: u32) -> u32 {
    while parent[i as usize] != i {
        parent[i as usize] = parent[parent[i as usize] as usize];
        i = parent[i as usize];
    }
    i
}

/// Joins two components. The smaller root becomes the root of both, so a root is always the first
/// run of its component.
fn join(parent: &mut [u32], a: u32, b: u32) {
    let (a, b) = (root(parent, a), root(parent, b));
    parent[a.max(b) as usize] = a.min(b);
}

/// Numbers the components in the order of their roots and writes the labels.
fn number(runs: &[VoxelRun], parent: &mut [u32], len: usize, nx: usize) -> Components {
    let mut labels = vec![0u32; len];
    let mut sizes = Vec::new();
    let mut label_of_root = vec![0u32; runs.len()];
    for (i, run) in runs.iter().enumerate() {
        let root = root(parent, i as u32) as usize;
        if root == i {
            sizes.push(0);
            label_of_root[i] = sizes.len() as u32;
        }
        let label = label_of_root[root];
        sizes[label as usize - 1] += run.end - run.first;
        labels[run.row * nx + run.first..run.row * nx + run.end].fill(label);
    }
    Components { labels, sizes }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn voxels_that_share_a_corner_are_connected_only_by_26_neighbours() {
        // Two voxels that share a corner, and one apart.
        let mut mask = vec![0u8; 3 * 3 * 5];
        for (z, y, x) in [(0, 0, 0), (1, 1, 1), (2, 2, 4)] {
            mask[(z * 3 + y) * 5 + x] = 1;
        }
        let six = label(&mask, [3, 3, 5], Connectivity::Six);
        assert_eq!(six.sizes, [1, 1, 1]);
        let all = label(&mask, [3, 3, 5], Connectivity::TwentySix);
        assert_eq!(all.sizes, [2, 1]);
        assert_eq!((all.labels[0], all.labels[(3 + 1) * 5 + 1], all.labels[44]), (1, 1, 2));
        assert_eq!(largest(&mask, [3, 3, 5], Connectivity::TwentySix).iter().filter(|&&m| m != 0).count(), 2);
        assert_eq!(largest(&[0; 4], [1, 2, 2], Connectivity::Six), [0; 4]);
    }

    #[test]
    fn cavities_are_filled_and_tunnels_are_not() {
        // A cube of 3x3x3 voxels with an empty centre, in 5x5x5.
        let mut mask = vec![0u8; 125];
        for i in 0..27 {
            let (z, y, x) = (1 + i / 9, 1 + i / 3 % 3, 1 + i % 3);
            mask[(z * 5 + y) * 5 + x] = u8::from(i != 13);
        }
        let filled = fill_holes(&mask, [5, 5, 5]);
        assert_eq!(filled.iter().filter(|&&m| m != 0).count(), 27);
        mask[(2 * 5 + 2) * 5 + 1] = 0;
        assert_eq!(fill_holes(&mask, [5, 5, 5]), mask);
    }

    /// Flood fill from each unlabelled voxel in raster order.
    fn reference(mask: &[u8], [nz, ny, nx]: [usize; 3], connectivity: Connectivity) -> Vec<u32> {
        let (mut labels, mut count) = (vec![0u32; mask.len()], 0);
        for start in 0..mask.len() {
            if mask[start] == 0 || labels[start] != 0 {
                continue;
            }
            count += 1;
            labels[start] = count;
            let mut stack = vec![start];
            while let Some(i) = stack.pop() {
                let (z, y, x) = ((i / nx / ny) as i32, (i / nx % ny) as i32, (i % nx) as i32);
                for d in 0..27i32 {
                    let (dz, dy, dx) = (d / 9 - 1, d / 3 % 3 - 1, d % 3 - 1);
                    if connectivity == Connectivity::Six && dz.abs() + dy.abs() + dx.abs() != 1 {
                        continue;
                    }
                    let (z, y, x) = (z + dz, y + dy, x + dx);
                    if z < 0 || y < 0 || x < 0 || z >= nz as i32 || y >= ny as i32 || x >= nx as i32 {
                        continue;
                    }
                    let j = (z as usize * ny + y as usize) * nx + x as usize;
                    if mask[j] != 0 && labels[j] == 0 {
                        labels[j] = count;
                        stack.push(j);
                    }
                }
            }
        }
        labels
    }

    proptest! {
        #[test]
        fn labels_equal_a_flood_fill(shape in prop::array::uniform3(1usize..8), percent in 10u32..90, seed in any::<u32>()) {
            let mut state = seed;
            let mask: Vec<u8> = (0..shape.iter().product()).map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                u8::from((state >> 16) % 100 < percent)
            }).collect();
            for connectivity in [Connectivity::Six, Connectivity::TwentySix] {
                let fast = label(&mask, shape, connectivity);
                prop_assert_eq!(&fast.labels, &reference(&mask, shape, connectivity));
                prop_assert_eq!(fast.sizes.iter().sum::<usize>(), mask.iter().filter(|&&m| m != 0).count());
            }
        }
    }
}
