//! What the model does about checksums.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use crc_fast::CrcAlgorithm;
use sha2::{Digest, Sha256};

use super::{Answer, Behavior, Operation, Request, error, operation};

/// What the server makes of `x-amz-checksum-...`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checksums {
    /// Compared with the bytes, and confirmed in the answer.
    VerifyAndEcho,
    /// Not looked at, and in no answer.
    Ignore,
    /// Refused with this status, but for DeleteObjects: 400 or 501.
    Refuse(u16),
}

/// The names that follow `x-amz-checksum-`, those of the elements, and of the algorithms.
pub const ALGORITHMS: [(&str, &str, &str); 4] = [
    ("crc32", "ChecksumCRC32", "CRC32"),
    ("crc32c", "ChecksumCRC32C", "CRC32C"),
    ("crc64nvme", "ChecksumCRC64NVME", "CRC64NVME"),
    ("sha256", "ChecksumSHA256", "SHA256"),
];

/// A checksum in base64, and by which of [`ALGORITHMS`] it was made.
pub type Named = (&'static str, String);

/// A checksum of `bytes` in base64.
pub fn checksum(algorithm: &str, bytes: &[u8]) -> String {
    let crc = |algorithm| crc_fast::checksum(algorithm, bytes);
    match algorithm {
        "crc32" => BASE64_STANDARD.encode((crc(CrcAlgorithm::Crc32IsoHdlc) as u32).to_be_bytes()),
        "crc32c" => BASE64_STANDARD.encode((crc(CrcAlgorithm::Crc32Iscsi) as u32).to_be_bytes()),
        "crc64nvme" => BASE64_STANDARD.encode(crc(CrcAlgorithm::Crc64Nvme).to_be_bytes()),
        "sha256" => BASE64_STANDARD.encode(Sha256::digest(bytes)),
        other => panic!("no algorithm {other}"),
    }
}

/// The checksum that comes with a request.
pub fn given(request: &Request) -> Option<Named> {
    ALGORITHMS.iter().find_map(|(name, _, _)| {
        Some((*name, request.header(&format!("x-amz-checksum-{name}"))?.to_owned()))
    })
}

/// The element of a checksum in a document.
pub fn element_of(algorithm: &str) -> &'static str {
    ALGORITHMS
        .iter()
        .find(|(name, _, _)| *name == algorithm)
        .map(|(_, element, _)| *element)
        .unwrap()
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The hash of the body, where the request is signed with it.
pub fn check_sha256(request: &Request) -> Result<(), Answer> {
    match request.header("x-amz-content-sha256") {
        None | Some("UNSIGNED-PAYLOAD") => Ok(()),
        Some(streaming) if streaming.starts_with("STREAMING-") => Err(error(501, "NotImplemented")),
        Some(hash) if hash == hex(&Sha256::digest(&request.body)) => Ok(()),
        Some(_) => Err(error(400, "XAmzContentSHA256Mismatch")),
    }
}

/// The checksum headers of any request.
pub fn check_headers(request: &Request, behavior: &Behavior) -> Result<(), Answer> {
    let names = ["x-amz-checksum-", "x-amz-sdk-checksum-"];
    let asked = request.headers.iter().any(|(header, _)| {
        header != "x-amz-checksum-mode" && names.iter().any(|name| header.starts_with(name))
    });
    let operation = operation(request);
    match behavior.checksums {
        Checksums::Ignore => Ok(()),
        Checksums::Refuse(_) if operation == Operation::DeleteMany || !asked => Ok(()),
        Checksums::Refuse(400) => Err(error(400, "InvalidRequest")),
        Checksums::Refuse(status) => Err(error(status, "NotImplemented")),
        Checksums::VerifyAndEcho => {
            if operation == Operation::DeleteMany
                && !asked
                && request.header("content-md5").is_none()
            {
                return Err(error(400, "InvalidRequest"));
            }
            // With Complete comes the object's, not that of the request.
            let of_body = operation != Operation::Complete;
            match given(request).filter(|_| of_body) {
                Some((name, sum)) if checksum(name, &request.body) != sum => {
                    Err(error(400, "BadDigest"))
                }
                _ => Ok(()),
            }
        }
    }
}
