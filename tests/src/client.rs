//! The Rust client `kube`, run inside a desktop's network as a program on that desktop would.

use crate::bench::{Bench, Desktop};
use anyhow::{Context, Result};
use kube::Config;
use kube::config::{KubeConfigOptions, Kubeconfig};
use nix::sched::{CloneFlags, setns};
use std::fs::File;

/// Runs a program that is given what it takes to reach the desktop's API. Its runtime lives on one thread, which is in that
/// desktop's network.
pub fn inside<T: Send>(
    bench: &Bench,
    desktop: &Desktop,
    program: impl AsyncFnOnce(Config) -> Result<T> + Send,
) -> Result<T> {
    desktop.make_kubeconfig()?;
    let kubeconfig = Kubeconfig::read_from(desktop.kubeconfig_file())?;
    let namespace = File::open(format!("/run/netns/{}", bench.layout().namespace(desktop.index())))?;
    // It may be there already: whoever comes first installs it for the process.
    let _ = rustls::crypto::ring::default_provider().install_default();
    std::thread::scope(|scope| {
        let program = scope.spawn(|| {
            setns(&namespace, CloneFlags::CLONE_NEWNET).context("entering a desktop's network")?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let options = KubeConfigOptions::default();
                program(Config::from_custom_kubeconfig(kubeconfig, &options).await?).await
            })
        });
        program.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
