//! A data directory on a disk of its own, which can be filled and can fail.
//!
//! The disk is mounted among the desktop's own mounts. One in memory is gone when the desktop is switched off.

use super::super::{Desktop, poll};
use anyhow::Result;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// The size of a disk that can fail: sparse, so that only what is written to it takes place on the machine's own.
const DISK_MEGABYTES: u32 = 96;
/// The kernel's own threads let go of a file system in milliseconds; this only bounds a wedged one.
const LET_GO_WITHIN: Duration = Duration::from_secs(20);

impl Desktop {
    /// Gives the daemon, which must not run, an empty disk of so many megabytes in memory for its data directory.
    pub fn small_disk(&self, megabytes: u32) -> Result<()> {
        let data = self.data_dir();
        self.exec(&format!("mount -t tmpfs -o size={megabytes}m,mode=700 tmpfs '{}'", data.display()))?
            .ok()?;
        Ok(())
    }

    /// Fills the data directory's disk to the last byte.
    pub fn fill_disk(&self) -> Result<()> {
        // It ends with "no space left", which is what is wanted. What the daemon frees meanwhile is filled, too; a page or two
        // it may free at any moment.
        self.exec(&format!(
            "for _ in $(seq 50); do cat /dev/zero >> '{0}/filler'; [ $(df -k --output=avail '{0}' | tail -n 1) -ge 8 ] || exit 0; done; exit 1",
            self.data_dir().display()
        ))?
        .ok()?;
        Ok(())
    }

    /// Makes room again.
    pub fn empty_disk(&self) -> Result<()> {
        self.exec(&format!("rm '{}/filler'", self.data_dir().display()))?.ok()?;
        Ok(())
    }

    /// Gives the daemon, which must not run, a disk with a file system that turns read-only after an error, and
    /// copies what is in the data directory there. It is there again whenever the desktop is switched on.
    pub fn failing_disk(&self) -> Result<()> {
        let (data, disk, dir) = (self.data_dir(), self.disk_file(), self.dir());
        let (data, disk, dir) = (data.display(), disk.display(), dir.display());
        self.exec(&format!(
            "set -e; truncate -s {DISK_MEGABYTES}M '{disk}'; mkfs.ext4 -q -F -O ^has_journal '{disk}'; mkdir -p '{dir}/mounted' '{data}'
             mount -o loop,errors=remount-ro '{disk}' '{dir}/mounted'
             cp -a '{data}/.' '{dir}/mounted/'; sync -f '{dir}/mounted'; mount --move '{dir}/mounted' '{data}'"
        ))?
        .ok()?;
        Ok(())
    }

    /// Checks the disk of [`Desktop::failing_disk`], if there is one, and mounts it, as a desktop does at its start.
    pub(in crate::bench) fn put_disk_back(&self) -> Result<()> {
        let disk = self.disk_file();
        if !disk.exists() {
            return Ok(());
        }
        // The kernel lets go of it some time after the last process that saw it mounted has died.
        poll(LET_GO_WITHIN, &format!("{} to be free", disk.display()), || {
            let holders = Command::new("losetup").arg("-j").arg(&disk).output()?;
            Ok(holders.stdout.is_empty().then_some(()))
        })?;
        self.check_and_mount("")
    }

    /// Lets go of the disk after `before`, checks it and mounts it.
    fn check_and_mount(&self, before: &str) -> Result<()> {
        let (data, disk) = (self.data_dir(), self.disk_file());
        let (data, disk) = (data.display(), disk.display());
        // fsck says 1 when it has mended something.
        self.exec(&format!(
            "{before} {{ fsck.ext4 -p -f '{disk}' || [ $? = 1 ]; }} && mount -o loop,errors=remount-ro '{disk}' '{data}'"
        ))?
        .ok()?;
        Ok(())
    }

    fn disk_file(&self) -> PathBuf {
        self.dir().join("disk")
    }

    /// The disk of [`Desktop::failing_disk`] has an error: from now on the kernel lets nobody write to it.
    pub fn fail_disk(&self) -> Result<()> {
        self.exec(&format!(
            "set -e; device=$(findmnt -no SOURCE --target '{}'); echo 1 > /sys/fs/ext4/$(basename $device)/trigger_fs_error",
            self.data_dir().display()
        ))?
        .ok()?;
        Ok(())
    }

    /// Checks the failed disk and puts it back, as a restart of the desktop does. The daemon must not run.
    pub fn mend_disk(&self) -> Result<()> {
        self.check_and_mount(&format!("umount '{}' &&", self.data_dir().display()))
    }
}
