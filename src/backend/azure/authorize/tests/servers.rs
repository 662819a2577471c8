//! The authority that gives tokens, App Service's endpoint and the machine's metadata.

use std::time::{Duration, SystemTime};

use super::support::{
    app_service, authorization, authorize, authorize_until, authorizer, client, of_environment,
    token, with,
};
use crate::backend::azure::authorize::token::parse;
use crate::backend::http::Stage;
use crate::backend::http::fake::Fake;
use crate::config::{AzureConfig, AzureEnvironment, HttpConfig};
use crate::error::ErrorKind;
use crate::sync::Arc;
use crate::time::Deadline;

#[test]
fn a_token_is_asked_for_by_a_form_and_the_secret_stays_out_of_the_address() {
    let transport = Fake::always(200, &token("T"));
    let silent = Fake::silent();
    let authorizer = of_environment(&client(), &transport, &silent).unwrap();
    assert_eq!(authorization(&authorize(&authorizer).unwrap()), Some("Bearer T"));
    let seen = &transport.seen()[0];
    assert_eq!(seen.method, "POST");
    let place = "https://login.microsoftonline.com/tenant/oauth2/v2.0/token";
    assert_eq!(seen.uri.to_string(), place);
    assert_eq!(seen.header("content-type"), Some("application/x-www-form-urlencoded"));
    assert_eq!(
        seen.body,
        "client_id=client&grant_type=client_credentials\
         &scope=https%3A%2F%2Fstorage.azure.com%2F.default&client_secret=s3cr%2Ft%2B%26"
    );
}

#[test]
fn the_environment_says_which_authority_is_asked_also_for_an_explicit_secret() {
    let authority = Some("https://login.example.org:8".to_owned());
    let environment = AzureEnvironment { authority, ..client() };
    let silent = Fake::silent();
    let explicit = AzureConfig::new().client_secret("my.domain", "c", "s");
    for (azure, tenant) in [(AzureConfig::new(), "tenant"), (explicit, "my.domain")] {
        let transport = Fake::always(200, &token("T"));
        let azure = with(azure, &environment);
        authorize(&authorizer(&azure, &transport, &silent).unwrap()).unwrap();
        let place = format!("https://login.example.org:8/{tenant}/oauth2/v2.0/token");
        assert_eq!(transport.seen()[0].uri.to_string(), place);
    }
}

#[test]
fn an_authority_is_never_asked_over_http() {
    let authority = Some("http://login.example.org".to_owned());
    let environment = AzureEnvironment { authority, ..client() };
    let fake = Fake::always(200, &token("T"));
    let error = authorize(&of_environment(&environment, &fake, &fake).unwrap()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    assert!(error.to_string().contains("https only"), "{error}");
    assert_eq!(fake.count(), 0);
}

#[test]
fn workload_identity_reads_its_file_each_time() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    std::fs::write(&file, "a.b-c\n").unwrap();
    let transport = Fake::answering_nth(|nth| (200, token(&format!("T{nth}"))));
    let environment = AzureEnvironment {
        client_secret: None,
        federated_token_file: Some(file.clone()),
        ..client()
    };
    let authorizer = of_environment(&environment, &transport, &Fake::silent()).unwrap();
    let first = authorize(&authorizer).unwrap();
    assert_eq!(authorization(&first), Some("Bearer T1"));
    std::fs::write(&file, "renewed").unwrap();
    assert!(authorizer.invalidate(&first.0));
    assert_eq!(authorization(&authorize(&authorizer).unwrap()), Some("Bearer T2"));
    let bodies: Vec<String> = transport.seen().into_iter().map(|seen| seen.body).collect();
    let form = "client_id=client&grant_type=client_credentials\
                &scope=https%3A%2F%2Fstorage.azure.com%2F.default\
                &client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer";
    let expected = ["a.b-c", "renewed"].map(|token| format!("{form}&client_assertion={token}"));
    assert_eq!(bodies, expected);
}

#[test]
fn a_source_that_applies_and_fails_stops_the_search() {
    let dir = tempfile::tempdir().unwrap();
    let empty = dir.path().join("empty");
    std::fs::write(&empty, " \n").unwrap();
    let silent = Fake::silent();
    let workload = |file| AzureEnvironment {
        client_secret: None,
        federated_token_file: Some(file),
        ..client()
    };
    for (environment, needle) in [
        (AzureEnvironment { tenant_id: None, ..client() }, "AZURE_TENANT_ID"),
        (AzureEnvironment { client_id: None, ..client() }, "AZURE_CLIENT_ID"),
        (AzureEnvironment { tenant_id: Some("a/b".to_owned()), ..client() }, "tenant"),
        (AzureEnvironment { tenant_id: Some("..".to_owned()), ..client() }, "tenant"),
        (AzureEnvironment { client_id: None, ..workload(empty.clone()) }, "AZURE_CLIENT_ID"),
        (workload(dir.path().join("absent")), "absent"),
        (workload(empty), "empty"),
    ] {
        let error =
            authorize(&of_environment(&environment, &silent, &silent).unwrap()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        assert!(error.to_string().contains(needle), "{error}");
    }
    assert_eq!(silent.count(), 0);
}

#[test]
fn passing_failures_are_tried_again_and_others_are_not() {
    let run = |script: Vec<Result<(u16, String), Stage>>| {
        let transport = Fake::script(script);
        let azure = with(AzureConfig::new(), &client());
        let (shared, silent) = (Arc::new(transport.clone()), Arc::new(Fake::silent()));
        let http = HttpConfig::new();
        let authorizer = super::Authorizer::new("acct", &azure, &http, shared, silent).unwrap();
        (authorize(&authorizer), transport.count())
    };
    let busy = |status| Ok((status, String::new()));
    let good = || Ok((200, token("T")));
    for first in [[busy(503), busy(429)], [Err(Stage::Connect), busy(500)]] {
        let (outcome, count) = run(first.into_iter().chain([good()]).collect());
        assert_eq!((outcome.is_ok(), count), (true, 3));
    }
    for first in [busy(400), busy(401), busy(307), Err(Stage::Tls)] {
        let (outcome, count) = run(vec![first, good()]);
        assert_eq!((outcome.is_ok(), count), (false, 1));
    }
}

#[test]
fn a_refusal_is_told_in_the_servers_words_under_the_sources_name() {
    let body = r#"{"error":"invalid_client","error_description":"AADSTS7000215: no such secret",
                   "error_codes":[7000215],"correlation_id":"1"}"#;
    let transport = Fake::always(401, body);
    let error = authorize(&of_environment(&client(), &transport, &Fake::silent()).unwrap());
    let error = error.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    for needle in
        ["the client secret", "login.microsoftonline.com", "401", "invalid_client: AADSTS7000215"]
    {
        assert!(error.to_string().contains(needle), "{needle} missing in {error}");
    }
}

#[test]
fn lives_of_tokens_are_read_in_all_their_forms() {
    let now = SystemTime::now();
    let day = Duration::from_secs(86_400);
    let at = now.duration_since(SystemTime::UNIX_EPOCH).unwrap() + day;
    for life in [
        r#""expires_in":86400"#.to_owned(),
        r#""expires_in":"86400""#.to_owned(),
        format!(r#""expires_on":{}"#, at.as_secs() + 1),
        format!(r#""expires_on":"{}""#, at.as_secs() + 1),
        r#""expires_on":"","expires_in":" 86400 ""#.to_owned(),
    ] {
        let (_, expires) =
            parse("s", format!(r#"{{"access_token":"T",{life}}}"#).as_bytes()).unwrap();
        let expires = expires.unwrap();
        assert!(expires >= now + day && expires < now + day * 2, "{life}");
    }
    for life in [r#""expires_in":18446744073709551615"#, r#""expires_on":"18446744073709551615""#] {
        assert!(
            parse("s", format!(r#"{{"access_token":"T",{life}}}"#).as_bytes()).is_ok(),
            "{life}"
        );
    }
    for bad in [
        r#"{"access_token":"T"}"#,
        r#"{"access_token":"T","expires_in":"soon"}"#,
        r#"{"access_token":"T","expires_in":-1}"#,
        r#"{"expires_in":1}"#,
        r#"{"access_token":"","expires_in":1}"#,
        r#"{"access_token":"a b","expires_in":1}"#,
        r#"{"access_token":"a\nb","expires_in":1}"#,
        r#"{"access_token":"T","token_type":"mac","expires_in":1}"#,
        "[]",
        "<html>",
        "",
    ] {
        assert!(parse("s", bad.as_bytes()).is_err(), "{bad}");
    }
}

#[test]
fn app_service_is_asked_with_its_secret_and_without_proxy() {
    for (client_id, and) in [(None, ""), (Some("me & you"), "&client_id=me%20%26%20you")] {
        let direct = Fake::always(200, r#"{"access_token":"A","expires_on":"32503680000"}"#);
        let silent = Fake::silent();
        let environment = AzureEnvironment {
            client_id: client_id.map(str::to_owned),
            ..app_service("http://169.254.131.1:8081/msi/token")
        };
        let added = authorize(&of_environment(&environment, &silent, &direct).unwrap()).unwrap();
        assert_eq!(authorization(&added), Some("Bearer A"));
        let seen = &direct.seen()[0];
        assert_eq!((seen.header("x-identity-header"), silent.count()), (Some("header-secret"), 0));
        assert!(seen.headers["x-identity-header"].is_sensitive());
        let query =
            format!("api-version=2019-08-01&resource=https%3A%2F%2Fstorage.azure.com%2F{and}");
        assert_eq!(seen.uri.to_string(), format!("http://169.254.131.1:8081/msi/token?{query}"));
    }
}

#[test]
fn app_service_is_asked_without_tls_only_nearby() {
    let good = || Fake::always(200, &token("T"));
    for near in [
        "http://localhost/x",
        "http://127.0.0.1:41056/MSI/token/",
        "http://[::1]:80/x?q=1",
        "http://172.16.0.3:8081/msi/token",
        "https://identity.example.org/x",
    ] {
        let direct = good();
        let authorizer = of_environment(&app_service(near), &Fake::silent(), &direct).unwrap();
        assert!(authorize(&authorizer).is_ok(), "{near}");
        assert!(direct.seen()[0].uri.to_string().starts_with(near));
    }
    for bad in [
        "http://identity.example.org/x",
        "http://8.8.8.8/x",
        "http://localhost.example.org/x",
        "http://localhost@example.org/x",
        "https://u:p@localhost/x",
        "ftp://localhost/x",
        "/x",
        "nonsense",
    ] {
        let direct = good();
        let authorizer = of_environment(&app_service(bad), &direct, &direct).unwrap();
        let error = authorize(&authorizer).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{bad}");
        assert_eq!(direct.count(), 0, "{bad}");
    }
}

#[test]
fn the_machine_is_looked_for_and_then_asked_without_proxy() {
    let required = r#"{"error":"invalid_request","error_description":"Required metadata header"}"#;
    let script = vec![Ok((400, required.to_owned())), Ok((200, token("M")))];
    let direct = Fake::script(script);
    let silent = Fake::silent();
    let environment =
        AzureEnvironment { client_id: Some("me".to_owned()), ..AzureEnvironment::default() };
    let added = authorize(&of_environment(&environment, &silent, &direct).unwrap()).unwrap();
    assert_eq!(authorization(&added), Some("Bearer M"));
    assert_eq!(silent.count(), 0);
    let seen = direct.seen();
    let headers: Vec<_> = seen.iter().map(|seen| seen.header("metadata")).collect();
    assert_eq!(headers, [None, Some("true")]);
    for seen in seen {
        assert_eq!(
            format!("{} {}", seen.method, seen.uri),
            "GET http://169.254.169.254/metadata/identity/oauth2/token?api-version=2018-02-01\
             &resource=https%3A%2F%2Fstorage.azure.com%2F&client_id=me"
        );
    }
    let elsewhere = AzureEnvironment {
        metadata_endpoint: Some("http://[::1]:1338".to_owned()),
        ..AzureEnvironment::default()
    };
    let direct = Fake::silent();
    assert!(authorize(&of_environment(&elsewhere, &silent, &direct).unwrap()).is_err());
    assert_eq!(direct.seen()[0].host(), "[::1]");
}

#[test]
fn a_machine_that_is_none_or_has_no_identity_is_told_so_and_one_that_fails_otherwise() {
    let status = |code: u16| Ok((code, String::new()));
    let run = |script: Vec<Result<(u16, String), Stage>>| {
        let direct = Fake::script(script);
        let environment = AzureEnvironment::default();
        authorize(&of_environment(&environment, &Fake::silent(), &direct).unwrap()).unwrap_err()
    };
    let no_identity = r#"{"error":"invalid_request","error_description":"Identity not found"}"#;
    for script in [
        vec![Err(Stage::Connect)],
        vec![status(401)],
        vec![status(404)],
        vec![status(400), Ok((400, no_identity.to_owned()))],
    ] {
        let identity = script.len() > 1;
        let error = run(script);
        assert!(error.to_string().contains("no credentials found"), "{error}");
        assert_eq!(error.to_string().contains("Identity not found"), identity, "{error}");
    }
    for script in [
        vec![status(500)],
        vec![status(410)],
        vec![status(400), status(410)],
        vec![status(400), status(403)],
        vec![status(400), Err(Stage::Receive)],
        vec![status(400), Ok((200, "<html>".to_owned()))],
    ] {
        let error = run(script);
        assert!(error.to_string().contains("the machine's metadata"), "{error}");
        assert!(!error.to_string().contains("no credentials found"), "{error}");
    }
}

#[test]
fn no_time_left_is_told_as_such() {
    let silent = Fake::silent();
    let over = Deadline::after(Duration::ZERO);
    let authorizer = of_environment(&AzureEnvironment::default(), &silent, &silent).unwrap();
    let error = authorize_until(&authorizer, &over).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
}
