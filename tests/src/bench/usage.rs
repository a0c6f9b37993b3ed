//! What processes have used: CPU time and memory.

use std::fs;

use crate::process;

/// In which the kernel counts CPU time, a second: `sysconf(_SC_CLK_TCK)`, which is 100 on every Linux.
const TICKS: f64 = 100.0;

/// The CPU seconds of a process and all that it has started, those that have ended and were waited for included.
pub fn cpu_of_tree(pid: i32) -> f64 {
    own(pid, true) + process::children(pid).into_iter().map(cpu_of_tree).sum::<f64>()
}

/// The CPU seconds of this process alone.
pub fn cpu_of_self() -> f64 {
    own(i32::try_from(std::process::id()).unwrap_or_default(), false)
}

fn own(pid: i32, with_ended: bool) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // After the name, which may hold anything: proc(5) counts utime, stime, cutime and cstime as fields 14 to 17.
    let fields = text.rsplit_once(')').map_or("", |(_, fields)| fields).split_whitespace();
    let count = if with_ended { 4 } else { 2 };
    fields.skip(11).take(count).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / TICKS
}

/// The memory that a process has in use now, in MB.
pub fn memory_mb(pid: i32) -> f64 {
    kib(pid, "VmRSS:")
}

/// The most memory that a process has had in use, in MB.
pub fn peak_memory_mb(pid: i32) -> f64 {
    kib(pid, "VmHWM:")
}

fn kib(pid: i32, field: &str) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap_or_default();
    line.trim().trim_end_matches("kB").trim().parse::<f64>().unwrap_or_default() * 1024.0 / 1e6
}

/// CPU seconds of some processes, from a moment on.
#[derive(Debug)]
pub struct Meter {
    of: Vec<(&'static str, Option<i32>)>,
    begun: Vec<f64>,
}

impl Meter {
    /// From now on, of these processes and all that they start, and of this program alone where no number is given.
    pub fn start(of: Vec<(&'static str, Option<i32>)>) -> Self {
        let begun = of.iter().map(|(_, pid)| cpu(*pid)).collect();
        Self { of, begun }
    }

    /// How much each has used since.
    pub fn read(&self) -> Vec<(&'static str, f64)> {
        self.of.iter().zip(&self.begun).map(|((name, pid), begun)| (*name, cpu(*pid) - begun)).collect()
    }
}

fn cpu(pid: Option<i32>) -> f64 {
    pid.map_or_else(cpu_of_self, cpu_of_tree)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use shared::clock;

    use super::{Meter, memory_mb, peak_memory_mb};

    #[test]
    fn what_a_process_uses_is_seen() {
        let meter = Meter::start(vec![("we", None)]);
        let begun = clock::instant();
        let mut sum = 0_u64;
        while meter.read()[0].1 < 0.05 {
            sum = (0..100_000).fold(sum, |sum: u64, n| std::hint::black_box(sum.wrapping_add(n)));
            assert!(begun.elapsed() < Duration::from_secs(10), "a busy process uses time");
        }
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(memory_mb(own) > 0.0 && peak_memory_mb(own) >= memory_mb(own) * 0.9);
    }
}
