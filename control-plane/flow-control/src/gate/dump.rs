//! The dumps under `/debug/api_priority_and_fairness/`: comma-separated, in columns.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use super::Gate;
use crate::queue_set::Phase;

/// Turns a path into namespace, name, version, resource and subresource.
pub type Details = dyn Fn(&str) -> [String; 5];

/// Cells of a row are padded to the widest of their column, with a space between.
fn table(rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = Vec::new();
    for row in rows {
        for (column, cell) in row.iter().enumerate().take(row.len().saturating_sub(1)) {
            if widths.len() <= column {
                widths.resize(column + 1, 8);
            }
            widths[column] = widths[column].max(cell.len() + 2);
        }
    }
    let mut text = String::new();
    for row in rows {
        for (column, cell) in row.iter().enumerate() {
            // Writing to a string can't fail.
            let _ = if column + 1 == row.len() {
                writeln!(text, "{cell}")
            } else {
                write!(text, "{:width$}", format!("{cell},"), width = widths[column])
            };
        }
    }
    text
}

fn head(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

impl Gate {
    /// One row for each level.
    pub fn dump_levels(&self) -> String {
        let mut rows = vec![head(&[
            "PriorityLevelName",
            "ActiveQueues",
            "IsIdle",
            "IsQuiescing",
            "WaitingRequests",
            "ExecutingRequests",
            "DispatchedRequests",
            "RejectedRequests",
            "TimedoutRequests",
            "CancelledRequests",
        ])];
        for state in self.lock().levels.iter() {
            let counters = state.set.counters;
            rows.push(vec![
                state.name.to_string(),
                state.set.queues().filter(|queue| queue.waiting > 0).count().to_string(),
                state.set.is_idle().to_string(),
                state.quiescing.to_string(),
                state.set.waiting().to_string(),
                state.set.running().to_string(),
                counters.dispatched.to_string(),
                counters.refused.to_string(),
                counters.timed_out.to_string(),
                counters.cancelled.to_string(),
            ]);
        }
        table(&rows)
    }

    /// One row for each queue.
    pub fn dump_queues(&self) -> String {
        let mut rows = vec![head(&[
            "PriorityLevelName",
            "Index",
            "PendingRequests",
            "ExecutingRequests",
            "SeatsInUse",
            "NextDispatchR",
            "InitialSeatsSum",
            "MaxSeatsSum",
            "TotalWorkSum",
        ])];
        for state in self.lock().levels.iter() {
            for (index, queue) in state.set.queues().enumerate() {
                rows.push(vec![
                    state.name.to_string(),
                    index.to_string(),
                    queue.waiting.to_string(),
                    queue.running.to_string(),
                    queue.seats.to_string(),
                    format!("{:.8}ss", queue.next_start),
                    queue.seats_waiting.to_string(),
                    queue.most_waiting.to_string(),
                    format!("{:.8}ss", queue.work_waiting),
                ]);
            }
        }
        table(&rows)
    }

    /// One row for each request, with more about each when `details` are given.
    pub fn dump_requests(&self, details: Option<&Details>) -> String {
        let mut names = head(&[
            "PriorityLevelName",
            "FlowSchemaName",
            "QueueIndex",
            "RequestIndexInQueue",
            "FlowDistingsher",
            "ArriveTime",
            "InitialSeats",
            "FinalSeats",
            "AdditionalLatency",
            "StartTime",
        ]);
        if details.is_some() {
            let more =
                ["UserName", "Verb", "APIPath", "Namespace", "Name", "APIVersion", "Resource", "SubResource"];
            names.extend(head(&more));
        }
        let mut rows = vec![names];
        let inner = self.lock();
        let (now, wall) = (self.now(), SystemTime::now());
        let time = |at: Duration| {
            let at = wall - now.saturating_sub(at);
            let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            skep_api::k8s_openapi::jiff::Timestamp::from_nanosecond(since.as_nanos() as i128)
                .map_or_else(|_| String::new(), |time| time.to_string())
        };
        for state in inner.levels.iter() {
            for (ticket, request) in state.set.requests() {
                let index = |index: Option<usize>| index.map_or_else(|| "-1".to_owned(), |i| i.to_string());
                let (label, width) = (&request.arriving.label, request.arriving.width);
                let started = match request.phase {
                    Phase::Running(since) => time(since),
                    Phase::Waiting => "0001-01-01T00:00:00Z".to_owned(),
                    Phase::Lingering => continue,
                };
                let mut row = vec![
                    state.name.to_string(),
                    label.schema.clone(),
                    index(request.queue),
                    index(state.set.place(ticket)),
                    label.distinguisher.clone(),
                    time(request.arrived),
                    width.seats.to_string(),
                    width.after.to_string(),
                    format!("{:?}", width.linger),
                    started,
                ];
                if let Some(details) = details {
                    row.extend([label.user.clone(), label.verb.clone(), label.path.clone()]);
                    row.extend(details(&label.path));
                }
                rows.push(row);
            }
        }
        table(&rows)
    }
}
