//! Applying the schema, and refusing to work on another.

use recharged::ports::SchemaError;
use recharged::store::{OpenError, StoreOptions, migrate, open, pending_migrations};

use super::place::{Scratch, server};

async fn migrates_once(url: &str, folder: &str) {
    let options = StoreOptions::default();
    let files = std::fs::read_dir(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations").join(folder));
    let version = |name: String| name.split('_').next().unwrap().parse::<i64>().unwrap();
    let mut versions: Vec<i64> =
        files.unwrap().map(|file| version(file.unwrap().file_name().into_string().unwrap())).collect();
    versions.sort_unstable();
    let newest = *versions.last().unwrap();

    let pending = pending_migrations(url, &options).await.unwrap();
    assert_eq!(pending.iter().map(|one| one.version).collect::<Vec<_>>(), versions);

    let report = migrate(url, &options).await.unwrap();
    assert_eq!((report.applied, report.version), (pending, newest));
    assert!(pending_migrations(url, &options).await.unwrap().is_empty());
    assert!(migrate(url, &options).await.unwrap().applied.is_empty(), "a second time does nothing");
    open(url, &options).await.unwrap().check().await.unwrap();
}

#[tokio::test]
async fn postgres_migrates_once_and_says_what_it_lacks() {
    let scratch = Scratch::empty().await;
    let unmigrated = open(&scratch.url, &StoreOptions::default()).await.unwrap();
    let error = unmigrated.check().await.expect_err("nothing is there yet");
    assert!(matches!(error, SchemaError::Version { found: 0, needed: 1.. }), "{error:?}");
    migrates_once(&scratch.url, "postgres").await;
    unmigrated.check().await.unwrap();
}

#[tokio::test]
async fn sqlite_migrates_once_and_says_what_it_lacks() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", folder.path().join("empty.db").display());
    migrates_once(&url, "sqlite").await;

    let path = folder.path().join("unmigrated.db");
    std::fs::write(&path, b"").unwrap();
    let store = open(&format!("sqlite://{}", path.display()), &StoreOptions::default()).await.unwrap();
    let error = store.check().await.expect_err("nothing is there yet");
    assert!(matches!(error, SchemaError::Version { found: 0, needed: 1.. }), "{error:?}");
}

#[tokio::test]
async fn a_store_in_memory_is_ready_at_once() {
    let store = open("sqlite::memory:", &StoreOptions::default()).await.unwrap();
    store.check().await.unwrap();
    super::fixture::in_flight(store.as_ref(), "fleeting").await;
}

#[tokio::test]
async fn an_address_that_leads_nowhere_is_refused_without_its_password() {
    let options = StoreOptions { password: Some("canary-1".to_owned()), ..StoreOptions::default() };
    let nowhere = open("postgres://nobody:canary-2@127.0.0.1:1/none", &options).await.expect_err("no server there");
    assert!(matches!(&nowhere, OpenError::Connect(error) if error.is_transient()), "{nowhere:?}");
    let scheme = open("mysql://nobody:canary-2@127.0.0.1/none", &options).await.expect_err("no such adapter");
    assert!(matches!(scheme, OpenError::Scheme(_)));
    let missing = open("sqlite:///nowhere/at/all.db", &options).await.expect_err("no such file");
    let told = format!("{nowhere:?} {nowhere} {scheme:?} {scheme} {missing:?} {options:?}");
    assert!(!told.contains("canary"), "{told}");
    assert!(!server().is_empty());
}
