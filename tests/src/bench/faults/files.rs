//! Files of the daemon that are not what it wrote.

use super::super::Desktop;
use anyhow::{Context, Result};
use std::os::unix::fs::FileExt;

/// What a bad disk, a power cut or a person does to a file.
#[derive(Debug, Clone, Copy)]
pub enum Damage {
    /// Only so many bytes of it are left.
    Cut(u64),
    /// Every bit of 512 bytes from here on is turned.
    Flip(u64),
    Remove,
}

impl Desktop {
    /// Damages a file of the data directory, which is on the machine's own disk. The daemon must not run.
    pub fn damage(&self, file: &str, damage: Damage) -> Result<()> {
        let path = self.data_dir().join(file);
        let damaged = || -> std::io::Result<()> {
            if matches!(damage, Damage::Remove) {
                return std::fs::remove_file(&path);
            }
            let opened = std::fs::OpenOptions::new().read(true).write(true).open(&path)?;
            match damage {
                Damage::Cut(bytes) => opened.set_len(bytes),
                Damage::Flip(at) => {
                    let mut bytes = [0; 512];
                    let read = opened.read_at(&mut bytes, at)?;
                    bytes.iter_mut().for_each(|byte| *byte ^= 0xff);
                    opened.write_all_at(&bytes[..read], at)
                }
                Damage::Remove => Ok(()),
            }
        };
        damaged().with_context(|| format!("damaging {}", path.display()))
    }
}
