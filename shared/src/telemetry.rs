//! Log lines: to standard error, filtered by `WINDLASS_LOG`, without colour where that is no terminal.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// Why a filter can't be read, if it can't.
pub fn filter_fault(filter: &str) -> Option<String> {
    EnvFilter::try_new(filter)
        .err()
        .map(|error| format!("can't be read: {error}; it is like info or coordinator=debug"))
}

/// Sends log lines to standard error. `filter` is in the syntax of `tracing`'s `EnvFilter`, like `info` or
/// `coordinator=debug`; one that can't be read counts as `fallback`. A second call changes nothing.
pub fn start(filter: Option<&str>, fallback: &str) {
    let asked = filter.map(EnvFilter::try_new);
    let refused = asked.as_ref().and_then(|asked| asked.as_ref().err()).map(ToString::to_string);
    let filter = asked.and_then(Result::ok).unwrap_or_else(|| EnvFilter::new(fallback));
    let started = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        // Whoever reads the lines may be gone: that must not end the one who writes them.
        .log_internal_errors(false)
        .try_init();
    if started.is_err() {
        tracing::debug!("log lines are already being written");
    }
    if let Some(error) = refused {
        tracing::error!(%error, "the log filter can't be read and counts as {fallback}");
    }
}
