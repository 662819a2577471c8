//! What several test files need: places to write to, and data that is not all alike.
#![allow(dead_code, reason = "each test file uses its own part of this")]

use std::sync::Arc;

use syncline::{AlignedVec, Config, ConfigBuilder, ObjectStore, open_store};
use tempfile::TempDir;

/// A store over some medium, and a base URI below which the test may do what it likes.
pub struct Place {
    pub store: Arc<dyn ObjectStore>,
    pub base: String,
    /// Removed with the place; `None` in memory.
    pub directory: Option<TempDir>,
}

impl Place {
    /// `scheme` is `mem`, `file`, `direct` (on the disk of the build) or `direct_tmpfs`.
    pub fn new(scheme: &str, config: ConfigBuilder) -> Place {
        let directory = match scheme {
            "mem" => None,
            "file" | "direct" => Some(TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap()),
            "direct_tmpfs" => Some(TempDir::new_in("/dev/shm").unwrap()),
            other => panic!("no place called {other}"),
        };
        let scheme = scheme.split('_').next().unwrap();
        let base = match &directory {
            None => "mem://place/base".to_owned(),
            Some(directory) => format!("{scheme}://{}/base", directory.path().to_str().unwrap()),
        };
        let store = open_store(&base, &config.build().unwrap()).unwrap();
        Place { store, base, directory }
    }

    pub fn uri(&self, name: &str) -> String {
        format!("{}/{name}", self.base)
    }

    /// All objects below the base, without it.
    pub fn names(&self) -> Vec<String> {
        let listed = self.store.list(&self.base).unwrap();
        listed.map(|meta| meta.unwrap().uri[self.base.len() + 1..].to_owned()).collect()
    }

    /// That nothing but `names` is left: neither objects nor unfinished uploads.
    pub fn assert_holds(&self, names: &[&str]) {
        assert_eq!(self.names(), names);
        let orphans = self.store.orphans(&self.base, std::time::Duration::ZERO).unwrap();
        assert!(orphans.is_empty(), "left over: {orphans:?}");
    }
}

/// Small parts and few buffers, so that small tests meet every boundary.
pub fn small() -> ConfigBuilder {
    Config::builder().part_bytes(PART).io_threads(3).queue_depth_parts(2).open_writers_max(9)
}

/// The part size of [`small`].
pub const PART: usize = 64 * 1024;

/// `len` bytes without a period that parts or blocks could hide.
pub fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// The same in page-aligned memory.
pub fn aligned_noise(len: usize, seed: u64) -> AlignedVec {
    AlignedVec::copy_of(&noise(len, seed)).unwrap()
}

/// Expands test functions that take a [`Place`]'s scheme over every backend; a test's name ends in it.
#[macro_export]
macro_rules! over_every_backend {
    ($($test:ident),* $(,)?) => {
        $crate::over_every_backend! { @ mem, $($test),* }
        $crate::over_every_backend! { @ file, $($test),* }
        $crate::over_every_backend! { @ direct, $($test),* }
        $crate::over_every_backend! { @ direct_tmpfs, $($test),* }
    };
    (@ $scheme:ident, $($test:ident),*) => {
        mod $scheme {
            $(
                #[test]
                fn $test() {
                    super::$test(stringify!($scheme));
                }
            )*
        }
    };
}
