//! Seconds of a training step and of a forward pass of the expert classifier:
//! `cargo run --release -p willis-nets --example examine_time`.

use mimalloc::MiMalloc;
use std::time::Instant;
use willis_kernels::runtime::allocator::CachingAllocator;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use willis_core::Switch;
use willis_nets::examine::net::{IN_CHANNELS, SIDE};
use willis_nets::examine::{Backbone, CONDITIONS, ExamineNetConfig};

#[global_allocator]
static ALLOCATOR: CachingAllocator<MiMalloc> = CachingAllocator::new(MiMalloc);

fn main() {
    let device = Device::flex();
    for (backbone, oscillators) in
        [(Backbone::Waveformer, Switch::On), (Backbone::Waveformer, Switch::Off), (Backbone::Plain, Switch::Off)]
    {
        let net = ExamineNetConfig { backbone, oscillators, ..ExamineNetConfig::default() }.init(0, &device);
        println!("{backbone:?}, oscillators {oscillators:?}, {} parameters", net.num_params());
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
    let best = (0..3).map(|_| once(&mut run)).fold(f64::INFINITY, f64::min);
    println!("{name} {best:.3} s");
}
