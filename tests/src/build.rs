//! Builds the program for those of ours that cargo runs and that need it beside themselves.

use std::env;
use std::process::Command;

/// Builds the program of that name, with these features, as the caller was built, where cargo runs the caller; whoever starts
/// it otherwise has built both.
///
/// # Errors
/// Why it isn't built.
pub fn program(name: &str, features: &[&str]) -> Result<(), String> {
    let Some(cargo) = env::var_os("CARGO") else { return Ok(()) };
    let mut command = Command::new(cargo);
    command.args(["build", "--locked", "-p", "cli", "--bin", name]);
    command.args(features.iter().flat_map(|feature| ["--features", feature]));
    // What cargo says of the package that it runs here would have others built anew, at each run.
    let said = env::vars_os().map(|(name, _)| name);
    for name in
        said.filter(|name| ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|of| name.to_string_lossy().starts_with(of)))
    {
        command.env_remove(name);
    }
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("building {name}: {status}")),
        Err(error) => Err(format!("building {name}: {error}")),
    }
}
