//! Page-aligned memory, from the kernel's anonymous maps: no allocator call of our own, no unsafe.

use std::fmt;
use std::ops::{Deref, DerefMut};

use bytes::Bytes;
use memmap2::{MmapMut, MmapOptions};

use crate::error::{Error, ErrorKind, Result};

/// Bytes whose first address is a multiple of the page size, so that `direct://` moves them without a
/// copy. Fixed in length, zeroed at first, untouched pages cost nothing.
///
/// ```
/// let mut state = syncline::AlignedVec::zeroed(1 << 20)?;
/// state[0] = 7;
/// assert_eq!(state.len(), 1 << 20);
/// assert_eq!(state.as_ptr() as usize % 4096, 0);
/// # Ok::<(), syncline::Error>(())
/// ```
pub struct AlignedVec {
    /// `None` for length zero, which the kernel does not map.
    map: Option<MmapMut>,
}

/// From here on the kernel is asked for huge pages: touching fresh memory then costs one fault for
/// 2 MiB instead of 512.
const HUGE_PAGE_BYTES: usize = 2 * 1024 * 1024;

impl AlignedVec {
    /// `bytes` zeroed bytes.
    ///
    /// # Errors
    /// `LimitExceeded` if the kernel refuses the memory.
    pub fn zeroed(bytes: usize) -> Result<AlignedVec> {
        if bytes == 0 {
            return Ok(AlignedVec { map: None });
        }
        let map = MmapOptions::new().len(bytes).map_anon().map_err(|source| {
            Error::new(ErrorKind::LimitExceeded, "allocate", format!("{bytes} bytes: {source}"))
                .with_remedy("lower part_bytes, memory_bytes_max or the size of the request")
                .with_source(source)
        })?;
        if bytes >= HUGE_PAGE_BYTES && !cfg!(miri) {
            // Advice only: where the kernel has no huge pages, small ones serve.
            let _ = map.advise(memmap2::Advice::HugePage);
        }
        Ok(AlignedVec { map: Some(map) })
    }

    /// A copy of `data`.
    ///
    /// # Errors
    /// As [`zeroed`](AlignedVec::zeroed).
    pub fn copy_of(data: &[u8]) -> Result<AlignedVec> {
        let mut vec = AlignedVec::zeroed(data.len())?;
        vec.copy_from_slice(data);
        Ok(vec)
    }
}

impl Deref for AlignedVec {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.map.as_deref().unwrap_or_default()
    }
}

impl DerefMut for AlignedVec {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.map.as_deref_mut().unwrap_or_default()
    }
}

impl AsRef<[u8]> for AlignedVec {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

/// Without copying.
impl From<AlignedVec> for Bytes {
    fn from(vec: AlignedVec) -> Bytes {
        Bytes::from_owner(vec)
    }
}

impl fmt::Debug for AlignedVec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AlignedVec({} bytes)", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aligned_zeroed_and_turned_into_bytes() {
        let mut vec = AlignedVec::zeroed(10_000).unwrap();
        assert_eq!(vec.as_ptr() as usize % 4096, 0);
        assert!(vec.iter().all(|b| *b == 0));
        vec[9_999] = 5;
        let address = vec.as_ptr();
        let bytes = Bytes::from(vec);
        assert_eq!((bytes.len(), bytes[9_999], bytes.as_ptr()), (10_000, 5, address));
        assert!(AlignedVec::zeroed(0).unwrap().is_empty());
        assert_eq!(&AlignedVec::copy_of(b"abc").unwrap()[..], b"abc");
    }

    /// Miri has no kernel that could refuse.
    #[cfg(not(miri))]
    #[test]
    fn memory_the_kernel_refuses_is_an_error() {
        let error = AlignedVec::zeroed(usize::MAX / 4).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::LimitExceeded);
    }
}
