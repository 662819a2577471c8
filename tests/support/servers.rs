//! The real servers that `tests/run` starts, by the variables it sets. Who reaches one has what it logs searched
//! for secrets.
//!
//! Stands beside `watch.rs`, in the same module.
#![allow(dead_code, reason = "each test file uses its own part of this")]

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use syncline::{AzureConfig, S3Config};

use super::watch::watch;

/// A variable of the server's start script. A test that needs the server fails without it.
fn variable(name: &str) -> String {
    let script = if name.starts_with("SYNCLINE_TEST_AZ_") { "azurite" } else { "seaweedfs" };
    std::env::var(name).unwrap_or_else(|_| {
        panic!(
            "{name} is not set: run tests/run, or start the server by \
             eval \"$(tests/servers/{script}.sh start)\""
        )
    })
}

/// How the S3 server is reached.
pub fn s3() -> S3Config {
    watch();
    let [endpoint, key, secret] = ["ENDPOINT", "ACCESS_KEY", "SECRET_KEY"]
        .map(|name| variable(&format!("SYNCLINE_TEST_S3_{name}")));
    S3Config::new().endpoint(&endpoint).region("us-east-1").credentials(&key, &secret, None)
}

/// A base URI of its own in the S3 server's bucket.
pub fn s3_base() -> String {
    format!("s3://{}/{}/base", variable("SYNCLINE_TEST_S3_BUCKET"), unique())
}

/// How the Azure server is reached.
pub fn az() -> AzureConfig {
    watch();
    let [endpoint, key] =
        ["ENDPOINT", "KEY"].map(|name| variable(&format!("SYNCLINE_TEST_AZ_{name}")));
    AzureConfig::new().endpoint(&endpoint).account_key(&key)
}

/// A base URI of its own in the Azure server's container.
pub fn az_base() -> String {
    let [account, container] =
        ["ACCOUNT", "CONTAINER"].map(|name| variable(&format!("SYNCLINE_TEST_AZ_{name}")));
    format!("az://{account}/{container}/{}/base", unique())
}

/// A name no other test has, of this run or an earlier one.
fn unique() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
    format!("{now}-{}-{count}", std::process::id())
}
