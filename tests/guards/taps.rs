//! Counts what the whole process allocates and copies: it is its allocator, and its `memcpy` and `memmove`.
//!
//! What is defined in the executable goes before the C library's, also for what is linked from elsewhere.
//! Copies of a few bytes become instructions of their own and are not seen; nor are those of the kernel.

use std::alloc::{GlobalAlloc, Layout, System};
use std::ffi::{CStr, c_void};
use std::ops::Sub;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static COPIED_BYTES: AtomicU64 = AtomicU64::new(0);

/// What was counted since the process began, or between two moments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    pub allocations: u64,
    pub copied_bytes: u64,
}

impl Tally {
    pub fn now() -> Tally {
        Tally {
            allocations: ALLOCATIONS.load(Ordering::SeqCst),
            copied_bytes: COPIED_BYTES.load(Ordering::SeqCst),
        }
    }
}

impl Sub for Tally {
    type Output = Tally;

    fn sub(self, earlier: Tally) -> Tally {
        Tally {
            allocations: self.allocations - earlier.allocations,
            copied_bytes: self.copied_bytes - earlier.copied_bytes,
        }
    }
}

/// Counts allocations, of all threads. One that grows is one more, and copies what the system must.
struct Counting;

// SAFETY: every call is passed on unchanged to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps `alloc`'s contract, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.realloc(memory, layout, bytes) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

type Copy = unsafe extern "C" fn(*mut c_void, *const c_void, usize) -> *mut c_void;

static MEMCPY: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());
static MEMMOVE: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());

/// # Safety
/// As C's `memcpy`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memcpy(to: *mut c_void, from: *const c_void, bytes: usize) -> *mut c_void {
    let copy = next(&MEMCPY, c"memcpy");
    COPIED_BYTES.fetch_add(bytes as u64, Ordering::Relaxed);
    // SAFETY: the caller keeps the contract, which is the same.
    unsafe { copy(to, from, bytes) }
}

/// # Safety
/// As C's `memmove`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memmove(
    to: *mut c_void,
    from: *const c_void,
    bytes: usize,
) -> *mut c_void {
    let copy = next(&MEMMOVE, c"memmove");
    COPIED_BYTES.fetch_add(bytes as u64, Ordering::Relaxed);
    // SAFETY: the caller keeps the contract, which is the same.
    unsafe { copy(to, from, bytes) }
}

/// The C library's function of this name, which is the next after ours. A loop of our own would be made a
/// call of `memcpy` by the compiler, and would cost other instructions than users pay.
fn next(known: &AtomicPtr<c_void>, name: &CStr) -> Copy {
    let mut address = known.load(Ordering::Relaxed);
    if address.is_null() {
        // SAFETY: the name ends with a zero. The C library's own copies do not come here.
        address = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) };
        assert!(!address.is_null());
        known.store(address, Ordering::Relaxed);
    }
    // SAFETY: this is the type of both functions.
    unsafe { std::mem::transmute::<*mut c_void, Copy>(address) }
}

/// The one test of this binary that counts in a process with other threads: it asks for no more than its own.
#[test]
fn allocations_and_copies_are_counted() {
    const BYTES: usize = 1 << 20;
    let from = std::hint::black_box(vec![7u8; BYTES]);
    let before = Tally::now();
    let mut copy = std::hint::black_box(from.clone());
    copy.copy_within(1.., 0);
    std::hint::black_box(&copy);
    let counted = Tally::now() - before;
    assert!(counted.allocations >= 1, "{counted:?}");
    assert!(counted.copied_bytes >= 2 * BYTES as u64 - 1, "{counted:?}");
    assert!(copy == from);
}
