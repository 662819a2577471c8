//! What the environment sets, what wins over it, and what cannot be used.

use std::collections::HashMap;

use super::*;
use crate::config::{Config, Server};
use crate::error::ErrorKind;

fn with(variables: &[(&str, &str)]) -> Result<ConfigBuilder> {
    with_onto(Config::builder(), variables)
}

fn with_onto(builder: ConfigBuilder, variables: &[(&str, &str)]) -> Result<ConfigBuilder> {
    let table: HashMap<&str, &str> = variables.iter().copied().collect();
    builder.env_from(&|name| table.get(name).map(OsString::from))
}

fn aws(config: &Config) -> AwsEnvironment {
    config.s3.environment.clone().unwrap()
}

fn exposed(secret: Option<&Secret>) -> Option<&str> {
    secret.map(Secret::expose)
}

#[test]
fn explicit_settings_win_in_whatever_order() {
    let variables = [
        ("AWS_REGION", "eu-west-1"),
        ("AWS_ENDPOINT_URL", "http://environment:9000/"),
        ("SYNCLINE_S3_INTEGRITY", "sha256"),
        ("SYNCLINE_S3_CREATE_ONLY", "warn"),
        ("SYNCLINE_S3_PATH_STYLE", "false"),
        ("SYNCLINE_S3_ANONYMOUS", "true"),
        ("HTTPS_PROXY", "http://environment:1"),
        ("AWS_CA_BUNDLE", "/environment.pem"),
        ("NO_PROXY", "environment"),
    ];
    let s3 = || S3Config::new().region("us-west-2").integrity(S3Integrity::Auto).anonymous(false);
    let http = || HttpConfig::new().ca_file("/explicit.pem");
    let before = with_onto(Config::builder().s3(s3()).http(http()), &variables).unwrap();
    let after = with(&variables).unwrap().s3(s3()).http(http());
    let (before, after) = (before.build().unwrap(), after.build().unwrap());
    assert_eq!(before, after);
    assert_eq!(before.s3.region.as_deref(), Some("us-west-2"));
    assert_eq!(before.s3.integrity, Some(S3Integrity::Auto));
    assert_eq!(before.s3.anonymous, Some(false));
    assert_eq!(before.http.ca_file, Some("/explicit.pem".into()));
    // What was not said stays the environment's.
    assert_eq!(before.s3.endpoint.as_deref(), Some("http://environment:9000"));
    assert_eq!(before.s3.create_only, Some(CreateOnlyPolicy::Warn));
    assert_eq!(before.s3.path_style, Some(false));
    assert_eq!(exposed(before.http.proxy_for(true)), Some("http://environment:1"));
    assert_eq!(before.http.no_proxy.as_deref(), Some("environment"));
}

#[test]
fn keys_that_were_given_are_used_whatever_the_environment_says() {
    let s3 = S3Config::new().credentials("id", "key", None);
    let config = with(&[("SYNCLINE_S3_ANONYMOUS", "true")]).unwrap().s3(s3).build().unwrap();
    assert_eq!(config.s3.anonymous, Some(false));
}

#[test]
fn our_own_variables_are_checked_at_once() {
    for name in [
        "SYNCLINE_IO_THREADS",
        "SYNCLINE_S3_INTEGRITY",
        "SYNCLINE_S3_CREATE_ONLY",
        "SYNCLINE_S3_PATH_STYLE",
        "SYNCLINE_S3_ANONYMOUS",
    ] {
        for bad in ["", "Auto ", "maybe"] {
            let error = with(&[(name, bad)]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.to_string().contains(name), "{error}");
        }
    }
}

#[test]
fn unusable_variables_of_others_stop_servers_only_and_are_not_quoted() {
    for (name, bad) in [
        ("AWS_ENDPOINT_URL_S3", "http://u:hunter2@host"),
        ("AWS_ENDPOINT_URL", "hunter2://host"),
        ("AWS_ENDPOINT_URL_STS", "https://host/hunter2"),
        ("AWS_EC2_METADATA_SERVICE_ENDPOINT", "hunter2"),
        ("AWS_REGION", "hunter2.example.org/"),
        ("HTTPS_PROXY", "socks5://u:hunter2@host"),
        ("http_proxy", "http://u:hunter2@host/path"),
        ("ALL_PROXY", "http://u:hunter2@"),
    ] {
        let config = with(&[(name, bad)]).unwrap().build().unwrap();
        let error = config.check_servers(Server::S3).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains(name), "{error}");
        assert!(!format!("{error} {error:?} {config:?}").contains("hunter2"), "{error}");
    }
    assert!(
        with(&[("AWS_REGION", "")]).unwrap().build().unwrap().check_servers(Server::S3).is_ok()
    );
}

#[test]
fn what_is_meant_for_one_kind_of_server_does_not_stop_the_other() {
    use Server::{Azure, S3};
    for (name, stopped, open) in [
        ("AWS_ENDPOINT_URL", S3, Azure),
        ("AWS_EC2_METADATA_SERVICE_ENDPOINT", S3, Azure),
        ("AZURE_STORAGE_CONNECTION_STRING", Azure, S3),
        ("AZURE_AUTHORITY_HOST", Azure, S3),
        ("AZURE_POD_IDENTITY_AUTHORITY_HOST", Azure, S3),
    ] {
        let config = with(&[(name, "b a d")]).unwrap().build().unwrap();
        assert!(config.check_servers(stopped).is_err(), "{name}");
        assert!(config.check_servers(open).is_ok(), "{name}");
    }
    let config = with(&[("HTTPS_PROXY", "socks5://x")]).unwrap().build().unwrap();
    assert!(config.check_servers(S3).is_err() && config.check_servers(Azure).is_err());
}

#[test]
fn what_is_overridden_need_not_be_usable() {
    let variables =
        [("AWS_ENDPOINT_URL", "bad"), ("AWS_REGION", "b a d"), ("HTTPS_PROXY", "socks5://x")];
    let s3 = S3Config::new().endpoint("http://host:1").region("here");
    let builder = with(&variables).unwrap().s3(s3);
    assert!(builder.clone().build().unwrap().check_servers(Server::S3).is_err());
    let config = builder.http(HttpConfig::new().proxy("http://proxy")).build().unwrap();
    assert!(config.check_servers(Server::S3).is_ok());
}

#[test]
fn explicit_addresses_are_checked_at_build_and_not_quoted() {
    for bad in [
        "",
        "host",
        "host:9000",
        "ftp://host",
        "http://",
        "http://:80",
        "http://host:port",
        "http://host:99999",
        "http://host/path",
        "http://host/?query",
        "http://host#part",
        "http://us er",
        "http://u:hunter2@host",
    ] {
        let error = Config::builder().s3(S3Config::new().endpoint(bad)).build().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{bad}");
        assert!(error.to_string().contains("endpoint"), "{error}");
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
    for good in
        ["http://h", "https://h:9000", "http://h:9000/", "http://[::1]:80", "http://1.2.3.4"]
    {
        let config = Config::builder().s3(S3Config::new().endpoint(good)).build().unwrap();
        assert_eq!(config.s3.endpoint.as_deref(), Some(good.trim_end_matches('/')));
    }
    let bad = HttpConfig::new().proxy("http://u:hunter2@host/x").attempts_max(0);
    let error = Config::builder().http(bad).s3(S3Config::new().region("")).build().unwrap_err();
    for needle in ["proxy", "attempts_max", "region"] {
        assert!(error.to_string().contains(needle), "{error}");
    }
    assert!(!error.to_string().contains("hunter2"), "{error}");
}

#[test]
fn the_more_particular_variable_wins() {
    let config = with(&[
        ("AWS_ENDPOINT_URL_S3", "http://s3"),
        ("AWS_ENDPOINT_URL", "http://all"),
        ("AWS_REGION", "r1"),
        ("AWS_DEFAULT_REGION", "r2"),
    ]);
    let config = config.unwrap().build().unwrap();
    assert_eq!(config.s3.endpoint.as_deref(), Some("http://s3"));
    assert_eq!(config.s3.region.as_deref(), Some("r1"));
    assert_eq!(aws(&config).sts_endpoint.as_deref(), Some("http://all"));
}

#[test]
fn proxies_by_scheme_of_the_server() {
    let proxies = |variables: &[(&str, &str)]| {
        let http = with(variables).unwrap().build().unwrap().http;
        [true, false].map(|https| exposed(http.proxy_for(https)).map(str::to_owned))
    };
    let proxy = |text: &str| Some(text.to_owned());
    assert_eq!(proxies(&[("HTTPS_PROXY", "http://a:1")]), [proxy("http://a:1"), None]);
    assert_eq!(proxies(&[("http_proxy", "a:1")]), [None, proxy("http://a:1")]);
    assert_eq!(proxies(&[("HTTP_PROXY", "http://a:1")]), [None, None]);
    assert_eq!(proxies(&[("ALL_PROXY", "http://a:1")]), [proxy("http://a:1"), proxy("http://a:1")]);
    let both = proxies(&[("ALL_PROXY", "http://a:1"), ("https_proxy", "https://u:p@b")]);
    assert_eq!(both, [proxy("https://u:p@b"), proxy("http://a:1")]);
}

#[test]
fn all_of_aws_is_captured_and_secrets_do_not_show() {
    let config = with(&[
        ("AWS_ACCESS_KEY_ID", "id"),
        ("AWS_SECRET_ACCESS_KEY", "hunter2-key"),
        ("AWS_SESSION_TOKEN", "hunter2-token"),
        ("AWS_PROFILE", "p"),
        ("AWS_SHARED_CREDENTIALS_FILE", "/c"),
        ("AWS_CONFIG_FILE", "/f"),
        ("HOME", "/h"),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", "/t"),
        ("AWS_ROLE_ARN", "arn"),
        ("AWS_ROLE_SESSION_NAME", "n"),
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://localhost/hunter2"),
        ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/hunter2"),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "hunter2"),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "/a"),
        ("AWS_EC2_METADATA_DISABLED", "TRUE"),
        ("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://[::1]:1338/"),
        ("HTTPS_PROXY", "http://u:hunter2@proxy"),
    ]);
    let config = config.unwrap().build().unwrap();
    assert!(config.check_servers(Server::S3).is_ok());
    let keys = StaticCredentials {
        access_key_id: "id".to_owned(),
        secret_access_key: Secret::new("hunter2-key"),
        session_token: Some(Secret::new("hunter2-token")),
    };
    let expected = AwsEnvironment {
        credentials: Some(keys),
        credentials_lack: None,
        profile: Some("p".to_owned()),
        credentials_file: Some("/c".into()),
        config_file: Some("/f".into()),
        home: Some("/h".into()),
        sts_endpoint: None,
        web_identity_token_file: Some("/t".into()),
        role_arn: Some("arn".to_owned()),
        role_session_name: Some("n".to_owned()),
        container: ContainerEnvironment {
            full_uri: Some(Secret::new("http://localhost/hunter2")),
            relative_uri: Some(Secret::new("/hunter2")),
            token: Some(Secret::new("hunter2")),
            token_file: Some("/a".into()),
        },
        metadata_disabled: true,
        metadata_endpoint: Some("http://[::1]:1338".to_owned()),
    };
    assert_eq!(aws(&config), expected);
    assert!(!format!("{config:?}").contains("hunter2"));
}

#[test]
fn half_a_pair_of_keys_is_remembered_as_such() {
    for (given, lacking) in [
        ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
        ("AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID"),
    ] {
        let config = with(&[(given, "x")]).unwrap().build().unwrap();
        assert_eq!(aws(&config).credentials, None);
        assert_eq!(aws(&config).credentials_lack, Some(lacking));
    }
}

fn azure(config: &Config) -> AzureEnvironment {
    config.azure.environment.clone().unwrap()
}

#[test]
fn explicit_settings_of_azure_win_in_whatever_order() {
    let variables = [
        ("AZURE_STORAGE_BLOB_ENDPOINT", "http://environment:1/acct/"),
        ("AZURE_STORAGE_ENDPOINT", "http://less-particular"),
        ("SYNCLINE_AZ_INTEGRITY", "md5"),
        ("SYNCLINE_AZ_ANONYMOUS", "true"),
    ];
    let explicit = || AzureConfig::new().account_key("key").integrity(AzureIntegrity::Crc64);
    let before = with_onto(Config::builder().azure(explicit()), &variables).unwrap();
    let after = with(&variables).unwrap().azure(explicit());
    let (before, after) = (before.build().unwrap(), after.build().unwrap());
    assert_eq!(before, after);
    assert_eq!(before.azure.integrity, Some(AzureIntegrity::Crc64));
    // Credentials that were given are meant to be used.
    assert_eq!(before.azure.anonymous, Some(false));
    assert_eq!(before.azure.endpoint.as_deref(), Some("http://environment:1/acct"));
    let alone = with(&variables).unwrap().build().unwrap();
    assert_eq!(alone.azure.integrity, Some(AzureIntegrity::Md5));
    assert_eq!(alone.azure.anonymous, Some(true));
    // A connection string that names its endpoint means it.
    let connection = "AccountName=acct;AccountKey=key";
    let azure = AzureConfig::new().connection_string(connection);
    assert_eq!(with(&variables).unwrap().azure(azure).build().unwrap().azure.endpoint, None);
}

#[test]
fn all_of_azure_is_captured_and_secrets_do_not_show() {
    let config = with(&[
        ("AZURE_STORAGE_CONNECTION_STRING", "AccountName=acct;AccountKey=hunter2"),
        ("AZURE_STORAGE_ACCOUNT", "acct"),
        ("AZURE_STORAGE_KEY", "hunter2-key"),
        ("AZURE_STORAGE_SAS_TOKEN", "sig=hunter2"),
        ("AZURE_TENANT_ID", "tenant"),
        ("AZURE_CLIENT_ID", "client"),
        ("AZURE_CLIENT_SECRET", "hunter2-secret"),
        ("AZURE_FEDERATED_TOKEN_FILE", "/t"),
        ("AZURE_AUTHORITY_HOST", "login.example.org/"),
        ("IDENTITY_ENDPOINT", "http://localhost/hunter2"),
        ("IDENTITY_HEADER", "hunter2-header"),
        ("AZURE_POD_IDENTITY_AUTHORITY_HOST", "http://[::1]:1338/"),
    ]);
    let config = config.unwrap().build().unwrap();
    assert!(config.check_servers(Server::S3).is_ok());
    let connection = ConnectionString {
        account: Some("acct".to_owned()),
        key: Some(Secret::new("hunter2")),
        sas_token: None,
        endpoint: Some("https://acct.blob.core.windows.net".to_owned()),
    };
    let expected = AzureEnvironment {
        connection_string: Some(connection),
        account: Some("acct".to_owned()),
        key: Some(Secret::new("hunter2-key")),
        sas_token: Some(Secret::new("sig=hunter2")),
        tenant_id: Some("tenant".to_owned()),
        client_id: Some("client".to_owned()),
        client_secret: Some(Secret::new("hunter2-secret")),
        federated_token_file: Some("/t".into()),
        authority: Some("https://login.example.org".to_owned()),
        identity_endpoint: Some(Secret::new("http://localhost/hunter2")),
        identity_header: Some(Secret::new("hunter2-header")),
        metadata_endpoint: Some("http://[::1]:1338".to_owned()),
    };
    assert_eq!(azure(&config), expected);
    assert!(!format!("{config:?}").contains("hunter2"));
}

#[test]
fn unusable_settings_of_azure_are_told_and_not_quoted() {
    for (name, bad) in [
        ("AZURE_STORAGE_BLOB_ENDPOINT", "http://u:hunter2@host"),
        ("AZURE_STORAGE_ENDPOINT", "http://host/acct/hunter2"),
        ("AZURE_STORAGE_CONNECTION_STRING", "AccountKey=hunter2"),
        ("AZURE_AUTHORITY_HOST", "http://hunter2"),
        ("AZURE_POD_IDENTITY_AUTHORITY_HOST", "hunter2"),
    ] {
        let config = with(&[(name, bad)]).unwrap().build().unwrap();
        let error = config.check_servers(Server::Azure).unwrap_err();
        assert!(error.to_string().contains(name), "{error}");
        assert!(!format!("{error} {error:?} {config:?}").contains("hunter2"), "{error}");
    }
    let bad = [("AZURE_STORAGE_ENDPOINT", "bad"), ("AZURE_STORAGE_CONNECTION_STRING", "bad")];
    let endpoint = AzureConfig::new().endpoint("https://host");
    for azure in [endpoint.clone().sas_token("sig=x"), endpoint.anonymous(true)] {
        let config = with(&bad).unwrap().azure(azure).build().unwrap();
        assert!(config.check_servers(Server::Azure).is_ok());
    }
    for name in ["SYNCLINE_AZ_INTEGRITY", "SYNCLINE_AZ_ANONYMOUS"] {
        for bad in ["", "Auto ", "sha256"] {
            assert!(with(&[(name, bad)]).unwrap_err().to_string().contains(name));
        }
    }
}

#[test]
fn explicit_settings_of_azure_are_checked_at_build() {
    let new = AzureConfig::new;
    for (azure, problem) in [
        (new().endpoint("hunter2"), "endpoint"),
        (new().endpoint("https://h/a/b"), "endpoint"),
        (new().account_key(""), "account_key is empty"),
        (new().sas_token(""), "sas_token is empty"),
        (new().bearer_token(""), "bearer_token is empty"),
        (new().client_secret("", "c", "s"), "client_secret is empty"),
        (new().connection_string("AccountKey=hunter2"), "connection_string has"),
        (new().account_key("hunter2").sas_token("hunter2"), "account_key and sas_token"),
        (new().account_key("hunter2").anonymous(true), "anonymous"),
    ] {
        let error = Config::builder().azure(azure).build().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains(problem), "{error}");
        assert!(!format!("{error:?}").contains("hunter2"), "{error}");
    }
    let twice = new().account_key("a").account_key("b").endpoint("https://h/acct/");
    let config = Config::builder().azure(twice).build().unwrap();
    assert_eq!(config.azure.credentials.len(), 1);
    assert_eq!(config.azure.endpoint.as_deref(), Some("https://h/acct"));
}
