//! Fairness, limits and progress of a queue set, in simulated time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

const QUEUES: Queuing = Queuing::Queue { queues: 64, hand: 6, length: 50 };

fn arriving(flow: u64, width: Width) -> Arriving {
    Arriving { flow: shuffle::flow_hash("s", &flow.to_string()), label: Arc::default(), width }
}

/// A set with clients in simulated milliseconds.
struct Simulation {
    set: QueueSet,
    now: u64,
    /// When running requests end.
    ends: BTreeMap<(u64, Ticket), u64>,
    takes: BTreeMap<Ticket, (u64, u64)>,
    /// Seat-milliseconds each flow got.
    served: BTreeMap<u64, u64>,
    /// The longest each flow waited.
    waited: BTreeMap<u64, u64>,
}

impl Simulation {
    fn new(limit: u32) -> Self {
        Self {
            set: QueueSet::new(QUEUES, limit, Duration::ZERO),
            now: 0,
            ends: BTreeMap::new(),
            takes: BTreeMap::new(),
            served: BTreeMap::new(),
            waited: BTreeMap::new(),
        }
    }

    fn time(&self) -> Duration {
        Duration::from_millis(self.now)
    }

    fn ask(&mut self, flow: u64, width: Width, takes: u64) -> Arrival {
        let (ticket, arrival) = self.set.arrive(arriving(flow, width), self.time());
        match arrival {
            Arrival::Started => {
                self.takes.insert(ticket, (flow, takes));
                self.begin(ticket);
            }
            Arrival::Waiting => _ = self.takes.insert(ticket, (flow, takes)),
            Arrival::QueueFull | Arrival::NoSeat => {}
        }
        self.settle();
        arrival
    }

    fn begin(&mut self, ticket: Ticket) {
        let (flow, takes) = self.takes[&ticket];
        let request = self.set.request(ticket).expect("a request");
        let waited = self.now - u64::try_from(request.arrived.as_millis()).expect("small");
        let longest = self.waited.entry(flow).or_default();
        *longest = waited.max(*longest);
        *self.served.entry(flow).or_default() += takes * u64::from(request.arriving.width.seats);
        self.ends.insert((self.now + takes, ticket), flow);
    }

    fn settle(&mut self) {
        for ticket in self.set.take_started() {
            self.begin(ticket);
        }
        let widest = self.set.requests().iter().map(|(_, r)| r.arriving.width.most()).max().unwrap_or(0);
        let limit = self.set.limit();
        let used = self.set.seats_in_use();
        assert!(used <= limit || (self.set.running() == 1 && widest > limit), "{used} of {limit}");
        let free = limit - used.min(limit);
        assert!(self.set.waiting() == 0 || free < widest, "{free} seats are free and somebody waits");
    }

    /// Goes on by one event or to `until`; returns the flow of a request that ended.
    fn step(&mut self, until: u64) -> Option<u64> {
        let next = self.ends.first_key_value().map(|((at, _), _)| *at);
        let tick =
            self.set.next_tick().map(|at| u64::try_from(at.as_micros().div_ceil(1000)).expect("small"));
        let at = next.unwrap_or(u64::MAX).min(tick.unwrap_or(u64::MAX)).min(until);
        self.now = self.now.max(at);
        self.set.tick(self.time());
        self.settle();
        let ended = self.ends.first_key_value().filter(|((end, _), _)| *end <= self.now);
        let ((end, ticket), flow) = ended.map(|(key, flow)| (*key, *flow))?;
        self.ends.remove(&(end, ticket));
        self.set.finish(ticket, self.time());
        self.settle();
        Some(flow)
    }
}

#[derive(Clone, Debug)]
enum Step {
    Ask { flow: u64, seats: u32, after: u32, takes: u64 },
    Wait(u64),
    GiveUp(usize),
    Limit(u32),
    Queues(u32),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0u64..6, 1u32..5, 0u32..4, 1u64..40)
            .prop_map(|(flow, seats, after, takes)| Step::Ask { flow, seats, after, takes }),
        3 => (0u64..30).prop_map(Step::Wait),
        1 => (0usize..20).prop_map(Step::GiveUp),
        1 => (4u32..12).prop_map(Step::Limit),
        1 => (6u32..80).prop_map(Step::Queues),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Limits hold at every moment, no seat idles while somebody could use it, and everybody who waits
    /// gets to run in the end.
    #[test]
    fn limits_hold_and_nobody_starves(steps in proptest::collection::vec(step(), 1..120)) {
        let mut world = Simulation::new(6);
        let (mut asked, mut left) = (0, 0);
        for step in steps {
            match step {
                Step::Ask { flow, seats, after, takes } => {
                    let width = Width { seats, after, linger: Duration::from_millis(u64::from(after)) };
                    asked += usize::from(matches!(
                        world.ask(flow, width, takes), Arrival::Started | Arrival::Waiting
                    ));
                }
                Step::Wait(millis) => {
                    let until = world.now + millis;
                    while world.now < until {
                        world.step(until);
                    }
                }
                Step::GiveUp(which) => {
                    let waiting: Vec<Ticket> = world.set.requests().iter()
                        .filter(|(_, request)| request.phase == Phase::Waiting)
                        .map(|(ticket, _)| *ticket).collect();
                    if let Some(ticket) = waiting.get(which) {
                        prop_assert!(world.set.give_up(*ticket, true, world.time()));
                        left += 1;
                        world.settle();
                    }
                }
                // Only upwards: below what runs the invariant of the simulation does not hold.
                Step::Limit(limit) => {
                    let limit = limit.max(world.set.limit());
                    world.set.set_limit(limit, world.time());
                    world.settle();
                }
                Step::Queues(queues) => {
                    let queuing = Queuing::Queue { queues, hand: 6, length: 50 };
                    world.set.reconfigure(queuing, world.time());
                    world.settle();
                }
            }
        }
        let mut rounds = 0;
        while !world.set.is_idle() || world.set.next_tick().is_some() {
            world.step(u64::MAX);
            rounds += 1;
            prop_assert!(rounds < 10_000, "requests wait for ever");
        }
        prop_assert_eq!(world.set.seats_in_use(), 0);
        prop_assert_eq!(world.set.seats_waiting(), 0);
        prop_assert_eq!(world.set.counters.dispatched as usize + left, asked);
        prop_assert!(world.set.queues().all(|queue| queue.seats == 0 && queue.work_waiting == 0.0));
    }

}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 24, ..ProptestConfig::default() })]

    /// Flows that always have requests waiting get the same number of seat-seconds, however many they
    /// throw in and however long each takes; a flow that wants less than its part is served at once,
    /// but for the requests that run already.
    #[test]
    fn greedy_flows_share_fairly(
        greedy in proptest::collection::vec((2u64..60, 0usize..30), 2..5),
        limit in 4u32..12,
    ) {
        let mut world = Simulation::new(limit);
        world.set.reconfigure(Queuing::Queue { queues: 64, hand: 1, length: 500 }, Duration::ZERO);
        // Flows whose hands do not meet: fairness is between queues.
        let mut taken = Vec::new();
        let mut flows = (0..).filter(|flow: &u64| {
            let queue = shuffle::deal(shuffle::flow_hash("s", &flow.to_string()), 64, 1);
            let free = !taken.contains(&queue);
            taken.push(queue);
            free
        });
        let modest = flows.next().expect("endless");
        let flows: Vec<(u64, u64, usize)> = flows.zip(&greedy).map(|(f, (takes, more))| (f, *takes, *more)).collect();
        for (flow, takes, more) in &flows {
            for _ in 0..2 * limit as usize + more {
                world.ask(*flow, Width::ONE, *takes);
            }
        }
        let mut next = 500;
        while world.now < 10_000 {
            if world.now >= next {
                world.ask(modest, Width::ONE, 1);
                next = world.now + 200;
            }
            let ended = world.step(next);
            if let Some((flow, takes, _)) = flows.iter().find(|(flow, ..)| Some(*flow) == ended) {
                world.ask(*flow, Width::ONE, *takes);
            }
        }
        let served: Vec<f64> = flows.iter().map(|(flow, ..)| world.served[flow] as f64).collect();
        let mean = served.iter().sum::<f64>() / served.len() as f64;
        prop_assert!(served.iter().all(|got| (got / mean - 1.0).abs() < 0.1), "{served:?}");
        let longest = greedy.iter().map(|(takes, _)| *takes).max().unwrap_or(0);
        prop_assert!(world.waited[&modest] <= 2 * longest, "a modest flow waited {}", world.waited[&modest]);
    }
}

#[test]
fn two_flows_with_own_queues_get_the_same() {
    let mut world = Simulation::new(4);
    // One sends ten times as many and ten times as long ones.
    for _ in 0..40 {
        world.ask(1, Width::ONE, 50);
    }
    for _ in 0..4 {
        world.ask(2, Width::ONE, 5);
    }
    while world.now < 60_000 {
        match world.step(u64::MAX) {
            Some(1) => _ = world.ask(1, Width::ONE, 50),
            Some(2) => _ = world.ask(2, Width::ONE, 5),
            _ => {}
        }
    }
    let (one, two) = (world.served[&1] as f64, world.served[&2] as f64);
    assert!(two / one > 0.15, "{one} and {two}: the small flow is starved");
}

#[test]
fn a_full_queue_refuses() {
    let mut set = QueueSet::new(Queuing::Queue { queues: 1, hand: 1, length: 2 }, 1, Duration::ZERO);
    let mut ask = || set.arrive(arriving(1, Width::ONE), Duration::ZERO).1;
    let all = [ask(), ask(), ask(), ask()];
    assert_eq!(all, [Arrival::Started, Arrival::Waiting, Arrival::Waiting, Arrival::QueueFull]);
    assert_eq!(set.counters.refused, 1);
}

#[test]
fn a_wide_request_waits_for_its_seats_and_is_not_overtaken() {
    let mut set = QueueSet::new(QUEUES, 4, Duration::ZERO);
    let wide = Width { seats: 4, ..Width::ONE };
    let (small, arrival) = set.arrive(arriving(1, Width::ONE), Duration::ZERO);
    assert_eq!(arrival, Arrival::Started);
    let (waits, arrival) = set.arrive(arriving(2, wide), Duration::ZERO);
    assert_eq!(arrival, Arrival::Waiting);
    set.finish(small, Duration::from_millis(3));
    assert_eq!(set.take_started(), [waits]);
    assert_eq!(set.seats_in_use(), 4);
}

#[test]
fn seats_linger_after_a_write() {
    let mut set = QueueSet::new(QUEUES, 2, Duration::ZERO);
    let write = Width { seats: 1, after: 2, linger: Duration::from_millis(5) };
    let at = Duration::from_millis;
    let (first, _) = set.arrive(arriving(1, write), at(0));
    set.finish(first, at(10));
    let (second, arrival) = set.arrive(arriving(2, Width::ONE), at(11));
    assert_eq!((arrival, set.next_tick()), (Arrival::Waiting, Some(at(15))));
    set.tick(at(15));
    assert_eq!(set.take_started(), [second]);
}

#[test]
fn a_level_that_rejects_has_no_queues() {
    let mut set = QueueSet::new(Queuing::Reject, 1, Duration::ZERO);
    assert_eq!(set.arrive(arriving(1, Width::ONE), Duration::ZERO).1, Arrival::Started);
    assert_eq!(set.arrive(arriving(1, Width::ONE), Duration::ZERO).1, Arrival::NoSeat);
}
