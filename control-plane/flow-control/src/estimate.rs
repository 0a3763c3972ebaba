//! How much work a request is, guessed before it begins: seats while it runs, and for a write that many
//! watch, seats for a moment after it.

use std::time::Duration;

use crate::queue_set::Width;

/// Bytes of a list that one seat stands for.
const SEAT_BYTES: u64 = 100_000;
/// The encodings of a list are shared or streamed: it never holds more than this of its own.
const LIST_BYTES: u64 = 1_000_000;
/// The most seats of a list.
const LIST_SEATS: u64 = 100;
/// The most seats of a write.
const WRITE_SEATS: u64 = 10;
/// Watchers that one seat stands for.
const SEAT_WATCHERS: u64 = 10;
/// How long the event of a write keeps its seats busy.
const EVENT: Duration = Duration::from_millis(5);

/// What there is of a resource.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stored {
    /// Objects.
    pub count: u64,
    /// Bytes of all of them.
    pub bytes: u64,
    /// Open watches.
    pub watchers: u64,
}

/// A request, as far as its width depends on it.
#[derive(Clone, Copy, Debug)]
pub enum Work {
    /// A list, or a watch that begins with what there is.
    List {
        /// The resource; none when it is not ours.
        stored: Option<Stored>,
        /// At most so many objects; 0 is all.
        limit: u64,
        /// Only one object is asked for by name.
        one: bool,
    },
    /// A write whose event is seen by watchers.
    Write(Stored),
    /// Anything else.
    Small,
}

/// The width of a request to a level whose requests may have at most `most` seats (0: not said).
pub fn width(work: Work, most: u64) -> Width {
    let cap = |own: u64| if most == 0 { own } else { most.min(own) };
    match work {
        Work::Small | Work::List { stored: None, .. } => Width::ONE,
        Work::List { stored: Some(stored), limit, one } => {
            let objects = match (one, limit) {
                (true, _) => 1,
                (false, 0) => stored.count,
                (false, limit) => limit.min(stored.count),
            };
            let each = stored.bytes.checked_div(stored.count).unwrap_or_default();
            let bytes = objects.saturating_mul(each).min(LIST_BYTES);
            let seats = bytes.div_ceil(SEAT_BYTES).min(cap(LIST_SEATS)).max(1);
            Width { seats: narrow(seats), ..Width::ONE }
        }
        Work::Write(stored) if stored.watchers < SEAT_WATCHERS => Width::ONE,
        Work::Write(stored) => {
            let full = stored.watchers.div_ceil(SEAT_WATCHERS);
            let seats = full.min(cap(WRITE_SEATS)).max(1);
            // A rectangle of the same area: narrower, and longer.
            let linger = EVENT.mul_f64(full as f64 / seats as f64);
            Width { seats: 1, after: narrow(seats), linger }
        }
    }
}

fn narrow(seats: u64) -> u32 {
    u32::try_from(seats).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_as_wide_as_they_are_long() {
        let stored = Some(Stored { count: 1000, bytes: 700_000, watchers: 0 });
        let seats = |limit, one, most| width(Work::List { stored, limit, one }, most).seats;
        assert_eq!(seats(0, false, 0), 7);
        assert_eq!(seats(100, false, 0), 1);
        assert_eq!(seats(500, false, 0), 4);
        assert_eq!(seats(0, true, 0), 1);
        assert_eq!(seats(0, false, 3), 3);
        let huge = Some(Stored { count: 100_000, bytes: 1 << 40, watchers: 0 });
        assert_eq!(width(Work::List { stored: huge, limit: 0, one: false }, 0).seats, 10);
    }

    #[test]
    fn writes_that_many_watch_keep_seats_for_a_moment() {
        let write = |watchers| width(Work::Write(Stored { watchers, ..Stored::default() }), 0);
        assert_eq!(write(9), Width::ONE);
        assert_eq!((write(50).after, write(50).linger), (5, EVENT));
        assert_eq!((write(1000).after, write(1000).linger), (10, EVENT * 10));
    }
}
