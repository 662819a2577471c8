//! Connection strings of Azure Storage: `Name=value` pairs, one after the other, parted by semicolons.

use crate::config::Secret;
use crate::config::http::{account_origin_problem, trim_origin};

/// The account of the emulators, and its key, which is public. Source: Microsoft Learn, "Connect to
/// Azurite".
const EMULATOR_ACCOUNT: &str = "devstoreaccount1";
const EMULATOR_KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
const EMULATOR_HOST: &str = "http://127.0.0.1";
const EMULATOR_PORT: u16 = 10000;

const SUFFIX_DEFAULT: &str = "core.windows.net";

/// What a connection string says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct ConnectionString {
    pub account: Option<String>,
    pub key: Option<Secret>,
    pub sas_token: Option<Secret>,
    /// The address of the account's blobs, checked.
    pub endpoint: Option<String>,
}

impl ConnectionString {
    /// Reads one. The error says what is wrong and quotes no value, since any may be a secret.
    pub fn parse(text: &str) -> Result<ConnectionString, String> {
        let mut pairs = Pairs::default();
        for piece in text.split(';').map(str::trim).filter(|piece| !piece.is_empty()) {
            let Some((name, value)) = piece.split_once('=') else {
                return Err("has a piece that is no Name=value".to_owned());
            };
            pairs.set(name.trim(), value.trim())?;
        }
        pairs.finish()
    }
}

/// The pairs that say something of blobs.
#[derive(Default)]
struct Pairs<'a> {
    account: Option<&'a str>,
    key: Option<&'a str>,
    sas_token: Option<&'a str>,
    blob_endpoint: Option<&'a str>,
    protocol: Option<&'a str>,
    suffix: Option<&'a str>,
    emulator: bool,
    emulator_host: Option<&'a str>,
}

impl<'a> Pairs<'a> {
    fn set(&mut self, name: &str, value: &'a str) -> Result<(), String> {
        let slot = match name.to_ascii_lowercase().as_str() {
            "accountname" => &mut self.account,
            "accountkey" => &mut self.key,
            "sharedaccesssignature" => &mut self.sas_token,
            "blobendpoint" => &mut self.blob_endpoint,
            "defaultendpointsprotocol" => &mut self.protocol,
            "endpointsuffix" => &mut self.suffix,
            "developmentstorageproxyuri" => &mut self.emulator_host,
            "usedevelopmentstorage" => {
                self.emulator = value.eq_ignore_ascii_case("true");
                return match self.emulator {
                    true => Ok(()),
                    false => Err("has a UseDevelopmentStorage that is not true".to_owned()),
                };
            }
            // Of other services, or of a later day.
            _ => return Ok(()),
        };
        if value.is_empty() {
            return Err("has an empty value".to_owned());
        }
        match slot.replace(value) {
            None => Ok(()),
            Some(_) => Err("says the same thing twice".to_owned()),
        }
    }

    fn finish(self) -> Result<ConnectionString, String> {
        if self.emulator {
            return self.finish_emulator();
        }
        if self.key.is_some() && self.account.is_none() {
            return Err("has AccountKey and no AccountName".to_owned());
        }
        if self.key.is_none() && self.sas_token.is_none() {
            return Err("has neither AccountKey nor SharedAccessSignature".to_owned());
        }
        let endpoint = match (self.blob_endpoint, self.account) {
            (Some(url), _) => match account_origin_problem(url) {
                None => Some(trim_origin(url)),
                Some(problem) => return Err(format!("has a BlobEndpoint that {problem}")),
            },
            (None, Some(account)) => Some(self.made_endpoint(account)?),
            (None, None) => return Err("has neither AccountName nor BlobEndpoint".to_owned()),
        };
        Ok(ConnectionString {
            account: self.account.map(str::to_owned),
            key: self.key.map(Secret::new),
            sas_token: self.sas_token.map(Secret::new),
            endpoint,
        })
    }

    fn made_endpoint(&self, account: &str) -> Result<String, String> {
        let protocol = self.protocol.unwrap_or("https").to_ascii_lowercase();
        let suffix = self.suffix.unwrap_or(SUFFIX_DEFAULT);
        let plain = |c: u8| c.is_ascii_alphanumeric() || b".-:".contains(&c);
        let url = format!("{protocol}://{account}.blob.{suffix}");
        if [account, suffix].iter().all(|text| text.bytes().all(plain))
            && account_origin_problem(&url).is_none()
        {
            return Ok(url);
        }
        let names = "AccountName, EndpointSuffix and DefaultEndpointsProtocol";
        Err(format!("has {names} that make no address"))
    }

    fn finish_emulator(self) -> Result<ConnectionString, String> {
        if self.key.is_some() || self.sas_token.is_some() || self.blob_endpoint.is_some() {
            return Err("has UseDevelopmentStorage beside what says otherwise".to_owned());
        }
        let host = self.emulator_host.map_or(EMULATOR_HOST, |url| url.trim_end_matches('/'));
        let url = format!("{host}:{EMULATOR_PORT}/{EMULATOR_ACCOUNT}");
        if account_origin_problem(&url).is_some() {
            return Err("has a DevelopmentStorageProxyUri that is not http[s]://host".to_owned());
        }
        Ok(ConnectionString {
            account: Some(EMULATOR_ACCOUNT.to_owned()),
            key: Some(Secret::new(EMULATOR_KEY)),
            sas_token: None,
            endpoint: Some(url),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn exposed(secret: &Option<Secret>) -> Option<&str> {
        secret.as_ref().map(Secret::expose)
    }

    #[test]
    fn what_the_portal_gives_is_read() {
        let text = "DefaultEndpointsProtocol=https;AccountName=acct;AccountKey=a/b+c==;\
                    EndpointSuffix=core.windows.net;QueueEndpoint=https://q";
        let parsed = ConnectionString::parse(text).unwrap();
        assert_eq!(parsed.account.as_deref(), Some("acct"));
        assert_eq!(exposed(&parsed.key), Some("a/b+c=="));
        assert_eq!(parsed.endpoint.as_deref(), Some("https://acct.blob.core.windows.net"));
        let text = " blobendpoint = http://h:1/acct/ ;; SharedAccessSignature=sv=1&sig=x%3D ; ";
        let parsed = ConnectionString::parse(text).unwrap();
        assert_eq!((parsed.account, parsed.key), (None, None));
        assert_eq!(exposed(&parsed.sas_token), Some("sv=1&sig=x%3D"));
        assert_eq!(parsed.endpoint.as_deref(), Some("http://h:1/acct"));
    }

    #[test]
    fn the_emulator_is_meant_by_one_word() {
        for (text, endpoint) in [
            ("UseDevelopmentStorage=true", "http://127.0.0.1:10000/devstoreaccount1"),
            (
                "UseDevelopmentStorage=True;DevelopmentStorageProxyUri=https://host/",
                "https://host:10000/devstoreaccount1",
            ),
        ] {
            let parsed = ConnectionString::parse(text).unwrap();
            assert_eq!(parsed.endpoint.as_deref(), Some(endpoint));
            assert_eq!(parsed.account.as_deref(), Some(EMULATOR_ACCOUNT));
            assert_eq!(exposed(&parsed.key), Some(EMULATOR_KEY));
        }
    }

    #[test]
    fn what_does_not_lead_to_an_account_is_refused() {
        for (text, problem) in [
            ("", "neither AccountKey nor SharedAccessSignature"),
            ("AccountName=a", "neither AccountKey nor SharedAccessSignature"),
            ("AccountKey=k", "no AccountName"),
            ("SharedAccessSignature=sig=x", "neither AccountName nor BlobEndpoint"),
            ("hunter2", "no Name=value"),
            ("AccountName=;AccountKey=hunter2", "empty"),
            ("AccountName=a;AccountKey=hunter2;accountkey=k", "twice"),
            ("AccountName=a/hunter2;AccountKey=k", "no address"),
            ("AccountName=a;AccountKey=k;EndpointSuffix=x/hunter2", "no address"),
            ("AccountName=a;AccountKey=k;DefaultEndpointsProtocol=ftp", "no address"),
            ("AccountName=a;AccountKey=k;BlobEndpoint=https://u:hunter2@h", "user or password"),
            ("AccountName=a;AccountKey=k;BlobEndpoint=https://h/a/b", "no account's name"),
            ("AccountName=a;AccountKey=k;BlobEndpoint=https://h/?sig=hunter2", "query"),
            ("UseDevelopmentStorage=hunter2", "not true"),
            ("UseDevelopmentStorage=true;AccountKey=hunter2", "says otherwise"),
            (
                "UseDevelopmentStorage=true;DevelopmentStorageProxyUri=hunter2",
                "DevelopmentStorageProxyUri",
            ),
            (
                "UseDevelopmentStorage=true;DevelopmentStorageProxyUri=http://h:1",
                "DevelopmentStorageProxyUri",
            ),
        ] {
            let found = ConnectionString::parse(text).unwrap_err();
            assert!(found.contains(problem), "{text}: {found}");
            assert!(!found.contains("hunter2"), "{found}");
        }
    }

    proptest! {
        #[test]
        fn garbage_is_read_or_refused_and_not_quoted(text in "((AccountName|AccountKey|BlobEndpoint|\
            SharedAccessSignature|UseDevelopmentStorage|EndpointSuffix|x)=(hunter2|true|https?://[ah/:@?]*)?;?){0,5}")
        {
            let shown = format!("{:?}", ConnectionString::parse(&text).map(|parsed| parsed.key));
            prop_assert!(!shown.contains("hunter2"), "{}", shown);
        }
    }
}
