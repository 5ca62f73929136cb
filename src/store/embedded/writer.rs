//! The one thread that writes records. It takes what is waiting into one transaction, so that
//! many commits cost one sync: a burst of them goes at the pace of memory, not of the disk.

use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::{mpsc, oneshot};

use crate::store::embedded::records::{Batch, Records};
use crate::store::{Committed, Kind, StoreError, Write};

/// Jobs that wait, at most; who comes on top waits to be let in.
const WAITING_MAX: usize = 1_024;
/// Jobs of one transaction, at most: bounds its memory, and how long the first of them waits.
const BATCH_MAX: usize = 256;

#[derive(Debug)]
enum Job {
    Commit(Vec<Write>, oneshot::Sender<Result<Committed, StoreError>>),
    Numbers(Kind, u64, oneshot::Sender<Result<u64, StoreError>>),
}

/// Ends, with everything written, when it is dropped.
#[derive(Debug)]
pub(super) struct Writer {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    pub(super) fn start(records: Arc<Records>) -> Result<Self, StoreError> {
        let (jobs, waiting) = mpsc::channel(WAITING_MAX);
        let thread = std::thread::Builder::new().name("records".into());
        let thread = thread.spawn(move || run(&records, waiting));
        let thread = thread.map_err(|e| StoreError::io("opened", e))?;
        Ok(Self { jobs: Some(jobs), thread: Some(thread) })
    }

    pub(super) async fn commit(&self, writes: Vec<Write>) -> Result<Committed, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.ask(Job::Commit(writes, reply), answer).await
    }

    pub(super) async fn numbers(&self, kind: Kind, count: u64) -> Result<u64, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.ask(Job::Numbers(kind, count, reply), answer).await
    }

    async fn ask<T>(
        &self,
        job: Job,
        answer: oneshot::Receiver<Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let gone = |what: &'static str| StoreError::io("written", what);
        let jobs = self.jobs.as_ref().ok_or_else(|| gone("the store is closed"))?;
        jobs.send(job).await.map_err(|_unsent| gone("the writer has ended"))?;
        answer.await.unwrap_or_else(|_unanswered| Err(gone("the writer has ended")))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that writes records had panicked");
        }
    }
}

fn run(records: &Records, mut waiting: mpsc::Receiver<Job>) {
    let mut jobs = Vec::new();
    while 0 < waiting.blocking_recv_many(&mut jobs, BATCH_MAX) {
        execute(records, jobs.drain(..));
    }
}

/// One transaction for all: if it fails, none of them happened.
fn execute(records: &Records, jobs: impl Iterator<Item = Job>) {
    let mut commits = Vec::new();
    let mut numbers = Vec::new();
    let done = records.write(|batch: &mut Batch<'_>| {
        for job in jobs {
            match job {
                Job::Commit(writes, reply) => {
                    let result = batch.commit(&writes);
                    let failed = result.is_err();
                    commits.push((reply, result));
                    if failed {
                        return false;
                    }
                }
                Job::Numbers(kind, count, reply) => {
                    let result = batch.numbers(kind, count);
                    let failed = result.is_err();
                    numbers.push((reply, result));
                    if failed {
                        return false;
                    }
                }
            }
        }
        true
    });
    // Who does not wait for the answer any more misses nothing.
    let failed = |error: &StoreError| StoreError::io("written", error.to_string());
    for (reply, result) in commits {
        let result = match &done {
            Ok(()) => result,
            Err(error) => result.and_then(|_| Err(failed(error))),
        };
        let _missed = reply.send(result);
    }
    for (reply, result) in numbers {
        let result = match &done {
            Ok(()) => result,
            Err(error) => result.and_then(|_| Err(failed(error))),
        };
        let _missed = reply.send(result);
    }
}
