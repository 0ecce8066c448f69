use super::*;

fn axial(z: f64) -> Slice {
    Slice {
        rows: 4,
        columns: 4,
        position: Some([-10.0, -20.0, z]),
        orientation: Some([1.0, 0.0, 0.0, 0.0, 1.0, 0.0]),
        pixel_spacing: Some([0.5, 0.25]),
        slope: 1.0,
        ..Slice::default()
    }
}

fn codes(geometry: &StackGeometry) -> Vec<&str> {
    geometry.findings.iter().map(|f| f.code.as_str()).collect()
}

#[test]
fn order_and_affine_follow_from_positions() {
    let geometry = stack(&[axial(3.0), axial(1.0), axial(2.0)]).unwrap();
    assert_eq!(geometry.order, [1, 2, 0]);
    assert_eq!(geometry.affine.0, [[0.25, 0.0, 0.0, -10.0], [0.0, 0.5, 0.0, -20.0], [0.0, 0.0, 1.0, 1.0]]);
    assert!(geometry.findings.is_empty() && geometry.resample.is_none());
}

#[test]
fn a_missing_slice_is_interpolated() {
    let slices: Vec<_> = [0.0, 1.0, 2.0, 4.0, 5.0].map(axial).into();
    let geometry = stack(&slices).unwrap();
    assert_eq!(geometry.resample, Some(vec![0.0, 1.0, 2.0, 2.5, 3.0, 4.0]));
    assert_eq!(codes(&geometry), ["missing-slice"]);
    assert_eq!(geometry.affine.0[2][2], 1.0);
}

#[test]
fn uneven_slices_are_interpolated_onto_an_even_grid() {
    let slices: Vec<_> = [0.0, 1.0, 2.0, 3.3, 4.3].map(axial).into();
    let geometry = stack(&slices).unwrap();
    assert_eq!(codes(&geometry), ["uneven-slices"]);
    assert_eq!(geometry.resample.unwrap().len(), 5);
    assert!((geometry.affine.0[2][2] - 4.3 / 4.0).abs() < 1e-12);
}

#[test]
fn duplicates_and_strays_are_dropped() {
    let slices: Vec<_> = [0.0, 1.0, 1.0, 2.0, 3.0, 90.0].map(axial).into();
    let geometry = stack(&slices).unwrap();
    assert_eq!(geometry.order, [0, 1, 3, 4]);
    assert_eq!(codes(&geometry), ["duplicate-slice", "stray-slices"]);
}

#[test]
fn a_tilted_gantry_gives_a_sheared_grid() {
    let slices: Vec<_> =
        (0..4).map(|k| Slice { position: Some([0.0, 0.3 * k as f64, k as f64]), ..axial(0.0) }).collect();
    let geometry = stack(&slices).unwrap();
    assert_eq!(codes(&geometry), ["gantry-tilt"]);
    assert!((geometry.affine.0[1][2] - 0.3).abs() < 1e-12 && (geometry.affine.0[2][2] - 1.0).abs() < 1e-12);
}

#[test]
fn guessed_geometry_is_reported() {
    let bare = |number| Slice { rows: 440, columns: 440, instance_number: Some(number), ..Slice::default() };
    let geometry = stack(&[bare(2), bare(3), bare(1)]).unwrap();
    assert_eq!(geometry.order, [2, 0, 1]);
    assert_eq!(
        codes(&geometry),
        ["orientation-guessed", "spacing-guessed", "positions-guessed", "slice-spacing-guessed"]
    );
    assert_eq!(geometry.affine.spacing().x, 0.5);
    assert_eq!(geometry.affine.spacing().z, 5.0);
}

#[test]
fn positions_take_precedence_over_the_spacing_tag() {
    let slices: Vec<_> = (0..3).map(|k| Slice { slice_step_mm: Some(18.0), ..axial(0.5 * k as f64) }).collect();
    assert_eq!(stack(&slices).unwrap().affine.spacing().z, 0.5);
}

fn shifts(geometry: &StackGeometry) -> Vec<[f64; 2]> {
    geometry.shifts.clone().unwrap_or_default()
}

#[test]
fn a_slice_off_the_line_moves_alone_wherever_it_is() {
    for stray in 0..8 {
        let slices: Vec<_> = (0..8)
            .map(|k| {
                let mut slice = axial(f64::from(k));
                if k == stray {
                    slice.position = Some([-8.0, -17.0, f64::from(k)]);
                }
                slice
            })
            .collect();
        let geometry = stack(&slices).unwrap();
        assert_eq!(codes(&geometry), ["shifted-slices"], "{stray}");
        let straight = [[0.25, 0.0, 0.0, -10.0], [0.0, 0.5, 0.0, -20.0], [0.0, 0.0, 1.0, 0.0]];
        assert_eq!(geometry.affine.0, straight, "{stray}");
        // 3 mm are 6 rows of 0.5 mm, 2 mm are 8 columns of 0.25 mm.
        let expected: Vec<[f64; 2]> = (0..8).map(|k| if k == stray { [6.0, 8.0] } else { [0.0; 2] }).collect();
        assert_eq!(shifts(&geometry), expected, "{stray}");
    }
}

#[test]
fn tilt_and_stray_slices_are_told_apart() {
    let slices: Vec<_> = (0..9)
        .map(|k| {
            let stray = if k == 0 { 12.0 } else { 0.0 };
            Slice { position: Some([0.0, 0.25 * k as f64 + stray, k as f64]), ..axial(0.0) }
        })
        .collect();
    let geometry = stack(&slices).unwrap();
    assert_eq!(codes(&geometry), ["gantry-tilt", "shifted-slices"]);
    let column = geometry.affine.0.map(|row| row[2]);
    assert!((column[1] - 0.25).abs() < 1e-12 && (column[2] - 1.0).abs() < 1e-12, "{column:?}");
    assert!((shifts(&geometry)[0][0] - 24.0).abs() < 1e-9);
    assert!(shifts(&geometry)[1..].iter().all(|s| *s == [0.0; 2]));
}

#[test]
fn moved_fields_and_passes_are_named() {
    let with = |offset: fn(usize) -> f64| -> Vec<Slice> {
        (0..12).map(|k| Slice { position: Some([offset(k), 0.0, k as f64]), ..axial(0.0) }).collect()
    };
    for (slices, code) in [
        (with(|k| if k > 7 { 20.0 } else { 0.0 }), "recentred-field"),
        (with(|k| if k % 2 == 1 { 5.0 } else { 0.0 }), "several-passes"),
        (with(|k| 3.0 * (k as f64 * 7.7).sin()), "scattered-slices"),
        (with(|k| 2.0 * k as f64), "sheared-stack"),
    ] {
        let geometry = stack(&slices).unwrap();
        assert_eq!(codes(&geometry), [code]);
        // Every first pixel keeps its place.
        let shifts = geometry.shifts.clone().unwrap_or(vec![[0.0; 2]; 12]);
        for (k, [down, right]) in shifts.into_iter().enumerate() {
            let place = geometry.affine.to_world(willis_core::VoxelPoint::new(k as f64, down, right));
            let [x, y, z] = slices[k].position.unwrap();
            assert!(place.distance_mm(willis_core::Point::new(x, y, z)) <= 0.1, "{code} {k}");
        }
    }
}

#[test]
fn thin_and_thick_parts_share_the_thin_grid() {
    let thick = |slice: Slice| Slice { thickness_mm: Some(5.0), ..slice };
    let base = (0..30).map(|k| axial(0.625 * f64::from(k)));
    let vertex = (0..16).map(|k| thick(axial(18.75 + 5.0 * f64::from(k))));
    let below = (0..16).map(|k| thick(axial(-5.0 * f64::from(k + 1))));
    for (slices, low, high) in [
        (base.clone().chain(vertex.clone()).collect::<Vec<_>>(), 0.0, 93.75),
        (below.clone().chain(base.clone()).collect(), -80.0, 18.125),
        (below.chain(base).chain(vertex).collect(), -80.0, 93.75),
    ] {
        let geometry = stack(&slices).unwrap();
        assert_eq!(codes(&geometry), ["mixed-slice-distances"]);
        assert_eq!(geometry.order.len(), slices.len());
        let resample = geometry.resample.unwrap();
        assert_eq!(geometry.affine.0[2][2], 0.625);
        let start = geometry.affine.0[2][3];
        let end = start + 0.625 * (resample.len() - 1) as f64;
        assert!(start <= low && start > low - 0.625 && end >= high && end < high + 0.625, "{start} {end}");
        // The thin slices are planes of the grid, and every plane is at its height.
        let heights: Vec<f64> = geometry.order.iter().map(|&i| slices[i].position.unwrap()[2]).collect();
        for (k, index) in resample.iter().enumerate() {
            let (low, weight) = (index.floor() as usize, index.fract());
            let height = heights[low] * (1.0 - weight) + heights[(low + 1).min(heights.len() - 1)] * weight;
            let wanted = (start + 0.625 * k as f64).clamp(heights[0], heights[heights.len() - 1]);
            assert!((height - wanted).abs() < 0.02, "{k}: {height} {wanted}");
        }
        assert!(resample.iter().filter(|index| index.fract() == 0.0).count() >= 30);
    }
}

#[test]
fn far_slices_are_strays_though_they_are_a_few() {
    let slices: Vec<_> = (0..20).map(f64::from).chain([90.0, 95.0]).map(axial).collect();
    assert_eq!(codes(&stack(&slices).unwrap()), ["stray-slices"]);
}

#[test]
fn hostile_positions_ask_for_no_memory() {
    let slices: Vec<_> = [0.0, 1e-2, 1e9].map(|z| Slice { thickness_mm: Some(9e3), ..axial(z) }).into();
    let geometry = stack(&slices).unwrap();
    assert!(geometry.resample.is_none_or(|planes| planes.len() < 1000));
}

#[test]
fn one_place_is_not_a_stack() {
    let error = stack(&[axial(1.0), axial(1.0)]).unwrap_err();
    assert!(error.to_string().contains("one position"), "{error}");
}

#[test]
fn directions_off_by_a_thousandth_are_reported() {
    let slices: Vec<_> = (0..3).map(|k| Slice { direction_error: 0.02, ..axial(f64::from(k)) }).collect();
    assert_eq!(codes(&stack(&slices).unwrap()), ["directions-normalised"]);
}
