//! 3D convolution and its three gradients, for any stride, padding, dilation and groups.
//!
//! Tensors are contiguous `[B, C, D, H, W]`, weights `[C_out, C_in / groups, kd, kh, kw]` as in
//! PyTorch. A *tap* is an element of the convolution kernel; *sources* and *targets* are the
//! channels that are read and written. The algorithm depends on the shape:
//!
//! - In general, a tile of the source is packed so that each tap reads at a constant offset
//!   (`layout`). It is then correlated with the weights (`correlate`: forward pass and gradient of
//!   the input) or with the gradient of the output (`reduce`: gradient of the weights).
//! - Kernels of 3×3×3 voxels at stride 1 take fewer multiplications with Winograd's transform
//!   (`winograd`).
//! - The forward pass with a stride and many channels reads the source in place (`strided`).
//! - Kernels of one voxel are matrix products (`pointwise`).
//!
//! Results do not depend on the number of threads.

mod correlate;
mod layout;
mod pointwise;
mod reduce;
mod strided;
#[cfg(test)]
mod tests;
mod winograd;

use correlate::Correlation;
use layout::AxisShape;
use rayon::prelude::*;
use reduce::Reduction;

/// Sizes of a 3D convolution; triples are `[z, y, x]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conv3dShape {
    /// B.
    pub batch: usize,
    /// C_in, a multiple of `groups`.
    pub in_channels: usize,
    /// C_out, a multiple of `groups`.
    pub out_channels: usize,
    /// Spatial extents of the input.
    pub input: [usize; 3],
    /// Spatial extents of the kernel.
    pub kernel: [usize; 3],
    /// Input voxels from one output voxel to the next, at least 1.
    pub stride: [usize; 3],
    /// Zeros added on either side of the input.
    pub padding: [usize; 3],
    /// Input voxels from one kernel element to the next, at least 1.
    pub dilation: [usize; 3],
    /// Independent groups of channels.
    pub groups: usize,
}

impl Conv3dShape {
    /// Spatial extents of the output:
    /// `(input + 2 padding - dilation (kernel - 1) - 1) / stride + 1`, or 0 along an axis where the
    /// kernel does not fit.
    pub fn output(&self) -> [usize; 3] {
        std::array::from_fn(|axis| {
            let reach = self.dilation[axis] * (self.kernel[axis] - 1) + 1;
            let padded = self.input[axis] + 2 * self.padding[axis];
            padded.checked_sub(reach).map_or(0, |rest| rest / self.stride[axis] + 1)
        })
    }

    /// Elements of the input tensor.
    pub fn input_len(&self) -> usize {
        self.batch * self.in_channels * self.input.iter().product::<usize>()
    }

    /// Elements of the output tensor.
    pub fn output_len(&self) -> usize {
        self.batch * self.out_channels * self.output().iter().product::<usize>()
    }

    /// Elements of the weight tensor.
    pub fn weight_len(&self) -> usize {
        self.out_channels * (self.in_channels / self.groups) * self.kernel.iter().product::<usize>()
    }

    fn check(&self, input: usize, weights: usize, output: usize) {
        let channels = [self.batch, self.in_channels, self.out_channels, self.groups];
        let triples = [self.input, self.kernel, self.stride, self.dilation];
        let positive = triples.as_flattened().iter().chain(&channels).all(|&extent| extent > 0);
        assert!(positive, "batch, channels, input, kernel, stride, dilation and groups must be positive: {self:?}");
        let whole = self.in_channels.is_multiple_of(self.groups) && self.out_channels.is_multiple_of(self.groups);
        assert!(whole, "groups must divide the channels: {self:?}");
        let expected = [self.input_len(), self.weight_len(), self.output_len()];
        assert_eq!([input, weights, output], expected, "lengths of input, weights, output for {self:?}");
    }

    fn axes(&self) -> [AxisShape; 3] {
        let output = self.output();
        std::array::from_fn(|axis| AxisShape {
            input: self.input[axis],
            output: output[axis],
            kernel: self.kernel[axis],
            stride: self.stride[axis],
            padding: self.padding[axis],
            dilation: self.dilation[axis],
        })
    }

    fn in_per_group(&self) -> usize {
        self.in_channels / self.groups
    }

    fn out_per_group(&self) -> usize {
        self.out_channels / self.groups
    }
}

/// Convolves `x` with `w` and adds `bias` per output channel; overwrites `y`.
///
/// # Shapes
/// x `[B, C_in, D, H, W]`, w `[C_out, C_in / groups, kd, kh, kw]`, bias `[C_out]` -> y
/// `[B, C_out, D', H', W']`
/// # Panics
/// If the length of a slice does not match `shape`, if a size in `shape` other than the padding is
/// zero, or if `groups` does not divide the channels.
pub fn forward(shape: &Conv3dShape, x: &[f32], w: &[f32], bias: Option<&[f32]>, y: &mut [f32]) {
    shape.check(x.len(), w.len(), y.len());
    assert!(bias.is_none_or(|bias| bias.len() == shape.out_channels), "one bias per output channel");
    if y.is_empty() {
        return;
    }
    let reshaped;
    let shape = match pointwise::as_lines(shape) {
        Some(lines) => {
            reshaped = lines;
            &reshaped
        }
        None if pointwise::applies(shape) => return pointwise::forward(shape, x, w, bias, y),
        None if strided::applies(shape) => return strided::forward(shape, x, w, bias, y),
        None => shape,
    };
    Correlation {
        batch: shape.batch,
        groups: shape.groups,
        sources: shape.in_per_group(),
        targets: shape.out_per_group(),
        axes: shape.axes().map(|axis| axis.forward()),
        kernel: shape.kernel,
        weights: w,
        target_stride: shape.in_per_group(),
        source_stride: 1,
        bias,
    }
    .run(x, y);
}

/// Gradient of the input of [`forward`]; overwrites `dx`.
///
/// # Shapes
/// w `[C_out, C_in / groups, kd, kh, kw]`, dy `[B, C_out, D', H', W']` -> dx `[B, C_in, D, H, W]`
/// # Panics
/// As [`forward`].
pub fn input_gradient(shape: &Conv3dShape, w: &[f32], dy: &[f32], dx: &mut [f32]) {
    shape.check(dx.len(), w.len(), dy.len());
    match pointwise::as_lines(shape) {
        Some(lines) => adjoint(&lines, w, None, dy, dx),
        None if pointwise::applies(shape) => pointwise::input_gradient(shape, w, dy, dx),
        None => adjoint(shape, w, None, dy, dx),
    }
}

/// The adjoint of [`forward`] as a function of `x`, plus a bias per input channel.
fn adjoint(shape: &Conv3dShape, w: &[f32], bias: Option<&[f32]>, dy: &[f32], dx: &mut [f32]) {
    if dy.is_empty() {
        let volume: usize = shape.input.iter().product();
        let bias = |channel: usize| bias.map_or(0.0, |bias| bias[channel % shape.in_channels]);
        return dx.chunks_mut(volume).enumerate().for_each(|(channel, values)| values.fill(bias(channel)));
    }
    Correlation {
        batch: shape.batch,
        groups: shape.groups,
        sources: shape.out_per_group(),
        targets: shape.in_per_group(),
        axes: shape.axes().map(|axis| axis.adjoint()),
        kernel: shape.kernel,
        weights: w,
        target_stride: 1,
        source_stride: shape.in_per_group(),
        bias,
    }
    .run(dy, dx);
}

/// Transposed convolution, the adjoint of the convolution that `shape` describes; overwrites `y`.
///
/// The input has the size of that convolution's output, and the output has the size of its input.
///
/// # Shapes
/// x `[B, C_out, D', H', W']`, w `[C_out, C_in / groups, kd, kh, kw]`, bias `[C_in]` ->
/// y `[B, C_in, D, H, W]`. The weights have the layout of PyTorch's `ConvTranspose3d`.
/// # Panics
/// As [`forward`].
pub fn transpose_forward(shape: &Conv3dShape, x: &[f32], w: &[f32], bias: Option<&[f32]>, y: &mut [f32]) {
    shape.check(y.len(), w.len(), x.len());
    assert!(bias.is_none_or(|bias| bias.len() == shape.in_channels), "one bias per channel of the result");
    adjoint(shape, w, bias, x, y);
}

/// Gradient of the input of [`transpose_forward`], a convolution of `dy`; overwrites `dx`.
///
/// # Shapes
/// w `[C_out, C_in / groups, kd, kh, kw]`, dy `[B, C_in, D, H, W]` -> dx `[B, C_out, D', H', W']`
/// # Panics
/// As [`forward`].
pub fn transpose_input_gradient(shape: &Conv3dShape, w: &[f32], dy: &[f32], dx: &mut [f32]) {
    forward(shape, dy, w, None, dx);
}

/// Gradient of the weights of [`transpose_forward`]; overwrites `dw`.
///
/// # Shapes
/// x `[B, C_out, D', H', W']`, dy `[B, C_in, D, H, W]` -> dw `[C_out, C_in / groups, kd, kh, kw]`
/// # Panics
/// As [`forward`].
pub fn transpose_weight_gradient(shape: &Conv3dShape, x: &[f32], dy: &[f32], dw: &mut [f32]) {
    weight_gradient(shape, dy, x, dw);
}

/// Gradient of the weights of [`forward`]; overwrites `dw`.
///
/// # Shapes
/// x `[B, C_in, D, H, W]`, dy `[B, C_out, D', H', W']` -> dw `[C_out, C_in / groups, kd, kh, kw]`
/// # Panics
/// As [`forward`].
pub fn weight_gradient(shape: &Conv3dShape, x: &[f32], dy: &[f32], dw: &mut [f32]) {
    shape.check(x.len(), dw.len(), dy.len());
    if dy.is_empty() {
        return dw.fill(0.0);
    }
    if pointwise::applies(shape) {
        return pointwise::weight_gradient(shape, x, dy, dw);
    }
    Reduction {
        batch: shape.batch,
        groups: shape.groups,
        sources: shape.in_per_group(),
        targets: shape.out_per_group(),
        axes: shape.axes().map(|axis| axis.forward()),
    }
    .run(x, dy, dw);
}

/// Gradient of the bias of [`forward`], the sum of `dy` over batch and space in f64; overwrites
/// `db`.
///
/// # Shapes
/// dy `[B, C_out, D', H', W']` -> db `[C_out]`
/// # Panics
/// If the length of a slice does not match `shape`.
pub fn bias_gradient(shape: &Conv3dShape, dy: &[f32], db: &mut [f32]) {
    assert_eq!([dy.len(), db.len()], [shape.output_len(), shape.out_channels], "lengths of dy, db for {shape:?}");
    let volume: usize = shape.output().iter().product();
    db.par_iter_mut().enumerate().for_each(|(channel, sum)| {
        let volumes = (0..shape.batch).map(|item| &dy[(item * shape.out_channels + channel) * volume..][..volume]);
        *sum = volumes.map(crate::shared::sum).sum::<f64>() as f32;
    });
}
