//! Checksums: compute, combine, write and parse.
//!
//! `crc32c:` always means Castagnoli (RFC 3720, appendix B.4; the check value of `123456789` is
//! `crc32c:e3069283`). `crc32:` is the IEEE polynomial of zlib. `crc64nvme:` is the CRC of the NVMe
//! specification, which S3 and Azure use.

use std::fmt;
use std::str::FromStr;

use crc_fast::{CrcAlgorithm, Digest};

use super::combine;
use crate::error::{Error, Result};

/// A checksum algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Algorithm {
    /// CRC-32C, Castagnoli: what this crate writes.
    Crc32c,
    /// CRC-32, IEEE 802.3.
    Crc32,
    /// CRC-64/NVME.
    Crc64Nvme,
}

impl Algorithm {
    /// The name before the colon.
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Crc32c => "crc32c",
            Algorithm::Crc32 => "crc32",
            Algorithm::Crc64Nvme => "crc64nvme",
        }
    }

    /// Hexadecimal digits of a value.
    fn digits(self) -> usize {
        match self {
            Algorithm::Crc32c | Algorithm::Crc32 => 8,
            Algorithm::Crc64Nvme => 16,
        }
    }

    /// The checksum of `data`.
    pub fn checksum(self, data: &[u8]) -> Checksum {
        let mut hasher = Hasher::new(self);
        hasher.update(data);
        hasher.checksum()
    }
}

/// A checksum value with its algorithm. Its text is `algorithm:hex`, lower case, zero padded.
///
/// ```
/// use syncline::{Algorithm, Checksum};
/// let sum = Algorithm::Crc32c.checksum(b"123456789");
/// assert_eq!(sum.to_string(), "crc32c:e3069283");
/// assert_eq!("crc32c:E3069283".parse::<Checksum>().unwrap(), sum);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Checksum {
    algorithm: Algorithm,
    value: u64,
}

impl Checksum {
    /// The checksum with this value. Bits above the algorithm's width are dropped.
    pub fn new(algorithm: Algorithm, value: u64) -> Checksum {
        let width = algorithm.digits() as u32 * 4;
        Checksum { algorithm, value: value & (u64::MAX >> (64 - width)) }
    }

    /// The algorithm.
    pub fn algorithm(self) -> Algorithm {
        self.algorithm
    }

    /// The value; 32-bit algorithms use the low half.
    pub fn value(self) -> u64 {
        self.value
    }

    /// The checksum of a concatenation: `self` of the first bytes, `next` of the `next_bytes` after them.
    ///
    /// # Panics
    /// If the two algorithms differ.
    #[must_use]
    pub fn combine(self, next: Checksum, next_bytes: u64) -> Checksum {
        assert_eq!(self.algorithm, next.algorithm, "checksums of different algorithms");
        let polynomial = match self.algorithm {
            Algorithm::Crc32c => &combine::CRC32C,
            Algorithm::Crc32 => &combine::CRC32,
            Algorithm::Crc64Nvme => &combine::CRC64_NVME,
        };
        let value = polynomial.combine(self.value, next.value, next_bytes);
        Checksum { algorithm: self.algorithm, value }
    }
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}:{:0width$x}",
            self.algorithm.name(),
            self.value,
            width = self.algorithm.digits()
        )
    }
}

impl FromStr for Checksum {
    type Err = Error;

    /// Reads `algorithm:hex`. Names are exact; hexadecimal digits may be of either case.
    fn from_str(text: &str) -> Result<Checksum> {
        let parsed = text.split_once(':').and_then(|(name, hex)| {
            let known = [Algorithm::Crc32c, Algorithm::Crc32, Algorithm::Crc64Nvme];
            let algorithm = known.into_iter().find(|a| a.name() == name)?;
            let plain =
                hex.len() == algorithm.digits() && hex.bytes().all(|c| c.is_ascii_hexdigit());
            let value = plain.then(|| u64::from_str_radix(hex, 16).ok()).flatten()?;
            Some(Checksum { algorithm, value })
        });
        parsed.ok_or_else(|| {
            Error::invalid("parse checksum", format!("{text:?} is not a known checksum"))
                .with_remedy("use crc32c:, crc32: (8 hex digits) or crc64nvme: (16 hex digits)")
        })
    }
}

/// Computes a checksum piece by piece.
#[derive(Debug, Clone)]
pub struct Hasher(State);

#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant, reason = "a box would allocate for every part")]
enum State {
    /// IEEE is crc32fast's polynomial; the other two are crc-fast's.
    Ieee(crc32fast::Hasher),
    Fast(Algorithm, Digest),
}

impl Hasher {
    /// An empty hasher.
    pub fn new(algorithm: Algorithm) -> Hasher {
        Hasher(match algorithm {
            Algorithm::Crc32 => State::Ieee(crc32fast::Hasher::new()),
            Algorithm::Crc32c => State::Fast(algorithm, Digest::new(CrcAlgorithm::Crc32Iscsi)),
            Algorithm::Crc64Nvme => State::Fast(algorithm, Digest::new(CrcAlgorithm::Crc64Nvme)),
        })
    }

    /// Takes the next bytes.
    pub fn update(&mut self, data: &[u8]) {
        match &mut self.0 {
            State::Ieee(hasher) => hasher.update(data),
            State::Fast(_, digest) => digest.update(data),
        }
    }

    /// The checksum of the bytes so far. The hasher may go on.
    pub fn checksum(&self) -> Checksum {
        match &self.0 {
            State::Ieee(hasher) => {
                Checksum::new(Algorithm::Crc32, hasher.clone().finalize().into())
            }
            State::Fast(algorithm, digest) => Checksum::new(*algorithm, digest.finalize()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    /// RFC 3720, appendix B.4, and the check values of the CRC catalogue.
    #[test]
    fn published_vectors() {
        let ascending: Vec<u8> = (0..32).collect();
        let descending: Vec<u8> = (0..32).rev().collect();
        let read10 = [
            0x01, 0xc0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x14, 0, 0, 0, 0, 0, 0x04, 0, 0,
            0, 0, 0x14, 0, 0, 0, 0x18, 0x28, 0, 0, 0, 0, 0, 0, 0, 0x02, 0, 0, 0, 0, 0, 0, 0,
        ];
        let vectors: [(&[u8], &str); 9] = [
            (&[0; 32], "crc32c:8a9136aa"),
            (&[0xff; 32], "crc32c:62a8ab43"),
            (&ascending, "crc32c:46dd794e"),
            (&descending, "crc32c:113fdb5c"),
            (&read10, "crc32c:d9963a56"),
            (b"123456789", "crc32c:e3069283"),
            (b"123456789", "crc32:cbf43926"),
            (b"123456789", "crc64nvme:ae8b14860a799888"),
            (b"", "crc32c:00000000"),
        ];
        for (data, text) in vectors {
            let expected: Checksum = text.parse().unwrap();
            assert_eq!(expected.algorithm().checksum(data), expected, "{text}");
            assert_eq!(expected.to_string(), text);
        }
    }

    #[test]
    fn combining_is_concatenating() {
        let data: Vec<u8> = (0..1000u32).map(|i| ((i * i) >> 3) as u8).collect();
        for algorithm in [Algorithm::Crc32c, Algorithm::Crc32, Algorithm::Crc64Nvme] {
            for at in [0, 1, 7, 500, 999, 1000] {
                let (a, b) = data.split_at(at);
                let sum = algorithm.checksum(a).combine(algorithm.checksum(b), b.len() as u64);
                assert_eq!(sum, algorithm.checksum(&data), "{algorithm:?} at {at}");
            }
        }
    }

    #[test]
    fn unknown_checksums_are_refused() {
        for bad in
            ["", "crc32c", "crc32c:", "crc32c:123", "crc32c:+1234567", "md5:00", "CRC32C:e3069283"]
        {
            assert_eq!(
                bad.parse::<Checksum>().unwrap_err().kind(),
                ErrorKind::InvalidInput,
                "{bad}"
            );
        }
    }
}
