//! A data directory on a disk of its own, which can be filled and can fail.
//!
//! The disk is mounted among the desktop's own mounts and is gone when the desktop is switched off.

use super::super::Desktop;
use anyhow::Result;

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
        // It ends with "no space left", which is what is wanted. What the daemon frees meanwhile is filled, too.
        self.exec(&format!(
            "for _ in $(seq 50); do cat /dev/zero >> '{0}/filler'; head -c 1 /dev/zero >> '{0}/filler' || exit 0; done; exit 1",
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
    /// copies what is in the data directory there.
    pub fn failing_disk(&self) -> Result<()> {
        let (data, dir) = (self.data_dir(), self.dir());
        let (data, dir) = (data.display(), dir.display());
        self.exec(&format!(
            "set -e; truncate -s 64M '{dir}/disk'; mkfs.ext4 -q -F -O ^has_journal '{dir}/disk'; mkdir -p '{dir}/mounted'
             mount -o loop,errors=remount-ro '{dir}/disk' '{dir}/mounted'
             cp -a '{data}/.' '{dir}/mounted/'; sync -f '{dir}/mounted'; mount --move '{dir}/mounted' '{data}'"
        ))?
        .ok()?;
        Ok(())
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
        let (data, dir) = (self.data_dir(), self.dir());
        // fsck says 1 when it has mended something.
        self.exec(&format!(
            "umount '{0}' && {{ fsck.ext4 -p -f '{1}/disk' || [ $? = 1 ]; }} && mount -o loop,errors=remount-ro '{1}/disk' '{0}'",
            data.display(),
            dir.display()
        ))?
        .ok()?;
        Ok(())
    }
}
