//! Images without a registry: one layer with busybox, under any names.

use super::desktop::Desktop;
use super::{Bench, outcome};
use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Packing two megabytes.
const DEADLINE: Duration = Duration::from_secs(60);

/// An image to be made: busybox, with these names and this command.
#[derive(Debug, Clone)]
pub struct Image {
    /// `name:tag`s that it will answer to.
    pub names: Vec<String>,
    /// What runs where a container names nothing.
    pub command: Vec<String>,
    /// Something that tells it from any other image: a label's value.
    pub label: String,
}

impl Image {
    /// The names under which manifests usually ask for a small shell.
    #[must_use]
    pub fn busybox() -> Self {
        Self::named(&["busybox:latest", "busybox:1.28", "busybox:1.36", "alpine:latest"])
    }

    /// Busybox under these names.
    #[must_use]
    pub fn named(names: &[&str]) -> Self {
        Self {
            names: names.iter().map(|&name| name.to_owned()).collect(),
            command: vec!["sh".to_owned()],
            label: "bench".to_owned(),
        }
    }

    /// What stands in for nginx where only its port matters: a web server on port 80.
    #[must_use]
    pub fn web() -> Self {
        let command = ["httpd", "-f", "-p", "80", "-h", "/"].map(str::to_owned).to_vec();
        Self { command, ..Self::named(&["nginx:latest", "nginx:1.14.2", "nginx:1.16.1"]) }
    }
}

impl Bench {
    /// Makes an image as a file for `docker load` and `gaggle image load`.
    pub fn image(&self, image: &Image) -> Result<PathBuf> {
        let layer = self.layer()?;
        let layer_digest = digest(&std::fs::read(&layer)?);
        let config = serde_json::json!({
            "architecture": architecture(),
            "os": "linux",
            "created": "2024-01-01T00:00:00Z",
            "config": {
                "Env": ["PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"],
                "Cmd": image.command,
                "Labels": { "bench": image.label },
            },
            "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{layer_digest}")] },
        })
        .to_string();
        let config_name = format!("{}.json", digest(config.as_bytes()));
        let manifest = serde_json::json!([{
            "Config": config_name, "RepoTags": image.names, "Layers": ["layer.tar"],
        }])
        .to_string();
        let name = digest(format!("{manifest}{config}").as_bytes());
        let file = self.layout().dir.join("images").join(format!("{}.tar", &name[..16]));
        if file.exists() {
            return Ok(file);
        }
        let scratch = tempfile::tempdir_in(self.layout().dir.join("images"))?;
        std::fs::write(scratch.path().join(&config_name), config)?;
        std::fs::write(scratch.path().join("manifest.json"), manifest)?;
        std::fs::hard_link(&layer, scratch.path().join("layer.tar"))?;
        pack(scratch.path(), &file)?;
        Ok(file)
    }

    /// The one layer: busybox and a link for each of its programs.
    fn layer(&self) -> Result<PathBuf> {
        let images = self.layout().dir.join("images");
        std::fs::create_dir_all(&images)?;
        let file = images.join("layer.tar");
        if file.exists() {
            return Ok(file);
        }
        let busybox = ["/bin/busybox", "/usr/bin/busybox"].iter().find(|path| Path::new(path).is_file());
        let busybox = busybox.context("no busybox here: run scripts/setup")?;
        let root = tempfile::tempdir_in(&images)?;
        for dir in ["bin", "tmp", "etc", "root", "var", "usr"] {
            std::fs::create_dir(root.path().join(dir))?;
        }
        std::fs::copy(busybox, root.path().join("bin/busybox"))?;
        let mut list = Command::new(busybox);
        list.arg("--list");
        let applets = outcome::run(list, b"", DEADLINE)?.ok()?;
        for applet in applets.lines().filter(|applet| *applet != "busybox") {
            std::os::unix::fs::symlink("busybox", root.path().join("bin").join(applet))?;
        }
        std::fs::write(
            root.path().join("etc/passwd"),
            "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n",
        )?;
        std::fs::write(root.path().join("etc/group"), "root:x:0:\nnogroup:x:65534:\n")?;
        pack(root.path(), &file)?;
        Ok(file)
    }
}

impl Desktop {
    /// Loads an image file into this desktop's engine, past gaggle.
    pub fn load(&self, file: &Path) -> Result<()> {
        let said = self.docker(&format!("load --input '{}'", file.display()))?.ok()?;
        ensure!(said.contains("Loaded image"), "docker load said {said:?}");
        Ok(())
    }
}

/// Packs a directory the same way each time, whole before it has its name.
fn pack(dir: &Path, file: &Path) -> Result<()> {
    let partial = tempfile::NamedTempFile::new_in(file.parent().context("a file has a directory")?)?;
    let mut tar = Command::new("tar");
    tar.args(["--sort=name", "--mtime=@0", "--owner=0", "--group=0", "--numeric-owner", "-cf"])
        .arg(partial.path())
        .arg("-C")
        .arg(dir)
        .arg(".");
    outcome::run(tar, b"", DEADLINE)?.ok()?;
    partial.persist(file).with_context(|| format!("writing {}", file.display()))?;
    Ok(())
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
