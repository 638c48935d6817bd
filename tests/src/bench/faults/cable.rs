//! Bad cables: what arrives is lost now and then.

use super::super::{Bench, switch};
use anyhow::{Result, ensure};

impl Bench {
    /// Loses this share (0 to 1) of all packets that arrive at any desktop, at random. [`Bench::heal_cables`] ends it.
    pub fn lose_packets(&self, share: f64) -> Result<()> {
        ensure!((0.0..1.0).contains(&share), "{share} is no share of the packets");
        self.each(|desktop| {
            let rule = format!("-I INPUT -i eth0 -m statistic --mode random --probability {share} -j DROP");
            switch::filter(&self.layout, desktop.index(), &rule)
        })
    }

    /// Good cables again.
    pub fn heal_cables(&self) -> Result<()> {
        self.each(|desktop| switch::filter(&self.layout, desktop.index(), "-F INPUT"))
    }
}
