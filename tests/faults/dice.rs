//! Random numbers that a failed test can draw again: it prints its seed, and `FAULT_SEED` takes it back.

use std::ops::Range;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// splitmix64.
pub struct Dice {
    state: u64,
}

/// In CI: a run that fails there must fail again for whoever looks into it, and one that passes must not be luck.
const SEED_IN_CI: u64 = 20_261_128;

/// From `FAULT_SEED`; else in CI always the same, and by hand from the clock.
pub fn seed() -> u64 {
    match (std::env::var("FAULT_SEED"), std::env::var_os("CI")) {
        (Ok(seed), _) => seed.parse().expect("FAULT_SEED is a number"),
        (Err(_), Some(_)) => SEED_IN_CI,
        (Err(_), None) => SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as u64,
    }
}

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    fn draw(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number of a range that is not empty.
    pub fn among(&mut self, range: Range<u64>) -> u64 {
        range.start + self.draw() % (range.end - range.start)
    }

    pub fn one_in(&mut self, sides: u64) -> bool {
        self.among(0..sides) == 0
    }

    pub fn millis(&mut self, range: Range<u64>) -> Duration {
        Duration::from_millis(self.among(range))
    }

    /// Dice for somebody else, whose throws do not depend on how often ours are thrown.
    pub fn fork(&mut self) -> Self {
        Self::new(self.draw())
    }
}
