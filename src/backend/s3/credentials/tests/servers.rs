//! STS, the container's endpoint and the instance's metadata.

use super::super::sts::default_endpoint;
use super::support::{Chain, FUTURE, Fake, Home, handout, json, sts_answer};
use crate::backend::http::Stage;
use crate::config::{AwsEnvironment, ContainerEnvironment, S3Config, Secret};
use crate::error::ErrorKind;

fn web_identity(home: &Home) -> AwsEnvironment {
    AwsEnvironment {
        web_identity_token_file: Some(home.write("token", "a.b-c+d/e=\n")),
        role_arn: Some("arn:aws:iam::123:role/some role".to_owned()),
        role_session_name: Some("session@here".to_owned()),
        ..home.environment()
    }
}

fn container(full_uri: &str) -> AwsEnvironment {
    let full_uri = Some(Secret::new(full_uri));
    let container = ContainerEnvironment { full_uri, ..ContainerEnvironment::default() };
    AwsEnvironment { container, ..AwsEnvironment::default() }
}

#[test]
fn sts_is_asked_by_a_form_and_the_token_stays_out_of_the_address() {
    let home = Home::new();
    let transport = Fake::always(200, &sts_answer("WEB", FUTURE));
    let s3 = S3Config::new().region("eu-central-1");
    let chain = Chain::new(&s3, web_identity(&home), &transport, &Fake::silent());
    let keys = chain.keys().unwrap().unwrap();
    assert_eq!(keys.secret_access_key.expose(), "se/cr+et");
    assert_eq!(keys.session_token.as_ref().unwrap().expose(), "to/k+en=");
    let seen = &transport.seen()[0];
    assert_eq!(seen.method, "POST");
    assert_eq!(seen.uri.to_string(), "https://sts.eu-central-1.amazonaws.com/");
    assert_eq!(seen.header("content-type"), Some("application/x-www-form-urlencoded"));
    assert_eq!(
        seen.body,
        "Action=AssumeRoleWithWebIdentity&Version=2011-06-15\
         &RoleArn=arn%3Aaws%3Aiam%3A%3A123%3Arole%2Fsome%20role&RoleSessionName=session%40here\
         &WebIdentityToken=a.b-c%2Bd%2Fe%3D"
    );
}

#[test]
fn sts_is_asked_where_the_environment_says() {
    let home = Home::new();
    let transport = Fake::always(200, &sts_answer("WEB", FUTURE));
    let environment = AwsEnvironment {
        sts_endpoint: Some("http://sts.local:8".to_owned()),
        ..web_identity(&home)
    };
    let chain = Chain::new(&S3Config::new(), environment, &transport, &Fake::silent());
    chain.keys().unwrap();
    assert_eq!(transport.seen()[0].uri.to_string(), "http://sts.local:8/");
}

#[test]
fn the_sts_of_a_region_is_asked_only_where_there_is_one() {
    let cases = [
        (Some("us-gov-west-1"), "https://sts.us-gov-west-1.amazonaws.com"),
        (Some("cn-north-1"), "https://sts.cn-north-1.amazonaws.com.cn"),
        (Some("auto"), "https://sts.amazonaws.com"),
        (Some("a-b/1"), "https://sts.amazonaws.com"),
        (None, "https://sts.amazonaws.com"),
    ];
    for (region, endpoint) in cases {
        assert_eq!(default_endpoint(region), endpoint);
    }
}

#[test]
fn passing_failures_are_tried_again_and_others_are_not() {
    let home = Home::new();
    let good = || Ok((200, sts_answer("WEB", FUTURE)));
    let failing = |first: [Result<(u16, String), Stage>; 2]| {
        let transport = Fake::script(first.into_iter().chain([good()]).collect());
        let s3 = S3Config { environment: Some(web_identity(&home)), ..S3Config::new() };
        let keys = Chain::of(&s3, 10, &transport, &Fake::silent()).keys();
        (keys, transport.count())
    };
    let busy = |status| Ok((status, String::new()));
    for first in [
        [busy(503), busy(429)],
        [Err(Stage::Connect), Err(Stage::Receive)],
        [Err(Stage::Resolve), busy(500)],
    ] {
        let (keys, count) = failing(first);
        assert_eq!(keys.unwrap().unwrap().access_key_id, "WEB");
        assert_eq!(count, 3);
    }
    for first in [[busy(400), good()], [Err(Stage::Tls), good()], [busy(301), good()]] {
        let (keys, count) = failing(first);
        assert!(keys.is_err());
        assert_eq!(count, 1);
    }
    let (keys, count) = {
        let transport = Fake::always(503, "busy");
        let s3 = S3Config { environment: Some(web_identity(&home)), ..S3Config::new() };
        (Chain::of(&s3, 10, &transport, &Fake::silent()).keys(), transport.count())
    };
    let error = keys.unwrap_err();
    assert_eq!((error.kind(), count, error.attempts()), (ErrorKind::Unavailable, 3, 3));
}

#[test]
fn a_refusal_is_told_in_the_servers_words_under_the_sources_name() {
    let home = Home::new();
    let body = "<ErrorResponse><Error><Type>Sender</Type><Code>AccessDenied</Code>\
                <Message>Not you</Message></Error><RequestId>1</RequestId></ErrorResponse>";
    let transport = Fake::always(403, body);
    let chain = Chain::new(&S3Config::new(), web_identity(&home), &transport, &Fake::silent());
    let error = chain.keys().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    for needle in ["web identity", "sts.amazonaws.com", "403", "AccessDenied: Not you"] {
        assert!(error.to_string().contains(needle), "{needle} missing in {error}");
    }
}

#[test]
fn web_identity_that_applies_and_fails_stops_the_chain() {
    let home = Home::new();
    let silent = Fake::silent();
    let absent =
        AwsEnvironment { web_identity_token_file: Some(home.path("x")), ..web_identity(&home) };
    let empty = AwsEnvironment {
        web_identity_token_file: Some(home.write("empty", " \n")),
        ..web_identity(&home)
    };
    let no_role = AwsEnvironment { role_arn: None, ..web_identity(&home) };
    for environment in [absent, empty, no_role] {
        let chain = Chain::new(&S3Config::new(), environment, &silent, &silent);
        let error = chain.keys().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        assert!(error.to_string().contains("web identity"), "{error}");
    }
    assert_eq!(silent.count(), 0);
}

#[test]
fn a_container_is_asked_without_tls_only_nearby() {
    for (uri, near) in [
        ("http://localhost/x", true),
        ("http://127.0.0.1:1/x", true),
        ("http://127.9.9.9/x", true),
        ("http://[::1]:80/x?q=1", true),
        ("http://169.254.170.2/x", true),
        ("http://169.254.170.23/v1", true),
        ("http://[fd00:ec2::23]/v1", true),
        ("https://keys.example.org/x", false),
    ] {
        let (good, silent) = (Fake::always(200, &handout("C", FUTURE)), Fake::silent());
        let (transport, direct) = if near { (&silent, &good) } else { (&good, &silent) };
        let chain = Chain::new(&S3Config::new(), container(uri), transport, direct);
        assert_eq!(chain.keys().unwrap().unwrap().access_key_id, "C", "{uri}");
        assert_eq!(good.seen()[0].uri.to_string(), uri);
        assert_eq!(silent.count(), 0);
    }
    for uri in [
        "http://keys.example.org/x",
        "http://169.254.169.254/x",
        "http://localhost.example.org/x",
        "http://localhost@example.org/x",
        "http://[fd00:ec2::254]/x",
        "http://10.0.0.1/x",
        "ftp://localhost/x",
        "https://u:p@keys.example.org/",
        "/x",
        "nonsense",
    ] {
        let silent = Fake::silent();
        let chain = Chain::new(&S3Config::new(), container(uri), &silent, &silent);
        let error = chain.keys().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{uri}");
        assert!(error.to_string().contains("container"), "{error}");
        assert_eq!(silent.count(), 0, "{uri}");
    }
}

#[test]
fn a_containers_token_comes_from_the_file_first_and_is_read_each_time() {
    let home = Home::new();
    let direct = Fake::always(200, &handout("C", FUTURE));
    let mut environment = container("http://localhost/x");
    environment.container.token = Some(Secret::new("of-variable"));
    let of = |environment: &AwsEnvironment| {
        Chain::new(&S3Config::new(), environment.clone(), &Fake::silent(), &direct)
    };
    of(&environment).keys().unwrap();
    environment.container.token_file = Some(home.write("token", "of-file\n"));
    let chain = of(&environment);
    let keys = chain.keys().unwrap().unwrap();
    home.write("token", "renewed");
    chain.chain.invalidate(&keys);
    chain.keys().unwrap();
    let seen = direct.seen();
    let tokens: Vec<_> = seen.iter().map(|seen| seen.header("authorization").unwrap()).collect();
    assert_eq!(tokens, ["of-variable", "of-file", "renewed"]);
    assert!(seen.iter().all(|seen| seen.headers["authorization"].is_sensitive()));
    home.write("token", "two\nlines");
    let error = of(&environment).keys().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

#[test]
fn the_instance_is_asked_with_a_token_and_without_proxy() {
    let answers = [(200, "tok"), (200, "role-1\nrole-2\n"), (200, &*handout("I", FUTURE))];
    let direct = Fake::script(answers.map(|(code, body)| Ok((code, body.to_owned()))).to_vec());
    let silent = Fake::silent();
    let chain = Chain::new(&S3Config::new(), AwsEnvironment::default(), &silent, &direct);
    let keys = chain.keys().unwrap().unwrap();
    assert_eq!(keys.access_key_id, "I");
    assert_eq!(keys.session_token.as_ref().unwrap().expose(), "token");
    assert_eq!(silent.count(), 0);
    let seen = direct.seen();
    let base = "http://169.254.169.254/latest";
    let requests: Vec<_> = seen.iter().map(|s| format!("{} {}", s.method, s.uri)).collect();
    let roles = format!("GET {base}/meta-data/iam/security-credentials/");
    assert_eq!(
        requests,
        [format!("PUT {base}/api/token"), roles.clone(), format!("{roles}role-1")]
    );
    assert!(seen[0].header("x-aws-ec2-metadata-token-ttl-seconds").is_some());
    for seen in &seen[1..] {
        assert_eq!(seen.header("x-aws-ec2-metadata-token"), Some("tok"));
        assert!(seen.headers["x-aws-ec2-metadata-token"].is_sensitive());
    }
}

#[test]
fn the_instance_is_asked_where_the_environment_says_or_not_at_all() {
    let direct = Fake::silent();
    let endpoint = Some("http://[::1]:1338".to_owned());
    let environment = AwsEnvironment { metadata_endpoint: endpoint, ..AwsEnvironment::default() };
    assert!(Chain::new(&S3Config::new(), environment.clone(), &direct, &direct).keys().is_err());
    assert_eq!(direct.seen()[0].host(), "[::1]");
    let off = AwsEnvironment { metadata_disabled: true, ..environment };
    let asked = direct.count();
    let error = Chain::new(&S3Config::new(), off, &direct, &direct).keys().unwrap_err();
    assert_eq!(direct.count(), asked);
    assert!(error.to_string().contains("AWS_EC2_METADATA_DISABLED"), "{error}");
}

#[test]
fn an_instance_that_is_none_or_has_no_role_is_passed_over_and_one_that_fails_is_not() {
    let ok = |body: &str| Ok((200, body.to_owned()));
    let status = |code: u16| Ok((code, String::new()));
    let run = |script: Vec<Result<(u16, String), Stage>>| {
        let direct = Fake::script(script);
        let environment = AwsEnvironment::default();
        Chain::new(&S3Config::new(), environment, &Fake::silent(), &direct).keys().unwrap_err()
    };
    for script in [
        vec![Err(Stage::Connect)],
        vec![status(403)],
        vec![status(404)],
        vec![ok("tok"), status(404)],
        vec![ok("tok"), ok("")],
        vec![ok("tok"), ok("role"), status(404)],
    ] {
        let error = run(script);
        assert!(error.to_string().contains("no credentials found"), "{error}");
        assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    }
    let refused = r#"{"Code":"AssumeRoleUnauthorizedAccess","Message":"no trust"}"#;
    for script in [
        vec![status(500)],
        vec![ok("")],
        vec![ok("tok"), status(401)],
        vec![ok("tok"), Err(Stage::Receive)],
        vec![ok("tok"), ok("<html>")],
        vec![ok("tok"), ok("role"), ok("{}")],
        vec![ok("tok"), ok("role"), ok(refused)],
        vec![ok("tok"), ok("role"), ok(&handout("I", "soon"))],
    ] {
        let error = run(script);
        assert!(error.to_string().contains("the instance's metadata"), "{error}");
        assert!(!error.to_string().contains("no credentials found"), "{error}");
    }
}

#[test]
fn no_time_left_is_told_as_such() {
    let silent = Fake::silent();
    let chain = Chain::new(&S3Config::new(), AwsEnvironment::default(), &silent, &silent);
    let over = crate::time::Deadline::after(std::time::Duration::ZERO);
    assert_eq!(chain.chain.keys(&over).unwrap_err().kind(), ErrorKind::TimedOut);
    let answers = [json("tok"), json("role"), json(&handout("I", FUTURE))].map(Ok).to_vec();
    let chain =
        Chain::new(&S3Config::new(), AwsEnvironment::default(), &silent, &Fake::script(answers));
    assert!(chain.chain.keys(&over).is_ok(), "what is there at once needs no time");
}
