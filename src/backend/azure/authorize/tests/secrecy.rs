//! No secret shows, whatever comes back and wherever it fails.

use std::error::Error as _;

use proptest::prelude::*;

use super::support::{ACCOUNT, app_service, authorize, authorizer, client, generous, token, with};
use crate::backend::http::Stage;
use crate::backend::http::fake::Fake;
use crate::config::{AzureConfig, AzureEnvironment, Config, ConnectionString, Secret};
use crate::error::{Error, Result};

/// Stands in every secret, and in nothing else.
const SECRET: &str = "hunter2";

/// `hunter2` in base64.
const KEY: &str = "aHVudGVyMg==";

fn show(error: &Error, shown: &mut String) {
    shown.push_str(&format!("{error} {error:?} {error:#?} {:?}", error.remedy()));
    let mut cause = error.source();
    while let Some(error) = cause {
        shown.push_str(&format!("{error} {error:?}"));
        cause = error.source();
    }
}

/// Authorizes, and looks for the secret in all that can be shown.
fn show_nothing(azure: &AzureConfig, transport: &Fake, direct: &Fake, what: &str) {
    let mut shown = format!("{azure:?} ");
    match authorizer(azure, transport, direct) {
        Err(error) => show(&error, &mut shown),
        Ok(authorizer) => {
            let outcome = authorize(&authorizer);
            shown.push_str(&format!("{authorizer:?} "));
            match outcome {
                // The pairs of the query are what is sent.
                Ok((headers, _)) => shown.push_str(&format!("{headers:?}")),
                Err(error) => show(&error, &mut shown),
            }
            authorizer.invalidate(&Default::default());
            let deadline = generous();
            shown.push_str(&format!("{authorizer:?} {:?}", authorizer.fetch(&deadline).err()));
        }
    }
    if let Err(error) = Config::builder().azure(azure.clone()).build() {
        show(&error, &mut shown);
    }
    assert!(!shown.contains(SECRET) && !shown.contains(KEY), "{what}: {shown}");
}

/// Environments whose every source is a server, each with a secret of its own.
fn servers(dir: &tempfile::TempDir) -> Vec<AzureEnvironment> {
    let file = dir.path().join("token");
    std::fs::write(&file, format!("{SECRET}.jwt")).unwrap();
    let secret = AzureEnvironment { client_secret: Some(Secret::new("a b/hunter2")), ..client() };
    let workload =
        AzureEnvironment { client_secret: None, federated_token_file: Some(file), ..client() };
    let service = AzureEnvironment {
        identity_header: Some(Secret::new(SECRET)),
        ..app_service("http://localhost/hunter2?hunter2")
    };
    vec![secret, workload, service, AzureEnvironment::default()]
}

/// Answers, good and broken in many ways, each full of secrets.
fn answers() -> Vec<String> {
    let whole = token(SECRET);
    let mut all = vec![
        SECRET.to_owned(),
        format!("\"{SECRET}\""),
        format!("[\"{SECRET}\"]"),
        format!("{{\"{SECRET}\": 1}}"),
        format!(r#"{{"access_token":["{SECRET}"],"expires_in":1}}"#),
        format!(r#"{{"access_token":"{SECRET} ","expires_in":1}}"#),
        format!(r#"{{"access_token":"a {SECRET}","expires_in":1}}"#),
        format!(r#"{{"access_token":"{SECRET}","expires_in":"{SECRET}"}}"#),
        format!(r#"{{"access_token":"T","token_type":"{SECRET}","expires_in":1}}"#),
        format!(
            r#"{{"error":"x","error_description":"{SECRET} it is","access_token":"{SECRET}"}}"#
        ),
        format!(r#"{{"code":"x","message":"{SECRET}","client_secret":"{SECRET}"}}"#),
        format!("<{SECRET}/>"),
        whole.clone(),
    ];
    all.extend((0..whole.len()).step_by(7).map(|end| whole[..end].to_owned()));
    all
}

#[test]
fn of_servers() {
    let dir = tempfile::tempdir().unwrap();
    for environment in servers(&dir) {
        let azure = with(AzureConfig::new(), &environment);
        for answer in answers() {
            for status in [200, 400, 401, 500] {
                // Both questions of the machine in turn meet the answer.
                for good in [false, true] {
                    let body = answer.clone();
                    let fake = Fake::answering(move |seen| {
                        let first = seen.host() == "169.254.169.254" && seen.headers.is_empty();
                        Ok(if good && first {
                            (400, String::new())
                        } else {
                            (status, body.clone())
                        })
                    });
                    show_nothing(&azure, &fake, &fake, &format!("{status} {answer}"));
                }
            }
        }
        for stage in [Stage::Resolve, Stage::Tls, Stage::Receive] {
            let fake = Fake::answering(move |_| Err(stage));
            show_nothing(&azure, &fake, &fake, "no answer");
        }
    }
}

#[test]
fn of_what_was_sent_and_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    for environment in servers(&dir).into_iter().take(3) {
        let azure = with(AzureConfig::new(), &environment);
        // As it was given, and as a form has it.
        for sent in ["a b/hunter2", "a%20b%2Fhunter2", "hunter2.jwt", "hunter2"] {
            let fake =
                Fake::always(400, &format!(r#"{{"error":"x","error_description":"not {sent}!"}}"#));
            let error = authorize(&authorizer(&azure, &fake, &fake).unwrap()).unwrap_err();
            let given = [&environment.client_secret, &environment.identity_header];
            let expected = match given.into_iter().flatten().next().map(Secret::expose) {
                Some("a b/hunter2") => sent.contains("b/") || sent.contains("b%2F"),
                Some(_) => true,
                None => sent.ends_with("jwt"),
            };
            assert_eq!(error.to_string().contains("***"), expected, "{sent} {error}");
            if expected {
                show_nothing(&azure, &fake, &fake, sent);
            }
        }
    }
}

/// Whatever is given, of all kinds, with and without an endpoint that admits it.
fn given(text: &str) -> Vec<AzureConfig> {
    let new = AzureConfig::new;
    let environment = |environment: AzureEnvironment| with(new(), &environment);
    let secret = || Some(Secret::new(text));
    let given = vec![
        new().account_key(text),
        new().sas_token(text),
        new().sas_token(&format!("sv=1&sig={text}")),
        new().bearer_token(text),
        new().client_secret("t", "c", text),
        new().connection_string(text),
        new().connection_string(&format!("AccountName={ACCOUNT};AccountKey={text}")),
        new().connection_string(&format!("AccountKey={text}")),
        new().connection_string(&format!("AccountName=other;AccountKey={text}")),
        new().connection_string(&format!("AccountName={ACCOUNT};SharedAccessSignature=sig={text}")),
        new().connection_string(&format!("BlobEndpoint=https://u:{text}@h/acct;AccountKey={text}")),
        new().connection_string(&format!("UseDevelopmentStorage={text}")),
        new().connection_string(&format!("UseDevelopmentStorage=true;AccountKey={text}")),
        environment(AzureEnvironment { key: secret(), ..Default::default() }),
        environment(AzureEnvironment { sas_token: secret(), ..Default::default() }),
        environment(AzureEnvironment { client_secret: secret(), ..client() }),
        environment(AzureEnvironment {
            identity_header: secret(),
            ..app_service("http://localhost")
        }),
        environment(AzureEnvironment { identity_endpoint: secret(), ..app_service("") }),
        environment(AzureEnvironment {
            connection_string: ConnectionString::parse(&format!("AccountName=x;AccountKey={text}"))
                .ok(),
            ..Default::default()
        }),
    ];
    let insecure = given.iter().map(|azure| azure.clone().endpoint("http://127.0.0.1:1/acct"));
    let insecure: Vec<AzureConfig> = insecure.collect();
    given.into_iter().chain(insecure).collect()
}

proptest! {
    #[test]
    fn of_what_was_given(before in "[ -~]{0,6}", after in "(?s).{0,6}", as_key: bool) {
        let text = if as_key { KEY.to_owned() } else { format!("{before}{SECRET}{after}") };
        let silent = Fake::silent();
        for azure in given(&text) {
            show_nothing(&azure, &silent, &silent, &text);
        }
    }
}

#[test]
fn of_signatures() {
    let silent = Fake::silent();
    let make = |azure: AzureConfig| -> Result<String> {
        let authorizer = authorizer(&azure, &silent, &silent)?;
        let (headers, query) = authorize(&authorizer)?;
        let sent = headers.get("authorization").map(|value| value.to_str().unwrap().to_owned());
        let sent = sent.unwrap_or_else(|| query[0].1.clone());
        let shown = format!("{authorizer:?} {headers:?}");
        let signature = sent.rsplit([':', ' ']).next().unwrap();
        assert!(signature.len() > 10 && !shown.contains(signature), "{shown}");
        Ok(sent)
    };
    make(AzureConfig::new().account_key(KEY)).unwrap();
    make(AzureConfig::new().sas_token("sig=hunter2hunter2")).unwrap();
    make(AzureConfig::new().bearer_token("hunter2hunter2")).unwrap();
}
