//! Line ends and other control characters in all that a user, an environment or a file can give: nothing of it
//! comes to stand in a request as a header or a request of its own.

use std::process::Command;
use std::time::Duration;

use syncline::{AzureConfig, ErrorKind, S3Config, open_store};

use crate::rig::{SECRET_KEY, WAYS, Way, assert_tame};
use crate::scripted::{Answer, Request, Server, Step};

/// What each place is given, after something harmless.
const BAD: [&str; 9] = [
    "a\r\nx-evil: 1",
    "a\nx-evil: 1",
    "a\rx-evil: 1",
    "a\r\n\r\nGET /evil HTTP/1.1\r\nhost: evil\r\n\r\n",
    "a\u{0}x-evil",
    "a\u{1b}[31mx-evil",
    "a\u{7f}x-evil",
    "a\u{85}x-evil: 1",
    "a b\tx-evil",
];

fn server() -> Server {
    Server::start(|_: &Request| -> Step {
        Answer::new(403).body("<Error><Code>AccessDenied</Code></Error>").into()
    })
}

/// That nothing evil stands in a request but encoded, in a path, a query or a signed value's name.
#[track_caller]
fn assert_clean(what: &str, server: &Server) {
    for request in server.requests() {
        assert!(
            matches!(request.method.as_str(), "GET" | "HEAD" | "PUT" | "POST" | "DELETE"),
            "{what}: {request:?}"
        );
        for text in [&request.path, &request.query] {
            assert!(text.chars().all(|c| c.is_ascii_graphic()), "{what}: {request:?}");
            assert!(!text.contains("/evil") && !text.contains("x-evil:"), "{what}: {request:?}");
        }
        for (name, value) in &request.headers {
            assert!(!name.contains("evil") && name != "a", "{what}: {request:?}");
            assert!(!value.chars().any(|c| c.is_control() && c != '\t'), "{what}: {request:?}");
        }
        assert_eq!(request.headers.iter().filter(|(name, _)| name == "host").count(), 1, "{what}");
    }
}

#[test]
fn names_and_prefixes_are_encoded_or_refused() {
    for way in WAYS {
        let server = server();
        let store = way.open(&server);
        for bad in BAD {
            let uri = format!("{}/{bad}", way.base());
            let errors = [
                store.put(&uri, b"x").err(),
                store.get(&uri).err(),
                store.stat(&uri).err(),
                store.delete(&uri).err(),
                store.list(&uri).and_then(|mut list| list.try_for_each(|o| o.map(drop))).err(),
                store.delete_prefix(&uri).err(),
                store.orphans(&uri, Duration::ZERO).err(),
                open_store(&uri, store.config()).err(),
            ];
            // A tab is a control character as well.
            for error in errors.into_iter().flatten() {
                assert_eq!(error.kind(), ErrorKind::InvalidInput, "{way:?} {bad:?}: {error}");
            }
        }
        assert_eq!(server.requests().len(), 0, "{way:?}");
        // What is text, in whatever script, goes out encoded.
        for odd in [
            "\u{2028}x-evil: 1",
            "caf\u{e9} \u{202e}",
            "%0d%0ax-evil: 1",
            "a?b#c&d=e;f",
            "\u{10ffff}",
        ] {
            let _ = store.stat(&format!("{}/{odd}", way.base()));
            let _ =
                store.list(&format!("{}/{odd}", way.base())).map(|mut list| list.next().map(drop));
        }
        assert!(server.requests().len() >= 10);
        assert_clean(&format!("{way:?}"), &server);
        crate::figures::add("hostile inputs", (BAD.len() * 8 + 10) as u64);
    }
}

#[test]
fn settings_are_encoded_or_refused() {
    let server = server();
    let endpoint = server.endpoint();
    let account = format!("{endpoint}/account");
    for bad in BAD {
        let s3 = || {
            S3Config::new()
                .endpoint(&endpoint)
                .region("us-east-1")
                .credentials("id", SECRET_KEY, None)
        };
        let azure = || AzureConfig::new().endpoint(&account);
        let of_s3 = [
            s3().credentials(bad, SECRET_KEY, None),
            s3().credentials("id", bad, None),
            s3().credentials("id", SECRET_KEY, Some(bad)),
            s3().region(bad),
            s3().endpoint(&format!("{endpoint}/{bad}")),
            s3().endpoint(&format!("http://{bad}")),
        ];
        let of_azure = [
            azure().account_key(bad),
            azure().sas_token(&format!("sv=1&sig={bad}")),
            azure().sas_token(&format!("sv=1&{bad}=1&sig=s")),
            azure().bearer_token(bad),
            azure().client_secret(bad, bad, bad),
            azure().endpoint(&format!("{account}/{bad}")),
            azure().connection_string(&format!("AccountName=account;AccountKey={bad}")),
            azure().connection_string(&format!(
                "BlobEndpoint={account}{bad};SharedAccessSignature=sig=s"
            )),
        ];
        let s3 = of_s3.into_iter().map(|s3| (Way::S3, Way::S3.config(&endpoint).s3(s3)));
        let azure = of_azure
            .into_iter()
            .map(|azure| (Way::AzureKey, Way::AzureKey.config(&endpoint).azure(azure)));
        for (index, (way, config)) in s3.chain(azure).enumerate() {
            let outcome = config.build().and_then(|config| {
                let store = open_store(way.base(), &config)?;
                store.put(&way.uri(), b"x")?;
                store.list(way.base())?.next().transpose()
            });
            // Only the server says no, where the setting could be sent; else the setting is named as what is wrong.
            let error = outcome.expect_err("nothing is admitted");
            let kinds = [ErrorKind::InvalidInput, ErrorKind::PermissionDenied];
            assert!(kinds.contains(&error.kind()), "{index} {bad:?}: {error:?}");
            if error.kind() == ErrorKind::PermissionDenied {
                assert_tame(&format!("{index} {bad:?}"), &error);
            }
            crate::figures::add("hostile inputs", 1);
        }
    }
    assert_clean("settings", &server);
}

#[test]
fn the_environment_and_profiles_are_encoded_or_refused() {
    let server = server();
    let endpoint = server.endpoint();
    let account = format!("{endpoint}/account");
    let home = tempfile::tempdir().unwrap();
    let run = |variables: &[(&str, &str)], uri: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_syncline"));
        command.args(["ls", uri]).env_clear().envs(variables.iter().copied());
        let done = command
            .env("HOME", home.path())
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .output()
            .unwrap();
        assert_ne!(done.status.code(), Some(0), "{variables:?}");
        assert!(done.status.code().is_some_and(|code| code != 101), "{variables:?} panicked");
        let said = String::from_utf8(done.stderr).unwrap();
        assert!(!said.chars().any(|c| c.is_control() && c != '\n'), "{variables:?}: {said:?}");
        assert_eq!(crate::watch::found_in(&said), None, "{variables:?}: {said}");
    };
    // No variable has a NUL.
    for bad in BAD.into_iter().filter(|bad| !bad.contains('\0')) {
        let s3 = [
            ("AWS_ENDPOINT_URL", endpoint.as_str()),
            ("AWS_REGION", "us-east-1"),
            ("AWS_ACCESS_KEY_ID", "id"),
            ("AWS_SECRET_ACCESS_KEY", SECRET_KEY),
        ];
        for name in [
            "AWS_ACCESS_KEY_ID",
            "AWS_SECRET_ACCESS_KEY",
            "AWS_SESSION_TOKEN",
            "AWS_REGION",
            "AWS_ENDPOINT_URL_S3",
        ] {
            run(&[&s3[..], &[(name, bad)]].concat(), Way::S3.base());
        }
        let azure = [("AZURE_STORAGE_BLOB_ENDPOINT", account.as_str())];
        for name in [
            "AZURE_STORAGE_KEY",
            "AZURE_STORAGE_SAS_TOKEN",
            "AZURE_STORAGE_ACCOUNT",
            "AZURE_STORAGE_CONNECTION_STRING",
        ] {
            let sas = ("AZURE_STORAGE_SAS_TOKEN", "sig=s");
            run(&[&azure[..], &[sas, (name, bad)]].concat(), Way::AzureKey.base());
        }
        // Line ends end a value there; the rest is another line, or nonsense.
        let file = home.path().join("credentials");
        for field in [
            "aws_access_key_id",
            "aws_secret_access_key",
            "aws_session_token",
            "region",
            "endpoint_url",
        ] {
            let lines = [("aws_access_key_id", "id"), ("aws_secret_access_key", SECRET_KEY)];
            let lines: String = lines
                .into_iter()
                .chain([(field, bad)])
                .map(|(name, value)| format!("{name} = {value}\n"))
                .collect();
            std::fs::write(&file, format!("[default]\n{lines}")).unwrap();
            let file = file.to_str().unwrap();
            run(
                &[
                    ("AWS_ENDPOINT_URL", &endpoint),
                    ("AWS_SHARED_CREDENTIALS_FILE", file),
                    ("AWS_CONFIG_FILE", file),
                ],
                Way::S3.base(),
            );
        }
        crate::figures::add("hostile inputs", 14);
    }
    assert_clean("the environment", &server);
}
