//! The generator of parameters and inputs for golden tests, and the comparison with golden values.
//!
//! The golden values of the specification were computed with the same generator: SplitMix64, seeded
//! by the FNV-1a hash of a name.

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};

use crate::weights::Weights;

/// The 64-bit FNV-1a hash of a name.
pub fn seed(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

/// The random stream of a name as integers `u 2^24`, u uniform in `[0, 1)`.
pub fn keys(name: &str) -> impl Iterator<Item = u64> {
    let seed = seed(name);
    (1u64..).map(move |i| {
        let mut z = seed.wrapping_add(i.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^= z >> 31;
        z >> 40
    })
}

/// The random stream of a name: values `2u - 1`, u uniform in `[0, 1)`.
pub fn stream(name: &str) -> impl Iterator<Item = f64> {
    keys(name).map(|key| key as f64 / (1u64 << 24) as f64 * 2.0 - 1.0)
}

/// The values of a parameter, from its name in the official state dict and its shape.
pub fn parameter(name: &str, shape: &[usize]) -> Vec<f32> {
    let numel: usize = shape.iter().product();
    let value = |t: f64| match shape {
        [_, _, ..] => t * (3.0 / (numel / shape[0]) as f64).sqrt(),
        _ if name.ends_with("weight") || name.ends_with("running_var") => 1.0 + 0.1 * t,
        _ if name.ends_with("running_mean") => 0.1 * t,
        _ => 0.05 * t,
    };
    stream(name).take(numel).map(|t| value(t) as f32).collect()
}

/// Returns the net with generated parameters; `names` are pairs (our prefix, official prefix).
pub fn fill<M: Module>(net: M, names: &[(&str, &str)]) -> M {
    let weights = Weights::of(&net).renamed(names);
    let filled = weights.map(parameter).renamed(&names.iter().map(|&(a, b)| (b, a)).collect::<Vec<_>>());
    filled.apply(net).expect("names and shapes are those of the net")
}

/// The generated input, the same for every net.
pub fn input<const D: usize>(shape: [usize; D], device: &Device) -> Tensor<D> {
    let values: Vec<f32> = stream("input").take(shape.iter().product()).map(|t| t as f32).collect();
    Tensor::from_data(TensorData::new(values, shape), device)
}

/// Asserts the mean, the standard deviation and single values of an output.
pub fn check<const D: usize>(
    output: Tensor<D>,
    mean: f64,
    deviation: f64,
    probes: impl IntoIterator<Item = (usize, f64)>,
    tolerance: f64,
) {
    let values: Vec<f32> = output.into_data().try_to_vec::<f32>().expect("f32 output");
    let n = values.len() as f64;
    let got_mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
    let got_deviation = (values.iter().map(|&v| (f64::from(v) - got_mean).powi(2)).sum::<f64>() / n).sqrt();
    assert!((got_mean - mean).abs() <= 1e-4 * mean.abs().max(deviation / 10.0), "mean {got_mean}, expected {mean}");
    assert!((got_deviation - deviation).abs() <= 1e-4 * deviation, "deviation {got_deviation}, expected {deviation}");
    for (index, expected) in probes {
        let got = f64::from(values[index]);
        assert!((got - expected).abs() <= tolerance, "[{index}] {got}, expected {expected}");
    }
}

#[test]
fn the_generator_matches_its_check_values() {
    assert_eq!(seed("input"), 0x1ebb_ae8f_5810_b65b);
    for (t, u) in stream("input").zip([0.097_818_32, 0.652_360_38, 0.203_624_25, 0.274_444_64]) {
        assert!(((t + 1.0) / 2.0 - u).abs() < 1e-8);
    }
}
