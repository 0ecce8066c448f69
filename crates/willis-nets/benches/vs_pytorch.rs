//! The Rust side of the comparisons in `benches/vs_pytorch`.
//!
//! Reads requests from stdin, one JSON object per line, and answers each with one JSON line. A
//! request names an operation, its sizes and a phase. Both sides compute their inputs from the same
//! integers. `benches/vs_pytorch/compare.py` builds and starts this program.

use std::io::{BufRead, Write};
use std::time::{Duration, Instant};

use burn::tensor::{Device, Tensor, TensorData};
use mimalloc::MiMalloc;
use serde::{Deserialize, Serialize};
use willis_kernels::runtime::allocator::{CACHE_BYTES, CachingAllocator, TRAINING_CACHE_BYTES};
use willis_kernels::{distance::squared_distance_mm2, thinning::skeletonize};
use willis_nets::backbones::published::{PublishedBackbone, for_cubes};
use willis_nets::backbones::waveformer::Quirks;
use willis_nets::backbones::{BackboneConfig, BackboneKind};
use willis_nets::ops::{self, ConvOptions, Corners};
use willis_nets::weights::Precision;

#[global_allocator]
static ALLOCATOR: CachingAllocator<MiMalloc> = CachingAllocator::new(MiMalloc);

/// One request.
#[derive(Debug, Deserialize)]
struct Request {
    operation: Operation,
    /// `forward`, `step` (forward and backward) or `check`.
    phase: String,
    rounds: usize,
    /// File that `check` writes output and gradients to, as consecutive f32.
    output: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case")]
enum Operation {
    Conv { inputs: usize, outputs: usize, side: usize, kernel: usize, stride: usize, padding: usize, groups: usize },
    ConvTransposed { inputs: usize, outputs: usize, side: usize },
    MaxPool { channels: usize, side: usize },
    Trilinear { channels: usize, side: usize },
    Gelu { length: usize },
    Softmax { shape: [usize; 3] },
    LayerNorm { rows: usize, width: usize },
    InstanceNorm { channels: usize, side: usize },
    Linear { rows: usize, inputs: usize, outputs: usize },
    Attention { queries: usize, keys: usize, heads: usize, head_dim: usize },
    Net { net: String, side: usize },
    Distance { mask: String, shape: [usize; 3], spacing_mm: [f64; 3] },
    Skeleton { mask: String, shape: [usize; 3] },
    Copy { length: usize },
    Gemm { side: usize },
}

/// Answer to a request.
#[derive(Debug, Default, Serialize)]
struct Rounds {
    seconds: Vec<f64>,
    /// Peak of the resident memory during the rounds, minus the resident memory before them
    /// (weights and inputs). `None` where `/proc` is missing.
    extra_mib: Option<f64>,
}

fn main() {
    for line in std::io::stdin().lock().lines() {
        let request: Request = serde_json::from_str(&line.expect("readable stdin")).expect("a request");
        // Nets are measured with the cache of freed memory of `predict`, operations with that of
        // `train`.
        let is_net = matches!(request.operation, Operation::Net { .. });
        ALLOCATOR.set_cache_bytes(if is_net { CACHE_BYTES } else { TRAINING_CACHE_BYTES });
        let rounds = willis_kernels::runtime::keep_threads_awake(|| request.operation.run(&request));
        println!("{}", serde_json::to_string(&rounds).expect("numbers are valid JSON"));
        std::io::stdout().flush().expect("writable stdout");
    }
}

/// Pseudo-random values: `(i * 2654435761 + salt * 40503) mod 2^32`, mapped to -0.5 to 0.5, times
/// `scale`.
fn values(length: usize, salt: u64, scale: f32) -> Vec<f32> {
    let value = |i: u64| (i.wrapping_mul(2_654_435_761).wrapping_add(salt * 40_503) & 0xffff_ffff) as f64;
    (0..length as u64).map(|i| ((value(i) / 4_294_967_296.0 - 0.5) as f32) * scale).collect()
}

fn tensor<const D: usize>(shape: [usize; D], salt: u64, scale: f32, device: &Device) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values(shape.iter().product(), salt, scale), shape), device)
}

fn fan(inputs: usize) -> f32 {
    2.0 / (inputs as f32).sqrt()
}

impl Operation {
    fn run(&self, request: &Request) -> Rounds {
        match *self {
            Operation::Net { ref net, side } => backbone(request, net, side),
            Operation::Distance { ref mask, shape, spacing_mm } => {
                let mask = std::fs::read(mask).expect("a mask");
                let distance = || squared_distance_mm2(&mask, shape, spacing_mm);
                write(request, || distance().into_iter().flat_map(f32::to_le_bytes).collect());
                repeat(request.rounds, || drop(distance()))
            }
            Operation::Skeleton { ref mask, shape } => {
                let mask = std::fs::read(mask).expect("a mask");
                write(request, || skeletonize(&mask, shape));
                repeat(request.rounds, || drop(skeletonize(&mask, shape)))
            }
            Operation::Conv { inputs, outputs, side, kernel, stride, padding, groups } => {
                let options = ConvOptions { groups, ..ConvOptions::cubic(stride, padding) };
                let weight = [outputs, inputs / groups, kernel, kernel, kernel];
                let scale = fan(inputs / groups * kernel.pow(3));
                let convolve = |x, w, b: Tensor<1>| ops::conv3d(x, w, Some(b), options);
                time(request, ([1, inputs, side, side, side], weight, [outputs]), scale, convolve)
            }
            Operation::ConvTransposed { inputs, outputs, side } => {
                let shapes = ([1, inputs, side, side, side], [inputs, outputs, 2, 2, 2], [outputs]);
                time(request, shapes, fan(inputs), ops::conv_transpose3d)
            }
            Operation::MaxPool { channels, side } => {
                time(request, ([1, channels, side, side, side], [1], [1]), 1.0, |x, _, _| ops::max_pool3d(x, 2))
            }
            Operation::Trilinear { channels, side } => {
                let twice = |x, _, _| ops::resize_trilinear(x, [2 * side; 3], Corners::HalfPixel);
                time(request, ([1, channels, side, side, side], [1], [1]), 1.0, twice)
            }
            Operation::Gelu { length } => time(request, ([length], [1], [1]), 1.0, |x, _, _| ops::gelu(x)),
            Operation::Softmax { shape } => time(request, (shape, [1], [1]), 1.0, |x, _, _| ops::softmax(x)),
            Operation::LayerNorm { rows, width } => {
                time(request, ([1, rows, width], [width], [width]), 1.0, |x, w, b| ops::layer_norm(x, w, b, 1e-5))
            }
            Operation::InstanceNorm { channels, side } => {
                let shapes = ([1, channels, side, side, side], [channels], [channels]);
                time(request, shapes, 1.0, |x, w, b| ops::instance_norm(x, w, b, 1e-5))
            }
            Operation::Linear { rows, inputs, outputs } => {
                let linear = |x: Tensor<2>, w: Tensor<2>, b| ops::linear(x, w, Some(b));
                time(request, ([rows, inputs], [outputs, inputs], [outputs]), fan(inputs), linear)
            }
            Operation::Attention { queries, keys, heads, head_dim } => {
                let channels = heads * head_dim;
                let scale = 1.0 / (head_dim as f64).sqrt();
                let attend = |q, kv, _| ops::attention(q, kv, heads, scale);
                time(request, ([1, queries, channels], [1, keys, 2 * channels], [1]), 4.0, attend)
            }
            Operation::Copy { length } => {
                use rayon::prelude::*;
                let (from, mut to) = (vec![1.0f32; length], vec![0.0f32; length]);
                let part = length.div_ceil(2 * rayon::current_num_threads());
                repeat(request.rounds, || {
                    to.par_chunks_mut(part).zip(from.par_chunks(part)).for_each(|(to, from)| to.copy_from_slice(from));
                })
            }
            Operation::Gemm { side } => {
                let device = Device::flex();
                let [a, b] = [1, 2].map(|salt| tensor([side, side], salt, 1.0, &device));
                repeat(request.rounds, || drop(a.clone().matmul(b.clone()).into_data()))
            }
        }
    }
}

/// Times an operation on x, weight and bias, or writes its output and gradients.
fn time<const D: usize, const W: usize, const E: usize>(
    request: &Request,
    (x, weight, bias): ([usize; D], [usize; W], [usize; 1]),
    scale: f32,
    run: impl Fn(Tensor<D>, Tensor<W>, Tensor<1>) -> Tensor<E>,
) -> Rounds {
    let inputs =
        |device: &Device| (tensor(x, 1, 1.0, device), tensor(weight, 2, scale, device), tensor(bias, 3, 1.0, device));
    if request.phase == "forward" {
        let (x, w, b) = inputs(&Device::flex());
        return repeat(request.rounds, || drop(run(x.clone(), w.clone(), b.clone())));
    }
    let (x, w, b) = inputs(&Device::flex().autodiff());
    let (x, w, b) = (x.require_grad(), w.require_grad(), b.require_grad());
    if request.phase == "step" {
        return repeat(request.rounds, || {
            let y = run(x.clone(), w.clone(), b.clone());
            drop(y.backward());
        });
    }
    let y = run(x.clone(), w.clone(), b.clone());
    let weights = tensor(y.dims(), 4, 1.0, &y.device());
    let grads = (y.clone() * weights).sum().backward();
    let mut parts = vec![y.into_data()];
    parts.extend([x.grad(&grads).map(|g| g.into_data()), w.grad(&grads).map(|g| g.into_data())].into_iter().flatten());
    let values = parts.into_iter().flat_map(|data| data.try_to_vec::<f32>().expect("f32 results"));
    write(request, || values.flat_map(f32::to_le_bytes).collect());
    Rounds::default()
}

/// Writes results to the request's output, if it has one.
fn write(request: &Request, results: impl FnOnce() -> Vec<u8>) {
    if let Some(path) = &request.output {
        std::fs::write(path, results()).expect("a writable path");
    }
}

/// Times a backbone on `[1, 4, side, side, side]`. With an output path, its weights and its logits
/// are written there for the other side.
fn backbone(request: &Request, name: &str, side: usize) -> Rounds {
    let kind = BackboneKind::from_name(name).expect("a backbone's name");
    let mut config = for_cubes(kind.published(), side).expect("a size that the net takes");
    if let BackboneConfig::WaveFormer(config) = &mut config {
        config.quirks = Quirks::FIXED;
    }
    let training = request.phase == "step";
    let device = if training { Device::flex().autodiff() } else { Device::flex() };
    let net = PublishedBackbone::new(config, 7, &device).expect("published sizes are valid");
    let x = tensor([1, 4, side, side, side], 1, 1.0, &device);
    if let Some(path) = &request.output {
        let weights = net.weights().to_bytes(Precision::F32);
        std::fs::write(format!("{path}.safetensors"), weights).expect("a writable path");
        let logits = net.forward(x.clone()).into_data().try_to_vec::<f32>().expect("f32 logits");
        write(request, || logits.into_iter().flat_map(f32::to_le_bytes).collect());
    }
    repeat(request.rounds, || {
        let logits = net.forward(x.clone());
        if training { drop(logits.backward()) } else { drop(logits.into_data()) }
    })
}

/// Duration of the warm-up. Until then the system may keep both threads on one core.
const WARM: Duration = Duration::from_millis(50);

fn repeat(rounds: usize, mut run: impl FnMut()) -> Rounds {
    let once = |run: &mut dyn FnMut()| {
        let start = Instant::now();
        run();
        start.elapsed().as_secs_f64()
    };
    // Resets the peak of the resident memory. Other systems than Linux have no such file, and
    // report no memory.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
    let resting = resident_mib("VmRSS:");
    let warm = Instant::now();
    while rounds > 0 && warm.elapsed() < WARM {
        once(&mut run);
    }
    let seconds = (0..rounds).map(|_| once(&mut run)).collect();
    let extra_mib = resting.zip(resident_mib("VmHWM:")).map(|(resting, peak)| peak - resting);
    Rounds { seconds, extra_mib }
}

/// A figure of the process's memory from `/proc/self/status`, MiB.
fn resident_mib(name: &str) -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.trim().trim_end_matches("kB").trim().parse::<f64>().ok()? / 1024.0)
}
