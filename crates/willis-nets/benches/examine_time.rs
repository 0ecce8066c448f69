//! Measures the seconds of a forward pass and of a training step of the expert classifier.
//!
//! ```text
//! cargo bench -p willis-nets --bench examine_time
//! ```

use std::time::Instant;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use mimalloc::MiMalloc;
use willis_kernels::runtime::allocator::CachingAllocator;
use willis_nets::examine::patch::{IN_CHANNELS, SIDE};
use willis_nets::examine::{CONDITIONS, ExamineNetConfig, OscillatorsChoice, PatchEncoderConfig, PlainEncoderConfig};
use willis_nets::layers::Init;

#[global_allocator]
static ALLOCATOR: CachingAllocator<MiMalloc> = CachingAllocator::new(MiMalloc);

/// Repetitions of each measurement, of which the shortest is printed.
const ROUNDS: usize = 3;

fn main() {
    let device = Device::flex();
    let full = ExamineNetConfig::default();
    let without_oscillators = ExamineNetConfig { oscillators: OscillatorsChoice::Off, ..full.clone() };
    let encoder = PatchEncoderConfig::Plain(PlainEncoderConfig::default());
    let plain = ExamineNetConfig { encoder, ..without_oscillators.clone() };
    for (name, config) in [("WaveFormer, oscillators", full), ("WaveFormer", without_oscillators), ("plain", plain)] {
        let net = config.init(&mut Init::new(0, &device));
        println!("{name}, {} parameters", net.num_params());
        for batch in [1, 4, 8] {
            let x = Tensor::<5>::ones([batch, IN_CHANNELS, SIDE, SIDE, SIDE], &device);
            let condition = Tensor::<2>::ones([batch, CONDITIONS], &device);
            time(&format!("  forward of {batch}"), || {
                drop(net.forward(x.clone(), condition.clone()).class_logit.into_data());
            });
        }
        let training = net.train();
        let x = Tensor::<5>::ones([8, IN_CHANNELS, SIDE, SIDE, SIDE], &training.device());
        let condition = Tensor::<2>::ones([8, CONDITIONS], &training.device());
        time("  step of 8", || {
            drop(training.forward(x.clone(), condition.clone()).class_logit.sum().backward());
        });
    }
}

fn time(name: &str, mut run: impl FnMut()) {
    let once = |run: &mut dyn FnMut()| {
        let start = Instant::now();
        run();
        start.elapsed().as_secs_f64()
    };
    let best = (0..ROUNDS).map(|_| once(&mut run)).fold(f64::INFINITY, f64::min);
    println!("{name} {best:.3} s");
}
