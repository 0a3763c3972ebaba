//! All levels of a server and the schemas that lead to them: what objects become, how the server's seats
//! are divided, and who lends to whom.
//!
//! Invariants: the mandatory levels and schemas are always there, imagined if need be; each schema here
//! leads to a level that is here; a level nobody wants any more stays until its last request has left.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::allocation::{Claim, divide};
use crate::bootstrap;
use crate::config::{CATCH_ALL, EXEMPT, Level, Queuing, Schema};
use crate::demand::{Demand, Integrator};
use crate::matching::{Digest, matches};
use crate::queue_set::{QueueSet, Ticket};
use crate::retry::Refusals;

/// The part of a level's seats that one request may take at most.
const WIDEST: f64 = 0.15;

/// A level at work.
#[derive(Debug)]
pub struct State {
    /// Its name.
    pub name: Arc<str>,
    /// Its uid.
    pub uid: Arc<str>,
    /// What its object says.
    pub level: Level,
    /// Its queues.
    pub set: QueueSet,
    /// The seats its shares give it.
    pub nominal: u32,
    /// What is left when it lends all it may.
    pub least: u32,
    /// What it has when it borrows all it may.
    pub most: u32,
    /// How many seats it could use.
    pub demand: Demand,
    /// What it aimed at when seats were divided last.
    pub target: f64,
    /// Nobody wants it; it goes when it is empty.
    pub quiescing: bool,
    integrator: Integrator,
    pub(crate) refusals: Refusals,
}

impl State {
    fn new(level: Level, now: Duration) -> Self {
        Self {
            name: level.name.as_str().into(),
            uid: level.uid.as_str().into(),
            set: QueueSet::new(level.queuing, 0, now),
            level,
            nominal: 0,
            least: 0,
            most: 0,
            demand: Demand::default(),
            target: 0.0,
            quiescing: false,
            integrator: Integrator::default(),
            refusals: Refusals::default(),
        }
    }

    /// The most seats the estimate of one request may ask for; 0: no bound of this level's.
    pub fn widest(&self) -> u64 {
        match self.level.queuing {
            Queuing::Queue { hand, .. } => {
                let part = (f64::from(self.nominal) * WIDEST).ceil() as u64;
                part.min(u64::from(self.nominal / hand.max(1))).max(1)
            }
            Queuing::Exempt | Queuing::Reject => 0,
        }
    }

    /// Writes down how many seats are wanted; after every change of the set.
    pub fn note_demand(&mut self, now: Duration) {
        self.integrator.set(f64::from(self.set.seats_in_use() + self.set.seats_waiting()), now);
    }

    /// The least it keeps at the next division: what it has used lately, within its own.
    fn kept(&self) -> u32 {
        let used = self.demand.last.highest as u32;
        if self.level.queuing == Queuing::Exempt {
            used.max(self.least)
        } else {
            used.min(self.nominal).max(self.least)
        }
    }
}

/// All levels.
#[derive(Debug)]
pub struct Levels {
    /// Seats of the whole server.
    seats: u32,
    levels: BTreeMap<String, State>,
    schemas: Arc<[Arc<Schema>]>,
    /// The fraction of their targets that levels got last.
    pub fair_fraction: f64,
}

impl Levels {
    /// The mandatory levels alone.
    pub fn new(seats: u32, now: Duration) -> Self {
        let mut levels =
            Self { seats, levels: BTreeMap::new(), schemas: Arc::from(Vec::new()), fair_fraction: 0.0 };
        levels.configure(Vec::new(), Vec::new(), now);
        levels
    }

    /// Takes a new configuration in.
    pub fn configure(&mut self, wanted: Vec<Level>, schemas: Vec<Arc<Schema>>, now: Duration) {
        for state in self.levels.values_mut() {
            state.quiescing = true;
        }
        let names: Vec<String> = wanted.iter().map(|level| level.name.clone()).collect();
        let imagined = bootstrap::mandatory_levels();
        let imagined = imagined.iter().filter_map(Level::from_object);
        let missing = imagined.filter(|level| !names.contains(&level.name));
        for level in wanted.into_iter().chain(missing) {
            self.set_level(level, now);
        }
        self.levels.retain(|_, state| !(state.quiescing && state.set.is_idle()));
        self.set_schemas(schemas);
        self.share_out(now);
        self.borrow(now);
    }

    fn set_level(&mut self, level: Level, now: Duration) {
        match self.levels.get_mut(&level.name) {
            Some(state) => {
                state.quiescing = false;
                state.uid = level.uid.as_str().into();
                if state.level.queuing != level.queuing {
                    state.set.reconfigure(level.queuing, now);
                }
                state.level = level;
            }
            None => _ = self.levels.insert(level.name.clone(), State::new(level, now)),
        }
    }

    fn set_schemas(&mut self, mut schemas: Vec<Arc<Schema>>) {
        let desired = |name: &str| self.levels.get(name).is_some_and(|state| !state.quiescing);
        schemas.retain(|schema| desired(&schema.level));
        schemas.sort_by(|a, b| (a.precedence, &a.name).cmp(&(b.precedence, &b.name)));
        let missing = |name: &str| !schemas.iter().any(|schema| schema.name == name);
        let (exempt, last) = (missing(EXEMPT), missing(CATCH_ALL));
        for object in bootstrap::mandatory_schemas() {
            let Some(schema) = Schema::from_object(&object) else { continue };
            if schema.name == EXEMPT && exempt {
                schemas.insert(0, schema);
            } else if schema.name == CATCH_ALL && last {
                schemas.push(schema);
            }
        }
        self.schemas = schemas.into();
    }

    /// Divides the server's seats by shares.
    fn share_out(&mut self, now: Duration) {
        let shares: f64 = self.levels.values().map(|state| state.level.shares).sum();
        for state in self.levels.values_mut() {
            let part = if shares > 0.0 { state.level.shares / shares } else { 0.0 };
            let part_of = |percent: f64, of: u32| (f64::from(of) * percent / 100.0).round() as u32;
            let nominal = (f64::from(self.seats) * part).ceil() as u32;
            let lendable = part_of(state.level.lendable, nominal);
            let borrowing = state.level.borrowing.map_or(self.seats, |percent| part_of(percent, nominal));
            let fresh = state.nominal == 0 && state.set.limit() == 0;
            state.nominal = nominal;
            state.least = nominal.saturating_sub(lendable);
            state.most = nominal + borrowing;
            if fresh {
                state.set.set_limit(nominal - lendable / 2, now);
            }
        }
    }

    /// Divides the seats anew, by what the levels could use since this was done last.
    pub fn borrow(&mut self, now: Duration) {
        let mut exempt = 0;
        let (mut least, mut kept) = (0, 0);
        for state in self.levels.values_mut() {
            state.demand.update(state.integrator.end_period(now));
            if state.level.queuing == Queuing::Exempt {
                exempt += state.kept();
            } else {
                least += state.least;
                kept += state.kept();
            }
        }
        let total: u32 = self.levels.values().map(|state| state.nominal).sum();
        let left = total.saturating_sub(exempt);
        let claims: Vec<Claim> = self
            .levels
            .values()
            .filter(|state| state.level.queuing != Queuing::Exempt)
            .map(|state| {
                let kept = f64::from(state.kept());
                let most = f64::from(state.most).max(kept);
                Claim { least: kept, most, target: state.demand.smoothed.max(kept) }
            })
            .collect();
        let (parts, fraction) =
            if left > kept { divide(f64::from(left), &claims) } else { (Vec::new(), 0.0) };
        self.fair_fraction = fraction;
        // Between what must be left and what is kept, when exempt requests take that much.
        let squeeze = f64::from(left.saturating_sub(least)) / f64::from((kept - least).max(1));
        let mut parts = parts.into_iter();
        let mut claims = claims.into_iter();
        for state in self.levels.values_mut() {
            let kept = state.kept();
            if state.level.queuing == Queuing::Exempt {
                state.target = f64::from(kept);
                state.set.set_limit(kept, now);
                continue;
            }
            state.target = claims.next().map_or(0.0, |claim| claim.target);
            let limit = match parts.next() {
                Some(part) => part.round() as u32,
                None => state.least + (f64::from(kept - state.least) * squeeze.min(1.0)).round() as u32,
            };
            state.set.set_limit(limit, now);
        }
    }

    /// The schemas, in the order they are tried.
    pub fn schemas(&self) -> &Arc<[Arc<Schema>]> {
        &self.schemas
    }

    /// A level.
    pub fn level(&mut self, name: &str) -> Option<&mut State> {
        self.levels.get_mut(name)
    }

    /// Every level.
    pub fn iter(&self) -> impl Iterator<Item = &State> {
        self.levels.values()
    }

    /// Lets time pass.
    pub fn tick(&mut self, now: Duration) {
        for state in self.levels.values_mut() {
            state.set.tick(now);
            state.note_demand(now);
        }
        self.levels.retain(|_, state| !(state.quiescing && state.set.is_idle()));
    }

    /// When seats become free by themselves.
    pub fn next_tick(&self) -> Option<Duration> {
        self.levels.values().filter_map(|state| state.set.next_tick()).min()
    }

    /// The requests that may run since this was last asked.
    pub fn take_started(&mut self) -> Vec<(Arc<str>, Ticket)> {
        let mut started = Vec::new();
        for state in self.levels.values_mut() {
            let tickets = state.set.take_started();
            started.extend(tickets.into_iter().map(|ticket| (state.name.clone(), ticket)));
        }
        started
    }
}

/// The schema of a request: the first that matches; nobody falls through.
pub fn classify<'a>(schemas: &'a [Arc<Schema>], digest: &Digest<'_>) -> Option<&'a Arc<Schema>> {
    let found = schemas.iter().find(|schema| matches(schema, digest));
    found.or_else(|| schemas.iter().find(|schema| schema.name == CATCH_ALL))
}

#[cfg(test)]
mod tests {
    use crate::queue_set::{Arrival, Arriving, Width};

    use super::*;

    fn standard(seats: u32) -> Levels {
        let mut levels = Levels::new(seats, Duration::ZERO);
        let objects = bootstrap::levels();
        let wanted = objects.iter().filter_map(Level::from_object).collect();
        let schemas = bootstrap::schemas().iter().filter_map(Schema::from_object).collect();
        levels.configure(wanted, schemas, Duration::ZERO);
        levels
    }

    fn ask(levels: &mut Levels, name: &str, now: u64) -> (Ticket, Arrival) {
        let now = Duration::from_secs(now);
        let state = levels.level(name).expect("a level");
        let arriving = Arriving { flow: 7, label: Arc::default(), width: Width::ONE };
        let arrival = state.set.arrive(arriving, now);
        state.note_demand(now);
        arrival
    }

    #[test]
    fn seats_are_shared_out_as_upstream_does() {
        let levels = standard(600);
        let nominal: Vec<_> = levels.iter().map(|s| (&*s.name, s.nominal, s.least)).collect();
        assert_eq!(
            nominal,
            [
                ("catch-all", 13, 13),
                ("exempt", 0, 0),
                ("global-default", 49, 24),
                ("leader-election", 25, 25),
                ("node-high", 98, 73),
                ("system", 74, 50),
                ("workload-high", 98, 49),
                ("workload-low", 245, 24),
            ]
        );
    }

    #[test]
    fn a_busy_level_borrows_and_an_idle_one_lends() {
        let mut levels = standard(600);
        for _ in 0..300 {
            ask(&mut levels, "global-default", 1);
        }
        let before = levels.level("global-default").expect("a level").set.limit();
        for period in 1..4 {
            levels.borrow(Duration::from_secs(10 * period));
        }
        let borrowed = levels.level("global-default").expect("a level").set.limit();
        assert!(borrowed > 2 * before, "{before} then {borrowed}");
        let total: u32 = levels.iter().map(|state| state.set.limit()).sum();
        let nominal: u32 = levels.iter().map(|state| state.nominal).sum();
        assert!(total.abs_diff(nominal) <= 8, "{total} of {nominal}");
        for state in levels.iter().filter(|state| &*state.name != EXEMPT) {
            assert!(state.set.limit() >= state.least, "{} is below its least", state.name);
        }
    }

    #[test]
    fn mandatory_objects_are_imagined_and_undesired_levels_drain() {
        let mut levels = standard(60);
        let (ticket, arrival) = ask(&mut levels, "system", 1);
        assert_eq!(arrival, Arrival::Started);
        levels.configure(Vec::new(), Vec::new(), Duration::from_secs(2));
        let names: Vec<_> = levels.iter().map(|state| state.name.to_string()).collect();
        assert_eq!(names, ["catch-all", "exempt", "system"]);
        assert_eq!(
            levels.schemas().iter().map(|s| s.name.as_str()).collect::<Vec<_>>(),
            ["exempt", "catch-all"]
        );
        levels.level("system").expect("still here").set.finish(ticket, Duration::from_secs(3));
        levels.tick(Duration::from_secs(3));
        assert!(levels.level("system").is_none());
    }

    #[test]
    fn exempt_requests_are_never_refused() {
        let mut levels = standard(10);
        for _ in 0..1000 {
            assert_eq!(ask(&mut levels, EXEMPT, 1).1, Arrival::Started);
        }
        levels.borrow(Duration::from_secs(10));
        let low = levels.level("workload-low").expect("a level");
        assert_eq!(low.set.limit(), low.least, "the others are squeezed to what they must have");
    }
}
