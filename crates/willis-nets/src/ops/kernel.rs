//! How a CPU kernel with a hand-written backward pass becomes a burn operation. The plumbing is
//! written once for each number of inputs: one, two, and three (input, weight, bias).

use std::fmt::Debug;
use std::sync::Arc;

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension};
use burn::tensor::{DType, Device, Tensor};

use super::buffers;
use super::recompute::{Recipe, Saved};

/// A CPU kernel over `N` contiguous C-order f32 inputs whose shapes it was built for.
pub(crate) trait Kernel<const N: usize>: Debug + Send + Sync + 'static {
    /// Shape of the output.
    fn output_shape(&self) -> Vec<usize>;
    /// The output.
    fn forward(&self, inputs: [&[f32]; N]) -> Vec<f32>;
    /// What of the forward pass the backward pass needs, and so what stays in memory until then.
    fn keeps(&self) -> Keeps {
        Keeps::Inputs
    }
    /// Whether the output is kept for whoever reads it in the backward pass, or made again.
    fn remakes(&self) -> Remakes {
        Remakes::Never
    }
    /// Gradient of each input that needs one, from the inputs, the output and the output's
    /// gradient. What is not kept is empty.
    fn backward(&self, inputs: [&[f32]; N], output: &[f32], grad: &[f32], needs: [bool; N]) -> [Option<Vec<f32>>; N];
}

/// What waits for a backward pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keeps {
    Inputs,
    Output,
    Both,
    Neither,
}

/// When an output that a backward pass reads is made again instead of kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Remakes {
    /// It costs too much time.
    Never,
    /// It is cheap, and the inputs are kept anyway.
    Always,
    /// It is cheap, but the inputs are not kept: only where the first of them is made again itself.
    WithInput,
}

/// A new buffer after `fill` overwrote it.
pub(crate) fn filled(len: usize, fill: impl FnOnce(&mut [f32])) -> Vec<f32> {
    let mut values = buffers::take(len);
    fill(&mut values);
    values
}

/// Whether kernels can run where this tensor lives.
pub(crate) fn on_cpu<const D: usize>(x: &Tensor<D>) -> bool {
    x.dtype() == DType::F32 && x.device().inner() == Device::flex()
}

/// A kernel of one input as a differentiable operation.
pub(crate) fn apply1<const D: usize, const E: usize>(kernel: impl Kernel<1>, x: Tensor<D>) -> Tensor<E> {
    let kernel: Arc<dyn Kernel<1>> = Arc::new(kernel);
    Tensor::from_dispatch(<Dispatch as KernelBackend>::run_kernel1(kernel, x.into_dispatch()))
}

/// A kernel of two inputs as a differentiable operation.
pub(crate) fn apply2<const D: usize, const W: usize, const E: usize>(
    kernel: impl Kernel<2>,
    x: Tensor<D>,
    other: Tensor<W>,
) -> Tensor<E> {
    let kernel: Arc<dyn Kernel<2>> = Arc::new(kernel);
    Tensor::from_dispatch(<Dispatch as KernelBackend>::run_kernel2(kernel, x.into_dispatch(), other.into_dispatch()))
}

/// A kernel of three inputs as a differentiable operation.
pub(crate) fn apply3<const D: usize, const W: usize, const E: usize>(
    kernel: impl Kernel<3>,
    x: Tensor<D>,
    weight: Tensor<W>,
    bias: Tensor<1>,
) -> Tensor<E> {
    let kernel: Arc<dyn Kernel<3>> = Arc::new(kernel);
    let inputs = (x.into_dispatch(), weight.into_dispatch(), bias.into_dispatch());
    Tensor::from_dispatch(<Dispatch as KernelBackend>::run_kernel3(kernel, inputs.0, inputs.1, inputs.2))
}

/// Backends that can run a [`Kernel`].
#[backend_extension(Flex, Autodiff)]
trait KernelBackend: Backend {
    fn run_kernel1(kernel: Arc<dyn Kernel<1>>, x: FloatTensor<Self>) -> FloatTensor<Self>;
    fn run_kernel2(kernel: Arc<dyn Kernel<2>>, x: FloatTensor<Self>, other: FloatTensor<Self>) -> FloatTensor<Self>;
    fn run_kernel3(
        kernel: Arc<dyn Kernel<3>>,
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
    ) -> FloatTensor<Self>;
}

impl KernelBackend for Flex {
    fn run_kernel1(kernel: Arc<dyn Kernel<1>>, x: FloatTensor<Self>) -> FloatTensor<Self> {
        forward(kernel.as_ref(), [x.to_contiguous()])
    }

    fn run_kernel2(kernel: Arc<dyn Kernel<2>>, x: FloatTensor<Self>, other: FloatTensor<Self>) -> FloatTensor<Self> {
        forward(kernel.as_ref(), [x, other].map(|t| t.to_contiguous()))
    }

    fn run_kernel3(
        kernel: Arc<dyn Kernel<3>>,
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        forward(kernel.as_ref(), [x, weight, bias].map(|t| t.to_contiguous()))
    }
}

impl<C: CheckpointStrategy> KernelBackend for Autodiff<Flex, C> {
    fn run_kernel1(kernel: Arc<dyn Kernel<1>>, x: FloatTensor<Self>) -> FloatTensor<Self> {
        tracked::<C, 1>(kernel, [x])
    }

    fn run_kernel2(kernel: Arc<dyn Kernel<2>>, x: FloatTensor<Self>, other: FloatTensor<Self>) -> FloatTensor<Self> {
        tracked::<C, 2>(kernel, [x, other])
    }

    fn run_kernel3(
        kernel: Arc<dyn Kernel<3>>,
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        tracked::<C, 3>(kernel, [x, weight, bias])
    }
}

/// Runs a kernel and, where an input needs a gradient, notes its backward step.
fn tracked<C: CheckpointStrategy, const N: usize>(
    kernel: Arc<dyn Kernel<N>>,
    inputs: [FloatTensor<Autodiff<Flex, C>>; N],
) -> FloatTensor<Autodiff<Flex, C>> {
    let nodes = inputs.each_ref().map(|t| t.node());
    let ids = nodes.each_ref().map(|node| node.id());
    let inputs = inputs.map(|t| t.primitive().to_contiguous());
    match PullBack.prepare::<C>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(prep) => {
            let shapes = inputs.each_ref().map(|input| input.layout().shape().to_vec());
            let saved = || std::array::from_fn(|i| Saved::of(ids[i], &inputs[i]));
            let recipe = recipe(&kernel, saved);
            let output = forward(kernel.as_ref(), inputs.clone());
            let keeps = kernel.keeps();
            let kept = Kept {
                kernel,
                shapes,
                inputs: matches!(keeps, Keeps::Inputs | Keeps::Both).then(saved),
                output: matches!(keeps, Keeps::Output | Keeps::Both).then(|| output.clone()),
                recipe: recipe.clone(),
            };
            let output = prep.finish(kept, output);
            if let Some(recipe) = recipe {
                recipe.publish(output.node().id());
            }
            output
        }
        OpsKind::UnTracked(prep) => prep.finish(forward(kernel.as_ref(), inputs)),
    }
}

/// How to make the kernel's output again, where that pays.
fn recipe<const N: usize>(kernel: &Arc<dyn Kernel<N>>, saved: impl Fn() -> [Saved; N]) -> Option<Arc<Recipe>> {
    let remakes = kernel.remakes();
    if remakes == Remakes::Never {
        return None;
    }
    let (kernel, inputs) = (kernel.clone(), saved());
    (remakes == Remakes::Always || inputs[0].is_remade())
        .then(|| Recipe::new(move || forward(kernel.as_ref(), inputs.each_ref().map(Saved::read))))
}

/// What a kernel left for its backward step.
#[derive(Debug, Clone)]
struct Kept<const N: usize> {
    kernel: Arc<dyn Kernel<N>>,
    /// Of the inputs.
    shapes: [Vec<usize>; N],
    inputs: Option<[Saved; N]>,
    output: Option<FloatTensor<Flex>>,
    /// Lives as long as the output may be read.
    recipe: Option<Arc<Recipe>>,
}

/// The backward step of every kernel.
#[derive(Debug)]
struct PullBack;

impl<const N: usize> Backward<Flex, N> for PullBack {
    type State = Kept<N>;

    fn backward(self, ops: Ops<Self::State, N>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let grad = grads.consume::<Flex>(&ops.node).to_contiguous();
        let Kept { kernel, shapes, inputs, output, recipe } = ops.state;
        // Whoever reads the output has done so: its backward step came first.
        drop(recipe);
        let needs = ops.parents.each_ref().map(Option::is_some);
        let inputs = inputs.map(|inputs| inputs.map(|saved| saved.read()));
        let inputs = inputs.as_ref().map_or([&[][..]; N], |inputs| inputs.each_ref().map(slice));
        let output = output.as_ref().map_or(&[][..], slice);
        let found = kernel.backward(inputs, output, slice(&grad), needs);
        for ((parent, value), shape) in ops.parents.iter().zip(found).zip(shapes) {
            if let (Some(node), Some(value)) = (parent, value) {
                grads.register::<Flex>(node.id, tensor(value, shape));
            }
        }
    }
}

fn forward<const N: usize>(kernel: &dyn Kernel<N>, inputs: [FloatTensor<Flex>; N]) -> FloatTensor<Flex> {
    tensor(kernel.forward(inputs.each_ref().map(slice)), kernel.output_shape())
}

fn slice(x: &FloatTensor<Flex>) -> &[f32] {
    x.as_slice().expect("kernel inputs are contiguous f32: on_cpu is asked first")
}

fn tensor(values: Vec<f32>, shape: Vec<usize>) -> FloatTensor<Flex> {
    FloatTensor::<Flex>::from_data(buffers::data(values, shape))
}

#[cfg(test)]
pub(crate) mod tests {
    use burn::tensor::Tolerance;

    use super::*;
    use crate::golden;

    /// Asserts equal outputs and equal gradients of `sum(f(x, w, b)^2)` by three inputs of one
    /// shape.
    pub fn assert_same<const D: usize, const E: usize>(
        shape: [usize; D],
        ours: impl Fn([Tensor<D>; 3]) -> Tensor<E>,
        theirs: impl Fn([Tensor<D>; 3]) -> Tensor<E>,
    ) {
        let run = |f: &dyn Fn([Tensor<D>; 3]) -> Tensor<E>| {
            let device = Device::flex().autodiff();
            let x = golden::input(shape, &device);
            let inputs = [x.clone(), x.clone() + 0.3, x * 0.7].map(|t| t.detach().require_grad());
            let y = f(inputs.clone());
            let grads = y.clone().square().sum().backward();
            let gradients = inputs.map(|t| t.grad(&grads).map(|g| g.into_data()));
            (y.into_data(), gradients)
        };
        let ((y, gradients), (expected_y, expected)) = (run(&ours), run(&theirs));
        let tolerance = Tolerance::rel_abs(1e-4, 1e-4);
        y.assert_approx_eq::<f32>(&expected_y, tolerance);
        for (gradient, expected) in gradients.iter().zip(&expected) {
            assert_eq!(gradient.is_some(), expected.is_some());
            if let (Some(gradient), Some(expected)) = (gradient, expected) {
                gradient.assert_approx_eq::<f32>(expected, tolerance);
            }
        }
    }
}
