//! Sizes as people write them.

use crate::error::{Error, Result};

/// Reads a size: a number with an optional unit, `K`/`KiB`, `M`/`MiB`, `G`/`GiB`, `T`/`TiB` (powers of
/// 1024) or `KB`, `MB`, `GB`, `TB` (powers of 1000), in any case; a fraction is allowed before a unit.
///
/// ```
/// assert_eq!(syncline::parse_bytes("16MiB").unwrap(), 16 << 20);
/// assert_eq!(syncline::parse_bytes("1.5k").unwrap(), 1536);
/// assert!(syncline::parse_bytes("12 apples").is_err());
/// ```
///
/// # Errors
/// `InvalidInput` for anything else, and for sizes of 2^63 bytes or more.
pub fn parse_bytes(text: &str) -> Result<u64> {
    let bad = || {
        Error::invalid("parse size", format!("{text:?} is not a size"))
            .with_remedy("write for example 4096, 512KiB, 16MiB or 1.5GiB")
    };
    let trimmed = text.trim();
    let split = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(split);
    let unit_bytes: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        _ => return Err(bad()),
    };
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(unit_bytes).filter(|b| *b < 1 << 63).ok_or_else(bad);
    }
    let value: f64 = number.parse().map_err(|_| bad())?;
    let bytes = value * unit_bytes as f64;
    if unit_bytes == 1 || !bytes.is_finite() || bytes >= (1u64 << 63) as f64 {
        return Err(bad());
    }
    Ok(bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [("0", 0), ("4096", 4096), ("64k", 65536), ("2GB", 2_000_000_000)] {
            assert_eq!(parse_bytes(text).unwrap(), bytes, "{text}");
        }
        for bad in ["", "MiB", "-1", "1.5", "1e3", "99999999999T", "1..2M", "9223372036854775808"] {
            assert!(parse_bytes(bad).is_err(), "{bad}");
        }
    }
}
