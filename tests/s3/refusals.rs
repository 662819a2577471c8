//! What another attempt cannot help. Requests that fail in every way are in `tests/faults/`.

use syncline::ErrorKind;

use crate::rig::{Rig, assert_says};
use crate::s3_model::{Fault, Operation, error};

/// What another attempt cannot help is not tried again.
#[test]
fn terminal_refusals_are_one_request() {
    for (status, code, kind) in [
        (403, "AccessDenied", ErrorKind::PermissionDenied),
        (403, "SignatureDoesNotMatch", ErrorKind::PermissionDenied),
        (403, "InvalidAccessKeyId", ErrorKind::PermissionDenied),
        (404, "NoSuchBucket", ErrorKind::BucketNotFound),
        (405, "MethodNotAllowed", ErrorKind::Unsupported),
        (413, "", ErrorKind::LimitExceeded),
        (400, "EntityTooLarge", ErrorKind::LimitExceeded),
        (507, "XMinioStorageFull", ErrorKind::NoSpace),
    ] {
        let rig = Rig::new();
        rig.fault_always(Operation::Put, Fault::Instead(error(status, code).into()));
        let refused = rig.write(b"data", false).unwrap_err();
        assert_eq!((refused.kind(), refused.attempts()), (kind, 1), "{refused}");
        assert_says(&refused, &[&status.to_string(), code]);
        assert_eq!(rig.operations(), [Operation::Put], "{code}");
        rig.assert_nothing();
    }
}
