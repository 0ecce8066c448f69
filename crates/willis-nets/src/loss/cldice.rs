//! Soft clDice: overlap of soft centrelines.
//!
//! It is built from tensor operations, because its gradient passes through every erosion. Soft
//! centrelines lose their ends and spread into backgrounds of low contrast, and computing them
//! takes many passes over memory. Skeleton recall is a cheaper loss for the same purpose. As a
//! metric, use clDice of true skeletons ([`willis_kernels::thinning`]).
//!
//! Source: Shit et al., CVPR 2021, arXiv:2003.07311.

use burn::tensor::Tensor;

use crate::ops::leaky_relu;

/// Number of erosions in the authors' code. Vessels of up to this radius in voxels are thinned to
/// their centreline.
const EROSIONS: usize = 10;

/// `1 - clDice` over a whole batch.
///
/// # Shapes
/// probability and truth (0 or 1) `[B, 1, D, H, W]` -> `[1]`
pub fn soft_cldice(probability: Tensor<5>, truth: Tensor<5>) -> Tensor<1> {
    let (predicted_skeleton, true_skeleton) = (soft_skeleton(probability.clone()), soft_skeleton(truth.clone()));
    let fraction = |part: Tensor<5>, all: Tensor<5>| (part.sum() + 1.0) / (all.sum() + 1.0);
    let precision = fraction(predicted_skeleton.clone() * truth, predicted_skeleton);
    let recall = fraction(true_skeleton.clone() * probability, true_skeleton);
    (precision.clone() * recall.clone() * 2.0 / (precision + recall)).neg() + 1.0
}

/// The union of what an opening removes from x, from x eroded once, and so on.
fn soft_skeleton(x: Tensor<5>) -> Tensor<5> {
    let mut eroded = erode(x.clone());
    let mut skeleton = relu(x - dilate(eroded.clone()));
    for _ in 0..EROSIONS {
        let next = erode(eroded.clone());
        let ridge = relu(eroded - dilate(next.clone()));
        skeleton = skeleton.clone() + relu(ridge.clone() - skeleton * ridge);
        eroded = next;
    }
    skeleton
}

/// Minimum over a voxel and its face neighbours.
fn erode(x: Tensor<5>) -> Tensor<5> {
    let least = |axis| {
        let [before, after] = neighbours(&x, axis);
        x.clone().min_pair(before).min_pair(after)
    };
    least(2).min_pair(least(3)).min_pair(least(4))
}

/// Maximum over the 3x3x3 voxels around a voxel.
fn dilate(x: Tensor<5>) -> Tensor<5> {
    (2..5).fold(x, |x, axis| {
        let [before, after] = neighbours(&x, axis);
        x.max_pair(before).max_pair(after)
    })
}

/// The preceding and the following voxel along an axis. At the border it is the voxel itself, which
/// changes neither a minimum nor a maximum.
fn neighbours(x: &Tensor<5>, axis: usize) -> [Tensor<5>; 2] {
    let side = x.dims()[axis];
    let part = |start, length| x.clone().narrow(axis, start, length);
    if side == 1 {
        return [x.clone(), x.clone()];
    }
    [
        Tensor::cat(vec![part(0, 1), part(0, side - 1)], axis),
        Tensor::cat(vec![part(1, side - 1), part(side - 1, 1)], axis),
    ]
}

fn relu(x: Tensor<5>) -> Tensor<5> {
    leaky_relu(x, 0.0)
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, TensorData};

    use super::*;
    use crate::golden;
    use crate::loss::{assert_gradient, tube};

    fn volume(values: &[f32], sides: [usize; 3], device: &Device) -> Tensor<5> {
        Tensor::from_data(TensorData::new(values.to_vec(), [1, 1, sides[0], sides[1], sides[2]]), device)
    }

    #[test]
    fn golden_values() {
        let device = Device::flex();
        let (target, pred) = tube();
        let target: Vec<f32> = target.into_iter().map(|g| f32::from(u8::from(g))).collect();
        let (p, g) = (volume(&pred, [16; 3], &device), volume(&target, [16; 3], &device));
        assert!((soft_skeleton(g.clone()).sum().into_scalar::<f32>() - 8.0).abs() < 1e-5);
        let skeleton = soft_skeleton(p.clone());
        assert!((skeleton.clone().max().into_scalar::<f32>() - 0.776_534).abs() < 1e-5);
        golden::check(skeleton, 0.046_735_2, 0.056_331_0, [], 1e-5);
        assert!((soft_cldice(p, g).into_scalar::<f32>() - 0.766_006_9).abs() < 1e-5);
    }

    #[test]
    fn gradient_equals_finite_differences() {
        let sides = [4, 5, 3];
        let count = sides.iter().product();
        let p: Vec<f32> = golden::stream("pred").take(count).map(|t| (0.5 + 0.45 * t) as f32).collect();
        let g: Vec<f32> = golden::stream("target").take(count).map(|t| f32::from(u8::from(t > 0.2))).collect();
        let (plain, autodiff) = (Device::flex(), Device::flex().autodiff());
        let loss = |p: &[f32]| {
            let loss = soft_cldice(volume(p, sides, &plain), volume(&g, sides, &plain));
            f64::from(loss.into_scalar::<f32>())
        };
        let x = volume(&p, sides, &autodiff).require_grad();
        let gradients = soft_cldice(x.clone(), volume(&g, sides, &autodiff)).backward();
        let gradient: Vec<f32> = x.grad(&gradients).unwrap().into_data().try_to_vec().unwrap();
        assert_gradient(1e-3, loss, &p, &gradient, &(0..count).collect::<Vec<_>>());
    }
}
