//! The chain against scripted servers, files in temporary folders and small programs.

mod files;
mod programs;
mod secrecy;
mod servers;
mod support;

use std::thread;

use crate::config::{AwsEnvironment, ContainerEnvironment, S3Config, Secret, StaticCredentials};
use crate::error::ErrorKind;
use crate::sync::Arc;
use support::{Chain, FUTURE, Fake, Home, PAST, generous, handout, json, sts_answer};

/// An environment in which every source has keys, each named after its source.
fn everything(home: &Home) -> AwsEnvironment {
    home.write(".aws/credentials", "[default]\naws_access_key_id=PROFILE\naws_secret_access_key=x");
    AwsEnvironment {
        credentials: Some(StaticCredentials {
            access_key_id: "ENVIRONMENT".to_owned(),
            secret_access_key: Secret::new("x"),
            session_token: None,
        }),
        web_identity_token_file: Some(home.write("token", "t")),
        role_arn: Some("arn:aws:iam::1:role/r".to_owned()),
        container: ContainerEnvironment {
            relative_uri: Some(Secret::new("/keys")),
            ..ContainerEnvironment::default()
        },
        ..home.environment()
    }
}

#[test]
fn sources_are_asked_in_order() {
    let home = Home::new();
    let transport = Fake::always(200, &sts_answer("WEB", FUTURE));
    let direct = Fake::answering(|request| {
        Ok(match (&*request.uri.to_string(), request.method.as_str()) {
            ("http://169.254.170.2/keys", "GET") => json(&handout("CONTAINER", FUTURE)),
            (uri, "PUT") if uri.ends_with("/token") => (200, "metadata-token".to_owned()),
            (uri, "GET") if uri.ends_with("/security-credentials/") => (200, "role".to_owned()),
            (uri, "GET") if uri.ends_with("/role") => json(&handout("INSTANCE", FUTURE)),
            (uri, method) => panic!("unexpected {method} {uri}"),
        })
    });
    let s3 = S3Config::new().credentials("EXPLICIT", "x", None);
    let found = |s3: &S3Config, environment: &AwsEnvironment| {
        let chain = Chain::new(s3, environment.clone(), &transport, &direct);
        chain.keys().unwrap().unwrap().access_key_id.clone()
    };
    let mut environment = everything(&home);
    assert_eq!(found(&s3, &environment), "EXPLICIT");
    let s3 = S3Config::new();
    assert_eq!(found(&s3, &environment), "ENVIRONMENT");
    environment.credentials = None;
    assert_eq!(found(&s3, &environment), "PROFILE");
    home.remove(".aws/credentials");
    assert_eq!(found(&s3, &environment), "WEB");
    environment.web_identity_token_file = None;
    assert_eq!(found(&s3, &environment), "CONTAINER");
    environment.container = ContainerEnvironment::default();
    assert_eq!(found(&s3, &environment), "INSTANCE");
}

#[test]
fn nobody_is_asked_before_keys_are_needed_nor_twice() {
    let home = Home::new();
    let transport = Fake::always(200, &sts_answer("WEB", FUTURE));
    let environment = AwsEnvironment { credentials: None, ..everything(&home) };
    home.remove(".aws/credentials");
    let chain = Chain::new(&S3Config::new(), environment, &transport, &Fake::silent());
    assert_eq!(chain.chain.region(), None);
    assert_eq!(transport.count(), 0);
    let first = chain.keys().unwrap().unwrap();
    let second = chain.keys().unwrap().unwrap();
    assert!(Arc::ptr_eq(&first, &second));
    assert_eq!(transport.count(), 1);
}

#[test]
fn anonymous_asks_nobody() {
    let home = Home::new();
    let silent = Fake::silent();
    let s3 = S3Config::new().anonymous(true);
    let chain = Chain::new(&s3, everything(&home), &silent, &silent);
    assert_eq!(chain.keys().unwrap(), None);
    assert_eq!(silent.count(), 0);
}

#[test]
fn without_the_environment_only_explicit_keys_apply() {
    let silent = Fake::silent();
    let chain = Chain::without_environment(&S3Config::new(), &silent);
    let error = chain.keys().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    assert!(error.remedy().unwrap().contains("anonymous"), "{error}");
    assert_eq!(silent.count(), 0);
}

#[test]
fn the_error_that_nothing_was_found_lists_what_was_tried() {
    let chain =
        Chain::new(&S3Config::new(), Home::new().environment(), &Fake::silent(), &Fake::silent());
    let error = chain.keys().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    let text = error.to_string();
    for needle in [
        "AWS_ACCESS_KEY_ID",
        "profile",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_CONTAINER_CREDENTIALS",
        "metadata cannot be reached",
        "S3Config::anonymous",
    ] {
        assert!(text.contains(needle), "{needle} missing in {text}");
    }
}

#[test]
fn half_a_pair_in_the_environment_is_an_error() {
    let environment = AwsEnvironment {
        credentials_lack: Some("AWS_SECRET_ACCESS_KEY"),
        ..Home::new().environment()
    };
    let chain = Chain::new(&S3Config::new(), environment, &Fake::silent(), &Fake::silent());
    let error = chain.keys().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("AWS_SECRET_ACCESS_KEY"), "{error}");
}

#[test]
fn keys_that_the_server_calls_expired_are_asked_for_once_by_all_threads() {
    let home = Home::new();
    let transport = Fake::answering_nth(|nth| (200, sts_answer(&format!("WEB{nth}"), FUTURE)));
    let environment = AwsEnvironment { credentials: None, ..everything(&home) };
    home.remove(".aws/credentials");
    let chain = Chain::new(&S3Config::new(), environment, &transport, &Fake::silent());
    let stale = chain.keys().unwrap().unwrap();
    assert_eq!(stale.access_key_id, "WEB1");
    thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                chain.chain.invalidate(&stale);
                assert_eq!(chain.keys().unwrap().unwrap().access_key_id, "WEB2");
            });
        }
    });
    assert_eq!(transport.count(), 2);
}

#[test]
fn keys_expired_on_arrival_are_used() {
    let home = Home::new();
    let transport = Fake::always(200, &sts_answer("WEB", PAST));
    let environment = AwsEnvironment { credentials: None, ..everything(&home) };
    home.remove(".aws/credentials");
    let chain = Chain::new(&S3Config::new(), environment, &transport, &Fake::silent());
    for _ in 0..3 {
        assert_eq!(chain.keys().unwrap().unwrap().access_key_id, "WEB");
    }
    assert_eq!(transport.count(), 1);
}

#[test]
fn keys_that_cannot_stand_in_a_header_are_refused() {
    for (id, key, token) in
        [("a b", "k", None), ("a/b", "k", None), ("a", "k\n", None), ("a", "k", Some("t\u{e9}"))]
    {
        let s3 = S3Config::new().credentials(id, key, token);
        let error = Chain::without_environment(&s3, &Fake::silent()).keys().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }
}

#[test]
fn settings_come_before_the_profile() {
    let home = Home::new();
    home.write(".aws/config", "[default]\nregion = profile\nendpoint_url = http://profile/\n");
    let silent = Fake::silent();
    let chain = Chain::new(&S3Config::new(), home.environment(), &silent, &silent);
    assert_eq!(chain.chain.region().as_deref(), Some("profile"));
    assert_eq!(chain.chain.endpoint().as_deref(), Some("http://profile"));
    let s3 = S3Config::new().region("said").endpoint("http://said");
    let chain = Chain::new(&s3, home.environment(), &silent, &silent);
    assert_eq!(chain.chain.region().as_deref(), Some("said"));
    assert_eq!(chain.chain.endpoint().as_deref(), Some("http://said"));
    assert_eq!(silent.count(), 0);
    assert!(chain.chain.keys(&generous()).is_err());
}
