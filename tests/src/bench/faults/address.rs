//! Other addresses, as a DHCP server hands them out after the lease has run out.

use super::super::Desktop;
use super::super::switch;
use anyhow::{Context, Result, ensure};
use std::net::Ipv4Addr;

impl Desktop {
    /// Takes its address away and gives it this one of the bench's network, whether it is on or off.
    pub fn readdress(&self, last_byte: u8) -> Result<()> {
        let [a, b, c, _] = self.address().octets();
        let address = Ipv4Addr::new(a, b, c, last_byte);
        ensure!(last_byte < 254, "{address} is the gateway's or nobody's");
        switch::readdress(&self.layout, self.index, address)?;
        std::fs::write(self.address_file(), address.to_string()).context("noting the new address")?;
        // It names the old one.
        let _ = std::fs::remove_file(self.kubeconfig_file());
        if self.is_on() {
            self.exec(&format!("echo nameserver {address} > /run/resolv.conf"))?.ok()?;
        }
        Ok(())
    }
}
