//! What must not be seen and must not be sent.

use std::error::Error as _;
use std::time::Duration;

use syncline::{Error, ErrorKind, HttpConfig, WriteOptions};

use crate::rig::{
    ACCESS_KEY, PART, Rig, SECRET_KEY, SESSION_TOKEN, URI, http, noise, open_with, s3, settings,
};
use crate::s3_model::{Fault, error};
use crate::scripted::{Answer, Request, Server, Step};
use crate::watch::Echoes;

/// All that an error shows.
fn shown(error: &Error) -> String {
    let mut text = format!("{error}\n{error:?}\n{error:#?}\n{:?}", error.remedy());
    let mut source = error.source();
    while let Some(cause) = source {
        text += &format!("\n{cause}\n{cause:?}");
        source = cause.source();
    }
    text
}

fn signature(request: &Request) -> Option<&str> {
    Some(request.header("authorization")?.split_once("Signature=")?.1)
}

/// An answer with all that the request told, as a careless server may give it.
fn echo(status: u16, request: &Request) -> Answer {
    let headers = request.headers.iter().map(|(name, value)| format!("{name}: {value}; "));
    let headers: String = headers.collect();
    let body = format!(
        "<Error><Code>Odd</Code><Message>{headers}</Message><RequestId>{headers}</RequestId></Error>"
    );
    Answer::new(status).body(body).header("x-amz-request-id", headers)
}

#[test]
fn no_error_shows_a_secret() {
    let _echoes = Echoes::begin();
    let large = noise(PART + 1, 1);
    for status in [200, 301, 307, 400, 401, 403, 404, 409, 412, 416, 500, 501, 503] {
        for body in [0, 1, 2] {
            let rig = Rig::new();
            rig.on_request(move |_, request| {
                let answer = match body {
                    0 => echo(status, request),
                    1 => error(status, signature(request).unwrap()),
                    _ => {
                        let secrets = format!("{SESSION_TOKEN} {}", signature(request).unwrap());
                        Answer::new(status)
                            .header("location", format!("http://x/{secrets}"))
                            .body(secrets)
                    }
                };
                Some(Fault::Instead(answer.into()))
            });
            // Each of its own, for a throttled one is slow.
            let keys = s3(&rig.endpoint()).credentials(ACCESS_KEY, SECRET_KEY, Some(SESSION_TOKEN));
            let settings = settings().s3(keys).http(http().attempts_max(2));
            let store = || open_with(settings.clone());
            let create = WriteOptions::default().create_only();
            let errors = [
                store().put(URI, b"x").err(),
                store().put_with(URI, b"x", create).err(),
                store().put(URI, &large).err(),
                store().get(URI).err(),
                store().stat(URI).err(),
                store().list(URI).unwrap().next().and_then(Result::err),
                store().delete(URI).err(),
                store().orphans(URI, Duration::ZERO).err(),
            ];
            let requests = rig.server().requests();
            assert!(errors.iter().any(Option::is_some));
            for failed in errors.iter().flatten() {
                assert_clean(&shown(failed), &requests);
            }
        }
    }
}

#[track_caller]
fn assert_clean(text: &str, requests: &[Request]) {
    for secret in [SECRET_KEY, SESSION_TOKEN] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
    for signature in requests.iter().filter_map(signature) {
        assert!(!text.contains(signature), "a signature in {text}");
    }
}

#[test]
fn nothing_that_can_be_printed_shows_a_secret() {
    let proxy = "http://user:proxy-password@127.0.0.1:1";
    let s3 = s3("http://127.0.0.1:1").credentials(ACCESS_KEY, SECRET_KEY, Some(SESSION_TOKEN));
    let http = http().proxy(proxy);
    let config = settings().s3(s3.clone()).http(http.clone());
    let texts = [
        format!("{s3:?} {s3:#?}"),
        format!("{http:?} {http:#?}"),
        format!("{config:?} {config:#?}"),
        format!("{:?}", config.clone().build().unwrap()),
        shown(&open_with(config).put(URI, b"x").unwrap_err()),
        shown(
            &settings()
                .http(HttpConfig::new().proxy("ftp://proxy-password@x"))
                .build()
                .unwrap_err(),
        ),
        shown(
            &settings()
                .s3(s3.clone().endpoint(&format!("http://{SECRET_KEY}@x")))
                .build()
                .unwrap_err(),
        ),
    ];
    for text in texts {
        assert_clean(&text, &[]);
        assert!(!text.contains("proxy-password"), "{text}");
    }
}

/// Every request is signed with all its headers, and the secret itself never leaves.
#[test]
fn the_secret_never_leaves() {
    let rig = Rig::with(|s3| s3.credentials(ACCESS_KEY, SECRET_KEY, Some(SESSION_TOKEN)), |s| s);
    rig.write(&noise(PART + 1, 2), true).unwrap();
    rig.store.get(URI).unwrap();
    rig.store.list(URI).unwrap().for_each(drop);
    rig.store.delete_prefix("s3://bucket").unwrap();
    for request in rig.server().requests() {
        assert!(!format!("{request:?}").contains(SECRET_KEY));
        let authorization = request.header("authorization").unwrap();
        let signed = authorization.split_once("SignedHeaders=").unwrap().1;
        let signed: Vec<&str> = signed.split(',').next().unwrap().split(';').collect();
        for (name, _) in request
            .headers
            .iter()
            .filter(|(name, _)| name.starts_with("x-amz-") || *name == "if-none-match")
        {
            assert!(signed.contains(&name.as_str()), "{name} is not signed in {authorization}");
        }
        assert_eq!(request.header("x-amz-security-token"), Some(SESSION_TOKEN));
    }
}

#[test]
fn an_anonymous_store_signs_nothing() {
    let rig = Rig::with(|_| syncline::S3Config::new().anonymous(true), |s| s);
    drop(rig);
    let rig = Rig::with(|s3| s3.anonymous(true), |s| s);
    rig.write(b"data", false).unwrap();
    rig.store.get(URI).unwrap();
    for request in rig.server().requests() {
        assert!(request.header("authorization").is_none());
        assert!(!format!("{request:?}").contains(ACCESS_KEY));
    }
}

/// Line ends in what becomes a header or a request's line never get there.
#[test]
fn line_ends_are_refused() {
    let rig = Rig::new();
    for bad in ["a\r\nx-evil: 1", "a\nb", "a\rb", "a\u{0}b", "a\u{2028}b"] {
        let uri = format!("s3://bucket/{bad}");
        let refused = rig.store.put(&uri, b"x");
        if bad.contains('\u{2028}') {
            // A letter like others: it is encoded.
            refused.unwrap();
            continue;
        }
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::InvalidInput);
        assert_eq!(rig.store.list(&uri).err().map(|e| e.kind()), Some(ErrorKind::InvalidInput));
        let built = [
            settings().s3(s3(&format!("http://127.0.0.1:1/{bad}"))).build().err(),
            settings().s3(s3("http://127.0.0.1:1").region(bad)).build().err(),
        ];
        for refused in built {
            assert_eq!(refused.map(|e| e.kind()), Some(ErrorKind::InvalidInput), "{bad:?}");
        }
        let keys = s3(&rig.endpoint()).credentials(bad, "secret", None);
        let refused = open_with(settings().s3(keys)).put(URI, b"x").unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidInput, "{refused}");
        let keys = s3(&rig.endpoint()).credentials("key", "secret", Some(bad));
        let refused = open_with(settings().s3(keys)).put(URI, b"x").unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidInput, "{refused}");
    }
    assert_eq!(rig.server().requests().len(), 1);
}

/// What a server says comes on one line and is short, whatever it says.
#[test]
fn a_servers_words_are_tamed() {
    let words = format!("\u{9b}31mred\r\nsyncline: done\t\u{85}{}", "x".repeat(100_000));
    let server = Server::start(move |_: &Request| {
        let body = format!("<Error><Code>A&#10;B</Code><Message>{words}</Message></Error>");
        Step::from(Answer::new(403).body(body))
    });
    let failed = crate::rig::open(&server.endpoint()).put(URI, b"x").unwrap_err();
    let text = failed.to_string();
    assert!(!text.chars().any(char::is_control) && text.len() < 2000, "{text:?}");
}
