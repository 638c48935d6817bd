//! Which subnet a bench uses.

use std::net::Ipv4Addr;

/// The first three bytes of a bench's addresses. Benches have no wire between them, so that a clash would harm
/// nobody; different ones keep logs of neighbours apart.
#[derive(Debug, Clone, Copy, serde::Serialize, serde::Deserialize)]
pub struct Subnet([u8; 3]);

impl Subnet {
    /// A subnet of 10.64.0.0/10, which Docker's own bridges do not use.
    #[must_use]
    pub fn pick(pid: u32, counter: u32) -> Self {
        let bytes = pid.wrapping_mul(31).wrapping_add(counter).to_le_bytes();
        Self([10, 64 + bytes[1] % 64, bytes[0]])
    }

    /// A desktop's address.
    #[must_use]
    pub fn desktop(self, index: usize) -> Ipv4Addr {
        let last = u8::try_from(index).unwrap_or(u8::MAX);
        Ipv4Addr::new(self.0[0], self.0[1], self.0[2], last)
    }

    /// All addresses of the bench, as address/length.
    #[must_use]
    pub fn cidr(self) -> String {
        format!("{}/24", self.desktop(0))
    }

    /// The switch's own address, where the desktops send what is for the outside, and where it is refused.
    #[must_use]
    pub fn gateway(self) -> Ipv4Addr {
        self.desktop(254)
    }
}
