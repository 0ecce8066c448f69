//! Partial differential equations solved by physics-informed neural nets, on the CPU.
//!
//! A net maps coordinates to the fields of a solution. Its derivatives with respect to the
//! coordinates are propagated forward as jets ([`net`]), equations are text ([`equation`]), the
//! gradient of the mean squared residual is computed by hand-written adjoints ([`block`]), and
//! [`optimise`] minimises it. [`cases`] holds the problems that `willis physics solve` solves.
//!
//! Everything is generic over f64 and f32 ([`real`]) and gives the same bytes at any number of
//! threads.

pub mod block;
pub mod cases;
pub mod equation;
pub mod files;
pub mod hard;
pub mod net;
pub mod optimise;
pub mod problem;
pub mod real;
pub mod sample;
pub mod solver;
pub mod streams;
pub mod taylor;

mod matrix;
