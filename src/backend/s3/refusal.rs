//! What a server says instead of doing what it was asked, and the error that becomes of it.

use ::http::StatusCode;

use crate::backend::http::{Answer, refusal_text};
use crate::config::region_problem;
use crate::error::{Error, ErrorKind};

/// An answer of status 300 or above (or an error inside a 200).
#[derive(Debug, Clone)]
pub(crate) struct Refusal {
    pub status: StatusCode,
    /// `NoSuchKey`, `SlowDown`, ...; empty where the answer has no body, as that to HEAD.
    pub code: String,
    pub message: String,
    /// The bucket's region, where the answer names it.
    pub region: Option<String>,
    pub request_id: Option<String>,
    /// The attempt it answers.
    pub attempts: u32,
}

impl Refusal {
    /// Reads an answer; its body may be anything.
    pub fn read(answer: &Answer, attempts: u32) -> Refusal {
        let document = super::xml::parse_error(&answer.body).unwrap_or_default();
        let header = |name| answer.header(name).map(str::to_owned);
        let region = header("x-amz-bucket-region").or(document.region);
        let status = match answer.status.as_u16() {
            200..300 => status_of(&document.code),
            _ => answer.status,
        };
        Refusal {
            status,
            code: document.code,
            message: document.message,
            // It will stand in a host's name and in what is signed.
            region: region.filter(|region| region_problem(region).is_none()),
            request_id: header("x-amz-request-id").or(document.request_id),
            attempts,
        }
    }

    pub fn is(&self, code: &str) -> bool {
        self.code == code
    }

    /// That the object, or the upload, is not there.
    pub fn is_absence(&self) -> bool {
        self.status == StatusCode::NOT_FOUND && !self.is("NoSuchBucket")
    }

    /// Whether the server asks for fewer requests.
    pub fn is_throttling(&self) -> bool {
        const CODES: [&str; 5] = [
            "SlowDown",
            "Throttling",
            "ThrottlingException",
            "RequestLimitExceeded",
            "TooManyRequests",
        ];
        self.status == StatusCode::TOO_MANY_REQUESTS || CODES.iter().any(|code| self.is(code))
    }

    /// Whether the same request may succeed later.
    pub fn is_passing(&self) -> bool {
        matches!(self.status.as_u16(), 408 | 429 | 500 | 502 | 503 | 504)
            || ["RequestTimeout", "InternalError", "SlowDown"].iter().any(|code| self.is(code))
            || self.is_throttling()
    }

    /// Whether the server said nothing but the status, as in an answer to HEAD, where more could help.
    pub fn is_mute(&self) -> bool {
        self.code.is_empty() && matches!(self.status.as_u16(), 301 | 307 | 400 | 401 | 403)
    }

    /// Whether it may be of a header that the server does not know.
    pub fn may_be_of_headers(&self) -> bool {
        const OTHERS: [&str; 12] = [
            "AuthorizationHeaderMalformed",
            "BadDigest",
            "EntityTooLarge",
            "EntityTooSmall",
            "ExpiredToken",
            "IncompleteBody",
            "InvalidBucketName",
            "InvalidDigest",
            "InvalidToken",
            "KeyTooLongError",
            "MetadataTooLarge",
            "TokenRefreshRequired",
        ];
        matches!(self.status.as_u16(), 400 | 501) && !OTHERS.iter().any(|code| self.is(code))
    }

    /// Takes these texts out of the server's words, which may repeat what was sent.
    pub fn hide(&mut self, secrets: &[&str]) {
        let texts = [Some(&mut self.code), Some(&mut self.message), self.request_id.as_mut()];
        for text in texts.into_iter().flatten() {
            for secret in secrets.iter().filter(|secret| !secret.is_empty()) {
                if text.contains(secret) {
                    *text = text.replace(secret, "[hidden]");
                }
            }
        }
    }

    /// As the error of `operation`.
    pub fn into_error(self, operation: &'static str) -> Error {
        let Refusal { status, code, message, request_id, attempts, .. } = &self;
        let detail = refusal_text(*status, code, message, request_id.as_deref());
        let (kind, remedy) = self.meaning();
        let error = Error::new(kind, operation, detail).with_attempts(*attempts);
        match remedy {
            Some(remedy) => error.with_remedy(remedy),
            None => error,
        }
    }

    fn meaning(&self) -> (ErrorKind, Option<&'static str>) {
        match self.code.as_str() {
            "NoSuchBucket" => {
                return (
                    ErrorKind::BucketNotFound,
                    Some("create the bucket, or check its name and the endpoint"),
                );
            }
            "InvalidAccessKeyId" | "SignatureDoesNotMatch" | "InvalidSecurity" => {
                return (ErrorKind::PermissionDenied, Some("check the access key and its secret"));
            }
            "ExpiredToken" | "InvalidToken" | "TokenRefreshRequired" => {
                return (ErrorKind::PermissionDenied, Some("get new temporary credentials"));
            }
            "AuthorizationHeaderMalformed" => {
                return (ErrorKind::PermissionDenied, Some("set the region of the bucket"));
            }
            "RequestTimeTooSkewed" => {
                return (ErrorKind::PermissionDenied, Some("set this machine's clock"));
            }
            "EntityTooLarge" | "EntityTooSmall" => {
                return (ErrorKind::LimitExceeded, Some("choose another part size"));
            }
            "QuotaExceeded" | "XMinioStorageFull" | "InsufficientCapacity" => {
                return (ErrorKind::NoSpace, Some("free space or raise the quota"));
            }
            "InvalidObjectState" => {
                return (ErrorKind::Unsupported, Some("the object is archived: restore it first"));
            }
            "BadDigest"
            | "InvalidDigest"
            | "XAmzContentSHA256Mismatch"
            | "XAmzContentChecksumMismatch" => {
                return (ErrorKind::ChecksumMismatch, None);
            }
            _ if self.is_passing() => {
                return (ErrorKind::Unavailable, Some("the server may recover: try again later"));
            }
            _ => {}
        }
        match self.status.as_u16() {
            304 => (ErrorKind::Unavailable, Some("check what stands between: this was not asked")),
            300..=399 => (
                ErrorKind::BucketNotFound,
                Some("the bucket is elsewhere: set its region or endpoint"),
            ),
            401 | 403 => {
                (ErrorKind::PermissionDenied, Some("check the credentials and what they may do"))
            }
            404 => (ErrorKind::NotFound, None),
            405 | 501 => (ErrorKind::Unsupported, None),
            409 => (ErrorKind::Conflict, None),
            412 => (ErrorKind::AlreadyExists, None),
            413 => (ErrorKind::LimitExceeded, None),
            507 => (ErrorKind::NoSpace, Some("free space or raise the quota")),
            408 | 429 | 500.. => {
                (ErrorKind::Unavailable, Some("the server may recover: try again later"))
            }
            _ => (ErrorKind::InvalidInput, None),
        }
    }
}

/// The status that an error inside an answer of status 200 would have had.
fn status_of(code: &str) -> StatusCode {
    match code {
        "SlowDown" | "ServiceUnavailable" => StatusCode::SERVICE_UNAVAILABLE,
        "InternalError" => StatusCode::INTERNAL_SERVER_ERROR,
        "PreconditionFailed" => StatusCode::PRECONDITION_FAILED,
        "ConditionalRequestConflict" | "OperationAborted" => StatusCode::CONFLICT,
        "NoSuchUpload" | "NoSuchKey" | "NoSuchBucket" => StatusCode::NOT_FOUND,
        "AccessDenied" => StatusCode::FORBIDDEN,
        _ => StatusCode::BAD_REQUEST,
    }
}
