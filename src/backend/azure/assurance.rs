//! How the server is made to prove that it stores our bytes, and what a store has learned about it.
//!
//! A CRC-64 goes with every block and every small blob. It is computed on the writer's side, beside the
//! object's own checksum, and the server repeats what it found in its answer to a block. Where a server
//! refuses the header or does not repeat it, MD5 is sent from then on. What covers a list of blocks says
//! nothing of the blocks: the object is proven by its blocks, their order and its size.
//! Source: Blob service REST API, "Put Block" and "Put Blob".

use ::http::{HeaderMap, HeaderName};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::backend::Proof;
use crate::backend::http::{Answer, Body, insert};
use crate::config::AzureIntegrity;
use crate::encode::{Algorithm, Checksum};
use crate::error::{Error, ErrorKind, Result};
use crate::sync::{AtomicBool, Ordering};

const CONTENT_CRC64: HeaderName = HeaderName::from_static("x-ms-content-crc64");
const CONTENT_MD5: HeaderName = HeaderName::from_static("content-md5");

/// What a store sends as proof. What it learned holds for all later requests.
#[derive(Debug)]
pub(crate) struct Assurance {
    policy: AzureIntegrity,
    /// Whether the server refuses CRC-64, or takes it without a look.
    prefers_md5: AtomicBool,
}

/// What one request sends as proof.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Sending {
    Crc64(Checksum),
    /// In base64.
    Md5(String),
    Nothing,
}

/// What an answer says of what was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// This much is proven.
    Proven(Proof),
    /// The server did not confirm the CRC-64: the same again, with MD5.
    SendAgain,
}

impl Assurance {
    pub fn new(policy: AzureIntegrity) -> Assurance {
        Assurance { policy, prefers_md5: AtomicBool::new(false) }
    }

    /// The checksum that the parts of a new upload carry.
    pub fn transport_checksum(&self) -> Option<Algorithm> {
        let crc64 = match self.policy {
            AzureIntegrity::Auto => !self.prefers_md5.load(Ordering::Relaxed),
            AzureIntegrity::Crc64 => true,
            AzureIntegrity::Md5 | AzureIntegrity::None => false,
        };
        crc64.then_some(Algorithm::Crc64Nvme)
    }

    /// How to send a body with this CRC-64. Who wants no checksum has none, and gets none.
    pub fn sending(&self, crc64: Option<Checksum>, summed: bool, body: Body<'_>) -> Sending {
        match self.policy {
            _ if !summed => Sending::Nothing,
            AzureIntegrity::None => Sending::Nothing,
            AzureIntegrity::Crc64 | AzureIntegrity::Auto => {
                match crc64.filter(|_| self.transport_checksum().is_some()) {
                    Some(sum) => Sending::Crc64(sum),
                    None => Sending::Md5(md5_of(body)),
                }
            }
            AzureIntegrity::Md5 => Sending::Md5(md5_of(body)),
        }
    }

    /// Judges the answer to a body that the server took. `told`: whether servers that verify say so in
    /// such an answer, which for small blobs is not certain.
    ///
    /// # Errors
    /// `ChecksumMismatch` if it confirms another checksum; `Unsupported` if it confirms none and the
    /// policy insists.
    pub fn judge(&self, sent: &Sending, answer: &Answer, told: bool) -> Result<Outcome> {
        let (ours, header) = match sent {
            Sending::Crc64(sum) => (encode(*sum), CONTENT_CRC64),
            Sending::Md5(text) => (text.clone(), CONTENT_MD5),
            Sending::Nothing => return Ok(Outcome::Proven(Proof::None)),
        };
        match answer.header(header.as_str()) {
            Some(theirs) if theirs == ours => Ok(Outcome::Proven(Proof::ChecksumVerified)),
            Some(theirs) => {
                let what =
                    format!("the server stored a part of {header} {theirs:?}, {ours} was sent");
                Err(Error::new(ErrorKind::ChecksumMismatch, "write part", what))
            }
            None if !told || matches!(sent, Sending::Md5(_)) => {
                Ok(Outcome::Proven(Proof::ChecksumSent))
            }
            None if self.policy == AzureIntegrity::Crc64 => {
                let what = "the server does not confirm CRC-64";
                Err(Error::new(ErrorKind::Unsupported, "write part", what)
                    .with_remedy("choose AzureIntegrity::Auto (SYNCLINE_AZ_INTEGRITY=auto)"))
            }
            None => {
                self.learn("does not confirm");
                Ok(Outcome::SendAgain)
            }
        }
    }

    /// Whether a refusal may be of the header of the CRC-64, and the same with MD5 may be taken. Asked of
    /// a refusal to a request that carried one.
    pub fn gives_way(&self) -> bool {
        let gives_way = self.policy == AzureIntegrity::Auto;
        if gives_way {
            self.learn("refuses");
        }
        gives_way
    }

    fn learn(&self, what: &str) {
        if !self.prefers_md5.swap(true, Ordering::Relaxed) {
            log::info!("the server {what} CRC-64: MD5 is sent from now on");
        }
    }
}

impl Sending {
    pub fn add_to(&self, headers: &mut HeaderMap) -> Result<()> {
        match self {
            Sending::Crc64(sum) => insert(headers, CONTENT_CRC64, &encode(*sum)),
            Sending::Md5(text) => insert(headers, CONTENT_MD5, text),
            Sending::Nothing => Ok(()),
        }
    }
}

/// Little-endian, in base64.
fn encode(sum: Checksum) -> String {
    STANDARD.encode(sum.value().to_le_bytes())
}

fn md5_of(body: Body<'_>) -> String {
    let mut context = md5::Context::new();
    body.pieces().for_each(|piece| context.consume(piece));
    STANDARD.encode(context.finalize().0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::http::StatusCode;

    fn answer(name: &'static str, value: Option<&str>) -> Answer {
        let mut headers = HeaderMap::new();
        if let Some(value) = value {
            headers.insert(name, value.parse().unwrap());
        }
        Answer { status: StatusCode::CREATED, headers, body: Vec::new(), filled_bytes: 0 }
    }

    fn sum() -> Option<Checksum> {
        Some(Algorithm::Crc64Nvme.checksum(b"123456789"))
    }

    fn body() -> Body<'static> {
        Body::of(b"123456789")
    }

    /// The check value of CRC-64/NVME is ae8b14860a799888; the MD5 is of RFC 1321's kind.
    #[test]
    fn digests_are_written_as_the_service_wants_them() {
        assert_eq!(encode(sum().unwrap()), "iJh5CoYUi64=");
        assert_eq!(md5_of(Body::of(b"abc")), "kAFQmDzST7DWlj99KOF/cg==");
        let pieces = Body { first: b"1234", more: &[b"56789"] };
        assert_eq!(md5_of(pieces), md5_of(body()));
    }

    #[test]
    fn a_server_that_confirms_is_believed_and_one_that_does_not_gets_md5() {
        let assurance = Assurance::new(AzureIntegrity::Auto);
        let sent = assurance.sending(sum(), true, body());
        let confirmed = answer("x-ms-content-crc64", Some("iJh5CoYUi64="));
        assert_eq!(
            assurance.judge(&sent, &confirmed, true).unwrap(),
            Outcome::Proven(Proof::ChecksumVerified)
        );
        let silent = answer("x-ms-content-crc64", None);
        // Of a small blob silence means nothing.
        assert_eq!(
            assurance.judge(&sent, &silent, false).unwrap(),
            Outcome::Proven(Proof::ChecksumSent)
        );
        assert_eq!(assurance.judge(&sent, &silent, true).unwrap(), Outcome::SendAgain);
        let again = assurance.sending(sum(), true, body());
        assert!(matches!(again, Sending::Md5(_)));
        assert_eq!(assurance.transport_checksum(), None, "later writers save themselves the CRC");
        assert_eq!(
            assurance.judge(&again, &silent, true).unwrap(),
            Outcome::Proven(Proof::ChecksumSent)
        );
    }

    #[test]
    fn another_digest_in_the_answer_is_damage() {
        for policy in [AzureIntegrity::Auto, AzureIntegrity::Crc64, AzureIntegrity::Md5] {
            let assurance = Assurance::new(policy);
            let sent = assurance.sending(sum(), true, body());
            for header in ["x-ms-content-crc64", "content-md5"] {
                let told = answer(header, Some("AAAAAAAAAAA="));
                let judged = assurance.judge(&sent, &told, false);
                let of_other = (header == "content-md5") != matches!(sent, Sending::Md5(_));
                match judged {
                    Ok(outcome) => {
                        assert!(of_other && outcome == Outcome::Proven(Proof::ChecksumSent))
                    }
                    Err(error) => assert_eq!(error.kind(), ErrorKind::ChecksumMismatch),
                }
            }
        }
    }

    #[test]
    fn who_insists_is_told_and_who_wants_nothing_gets_nothing() {
        let strict = Assurance::new(AzureIntegrity::Crc64);
        let sent = strict.sending(sum(), true, body());
        let silent = answer("x-ms-content-crc64", None);
        let error = strict.judge(&sent, &silent, true).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(!strict.gives_way());
        for policy in [AzureIntegrity::Auto, AzureIntegrity::Crc64, AzureIntegrity::Md5] {
            assert_eq!(Assurance::new(policy).sending(None, false, body()), Sending::Nothing);
        }
        let none = Assurance::new(AzureIntegrity::None);
        assert_eq!(none.sending(sum(), true, body()), Sending::Nothing);
        assert_eq!(none.transport_checksum(), None);
    }
}
