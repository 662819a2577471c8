//! Profile files.

use proptest::prelude::*;

use super::super::profile::{Profile, Way};
use super::support::{Chain, FUTURE, Fake, Home, sts_answer};
use crate::config::{AwsEnvironment, S3Config};
use crate::error::{Error, ErrorKind};

/// The id and token that the files lead to.
fn keys(
    home: &Home,
    profile: Option<&str>,
) -> Result<Option<(String, String, Option<String>)>, Error> {
    let profile = profile.map(str::to_owned);
    let environment = AwsEnvironment { profile, ..home.environment() };
    let Some(profile) = Profile::load(&environment)? else { return Ok(None) };
    match profile.way()? {
        Way::Keys(keys) => Ok(Some((
            keys.access_key_id,
            keys.secret_access_key.expose().to_owned(),
            keys.session_token.map(|token| token.expose().to_owned()),
        ))),
        _ => Ok(None),
    }
}

fn some(id: &str, key: &str, token: Option<&str>) -> Option<(String, String, Option<String>)> {
    Some((id.to_owned(), key.to_owned(), token.map(str::to_owned)))
}

const CREDENTIALS: &str = ".aws/credentials";
const CONFIG: &str = ".aws/config";

#[test]
fn the_forms_that_people_write() {
    let home = Home::new();
    for text in [
        "[default]\naws_access_key_id = ID\naws_secret_access_key = K\naws_session_token = T\n",
        "[default]\r\naws_access_key_id=ID\r\naws_secret_access_key=K\r\naws_session_token=T",
        "\u{feff}# top\n\n[ default ] # this one\n  ; indented\nAWS_ACCESS_KEY_ID = ID  \n# between\n\
         aws_secret_access_key =K\n\naws_session_token\t=\tT\n   \n",
        "[default]\n  aws_access_key_id = ID\n  aws_secret_access_key = K\n  aws_session_token = T",
        "[default]\naws_access_key_id = ID\ns3 =\n  max_concurrent_requests = 20\n  # note\n\
         \taws_secret_access_key = NOT\naws_secret_access_key = K\naws_session_token = T\n",
        "[other]\naws_access_key_id = X\n[default]\naws_access_key_id = OLD\n[default]\n\
         aws_access_key_id = ID\naws_secret_access_key = K\naws_session_token = T\n",
        "[\"default\"]\naws_access_key_id = ID\naws_secret_access_key = K\naws_session_token = T",
    ] {
        home.write(CREDENTIALS, text);
        assert_eq!(keys(&home, None).unwrap(), some("ID", "K", Some("T")), "{text}");
    }
}

proptest! {
    /// Nothing in a value is taken for syntax.
    #[test]
    fn a_secret_is_read_as_it_stands(key in "[!-~]{1,60}") {
        let home = Home::new();
        let text = format!("[default]\naws_secret_access_key = {key}\naws_access_key_id = ID\n");
        home.write(CREDENTIALS, &text);
        prop_assert_eq!(keys(&home, None).unwrap(), some("ID", &key, None));
    }

    /// Whatever stands in the files, there is an answer or an error, and no panic.
    #[test]
    fn any_text_is_read_or_refused(text in "([\\[\\]=:#; \t\r\n\\\\\"'a-c]|\\PC){0,80}") {
        let home = Home::new();
        home.write(CREDENTIALS, &text);
        home.write(CONFIG, &text);
        let _ = keys(&home, None);
        let _ = keys(&home, Some("a"));
    }
}

#[test]
fn the_credentials_file_comes_before_the_config_file_and_keys_are_not_mixed() {
    let home = Home::new();
    home.write(CREDENTIALS, "[p]\naws_access_key_id = A\naws_secret_access_key = A\n");
    home.write(
        CONFIG,
        "[profile p]\naws_access_key_id = B\naws_secret_access_key = B\naws_session_token = B\n\
         [profile q]\naws_access_key_id = Q\naws_secret_access_key = Q\n[r]\nregion = x\n",
    );
    assert_eq!(keys(&home, Some("p")).unwrap(), some("A", "A", None));
    assert_eq!(keys(&home, Some("q")).unwrap(), some("Q", "Q", None));
    // Without the word `profile` a section of the config file is none.
    let error = keys(&home, Some("r")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.remedy().unwrap().contains("p, q"), "{error}");
    assert_eq!(keys(&home, None).unwrap(), None);
    home.write(CREDENTIALS, "[p]\naws_access_key_id = A\n");
    let error = keys(&home, Some("p")).unwrap_err();
    assert!(error.to_string().contains("aws_secret_access_key"), "{error}");
}

#[test]
fn files_that_are_named_are_read_instead_and_absent_ones_are_passed_over() {
    let home = Home::new();
    home.write(CREDENTIALS, "[default]\naws_access_key_id = A\naws_secret_access_key = A\n");
    let of = |environment: &AwsEnvironment| Profile::load(environment).map(|p| p.is_some());
    assert!(of(&home.environment()).unwrap());
    let named = AwsEnvironment {
        credentials_file: Some("~/elsewhere".into()),
        config_file: Some(home.path("token/below-a-file")),
        ..home.environment()
    };
    home.write("token", "");
    assert!(!of(&named).unwrap());
    home.write("elsewhere", "[default]\n");
    assert!(of(&named).unwrap());
    assert!(!of(&AwsEnvironment::default()).unwrap());
    let folder = AwsEnvironment { credentials_file: Some(home.path(".aws")), ..home.environment() };
    assert!(of(&folder).unwrap_err().to_string().contains(".aws"));
}

#[test]
fn what_is_not_understood_is_refused_with_the_file() {
    let home = Home::new();
    for text in ["[default]\naws_access_key_id\n", "[default]\na\nregion = x\n", "[default]\n= x\n"]
    {
        home.write(CONFIG, text);
        let error = keys(&home, None).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{text:?}");
        assert!(error.to_string().contains(CONFIG), "{error}");
    }
}

#[test]
fn other_ways_to_keys_are_refused_by_name() {
    let home = Home::new();
    for (text, needle) in [
        ("role_arn = a\nsource_profile = b", "source_profile"),
        ("role_arn = a\ncredential_source = Environment", "credential_source"),
        ("sso_session = s\nsso_account_id = 1", "sso_session"),
        ("sso_start_url = s", "sso_start_url"),
    ] {
        home.write(CONFIG, &format!("[default]\nregion = r\n{text}\n"));
        let error = keys(&home, None).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains(needle), "{error}");
        assert!(error.remedy().unwrap().contains("export-credentials"), "{error}");
    }
}

#[test]
fn a_profile_may_take_a_role_by_web_identity() {
    let home = Home::new();
    home.write("web-token", "tok\n");
    home.write(
        CONFIG,
        "[default]\nregion = eu-west-3\nrole_arn = arn:aws:iam::1:role/r\n\
         web_identity_token_file = ~/web-token\nrole_session_name = me\n",
    );
    let transport = Fake::always(200, &sts_answer("WEB", FUTURE));
    let chain = Chain::new(&S3Config::new(), home.environment(), &transport, &Fake::silent());
    assert_eq!(chain.keys().unwrap().unwrap().access_key_id, "WEB");
    let seen = &transport.seen()[0];
    assert_eq!(seen.host(), "sts.eu-west-3.amazonaws.com");
    for field in ["RoleSessionName=me", "WebIdentityToken=tok", "role%2Fr"] {
        assert!(seen.body.contains(field), "{}", seen.body);
    }
}

#[test]
fn a_profile_without_keys_gives_its_region_and_the_chain_goes_on() {
    let home = Home::new();
    home.write(CONFIG, "[profile p]\nregion = eu-west-3\noutput = json\n");
    let environment = AwsEnvironment {
        profile: Some("p".to_owned()),
        metadata_disabled: true,
        ..home.environment()
    };
    let silent = Fake::silent();
    let chain = Chain::new(&S3Config::new(), environment, &silent, &silent);
    assert_eq!(chain.chain.region().as_deref(), Some("eu-west-3"));
    let error = chain.keys().unwrap_err();
    assert!(error.to_string().contains("profile \"p\" has no credentials"), "{error}");
}

#[test]
fn the_endpoint_of_the_service_comes_before_that_of_all() {
    let home = Home::new();
    let endpoint = |text: &str| {
        home.write(CONFIG, text);
        let silent = Fake::silent();
        Chain::new(&S3Config::new(), home.environment(), &silent, &silent).chain.endpoint()
    };
    let all = "[default]\nendpoint_url = http://all\nservices = mine\n";
    assert_eq!(endpoint(all).as_deref(), Some("http://all"));
    let services =
        "[services mine]\nsts =\n  endpoint_url = http://sts\ns3 =\n  endpoint_url = http://s3/\n";
    assert_eq!(endpoint(&format!("{all}{services}")).as_deref(), Some("http://s3"));
    let of_sts = "[services mine]\ns3 =\nsts =\n  endpoint_url = http://sts\n";
    assert_eq!(endpoint(&format!("{all}{of_sts}")).as_deref(), Some("http://all"));
    assert_eq!(endpoint("[default]\ns3 =\n  endpoint_url = http://not-so\n"), None);
}
