//! The affine of a NIfTI image: from sform, qform or voxel sizes in RAS to LPS, and back.

use crate::series::Finding;
use crate::space::Affine;

/// The position and orientation fields of a header, in RAS.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct NiftiPlacement {
    /// Rows of the affine, if its form code is positive.
    pub sform: Option<[[f64; 4]; 3]>,
    /// Last three components of a unit quaternion, and the position of the first voxel.
    pub qform: Option<([f64; 3], [f64; 3])>,
    /// −1 if the third axis of the qform is reversed, else 1 (`qfac`).
    pub handedness: f64,
    /// Voxel sizes along x, y, z.
    pub sizes: [f64; 3],
    /// Unit code: 1 metre, 2 millimetre, 3 micrometre, 0 unknown.
    pub units: i32,
    /// Number of voxels along x, y, z.
    pub shape: [u64; 3],
}

/// The affine in LPS mm from the sform, else the qform, else the voxel sizes alone. An invalid
/// field is skipped with a finding.
pub(super) fn to_lps(place: &NiftiPlacement, findings: &mut Vec<Finding>) -> Affine {
    let sizes = checked_sizes(place.sizes, findings);
    let sform = place.sform.filter(is_usable);
    if place.sform.is_some() && sform.is_none() {
        findings.push(Finding::warning("nifti-sform", "the sform is singular and was not used"));
    }
    let qform = place.qform.map(|(q, offset)| from_quaternion(q, offset, sizes, place.handedness)).filter(is_usable);
    if sform.is_none() && place.qform.is_some() && qform.is_none() {
        findings.push(Finding::warning("nifti-qform", "the qform is singular and was not used"));
    }
    let rows = sform.or(qform).unwrap_or_else(|| {
        let message = "the file has no position in the patient (form codes 0); x is taken to run to Left, y to Anterior and z to Superior, with the origin in the centre, as nibabel does (ITK takes y to Posterior); sides cannot be verified";
        findings.push(Finding::warning("nifti-no-place", message));
        without_place(sizes, place.shape)
    });
    let factor = unit_factor(place.units, &Affine(rows));
    if factor != 1.0 {
        findings.push(Finding::info("nifti-units", format!("lengths were converted to mm (times {factor})")));
    }
    Affine(swap_ras_lps(rows.map(|row| row.map(|v| v * factor))))
}

/// RAS rows of an image without a position: axes as in Analyze files (x to Left), the origin in the
/// centre. ITK differs in y and in the origin, but not in x.
fn without_place(sizes: [f64; 3], shape: [u64; 3]) -> [[f64; 4]; 3] {
    let steps = [-sizes[0], sizes[1], sizes[2]];
    std::array::from_fn(|i| {
        std::array::from_fn(|j| match j {
            3 => 0.0 - steps[i] * (shape[i].max(1) - 1) as f64 / 2.0,
            _ if i == j => steps[i],
            _ => 0.0,
        })
    })
}

impl NiftiPlacement {
    /// The fields for an affine in LPS mm; without a qform if the axes are not orthogonal.
    pub fn from_lps(affine: &Affine) -> Self {
        let rows = swap_ras_lps(affine.0);
        let spacing = affine.spacing();
        let sizes = [spacing.x, spacing.y, spacing.z];
        let handedness = if Affine(rows).determinant() < 0.0 { -1.0 } else { 1.0 };
        let unit = |i: usize, j: usize| rows[i][j] / sizes[j] * if j == 2 { handedness } else { 1.0 };
        let rotation: [[f64; 3]; 3] = std::array::from_fn(|i| std::array::from_fn(|j| unit(i, j)));
        let offset = rows.map(|row| row[3]);
        let qform = is_rotation(&rotation).then(|| (to_quaternion(&rotation), offset));
        Self { sform: Some(rows), qform, handedness, sizes, units: 2, shape: [1; 3] }
    }
}

/// RAS and LPS differ in the sign of x and y.
fn swap_ras_lps(rows: [[f64; 4]; 3]) -> [[f64; 4]; 3] {
    // `0.0 - v` instead of `-v`, so that zero stays positive.
    [rows[0].map(|v| 0.0 - v), rows[1].map(|v| 0.0 - v), rows[2]]
}

fn is_usable(rows: &[[f64; 4]; 3]) -> bool {
    // Limits for any unit: a voxel measures more than a tenth of a micrometre and less than a
    // kilometre.
    let sane = |v: f64| (1e-7..1e6).contains(&v);
    let affine = Affine(*rows);
    rows.iter().flatten().all(|v| v.is_finite())
        && affine.spacing().zyx().into_iter().all(sane)
        && affine.inverse().is_some()
}

fn checked_sizes(sizes: [f64; 3], findings: &mut Vec<Finding>) -> [f64; 3] {
    let checked = sizes.map(|size| if (1e-7..1e6).contains(&size.abs()) { size.abs() } else { 1.0 });
    if checked.iter().zip(sizes).any(|(c, s)| *c != s.abs()) {
        findings.push(Finding::warning("nifti-voxel-size", format!("voxel size {sizes:?} is invalid; assumed 1 mm")));
    }
    checked
}

/// Factor from the declared unit to mm; 1 if the voxel size would be impossible.
fn unit_factor(units: i32, affine: &Affine) -> f64 {
    let factor = match units {
        1 => 1000.0,
        3 => 0.001,
        _ => 1.0,
    };
    let possible = affine.spacing().zyx().into_iter().all(|size| (0.005..50.0).contains(&(size * factor)));
    if possible { factor } else { 1.0 }
}

fn from_quaternion([b, c, d]: [f64; 3], offset: [f64; 3], sizes: [f64; 3], handedness: f64) -> [[f64; 4]; 3] {
    let length2 = b * b + c * c + d * d;
    // Rounding may make the vector part of a half turn slightly longer than 1.
    let shrink = if length2 > 1.0 { length2.sqrt().recip() } else { 1.0 };
    let [b, c, d] = [b * shrink, c * shrink, d * shrink];
    let a = (1.0 - length2).max(0.0).sqrt();
    let rotation = [
        [a * a + b * b - c * c - d * d, 2.0 * (b * c - a * d), 2.0 * (b * d + a * c)],
        [2.0 * (b * c + a * d), a * a + c * c - b * b - d * d, 2.0 * (c * d - a * b)],
        [2.0 * (b * d - a * c), 2.0 * (c * d + a * b), a * a + d * d - b * b - c * c],
    ];
    let steps = [sizes[0], sizes[1], sizes[2] * handedness];
    std::array::from_fn(|i| std::array::from_fn(|j| if j < 3 { rotation[i][j] * steps[j] } else { offset[i] }))
}

/// Last three components of the unit quaternion of a rotation whose first component is not
/// negative.
fn to_quaternion(r: &[[f64; 3]; 3]) -> [f64; 3] {
    // Four times the square of each component; division by the largest is the most accurate.
    let squares = [
        1.0 + r[0][0] + r[1][1] + r[2][2],
        1.0 + r[0][0] - r[1][1] - r[2][2],
        1.0 - r[0][0] + r[1][1] - r[2][2],
        1.0 - r[0][0] - r[1][1] + r[2][2],
    ];
    let largest = (0..4).max_by(|&i, &j| squares[i].total_cmp(&squares[j])).expect("four components");
    let s = 2.0 * squares[largest].sqrt();
    let [x, y, z] = [r[2][1] - r[1][2], r[0][2] - r[2][0], r[1][0] - r[0][1]];
    let [xy, xz, yz] = [r[0][1] + r[1][0], r[0][2] + r[2][0], r[1][2] + r[2][1]];
    let [a, b, c, d] = match largest {
        0 => [s / 4.0, x / s, y / s, z / s],
        1 => [x / s, s / 4.0, xy / s, xz / s],
        2 => [y / s, xy / s, s / 4.0, yz / s],
        _ => [z / s, xz / s, yz / s, s / 4.0],
    };
    if a < 0.0 { [-b, -c, -d] } else { [b, c, d] }
}

fn is_rotation(r: &[[f64; 3]; 3]) -> bool {
    let dot = |i: usize, j: usize| (0..3).map(|k| r[k][i] * r[k][j]).sum::<f64>();
    [(0, 1), (0, 2), (1, 2)].into_iter().all(|(i, j)| dot(i, j).abs() < 1e-5)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sform_precedes_qform_precedes_sizes() {
        let sform = [[2.0, 0.0, 0.0, 10.0], [0.0, 2.0, 0.0, 20.0], [0.0, 0.0, 2.0, 30.0]];
        let half_turn_about_z = ([0.0, 0.0, 1.0], [1.0, 2.0, 3.0]);
        let mut place = NiftiPlacement {
            sform: Some(sform),
            qform: Some(half_turn_about_z),
            handedness: 1.0,
            sizes: [1.0, 2.0, 3.0],
            units: 2,
            shape: [5, 3, 2],
        };
        let mut findings = Vec::new();
        let expected = [[-2.0, 0.0, 0.0, -10.0], [0.0, -2.0, 0.0, -20.0], [0.0, 0.0, 2.0, 30.0]];
        assert_eq!(to_lps(&place, &mut findings).0, expected);
        assert!(findings.is_empty());
        place.sform = Some([[0.0; 4]; 3]);
        let expected = [[1.0, 0.0, 0.0, -1.0], [0.0, 2.0, 0.0, -2.0], [0.0, 0.0, 3.0, 3.0]];
        assert_eq!(to_lps(&place, &mut findings).0, expected);
        assert_eq!(findings[0].code, "nifti-sform");
        place.qform = None;
        // nibabel in RAS: x = -1 i + 2, y = 2 j - 2, z = 3 k - 1.5.
        let expected = [[1.0, 0.0, 0.0, -2.0], [0.0, -2.0, 0.0, 2.0], [0.0, 0.0, 3.0, -1.5]];
        assert_eq!(to_lps(&place, &mut findings).0, expected);
        assert_eq!(findings.last().unwrap().code, "nifti-no-place");
    }

    #[test]
    fn units_are_ignored_when_the_voxel_size_would_be_impossible() {
        let place = |units, size| NiftiPlacement {
            sform: None,
            qform: None,
            handedness: 1.0,
            sizes: [size; 3],
            units,
            shape: [2; 3],
        };
        let spacing = |p: NiftiPlacement| to_lps(&p, &mut Vec::new()).spacing().x;
        assert!((spacing(place(3, 600.0)) - 0.6).abs() < 1e-12);
        assert!((spacing(place(1, 0.0006)) - 0.6).abs() < 1e-12);
        assert_eq!(spacing(place(1, 0.6)), 0.6);
        assert_eq!(spacing(place(2, f64::NAN)), 1.0);
    }

    proptest! {
        #[test]
        fn quaternions_round_trip(q in prop::array::uniform4(-1.0..1.0f64), left: bool) {
            let length = q.iter().map(|v| v * v).sum::<f64>().sqrt();
            prop_assume!(length > 0.1);
            let sign = if q[0] < 0.0 { -1.0 } else { 1.0 };
            let [b, c, d] = [q[1], q[2], q[3]].map(|v| v * sign / length);
            let rows = from_quaternion([b, c, d], [1.0, 2.0, 3.0], [0.5, 0.7, 0.9], if left { -1.0 } else { 1.0 });
            let place = NiftiPlacement::from_lps(&Affine(swap_ras_lps(rows)));
            let (quaternion, offset) = place.qform.unwrap();
            let back = from_quaternion(quaternion, offset, place.sizes, place.handedness);
            for (r, s) in rows.iter().flatten().zip(back.iter().flatten()) {
                prop_assert!((r - s).abs() < 1e-9);
            }
        }
    }
}
