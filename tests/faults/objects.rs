//! Every request of an upload fails in every way: once, and always.

use std::sync::Arc;
use std::time::Duration;

use syncline::{
    ConfigBuilder, ErrorKind, ObjectMeta, ObjectStore, Orphan, Result, WriteOptions, open_store,
};

use crate::data::noise;
use crate::figures;
use crate::in_time::in_time;
use crate::jobs::Medium;
use crate::scripted::Request;
use crate::service::Service;
use crate::side_by_side::side_by_side;
use crate::ways::{
    Way, assert_told, attempts_at, disturb_if, hangs, http, in_every_way, is_patient, is_terminal,
    status_403, takes_effect,
};

const NAME: &str = "object";

mod s3 {
    mod once {
        super::super::in_every_way!("s3", super::super::fails_once);
    }
    mod always {
        super::super::in_every_way!("s3", super::super::fails_always);
    }
}

mod az {
    mod once {
        super::super::in_every_way!("az", super::super::fails_once);
    }
    mod always {
        super::super::in_every_way!("az", super::super::fails_always);
    }
}

/// A service with a store on it.
struct Rig {
    service: Service,
    store: Arc<dyn ObjectStore>,
}

impl Rig {
    fn new(scheme: &str, change: impl FnOnce(ConfigBuilder) -> ConfigBuilder) -> Rig {
        let service = Service::start(scheme);
        let settings = change(service.settings().http(http()));
        let store = open_store(Service::base(&service), &settings.build().unwrap()).unwrap();
        Rig { service, store }
    }

    fn uri(&self, name: &str) -> String {
        format!("{}/{name}", Service::base(&self.service))
    }

    /// Of one request, and of several parts.
    fn sizes(&self) -> [usize; 2] {
        [1000, self.service.part_bytes() + 1000]
    }

    fn write(&self, data: &[u8], create_only: bool) -> Result<ObjectMeta> {
        let options = WriteOptions::default();
        let options = if create_only { options.create_only() } else { options };
        let mut writer = self.store.get_writer_with(&self.uri(NAME), options)?;
        writer.write_chunk(data)?;
        writer.finalize()
    }

    /// What each request asked for so far.
    fn operations(&self) -> Vec<String> {
        let requests = self.service.server().requests();
        requests.iter().map(|request| self.service.operation(request)).collect()
    }

    fn orphans(&self) -> Vec<Orphan> {
        self.store.orphans(Service::base(&self.service), Duration::ZERO).unwrap()
    }

    #[track_caller]
    fn assert_holds(&self, data: &[u8], what: &str) {
        assert!(self.store.get(&self.uri(NAME)).unwrap() == data, "{what}: the object differs");
        let listed = self.store.list(Service::base(&self.service)).unwrap().count();
        assert_eq!(listed, 1, "{what}: {:?}", self.service.keys());
    }

    /// That all that is left is found, and removed where the service can.
    #[track_caller]
    fn assert_found(&self, what: &str) {
        let orphans = self.orphans();
        let is_temporary = |key: &&String| key.ends_with(".syncline-tmp");
        let temporary = self.service.keys().iter().filter(is_temporary).count();
        let left = temporary + self.service.unfinished().len();
        assert_eq!(orphans.len(), left, "{what}: {orphans:?}");
        for orphan in orphans {
            match self.store.delete_orphan(&orphan) {
                Ok(()) => assert!(self.service.removes_unfinished()),
                Err(error) => assert_eq!(error.kind(), ErrorKind::Unsupported, "{what}: {error}"),
            }
        }
        assert!(!self.service.removes_unfinished() || self.service.unfinished().is_empty());
    }

    /// That the store still works, with all its buffers, and ends in time.
    #[track_caller]
    fn assert_usable(self) {
        self.service.unhook();
        let part = self.service.part_bytes();
        let data = noise(part + 1, 99);
        let open = |n| {
            let mut writer = self.store.get_writer(&self.uri(&format!("after-{n}"))).unwrap();
            writer.write_chunk(&data[..part]).unwrap();
            writer
        };
        let writers: Vec<_> = (0..self.store.config().open_writers_max()).map(open).collect();
        for mut writer in writers {
            writer.write_chunk(&data[part..]).unwrap();
            writer.finalize().unwrap();
        }
        in_time(move || drop(self.store));
    }
}

/// Fails the k-th request of a create-only upload, for each k.
fn fails_once(scheme: &str, way: Way, _: usize) {
    for size in Rig::new(scheme, |s| s).sizes() {
        let data = noise(size, 1);
        let rig = Rig::new(scheme, |s| s);
        rig.write(&data, true).unwrap();
        let operations = rig.operations();
        let mut cases: Vec<(usize, &String)> = operations.iter().enumerate().collect();
        if hangs(&way(&rig.service)) {
            // The commit itself may take its time.
            let patient = operations.iter().rposition(|operation| is_patient(operation));
            cases.retain(|(at, _)| Some(*at) != patient);
        }
        side_by_side(cases, |(at, failing)| fails_once_at(scheme, way, &data, at, failing));
    }
}

fn fails_once_at(scheme: &str, way: Way, data: &[u8], at: usize, failing: &str) {
    let rig = Rig::new(scheme, |s| s);
    let fault = way(&rig.service);
    let disturbed = disturb_if(&rig.service, fault.clone(), move |number, _| number == at);
    let what = format!("{scheme} request {at}, {failing}");
    let written = rig.write(data, true);
    assert_eq!(disturbed.faults(), 1, "{what}: nothing failed");
    match written {
        Err(error) if is_terminal(&fault) => {
            assert_told(&error, &fault, &what);
            let visible = rig.store.exists(&rig.uri(NAME)).unwrap();
            assert_eq!(error.to_string().contains("is visible"), visible, "{what}: {error}");
            rig.assert_found(&what);
        }
        Err(error) => panic!("{what}: {error}"),
        Ok(meta) => {
            assert_eq!(meta.write.unwrap().create_only_held, Some(true), "{what}");
            rig.assert_holds(data, &what);
            // Of an upload whose id was lost, or that could not be aborted, nobody knows but gc.
            let lost = (failing == "Create" && takes_effect(&fault))
                || (failing == "Abort" && is_terminal(&fault));
            assert_eq!(rig.service.unfinished().len(), usize::from(lost), "{what}");
            rig.assert_found(&what);
        }
    }
    in_time(move || drop(rig));
    figures::add("faults injected", 1);
}

/// Fails every request of one kind.
fn fails_always(scheme: &str, way: Way, _: usize) {
    let kinds: &[(&str, usize)] = match scheme {
        "s3" => &[("Put", 0), ("Create", 1), ("UploadPart", 1), ("Complete", 1)],
        _ => &[("Put", 0), ("PutBlock", 1), ("PutBlockList", 1)],
    };
    side_by_side(kinds, |(failing, size)| fails_always_of(scheme, way, failing, *size));
}

fn fails_always_of(scheme: &str, way: Way, failing: &str, size: usize) {
    let fault = way(&Service::start(scheme));
    let patient = is_patient(failing) && hangs(&fault);
    let timeout = Duration::from_secs(if patient { 3 } else { 60 });
    let rig = Rig::new(scheme, |settings| settings.timeout(timeout));
    let data = noise(rig.sizes()[size], 3);
    let is_it = of_kind(scheme, failing);
    let disturbed = disturb_if(&rig.service, fault.clone(), move |_, request| is_it(request));
    let what = format!("{scheme} {failing}");
    let outcome = rig.write(&data, false);
    let commits = failing == "Put" || is_patient(failing);
    rig.service.unhook();
    let has_effect = takes_effect(&fault) && commits;
    // What stood still until the time was up may have been looked for and found, or not.
    if has_effect && (!patient || outcome.is_ok()) {
        outcome.unwrap_or_else(|e| panic!("{what} had its effect: {e}"));
        rig.assert_holds(&data, &what);
    } else {
        let error = outcome.unwrap_err();
        assert_told(&error, &fault, &what);
        assert_eq!(error.uri(), Some(rig.uri(NAME).as_str()));
        if patient {
            assert!(error.to_string().contains("unknown"), "{error}");
        } else {
            let attempts = attempts_at(&fault);
            assert_eq!(error.attempts(), attempts, "{what}: {error}");
            let told = format!("tried {attempts} times");
            assert!(attempts == 1 || error.to_string().contains(&told), "{error}");
            let sent = rig.operations().iter().filter(|o| *o == failing).count();
            assert!(sent >= attempts as usize, "{what}: {sent} requests");
        }
        let visible = rig.store.exists(&rig.uri(NAME)).unwrap();
        assert!(!visible || has_effect, "{what}: {error}");
    }
    if scheme == "s3" && failing != "Create" {
        assert!(rig.service.unfinished().is_empty(), "{what}: the upload was not aborted");
    }
    rig.assert_found(&what);
    rig.assert_usable();
    figures::add("faults injected", disturbed.faults() as u64);
}

/// Whether a request is of this kind and about the test's object.
fn of_kind(scheme: &str, kind: &str) -> impl Fn(&Request) -> bool + Send + Sync + use<> {
    // Only to tell what requests ask for.
    let service = Service::start(scheme);
    let kind = kind.to_owned();
    move |request| service.operation(request) == kind && request.path.ends_with(NAME)
}

/// The first error of a writer is told by every later call.
fn the_first_error_latches(scheme: &str, part: &str) {
    let rig = Rig::new(scheme, |s| s);
    let is_it = of_kind(scheme, part);
    disturb_if(&rig.service, status_403(&rig.service), move |_, request| is_it(request));
    let mut writer = rig.store.get_writer(&rig.uri(NAME)).unwrap();
    let data = noise(rig.service.part_bytes(), 7);
    let failed = (0..10).find_map(|_| writer.write_chunk(&data).err()).unwrap();
    assert_eq!(failed.kind(), ErrorKind::PermissionDenied, "{failed}");
    rig.service.unhook();
    for again in [writer.write_chunk(b"x"), writer.write_borrowed(&data), writer.commit(0)] {
        assert_eq!(again.unwrap_err().to_string(), failed.to_string());
    }
    assert_eq!(writer.reserve().unwrap_err().to_string(), failed.to_string());
    assert_eq!(writer.finalize().unwrap_err().to_string(), failed.to_string());
    assert!(rig.service.keys().is_empty());
    // What was on its way may be put once the service does as it is asked; Azure's blocks expire.
    assert!(rig.service.unfinished().is_empty() || !rig.service.removes_unfinished());
    rig.assert_usable();
}

#[test]
fn the_first_error_latches_s3() {
    the_first_error_latches("s3", "UploadPart");
}

#[test]
fn the_first_error_latches_az() {
    the_first_error_latches("az", "PutBlock");
}
