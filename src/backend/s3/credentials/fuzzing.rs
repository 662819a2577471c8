//! What must hold of anything that is read as keys; see `crate::fuzzing`.

use std::path::{Path, PathBuf};

use super::Keys;
use super::handout::parse_handout;
use super::process::split_words;
use super::profile::{File, Profile, Way};
use super::sts::parse_answer;
use crate::config::AwsEnvironment;

const SOURCE: &str = "a source";

/// Profile files, commands, and the answers of programs, containers, instances and STS.
pub fn aws_credentials(data: &[u8]) {
    for version in [None, Some(1)] {
        if let Ok((keys, _)) = parse_handout(SOURCE, data, version) {
            check_keys(&keys);
        }
    }
    if let Ok((keys, expires)) = parse_answer(SOURCE, data) {
        check_keys(&keys);
        assert!(expires.is_some());
    }
    let Ok(text) = str::from_utf8(data) else { return };
    if let Some(words) = split_words(text) {
        let quote =
            |word: &String| format!("\"{}\"", word.replace('\\', "\\\\").replace('"', "\\\""));
        let again = words.iter().map(quote).collect::<Vec<_>>().join(" ");
        assert_eq!(split_words(&again), Some(words));
    }
    for name in [None, Some("p")] {
        check_profile(text, name);
    }
}

/// The text is both files.
fn check_profile(text: &str, name: Option<&str>) {
    let file = || File::parse(PathBuf::from("/profiles"), text).ok();
    let environment = AwsEnvironment {
        profile: name.map(str::to_owned),
        home: Some(PathBuf::from("/home")),
        ..AwsEnvironment::default()
    };
    let Ok(Some(profile)) = Profile::of_files(file(), file(), &environment) else { return };
    profile.defaults();
    match profile.way() {
        Ok(Way::Keys(keys)) => check_keys(&keys),
        Ok(Way::Process(command)) => assert!(!command.is_empty()),
        Ok(Way::WebIdentity(role)) => assert!(role.token_file != Path::new("")),
        Ok(Way::Nothing) | Err(_) => {}
    }
}

/// They can stand in a header.
fn check_keys(keys: &Keys) {
    let secret = keys.secret_access_key.expose();
    let token = keys.session_token.as_ref().map(|token| token.expose());
    for text in [&*keys.access_key_id, secret].into_iter().chain(token) {
        assert!(!text.is_empty() && text.bytes().all(|c| c.is_ascii_graphic()));
    }
}
