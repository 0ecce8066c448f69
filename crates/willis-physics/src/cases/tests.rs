use std::time::Duration;

use super::*;
use crate::solver::{Ended, Solver};
use crate::taylor::Taylor;

const KINDS: [CaseKind; 7] = [
    CaseKind::Beltrami,
    CaseKind::Poiseuille,
    CaseKind::Womersley,
    CaseKind::Burgers,
    CaseKind::AllenCahn,
    CaseKind::Convection,
    CaseKind::Kovasznay,
];

/// §6.4 of the specification.
#[test]
fn beltrami_has_the_published_values_and_no_residual() {
    let point = [0.3, -0.2, 0.5, 0.1];
    let values = beltrami::exact(&point.map(Taylor::constant), 1.0).map(Taylor::value);
    for (got, want) in values.iter().zip([-1.845320983526, -1.698281085644, -0.665066981359, -3.365841133897]) {
        assert!((got - want).abs() < 1e-11, "{got} {want}");
    }
    for viscosity in [1.0, 0.3] {
        // Derivatives along each axis.
        let along: Vec<[Taylor; 4]> = (0..4)
            .map(|axis| {
                let at: Vec<Taylor> =
                    (0..4).map(|i| Taylor::variable(point[i], f64::from(u8::from(i == axis)))).collect();
                beltrami::exact(&at, viscosity)
            })
            .collect();
        let velocity = [0, 1, 2].map(|i| along[0][i].value());
        let residual = |i: usize| {
            let convection: f64 = (0..3).map(|j| velocity[j] * along[j][i].derivative(1)).sum();
            let diffusion: f64 = (0..3).map(|j| along[j][i].derivative(2)).sum();
            along[3][i].derivative(1) + convection + along[i][3].derivative(1) - viscosity * diffusion
        };
        for i in 0..3 {
            assert!(residual(i).abs() < 1e-12, "momentum {i}: {}", residual(i));
        }
        let divergence: f64 = (0..3).map(|i| along[i][i].derivative(1)).sum();
        assert!(divergence.abs() < 1e-13);
    }
}

#[test]
fn cole_hopf_solves_burgers() {
    let nu = 0.05;
    let u = |x: f64, t: f64| burgers::cole_hopf(x, t, nu);
    let h = 1e-4;
    for (x, t) in [(0.3, 0.2), (-0.7, 0.5), (0.02, 0.9)] {
        let u_t = (u(x, t + h) - u(x, t - h)) / (2.0 * h);
        let u_x = (u(x + h, t) - u(x - h, t)) / (2.0 * h);
        let u_xx = (u(x + h, t) - 2.0 * u(x, t) + u(x - h, t)) / (h * h);
        let residual = u_t + u(x, t) * u_x - nu * u_xx;
        assert!(residual.abs() < 1e-5 * (1.0 + u_t.abs()), "{x} {t}: {residual}");
    }
    // The published viscosity: odd, zero at the ends, steep at the shock.
    let u = |x: f64, t: f64| burgers::cole_hopf(x, t, 0.01 / std::f64::consts::PI);
    assert!(u(1.0, 0.7).abs() < 1e-12 && (u(0.4, 0.3) + u(-0.4, 0.3)).abs() < 1e-12);
    assert!((u(1e-4, 0.5) / 1e-4 + 152.0).abs() < 1.5, "slope at the shock: {}", u(1e-4, 0.5) / 1e-4);
    assert!((u(0.3, 1e-12) + (0.3 * std::f64::consts::PI).sin()).abs() < 1e-6);
}

#[test]
fn the_allen_cahn_reference_converges() {
    let coarse = allen_cahn::reference(0.01, 65, 20, 2);
    let fine = allen_cahn::reference(0.01, 129, 80, 2);
    for (coarse, fine) in coarse.iter().zip(&fine) {
        for (j, value) in coarse.iter().enumerate() {
            assert!((value - fine[2 * j]).abs() < 1e-5, "{j}: {value} {}", fine[2 * j]);
        }
    }
    // The residual at the middle of a fine solution, by differences.
    let steps = allen_cahn::reference(0.01, 129, 4, 1000);
    let (u, h) = (|i: usize, j: usize| steps[i][j], 1.0 / 128.0);
    let u_t = (u(501, 40) - u(499, 40)) * 500.0;
    let u_xx = (u(500, 41) - 2.0 * u(500, 40) + u(500, 39)) / (h * h);
    let residual = u_t - 0.01 * u_xx + 5.0 * u(500, 40).powi(3) - 5.0 * u(500, 40);
    assert!(residual.abs() < 2e-3 * u_t.abs(), "{residual} {u_t}");
}

/// The exact solution of a case fulfils the hard conditions, and every equation compiles.
#[test]
fn every_case_can_be_started() {
    for kind in KINDS {
        let mut setup = Setup::new(kind);
        setup.set("points=64").unwrap();
        setup.set("width=6").unwrap();
        let problem = setup.problem().unwrap();
        let mut solver: Solver<f64> = Solver::new(problem, setup.solver, 1).unwrap();
        solver.run(Some(Duration::ZERO), |_, _| {}, |_| {}).unwrap();
        let scores = solver.scores().unwrap();
        assert!(scores.iter().all(|score| score.error.is_some_and(|error| error > 1e-4)), "{kind:?}: {scores:?}");
    }
}

#[test]
fn a_small_channel_is_solved_and_resumes_alike() {
    let mut setup = Setup::new(CaseKind::Poiseuille);
    for assignment in ["points=128", "width=8", "warm_up_steps=40", "steps=160", "redraw_every=50"] {
        setup.set(assignment).unwrap();
    }
    let new = || Solver::<f64>::new(setup.problem().unwrap(), setup.solver, 7).unwrap();
    let mut whole = new();
    assert_eq!(whole.run(None, |_, _| {}, |_| {}).unwrap(), Ended::Finished);
    let error = whole.scores().unwrap()[0].error.unwrap();
    assert!(error < 0.02, "{error}");

    let mut shorter = setup.clone();
    shorter.set("steps=90").unwrap();
    let mut begun = Solver::<f64>::new(setup.problem().unwrap(), shorter.solver, 7).unwrap();
    begun.run(None, |_, _| {}, |_| {}).unwrap();
    let mut resumed = new();
    resumed.load(&begun.save()).unwrap();
    resumed.run(None, |_, _| {}, |_| {}).unwrap();
    assert_eq!(whole.parameters(), resumed.parameters());
    assert!(new().load(&begun.save()[..20]).is_err());
}

#[test]
fn parameters_are_set_by_name() {
    let mut setup = Setup::new(CaseKind::Convection);
    setup.set("beta=50").unwrap();
    setup.set("adam.learning_rate = 1e-3").unwrap();
    setup.set("sampler=causal_r3").unwrap();
    setup.set("hard=off").unwrap();
    assert!(matches!(&setup.case, Case::Convection(case) if case.beta == 50.0));
    assert_eq!(setup.solver.settings.adam.learning_rate, 1e-3);
    let error = |assignment: &str| setup.clone().set(assignment).unwrap_err().to_string();
    assert!(error("gamma=1").contains("no parameter is named `gamma`; there are beta, "), "{}", error("gamma=1"));
    assert!(error("learning_rate=1").contains("settings.adam.learning_rate or settings.soap.learning_rate"));
    assert!(error("points=many").contains("`points` cannot be `many`"), "{}", error("points=many"));
    assert!(error("beta").contains("not NAME=VALUE"));
    assert!(setup.clone().set("beta=1e999").is_err() || setup.problem().is_ok());
}
