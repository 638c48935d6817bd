//! Virtual time, and what each machine's own clock makes of it.

/// Microseconds since the simulation began. No machine knows it.
pub type Micros = u64;

/// A machine's clock: it began somewhere, and runs a little faster or slower than time does. It goes on while the machine
/// sleeps, as `CLOCK_BOOTTIME` does, and starts elsewhere when the machine does.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    began_at: Micros,
    shows: u64,
    /// Parts per million by which it is fast.
    fast: i64,
}

impl Clock {
    pub fn new(began_at: Micros, shows_ms: u64, fast: i64) -> Self {
        Self { began_at, shows: shows_ms * 1_000, fast }
    }

    /// Milliseconds on this clock.
    pub fn ms(&self, now: Micros) -> u64 {
        let passed = now.saturating_sub(self.began_at);
        let gained = (passed as i128 * i128::from(self.fast) / 1_000_000) as i64;
        (self.shows + passed).saturating_add_signed(gained) / 1_000
    }
}
