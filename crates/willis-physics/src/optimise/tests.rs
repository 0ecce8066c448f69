use super::*;

/// Rosenbrock's function in pairs of coordinates.
fn rosenbrock(x: &[f64], gradient: &mut Vec<f64>) -> f64 {
    gradient.clear();
    let mut value = 0.0;
    for pair in x.chunks(2) {
        let (a, b) = (1.0 - pair[0], pair[1] - pair[0] * pair[0]);
        value += a * a + 100.0 * b * b;
        gradient.extend([-2.0 * a - 400.0 * b * pair[0], 200.0 * b]);
    }
    value
}

fn parts() -> Vec<ParameterBlock> {
    vec![ParameterBlock { range: 0..6, columns: Some(2) }, ParameterBlock { range: 6..8, columns: None }]
}

fn start() -> Position<f64> {
    let mut at = Position { parameters: vec![-1.2, 1.0, 0.3, -0.4, 2.0, 1.5, -0.5, 0.5], ..Position::default() };
    at.value = rosenbrock(&at.parameters, &mut at.gradient);
    at
}

fn run(optimiser: &mut Optimiser<f64>, at: &mut Position<f64>, steps: usize) -> usize {
    for step in 0..steps {
        match optimiser.step(at, &mut rosenbrock) {
            Step::Evaluated => {}
            Step::Moved => at.value = rosenbrock(&at.parameters, &mut at.gradient),
            Step::Stopped(_) => return step,
        }
    }
    steps
}

const KINDS: [OptimiserKind; 4] =
    [OptimiserKind::Adam, OptimiserKind::Lbfgs, OptimiserKind::Ssbroyden, OptimiserKind::Soap];

fn config() -> OptimiserConfig {
    let soap = SoapConfig { weight_decay: 0.0, learning_rate: 1e-2, ..SoapConfig::default() };
    let lbfgs = LbfgsConfig { tolerance_grad: 0.0, tolerance_change: 0.0, ..LbfgsConfig::default() };
    OptimiserConfig { soap, lbfgs, ..OptimiserConfig::default() }
}

#[test]
fn every_optimiser_finds_the_minimum() {
    for (kind, steps, bound) in
        KINDS.into_iter().zip([20_000, 120, 120, 20_000]).zip([1e-6, 1e-12, 1e-12, 1e-3]).map(|((k, s), b)| (k, s, b))
    {
        let mut at = start();
        run(&mut Optimiser::new(kind, &config(), &parts()), &mut at, steps);
        assert!(at.value < bound, "{kind:?}: {}", at.value);
    }
}

#[test]
fn a_saved_state_continues_alike() {
    for kind in KINDS {
        let new = || Optimiser::new(kind, &config(), &parts());
        let (mut whole, mut at) = (new(), start());
        run(&mut whole, &mut at, 25);
        let mut numbers = Vec::new();
        whole.save(&mut numbers);
        let (mut resumed, mut again) = (new(), at.clone());
        resumed.load(&mut Saved(&numbers)).unwrap();
        run(&mut whole, &mut at, 7);
        run(&mut resumed, &mut again, 7);
        assert_eq!(at.parameters, again.parameters, "{kind:?}");
        assert!(new().load(&mut Saved(&numbers[..numbers.len() / 2])).is_none(), "{kind:?}: half a state");
    }
}

/// One update of H in the packed, fused form against the formula of the header with full matrices.
#[test]
fn ssbroyden_equals_its_formula() {
    use nalgebra::{DMatrix, DVector};
    let mut broyden = SsBroyden::new(SsBroydenConfig::default(), 8);
    let mut at = start();
    let n = 8;
    let mut h = DMatrix::<f64>::identity(n, n);
    for k in 0..12 {
        let before = at.clone();
        let g = DVector::from_column_slice(&before.gradient);
        assert_eq!(broyden.step(&mut at, &mut rosenbrock), Step::Evaluated);
        let s = DVector::from_iterator(n, at.parameters.iter().zip(&before.parameters).map(|(a, b)| a - b));
        let y = DVector::from_column_slice(&at.gradient) - &g;
        let d = -(&h * &g);
        let mut alpha = s.dot(&d) / d.dot(&d);
        assert!((&s - &d * alpha).norm() < 1e-8 * s.norm(), "direction {k}");
        if k == 0 {
            let scale = y.dot(&s) / y.dot(&y);
            h = DMatrix::identity(n, n) * scale;
            alpha /= scale;
        }
        let rho = 1.0 / y.dot(&s);
        let hy = &h * &y;
        let yhy = y.dot(&hy);
        let big_h = rho * yhy;
        let b = -alpha * rho * s.dot(&g);
        let a = big_h * b - 1.0;
        let c = (a.abs() / (1.0 + a)).sqrt();
        let rho_minus = f64::min(1.0, big_h * (1.0 - c));
        let (theta_minus, theta_plus) = ((rho_minus - 1.0) / a, 1.0 / rho_minus);
        let theta = theta_minus.max(theta_plus.min((1.0 - b) / b));
        let sigma = 1.0 + theta * a;
        let rho_k = f64::min(1.0, 1.0 / b);
        let root = sigma.abs().powf(1.0 / (1.0 - n as f64));
        let tau = if theta <= 0.0 { (rho_k * root).min(sigma) } else { rho_k * root.min(1.0 / theta) };
        let phi = (1.0 - theta) / (1.0 + a * theta);
        let v = &s * rho - &hy / yhy;
        h = (&h - &hy * hy.transpose() / yhy + &v * v.transpose() * (phi * yhy)) / tau + &s * s.transpose() * rho;
    }
}

#[test]
fn invalid_values_are_named() {
    let adam = AdamConfig { beta1: 1.0, ..AdamConfig::default() };
    let error = OptimiserConfig { adam, ..OptimiserConfig::default() }.validate().unwrap_err();
    assert_eq!(error.to_string(), "adam.beta1 = 1 must be at least 0 and less than 1");
    assert!(OptimiserConfig::default().validate().is_ok());
}
