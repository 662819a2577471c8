//! The profile files: `~/.aws/credentials` and `~/.aws/config`.

use std::path::{Path, PathBuf};

use ini::{Ini, ParseOption};

use super::Keys;
use super::sts::WebIdentity;
use crate::backend::http::{OPERATION, file_error};
use crate::config::{AwsEnvironment, trim_origin};
use crate::error::{Error, ErrorKind, Result};

/// One profile, of both files. Without `Debug`: it holds secrets.
pub(super) struct Profile {
    title: String,
    /// The first one that has a setting counts: that of the credentials file.
    sections: Vec<Section>,
    /// The section that the profile's `services` names.
    services: Option<Section>,
    home: Option<PathBuf>,
}

/// How a profile leads to keys.
pub(super) enum Way {
    Keys(Keys),
    /// A command that prints them.
    Process(String),
    WebIdentity(WebIdentity),
    Nothing,
}

/// What a profile says beside keys.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Defaults {
    pub region: Option<String>,
    pub endpoint: Option<String>,
}

impl Profile {
    /// Reads the profile that the environment names, or the default one.
    ///
    /// # Errors
    /// A file that cannot be read, or a profile that was named and is in neither file.
    pub fn load(environment: &AwsEnvironment) -> Result<Option<Profile>> {
        let home = environment.home.as_deref();
        let path = |given: &Option<PathBuf>, usual: &str| match given {
            Some(path) => Some(expand(path, home)),
            None => home.map(|home| home.join(usual)),
        };
        let credentials = File::read(path(&environment.credentials_file, ".aws/credentials"))?;
        let config = File::read(path(&environment.config_file, ".aws/config"))?;
        Profile::of_files(credentials, config, environment)
    }

    /// The profile that the environment names, or the default one, among these files.
    pub fn of_files(
        credentials: Option<File>,
        config: Option<File>,
        environment: &AwsEnvironment,
    ) -> Result<Option<Profile>> {
        let name = environment.profile.as_deref().unwrap_or("default");
        let of_config = |name: &str| {
            let file = config.as_ref()?;
            let bare = || (name == "default").then(|| file.section(name)).flatten();
            file.section(&format!("profile {name}")).or_else(bare)
        };
        let of_credentials = credentials.as_ref().and_then(|file| file.section(name));
        let sections: Vec<Section> =
            [of_credentials, of_config(name)].into_iter().flatten().collect();
        if sections.is_empty() {
            return match &environment.profile {
                Some(name) => Err(missing(name, &[&credentials, &config])),
                None => Ok(None),
            };
        }
        let mut profile = Profile {
            title: format!("profile {name:?}"),
            sections,
            services: None,
            home: environment.home.clone(),
        };
        let services = profile.get("services").map(|name| format!("services {name}"));
        profile.services = services.and_then(|name| config.as_ref()?.section(&name));
        Ok(Some(profile))
    }

    /// The profile, as errors name it.
    pub fn title(&self) -> &str {
        &self.title
    }

    fn get(&self, key: &str) -> Option<&str> {
        self.sections.iter().find_map(|section| section.get(key))
    }

    pub fn defaults(&self) -> Defaults {
        let of_s3 = self.services.as_ref().and_then(|section| section.nested("s3", "endpoint_url"));
        Defaults {
            region: self.get("region").map(str::to_owned),
            endpoint: of_s3.or_else(|| self.get("endpoint_url")).map(trim_origin),
        }
    }

    /// How to come by this profile's keys.
    ///
    /// # Errors
    /// `Unsupported` for ways that this crate does not go, `InvalidInput` for half a pair of keys.
    pub fn way(&self) -> Result<Way> {
        if let Some(role_arn) = self.get("role_arn") {
            if let Some(token_file) = self.get("web_identity_token_file") {
                return Ok(Way::WebIdentity(WebIdentity {
                    token_file: expand(Path::new(token_file), self.home.as_deref()),
                    role_arn: role_arn.to_owned(),
                    session_name: self.get("role_session_name").map(str::to_owned),
                }));
            }
            for key in ["source_profile", "credential_source"] {
                if self.get(key).is_some() {
                    return Err(self.unsupported(&format!("role_arn with {key}")));
                }
            }
        }
        for section in &self.sections {
            if let Some(keys) = self.keys_of(section)? {
                return Ok(Way::Keys(keys));
            }
        }
        if let Some(command) = self.get("credential_process") {
            return Ok(Way::Process(command.to_owned()));
        }
        for key in ["sso_session", "sso_start_url", "sso_account_id", "login_session"] {
            if self.get(key).is_some() {
                return Err(self.unsupported(key));
            }
        }
        Ok(Way::Nothing)
    }

    /// The keys in one file's section; those of two files are never mixed.
    fn keys_of(&self, section: &Section) -> Result<Option<Keys>> {
        const ID: &str = "aws_access_key_id";
        const KEY: &str = "aws_secret_access_key";
        let source = format!("{} in {}", self.title, section.path.display());
        let lacking = match (section.get(ID), section.get(KEY)) {
            (Some(id), Some(key)) => {
                let token = section.get("aws_session_token");
                return Keys::new(&source, id, key, token).map(Some);
            }
            (None, None) => return Ok(None),
            (None, Some(_)) => ID,
            (Some(_), None) => KEY,
        };
        Err(Error::invalid(OPERATION, format!("{source} has no {lacking}")))
    }

    fn unsupported(&self, what: &str) -> Error {
        let what = format!("{}: {what} is not supported", self.title);
        Error::new(ErrorKind::Unsupported, OPERATION, what).with_remedy(
            "give the profile a credential_process, for example `aws configure export-credentials \
             --profile NAME` in another profile, or export its keys into the environment",
        )
    }
}

/// A path as these files write it: `~/` is the home.
fn expand(path: &Path, home: Option<&Path>) -> PathBuf {
    match (path.strip_prefix("~"), home) {
        (Ok(rest), Some(home)) => home.join(rest),
        _ => path.to_owned(),
    }
}

fn missing(name: &str, files: &[&Option<File>]) -> Error {
    let files = files.iter().filter_map(|file| file.as_ref());
    let mut known: Vec<String> = files.flat_map(File::profiles).collect();
    known.sort();
    known.dedup();
    let remedy = match known.len() {
        0 => "there is no profile file, see AWS_CONFIG_FILE and HOME".to_owned(),
        _ => format!("set AWS_PROFILE to one of: {}", known.join(", ")),
    };
    let what = format!("profile {name:?}, which AWS_PROFILE names, is in no profile file");
    Error::invalid(OPERATION, what).with_remedy(remedy)
}

/// One file, section by section.
pub(super) struct File {
    sections: Vec<(String, Section)>,
}

/// One section's settings, in the order of the file.
#[derive(Clone)]
struct Section {
    path: PathBuf,
    entries: Vec<Entry>,
}

#[derive(Clone)]
struct Entry {
    indent: usize,
    key: String,
    value: String,
    /// Lines below that are indented further.
    nested: Vec<(String, String)>,
}

impl File {
    /// `None` where there is no such file.
    fn read(path: Option<PathBuf>) -> Result<Option<File>> {
        let Some(path) = path else { return Ok(None) };
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) => {
                use std::io::ErrorKind::{NotADirectory, NotFound};
                return match error.kind() {
                    NotFound | NotADirectory => Ok(None),
                    _ => Err(file_error("profile files", &path, error)),
                };
            }
        };
        File::parse(path, &text).map(Some)
    }

    pub fn parse(path: PathBuf, text: &str) -> Result<File> {
        let options = ParseOption {
            enabled_quote: false,
            enabled_escape: false,
            enabled_preserve_key_leading_whitespace: true,
            ..ParseOption::default()
        };
        let bad = |what: String| {
            let what = format!("profile files: {}: {what}", path.display());
            Error::invalid(OPERATION, what)
        };
        // The parser's own words may quote what it read.
        let ini = Ini::load_from_str_opt(&plain(text), options)
            .map_err(|error| bad(format!("line {} is not understood", error.line)))?;
        let mut sections = Vec::new();
        for (name, properties) in ini.iter() {
            let Some(name) = name else { continue };
            let name = name.replace(['"', '\''], " ");
            let name = name.split_whitespace().collect::<Vec<_>>().join(" ");
            let mut section = Section { path: path.clone(), entries: Vec::new() };
            for (key, value) in properties.iter() {
                if key.contains('\n') {
                    return Err(bad(format!("a line of section {name:?} has no `=`")));
                }
                section.push(key, value);
            }
            sections.push((name, section));
        }
        Ok(File { sections })
    }

    /// All settings of the sections of this name, the last of each counting.
    fn section(&self, name: &str) -> Option<Section> {
        let mut all = self.sections.iter().filter(|(known, _)| known == name);
        let mut section = all.next()?.1.clone();
        section.entries.extend(all.flat_map(|(_, more)| more.entries.clone()));
        Some(section)
    }

    fn profiles(&self) -> impl Iterator<Item = String> {
        let foreign = ["services ", "sso-session "];
        let names = self.sections.iter().map(|(name, _)| name);
        names
            .filter(move |name| !foreign.iter().any(|start| name.starts_with(start)))
            .map(|name| name.strip_prefix("profile ").unwrap_or(name).to_owned())
    }
}

/// The text without what the parser sees otherwise than AWS's programs: comments that are indented or follow
/// a section's name, and a backslash that ends a line. The lines keep their numbers.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len() + 1);
    for line in text.trim_start_matches('\u{feff}').lines() {
        let start = line.trim_start();
        match start.find(']').filter(|_| start.starts_with('[')) {
            Some(end) => plain.push_str(&start[..=end]),
            None if start.starts_with(['#', ';']) => {}
            None => {
                plain.push_str(line.trim_end());
                // The parser would join the next line; it drops a space.
                plain.push_str(if plain.ends_with('\\') { " " } else { "" });
            }
        }
        plain.push('\n');
    }
    plain
}

impl Section {
    fn push(&mut self, key: &str, value: &str) {
        let name = key.trim_start();
        let indent = key.len() - name.len();
        let (name, value) = (name.to_ascii_lowercase(), value.to_owned());
        match self.entries.last_mut() {
            Some(above) if indent > above.indent => above.nested.push((name, value)),
            _ => self.entries.push(Entry { indent, key: name, value, nested: Vec::new() }),
        }
    }

    /// A setting that is there and not empty.
    fn get(&self, key: &str) -> Option<&str> {
        let entry = self.entries.iter().rev().find(|entry| entry.key == key)?;
        (!entry.value.is_empty()).then_some(&*entry.value)
    }

    fn nested(&self, outer: &str, key: &str) -> Option<&str> {
        let entry = self.entries.iter().rev().find(|entry| entry.key == outer)?;
        let (_, value) = entry.nested.iter().rev().find(|(name, _)| name == key)?;
        (!value.is_empty()).then_some(value)
    }
}
