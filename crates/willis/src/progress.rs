//! Progress bars on stderr.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Makes progress bars; hidden ones with `--quiet` or without a terminal.
pub struct Progress {
    quiet: bool,
}

impl Progress {
    /// Bars unless `quiet`.
    pub fn new(quiet: bool) -> Self {
        Self { quiet }
    }

    /// A bar that counts up to `total`.
    pub fn bar(&self, prefix: &str, total: u64) -> ProgressBar {
        let style = ProgressStyle::with_template("{prefix:>12} [{bar:32}] {pos}/{len} {msg} ({elapsed}, {eta} left)")
            .expect("the template is a constant");
        self.show(ProgressBar::new(total).with_style(style.progress_chars("=> ")), prefix)
    }

    /// A spinner with a message.
    pub fn spinner(&self, prefix: &str) -> ProgressBar {
        let style = ProgressStyle::with_template("{prefix:>12} {spinner} {msg} ({elapsed})")
            .expect("the template is a constant");
        self.show(ProgressBar::new_spinner().with_style(style), prefix)
    }

    fn show(&self, bar: ProgressBar, prefix: &str) -> ProgressBar {
        if self.quiet {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        bar.set_prefix(prefix.to_string());
        bar
    }
}
