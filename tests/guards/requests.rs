//! Requests and connections, counted by the server. What one object costs on S3 is in `tests/s3/uploads.rs`.

use std::sync::Arc;
use std::time::Duration;

use syncline::checkpoint::CheckpointStore;
use syncline::{Config, ObjectStore, Timestamp, WriteOptions, open_store};

use crate::data::noise;
use crate::scripted::{Request, Server};
use crate::service::Service;
use crate::work::MIB;

/// The least that S3 takes as a part.
const PART: usize = 5 * MIB;

const IO_THREADS: usize = 3;

/// A model of either service, with a store on it.
struct Rig {
    service: Service,
    store: Arc<dyn ObjectStore>,
}

impl Rig {
    fn on(medium: &str) -> Rig {
        let service = Service::start(medium);
        let config = Config::builder().part_bytes(PART).io_threads(IO_THREADS);
        let config = service.reaching(config).build().unwrap();
        Rig { store: open_store(service.base(), &config).unwrap(), service }
    }

    fn server(&self) -> &Server {
        self.service.server()
    }

    fn uri(&self, name: &str) -> String {
        format!("{}/{name}", self.service.base())
    }

    /// The requests that `f` makes: each its method and what its query asks for.
    fn requests_of(&self, f: impl FnOnce()) -> Vec<String> {
        let before = self.server().requests().len();
        f();
        self.server().requests()[before..].iter().map(said).collect()
    }
}

/// `PUT`, `PUT block`, `GET list`...
fn said(request: &Request) -> String {
    let comp = request.param("comp").or(request.param("list-type").map(|_| "list".to_owned()));
    match comp {
        Some(comp) => format!("{} {comp}", request.method),
        None => request.method.clone(),
    }
}

#[test]
fn an_azure_object_of_one_part_is_one_request() {
    let rig = Rig::on("az");
    for bytes in [0, 1000, PART] {
        let data = noise(bytes, 1);
        let put = || drop(rig.store.put(&rig.uri("object"), &data).unwrap());
        assert_eq!(rig.requests_of(put), ["PUT"], "{bytes}");
        let options = WriteOptions::default().create_only();
        let name = rig.uri(&format!("new-{bytes}"));
        let create = || drop(rig.store.put_with(&name, &data, options).unwrap());
        assert_eq!(rig.requests_of(create), ["PUT"], "{bytes}");
        assert_eq!(rig.requests_of(|| drop(rig.store.stat(&name).unwrap())), ["HEAD"]);
    }
}

/// Beside the parts: the list of the blocks, and a look at the size of what it made. Create-only looks
/// first, once, and so sends no large object in vain.
#[test]
fn azure_parts_are_a_request_each_and_two() {
    let rig = Rig::on("az");
    for parts in [2, 5] {
        let data = noise(parts * PART, 2);
        let blocks = vec!["PUT block"; parts];
        let end = ["PUT blocklist", "HEAD"];
        let put = || drop(rig.store.put(&rig.uri("object"), &data).unwrap());
        assert_eq!(rig.requests_of(put), [&blocks[..], &end[..]].concat());
        let options = WriteOptions::default().create_only();
        let name = rig.uri(&format!("new-{parts}"));
        let create = || drop(rig.store.put_with(&name, &data, options).unwrap());
        assert_eq!(rig.requests_of(create), [&["HEAD"][..], &blocks, &end].concat());
    }
}

/// One request opens the object and brings its first bytes; each piece is one more.
#[test]
fn azure_is_read_by_a_request_for_each_piece() {
    let rig = Rig::on("az");
    for (bytes, requests) in [(1, 1), (64 * 1024, 1), (64 * 1024 + 1, 2), (2 * PART, 1 + 2)] {
        let data = noise(bytes, 3);
        let sum = rig.store.put(&rig.uri("object"), &data).unwrap().checksum.unwrap();
        let get = || {
            let got = rig.store.get_with_validation(&rig.uri("object"), &sum).unwrap();
            assert!(got == data);
        };
        assert_eq!(rig.requests_of(get).len(), requests, "{bytes}");
    }
}

/// Requests for a listing of 1,100 objects: two pages of at most 1,000 (`LIST_PAGE_OBJECTS`, and what S3 gives
/// at most), and one before them for the object of the very name.
const LISTING_REQUESTS: usize = 3;

fn a_listing_is_a_request_for_each_page(medium: &str) {
    let rig = Rig::on(medium);
    // On one set of connections, and one request each.
    const OBJECTS: usize = 1100;
    let put = || {
        for n in 0..OBJECTS {
            rig.store.put(&rig.uri(&format!("many/{n:04}")), b"x").unwrap();
        }
    };
    assert_eq!(rig.requests_of(put).len(), OBJECTS);
    let list = || {
        let names = rig.store.list(&rig.uri("many")).unwrap();
        assert_eq!(names.collect::<syncline::Result<Vec<_>>>().unwrap().len(), OBJECTS);
    };
    assert_eq!(rig.requests_of(list), ["GET list"; LISTING_REQUESTS]);
    let connections = rig.server().connections();
    assert!(connections <= IO_THREADS, "{connections} connections by {IO_THREADS} threads");
}

#[test]
fn a_listing_is_a_request_for_each_page_s3() {
    a_listing_is_a_request_for_each_page("s3");
}

#[test]
fn a_listing_is_a_request_for_each_page_az() {
    a_listing_is_a_request_for_each_page("az");
}

/// A connection that answered all is used again: no thread opens a second.
fn uploads_use_the_connections_there_are(medium: &str) {
    let rig = Rig::on(medium);
    let data = noise(4 * PART + 1, 4);
    for _ in 0..3 {
        rig.store.put(&rig.uri("object"), &data).unwrap();
        assert!(rig.store.get(&rig.uri("object")).unwrap() == data);
    }
    let (connections, requests) = (rig.server().connections(), rig.server().requests().len());
    assert!(connections <= IO_THREADS, "{connections} connections by {IO_THREADS} threads");
    assert!(requests >= 30, "{requests}");
}

#[test]
fn uploads_use_the_connections_there_are_s3() {
    uploads_use_the_connections_there_are("s3");
}

#[test]
fn uploads_use_the_connections_there_are_az() {
    uploads_use_the_connections_there_are("az");
}

/// Requests for a checkpoint.
#[derive(Debug, PartialEq, Eq)]
struct Cost {
    each_rank: usize,
    fixed: usize,
}

const RANKS: usize = 6;

impl Cost {
    /// From what checkpoints of `RANKS` and of twice as many ranks cost.
    fn of([few, many]: [usize; 2]) -> Cost {
        assert!((many - few).is_multiple_of(RANKS), "{few}, {many}");
        Cost { each_rank: (many - few) / RANKS, fixed: 2 * few - many }
    }
}

/// Requests of saving a checkpoint of so many ranks, of reading it back as a restart does, and of verifying it.
fn checkpoint_requests(medium: &str, ranks: u32) -> [Vec<String>; 3] {
    let rig = Rig::on(medium);
    // The store has tried by then whether the server keeps conditions.
    rig.store.put_with(&rig.uri("x"), b"x", WriteOptions::default().create_only()).unwrap();
    let checkpoints = CheckpointStore::new(rig.store.clone(), &rig.uri("checkpoints"));
    let layout = checkpoints.layout(1, Timestamp::now());
    let data = noise(1000, 5);
    let save = rig.requests_of(|| {
        for rank in 0..ranks {
            let writer = checkpoints.writer(ranks, rank).unwrap();
            writer.save_distributed_shard(&layout, &data).unwrap();
        }
        let finalizer = checkpoints.writer(ranks, 0).unwrap();
        let patience = Duration::from_secs(60);
        finalizer.finalize_distributed_checkpoint(&layout, "guards", 0, None, patience).unwrap();
    });
    let reader = checkpoints.reader();
    let restore = rig.requests_of(|| {
        let manifest = reader.latest().unwrap().unwrap();
        for rank in 0..ranks {
            assert!(reader.read_shard_by_rank(&manifest, rank).unwrap() == data);
        }
    });
    let newest = reader.list_checkpoints().unwrap().remove(0);
    let verify = rig.requests_of(|| {
        assert!(checkpoints.verify(&newest, &|_| ()).unwrap().is_good());
    });
    [save, restore, verify]
}

fn checkpoint_costs(medium: &str) -> [Cost; 3] {
    let ranks = RANKS as u32;
    let (few, many) = (checkpoint_requests(medium, ranks), checkpoint_requests(medium, 2 * ranks));
    [0, 1, 2].map(|step| {
        println!("{medium}, {RANKS} ranks: {:?}", few[step]);
        Cost::of([few[step].len(), many[step].len()])
    })
}

/// Each rank: is the shard there, the shard, the receipt; and the finalizer reads the receipt. Azure removes
/// receipts one by one, S3 all at once. Once: the manifest and the hint, each looked for before it is
/// written, and four listings of two requests each (see `LISTING_REQUESTS`).
const SAVE: [(&str, Cost); 2] =
    [("s3", Cost { each_rank: 4, fixed: 13 }), ("az", Cost { each_rank: 5, fixed: 12 })];

/// Each rank: a look at the shard's size, and the shard. Once: a listing of two requests, and the hint and the
/// manifest, each looked at before it is read.
const RESTORE: Cost = Cost { each_rank: 2, fixed: 6 };

/// Each rank: the same. Once: the manifest as above, and two listings.
const VERIFY: Cost = Cost { each_rank: 2, fixed: 6 };

/// Fewer requests than these are better: then lower the numbers.
#[test]
fn checkpoints_cost_these_requests() {
    for (medium, save) in SAVE {
        assert_eq!(checkpoint_costs(medium), [save, RESTORE, VERIFY], "{medium}");
    }
}
