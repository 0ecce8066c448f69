//! Normalisation over the last axis or over space.

use burn::tensor::Tensor;

/// Layer norm over the last axis with biased variance: `(x - mean) / sqrt(var + eps) * weight + bias`.
///
/// # Shapes      x `[..., C]`, weight and bias `[C]` -> the same as x
pub fn layer_norm<const D: usize>(x: Tensor<D>, weight: Tensor<1>, bias: Tensor<1>, eps: f64) -> Tensor<D> {
    let centred = x.clone() - x.mean_dim(D - 1);
    let variance = centred.clone().square().mean_dim(D - 1);
    centred / (variance + eps).sqrt() * weight.unsqueeze() + bias.unsqueeze()
}

/// Instance norm over space with biased variance, then a scale and a shift per channel.
///
/// # Shapes      x `[B, C, D, H, W]`, weight and bias `[C]` -> the same as x
pub fn instance_norm(x: Tensor<5>, weight: Tensor<1>, bias: Tensor<1>, eps: f64) -> Tensor<5> {
    let [batch, channels, depth, height, width] = x.dims();
    let flat = x.reshape([batch, channels, depth * height * width]);
    let centred = flat.clone() - flat.mean_dim(2);
    let variance = centred.clone().square().mean_dim(2);
    let scaled = centred / (variance + eps).sqrt() * weight.reshape([1, channels, 1]) + bias.reshape([1, channels, 1]);
    scaled.reshape([batch, channels, depth, height, width])
}
