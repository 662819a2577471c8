//! No secret shows, whatever comes back and wherever it fails.

use std::error::Error as _;

use super::support::{Chain, FUTURE, Fake, Home, PAST, handout, sts_answer};
use crate::backend::http::Stage;
use crate::config::{AwsEnvironment, ContainerEnvironment, S3Config, Secret, StaticCredentials};

/// Stands in every secret, and in nothing else.
const SECRET: &str = "hunter2";

/// Asks, and looks for the secret in all that can be shown.
fn show_nothing(chain: &Chain, what: &str) {
    let outcome = chain.keys();
    let mut shown = format!("{outcome:?} {:?}", chain.chain);
    if let Err(error) = outcome {
        shown.push_str(&format!("{error} {error:?} {error:#?}"));
        let mut cause = error.source();
        while let Some(error) = cause {
            shown.push_str(&format!("{error} {error:?}"));
            cause = error.source();
        }
    }
    assert!(!shown.contains(SECRET), "{what}: {shown}");
}

/// Answers, good and broken in many ways, each full of secrets.
fn answers() -> Vec<String> {
    let json = handout("ID", FUTURE).replace("\"secret\"", "\"hunter2\"").replace("token", SECRET);
    let xml = sts_answer("ID", FUTURE).replace("se/cr+et", SECRET).replace("to/k+en=", SECRET);
    let mut all = vec![
        SECRET.to_owned(),
        format!("\"{SECRET}\""),
        format!("[\"{SECRET}\"]"),
        format!("{{\"{SECRET}\": 1}}"),
        format!(r#"{{"Version":"{SECRET}"}}"#),
        format!(r#"{{"Code":{{"{SECRET}":1}},"SecretAccessKey":"{SECRET}"}}"#),
        format!(r#"{{"Code":"Failed","Message":"{SECRET} it is","SecretAccessKey":"{SECRET}"}}"#),
        format!(r#"{{"Code":"Failed","Message":"{SECRET} it is","Token":"{SECRET}"}}"#),
        format!(r#"{{"Code":"Failed","Message":"{SECRET}","Version":"x","Token":"{SECRET}"}}"#),
        format!(r#"{{"AccessKeyId":"I","SecretAccessKey":"{SECRET} \n"}}"#),
        format!(r#"{{"AccessKeyId":"I","SecretAccessKey":["{SECRET}"]}}"#),
        json.replace("Success", "Failed"),
        json.replace(FUTURE, PAST),
        json.replace(FUTURE, SECRET),
        json.replace("AccessKeyId", "accessKeyID"),
        xml.replace(FUTURE, SECRET),
        xml.replace("AssumeRoleWithWebIdentityResult", SECRET),
        xml.replace("</SecretAccessKey>", ""),
        xml.replace("<SecretAccessKey>", "<SecretAccessKey>&hunter2;"),
        format!("<{SECRET}/>"),
    ];
    for whole in [json, xml] {
        all.extend((0..whole.len()).step_by(29).map(|end| whole[..end].to_owned()));
        all.push(whole);
    }
    all
}

fn servers(home: &Home) -> Vec<(&'static str, AwsEnvironment)> {
    let web = AwsEnvironment {
        web_identity_token_file: Some(home.write("token", SECRET)),
        role_arn: Some("arn".to_owned()),
        ..home.environment()
    };
    let container = AwsEnvironment {
        container: ContainerEnvironment {
            full_uri: Some(Secret::new("https://host/hunter2?hunter2")),
            token: Some(Secret::new(SECRET)),
            ..ContainerEnvironment::default()
        },
        ..home.environment()
    };
    vec![("web", web), ("container", container), ("instance", home.environment())]
}

#[test]
fn of_servers() {
    let home = Home::new();
    for (name, environment) in servers(&home) {
        for answer in answers() {
            for status in [200, 400, 500] {
                // Each question of the instance in turn meets the answer.
                for good in 0..3 {
                    let body = answer.clone();
                    let fake = Fake::answering(move |seen| {
                        let asked = match &*seen.uri.to_string() {
                            uri if uri.ends_with("/token") => 0,
                            uri if uri.ends_with("/security-credentials/") => 1,
                            _ => 2,
                        };
                        Ok(match asked < good {
                            true => (200, ["hunter2-token", "role"][asked].to_owned()),
                            false => (status, body.clone()),
                        })
                    });
                    let chain = Chain::new(&S3Config::new(), environment.clone(), &fake, &fake);
                    show_nothing(&chain, &format!("{name} {status} {answer}"));
                }
            }
        }
    }
}

#[test]
fn of_what_was_sent_and_comes_back_or_does_not() {
    let home = Home::new();
    for (name, environment) in servers(&home) {
        for stage in [Stage::Resolve, Stage::Tls, Stage::Receive] {
            let fake = Fake::answering(move |_| Err(stage));
            let chain = Chain::new(&S3Config::new(), environment.clone(), &fake, &fake);
            show_nothing(&chain, name);
        }
        for echo in [
            format!(r#"{{"code":"Bad","message":"what is {SECRET}?"}}"#),
            format!("<E><Error><Code>Bad</Code><Message>not {SECRET}</Message></Error></E>"),
        ] {
            if name == "instance" {
                continue; // asked with no secret of ours
            }
            let fake = Fake::always(400, &echo);
            let chain = Chain::new(&S3Config::new(), environment.clone(), &fake, &fake);
            assert!(chain.keys().unwrap_err().to_string().contains("***"), "{name} {echo}");
            show_nothing(&chain, name);
        }
    }
}

#[test]
fn of_addresses_of_containers() {
    for uri in
        ["http://far/hunter2", "hunter2", "ftp://u:hunter2@localhost/", "https://u:hunter2@h/"]
    {
        for relative in [false, true] {
            let uri = Some(Secret::new(uri));
            let mut container = ContainerEnvironment::default();
            if relative {
                container.relative_uri = uri
            } else {
                container.full_uri = uri
            }
            let environment = AwsEnvironment { container, ..AwsEnvironment::default() };
            let silent = Fake::silent();
            show_nothing(&Chain::new(&S3Config::new(), environment, &silent, &silent), "uri");
        }
    }
}

#[test]
fn of_files() {
    let home = Home::new();
    let whole = "[default]\naws_access_key_id = ID\naws_secret_access_key = hunter2\n\
                 aws_session_token = hunter2\nservices = x\n[services x]\ns3 =\n  a = b\n";
    let mut texts: Vec<String> = (0..whole.len()).map(|end| whole[..end].to_owned()).collect();
    texts.push(whole.replace("= hunter2", "= hun\u{e9}hunter2"));
    texts.push(whole.replace("= hunter2", "hunter2"));
    texts.push(whole.replace("aws_secret_access_key = ", ""));
    texts.push(whole.replace("aws_access_key_id = ID", "aws_access_key_id = I D"));
    texts.push("[default]\n= hunter2\n".to_owned());
    for name in [".aws/credentials", ".aws/config"] {
        for text in &texts {
            home.write(name, text);
            let silent = Fake::silent();
            let chain = Chain::new(&S3Config::new(), home.environment(), &silent, &silent);
            chain.chain.region();
            show_nothing(&chain, text);
        }
        home.remove(name);
    }
}

#[test]
fn of_programs() {
    let home = Home::new();
    let keys = r#"{"Version":1,"AccessKeyId":"ID","SecretAccessKey":"hunter2"}"#;
    for script in [
        format!("echo '{keys}'"),
        format!("echo '{keys}'; echo hunter2 >&2; exit 1"),
        "echo hunter2".to_owned(),
        "echo '{\"Version\":1,\"AccessKeyId\":\"ID\",\"SecretAccessKey\":[\"hunter2\"]}'"
            .to_owned(),
        "yes hunter2".to_owned(),
    ] {
        let path = home.write("script", &script);
        let command = format!("credential_process = sh {} hunter2", path.display());
        home.write(".aws/config", &format!("[default]\n{command}\n"));
        let silent = Fake::silent();
        let chain = Chain::new(&S3Config::new(), home.environment(), &silent, &silent);
        show_nothing(&chain, &script);
    }
}

#[test]
fn of_keys_that_were_given() {
    for (id, secret) in [("ID", "hunter2"), ("I D", "hunter2"), ("ID", "hunter2 \u{e9}")] {
        let s3 = S3Config::new().credentials(id, secret, Some(SECRET));
        show_nothing(&Chain::without_environment(&s3, &Fake::silent()), "explicit");
        let credentials = Some(StaticCredentials {
            access_key_id: id.to_owned(),
            secret_access_key: Secret::new(secret),
            session_token: Some(Secret::new(SECRET)),
        });
        let environment = AwsEnvironment { credentials, ..AwsEnvironment::default() };
        let silent = Fake::silent();
        show_nothing(&Chain::new(&S3Config::new(), environment, &silent, &silent), "environment");
    }
}
