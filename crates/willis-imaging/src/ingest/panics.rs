//! A barrier against panics in third-party decoders.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs third-party code that may panic on damaged data, and turns a panic into its message.
pub(super) fn catch<T>(f: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(f)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
        format!("the decoder gave up: {:.120}", text.unwrap_or("no reason given"))
    })
}
