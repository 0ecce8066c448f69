use super::*;

fn member(z: f64, echo: i64) -> SeriesSlice {
    let mut slice = Slice {
        rows: 2,
        columns: 2,
        position: Some([0.0, 0.0, z]),
        orientation: Some([1.0, 0.0, 0.0, 0.0, 1.0, 0.0]),
        pixel_spacing: Some([1.0, 1.0]),
        ..Slice::default()
    };
    slice.time.echo_time = Some(echo);
    SeriesSlice { instance: 0, slice }
}

fn choose(members: Vec<SeriesSlice>, findings: &mut Vec<Finding>) -> Vec<SeriesSlice> {
    choose_volume(members, &IngestConfig::default(), findings).unwrap()
}

#[test]
fn scouts_are_left_out() {
    let mut scout = member(0.0, 1);
    scout.slice.orientation = Some([1.0, 0.0, 0.0, 0.0, 0.0, -1.0]);
    let mut findings = Vec::new();
    let kept = choose(vec![scout, member(1.0, 1), member(2.0, 1)], &mut findings);
    assert_eq!((kept.len(), findings[0].code.as_str()), (2, "mixed-configuration"));
}

#[test]
fn first_of_two_echoes_is_taken() {
    let mut findings = Vec::new();
    let all: Vec<_> = (0..4).flat_map(|z| [member(z as f64, 900), member(z as f64, 250)]).collect();
    let kept = choose(all, &mut findings);
    assert_eq!(kept.len(), 4);
    assert!(kept.iter().all(|m| m.slice.time.echo_time == Some(250)));
    assert_eq!(findings[0].code, "time-points");
}

#[test]
fn magnitude_comes_before_phase() {
    for (image_type, secondary) in [
        ("ORIGINAL\\PRIMARY\\M\\ND", false),
        ("ORIGINAL\\PRIMARY\\P\\ND", true),
        ("ORIGINAL\\PRIMARY\\T1\\FIELD_MAP\\REAL", true),
        ("", false),
    ] {
        assert_eq!(is_secondary_component(image_type), secondary, "{image_type}");
    }
}

#[test]
fn a_single_duplicate_is_not_a_time_series() {
    let mut findings = Vec::new();
    let all: Vec<_> = [0.0, 1.0, 1.0, 2.0, 3.0].map(|z| member(z, 1)).into();
    assert_eq!(choose(all, &mut findings).len(), 5);
    assert!(findings.is_empty());
}

/// Slices at the given heights, numbered from `number`, after `change`.
fn volume(heights: &[f64], number: i64, change: fn(&mut Slice)) -> Vec<SeriesSlice> {
    let numbered = heights.iter().zip(number..);
    numbered
        .map(|(&z, number)| {
            let mut member = member(z, 400);
            member.slice.instance_number = Some(number);
            change(&mut member.slice);
            member
        })
        .collect()
}

fn heights(first: f64, step: f64, count: usize) -> Vec<f64> {
    (0..count).map(|k| first + step * k as f64).collect()
}

fn codes(findings: &[Finding]) -> Vec<&str> {
    findings.iter().map(|f| f.code.as_str()).collect()
}

#[test]
fn volumes_a_hair_apart_never_mix() {
    let keys: [fn(&mut Slice); 16] = [
        |s| s.time.echo_time = Some(2400),
        |s| s.time.echo_number = Some(2),
        |s| s.time.b_value = Some(1000),
        |s| s.time.kvp = Some(800),
        |s| s.time.contrast = true,
        |s| s.time.series_number = Some(8),
        |s| s.time.acquisition = Some(2),
        |s| s.time.temporal_position = Some(2),
        |s| s.time.trigger_time = Some(8_000),
        |s| s.time.image_type = "ORIGINAL\\PRIMARY\\P".into(),
        |s| s.time.acquisition_time = Some(101_500_000),
        |s| s.time.repetition_time = Some(300_000),
        |s| s.time.inversion_time = Some(20_000),
        |s| s.time.flip_angle = Some(2_500),
        |s| s.time.kernel = "H60s".into(),
        // Told apart by the order of their numbers alone.
        |_| {},
    ];
    for (k, key) in keys.into_iter().enumerate() {
        for (shift, count) in [(0.0, 20), (0.2, 20), (1.7, 20), (0.0, 24), (0.2, 24), (0.5, 24), (1.7, 24)] {
            let first = volume(&heights(0.0, 5.0, 24), 1, |_| ());
            let second = volume(&heights(shift, 5.0, count), 25, key);
            let mut all = [first.clone(), second.clone()].concat();
            all.reverse();
            let mut findings = Vec::new();
            let read = choose(all.clone(), &mut findings);
            assert_eq!(codes(&findings), ["time-points"], "{k} {shift}");
            assert!(findings[0].message.contains(&format!("2: {count} slices")), "{}", findings[0].message);
            let numbers = |slices: &[SeriesSlice]| {
                let mut numbers: Vec<_> = slices.iter().map(|s| s.slice.instance_number).collect();
                numbers.sort();
                numbers
            };
            // Of two of the same size, the one with contrast agent.
            let has_contrast = count == 24 && second[0].slice.time.contrast;
            let (first, second) = if has_contrast { (second, first) } else { (first, second) };
            assert_eq!(numbers(&read), numbers(&first), "{k} {shift}");
            let config = IngestConfig { volume: Some(2), ..IngestConfig::default() };
            let other = choose_volume(all, &config, &mut Vec::new()).unwrap();
            assert_eq!(numbers(&other), numbers(&second), "{k} {shift}");
        }
    }
}

/// Neither an attribute nor the order of numbers tells these apart, but no volume has such gaps.
#[test]
fn volumes_numbered_alternately_are_told_apart_by_their_places() {
    for (step, shifts) in [(5.0, &[0.2][..]), (5.0, &[0.2, 0.4]), (1.0, &[0.25]), (3.0, &[0.6])] {
        let volumes: Vec<Vec<SeriesSlice>> =
            [0.0].iter().chain(shifts).map(|&shift| volume(&heights(shift, step, 9), 1, |_| ())).collect();
        let mut all = volumes.concat();
        let place = |s: &SeriesSlice| s.slice.position.map_or(0.0, |p| p[2]);
        all.sort_by(|a, b| place(a).total_cmp(&place(b)));
        all.iter_mut().zip(1..).for_each(|(s, number)| s.slice.instance_number = Some(number));
        let mut findings = Vec::new();
        let read: Vec<f64> = choose(all, &mut findings).iter().map(place).collect();
        assert_eq!(read, heights(0.0, step, 9), "{step} {shifts:?}");
        assert_eq!(codes(&findings), ["time-points"]);
    }
}

#[test]
fn one_volume_stays_one() {
    let alternating: Vec<SeriesSlice> = volume(&heights(0.0, 1.0, 24), 1, |s| {
        s.time.acquisition = s.instance_number.map(|n| n % 2);
    });
    let each = volume(&heights(0.0, 1.0, 24), 1, |s| {
        s.time.trigger_time = s.instance_number;
        s.time.acquisition = s.instance_number;
    });
    let stations = [
        volume(&heights(0.0, 1.0, 12), 1, |s| s.time.kvp = Some(1200)),
        volume(&heights(12.0, 1.0, 12), 13, |s| s.time.kvp = Some(1000)),
    ]
    .concat();
    let mut interleaved = heights(0.0, 2.0, 12);
    interleaved.extend(heights(1.0, 2.0, 12));
    let one_differs = volume(&heights(0.0, 1.0, 24), 1, |s| {
        s.time.echo_time = Some(if s.instance_number == Some(7) { 900 } else { 400 });
    });
    let thick_part = volume(&[heights(0.0, 0.6, 12), heights(10.0, 5.0, 12)].concat(), 1, |_| ());
    for all in [alternating, each, stations, volume(&interleaved, 1, |_| ()), one_differs, thick_part] {
        let mut findings = Vec::new();
        assert_eq!(choose(all, &mut findings).len(), 24);
        assert!(findings.is_empty(), "{findings:?}");
    }
}

#[test]
fn one_place_many_times_is_time() {
    let mut findings = Vec::new();
    let all = volume(&[3.0; 6], 1, |s| s.time.acquisition = s.instance_number);
    let error = choose_volume(all.clone(), &IngestConfig::default(), &mut findings).unwrap_err();
    assert!(error.to_string().contains("all 6 slices are at one position"), "{error}");
    // Commands that take single slices read the first.
    let config = IngestConfig { min_slices: 1, ..IngestConfig::default() };
    assert_eq!(choose_volume(all, &config, &mut findings).unwrap().len(), 1);
    assert_eq!(codes(&findings), ["time-points"]);
}

#[test]
fn a_volume_that_is_not_there_is_refused() {
    let config = IngestConfig { volume: Some(2), ..IngestConfig::default() };
    let error = choose_volume(volume(&heights(0.0, 1.0, 5), 1, |_| ()), &config, &mut Vec::new()).unwrap_err();
    assert!(error.to_string().contains("volume 2 is not among the 1 volumes"), "{error}");
}
