//! Times the convolution kernels on the shapes that training spends its time in:
//! `cargo run --release -p willis-kernels --example conv3d_speed`.

use std::time::Instant;
use willis_kernels::conv3d::{Conv3dShape, forward, input_gradient, weight_gradient};

fn main() {
    let cases = [
        ("8->8 k3 96", layer([8, 8], 96, 3, 1, 1, 1)),
        ("8->16 k3 96", layer([8, 16], 96, 3, 1, 1, 1)),
        ("1->8 k3 96", layer([1, 8], 96, 3, 1, 1, 1)),
        ("16->32 k3 s2 48", layer([16, 32], 48, 3, 2, 1, 1)),
        ("4->32 k7 s4 96", layer([4, 32], 96, 7, 4, 3, 1)),
        ("64 depthwise k3 24", layer([64, 64], 24, 3, 1, 1, 64)),
        ("128 depthwise k3 12", layer([128, 128], 12, 3, 1, 1, 128)),
        ("512->128 k1 24", layer([512, 128], 24, 1, 1, 0, 1)),
        ("48->48 k3 24", layer([48, 48], 24, 3, 1, 1, 1)),
        ("128->128 k3 12", layer([128, 128], 12, 3, 1, 1, 1)),
        ("256->256 k3 6", layer([256, 256], 6, 3, 1, 1, 1)),
        ("32->16 k2 s2 24 (transposed)", layer([16, 32], 48, 2, 2, 0, 1)),
    ];
    println!("{:<30} {:>8} {:>18} {:>18} {:>18}", "layer", "GFLOP", "forward ms GF/s", "dX ms GF/s", "dW ms GF/s");
    for (name, shape) in cases {
        let [x, w, dy] = [shape.input_len(), shape.weight_len(), shape.output_len()].map(ramp);
        let [mut y, mut dx, mut dw] = [&dy, &x, &w].map(|like| vec![0.0; like.len()]);
        let gflop = 2.0 * (dy.len() * w.len() / shape.out_channels) as f64 / 1e9;
        print!("{name:<30} {gflop:>8.3}");
        report(gflop, || forward(&shape, &x, &w, None, &mut y));
        report(gflop, || input_gradient(&shape, &w, &dy, &mut dx));
        report(gflop, || weight_gradient(&shape, &x, &dy, &mut dw));
        println!();
    }
}

fn layer(
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

fn ramp(length: usize) -> Vec<f32> {
    (0..length).map(|index| (index * 31 % 97) as f32 / 97.0 - 0.5).collect()
}

/// Prints the best of a few runs.
fn report(gflop: f64, mut work: impl FnMut()) {
    let best = (0..7)
        .map(|_| {
            let start = Instant::now();
            work();
            start.elapsed().as_secs_f64()
        })
        .fold(f64::INFINITY, f64::min);
    print!(" {:>10.2} {:>7.1}", best * 1e3, gflop / best);
}
