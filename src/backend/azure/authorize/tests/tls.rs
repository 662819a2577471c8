//! Tokens over real TLS on the loopback, and no step aside from it.

use std::io::Write;
use std::net::SocketAddr;

use super::support::{ACCOUNT, authorization, authorize, client, token};
use super::with;
use crate::backend::azure::authorize::Authorizer;
use crate::backend::http::HttpAgent;
use crate::backend::http::test_server::{Arrived, Authority, read_request, serve};
use crate::config::{AzureConfig, AzureEnvironment, HttpConfig};
use crate::error::{ErrorKind, Result};
use crate::sync::{Arc, AtomicU64, Mutex, Ordering, lock};

/// What a server was asked.
type Log = Arc<Mutex<Vec<Arrived>>>;

/// A server that answers every request over TLS with this.
fn secure(authority: &Authority, answer: String) -> (SocketAddr, Log) {
    let log = Log::default();
    let (tls, arrived) = (authority.server(), log.clone());
    let address = serve(move |stream, _| {
        let mut stream = tls.accept(stream);
        while let Some(request) = read_request(&mut stream) {
            lock(&arrived).push(request);
            stream.write_all(answer.as_bytes()).unwrap();
            stream.flush().unwrap();
        }
    });
    (address, log)
}

/// A server without TLS that counts its connections and answers as one with.
fn plain(answer: String) -> (SocketAddr, Arc<AtomicU64>) {
    let count = Arc::new(AtomicU64::new(0));
    let counted = count.clone();
    let address = serve(move |mut stream, _| {
        counted.fetch_add(1, Ordering::SeqCst);
        read_request(&mut stream);
        let _ = stream.write_all(answer.as_bytes());
    });
    (address, count)
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

fn make(azure: &AzureConfig, authority: &Authority) -> Result<Authorizer> {
    let http = HttpConfig::new().ca_file(&authority.ca_file).attempts_max(1);
    let transport = Arc::new(HttpAgent::new(&http, 2)?);
    let direct = Arc::new(HttpAgent::direct(&http)?);
    Authorizer::new(ACCOUNT, azure, &http, transport, direct)
}

/// An application's secret, and who gives tokens for it.
fn asking(authority: String) -> AzureConfig {
    let environment = AzureEnvironment { authority: Some(authority), ..client() };
    with(AzureConfig::new(), &environment)
}

#[test]
fn a_token_is_fetched_over_tls() {
    let authority = Authority::new("127.0.0.1");
    let (address, log) = secure(&authority, ok(&token("T")));
    let authorizer = make(&asking(format!("https://{address}")), &authority).unwrap();
    for _ in 0..3 {
        let added = authorize(&authorizer).unwrap();
        assert_eq!(authorization(&added), Some("Bearer T"));
    }
    let log = lock(&log);
    assert_eq!(log.len(), 1);
    assert_eq!(log[0].target(), "/tenant/oauth2/v2.0/token");
    assert!(log[0].body.starts_with(b"client_id=client&"));
}

#[test]
fn who_cannot_prove_the_name_gets_no_secret() {
    let (authority, stranger) = (Authority::new("127.0.0.1"), Authority::new("127.0.0.1"));
    let other_name = Authority::new("login.example.org");
    for (server, trusted) in [(&stranger, &authority), (&other_name, &other_name)] {
        let (address, log) = secure(server, ok(&token("T")));
        let authorizer = make(&asking(format!("https://{address}")), trusted).unwrap();
        let error = authorize(&authorizer).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert_eq!(lock(&log).len(), 0);
    }
}

#[test]
fn no_redirect_leads_a_secret_or_a_token_away_from_tls() {
    let authority = Authority::new("127.0.0.1");
    let (elsewhere, count) = plain(ok(&token("STOLEN")));
    for status in [301, 302, 303, 307, 308] {
        let answer = format!(
            "HTTP/1.1 {status} Moved\r\nLocation: http://{elsewhere}/t\r\nContent-Length: 0\r\n\r\n"
        );
        let (address, log) = secure(&authority, answer);
        let authorizer = make(&asking(format!("https://{address}")), &authority).unwrap();
        let error = authorize(&authorizer).unwrap_err();
        assert!(error.to_string().contains(&status.to_string()), "{error}");
        assert_eq!(lock(&log).len(), 1);
    }
    assert_eq!(count.load(Ordering::SeqCst), 0);
}

#[test]
fn plain_http_is_not_even_connected_to() {
    let authority = Authority::new("127.0.0.1");
    let (address, count) = plain(ok(&token("STOLEN")));
    let authorizer = make(&asking(format!("http://{address}")), &authority).unwrap();
    let error = authorize(&authorizer).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    let endpoint = format!("http://{address}/{ACCOUNT}");
    for azure in [
        AzureConfig::new().bearer_token("T"),
        AzureConfig::new().client_secret("t", "c", "s"),
        asking(format!("https://{address}")),
    ] {
        let error = make(&azure.endpoint(&endpoint), &authority).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    }
    assert_eq!(count.load(Ordering::SeqCst), 0);
}
