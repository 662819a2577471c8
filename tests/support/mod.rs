//! What several test files need: places to write to, and data that is not all alike.
#![allow(dead_code, unused_imports, reason = "each test file uses its own part of this")]

use std::sync::Arc;

use syncline::{AlignedVec, Config, ConfigBuilder, ObjectMeta, ObjectStore, Result, open_store};
use tempfile::TempDir;

pub mod data;
pub mod servers;
pub mod watch;

pub use data::noise;
pub use figures::long;
pub use watch::figures;

/// A store over some medium, and a base URI below which the test may do what it likes.
pub struct Place {
    pub store: Arc<dyn ObjectStore>,
    pub base: String,
    /// Removed with the place; `None` in memory and on servers.
    pub directory: Option<TempDir>,
}

/// What a test left on a server goes with its place.
impl Drop for Place {
    fn drop(&mut self) {
        if self.directory.is_none() && !self.base.starts_with("mem:") && !std::thread::panicking() {
            self.store.delete_prefix(&self.base).unwrap();
        }
    }
}

impl Place {
    /// `scheme` is `mem`, `file`, `direct` (on the disk of the build), `direct_tmpfs`, `s3` or `az`.
    pub fn new(scheme: &str, config: ConfigBuilder) -> Place {
        let directory = match scheme {
            "mem" | "s3" | "az" => None,
            "file" | "direct" => Some(TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap()),
            "direct_tmpfs" => Some(TempDir::new_in("/dev/shm").unwrap()),
            other => panic!("no place called {other}"),
        };
        let medium = scheme.split('_').next().unwrap();
        let (base, config) = match &directory {
            Some(directory) => {
                (format!("{medium}://{}/base", directory.path().to_str().unwrap()), config)
            }
            None if scheme == "s3" => (servers::s3_base(), config.s3(servers::s3())),
            None if scheme == "az" => (servers::az_base(), config.azure(servers::az())),
            None => ("mem://place/base".to_owned(), config),
        };
        let store = open_store(&base, &config.build().unwrap()).unwrap();
        Place { store, base, directory }
    }

    /// Bytes of the store's parts: [`PART`], or the least that the medium takes.
    pub fn part(&self) -> usize {
        self.store.config().part_bytes()
    }

    pub fn uri(&self, name: &str) -> String {
        format!("{}/{name}", self.base)
    }

    /// All objects below the base, without it; sorted where the order is the server's.
    pub fn names(&self) -> Vec<String> {
        self.names_below(&self.base)
    }

    /// All objects of this name and below it, without the base.
    pub fn names_below(&self, uri: &str) -> Vec<String> {
        let listed = self.store.list(uri).unwrap();
        let name = |meta: Result<ObjectMeta>| meta.unwrap().uri[self.base.len() + 1..].to_owned();
        let mut names: Vec<String> = listed.map(name).collect();
        if self.base.starts_with("s3:") {
            names.sort_unstable();
        }
        names
    }

    /// That nothing but `names` is left: neither objects nor unfinished uploads.
    pub fn assert_holds(&self, names: &[&str]) {
        assert_eq!(self.names(), names);
        let orphans = self.store.orphans(&self.base, std::time::Duration::ZERO).unwrap();
        assert!(orphans.is_empty(), "left over: {orphans:?}");
    }

    /// That there is no object, and that what is left expires by itself: blocks that Azure alone removes.
    pub fn assert_holds_blocks_alone(&self) {
        assert!(self.names().is_empty(), "{:?}", self.names());
        let orphans = self.store.orphans(&self.base, std::time::Duration::ZERO).unwrap();
        for orphan in orphans {
            assert!(orphan.uri.ends_with("?uncommitted") && orphan.size_bytes > 0, "{orphan:?}");
            let error = self.store.delete_orphan(&orphan).unwrap_err();
            assert_eq!(error.kind(), syncline::ErrorKind::Unsupported);
        }
    }
}

/// Small parts and few buffers, so that small tests meet every boundary.
pub fn small() -> ConfigBuilder {
    Config::builder().part_bytes(PART).io_threads(3).queue_depth_parts(2).open_writers_max(9)
}

/// The part size of [`small`].
pub const PART: usize = 64 * 1024;

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
        $crate::over_every_backend! { @ s3, $($test),* }
        $crate::over_every_backend! { @ az, $($test),* }
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
