//! How a decoder is tried: on so many inputs as are asked for, on each in its largest form, and never beyond its bounds.

use std::fmt;
use std::time::Duration;

use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};
use shared::clock;

use super::allocation::{Taken, taken};
use super::giants::giants;
use super::spoiling;

/// How many inputs each decoder gets unless told otherwise.
const CASES: u32 = 256;
/// How long one input may take, on a machine that is busy with other tests: what takes longer has no bound that counts.
const SLOW: Duration = Duration::from_secs(30);
/// The most of a bad input that is shown.
const SHOWN: usize = 600;

/// What decoding may take: so much for each byte of the input, and so much in any case.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// The largest input that there can be.
    pub largest: usize,
    /// Bytes that may live at a time, for each byte of the input.
    pub peak: usize,
    /// Bytes that may be asked for in all, for each byte of the input.
    pub total: usize,
    /// Bytes of either in any case.
    pub fixed: usize,
}

impl Bounds {
    fn hold(&self, length: usize, used: Taken) -> bool {
        let within = |used: usize, factor: usize| used <= factor * length + self.fixed;
        within(used.peak, self.peak) && within(used.total, self.total)
    }
}

/// Tries `decode` on what is arbitrary, on spoiled forms of `samples`, and on giants as large as there can be.
pub fn campaign(name: &str, bounds: Bounds, samples: &[Vec<u8>], decode: impl Fn(&[u8])) {
    let few = campaign_of(name, share(1), bounds, samples, &decode);
    let large = giants(bounds.largest).into_iter().map(|giant| {
        let used = tried(&giant, bounds, &decode);
        used.unwrap_or_else(|why| panic!("{name}: {why}"))
    });
    let factor = |used: Taken| format!("{}/{}", used.peak / bounds.largest, used.total / bounds.largest);
    let most = large.fold(Taken { peak: 0, total: 0 }, larger);
    println!("{name}: at most {few:?} for small inputs; of each byte of a giant {}", factor(most));
}

/// The same without giants and with so many cases: for what a giant can't come to, or what takes its time.
pub fn campaign_of(name: &str, cases: u32, bounds: Bounds, samples: &[Vec<u8>], decode: impl Fn(&[u8])) -> Taken {
    for sample in samples {
        tried(sample, bounds, &decode).unwrap_or_else(|why| panic!("{name}, unspoiled: {why}"));
    }
    let most = std::cell::Cell::new(Taken { peak: 0, total: 0 });
    let run = runner(name, cases).run(&spoiling::inputs(samples), |input| {
        let used = tried(&input, bounds, &decode).map_err(|why| TestCaseError::fail(why.to_string()))?;
        most.set(larger(most.get(), used));
        Ok(())
    });
    if let Err(failed) = run {
        panic!("{name}: {failed:.4000}");
    }
    most.get()
}

/// Tries `decode` on one input alone, and says what that took.
pub fn alone(name: &str, bounds: Bounds, input: &[u8], decode: impl Fn(&[u8])) {
    let begun = clock::instant();
    let used = tried(input, bounds, decode).unwrap_or_else(|why| panic!("{name}: {why}"));
    println!("{name}: {} bytes took {used:?} and {:?}", input.len(), begun.elapsed());
}

/// The cases of a decoder that is given one in `divisor` of them, since each costs more.
pub fn share(divisor: u32) -> u32 {
    (number("WINDLASS_FUZZ_CASES").unwrap_or(CASES) / divisor).max(1)
}

/// What draws for the test of that name: the same in every run.
pub fn runner(name: &str, cases: u32) -> TestRunner {
    let mut seed = [0; 32];
    for (place, byte) in name.bytes().enumerate() {
        seed[8 + place % 24] ^= byte.rotate_left(u32::try_from(place / 24).unwrap_or(0));
    }
    seed[..4].copy_from_slice(&number("WINDLASS_FUZZ_SEED").unwrap_or(0).to_le_bytes());
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 2000, ..Config::default() };
    TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &seed))
}

fn number(variable: &str) -> Option<u32> {
    let text = std::env::var(variable).ok().filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is a number: {text}")))
}

fn tried(input: &[u8], bounds: Bounds, decode: impl Fn(&[u8])) -> Result<Taken, Beyond> {
    let begun = clock::instant();
    let ((), used) = taken(|| decode(input));
    let spent = begun.elapsed();
    if spent < SLOW && bounds.hold(input.len(), used) { Ok(used) } else { Err(Beyond::new(input, used, spent)) }
}

fn larger(one: Taken, other: Taken) -> Taken {
    Taken { peak: one.peak.max(other.peak), total: one.total.max(other.total) }
}

/// An input that took more than it may.
struct Beyond {
    length: usize,
    begins: String,
    used: Taken,
    spent: Duration,
}

impl Beyond {
    fn new(input: &[u8], used: Taken, spent: Duration) -> Self {
        let begins = input[..input.len().min(SHOWN)].escape_ascii().to_string();
        Self { length: input.len(), begins, used, spent }
    }
}

impl fmt::Display for Beyond {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { length, begins, used, spent } = self;
        write!(f, "{length} bytes took {used:?} and {spent:?}: {begins}")
    }
}
