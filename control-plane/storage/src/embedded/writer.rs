//! The writer: the one thread that changes the store.
//!
//! It takes whatever is queued, runs it inside one redb transaction, makes that durable with one
//! fsync, and only then answers callers and feeds watches. A transaction refused on its own grounds
//! does not disturb its neighbours; an engine fault fails the whole group and leaves the state of
//! before, since everything the writer keeps in memory changes after the commit.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use redb::{Database, ReadableDatabase, ReadableTable};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::Options;
use super::apply::{Applied, Workspace};
use super::lease::Deadlines;
use super::tables::{self, fault};
use super::watch::{Hub, Registration};
use crate::{Batch, Error, LeaseId, Result, Revision, TxnRequest, TxnResult};

/// So many commands share a commit at most: bounds the time the first one waits.
const GROUP: usize = 512;
/// So many changes are swept out of the history in one commit.
const SWEEP: usize = 2000;
/// The pause after an engine fault.
const RETRY: Duration = Duration::from_millis(100);

/// A caller's answer.
pub(super) type Reply<T> = oneshot::Sender<Result<T>>;

/// What the writer is asked.
pub(super) enum Command {
    Txn(TxnRequest, Reply<TxnResult>),
    Compact(Revision, Reply<()>),
    Grant(Duration, Reply<LeaseId>),
    Revoke(LeaseId, Reply<()>),
    KeepAlive(LeaseId, Reply<()>),
    Watch { prefix: String, after: Revision, reply: Reply<Registration> },
    Progress(Reply<()>),
}

/// A write that waits for the commit of its group.
enum Done {
    Txn(Reply<TxnResult>, TxnResult),
    Compact(Reply<()>),
    Grant(Reply<LeaseId>, LeaseId, Duration),
    Revoke(Reply<()>, LeaseId),
    Expired(LeaseId),
}

pub(super) struct Writer {
    database: Arc<Database>,
    commands: mpsc::Receiver<Command>,
    options: Options,
    /// The newest durable revision, read by everyone.
    published: Arc<AtomicU64>,
    compacted: Revision,
    hub: Hub,
    deadlines: Deadlines,
    /// What the revision was at past moments, oldest first: history is kept by age.
    marks: VecDeque<(Instant, Revision)>,
    next_mark: Instant,
    /// Compacted history is still on disk.
    sweeping: bool,
}

impl Writer {
    pub(super) fn new(
        database: Arc<Database>,
        commands: mpsc::Receiver<Command>,
        options: Options,
        published: Arc<AtomicU64>,
    ) -> Result<Self> {
        let read = database.begin_read().map_err(fault)?;
        let meta = read.open_table(tables::META).map_err(fault)?;
        let revision = tables::counter(&meta, tables::REVISION)?
            .ok_or_else(|| Error::Corrupt("the store has no revision".into()))?;
        let compacted = tables::counter(&meta, tables::COMPACTED)?.unwrap_or(0);
        let mut deadlines = Deadlines::default();
        for entry in read.open_table(tables::LEASES).map_err(fault)?.iter().map_err(fault)? {
            let (lease, ttl) = entry.map_err(fault)?;
            deadlines.start(lease.value(), Duration::from_millis(ttl.value()));
        }
        drop(read);
        published.store(revision, Ordering::Release);
        Ok(Self {
            database,
            commands,
            options,
            published,
            compacted,
            hub: Hub::default(),
            deadlines,
            marks: VecDeque::new(),
            next_mark: Instant::now(),
            sweeping: true,
        })
    }

    /// Works until every handle of the store is gone.
    pub(super) async fn run(mut self) {
        loop {
            let Some(group) = self.gather().await else { return };
            let (writes, others): (Vec<_>, Vec<_>) = group.into_iter().partition(|command| {
                matches!(
                    command,
                    Command::Txn(..) | Command::Compact(..) | Command::Grant(..) | Command::Revoke(..)
                )
            });
            if !self.write(writes) {
                // What failed may be tried again at once (a lease that ends): not in a tight loop.
                tokio::time::sleep(RETRY).await;
            }
            for command in others {
                self.serve(command);
            }
            self.mark();
        }
    }

    /// Waits for work: commands, a lease that ends, a time mark, or history left to sweep.
    async fn gather(&mut self) -> Option<Vec<Command>> {
        let mut group = Vec::new();
        let wake = self.deadlines.next().map_or(self.next_mark, |lease| lease.min(self.next_mark));
        let wake = if self.sweeping { Instant::now() } else { wake };
        tokio::select! {
            biased;
            // Cancel-safe: recv_many takes nothing when another arm wins.
            got = self.commands.recv_many(&mut group, GROUP) => (got > 0).then_some(group),
            () = tokio::time::sleep_until(wake) => Some(group),
        }
    }

    /// False after an engine fault.
    fn write(&mut self, commands: Vec<Command>) -> bool {
        let expired = self.deadlines.expired(Instant::now());
        let target = self.automatic_compaction();
        if commands.is_empty() && expired.is_empty() && target.is_none() && !self.sweeping {
            return true;
        }
        let mut group = Group::default();
        match self.apply(&mut group, commands, &expired, target) {
            Ok(()) => {
                self.finish(group);
                true
            }
            Err(error) => {
                tracing::error!(%error, "a group of writes failed");
                group.fail(&error);
                false
            }
        }
    }

    /// Runs a group and commits it. After an error nothing of it has happened, but for
    /// [`Error::Unknown`]: then the commit itself failed.
    fn apply(
        &mut self,
        group: &mut Group,
        commands: Vec<Command>,
        expired: &[LeaseId],
        target: Option<Revision>,
    ) -> Result<()> {
        // Commands go into the group first, so that a fault below answers all of them.
        group.waiting = commands.into();
        let write = self.database.begin_write().map_err(fault)?;
        let mut workspace = Workspace::open(&write)?;
        for &lease in expired {
            group.batches.extend(workspace.end_lease(lease)?);
            group.done.push(Done::Expired(lease));
            group.dirty = true;
        }
        while let Some(command) = group.waiting.pop_front() {
            group.run(&mut workspace, command)?;
        }
        if let Some(target) = target.filter(|target| *target > workspace.compacted) {
            set_compacted(&mut workspace, target)?;
            group.dirty = true;
        }
        if self.sweeping || group.compacting || target.is_some() {
            self.sweeping = !workspace.sweep(SWEEP)?;
            group.dirty = true;
        }
        group.revision = workspace.revision;
        group.compacted = workspace.compacted;
        drop(workspace);
        if group.dirty {
            write.commit().map_err(|e| Error::Unknown(e.to_string()))
        } else {
            write.abort().map_err(fault)
        }
    }

    fn finish(&mut self, group: Group) {
        self.compacted = group.compacted;
        self.published.store(group.revision, Ordering::Release);
        for batch in &group.batches {
            self.hub.publish(batch);
        }
        for done in group.done {
            // A caller that went away does not need its answer.
            match done {
                Done::Txn(reply, result) => drop(reply.send(Ok(result))),
                Done::Compact(reply) => drop(reply.send(Ok(()))),
                Done::Grant(reply, lease, ttl) => {
                    self.deadlines.start(lease, ttl);
                    drop(reply.send(Ok(lease)));
                }
                Done::Revoke(reply, lease) => {
                    self.deadlines.stop(lease);
                    drop(reply.send(Ok(())));
                }
                Done::Expired(lease) => self.deadlines.stop(lease),
            }
        }
    }

    fn serve(&mut self, command: Command) {
        let revision = self.published.load(Ordering::Acquire);
        match command {
            Command::Watch { prefix, after, reply } => {
                drop(reply.send(if after != 0 && after < self.compacted {
                    Err(Error::Compacted { asked: after, oldest: self.compacted })
                } else {
                    Ok(self.hub.register(prefix, revision, self.options.watch_buffer))
                }));
            }
            Command::Progress(reply) => {
                self.hub.progress(revision);
                drop(reply.send(Ok(())));
            }
            Command::KeepAlive(lease, reply) => {
                let known = self.deadlines.renew(lease);
                drop(reply.send(if known { Ok(()) } else { Err(Error::NoLease(lease)) }));
            }
            Command::Txn(..) | Command::Compact(..) | Command::Grant(..) | Command::Revoke(..) => {
                unreachable!("writes are served by write()")
            }
        }
    }

    fn mark(&mut self) {
        let now = Instant::now();
        if now >= self.next_mark {
            self.next_mark = now + (self.options.history_age / 8).max(Duration::from_secs(1));
            self.marks.push_back((now, self.published.load(Ordering::Acquire)));
            self.hub.prune();
        }
    }

    /// The revision history may be forgotten up to, by age and by count.
    fn automatic_compaction(&mut self) -> Option<Revision> {
        let mut target = 0;
        let now = Instant::now();
        while self.marks.front().is_some_and(|(at, _)| now.duration_since(*at) >= self.options.history_age) {
            target = self.marks.pop_front().map_or(0, |(_, revision)| revision);
        }
        // In strides of an eighth, so that a busy store does not compact with every commit.
        let most = self.options.history_revisions;
        let revision = self.published.load(Ordering::Acquire);
        if revision.saturating_sub(self.compacted) > most.saturating_add(most / 8) {
            target = target.max(revision - most);
        }
        (target > self.compacted).then_some(target)
    }
}

/// One group of writes on its way to disk.
#[derive(Default)]
struct Group {
    waiting: VecDeque<Command>,
    done: Vec<Done>,
    batches: Vec<Batch>,
    dirty: bool,
    compacting: bool,
    revision: Revision,
    compacted: Revision,
}

impl Group {
    fn run(&mut self, workspace: &mut Workspace<'_>, command: Command) -> Result<()> {
        match command {
            Command::Txn(request, reply) => match workspace.txn(&request) {
                Ok(Ok(Applied { result, batch })) => {
                    self.dirty |= batch.is_some();
                    self.batches.extend(batch);
                    self.done.push(Done::Txn(reply, result));
                }
                Ok(Err(refusal)) => drop(reply.send(Err(refusal))),
                Err(error) => {
                    self.waiting.push_front(Command::Txn(request, reply));
                    return Err(error);
                }
            },
            Command::Compact(target, reply) => {
                if target > workspace.revision {
                    let error = Error::Future { asked: target, current: workspace.revision };
                    drop(reply.send(Err(error)));
                } else if target <= workspace.compacted {
                    let error = Error::Compacted { asked: target, oldest: workspace.compacted };
                    drop(reply.send(Err(error)));
                } else {
                    self.done.push(Done::Compact(reply));
                    set_compacted(workspace, target)?;
                    (self.compacting, self.dirty) = (true, true);
                }
            }
            Command::Grant(ttl, reply) => {
                let lease = next_lease(workspace)?;
                let millis = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
                workspace.leases.insert(lease, millis).map_err(fault)?;
                self.done.push(Done::Grant(reply, lease, ttl));
                self.dirty = true;
            }
            Command::Revoke(lease, reply) => {
                if workspace.leases.get(lease).map_err(fault)?.is_none() {
                    drop(reply.send(Err(Error::NoLease(lease))));
                } else {
                    self.done.push(Done::Revoke(reply, lease));
                    self.batches.extend(workspace.end_lease(lease)?);
                    self.dirty = true;
                }
            }
            other @ (Command::KeepAlive(..) | Command::Watch { .. } | Command::Progress(_)) => {
                self.waiting.push_front(other);
                return Err(Error::Invalid("not a write".into()));
            }
        }
        Ok(())
    }

    /// Answers everyone in the group with the fault.
    fn fail(self, error: &Error) {
        for command in self.waiting {
            match command {
                Command::Txn(_, reply) => drop(reply.send(Err(again(error)))),
                Command::Grant(_, reply) => drop(reply.send(Err(again(error)))),
                Command::Compact(_, reply)
                | Command::Revoke(_, reply)
                | Command::KeepAlive(_, reply)
                | Command::Progress(reply) => drop(reply.send(Err(again(error)))),
                Command::Watch { reply, .. } => drop(reply.send(Err(again(error)))),
            }
        }
        for done in self.done {
            match done {
                Done::Txn(reply, _) => drop(reply.send(Err(again(error)))),
                Done::Grant(reply, ..) => drop(reply.send(Err(again(error)))),
                Done::Compact(reply) | Done::Revoke(reply, _) => drop(reply.send(Err(again(error)))),
                Done::Expired(_) => {}
            }
        }
    }
}

/// The same fault for the next caller.
fn again(error: &Error) -> Error {
    match error {
        Error::Unknown(text) => Error::Unknown(text.clone()),
        Error::Corrupt(text) => Error::Corrupt(text.clone()),
        Error::Unavailable(text) => Error::Unavailable(text.clone()),
        other => Error::Unavailable(other.to_string()),
    }
}

fn set_compacted(workspace: &mut Workspace<'_>, target: Revision) -> Result<()> {
    workspace.meta.insert(tables::COMPACTED, target).map_err(fault)?;
    workspace.compacted = target;
    Ok(())
}

fn next_lease(workspace: &mut Workspace<'_>) -> Result<LeaseId> {
    let next = tables::counter(&workspace.meta, tables::NEXT_LEASE)?.unwrap_or(1);
    workspace.meta.insert(tables::NEXT_LEASE, next + 1).map_err(fault)?;
    LeaseId::try_from(next).map_err(|_| Error::Corrupt("the lease counter has overflowed".into()))
}
