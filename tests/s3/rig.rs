//! A model of S3 and a store on it.

use std::ops::Deref;
use std::sync::{Arc, Weak};
use std::time::Duration;

use syncline::{
    Config, ConfigBuilder, Error, HttpConfig, ObjectStore, ObjectWriter, Orphan, Result, S3Config,
    WriteOptions, open_store,
};

pub use crate::data::noise;
pub use crate::in_time::{STUCK, in_time};
use crate::s3_model::{Fault, Operation, S3Model, key_of};
use crate::scripted::Request;

pub const MIB: usize = 1 << 20;

/// The least that S3 takes as a part.
pub const PART: usize = 5 * MIB;

pub const KEY: &str = "dir/object";
pub const URI: &str = "s3://bucket/dir/object";

/// Attempts of one request in these tests.
pub const ATTEMPTS: u32 = 3;

/// The two secrets are in `secrets.txt`.
pub const ACCESS_KEY: &str = "AKIDTEST";
pub const SECRET_KEY: &str = "secret-key-of-the-tests";
pub const SESSION_TOKEN: &str = "session-token-of-the-tests";

/// How the server at `endpoint` is reached.
pub fn s3(endpoint: &str) -> S3Config {
    S3Config::new().endpoint(endpoint).credentials(ACCESS_KEY, SECRET_KEY, None)
}

pub fn http() -> HttpConfig {
    HttpConfig::new().attempts_max(ATTEMPTS)
}

pub fn settings() -> ConfigBuilder {
    Config::builder()
        .part_bytes(PART)
        .io_threads(3)
        .queue_depth_parts(2)
        .open_writers_max(3)
        .timeout(Duration::from_secs(60))
        .http(http())
}

pub fn open(endpoint: &str) -> Arc<dyn ObjectStore> {
    open_with(settings().s3(s3(endpoint)))
}

pub fn open_with(settings: ConfigBuilder) -> Arc<dyn ObjectStore> {
    crate::watch::watch();
    open_store(URI, &settings.build().unwrap()).unwrap()
}

/// The model, with a store on it.
pub struct Rig {
    pub s3: Arc<S3Model>,
    pub store: Arc<dyn ObjectStore>,
}

impl Deref for Rig {
    type Target = S3Model;

    fn deref(&self) -> &S3Model {
        &self.s3
    }
}

impl Rig {
    pub fn new() -> Rig {
        Rig::with(|s3| s3, |settings| settings)
    }

    /// With other settings.
    pub fn with(
        change_s3: impl FnOnce(S3Config) -> S3Config,
        change: impl FnOnce(ConfigBuilder) -> ConfigBuilder,
    ) -> Rig {
        let s3_model = Arc::new(S3Model::start("bucket"));
        let settings = settings().s3(change_s3(s3(&s3_model.endpoint())));
        Rig { store: open_with(change(settings)), s3: s3_model }
    }

    /// Connections stand still for so long at most.
    pub fn impatient(response_timeout: Duration) -> Rig {
        Rig::with(|s3| s3, |s| s.http(http().response_timeout(response_timeout)))
    }

    /// Sets a hook that sees the model.
    pub fn hook(
        &self,
        hook: impl Fn(&S3Model, usize, &Request) -> Option<Fault> + Send + Sync + 'static,
    ) {
        // The model holds the hook.
        let s3: Weak<S3Model> = Arc::downgrade(&self.s3);
        self.s3.on_request(move |number, request| hook(&*s3.upgrade()?, number, request));
    }

    /// Does this to every request of one kind that is about the test's object.
    pub fn fault_always(&self, kind: Operation, fault: Fault) {
        self.s3.on_request(move |_, request| is(request, kind).then(|| fault.clone()));
    }

    pub fn unhook(&self) {
        self.s3.on_request(|_, _| None);
    }

    pub fn count(&self, kind: Operation) -> usize {
        self.requests(kind).len()
    }

    /// All requests so far, by what they ask for.
    pub fn operations(&self) -> Vec<Operation> {
        self.server().requests().iter().map(crate::s3_model::operation).collect()
    }

    /// All that remains of writers: unfinished uploads and probes, of any age.
    pub fn orphans(&self) -> Vec<Orphan> {
        self.store.orphans("s3://bucket", Duration::ZERO).unwrap()
    }

    /// Writes the object; in several parts where it is that large.
    pub fn write(&self, data: &[u8], create_only: bool) -> Result<syncline::ObjectMeta> {
        let mut writer = self.writer(create_only)?;
        writer.write_chunk(data)?;
        writer.finalize()
    }

    pub fn writer(&self, create_only: bool) -> Result<Box<dyn ObjectWriter>> {
        let options = WriteOptions::default();
        let options = if create_only { options.create_only() } else { options };
        self.store.get_writer_with(URI, options)
    }

    #[track_caller]
    pub fn assert_holds(&self, data: &[u8]) {
        let object = self.object(KEY).expect("the object is there");
        assert!(**object.bytes == *data, "the object differs");
    }

    /// That nothing of the object is there.
    #[track_caller]
    pub fn assert_nothing(&self) {
        assert_eq!(self.keys(), [""; 0]);
        self.assert_no_uploads();
    }

    #[track_caller]
    pub fn assert_no_uploads(&self) {
        assert!(self.uploads().is_empty(), "left open: {:?}", self.uploads().keys());
    }

    /// That the store still works, with all its buffers, and ends in time.
    #[track_caller]
    pub fn assert_usable(self) {
        self.unhook();
        let data = noise(PART + 1, 99);
        let mut writers = Vec::new();
        for n in 0..self.store.config().open_writers_max() {
            let mut writer = self.store.get_writer(&format!("s3://bucket/after-{n}")).unwrap();
            writer.write_chunk(&data[..PART]).unwrap();
            writers.push(writer);
        }
        for mut writer in writers {
            writer.write_chunk(&data[PART..]).unwrap();
            writer.finalize().unwrap();
        }
        self.assert_no_uploads();
        in_time(move || drop(self.store));
    }
}

/// Whether a request is of this kind and about the test's object.
pub fn is(request: &Request, kind: Operation) -> bool {
    crate::s3_model::operation(request) == kind && key_of(request).as_deref() == Some(KEY)
}

/// That the text has each of these.
#[track_caller]
pub fn assert_says(error: &Error, needles: &[&str]) {
    let text = error.to_string();
    for needle in needles {
        assert!(text.contains(needle), "no {needle:?} in {text}");
    }
}
