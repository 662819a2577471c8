//! How the server is made to prove that it stores our bytes, and what a store has learned about it.
//!
//! The writer's checksum goes with every request, and a server that verifies it says so by repeating it
//! in its answer. Some take the header and verify nothing; they do not repeat it. Then, and where a
//! server refuses the header, payloads are signed with their SHA-256 from then on, which whoever checks
//! the signature must verify. Source: Amazon S3 user guide, "Checking object integrity".

use ::http::{HeaderMap, HeaderName};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::backend::Proof;
use crate::backend::http::{Answer, Body, insert};
use crate::backend::s3::sign::{Payload, sha256_hex};
use crate::config::S3Integrity;
use crate::encode::{Algorithm, Checksum};
use crate::error::{Error, ErrorKind, Result};
use crate::sync::{AtomicU64, Ordering};

/// What a store sends as proof. What it learned holds for all later requests.
#[derive(Debug)]
pub(crate) struct Assurance {
    policy: S3Integrity,
    /// 0: checksums; 1: checksums are not confirmed, SHA-256 beside them; 2: they are refused, SHA-256 alone.
    learned: AtomicU64,
}

/// What one request sends as proof.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sending {
    /// The checksum in a header.
    pub checksum: Option<Checksum>,
    /// Hex, where the payload is signed.
    sha256: Option<String>,
}

/// What an answer says of what was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// This much is proven.
    Proven(Proof),
    /// The server did not confirm the checksum: the same again, with what the store has learned by this.
    SendAgain,
}

impl Assurance {
    pub fn new(policy: S3Integrity) -> Assurance {
        Assurance { policy, learned: AtomicU64::new(0) }
    }

    fn learned(&self) -> u64 {
        self.learned.load(Ordering::Relaxed)
    }

    /// Whether uploads are declared to carry checksums of this algorithm.
    pub fn declares(&self, algorithm: Option<Algorithm>) -> Option<Algorithm> {
        let declares = match self.policy {
            S3Integrity::Auto => self.learned() < 2,
            S3Integrity::Checksum => true,
            S3Integrity::Sha256 | S3Integrity::None => false,
        };
        algorithm.filter(|_| declares)
    }

    /// How to send a body with this checksum.
    pub fn sending(&self, checksum: Option<Checksum>, body: Body<'_>) -> Sending {
        let hashes = match self.policy {
            S3Integrity::Auto => checksum.is_some() && self.learned() > 0,
            S3Integrity::Sha256 => true,
            S3Integrity::Checksum | S3Integrity::None => false,
        };
        Sending {
            checksum: checksum.filter(|sum| self.declares(Some(sum.algorithm())).is_some()),
            sha256: hashes.then(|| sha256_hex(body.pieces())),
        }
    }

    /// Judges the answer to a body that the server took.
    ///
    /// # Errors
    /// `ChecksumMismatch` if it confirms another checksum; `Unsupported` if it confirms none and the
    /// policy insists.
    pub fn judge(&self, sent: &Sending, answer: &Answer) -> Result<Outcome> {
        let Some(ours) = sent.checksum else {
            let hashed = sent.sha256.is_some();
            return Ok(Outcome::Proven(if hashed { Proof::Sha256Sent } else { Proof::None }));
        };
        match answer
            .header(header_of(ours.algorithm()).as_str())
            .map(|text| decode(ours.algorithm(), text))
        {
            Some(Some(theirs)) if theirs == ours => Ok(Outcome::Proven(Proof::ChecksumVerified)),
            Some(theirs) => {
                let theirs = theirs.map_or_else(|| "another".to_owned(), |sum| sum.to_string());
                let what =
                    format!("the server stored a part of checksum {theirs}, {ours} was sent");
                Err(Error::new(ErrorKind::ChecksumMismatch, "write part", what))
            }
            None if sent.sha256.is_some() => Ok(Outcome::Proven(Proof::Sha256Sent)),
            None if self.policy == S3Integrity::Checksum => {
                let what = "the server does not confirm checksums";
                Err(Error::new(ErrorKind::Unsupported, "write part", what)
                    .with_remedy("choose S3Integrity::Auto (SYNCLINE_S3_INTEGRITY=auto)"))
            }
            None => {
                if self.learned.fetch_max(1, Ordering::Relaxed) == 0 {
                    log::info!(
                        "the server does not confirm checksums: payloads are signed from now on"
                    );
                }
                Ok(Outcome::SendAgain)
            }
        }
    }

    /// How to send a body whose checksum's header the server may have refused.
    pub fn without_checksum(&self, body: Body<'_>) -> Sending {
        Sending { checksum: None, sha256: Some(sha256_hex(body.pieces())) }
    }

    /// Whether the same may be sent without the checksum's header.
    pub fn may_give_way(&self) -> bool {
        self.policy == S3Integrity::Auto
    }

    /// The same was taken without the checksum's header: none is sent from now on.
    pub fn give_way(&self) {
        if self.learned.swap(2, Ordering::Relaxed) < 2 {
            log::info!("the server refuses checksums: payloads are signed from now on");
        }
    }
}

impl Sending {
    pub fn payload(&self) -> Payload<'_> {
        self.sha256.as_deref().map_or(Payload::Unsigned, Payload::Sha256)
    }

    pub fn add_to(&self, headers: &mut HeaderMap) -> Result<()> {
        match self.checksum {
            Some(sum) => insert(headers, header_of(sum.algorithm()), &encode(sum)),
            None => Ok(()),
        }
    }
}

/// `x-amz-checksum-...`
pub(crate) fn header_of(algorithm: Algorithm) -> HeaderName {
    HeaderName::from_static(match algorithm {
        Algorithm::Crc32c => "x-amz-checksum-crc32c",
        Algorithm::Crc32 => "x-amz-checksum-crc32",
        Algorithm::Crc64Nvme => "x-amz-checksum-crc64nvme",
    })
}

/// The algorithm's name in `x-amz-checksum-algorithm`.
pub(crate) fn name_of(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::Crc32c => "CRC32C",
        Algorithm::Crc32 => "CRC32",
        Algorithm::Crc64Nvme => "CRC64NVME",
    }
}

/// The algorithm's element in CompleteMultipartUpload.
pub(crate) fn element_of(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::Crc32c => "ChecksumCRC32C",
        Algorithm::Crc32 => "ChecksumCRC32",
        Algorithm::Crc64Nvme => "ChecksumCRC64NVME",
    }
}

fn width(algorithm: Algorithm) -> usize {
    match algorithm {
        Algorithm::Crc32c | Algorithm::Crc32 => 4,
        Algorithm::Crc64Nvme => 8,
    }
}

/// Big-endian, in base64.
pub(crate) fn encode(sum: Checksum) -> String {
    let bytes = sum.value().to_be_bytes();
    STANDARD.encode(&bytes[8 - width(sum.algorithm())..])
}

/// Reads a checksum of a whole object or part; `None` for anything else, such as one of checksums.
pub(crate) fn decode(algorithm: Algorithm, text: &str) -> Option<Checksum> {
    let bytes = STANDARD.decode(text).ok().filter(|bytes| bytes.len() == width(algorithm))?;
    let value = bytes.iter().fold(0, |value: u64, byte| value << 8 | u64::from(*byte));
    Some(Checksum::new(algorithm, value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::http::StatusCode;

    fn answer(checksum: Option<&str>) -> Answer {
        let mut headers = HeaderMap::new();
        if let Some(text) = checksum {
            headers.insert("x-amz-checksum-crc32c", text.parse().unwrap());
        }
        Answer { status: StatusCode::OK, headers, body: Vec::new(), filled_bytes: 0 }
    }

    fn sum() -> Option<Checksum> {
        Some(Algorithm::Crc32c.checksum(b"123456789"))
    }

    #[test]
    fn checksums_travel_big_endian() {
        let sum = sum().unwrap();
        assert_eq!(encode(sum), "4waSgw==");
        assert_eq!(decode(Algorithm::Crc32c, "4waSgw=="), Some(sum));
        for other in ["", "4waSgw==-2", "4waS", "AAAAAAAAAAA="] {
            assert_eq!(decode(Algorithm::Crc32c, other), None, "{other}");
        }
    }

    #[test]
    fn a_server_that_confirms_is_believed_and_one_that_does_not_gets_signatures() {
        let assurance = Assurance::new(S3Integrity::Auto);
        let sent = assurance.sending(sum(), Body::of(b"123456789"));
        assert_eq!(sent.payload(), Payload::Unsigned);
        let judged = assurance.judge(&sent, &answer(Some("4waSgw==")));
        assert_eq!(judged.unwrap(), Outcome::Proven(Proof::ChecksumVerified));
        assert_eq!(assurance.judge(&sent, &answer(None)).unwrap(), Outcome::SendAgain);
        let again = assurance.sending(sum(), Body::of(b"123456789"));
        assert!(matches!(again.payload(), Payload::Sha256(_)) && again.checksum.is_some());
        let judged = assurance.judge(&again, &answer(None));
        assert_eq!(judged.unwrap(), Outcome::Proven(Proof::Sha256Sent));
        assert!(assurance.may_give_way());
        let tried = assurance.without_checksum(Body::of(b"123456789"));
        assert!(matches!(tried.payload(), Payload::Sha256(_)) && tried.checksum.is_none());
        let before = assurance.sending(sum(), Body::of(b"123456789"));
        assert_eq!(before.checksum, sum(), "nothing is learned by trying");
        assurance.give_way();
        let alone = assurance.sending(sum(), Body::of(b"123456789"));
        assert!(matches!(alone.payload(), Payload::Sha256(_)) && alone.checksum.is_none());
    }

    #[test]
    fn another_checksum_in_the_answer_is_damage() {
        for policy in [S3Integrity::Auto, S3Integrity::Checksum] {
            let assurance = Assurance::new(policy);
            let sent = assurance.sending(sum(), Body::of(b"123456789"));
            let error = assurance.judge(&sent, &answer(Some("AAAAAA=="))).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ChecksumMismatch);
        }
        let strict = Assurance::new(S3Integrity::Checksum);
        let sent = strict.sending(sum(), Body::of(b"123456789"));
        assert_eq!(strict.judge(&sent, &answer(None)).unwrap_err().kind(), ErrorKind::Unsupported);
        assert!(!strict.may_give_way());
    }

    #[test]
    fn who_wants_no_checksum_gets_none() {
        let assurance = Assurance::new(S3Integrity::Auto);
        let sent = assurance.sending(None, Body::of(b"x"));
        assert_eq!((sent.payload(), sent.checksum), (Payload::Unsigned, None));
        assert_eq!(assurance.judge(&sent, &answer(None)).unwrap(), Outcome::Proven(Proof::None));
    }
}
