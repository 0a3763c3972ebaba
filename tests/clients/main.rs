//! Client libraries that nobody here wrote, against a real `skep server`: what their users do must work.
//!
//! The programs beside this file are ordinary users' programs. Those that need a running pod run in the
//! end-to-end tests. `cargo xtask setup --tests` fetches the libraries.

mod rust;
mod server;

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use server::Server;

/// Runs a test; without the means it is skipped loudly, or fails where nothing may be skipped.
fn with_server(needs: &[&Path], test: impl FnOnce(&Server) -> Result<()>) {
    let skep = server::program();
    if let Some(missing) = needs.iter().copied().chain([skep.as_path()]).find(|path| !path.exists()) {
        let text = format!("{} is missing: run this by `cargo xtask test`", missing.display());
        assert!(env::var_os("SKEP_TEST_REQUIRE_ALL").is_none(), "{text}");
        eprintln!("SKIPPED: {text}");
        return;
    }
    if let Err(error) = Server::start().and_then(|server| test(&server)) {
        panic!("{error:?}");
    }
}

/// The folder of a library that was fetched.
fn library(name: &str) -> PathBuf {
    let base = env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")))
        .unwrap_or_default();
    base.join("skep/clients").join(name)
}

/// Runs a user's program to its end.
fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("starting {command:?}"))?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    if !output.status.success() || !said.trim_end().ends_with("ok") {
        bail!("{command:?}: {}\n{said}", output.status);
    }
    Ok(())
}

fn folder() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/clients"))
}

#[test]
fn the_python_client_works() {
    let library = library("python");
    with_server(&[&library.join("kubernetes")], |server| {
        run(Command::new("python3")
            .arg(folder().join("python/client.py"))
            .arg("objects")
            .env("PYTHONPATH", &library)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("KUBECONFIG", server.kubeconfig()))
    });
}

#[test]
fn the_javascript_client_works() {
    let modules = library("javascript").join("node_modules");
    with_server(&[&modules], |server| {
        run(Command::new("node")
            .arg(folder().join("javascript/client.mjs"))
            .arg("objects")
            .env("SKEP_CLIENT_MODULES", &modules)
            .env("KUBECONFIG", server.kubeconfig()))
    });
}

#[test]
fn the_rust_client_works() {
    with_server(&[], |server| {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(rust::objects(&server.kubeconfig()))
    });
}
