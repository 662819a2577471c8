//! What a server says instead of doing what it was asked, and the error that becomes of it.
//! Source: Blob service REST API, "Blob service error codes" and "Common REST API error codes".

use ::http::StatusCode;

use crate::backend::azure::xml::{ServerError, parse_error};
use crate::backend::http::{Answer, refusal_text};
use crate::error::{Error, ErrorKind};

/// An answer of status 300 or above.
#[derive(Debug, Clone)]
pub(crate) struct Refusal {
    pub status: StatusCode,
    /// `BlobNotFound`, `ServerBusy`, ...; in a header too, so that an answer to HEAD has it.
    pub code: String,
    message: String,
    /// Whether a shared access signature is not valid now.
    out_of_time: bool,
    request_id: Option<String>,
    /// The attempt it answers.
    pub attempts: u32,
}

impl Refusal {
    /// Reads an answer; its body may be anything.
    pub fn read(answer: &Answer, attempts: u32) -> Refusal {
        let ServerError { code, message, detail } = parse_error(&answer.body).unwrap_or_default();
        let header = |name| answer.header(name).map(str::to_owned);
        Refusal {
            status: answer.status,
            code: header("x-ms-error-code").unwrap_or(code),
            // Lines after the first repeat the request's id and the time.
            message: message.lines().next().unwrap_or_default().to_owned(),
            // Quoted is none of it: it may hold what was signed, and signatures.
            out_of_time: detail.contains("Signature not valid in the specified time frame"),
            request_id: header("x-ms-request-id"),
            attempts,
        }
    }

    pub fn is(&self, code: &str) -> bool {
        self.code == code
    }

    fn is_one_of(&self, codes: &[&str]) -> bool {
        codes.iter().any(|code| self.is(code))
    }

    /// That the object is not there. An answer without a code is believed.
    pub fn is_absence(&self) -> bool {
        self.status == StatusCode::NOT_FOUND
            && (self.code.is_empty() || self.is_one_of(&["BlobNotFound", "ResourceNotFound"]))
    }

    /// That the condition of the request does not hold; for `If-None-Match: *` that there is an object.
    /// Azure says so by either status, other failed conditions are of leases.
    pub fn is_condition(&self) -> bool {
        self.is("BlobAlreadyExists")
            || (self.status == StatusCode::PRECONDITION_FAILED
                && (self.code.is_empty()
                    || self.is_one_of(&["ConditionNotMet", "TargetConditionNotMet"])))
    }

    /// Whether the server asks for fewer requests.
    pub fn is_throttling(&self) -> bool {
        self.is("ServerBusy")
            || matches!(
                self.status,
                StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
            )
    }

    /// Whether the same request may succeed later.
    pub fn is_passing(&self) -> bool {
        let status = matches!(self.status.as_u16(), 408 | 429 | 500 | 502 | 503 | 504);
        (status && !self.is_of_header())
            || self.is_one_of(&["OperationTimedOut", "InternalError"])
            || self.is_throttling()
    }

    /// That the body is not the one whose digest was sent.
    pub fn is_digest_mismatch(&self) -> bool {
        self.is_one_of(&["Crc64Mismatch", "Md5Mismatch"])
    }

    /// Whether it may be of a header that the server does not know.
    pub fn is_of_header(&self) -> bool {
        match self.status.as_u16() {
            // Azurite says so before 3.37.
            500 => self.is("FeatureNotSupported"),
            501 => true,
            400 => {
                self.code.is_empty()
                    || self.is_one_of(&[
                        "UnsupportedHeader",
                        "InvalidHeaderValue",
                        "NotImplemented",
                    ])
            }
            _ => false,
        }
    }

    /// As the error of `operation`.
    pub fn into_error(self, operation: &'static str) -> Error {
        let detail =
            refusal_text(self.status, &self.code, &self.message, self.request_id.as_deref());
        let (kind, remedy) = self.meaning();
        let error = Error::new(kind, operation, detail).with_attempts(self.attempts);
        match remedy {
            Some(remedy) => error.with_remedy(remedy),
            None => error,
        }
    }

    fn meaning(&self) -> (ErrorKind, Option<&'static str>) {
        by_code(&self.code).unwrap_or_else(|| match self.status.as_u16() {
            304 => (ErrorKind::Unavailable, Some("check what stands between: this was not asked")),
            300..=399 => {
                (ErrorKind::InvalidInput, Some("the account is elsewhere: check the endpoint"))
            }
            401 | 403 if self.out_of_time => (
                ErrorKind::PermissionDenied,
                Some("get a new shared access signature: this one is not valid now"),
            ),
            401 | 403 => {
                (ErrorKind::PermissionDenied, Some("check the credentials and what they may do"))
            }
            404 => (ErrorKind::NotFound, None),
            405 | 501 => (ErrorKind::Unsupported, None),
            409 => (ErrorKind::Conflict, None),
            412 => (ErrorKind::Conflict, Some("write the object again")),
            413 => (ErrorKind::LimitExceeded, Some("choose another part size")),
            507 => (ErrorKind::NoSpace, Some("free space or raise the quota")),
            408 | 429 | 500.. => {
                (ErrorKind::Unavailable, Some("the server may recover: try again later"))
            }
            _ => (ErrorKind::InvalidInput, None),
        })
    }
}

/// What some codes mean, whatever the status.
fn by_code(code: &str) -> Option<(ErrorKind, Option<&'static str>)> {
    let (kind, remedy) = match code {
        "BlobAlreadyExists" => return Some((ErrorKind::AlreadyExists, None)),
        "ContainerNotFound" | "ContainerBeingDeleted" | "ContainerDisabled" => (
            ErrorKind::BucketNotFound,
            "create the container, or check its name, the account and the endpoint",
        ),
        "AuthenticationFailed" => return None,
        "AccountIsDisabled" | "InsufficientAccountPermissions" => {
            (ErrorKind::PermissionDenied, "check the account")
        }
        "LeaseIdMissing" | "LeaseLost" | "LeaseIdMismatchWithBlobOperation" => (
            ErrorKind::Conflict,
            "somebody holds a lease on the blob: let it be released or break it",
        ),
        "BlobArchived" | "BlobBeingRehydrated" => (
            ErrorKind::Unsupported,
            "the blob is in the archive tier: rehydrate it first, or use another name",
        ),
        "BlobImmutableDueToPolicy" => (
            ErrorKind::PermissionDenied,
            "a retention policy or a legal hold protects the blob: use another name",
        ),
        "InvalidBlobType" => (
            ErrorKind::InvalidInput,
            "a page or append blob has this name: remove it or use another name",
        ),
        "SnapshotsPresent" => (ErrorKind::Conflict, "remove the blob's snapshots first"),
        "InvalidBlobOrBlock" => (
            ErrorKind::Conflict,
            "uncommitted blocks with ids of another length are left at this name, by another \
             program: they expire after a week; until then use another name, or put a small \
             object there and remove it",
        ),
        "InvalidBlockList" => (ErrorKind::Conflict, "write the object again"),
        "InvalidUri" | "InvalidResourceName" | "OutOfRangeInput" => (
            ErrorKind::InvalidInput,
            "the server does not take this name: use letters, digits, `-`, `_`, `.` and `/`",
        ),
        "BlockCountExceedsLimit" | "RequestBodyTooLarge" => {
            (ErrorKind::LimitExceeded, "choose another part size")
        }
        "Crc64Mismatch" | "Md5Mismatch" => return Some((ErrorKind::ChecksumMismatch, None)),
        _ => return None,
    };
    Some((kind, Some(remedy)))
}
