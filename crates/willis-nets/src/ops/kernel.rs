//! Connects CPU kernels with hand-written backward passes to burn's autodiff, once for each number
//! of inputs: one, two, and three (input, weight, bias).

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
use super::recompute::{Recomputation, SavedTensor};

/// A differentiable CPU kernel over `N` contiguous C-order f32 inputs whose shapes it was built
/// for.
pub(crate) trait CpuKernel<const N: usize>: Debug + Send + Sync + 'static {
    /// Shape of the output.
    fn output_shape(&self) -> Vec<usize>;
    /// Computes the output.
    fn forward(&self, inputs: [&[f32]; N]) -> Vec<f32>;
    /// The tensors that [`Self::backward`] reads. They stay in memory until then.
    fn saved_for_backward(&self) -> SavedForBackward {
        SavedForBackward::Inputs
    }
    /// Whether other backward passes that read the output get it from memory or recompute it.
    fn recompute(&self) -> RecomputeOutput {
        RecomputeOutput::Never
    }
    /// Computes the gradient of each input that needs one, from the inputs, the output and the
    /// gradient of the output. Slices of tensors that were not saved are empty.
    fn backward(&self, inputs: [&[f32]; N], output: &[f32], grad: &[f32], needs: [bool; N]) -> [Option<Vec<f32>>; N];
}

/// The tensors that a kernel saves for its backward pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SavedForBackward {
    Inputs,
    Output,
    Both,
    Neither,
}

/// When the output of a kernel is recomputed in the backward pass instead of saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RecomputeOutput {
    /// Recomputing takes too long.
    Never,
    /// Recomputing is cheap, and the inputs are saved anyway.
    Always,
    /// Recomputing is cheap, but the inputs are not saved: recompute only if the first input is
    /// itself recomputed.
    WithInput,
}

/// Returns a buffer after `fill` overwrote it.
pub(crate) fn filled(len: usize, fill: impl FnOnce(&mut [f32])) -> Vec<f32> {
    let mut values = buffers::take(len);
    fill(&mut values);
    values
}

/// Whether the CPU kernels can run on this tensor.
pub(crate) fn on_cpu<const D: usize>(x: &Tensor<D>) -> bool {
    x.dtype() == DType::F32 && x.device().inner() == Device::flex()
}

/// Applies a kernel of one input as a differentiable operation.
pub(crate) fn apply1<const D: usize, const E: usize>(kernel: impl CpuKernel<1>, x: Tensor<D>) -> Tensor<E> {
    let kernel: Arc<dyn CpuKernel<1>> = Arc::new(kernel);
    Tensor::from_dispatch(<Dispatch as KernelBackend>::run_kernel1(kernel, x.into_dispatch()))
}

/// Applies a kernel of two inputs as a differentiable operation.
pub(crate) fn apply2<const D: usize, const W: usize, const E: usize>(
    kernel: impl CpuKernel<2>,
    x: Tensor<D>,
    other: Tensor<W>,
) -> Tensor<E> {
    let kernel: Arc<dyn CpuKernel<2>> = Arc::new(kernel);
    Tensor::from_dispatch(<Dispatch as KernelBackend>::run_kernel2(kernel, x.into_dispatch(), other.into_dispatch()))
}

/// Applies a kernel of three inputs as a differentiable operation.
pub(crate) fn apply3<const D: usize, const W: usize, const E: usize>(
    kernel: impl CpuKernel<3>,
    x: Tensor<D>,
    weight: Tensor<W>,
    bias: Tensor<1>,
) -> Tensor<E> {
    let kernel: Arc<dyn CpuKernel<3>> = Arc::new(kernel);
    let inputs = (x.into_dispatch(), weight.into_dispatch(), bias.into_dispatch());
    Tensor::from_dispatch(<Dispatch as KernelBackend>::run_kernel3(kernel, inputs.0, inputs.1, inputs.2))
}

/// Backends that can run a [`CpuKernel`].
#[backend_extension(Flex, Autodiff)]
trait KernelBackend: Backend {
    fn run_kernel1(kernel: Arc<dyn CpuKernel<1>>, x: FloatTensor<Self>) -> FloatTensor<Self>;
    fn run_kernel2(kernel: Arc<dyn CpuKernel<2>>, x: FloatTensor<Self>, other: FloatTensor<Self>) -> FloatTensor<Self>;
    fn run_kernel3(
        kernel: Arc<dyn CpuKernel<3>>,
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
    ) -> FloatTensor<Self>;
}

impl KernelBackend for Flex {
    fn run_kernel1(kernel: Arc<dyn CpuKernel<1>>, x: FloatTensor<Self>) -> FloatTensor<Self> {
        forward(kernel.as_ref(), [x.to_contiguous()])
    }

    fn run_kernel2(kernel: Arc<dyn CpuKernel<2>>, x: FloatTensor<Self>, other: FloatTensor<Self>) -> FloatTensor<Self> {
        forward(kernel.as_ref(), [x, other].map(|t| t.to_contiguous()))
    }

    fn run_kernel3(
        kernel: Arc<dyn CpuKernel<3>>,
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        forward(kernel.as_ref(), [x, weight, bias].map(|t| t.to_contiguous()))
    }
}

impl<C: CheckpointStrategy> KernelBackend for Autodiff<Flex, C> {
    fn run_kernel1(kernel: Arc<dyn CpuKernel<1>>, x: FloatTensor<Self>) -> FloatTensor<Self> {
        tracked::<C, 1>(kernel, [x])
    }

    fn run_kernel2(kernel: Arc<dyn CpuKernel<2>>, x: FloatTensor<Self>, other: FloatTensor<Self>) -> FloatTensor<Self> {
        tracked::<C, 2>(kernel, [x, other])
    }

    fn run_kernel3(
        kernel: Arc<dyn CpuKernel<3>>,
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        tracked::<C, 3>(kernel, [x, weight, bias])
    }
}

/// Runs a kernel and, if an input needs a gradient, registers its backward step.
fn tracked<C: CheckpointStrategy, const N: usize>(
    kernel: Arc<dyn CpuKernel<N>>,
    inputs: [FloatTensor<Autodiff<Flex, C>>; N],
) -> FloatTensor<Autodiff<Flex, C>> {
    let nodes = inputs.each_ref().map(|t| t.node());
    let ids = nodes.each_ref().map(|node| node.id());
    let inputs = inputs.map(|t| t.primitive().to_contiguous());
    match KernelBackward.prepare::<C>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(prep) => {
            let shapes = inputs.each_ref().map(|input| input.layout().shape().to_vec());
            let saved_inputs = || std::array::from_fn(|i| SavedTensor::new(ids[i], &inputs[i]));
            let recomputation = recomputation(&kernel, saved_inputs);
            let output = forward(kernel.as_ref(), inputs.clone());
            let saved = kernel.saved_for_backward();
            let state = BackwardState {
                kernel,
                shapes,
                inputs: matches!(saved, SavedForBackward::Inputs | SavedForBackward::Both).then(saved_inputs),
                output: matches!(saved, SavedForBackward::Output | SavedForBackward::Both).then(|| output.clone()),
                recomputation: recomputation.clone(),
            };
            let output = prep.finish(state, output);
            if let Some(recomputation) = recomputation {
                recomputation.register(output.node().id());
            }
            output
        }
        OpsKind::UnTracked(prep) => prep.finish(forward(kernel.as_ref(), inputs)),
    }
}

/// The recomputation of the kernel's output, if the kernel asks for one.
fn recomputation<const N: usize>(
    kernel: &Arc<dyn CpuKernel<N>>,
    saved_inputs: impl Fn() -> [SavedTensor; N],
) -> Option<Arc<Recomputation>> {
    let recompute = kernel.recompute();
    if recompute == RecomputeOutput::Never {
        return None;
    }
    let (kernel, inputs) = (kernel.clone(), saved_inputs());
    (recompute == RecomputeOutput::Always || inputs[0].is_recomputed())
        .then(|| Recomputation::new(move || forward(kernel.as_ref(), inputs.each_ref().map(SavedTensor::read))))
}

/// What a kernel saved for its backward step.
#[derive(Debug, Clone)]
struct BackwardState<const N: usize> {
    kernel: Arc<dyn CpuKernel<N>>,
    /// Shapes of the inputs.
    shapes: [Vec<usize>; N],
    inputs: Option<[SavedTensor; N]>,
    output: Option<FloatTensor<Flex>>,
    /// Keeps the recomputation alive while the output may be read.
    recomputation: Option<Arc<Recomputation>>,
}

/// The backward step of every kernel.
#[derive(Debug)]
struct KernelBackward;

impl<const N: usize> Backward<Flex, N> for KernelBackward {
    type State = BackwardState<N>;

    fn backward(self, ops: Ops<Self::State, N>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let grad = grads.consume::<Flex>(&ops.node).to_contiguous();
        let BackwardState { kernel, shapes, inputs, output, recomputation } = ops.state;
        // The backward steps of all readers of the output came before this one.
        drop(recomputation);
        let needs = ops.parents.each_ref().map(Option::is_some);
        let inputs = inputs.map(|inputs| inputs.map(|saved| saved.read()));
        let inputs = inputs.as_ref().map_or([&[][..]; N], |inputs| inputs.each_ref().map(slice));
        let output = output.as_ref().map_or(&[][..], slice);
        let gradients = kernel.backward(inputs, output, slice(&grad), needs);
        for ((parent, gradient), shape) in ops.parents.iter().zip(gradients).zip(shapes) {
            if let (Some(node), Some(gradient)) = (parent, gradient) {
                grads.register::<Flex>(node.id, tensor(gradient, shape));
            }
        }
    }
}

fn forward<const N: usize>(kernel: &dyn CpuKernel<N>, inputs: [FloatTensor<Flex>; N]) -> FloatTensor<Flex> {
    tensor(kernel.forward(inputs.each_ref().map(slice)), kernel.output_shape())
}

fn slice(x: &FloatTensor<Flex>) -> &[f32] {
    x.as_slice().expect("kernel inputs are contiguous f32, because on_cpu is checked first")
}

fn tensor(values: Vec<f32>, shape: Vec<usize>) -> FloatTensor<Flex> {
    FloatTensor::<Flex>::from_data(buffers::data(values, shape))
}

#[cfg(test)]
pub(crate) mod tests {
    use burn::tensor::Tolerance;

    use super::*;
    use crate::golden;

    /// Asserts that two functions of three inputs of one shape have equal outputs, and that
    /// `sum(f(x, w, b)^2)` has equal gradients with respect to all inputs.
    pub fn assert_same<const D: usize, const E: usize>(
        shape: [usize; D],
        kernel: impl Fn([Tensor<D>; 3]) -> Tensor<E>,
        reference: impl Fn([Tensor<D>; 3]) -> Tensor<E>,
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
        let ((y, gradients), (expected_y, expected)) = (run(&kernel), run(&reference));
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
