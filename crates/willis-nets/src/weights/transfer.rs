//! Transfer of a pre-trained encoder into a net with other input channels or windows.

use super::{Mismatch, Weights, WeightsError};

/// Returns the weights of a net with those of a pre-trained encoder in place of its own, whose
/// names start with `prefix`.
///
/// Two parameters may differ in shape:
///
/// - A convolution may have other input channels. Only the kernels of the first channel, the
///   intensity in all our nets, are transferred; the other channels keep the net's own kernels.
///   Zeros there made a classifier whose best evidence is in these channels learn far worse than
///   from scratch (`docs/pretraining.md`).
/// - Tables of WaveFormer's relative position bias are interpolated to another window size, as is
///   usual for windowed attention (Liu et al., ICCV 2021, arXiv:2103.14030).
///
/// # Errors
/// [`WeightsError::Mismatch`] if the parameters are not those of the net's encoder
pub fn transfer_encoder(net: Weights, prefix: &str, encoder: &Weights) -> Result<Weights, WeightsError> {
    let mut transferred = Weights::default();
    for (name, shape, values) in encoder.iter() {
        let own_name = format!("{prefix}{name}");
        let converted = match (net.shape(&own_name), net.get(&own_name)) {
            (Some(own_shape), Some(own)) if own_shape != shape => {
                converted(name, (shape, values), (own_shape, own)).map(|values| (own_shape, values))
            }
            _ => None,
        };
        let (shape, values) = converted.unwrap_or_else(|| (shape, values.to_vec()));
        transferred.insert(name, shape.to_vec(), values);
    }
    let mismatch = Mismatch::between(&net.under(prefix), &transferred);
    if !mismatch.is_empty() {
        return Err(mismatch.into());
    }
    let mut weights = net;
    for (name, shape, values) in transferred.iter() {
        weights.insert(format!("{prefix}{name}"), shape.to_vec(), values.to_vec());
    }
    Ok(weights)
}

/// The encoder's values in the shape of the net's own; `None` if the shapes are not convertible.
fn converted(
    name: &str,
    (shape, values): (&[usize], &[f32]),
    (own_shape, own): (&[usize], &[f32]),
) -> Option<Vec<f32>> {
    match (shape, own_shape) {
        ([outputs, inputs, kernel @ ..], [own_outputs, own_inputs, own_kernel @ ..]) if kernel.len() == 3 => {
            let kernel: usize = (outputs == own_outputs && kernel == own_kernel).then(|| kernel.iter().product())?;
            Some(first_channel(values.chunks(inputs * kernel), own.chunks(own_inputs * kernel), kernel))
        }
        ([rows, heads], [own_rows, own_heads])
            if name.ends_with("relative_position_bias_table") && heads == own_heads =>
        {
            Some(interpolated(values, cube_root(*rows)?, cube_root(*own_rows)?, *heads))
        }
        _ => None,
    }
}

/// The net's own kernels with the encoder's kernel for the first input channel.
fn first_channel<'a>(
    encoder: impl Iterator<Item = &'a [f32]>,
    own: impl Iterator<Item = &'a [f32]>,
    kernel: usize,
) -> Vec<f32> {
    encoder.zip(own).flat_map(|(pretrained, own)| pretrained[..kernel].iter().chain(&own[kernel..])).copied().collect()
}

/// Resizes a table over a cube of displacements by trilinear interpolation with aligned corners.
///
/// # Shapes
/// values `[from³, columns]` -> `[to³, columns]`
fn interpolated(values: &[f32], from: usize, to: usize, columns: usize) -> Vec<f32> {
    let tap = |i: usize| {
        let position = i as f32 * (from - 1) as f32 / (to - 1).max(1) as f32;
        let low = (position as usize).min(from.saturating_sub(2));
        [(low, 1.0 - (position - low as f32)), ((low + 1).min(from - 1), position - low as f32)]
    };
    let mut table = Vec::with_capacity(to.pow(3) * columns);
    for (z, y) in (0..to).flat_map(|z| (0..to).map(move |y| (z, y))) {
        for x in 0..to {
            let row = table.len();
            table.resize(row + columns, 0.0);
            for ((z, wz), (y, wy)) in tap(z).into_iter().flat_map(|z| tap(y).map(|y| (z, y))) {
                for (x, wx) in tap(x) {
                    let source = &values[((z * from + y) * from + x) * columns..][..columns];
                    table[row..].iter_mut().zip(source).for_each(|(to, &v)| *to += wz * wy * wx * v);
                }
            }
        }
    }
    table
}

fn cube_root(n: usize) -> Option<usize> {
    (1..=n).take_while(|side| side.pow(3) <= n).find(|side| side.pow(3) == n)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(name: &str, shape: Vec<usize>) -> Weights {
        let mut weights = Weights::default();
        let count = shape.iter().product::<usize>();
        weights.insert(name, shape, (0..count).map(|i| i as f32 + 1.0).collect());
        weights
    }

    #[test]
    fn other_input_channels_keep_their_kernels() {
        let weights = transfer_encoder(
            one("net.conv.weight", vec![2, 3, 1, 1, 2]),
            "net.",
            &one("conv.weight", vec![2, 2, 1, 1, 2]),
        );
        assert_eq!(
            weights.unwrap().get("net.conv.weight").unwrap(),
            [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 5.0, 6.0, 9.0, 10.0, 11.0, 12.0]
        );
    }

    #[test]
    fn a_resized_bias_table_keeps_its_corners_and_centre() {
        let name = "attn.relative_position_bias_table";
        let encoder = one(name, vec![27, 2]);
        let weights = transfer_encoder(one(name, vec![125, 2]), "", &encoder).unwrap();
        let (small, large) = (encoder.get(name).unwrap(), weights.get(name).unwrap());
        assert_eq!((small[..2].to_vec(), small[52..].to_vec()), (large[..2].to_vec(), large[248..].to_vec()));
        assert_eq!(small[26..28], large[124..126]);
        // The second row is halfway between the first two of the smaller table.
        assert_eq!(large[2..4], [2.0, 3.0]);
    }

    #[test]
    fn the_encoder_of_another_net_is_refused() {
        let refused = |encoder| transfer_encoder(one("conv.weight", vec![2, 3, 1, 1, 1]), "", &encoder).is_err();
        assert!(refused(one("conv.weight", vec![3, 3, 1, 1, 1])));
        assert!(refused(one("other.weight", vec![2, 3, 1, 1, 1])));
        assert!(refused(Weights::default()));
    }
}
