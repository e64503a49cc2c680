//! The ground truth: what was really delivered, one JSON line each, on the disk before the reply.
//!
//! "No double recharge" is asserted against this file and never against our own tables. Its
//! lines are only ever appended. One thread writes: it takes all deliveries that wait, writes
//! them as one block, syncs once, and then lets their replies go.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use crate::domain::{ClientRef, Currency, Msisdn, Timestamp};

/// How many deliveries may wait for the disk; more make their requests wait.
const WAITING_MAX: usize = 8_192;
/// The longest line that can be one of ours, in bytes.
const LINE_MAX: u64 = 4_096;

/// One recharge that was really delivered, or really taken back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Delivery {
    /// Its number, from 1, without gaps: also its line.
    pub seq: u64,
    /// When it was delivered.
    pub at: Timestamp,
    /// The caller's reference.
    pub client_ref: ClientRef,
    /// Who got it.
    #[serde(with = "e164")]
    pub phone: Msisdn,
    /// How much, in minor units.
    pub amount_minor: i64,
    /// The currency of the units.
    pub currency: Currency,
    /// The number of the line that this one takes back; a delivery takes back none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reverses: Option<u64>,
}

/// Why a ledger cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// It cannot be opened.
    #[error("ledger {path}: it cannot be opened")]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another simulator writes it.
    #[error("ledger {path}: another simulator is writing it")]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// It cannot be read on.
    #[error("ledger {path}, line {line}: it cannot be read")]
    Read {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A line is no delivery.
    #[error("ledger {path}, line {line}: this is no delivery")]
    Foreign {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A line is missing, or was moved or copied here.
    #[error("ledger {path}, line {line}: it has number {found}")]
    Sequence {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// The number in it.
        found: u64,
    },
    /// The last line has no end: the writer was killed, or is writing.
    #[error("ledger {path}, line {line}: the line has no end; the simulator was killed, or is still writing")]
    Torn {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
    },
}

/// Reads a ledger from its beginning, a line at a time.
#[derive(Debug)]
pub struct LedgerReader {
    path: PathBuf,
    input: BufReader<File>,
    line: u64,
    /// How many bytes the good lines so far have.
    good: u64,
    ended: bool,
}

impl LedgerReader {
    /// Opens a ledger for reading; it may be written meanwhile.
    pub fn open(path: &Path) -> Result<Self, LedgerError> {
        let file = File::open(path).map_err(|source| LedgerError::Open { path: path.to_owned(), source })?;
        Ok(Self::over(path, file))
    }

    fn over(path: &Path, file: File) -> Self {
        let input = BufReader::with_capacity(64 * 1024, file);
        Self { path: path.to_owned(), input, line: 0, good: 0, ended: false }
    }

    fn read_one(&mut self) -> Option<Result<Delivery, LedgerError>> {
        self.line += 1;
        let (path, line) = (self.path.clone(), self.line);
        let mut text = Vec::new();
        match self.input.by_ref().take(LINE_MAX).read_until(b'\n', &mut text) {
            Ok(0) => return None,
            Ok(_) => {}
            Err(source) => return Some(Err(LedgerError::Read { path, line, source })),
        }
        if text.last() != Some(&b'\n') && (text.len() as u64) < LINE_MAX {
            return Some(Err(LedgerError::Torn { path, line }));
        }
        Some(match serde_json::from_slice::<Delivery>(&text) {
            Ok(delivery) if delivery.seq == line => {
                self.good += text.len() as u64;
                Ok(delivery)
            }
            Ok(delivery) => Err(LedgerError::Sequence { path, line, found: delivery.seq }),
            Err(source) => Err(LedgerError::Foreign { path, line, source }),
        })
    }
}

impl Iterator for LedgerReader {
    type Item = Result<Delivery, LedgerError>;

    /// Ends after the first error.
    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let item = self.read_one();
        self.ended = !matches!(item, Some(Ok(_)));
        item
    }
}

/// Reads a whole ledger. For large ones, [`LedgerReader`] holds one line at a time.
pub fn read_ledger(path: &Path) -> Result<Vec<Delivery>, LedgerError> {
    LedgerReader::open(path)?.collect()
}

/// What is to be delivered; the writer gives it its number.
#[derive(Debug)]
struct Waiting {
    delivery: Delivery,
    /// Hears the number of the line.
    written: oneshot::Sender<u64>,
}

/// The ledger cannot be written any more: nothing is delivered from here on.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the ledger cannot be written")]
pub(super) struct LedgerBroken;

/// The writing end.
#[derive(Debug)]
pub(super) struct Ledger {
    queue: mpsc::Sender<Waiting>,
}

impl Ledger {
    /// Opens or makes a ledger, and shows what it holds. A torn last line is cut off: its
    /// delivery was never confirmed to anybody. Without a path nothing is kept.
    pub(super) fn open(
        path: Option<&Path>,
        mut known: impl FnMut(Delivery),
    ) -> Result<(Self, JoinHandle<()>), LedgerError> {
        let (queue, waiting) = mpsc::channel(WAITING_MAX);
        let (file, last) = match path {
            Some(path) => {
                let (file, last) = recover(path, &mut known)?;
                (Some(file), last)
            }
            None => (None, 0),
        };
        let name = path.map(Path::to_owned).unwrap_or_default();
        let thread = std::thread::Builder::new()
            .name("ledger".to_owned())
            .spawn(move || write_all(file, last, waiting))
            .map_err(|source| LedgerError::Open { path: name, source })?;
        Ok((Self { queue }, thread))
    }

    /// Delivers, or takes back: returns the line's number once it is on the disk.
    pub(super) async fn append(&self, delivery: Delivery) -> Result<u64, LedgerBroken> {
        let (written, wait) = oneshot::channel();
        self.queue.send(Waiting { delivery, written }).await.map_err(|_| LedgerBroken)?;
        wait.await.map_err(|_| LedgerBroken)
    }
}

fn recover(path: &Path, known: &mut impl FnMut(Delivery)) -> Result<(File, u64), LedgerError> {
    let open = |source| LedgerError::Open { path: path.to_owned(), source };
    let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(open)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(LedgerError::Locked { path: path.to_owned() }),
        Err(TryLockError::Error(source)) => return Err(open(source)),
    }
    let mut reader = LedgerReader::over(path, file.try_clone().map_err(open)?);
    let mut last = 0;
    while let Some(line) = reader.next() {
        match line {
            Ok(delivery) => {
                last = delivery.seq;
                known(delivery);
            }
            Err(LedgerError::Torn { line, .. }) => {
                tracing::warn!(ledger = %path.display(), line, "cutting off a torn last line");
                file.set_len(reader.good).map_err(open)?;
            }
            Err(other) => return Err(other),
        }
    }
    file.seek(SeekFrom::End(0)).map_err(open)?;
    Ok((file, last))
}

/// Ends when every sender is gone, or with the first failed write: what a failed write or sync
/// left behind is not known, so nothing may follow it.
fn write_all(mut file: Option<File>, mut last: u64, mut waiting: mpsc::Receiver<Waiting>) {
    let mut batch = Vec::new();
    let mut block = Vec::new();
    while waiting.blocking_recv_many(&mut batch, WAITING_MAX) > 0 {
        block.clear();
        for entry in &mut batch {
            last += 1;
            entry.delivery.seq = last;
            if let Err(error) = serde_json::to_writer(&mut block, &entry.delivery) {
                tracing::error!(%error, "a delivery cannot be written as JSON");
                return;
            }
            block.push(b'\n');
        }
        if let Some(file) = &mut file
            && let Err(error) = file.write_all(&block).and_then(|()| file.sync_data())
        {
            tracing::error!(%error, "the ledger cannot be written; nothing is delivered any more");
            return;
        }
        for entry in batch.drain(..) {
            if entry.written.send(entry.delivery.seq).is_err() {
                tracing::trace!("a delivery's request is gone; the delivery stands");
            }
        }
    }
}

/// A phone number in clear: the ledger is the simulated provider's own record.
mod e164 {
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::domain::Msisdn;

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "the shape that serde asks for")]
    pub(super) fn serialize<S: Serializer>(value: &Msisdn, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&value.expose())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Msisdn, D::Error> {
        let text = String::deserialize(deserializer)?;
        Msisdn::from_e164(&text).ok_or_else(|| serde::de::Error::custom("phone: not in E.164"))
    }
}
