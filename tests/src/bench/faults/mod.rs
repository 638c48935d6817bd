//! What happens to desktops besides dying and being cut off: their disk, their address, their clock, a bad cable.
//!
//! Each fault is undone by its opposite here, by [`Bench::heal`], or by switching the desktop off.
//!
//! [`Bench::heal`]: super::Bench::heal

mod address;
mod cable;
mod clock;
mod disk;
mod files;

pub use files::Damage;
