//! Reading the dead letters: a few at a time, however many there are.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::{Desk, Place};
use crate::app::broker_trouble;
use crate::cli::orders::trouble;
use crate::cli::output::{CliError, Output};
use crate::kafka::{KafkaError, snapshot};
use crate::ports::{InRecord, LetterKey, LetterMark};
use crate::roles::replay::{BATCH_MAX, Found};

/// Records of one batch take so much memory at most, and one record more.
const BATCH_BYTES: usize = 4 * 1024 * 1024;
/// Batches that wait for whoever looks at them.
const AHEAD: usize = 2;
/// Whoever waits hears of so many more.
const TOLD_EVERY: u64 = 50_000;

/// All dead letters up to where their topic ended when reading began.
pub(super) struct Letters<'a> {
    desk: &'a Desk,
    batches: mpsc::Receiver<Vec<InRecord>>,
    reading: Option<JoinHandle<Result<u64, KafkaError>>>,
    read: u64,
}

impl<'a> Letters<'a> {
    pub(super) fn all(desk: &'a Desk) -> Self {
        let (hand_over, batches) = mpsc::channel(AHEAD);
        let (kafka, topic) = (desk.kafka.clone(), Arc::clone(&desk.topic));
        let reading = tokio::task::spawn_blocking(move || {
            let (mut batch, mut bytes) = (Vec::new(), 0);
            let read = snapshot::read_records(&kafka, &topic, |record| {
                bytes += record.value.as_ref().map_or(0, bytes::Bytes::len);
                batch.push(record);
                if batch.len() < BATCH_MAX && bytes < BATCH_BYTES {
                    return true;
                }
                bytes = 0;
                // Whoever has seen enough has gone.
                hand_over.blocking_send(std::mem::take(&mut batch)).is_ok()
            })?;
            if !batch.is_empty() {
                drop(hand_over.blocking_send(batch));
            }
            Ok(read)
        });
        Self { desk, batches, reading: Some(reading), read: 0 }
    }

    /// The next few; none at the end.
    pub(super) async fn next(&mut self, output: Output) -> Result<Vec<Found>, CliError> {
        if let Some(batch) = self.batches.recv().await {
            let before = self.read;
            self.read += batch.len() as u64;
            if before / TOLD_EVERY != self.read / TOLD_EVERY {
                output.progress(format_args!("{} dead letters read", self.read));
            }
            return Ok(batch.into_iter().map(Found::of).collect());
        }
        if let Some(reading) = self.reading.take() {
            let ended = reading.await.map_err(|error| CliError::failed(error.to_string()))?;
            ended.map_err(|error| broker_trouble(&self.desk.config, &error))?;
        }
        Ok(Vec::new())
    }
}

impl Desk {
    /// The letter at one place.
    pub(super) async fn letter(&self, place: Place) -> Result<Found, CliError> {
        let (kafka, topic) = (self.kafka.clone(), Arc::clone(&self.topic));
        let reading = move || snapshot::read_one(&kafka, &topic, place.partition, place.offset);
        let read = tokio::task::spawn_blocking(reading).await.map_err(|error| CliError::failed(error.to_string()))?;
        let record = read.map_err(|error| broker_trouble(&self.config, &error))?.ok_or_else(|| {
            CliError::failed(format!(
                "{place}: there is no dead letter there, or none any more: `recharged dead-letters list --each` tells where they are"
            ))
        })?;
        Ok(Found::of(record))
    }

    /// What was decided about each.
    pub(super) async fn marks(&self, batch: &[Found]) -> Result<Vec<Option<LetterMark>>, CliError> {
        let keys: Vec<LetterKey> = batch.iter().map(|found| found.key.clone()).collect();
        self.store.letter_marks(&keys).await.map_err(|error| trouble(&error))
    }
}
