//! `credential_process`, with real programs.

use std::path::Path;
use std::time::Duration;

use super::support::{Chain, FUTURE, Fake, Home, generous};
use crate::config::S3Config;
use crate::error::ErrorKind;
use crate::time::Deadline;

/// A chain whose profile runs this script.
fn chain(home: &Home, script: &str) -> Chain {
    let path = home.write("a script", script);
    let command = format!("credential_process = sh \"{}\" 'first arg'", path.display());
    home.write(".aws/config", &format!("[default]\n{command}\n"));
    let silent = Fake::silent();
    Chain::new(&S3Config::new(), home.environment(), &silent, &silent)
}

#[test]
fn a_program_prints_keys() {
    let home = Home::new();
    let script = format!(
        r#"echo "a remark" >&2
echo '{{"Version": 1, "AccessKeyId": "ID", "SecretAccessKey": "K",'
echo "\"SessionToken\": \"$(echo "$1" | tr -d ' ')\", \"Expiration\": \"{FUTURE}\"}}""#
    );
    let keys = chain(&home, &script).keys().unwrap().unwrap();
    assert_eq!(keys.access_key_id, "ID");
    assert_eq!(keys.session_token.as_ref().unwrap().expose(), "firstarg");
}

#[test]
fn a_program_that_talks_much_is_read_to_its_end() {
    let home = Home::new();
    let script = "yes chatter | head -c 1000000 >&2\n\
                  echo '{\"Version\":1,\"AccessKeyId\":\"ID\",\"SecretAccessKey\":\"K\"}'";
    assert_eq!(chain(&home, script).keys().unwrap().unwrap().access_key_id, "ID");
}

#[test]
fn a_program_that_fails_is_quoted_briefly() {
    let home = Home::new();
    let error = chain(&home, "echo the session is over >&2; yes no | head -c 9999 >&2; exit 7")
        .keys()
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    let text = error.to_string();
    for needle in ["profile \"default\"", "sh", "exit status: 7", "the session is over"] {
        assert!(text.contains(needle), "{needle} missing in {text}");
    }
    assert!(text.len() < 1000, "{text}");
}

#[test]
fn answers_that_are_none_are_refused() {
    let home = Home::new();
    for script in [
        "true",
        "echo '{}'",
        "echo not json",
        "echo '{\"Version\":2,\"AccessKeyId\":\"ID\",\"SecretAccessKey\":\"K\"}'",
        "echo '{\"AccessKeyId\":\"ID\",\"SecretAccessKey\":\"K\"}'",
        "echo '{\"Version\":1,\"AccessKeyId\":\"ID\"}'",
        "echo '{\"Version\":1,\"AccessKeyId\":\"ID\",\"SecretAccessKey\":\"K\",\"Expiration\":\"?\"}'",
        "yes endless",
        "kill -9 $$",
    ] {
        let error = chain(&home, script).keys().unwrap_err();
        assert!(error.to_string().contains("credential_process"), "{script}: {error}");
        assert!(error.remedy().is_some(), "{script}: {error}");
    }
}

#[test]
fn a_program_that_is_not_there_is_told() {
    let home = Home::new();
    home.write(".aws/config", "[default]\ncredential_process = /absent/program x\n");
    let silent = Fake::silent();
    let error =
        Chain::new(&S3Config::new(), home.environment(), &silent, &silent).keys().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("/absent/program"), "{error}");
}

#[test]
fn a_program_that_hangs_is_ended_at_the_deadline() {
    let home = Home::new();
    let pid_file = home.path("pid");
    let script = format!("echo $$ > '{}'; exec sleep 600", pid_file.display());
    let chain = chain(&home, &script);
    let error = chain.chain.keys(&Deadline::after(Duration::from_millis(500))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert!(error.to_string().contains("does not end"), "{error}");
    let pid = std::fs::read_to_string(pid_file).unwrap();
    assert!(!Path::new(&format!("/proc/{}", pid.trim())).exists(), "the program lives on");
}

#[test]
fn a_program_that_leaves_another_behind_with_its_pipes_is_not_waited_for() {
    let home = Home::new();
    let pid_file = home.path("pid");
    let script = format!(
        "sleep 600 & echo $! > '{}'\n\
         echo '{{\"Version\":1,\"AccessKeyId\":\"ID\",\"SecretAccessKey\":\"K\"}}'",
        pid_file.display()
    );
    let found = chain(&home, &script).chain.keys(&generous());
    let pid: i32 = std::fs::read_to_string(pid_file).unwrap().trim().parse().unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGKILL).unwrap();
    assert_eq!(found.unwrap().unwrap().access_key_id, "ID");
}
