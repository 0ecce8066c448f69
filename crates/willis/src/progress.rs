//! Progress bars on stderr.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Makes the bars, or hidden ones when the user wants quiet; without a terminal indicatif draws
/// nothing.
pub struct Progress {
    quiet: bool,
}

impl Progress {
    /// Bars unless `quiet`.
    pub fn new(quiet: bool) -> Self {
        Self { quiet }
    }

    /// A bar that counts to `total`.
    pub fn bar(&self, what: &str, total: u64) -> ProgressBar {
        let style = ProgressStyle::with_template("{prefix:>12} [{bar:32}] {pos}/{len} {msg} ({elapsed}, {eta} left)")
            .expect("the template is a constant");
        self.show(ProgressBar::new(total).with_style(style.progress_chars("=> ")), what)
    }

    /// A spinner that names what is being done.
    pub fn spinner(&self, what: &str) -> ProgressBar {
        let style = ProgressStyle::with_template("{prefix:>12} {spinner} {msg} ({elapsed})")
            .expect("the template is a constant");
        self.show(ProgressBar::new_spinner().with_style(style), what)
    }

    fn show(&self, bar: ProgressBar, what: &str) -> ProgressBar {
        if self.quiet {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        bar.set_prefix(what.to_string());
        bar
    }
}
