//! What happens to desktops besides dying and being cut off: their disk, their address, their clock, a bad cable, a long one.
//!
//! Each fault is undone by its opposite here, by [`Bench::heal`], or by switching the desktop off.
//!
//! [`Bench::heal`]: super::Bench::heal

mod address;
mod cable;
mod clock;
mod disk;
mod files;
mod wire;

pub use files::Damage;
pub use wire::LongWires;
