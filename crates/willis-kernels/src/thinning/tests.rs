//! Tests of thinning against values of scikit-image's `skeletonize(method='lee')` and against a
//! slow reference.

use super::skeletonize;
use proptest::prelude::*;

fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &b| (hash ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}

fn random(shape: [usize; 3], percent: u32, mut state: u32) -> Vec<u8> {
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        u8::from((state >> 16) % 100 < percent)
    };
    (0..shape.iter().product()).map(|_| next()).collect()
}

fn cube32(inside: impl Fn(f64, f64, f64) -> bool) -> Vec<u8> {
    let at = |i: usize| u8::from(inside((i / 1024) as f64, (i / 32 % 32) as f64, (i % 32) as f64));
    (0..32 * 32 * 32).map(at).collect()
}

fn torus(z: f64, y: f64, x: f64) -> bool {
    (((y - 16.0).powi(2) + (x - 16.0).powi(2)).sqrt() - 9.0).powi(2) + (z - 16.0).powi(2) <= 9.0
}

fn count(mask: &[u8]) -> usize {
    mask.iter().filter(|&&m| m != 0).count()
}

#[test]
fn skeletons_have_the_hashes_of_scikit_image() {
    let tail = |z: f64, y: f64, x: f64| (y - 16.0).powi(2) + (z - 16.0).powi(2) <= 4.0 && x >= 25.0;
    let s32 = [32; 3];
    for (name, mask, shape, before, after) in [
        ("random 12", random([12; 3], 60, 1), [12; 3], (1055, 0x7006_afe2_124a_86e8), (327, 0x46cc_9f40_226a_a29a)),
        ("random 16", random([16; 3], 75, 7), [16; 3], (3085, 0xaa1a_30a5_4b09_438c), (1549, 0xf3e1_f9b4_e8a4_4ef2)),
        ("torus", cube32(torus), s32, (1484, 0xefed_c79f_6afa_64ed), (50, 0x585d_9642_e8b7_9059)),
        (
            "torus with tail",
            cube32(|z, y, x| torus(z, y, x) || tail(z, y, x)),
            s32,
            (1535, 0x68a2_3ad6_0ee1_6418),
            (54, 0x9966_ed16_00b3_6563),
        ),
    ] {
        assert_eq!((count(&mask), fnv1a(&mask)), before, "{name}, input");
        let skeleton = skeletonize(&mask, shape);
        assert_eq!((count(&skeleton), fnv1a(&skeleton)), after, "{name}, skeleton");
    }
}

#[test]
fn a_ball_thins_to_two_voxels() {
    let mask = cube32(|z, y, x| (z - 16.0).powi(2) + (y - 16.0).powi(2) + (x - 16.0).powi(2) <= 64.0);
    assert_eq!(count(&mask), 2109);
    let skeleton = skeletonize(&mask, [32; 3]);
    let voxels: Vec<usize> = (0..skeleton.len()).filter(|&i| skeleton[i] != 0).collect();
    assert_eq!(voxels, [(16 * 32 + 16) * 32 + 16, (16 * 32 + 17) * 32 + 16]);
}

#[test]
fn solid_blocks_thin_to_few_voxels_or_none() {
    for (shape, left) in [
        ([1, 1, 1], 1),
        ([2, 2, 2], 0),
        ([3, 3, 3], 3),
        ([4, 4, 4], 0),
        ([5, 5, 5], 3),
        ([8, 8, 8], 0),
        ([9, 9, 9], 3),
        ([2, 2, 10], 0),
        ([4, 4, 20], 0),
        ([2, 3, 4], 2),
    ] {
        // With a layer of zeros around it, a block of one slice is not thinned as a 2D image.
        let [nz, ny, nx] = shape.map(|n: usize| n + 2);
        let inside = |i: usize, n: usize| i >= 1 && i + 1 < n;
        let mask: Vec<u8> = (0..nz * ny * nx)
            .map(|i| u8::from(inside(i / nx / ny, nz) && inside(i / nx % ny, ny) && inside(i % nx, nx)))
            .collect();
        assert_eq!(count(&skeletonize(&mask, [nz, ny, nx])), left, "{shape:?}");
    }
}

#[test]
fn a_tube_shortens_by_its_radius() {
    let shape = [11, 11, 40];
    let mask: Vec<u8> = (0..11 * 11 * 40)
        .map(|i: usize| u8::from((i / 40 / 11).abs_diff(5).pow(2) + (i / 40 % 11).abs_diff(5).pow(2) <= 16))
        .collect();
    let skeleton = skeletonize(&mask, shape);
    let xs: Vec<usize> = (0..skeleton.len()).filter(|&i| skeleton[i] != 0).map(|i| i % 40).collect();
    assert_eq!((xs.iter().min(), xs.iter().max(), xs.len()), (Some(&2), Some(&37), 36));
}

#[test]
fn empty_masks_stay_empty() {
    assert_eq!(skeletonize(&[0; 60], [3, 4, 5]), [0; 60]);
    assert!(skeletonize(&[], [0, 4, 5]).is_empty());
}

/// The published rules applied to the whole array.
fn reference(mask: &[u8], shape: [usize; 3]) -> Vec<u8> {
    let [nz, ny, nx] = shape.map(|n| n as i32);
    let mut image = mask.to_vec();
    let read = |image: &[u8], z: i32, y: i32, x: i32| {
        let inside = (0..nz).contains(&z) && (0..ny).contains(&y) && (0..nx).contains(&x);
        inside && image[((z * ny + y) * nx + x) as usize] != 0
    };
    let block = |image: &[u8], z: i32, y: i32, x: i32| -> Vec<bool> {
        (0..27).map(|i| read(image, z + i / 9 - 1, y + i / 3 % 3 - 1, x + i % 3 - 1)).collect()
    };
    let euler = |b: &[bool]| {
        let at = |dz: i32, dy: i32, dx: i32| i32::from(!b[(9 * (dz + 1) + 3 * (dy + 1) + dx + 1) as usize]);
        let mut sum = 0;
        for (dz, dy, dx) in (0..8).map(|o| (o / 4 * 2 - 1, o / 2 % 2 * 2 - 1, o % 2 * 2 - 1)) {
            let (fz, fy, fx) = (at(dz, 0, 0), at(0, dy, 0), at(0, 0, dx));
            let (zy, zx, yx) = (at(dz, dy, 0), at(dz, 0, dx), at(0, dy, dx));
            let edges = fz * fy * zy + fz * fx * zx + fy * fx * yx;
            let vertex = fz * fy * fx * zy * zx * yx * at(dz, dy, dx);
            sum += 8 * vertex - 4 * edges + 2 * (fz + fy + fx) - 1;
        }
        sum == 0
    };
    let simple = |b: &[bool]| {
        let mut left: Vec<usize> = (0..27).filter(|&i| i != 13 && b[i]).collect();
        let mut stack: Vec<usize> = left.pop().into_iter().collect();
        while let Some(i) = stack.pop() {
            let near = |j: &usize| {
                (i / 9).abs_diff(j / 9).max((i / 3 % 3).abs_diff(j / 3 % 3)).max((i % 3).abs_diff(j % 3)) <= 1
            };
            stack.extend(left.iter().copied().filter(near));
            left.retain(|j| !near(j));
        }
        left.is_empty()
    };
    let directions = [(0, -1, 0), (0, 1, 0), (0, 0, 1), (0, 0, -1), (1, 0, 0), (-1, 0, 0)];
    loop {
        let before = image.clone();
        for &(dz, dy, dx) in &directions[..if nz == 1 { 4 } else { 6 }] {
            let still = image.clone();
            let mut candidates = Vec::new();
            for i in 0..image.len() as i32 {
                let (z, y, x) = (i / nx / ny, i / nx % ny, i % nx);
                let b = block(&still, z, y, x);
                let end_point = b.iter().filter(|&&v| v).count() == 2;
                if b[13] && !read(&still, z + dz, y + dy, x + dx) && !end_point && euler(&b) && simple(&b) {
                    candidates.push((i, z, y, x));
                }
            }
            for (i, z, y, x) in candidates {
                if simple(&block(&image, z, y, x)) {
                    image[i as usize] = 0;
                }
            }
        }
        if image == before {
            return image;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn skeletons_equal_the_reference(shape in prop::array::uniform3(1usize..9), percent in 40u32..95, seed in any::<u32>()) {
        let mask = random(shape, percent, seed);
        prop_assert_eq!(skeletonize(&mask, shape), reference(&mask, shape));
    }
}
