//! Real data sets for tests, kept beside the repository because most of their licences forbid
//! redistribution.

use std::io::Write;
use std::path::{Path, PathBuf};

/// A file or folder of `../shared/data`; prints one line and returns `None` when it is absent.
pub fn shared_data(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data").join(name);
    if path.exists() {
        return Some(path);
    }
    // The test harness captures the output of `eprintln!`, but not that of the stream itself.
    let _ = writeln!(std::io::stderr(), "skipped: ../shared/data/{name} not found");
    None
}
