use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::features::{Feature, tile_features};
use super::*;
use crate::streams::Streams;

const FEATURES: [Feature; 2] = [Feature::Scaled { low: -1.0, high: 1.0 }, Feature::Scaled { low: -1.0, high: 1.0 }];

/// Every kind of stream: both axes to third order, both diagonals, a weighted Laplacian.
fn streams() -> Streams {
    let directions = [(vec![1.0, 0.0], 3), (vec![0.0, 1.0], 3), (vec![1.0, 1.0], 3), (vec![1.0, -1.0], 2)];
    Streams::new(2, &directions, &[vec![(0, 1.0), (1, 2.0)]])
}

fn outputs<F: Real>(net: &Mlp, parameters: &[F], streams: &Streams, features: &[Feature], points: &[f64]) -> Vec<F> {
    let tile = PointTile { points: points.len() / 2, features: tile_features(features, streams, points) };
    let mut workspace = Workspace::default();
    net.forward(parameters, streams, &tile, &mut workspace);
    workspace.output
}

/// §6.9 of the specification: numbers of an independent program.
#[test]
fn published_values() {
    let net = Mlp::new(&[2, 3, 2, 1], NetActivation::Tanh);
    let parameters: [f64; 20] = [
        0.5, -0.3, 0.2, 0.8, -0.6, 0.1, 0.1, -0.2, 0.3, // first layer
        0.7, -0.2, 0.4, 0.1, 0.9, -0.5, 0.05, -0.05, // second
        1.0, -1.0, 0.2, // last
    ];
    let streams = streams();
    let got = outputs(&net, &parameters, &streams, &FEATURES, &[0.4, -0.7]);
    let [x, y, sum] = [0, 1, 2].map(|i| &streams.directions()[i]);
    let mixed = (got[sum.stream(2)] - got[x.stream(2)] - got[y.stream(2)]) / 2.0;
    for (got, want) in [
        (got[0], 1.142_470_731_83),
        (got[x.stream(1)], -0.343_081_602_685),
        (got[y.stream(1)], -0.481_746_289_172),
        (got[x.stream(2)], -0.262_751_382_348),
        (mixed, -0.184_954_494_579),
        (got[y.stream(2)], -0.600_842_557_384),
        (got[streams.laplacians()[0].stream], -0.262_751_382_348 - 2.0 * 0.600_842_557_384),
    ] {
        assert!((got - want).abs() < 1e-10, "{got} {want}");
    }
    let single: Vec<f32> = outputs(&net, &parameters.map(|p| p as f32), &streams, &FEATURES, &[0.4, -0.7]);
    for (single, double) in single.iter().zip(&got) {
        assert!((f64::from(*single) - double).abs() < 2e-6, "{single} {double}");
    }
}

/// The net written as the obvious loop over one point.
fn slow_value(net: &Mlp, parameters: &[f64], features: &[Feature], point: [f64; 2]) -> f64 {
    let mut a: Vec<f64> = tile_features(features, &Streams::value_only(2), &point);
    for (i, layer) in net.layers().iter().enumerate() {
        let weights = &parameters[layer.weights.clone()];
        let z = (0..layer.outputs).map(|o| {
            let sum: f64 = (0..layer.inputs).map(|i| weights[o * layer.inputs + i] * a[i]).sum();
            sum + parameters[layer.biases.clone()][o]
        });
        let is_last = i + 1 == net.layers().len();
        a = z
            .map(|z| match net.activation {
                _ if is_last => z,
                NetActivation::Tanh => z.tanh(),
                NetActivation::Sine => z.sin(),
            })
            .collect();
    }
    a[0]
}

fn cases() -> Vec<(Mlp, [Feature; 2])> {
    let periodic = Feature::Periodic { period: 3.0, harmonics: 2 };
    vec![
        (Mlp::new(&[2, 7, 5, 1], NetActivation::Tanh), FEATURES),
        (Mlp::new(&[5, 6, 6, 1], NetActivation::Sine), [periodic, Feature::Scaled { low: 0.0, high: 4.0 }]),
    ]
}

#[test]
fn derivatives_equal_differences_of_the_slow_net() {
    let streams = streams();
    for (net, features) in cases() {
        let parameters: Vec<f64> = net.init(1.0, &mut ChaCha8Rng::seed_from_u64(4));
        let points = [0.3, -0.2, -0.6, 0.9, 0.1, 0.5];
        let got = outputs(&net, &parameters, &streams, &features, &points);
        for (p, point) in points.chunks(2).enumerate() {
            let stream = |stream: usize| got[stream * 3 + p];
            let mut seconds = Vec::new();
            for direction in streams.directions() {
                let h = 2e-3;
                let at = |k: f64| {
                    let moved = [0, 1].map(|i| point[i] + k * h * direction.vector[i]);
                    slow_value(&net, &parameters, &features, moved)
                };
                let first = (at(-2.0) - 8.0 * at(-1.0) + 8.0 * at(1.0) - at(2.0)) / (12.0 * h);
                let second = (-at(-2.0) + 16.0 * at(-1.0) - 30.0 * at(0.0) + 16.0 * at(1.0) - at(2.0)) / (12.0 * h * h);
                let third = (at(2.0) - 2.0 * at(1.0) + 2.0 * at(-1.0) - at(-2.0)) / (2.0 * h * h * h);
                for (order, want, tolerance) in [(1, first, 1e-7), (2, second, 1e-6), (3, third, 2e-3)] {
                    if order <= direction.order {
                        let got = stream(direction.stream(order));
                        assert!((got - want).abs() < tolerance * (1.0 + want.abs()), "{order}: {got} {want}");
                    }
                }
                seconds.push(stream(direction.stream(2)));
            }
            assert!((stream(0) - slow_value(&net, &parameters, &features, [point[0], point[1]])).abs() < 1e-12);
            assert!((stream(streams.laplacians()[0].stream) - seconds[0] - 2.0 * seconds[1]).abs() < 1e-12);
        }
    }
}

/// The adjoint against central differences of a weighted sum of every stream.
#[test]
fn gradients_equal_finite_differences() {
    let streams = streams();
    for (net, features) in cases() {
        let mut parameters: Vec<f64> = net.init(1.0, &mut ChaCha8Rng::seed_from_u64(5));
        let points = [0.3, -0.2, -0.6, 0.9, 0.1, 0.5];
        let weights: Vec<f64> = (0..streams.count() * 3).map(|i| (i as f64 * 1.7).sin()).collect();
        let tile = PointTile { points: 3, features: tile_features(&features, &streams, &points) };
        let mut workspace = Workspace::default();
        net.forward(&parameters, &streams, &tile, &mut workspace);
        workspace.output_bar.clone_from(&weights);
        let mut gradient = vec![0.0; net.parameter_count()];
        net.backward(&parameters, &streams, &tile, &mut workspace, &mut gradient);
        for i in 0..parameters.len() {
            let (h, old) = (1e-5, parameters[i]);
            let mut at = |value: f64| {
                parameters[i] = value;
                net.forward(&parameters, &streams, &tile, &mut workspace);
                workspace.output.iter().zip(&weights).map(|(a, b)| a * b).sum::<f64>()
            };
            let want = (at(old + h) - at(old - h)) / (2.0 * h);
            at(old);
            parameters[i] = old;
            assert!((gradient[i] - want).abs() < 1e-6 * (1.0 + want.abs()), "{i}: {} {want}", gradient[i]);
        }
    }
}
