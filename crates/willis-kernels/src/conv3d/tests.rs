//! Tests of the forward pass and the gradients against the definition of a convolution.

use super::*;
use proptest::prelude::*;

/// Calls `visit(y index, x index, w index)` for every product of the definition.
fn for_each_product(shape: &Conv3dShape, mut visit: impl FnMut(usize, usize, usize)) {
    let flat = |index: [usize; 3], extents: [usize; 3]| (index[0] * extents[1] + index[1]) * extents[2] + index[2];
    let points_in =
        |e: [usize; 3]| (0..e[0]).flat_map(move |z| (0..e[1]).flat_map(move |y| (0..e[2]).map(move |x| [z, y, x])));
    let volume = |extents: [usize; 3]| extents.iter().product::<usize>();
    let (per_group_in, per_group_out) = (shape.in_per_group(), shape.out_per_group());
    for item in 0..shape.batch {
        for out_channel in 0..shape.out_channels {
            for channel in 0..per_group_in {
                let in_channel = out_channel / per_group_out * per_group_in + channel;
                for at in points_in(shape.output()) {
                    for tap in points_in(shape.kernel) {
                        let from: [isize; 3] = std::array::from_fn(|axis| {
                            let reach = at[axis] * shape.stride[axis] + tap[axis] * shape.dilation[axis];
                            reach as isize - shape.padding[axis] as isize
                        });
                        if (0..3).any(|axis| from[axis] < 0 || from[axis] >= shape.input[axis] as isize) {
                            continue;
                        }
                        visit(
                            (item * shape.out_channels + out_channel) * volume(shape.output())
                                + flat(at, shape.output()),
                            (item * shape.in_channels + in_channel) * volume(shape.input)
                                + flat(from.map(|index| index as usize), shape.input),
                            (out_channel * per_group_in + channel) * volume(shape.kernel) + flat(tap, shape.kernel),
                        );
                    }
                }
            }
        }
    }
}

/// Deterministic values in [-1, 1].
fn values(length: usize, seed: u32) -> Vec<f32> {
    let hash = |index: usize| (index as u32).wrapping_mul(2_654_435_761).wrapping_add(seed).wrapping_mul(2_246_822_519);
    (0..length).map(|index| (hash(index) >> 8) as f32 / (1 << 23) as f32 - 1.0).collect()
}

fn assert_close(got: &[f32], expected: &[f64], name: &str) {
    for (index, (got, expected)) in got.iter().zip(expected).enumerate() {
        let tolerance = 1e-4 * (1.0 + expected.abs());
        assert!((f64::from(*got) - expected).abs() <= tolerance, "{name}[{index}]: got {got}, expected {expected}");
    }
}

fn check(shape: &Conv3dShape) {
    let (x, w) = (values(shape.input_len(), 1), values(shape.weight_len(), 2));
    let (dy, bias) = (values(shape.output_len(), 3), values(shape.out_channels, 4));
    let volume: usize = shape.output().iter().product();
    let mut expected_y: Vec<f64> =
        (0..dy.len()).map(|index| f64::from(bias[index / volume % shape.out_channels])).collect();
    let mut expected_dx = vec![0.0; x.len()];
    let mut expected_dw = vec![0.0; w.len()];
    for_each_product(shape, |to, from, tap| {
        expected_y[to] += f64::from(x[from]) * f64::from(w[tap]);
        expected_dx[from] += f64::from(dy[to]) * f64::from(w[tap]);
        expected_dw[tap] += f64::from(dy[to]) * f64::from(x[from]);
    });
    let (mut y, mut dx, mut dw) = (vec![f32::NAN; dy.len()], vec![f32::NAN; x.len()], vec![f32::NAN; w.len()]);
    forward(shape, &x, &w, Some(&bias), &mut y);
    input_gradient(shape, &w, &dy, &mut dx);
    weight_gradient(shape, &x, &dy, &mut dw);
    assert_close(&y, &expected_y, "y");
    assert_close(&dx, &expected_dx, "dx");
    assert_close(&dw, &expected_dw, "dw");
}

fn cubic(
    channels: [usize; 2],
    side: usize,
    kernel: usize,
    stride: usize,
    padding: usize,
    groups: usize,
) -> Conv3dShape {
    Conv3dShape {
        batch: 1,
        in_channels: channels[0],
        out_channels: channels[1],
        input: [side; 3],
        kernel: [kernel; 3],
        stride: [stride; 3],
        padding: [padding; 3],
        dilation: [1; 3],
        groups,
    }
}

#[test]
fn a_box_filter_by_hand() {
    let shape = cubic([1, 1], 3, 3, 1, 1, 1);
    let mut y = vec![0.0; 27];
    forward(&shape, &[1.0; 27], &[1.0; 27], Some(&[0.5]), &mut y);
    assert_eq!([y[0], y[1], y[4], y[13]], [8.5, 12.5, 18.5, 27.5]);
}

#[test]
fn bias_and_its_gradient_are_sums() {
    let shape = Conv3dShape { batch: 2, ..cubic([1, 2], 2, 1, 1, 0, 1) };
    let dy: Vec<f32> = (0..32).map(|value| value as f32).collect();
    let mut db = vec![0.0; 2];
    bias_gradient(&shape, &dy, &mut db);
    assert_eq!(db, [(0..8).chain(16..24).sum::<i32>() as f32, (8..16).chain(24..32).sum::<i32>() as f32]);
}

#[test]
fn a_transposed_convolution_by_hand() {
    let shape = cubic([1, 1], 2, 2, 2, 0, 1);
    let w: Vec<f32> = (0..8).map(|value| value as f32).collect();
    let mut y = vec![0.0; 8];
    transpose_forward(&shape, &[2.0], &w, Some(&[1.0]), &mut y);
    assert_eq!(y, [1.0, 3.0, 5.0, 7.0, 9.0, 11.0, 13.0, 15.0]);
}

#[test]
fn layers_of_every_algorithm_match_the_definition() {
    for shape in [
        cubic([5, 9], 7, 1, 1, 0, 1),
        cubic([6, 6], 6, 3, 1, 1, 6),
        cubic([4, 8], 6, 3, 1, 1, 4),
        cubic([2, 5], 8, 4, 4, 0, 1),
        cubic([3, 4], 11, 7, 4, 3, 1),
        cubic([20, 17], 5, 3, 1, 1, 1),
        cubic([1, 2], 2, 3, 1, 0, 1),
        cubic([2, 3], 9, 2, 3, 0, 1),
        cubic([2, 3], 2, 4, 1, 0, 1),
        cubic([8, 8], 20, 3, 1, 1, 1),
        cubic([3, 37], 25, 3, 2, 1, 1),
        cubic([2, 64], 9, 2, 2, 0, 1),
        cubic([4, 32], 35, 7, 4, 3, 1),
        cubic([8, 9], 17, 3, 1, 1, 1),
        cubic([17, 8], 18, 3, 1, 2, 1),
        cubic([8, 12], 19, 3, 1, 0, 1),
        Conv3dShape { batch: 2, input: [1, 2, 33], ..cubic([16, 27], 0, 3, 1, 1, 1) },
        Conv3dShape { batch: 2, input: [5, 8, 16], padding: [0, 1, 2], ..cubic([16, 32], 0, 3, 1, 1, 2) },
        Conv3dShape { input: [3, 40, 16], ..cubic([12, 10], 0, 3, 1, 1, 1) },
        Conv3dShape { input: [9, 24, 60], dilation: [2, 1, 1], ..cubic([2, 33], 0, 3, 2, 1, 1) },
        Conv3dShape { batch: 2, input: [6, 11, 51], ..cubic([2, 32], 0, 3, 2, 0, 1) },
        Conv3dShape { batch: 2, dilation: [2, 1, 3], ..cubic([2, 40], 15, 3, 2, 2, 1) },
        Conv3dShape { stride: [1, 3, 4], padding: [0, 1, 9], ..cubic([1, 33], 8, 4, 4, 0, 1) },
    ] {
        check(&shape);
    }
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    for shape in [
        Conv3dShape { batch: 2, ..cubic([9, 10], 14, 3, 2, 1, 1) },
        Conv3dShape { batch: 2, ..cubic([9, 10], 17, 3, 1, 1, 1) },
    ] {
        check_number_of_threads(&shape);
    }
}

fn check_number_of_threads(shape: &Conv3dShape) {
    let (x, w, dy) = (values(shape.input_len(), 5), values(shape.weight_len(), 6), values(shape.output_len(), 7));
    let run = |threads| {
        let (mut y, mut dx, mut dw) = (vec![0.0; dy.len()], vec![0.0; x.len()], vec![0.0; w.len()]);
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a small pool").install(|| {
            forward(shape, &x, &w, None, &mut y);
            input_gradient(shape, &w, &dy, &mut dx);
            weight_gradient(shape, &x, &dy, &mut dw);
        });
        (y, dx, dw)
    };
    assert_eq!(run(1), run(3));
}

#[test]
fn results_do_not_depend_on_old_contents_of_scratch_memory() {
    let shape = Conv3dShape { input: [6, 10, 18], ..cubic([9, 10], 0, 3, 1, 1, 1) };
    let (x, w, dy) = (values(shape.input_len(), 5), values(shape.weight_len(), 6), values(shape.output_len(), 7));
    let run = |dirty: bool| {
        let (mut y, mut dx, mut dw) = (vec![0.0; dy.len()], vec![0.0; x.len()], vec![0.0; w.len()]);
        rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a small pool").install(|| {
            if dirty {
                let larger = cubic([16, 16], 24, 3, 1, 1, 1);
                let (x, dy) = (vec![f32::NAN; larger.input_len()], vec![f32::NAN; larger.output_len()]);
                weight_gradient(&larger, &x, &dy, &mut vec![0.0; larger.weight_len()]);
            }
            forward(&shape, &x, &w, None, &mut y);
            input_gradient(&shape, &w, &dy, &mut dx);
            weight_gradient(&shape, &x, &dy, &mut dw);
        });
        (y, dx, dw)
    };
    assert_eq!(run(true), run(false));
}

fn extents(range: std::ops::RangeInclusive<usize>) -> impl Strategy<Value = [usize; 3]> {
    [range.clone(), range.clone(), range]
}

prop_compose! {
    fn any_shape()(
        batch in 1..=2_usize, groups in 1..=3_usize, per_group in (1..=5_usize, 1..=10_usize), input in extents(1..=9),
        kernel in extents(1..=4), stride in extents(1..=4), padding in extents(0..=2), dilation in extents(1..=2),
    ) -> Conv3dShape {
        let (in_channels, out_channels) = (groups * per_group.0, groups * per_group.1);
        Conv3dShape { batch, in_channels, out_channels, input, kernel, stride, padding, dilation, groups }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn any_convolution_matches_the_definition(shape in any_shape()) {
        check(&shape);
    }
}
