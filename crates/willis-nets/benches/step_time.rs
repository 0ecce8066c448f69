//! Measures the seconds of a forward pass and of a training step of the vessel net.
//!
//! ```text
//! cargo bench -p willis-nets --bench step_time             # or `-- quick` for one size
//! ```

use std::time::Instant;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use mimalloc::MiMalloc;
use willis_kernels::runtime::allocator::CachingAllocator;
use willis_nets::layers::Init;
use willis_nets::loss::segmentation::{CHANNELS, SegmentationLossConfig, SegmentationTarget, segmentation_loss};
use willis_nets::ops::with_gradient;
use willis_nets::segment::SegmentNetConfig;

#[global_allocator]
static ALLOCATOR: CachingAllocator<MiMalloc> = CachingAllocator::new(MiMalloc);

fn main() {
    let device = Device::flex();
    let net = SegmentNetConfig::default().init(&mut Init::new(0, &device));
    println!("{} parameters", net.num_params());
    let quick = std::env::args().any(|arg| arg == "quick");
    let sizes: &[(usize, usize)] = if quick { &[(1, 64)] } else { &[(1, 64), (2, 64), (1, 96)] };
    for &(batch, side) in sizes {
        let voxels = batch * side * side * side;
        let x = Tensor::<5>::ones([batch, 4, side, side, side], &device);
        println!("{batch} x {side}^3");
        time("  forward", || drop(net.forward(x.clone()).into_data()));
        let training = net.clone().train();
        let x = Tensor::<5>::ones([batch, 4, side, side, side], &training.device());
        let sites: Vec<u8> = (0..voxels).map(|i| if i % 50 == 0 { (i % 14) as u8 } else { 0 }).collect();
        let target = SegmentationTarget { sites: &sites, aneurysm: &vec![0.0; voxels], tube: &sites };
        let values = vec![0.0; voxels * CHANNELS];
        let loss = || segmentation_loss(values.clone(), batch, target, &SegmentationLossConfig::default());
        time("  loss", || drop(loss()));
        time("  step", || {
            let logits = training.forward(x.clone());
            let values = logits.clone().into_data().try_into_vec().expect("f32 logits");
            let loss = segmentation_loss(values, batch, target, &SegmentationLossConfig::default());
            drop(with_gradient(logits, loss.gradient).backward());
        });
    }
}

fn time(name: &str, mut run: impl FnMut() + Send) {
    let once = |run: &mut (dyn FnMut() + Send)| {
        let start = Instant::now();
        willis_kernels::runtime::keep_threads_awake(&mut *run);
        start.elapsed().as_secs_f64()
    };
    let best = (0..4).map(|_| once(&mut run)).fold(f64::INFINITY, f64::min);
    println!("{name} {best:.3} s");
}
