//! Names of what is not yet, or no more, an object: files being written, and probes. They never look
//! like objects, `list` passes them over, and gc finds them.

use crate::error::{Error, Result};
use crate::limits::NAME_BYTES_MAX;

const SUFFIX: &str = ".syncline-tmp";

/// Hexadecimal digits of the random part.
const NONCE_DIGITS: usize = 16;

/// `.TARGET.NONCE.syncline-tmp`, with the target cut so that the name stays within NAME_MAX.
pub(crate) fn temporary_name(target: &str) -> Result<String> {
    let room = NAME_BYTES_MAX - 2 - NONCE_DIGITS - SUFFIX.len();
    let cut = target.floor_char_boundary(room);
    Ok(format!(".{}.{}{SUFFIX}", &target[..cut], nonce()?))
}

/// 64 random bits in hexadecimal.
pub(crate) fn nonce() -> Result<String> {
    let mut nonce = [0u8; 8];
    rustix::rand::getrandom(&mut nonce, rustix::rand::GetRandomFlags::empty())
        .map_err(|e| Error::from_io("draw a random name", e.into()))?;
    Ok(format!("{:016x}", u64::from_ne_bytes(nonce)))
}

/// Whether this is the last segment of such a name.
pub(crate) fn is_temporary_name(name: &str) -> bool {
    name.starts_with('.') && name.ends_with(SUFFIX)
}

/// Refuses to take anything else for what an interrupted write left.
pub(crate) fn check_temporary(key: &str) -> Result<()> {
    if key.rsplit('/').next().is_some_and(is_temporary_name) {
        return Ok(());
    }
    Err(Error::invalid("delete orphan", "not an unfinished upload"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn temporary_names_are_recognised_and_fit() {
        for target in ["a", "rank-0.bin", &"x".repeat(255), &"\u{e9}".repeat(127)] {
            let name = temporary_name(target).unwrap();
            assert!(is_temporary_name(&name) && name.len() <= NAME_BYTES_MAX, "{name}");
            assert!(!name.ends_with(".json"));
        }
        assert!(!is_temporary_name("rank-0.bin") && !is_temporary_name(".hidden"));
    }
}
