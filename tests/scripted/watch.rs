//! Secrets are found in what is logged, also where they are logged in pieces.

use crate::watch::{Dump, Echoes, check, found_in};

#[test]
fn secrets_are_found_and_nothing_else() {
    for text in [
        "before hunter2 behind",
        "session-token-of-the-tests",
        "authorization: AWS4-HMAC-SHA256 Credential=a, Signature=0123456789abcdef0123456789abcdef0123",
        "GET /c/k?sv=2024-08-04&sig=abcdefghijklmnopqrstuvwxyz%3D HTTP/1.1",
        "authorization:.SharedKey.account:0123456789abcdefghijABCDEFGHIJ0123456789=",
        "authorization: Bearer eyJhbGciOiJIUzI1NiJ9.eyJzdWIi0123456789abc",
    ] {
        assert!(found_in(text).is_some(), "{text}");
        assert!(!found_in(text).unwrap().contains("hunter2"));
    }
    for text in [
        "",
        "Signature=***",
        "sig=****************************",
        "SharedKey account:***",
        "Bearer ***",
    ] {
        assert_eq!(found_in(text), None, "{text}");
    }
}

/// So they do not count as searched either.
#[test]
fn lines_that_servers_repeat_on_purpose_are_not_searched() {
    let echoes = Echoes::begin();
    assert!(!check("ureq_proto::util", "hunter2"));
    assert!(check("syncline", "harmless"));
    drop(echoes);
    assert!(check("ureq_proto::util", "harmless"));
}

#[test]
fn secrets_are_found_over_several_rows() {
    let mut dump = Dump(String::new());
    for row in ["7820 6875 .. GET /k?x=secret-", "0000 .. key-of-the-tests"] {
        dump.take("ureq_proto::util", row);
    }
    assert_eq!(found_in(&dump.0).as_deref(), Some("the secret key of the S3 tests"), "{}", dump.0);
    // Another line ends it; what it held has been looked at then.
    dump.0 = "harmless".to_owned();
    dump.take("ureq::run", "a line");
    assert!(dump.0.is_empty());
}
