//! What a piece of work takes of memory: an allocator that counts, for each thread, the bytes that live and those that were
//! asked for in all.
//!
//! The second number tells what the first can't: work that grows with the square of its input while little of it lives at a
//! time.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// The system's allocator, counted.
struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

#[derive(Clone, Copy)]
struct Counts {
    /// Bytes that live. What another thread has freed was never counted there, so it may be negative.
    live: isize,
    /// The most of them since somebody began to look.
    peak: isize,
    /// Bytes that were asked for since then.
    total: usize,
}

thread_local! {
    // Without a destructor and without an allocation of its own, so that it can be counted with at any time.
    static COUNTS: Cell<Counts> = const { Cell::new(Counts { live: 0, peak: 0, total: 0 }) };
}

fn count(given: usize, taken: usize) {
    // At a thread's end there is nobody left who asks.
    let _ = COUNTS.try_with(|counts| {
        let Counts { live, peak, total } = counts.get();
        let live = live.wrapping_add_unsigned(given).wrapping_sub_unsigned(taken);
        counts.set(Counts { live, peak: peak.max(live), total: total.wrapping_add(given) });
    });
}

// SAFETY: every call goes to the system's allocator as it came, and counting neither allocates nor panics.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: the caller keeps the promises that this call needs.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(0, layout.size());
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Both live while it is copied, as far as anybody may rely on it.
        count(size, 0);
        count(0, layout.size());
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// What a piece of work took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// The most bytes that lived at a time, beyond those that lived before.
    pub peak: usize,
    /// The bytes that were asked for in all.
    pub total: usize,
}

/// What `work` returns, and what it took on this thread. What it returns still lives.
pub fn taken<T>(work: impl FnOnce() -> T) -> (T, Taken) {
    let before = COUNTS.with(|counts| {
        let live = counts.get().live;
        counts.set(Counts { live, peak: live, total: 0 });
        live
    });
    let done = work();
    let Counts { peak, total, .. } = COUNTS.with(Cell::get);
    (done, Taken { peak: peak.saturating_sub(before).unsigned_abs(), total })
}

#[test]
fn what_lives_at_a_time_and_what_was_asked_for_are_counted_apart() {
    let ((), one) = taken(|| drop(vec![1_u8; 1000]));
    assert_eq!(one, Taken { peak: 1000, total: 1000 });
    let ((), many) = taken(|| (0..100).for_each(|_| drop(vec![1_u8; 1000])));
    assert_eq!(many, Taken { peak: 1000, total: 100_000 });
    let (kept, both) = taken(|| (vec![1_u8; 1000], vec![0_u8; 500]));
    assert_eq!((kept.0.len() + kept.1.len(), both), (1500, Taken { peak: 1500, total: 1500 }));
    let ((), elsewhere) = taken(|| std::thread::scope(|scope| drop(scope.spawn(|| vec![1_u8; 1_000_000]).join())));
    assert!(elsewhere.peak < 100_000, "another thread's bytes are its own: {elsewhere:?}");
}
