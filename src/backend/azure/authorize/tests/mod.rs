//! Which credentials are used, for which account and where; and never over plain HTTP what must not be.

mod secrecy;
mod servers;
mod support;
mod tls;

use std::thread;
use std::time::{Duration, SystemTime};

use ::http::{HeaderMap, HeaderValue, Method};

use super::{Authorizer, ToAuthorize};
use crate::backend::http::fake::Fake;
use crate::config::{AzureConfig, AzureEnvironment, ConnectionString, HttpConfig, Secret};
use crate::error::ErrorKind;
use crate::sync::Arc;
use support::{
    ACCOUNT, KEY, authorization, authorize, authorizer, client, generous, of_environment, token,
    with,
};

/// An environment in which every source has credentials.
fn everything(token_file: &std::path::Path) -> AzureEnvironment {
    let connection =
        format!("BlobEndpoint=https://{ACCOUNT}.example.org;SharedAccessSignature=sig=C");
    AzureEnvironment {
        connection_string: Some(ConnectionString::parse(&connection).unwrap()),
        account: Some(ACCOUNT.to_owned()),
        key: Some(Secret::new(KEY)),
        sas_token: Some(Secret::new("?sv=1&sig=S")),
        federated_token_file: Some(token_file.to_owned()),
        ..client()
    }
}

#[test]
fn sources_are_asked_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let token_file = dir.path().join("token");
    std::fs::write(&token_file, "assertion").unwrap();
    let transport = Fake::answering(|seen| {
        let of = if seen.body.contains("client_secret=") { "SECRET" } else { "WORKLOAD" };
        Ok((200, token(of)))
    });
    let direct = Fake::answering(|seen| match seen.header("metadata") {
        Some(_) => Ok((200, token("MACHINE"))),
        None => Ok((400, String::new())),
    });
    let mut environment = everything(&token_file);
    let found = |environment: &AzureEnvironment| {
        let added = authorize(&of_environment(environment, &transport, &direct).unwrap()).unwrap();
        let signature = added.1.last().map(|(name, value)| format!("{name}={value}"));
        signature.unwrap_or_else(|| authorization(&added).unwrap().to_owned())
    };
    let strike_off: [fn(&mut AzureEnvironment); 6] = [
        |environment| environment.connection_string = None,
        |environment| environment.key = None,
        |environment| environment.sas_token = None,
        |environment| environment.client_secret = None,
        |environment| environment.federated_token_file = None,
        |_| (),
    ];
    let expected =
        ["sig=C", "SharedKey acct:", "sig=S", "Bearer SECRET", "Bearer WORKLOAD", "Bearer MACHINE"];
    for (expected, strike_off) in expected.into_iter().zip(strike_off) {
        let found = found(&environment);
        assert!(found.starts_with(expected), "{found} instead of {expected}");
        strike_off(&mut environment);
    }
}

#[test]
fn explicit_credentials_win_and_ask_nobody() {
    let silent = Fake::silent();
    let environment = everything(std::path::Path::new("/nowhere"));
    let make = |azure: AzureConfig| {
        authorize(&authorizer(&with(azure, &environment), &silent, &silent).unwrap()).unwrap()
    };
    let added = make(AzureConfig::new().bearer_token("T"));
    assert_eq!(authorization(&added), Some("Bearer T"));
    let added = make(AzureConfig::new().account_key(KEY));
    assert!(authorization(&added).unwrap().starts_with("SharedKey acct:"));
    let added = make(AzureConfig::new().sas_token("?sp=r&sig=a%2Bb%2F=+"));
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(added.1, [pair("sp", "r"), pair("sig", "a+b/=+")]);
    assert_eq!(authorization(&added), None);
    let added = make(AzureConfig::new().anonymous(true));
    assert_eq!((authorization(&added), added.1.len()), (None, 0));
    let text = format!("AccountName={ACCOUNT};AccountKey={KEY}");
    let added = make(AzureConfig::new().connection_string(&text));
    assert!(authorization(&added).unwrap().starts_with("SharedKey acct:"));
    assert_eq!(silent.count(), 0);
}

#[test]
fn every_request_has_date_and_version_and_is_authorized_anew() {
    let silent = Fake::silent();
    let azure = AzureConfig::new().account_key(KEY);
    let authorizer = authorizer(&azure, &silent, &silent).unwrap();
    let mut headers = HeaderMap::new();
    let mut authorize = |seconds| {
        let call = ToAuthorize {
            method: &Method::GET,
            path: "/c/key",
            query: &[],
            content_length_bytes: 0,
            time: SystemTime::UNIX_EPOCH + Duration::from_secs(seconds),
        };
        authorizer.authorize(&call, &mut headers, &generous()).unwrap();
        headers.clone()
    };
    let first = authorize(784_111_777);
    assert_eq!(first["x-ms-date"], "Sun, 06 Nov 1994 08:49:37 GMT");
    assert!(first["x-ms-version"].to_str().unwrap() >= "2019-12-12");
    let second = authorize(784_111_778);
    assert_eq!(second.len(), first.len());
    assert_eq!(second["x-ms-date"], "Sun, 06 Nov 1994 08:49:38 GMT");
    assert_ne!(second["authorization"], first["authorization"]);
    assert_eq!(authorize(784_111_777), first);
    assert!(!authorizer.invalidate(&first), "a key will not be another one");
    let own = HeaderValue::from_static("2026-01-01");
    headers.insert("x-ms-version", own.clone());
    let call = ToAuthorize {
        method: &Method::GET,
        path: "/",
        query: &[],
        content_length_bytes: 0,
        time: SystemTime::UNIX_EPOCH,
    };
    authorizer.authorize(&call, &mut headers, &generous()).unwrap();
    assert_eq!(headers["x-ms-version"], own);
}

#[test]
fn credentials_of_another_account_are_refused() {
    let silent = Fake::silent();
    let connection = |text: &str| AzureConfig::new().connection_string(text);
    let environment = |account: &str, key: Option<&str>| {
        let environment = AzureEnvironment {
            account: Some(account.to_owned()),
            key: key.map(Secret::new),
            ..AzureEnvironment::default()
        };
        with(AzureConfig::new(), &environment)
    };
    for bad in [
        connection(&format!("AccountName=other;AccountKey={KEY}")),
        connection("BlobEndpoint=https://other.blob.core.windows.net;SharedAccessSignature=sig=x"),
        connection("BlobEndpoint=http://127.0.0.1:1/other;SharedAccessSignature=sig=x"),
        connection("UseDevelopmentStorage=true"),
        environment("other", Some(KEY)),
        AzureConfig::new().account_key(KEY).endpoint("https://other.blob.core.windows.net"),
        AzureConfig::new().account_key(KEY).endpoint("http://127.0.0.1:10000/other"),
        AzureConfig::new().anonymous(true).endpoint("https://h/other"),
    ] {
        let error = authorizer(&bad, &silent, &silent).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{bad:?}");
        for needle in ["other\"", "devstoreaccount1\"", "\"acct\""] {
            let found = error.to_string().contains(needle);
            assert!(found || needle != "\"acct\"", "{needle} missing in {error}");
        }
    }
    // Whose token it is, no token says.
    assert!(authorizer(&environment("other", None), &silent, &silent).is_ok());
    assert!(authorizer(&environment(ACCOUNT, Some(KEY)), &silent, &silent).is_ok());
}

#[test]
fn endpoints_of_all_forms() {
    let silent = Fake::silent();
    let of =
        |azure: &AzureConfig| Some(authorizer(azure, &silent, &silent).ok()?.endpoint().to_owned());
    for (given, expected) in [
        (None, "https://acct.blob.core.windows.net"),
        (
            Some("https://acct.blob.core.chinacloudapi.cn"),
            "https://acct.blob.core.chinacloudapi.cn",
        ),
        (Some("https://ACCT.blob.storage.azure.net/"), "https://ACCT.blob.storage.azure.net"),
        (
            Some("https://acct-secondary.blob.core.windows.net"),
            "https://acct-secondary.blob.core.windows.net",
        ),
        (Some("https://blobs.example.org"), "https://blobs.example.org"),
        (Some("https://blobs.example.org/acct/"), "https://blobs.example.org/acct"),
        (Some("http://127.0.0.1:10000"), "http://127.0.0.1:10000/acct"),
        (Some("http://127.0.0.1:10000/acct"), "http://127.0.0.1:10000/acct"),
        (Some("http://[::1]:10000"), "http://[::1]:10000/acct"),
        (Some("http://azurite:10000/"), "http://azurite:10000/acct"),
    ] {
        let azure = AzureConfig::new().account_key(KEY);
        let azure = AzureConfig { endpoint: given.map(str::to_owned), ..azure };
        assert_eq!(of(&azure).as_deref(), Some(expected), "{given:?}");
    }
    for (text, expected) in [
        (format!("AccountName=acct;AccountKey={KEY}"), "https://acct.blob.core.windows.net"),
        (
            format!(
                "DefaultEndpointsProtocol=http;AccountName=acct;AccountKey={KEY};EndpointSuffix=x.y"
            ),
            "http://acct.blob.x.y",
        ),
        (
            format!("AccountName=acct;AccountKey={KEY};BlobEndpoint=http://127.0.0.1:1/acct;"),
            "http://127.0.0.1:1/acct",
        ),
    ] {
        let azure = AzureConfig::new().connection_string(&text);
        assert_eq!(of(&azure).as_deref(), Some(expected));
        let azure = azure.endpoint("https://acct.example.org");
        assert_eq!(of(&azure).as_deref(), Some("https://acct.example.org"));
    }
    for account in ["", "a/b", "a.b", "a@b", "a:1", "a?b", "\u{e9}"] {
        let http = HttpConfig::new();
        let transport = Arc::new(Fake::silent());
        let azure = AzureConfig::new().anonymous(true);
        let made = Authorizer::new(account, &azure, &http, transport.clone(), transport);
        assert_eq!(made.unwrap_err().kind(), ErrorKind::InvalidInput, "{account}");
    }
}

#[test]
fn the_emulator_is_reached_by_its_own_word() {
    let azure = AzureConfig::new().connection_string("UseDevelopmentStorage=true");
    let silent = Arc::new(Fake::silent());
    let authorizer =
        Authorizer::new("devstoreaccount1", &azure, &HttpConfig::new(), silent.clone(), silent);
    let authorizer = authorizer.unwrap();
    assert_eq!(authorizer.endpoint(), "http://127.0.0.1:10000/devstoreaccount1");
    let added = authorize(&authorizer).unwrap();
    assert!(authorization(&added).unwrap().starts_with("SharedKey devstoreaccount1:"));
}

#[test]
fn bearer_tokens_are_neither_asked_for_nor_sent_over_http() {
    let fake = Fake::always(200, &token("T"));
    let explicit = [
        AzureConfig::new().bearer_token("T"),
        AzureConfig::new().client_secret("tenant", "client", "secret"),
    ];
    let token_file = Some("/nowhere".into());
    let workload =
        AzureEnvironment { client_secret: None, federated_token_file: token_file, ..client() };
    let app_service = support::app_service("http://localhost/");
    let found = [client(), workload, app_service, AzureEnvironment::default()]
        .map(|environment| with(AzureConfig::new(), &environment));
    for azure in explicit.into_iter().chain(found) {
        for endpoint in
            ["http://acct.blob.core.windows.net", "http://127.0.0.1:10000/acct", "HTTP://h"]
        {
            let error = authorizer(&azure.clone().endpoint(endpoint), &fake, &fake).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
            for needle in ["bearer tokens go over https only", &endpoint[..endpoint.len().min(16)]]
            {
                assert!(error.to_string().contains(needle), "{needle} missing in {error}");
            }
        }
        let made = authorizer(&azure.endpoint("https://127.0.0.1:1/acct"), &fake, &fake);
        assert!(made.is_ok());
    }
    assert_eq!(fake.count(), 0);
}

#[test]
fn a_signature_for_https_is_not_sent_over_http() {
    let silent = Fake::silent();
    let make = |sas: &str, endpoint: &str| {
        authorizer(&AzureConfig::new().sas_token(sas).endpoint(endpoint), &silent, &silent)
    };
    let error = make("spr=https&sig=x", "http://h/acct").unwrap_err();
    assert!(error.to_string().contains("https only"), "{error}");
    assert!(make("spr=https&sig=x", "https://h/acct").is_ok());
    assert!(make("spr=https,http&sig=x", "http://h/acct").is_ok());
    for bad in ["sv=1", "sig=", "sig", "sig=%zz", "sig=%+1", "sig=a%2", "sig=%ff", "?"] {
        let error = make(bad, "https://h/acct").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{bad}");
    }
}

#[test]
fn without_the_environment_only_explicit_credentials_apply() {
    let silent = Fake::silent();
    let error = authorize(&authorizer(&AzureConfig::new(), &silent, &silent).unwrap()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    assert!(error.to_string().contains("no credentials found"), "{error}");
    assert_eq!(silent.count(), 0);
}

#[test]
fn the_error_that_nothing_was_found_lists_what_was_tried() {
    let silent = Fake::silent();
    let authorizer = of_environment(&AzureEnvironment::default(), &silent, &silent).unwrap();
    let error = authorize(&authorizer).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    let text = format!("{error} {:?}", error.remedy());
    for needle in [
        "AZURE_STORAGE_",
        "AZURE_CLIENT_SECRET",
        "AZURE_FEDERATED_TOKEN_FILE",
        "the machine's metadata cannot be reached",
        "AZURE_STORAGE_CONNECTION_STRING",
    ] {
        assert!(text.contains(needle), "{needle} missing in {text}");
    }
}

#[test]
fn a_token_is_asked_for_once_and_again_once_when_it_was_refused() {
    let tokens = Fake::answering_nth(|nth| (200, token(&format!("T{nth}"))));
    let silent = Fake::silent();
    let authorizer = of_environment(&client(), &tokens, &silent).unwrap();
    let all = |expected: &str| {
        thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    let added = authorize(&authorizer).unwrap();
                    assert_eq!(authorization(&added), Some(expected));
                });
            }
        });
    };
    all("Bearer T1");
    assert_eq!(tokens.count(), 1);
    let refused = authorize(&authorizer).unwrap().0;
    thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                assert!(authorizer.invalidate(&refused));
                let added = authorize(&authorizer).unwrap();
                assert_eq!(authorization(&added), Some("Bearer T2"));
            });
        }
    });
    all("Bearer T2");
    assert_eq!(tokens.count(), 2);
    assert!(authorizer.invalidate(&HeaderMap::new()), "of a request that had no token");
    all("Bearer T2");
}
