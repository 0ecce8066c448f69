//! Benchmarks of the kernels on the sizes that `benches/vs_pytorch` uses:
//! `cargo bench -p willis-kernels`. The name of a benchmark gives its sizes.

use divan::{Bencher, black_box, counter::ItemsCount};
use willis_kernels::attention::{self, AttentionShape};
use willis_kernels::conv3d::{Conv3dShape, forward, input_gradient, weight_gradient};
use willis_kernels::norm::{RowStats, instance_norm, layer_norm, layer_norm_backward};
use willis_kernels::pooling::{PoolShape, max_forward};
use willis_kernels::resize::{Interpolation, resize};
use willis_kernels::{activation, components, distance, linear, thinning};

fn main() {
    divan::main();
}

fn wave(length: usize) -> Vec<f32> {
    (0..length).map(|i| (i * 31 % 97) as f32 / 97.0 - 0.5).collect()
}

const LAYERS: [ConvLayer; 12] = [
    (1, 16, 96, 3, 1, 1, 1),
    (8, 8, 64, 3, 1, 1, 1),
    (16, 16, 32, 3, 1, 1, 1),
    (16, 32, 64, 3, 1, 1, 1),
    (32, 64, 48, 3, 1, 1, 1),
    (1, 16, 96, 3, 2, 1, 1),
    (16, 32, 64, 3, 2, 1, 1),
    (32, 64, 48, 3, 2, 1, 1),
    (4, 32, 128, 7, 4, 3, 1),
    (128, 128, 24, 1, 1, 0, 1),
    (64, 64, 32, 3, 1, 1, 64),
    (256, 256, 32, 3, 1, 1, 256),
];

/// Input channels, output channels, side of the input, kernel, stride, padding, groups.
type ConvLayer = (usize, usize, usize, usize, usize, usize, usize);

fn shape((inputs, outputs, side, kernel, stride, padding, groups): ConvLayer) -> Conv3dShape {
    Conv3dShape {
        batch: 1,
        in_channels: inputs,
        out_channels: outputs,
        input: [side; 3],
        kernel: [kernel; 3],
        stride: [stride; 3],
        padding: [padding; 3],
        dilation: [1; 3],
        groups,
    }
}

/// Multiply-accumulate operations, which divan reports as items.
fn work(shape: &Conv3dShape) -> ItemsCount {
    ItemsCount::new(shape.output_len() * shape.weight_len() / shape.out_channels)
}

#[divan::bench(args = LAYERS)]
fn conv_forward(bencher: Bencher, layer: ConvLayer) {
    let shape = shape(layer);
    let (x, w, mut y) = (wave(shape.input_len()), wave(shape.weight_len()), wave(shape.output_len()));
    bencher.counter(work(&shape)).bench_local(|| forward(&shape, black_box(&x), &w, None, &mut y));
}

#[divan::bench(args = LAYERS)]
fn conv_input_gradient(bencher: Bencher, layer: ConvLayer) {
    let shape = shape(layer);
    let (mut dx, w, dy) = (wave(shape.input_len()), wave(shape.weight_len()), wave(shape.output_len()));
    bencher.counter(work(&shape)).bench_local(|| input_gradient(&shape, &w, black_box(&dy), &mut dx));
}

#[divan::bench(args = LAYERS)]
fn conv_weight_gradient(bencher: Bencher, layer: ConvLayer) {
    let shape = shape(layer);
    let (x, mut dw, dy) = (wave(shape.input_len()), wave(shape.weight_len()), wave(shape.output_len()));
    bencher.counter(work(&shape)).bench_local(|| weight_gradient(&shape, black_box(&x), &dy, &mut dw));
}

#[divan::bench]
fn attention_32768_to_512(bencher: Bencher) {
    let shape = AttentionShape { batch: 1, queries: 32768, keys: 512, heads: 1, head_dim: 32 };
    let (q, kv, mut y) = (wave(shape.query_len()), wave(shape.key_value_len()), wave(shape.query_len()));
    let mut log_sums = vec![0.0; shape.queries];
    bencher.bench_local(|| attention::forward(&shape, 0.2, black_box(&q), &kv, &mut y, &mut log_sums));
}

/// Rows, inputs and outputs.
const LINEARS: [(usize, usize, usize); 4] = [(4096, 256, 1024), (4096, 1024, 256), (32768, 32, 128), (32768, 24, 72)];

#[divan::bench(args = LINEARS)]
fn linear(bencher: Bencher, (rows, inputs, outputs): (usize, usize, usize)) {
    let (x, w, b, mut y) = (wave(rows * inputs), wave(outputs * inputs), wave(outputs), vec![0.0; rows * outputs]);
    let bencher = bencher.counter(ItemsCount::new(rows * inputs * outputs));
    bencher.bench_local(|| linear::linear(inputs, black_box(&x), &w, Some(&b), &mut y));
}

#[divan::bench]
fn max_pool_32x64(bencher: Bencher) {
    let shape = PoolShape { volumes: 32, input: [64; 3], kernel: [2; 3], stride: [2; 3], padding: [0; 3] };
    let (x, mut y) = (wave(shape.input_len()), wave(shape.output_len()));
    bencher.bench_local(|| max_forward(&shape, black_box(&x), &mut y));
}

#[divan::bench]
fn trilinear_32x32_to_64(bencher: Bencher) {
    let (x, mut y) = (wave(32 * 32768), wave(32 * 262_144));
    bencher.bench_local(|| resize(32, [32; 3], [64; 3], Interpolation::Linear, black_box(&x), &mut y));
}

#[divan::bench]
fn gelu_4m(bencher: Bencher) {
    let (x, mut y) = (wave(1 << 22), wave(1 << 22));
    bencher.bench_local(|| activation::gelu(black_box(&x), &mut y));
}

#[divan::bench]
fn softmax_8x4096x512(bencher: Bencher) {
    let (x, mut y) = (wave(8 * 4096 * 512), wave(8 * 4096 * 512));
    bencher.bench_local(|| activation::softmax(512, black_box(&x), &mut y));
}

#[divan::bench]
fn layer_norm_32768x64(bencher: Bencher) {
    let (x, mut y, gain, shift) = (wave(32768 * 64), wave(32768 * 64), wave(64), wave(64));
    let mut stats = vec![RowStats::default(); 32768];
    bencher.bench_local(|| layer_norm(black_box(&x), &gain, &shift, 1e-5, &mut y, &mut stats));
}

#[divan::bench]
fn layer_norm_backward_32768x64(bencher: Bencher) {
    let (x, dy, mut dx, gain) = (wave(32768 * 64), wave(32768 * 64), wave(32768 * 64), wave(64));
    let (mut dgain, mut dshift) = (wave(64), wave(64));
    let stats = vec![RowStats { mean: 0.1, inverse_deviation: 2.0 }; 32768];
    bencher.bench_local(|| {
        layer_norm_backward(black_box(&x), &gain, &stats, &dy, &mut dx, &mut dgain, &mut dshift);
    });
}

#[divan::bench]
fn instance_norm_32x64(bencher: Bencher) {
    let (x, mut y, gain, shift) = (wave(32 * 262_144), wave(32 * 262_144), wave(32), wave(32));
    let mut stats = vec![RowStats::default(); 32];
    bencher.bench_local(|| instance_norm(262_144, black_box(&x), &gain, &shift, 1e-5, &mut y, &mut stats));
}

/// A mask of winding tubes in 128 x 256 x 256 voxels.
fn tubes() -> (Vec<u8>, [usize; 3]) {
    let shape = [128, 256, 256];
    let [_, ny, nx] = shape;
    let near = |z: usize, y: usize, x: usize| {
        (0..12).any(|k| {
            let (t, phase) = (z as f64 * 0.05, f64::from(k));
            let middle = [128.0 + 90.0 * (t + phase).sin(), 128.0 + 90.0 * (0.7 * t + 2.0 * phase).cos()];
            (y as f64 - middle[0]).hypot(x as f64 - middle[1]) < 2.0 + f64::from(k) * 0.25
        })
    };
    let mask = (0..shape.iter().product()).map(|i: usize| u8::from(near(i / ny / nx, i / nx % ny, i % nx))).collect();
    (mask, shape)
}

#[divan::bench(sample_count = 10)]
fn distance_128x256x256(bencher: Bencher) {
    let (mask, shape) = tubes();
    bencher.bench_local(|| distance::squared_distance_mm2(black_box(&mask), shape, [0.6, 0.45, 0.45]));
}

#[divan::bench(sample_count = 10)]
fn thinning_128x256x256(bencher: Bencher) {
    let (mask, shape) = tubes();
    bencher.bench_local(|| thinning::skeletonize(black_box(&mask), shape));
}

#[divan::bench(sample_count = 10)]
fn components_128x256x256(bencher: Bencher) {
    let (mask, shape) = tubes();
    bencher.bench_local(|| components::label(black_box(&mask), shape, components::Connectivity::TwentySix));
}
