//! Learning rate of each step.

use super::TrainConfig;

/// Learning rate of a step, counted from 0: linear warm-up, then half a cosine down to
/// `final_fraction` of the highest rate at the last step.
pub fn learning_rate(config: &TrainConfig, step: usize) -> f64 {
    let warmup = config.warmup_steps.min(config.steps / 2);
    if step < warmup {
        return config.learning_rate * (step + 1) as f64 / (warmup + 1) as f64;
    }
    let share = (step - warmup) as f64 / (config.steps - warmup).max(1) as f64;
    let cosine = (1.0 + (std::f64::consts::PI * share).cos()) / 2.0;
    config.learning_rate * (config.final_fraction + (1.0 - config.final_fraction) * cosine)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rises_then_falls() {
        let config = TrainConfig {
            steps: 100,
            warmup_steps: 9,
            learning_rate: 1.0,
            final_fraction: 0.0,
            ..TrainConfig::default()
        };
        assert!((learning_rate(&config, 0) - 0.1).abs() < 1e-12);
        assert!((learning_rate(&config, 8) - 0.9).abs() < 1e-12);
        assert!((learning_rate(&config, 9) - 1.0).abs() < 1e-12);
        assert!(learning_rate(&config, 99) < 0.001);
        let halfway = 9 + 91 / 2;
        assert!((learning_rate(&config, halfway) - 0.5).abs() < 0.01);
    }
}
