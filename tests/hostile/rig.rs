//! A store of either kind on a server that answers by a script, and all that can be asked of it.

use std::error::Error as _;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use syncline::{
    AzureConfig, Config, ConfigBuilder, Error, ErrorKind, HttpConfig, ObjectStore, Result,
    S3Config, open_store,
};

use crate::data::noise;
use crate::peak;
use crate::scripted::{Request, Server, Step};

/// The least that S3 takes as a part.
pub const PART: usize = 5 << 20;

/// In `secrets.txt`.
pub const SECRET_KEY: &str = "secret-key-of-the-tests";
const SESSION_TOKEN: &str = "session-token-of-the-tests";
const ACCOUNT_KEY: &str = "aG9zdGlsZS1hY2NvdW50LWtleQ==";
const SAS_TOKEN: &str = "sv=2024-08-04&sig=hostile-signature-of-the-tests";

/// Nothing takes so long; what does is stuck.
const STUCK: Duration = Duration::from_secs(60);

/// Most that one call may make the process grow by, with all that runs beside it.
const GROWTH_BYTES_MAX: u64 = 512 << 20;

/// What speaks to the server, and with which secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    S3,
    AzureKey,
    AzureSas,
}

pub const WAYS: [Way; 3] = [Way::S3, Way::AzureKey, Way::AzureSas];

impl Way {
    pub fn base(self) -> &'static str {
        if self == Way::S3 { "s3://bucket/dir" } else { "az://account/container/dir" }
    }

    pub fn uri(self) -> String {
        format!("{}/object", self.base())
    }

    /// Impatient: one attempt, and little time.
    pub fn config(self, endpoint: &str) -> ConfigBuilder {
        let http = HttpConfig::new().attempts_max(1).response_timeout(Duration::from_secs(1));
        let config = Config::builder()
            .part_bytes(PART)
            .io_threads(2)
            .queue_depth_parts(1)
            .open_writers_max(2)
            .timeout(Duration::from_secs(2))
            .http(http);
        let azure = || AzureConfig::new().endpoint(&format!("{endpoint}/account"));
        match self {
            Way::S3 => config.s3(S3Config::new()
                .endpoint(endpoint)
                .region("us-east-1")
                .credentials("AKIDTEST", SECRET_KEY, Some(SESSION_TOKEN))),
            Way::AzureKey => config.azure(azure().account_key(ACCOUNT_KEY)),
            Way::AzureSas => config.azure(azure().sas_token(SAS_TOKEN)),
        }
    }

    pub fn open(self, server: &Server) -> Arc<dyn ObjectStore> {
        crate::watch::watch();
        let config = self.config(&server.endpoint()).build().unwrap();
        open_store(self.base(), &config).unwrap()
    }
}

/// What was asked, and what came of it: of a read, its bytes.
pub type Outcome = (&'static str, Result<Option<Vec<u8>>>);

/// Asks for everything, each with a store of its own: a connection that was misused is not the next one's.
pub fn ask_everything(way: Way, server: &Server) -> Vec<Outcome> {
    let uri = way.uri();
    let large = noise(PART + 1, 1);
    let store = || way.open(server);
    let nothing = |outcome: Result<()>| outcome.map(|()| None);
    vec![
        ("put", nothing(store().put(&uri, b"data").map(drop))),
        ("put large", nothing(store().put(&uri, &large).map(drop))),
        ("get", store().get(&uri).map(|bytes| Some(bytes.to_vec()))),
        ("get range", store().get_range(&uri, 70_000, Some(9)).map(|bytes| Some(bytes.to_vec()))),
        ("stat", nothing(store().stat(&uri).map(drop))),
        (
            "list",
            nothing(
                store().list(way.base()).and_then(|mut list| list.try_for_each(|o| o.map(drop))),
            ),
        ),
        ("delete", nothing(store().delete(&uri))),
        ("delete prefix", nothing(store().delete_prefix(way.base()).map(drop))),
        ("orphans", nothing(store().orphans(way.base(), Duration::ZERO).map(drop))),
    ]
}

/// The same of a server that takes each of these steps with every request. Fails where it takes long or much.
pub fn ask_a_server_that(
    way: Way,
    what: &str,
    step: impl Fn(&Request) -> Step + Send + Sync + 'static,
) -> Vec<Outcome> {
    let server = Server::start(move |request: &Request| step(request));
    let (growth, started) = (Growth::begin(), Instant::now());
    let outcomes = ask_everything(way, &server);
    assert!(started.elapsed() < STUCK, "{way:?} {what}: {:?}", started.elapsed());
    let grown = growth.end();
    assert!(grown < GROWTH_BYTES_MAX, "{way:?} {what}: {grown} bytes more");
    for (call, outcome) in &outcomes {
        if let Err(error) = outcome {
            assert_tame(&format!("{way:?} {what}, {call}"), error);
        }
    }
    crate::figures::add("hostile answers", outcomes.len() as u64);
    outcomes
}

/// That an error is of a kind that a server can bring about, is of a few lines, and shows no secret.
pub fn assert_tame(what: &str, error: &Error) {
    let ours = [ErrorKind::Panicked, ErrorKind::AlreadyExists, ErrorKind::NoSpace];
    assert!(!ours.contains(&error.kind()), "{what}: {error}");
    let text = error.to_string();
    assert!(text.len() < 4096 && !text.chars().any(char::is_control), "{what}: {text:?}");
    let mut shown = format!("{error:?} {error:#?} {:?}", error.remedy());
    let mut cause = error.source();
    while let Some(error) = cause {
        shown.push_str(&format!("{error} {error:?}"));
        cause = error.source();
    }
    assert_eq!(crate::watch::found_in(&shown), None, "{what}: {shown}");
}

/// That a server which keeps to no protocol is told so, and nothing is believed; but for HEAD, whose answer has
/// no body that could be wrong.
pub fn assert_refused(what: &str, outcomes: &[Outcome]) {
    for (call, outcome) in
        outcomes.iter().filter(|(call, outcome)| *call != "stat" || outcome.is_err())
    {
        let Err(error) = outcome else { panic!("{what}, {call}: is believed: {outcome:?}") };
        let kinds = [ErrorKind::Unavailable, ErrorKind::TimedOut];
        assert!(kinds.contains(&error.kind()), "{what}, {call}: {error:?}");
    }
}

/// Measures by how much the process grows beyond what it takes at the beginning. Others measure at the same time,
/// and the kernel knows one peak: who begins or ends notes it for all, and lets it start again from what is resident.
struct Growth {
    before: u64,
    /// The place in [`PEAKS`].
    own: usize,
}

/// The peaks of those who measure, in bytes; `None` in places that are free.
static PEAKS: Mutex<Vec<Option<u64>>> = Mutex::new(Vec::new());

impl Growth {
    fn begin() -> Growth {
        let mut peaks = note_peak();
        let own = peaks.iter().position(Option::is_none).unwrap_or(peaks.len());
        if own == peaks.len() {
            peaks.push(None);
        }
        peaks[own] = Some(0);
        Growth { before: peak::bytes(), own }
    }

    fn end(self) -> u64 {
        let peak = note_peak()[self.own].take().unwrap();
        peak.saturating_sub(self.before)
    }
}

fn note_peak() -> MutexGuard<'static, Vec<Option<u64>>> {
    let mut peaks = PEAKS.lock().unwrap();
    let peak = peak::bytes();
    peaks.iter_mut().flatten().for_each(|noted| *noted = peak.max(*noted));
    peak::reset();
    peaks
}
