//! Images without a registry: a layer with busybox, and more if one likes, under any names.

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
    /// What runs where a container names no command, with its arguments.
    pub entrypoint: Vec<String>,
    /// The arguments where a container names none.
    pub command: Vec<String>,
    /// A directory that is laid over busybox's.
    pub over: Option<PathBuf>,
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
            entrypoint: Vec::new(),
            command: vec!["sh".to_owned()],
            over: None,
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
        let mut layers = vec![self.layer()?];
        layers.extend(image.over.as_deref().map(|dir| self.layer_of(dir)).transpose()?);
        let digests = layers.iter().map(|layer| digest_of(layer)).collect::<Result<Vec<_>>>()?;
        let files: Vec<String> = (0..layers.len()).map(|index| format!("layer-{index}.tar")).collect();
        let config = serde_json::json!({
            "architecture": architecture(),
            "os": "linux",
            "created": "2024-01-01T00:00:00Z",
            "config": {
                "Env": ["PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"],
                "Entrypoint": image.entrypoint,
                "Cmd": image.command,
                "Labels": { "bench": image.label },
            },
            "rootfs": { "type": "layers", "diff_ids": digests },
        })
        .to_string();
        let config_name = format!("{}.json", digest(config.as_bytes()));
        let manifest = serde_json::json!([{
            "Config": config_name, "RepoTags": image.names, "Layers": files,
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
        for (layer, file) in layers.iter().zip(&files) {
            std::fs::hard_link(layer, scratch.path().join(file))?;
        }
        pack(scratch.path(), &file)?;
        Ok(file)
    }

    /// A layer of what is in a directory, which does not change any more.
    fn layer_of(&self, dir: &Path) -> Result<PathBuf> {
        let name = digest(dir.as_os_str().as_encoded_bytes());
        let file = self.layout().dir.join("images").join(format!("layer-{}.tar", &name[..16]));
        if !file.exists() {
            pack(dir, &file)?;
        }
        Ok(file)
    }

    /// The first layer: busybox and a link for each of its programs.
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

/// A layer's digest, which is noted beside it: several images have it.
fn digest_of(layer: &Path) -> Result<String> {
    let note = layer.with_extension("digest");
    if let Ok(known) = std::fs::read_to_string(&note) {
        return Ok(known);
    }
    let found = format!("sha256:{}", digest(&std::fs::read(layer)?));
    std::fs::write(&note, &found)?;
    Ok(found)
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
