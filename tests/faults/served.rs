//! A base on a service.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use syncline::ConfigBuilder;

use crate::data::noise;
use crate::jobs::Medium;
use crate::service::Service;

const KIB: usize = 1 << 10;

/// What is begun and never ends, in bytes.
const BEGUN: usize = 1234;

impl Medium for Service {
    fn base(&self) -> String {
        Service::base(self).to_owned()
    }

    fn reaching(&self, config: ConfigBuilder) -> ConfigBuilder {
        Service::reaching(self, config)
    }

    fn part_bytes(&self) -> usize {
        match self {
            // The least that it takes.
            Service::S3(_) => 5 * KIB * KIB,
            Service::Azure(_) => 64 * KIB,
        }
    }

    fn keys(&self) -> BTreeSet<String> {
        let below = |key: &String| key.strip_prefix("base/").expect(key).to_owned();
        Service::keys(self).iter().map(below).collect()
    }

    fn unfinished(&self) -> usize {
        let unfinished = Service::unfinished(self);
        match self {
            Service::S3(_) => unfinished.len(),
            // Of blocks put over an object that is there no listing tells.
            Service::Azure(_) => {
                let keys = Service::keys(self);
                unfinished.iter().filter(|key| !keys.contains(key)).count()
            }
        }
    }

    fn removes_unfinished(&self) -> bool {
        matches!(self, Service::S3(_))
    }

    fn begin(&self, key: &str) {
        let (key, data) = (format!("base/{key}"), noise(BEGUN, 77));
        match self {
            Service::S3(model) => {
                let id = model.open_upload(&key, SystemTime::now());
                model.send_part(&id, 1, &data);
            }
            Service::Azure(model) => model.put_block(&key, "block", &data),
        }
    }

    fn age(&self, by: Duration) {
        Service::age(self, by);
    }
}
