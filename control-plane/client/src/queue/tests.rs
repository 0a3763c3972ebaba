//! The queue's promises, by example and by property.

use super::*;
use futures::FutureExt;
use proptest::prelude::*;

fn try_next(queue: &WorkQueue<u8>) -> Option<Guard<u8>> {
    queue.next().now_or_never()
}

#[tokio::test(start_paused = true)]
async fn a_key_added_during_work_comes_again_after() {
    let queue = WorkQueue::new();
    queue.add(1);
    queue.add(1);
    let guard = queue.next().await;
    queue.add(1);
    assert!(try_next(&queue).is_none());
    drop(guard);
    assert_eq!(*try_next(&queue).expect("again"), 1);
    assert!(try_next(&queue).is_none());
}

#[tokio::test(start_paused = true)]
async fn of_two_delays_the_shorter_counts() {
    let queue = WorkQueue::new();
    let start = Instant::now();
    queue.add_after(1, Duration::from_secs(10));
    queue.add_after(1, Duration::from_secs(2));
    queue.add_after(1, Duration::from_secs(30));
    drop(queue.next().await);
    assert_eq!(start.elapsed().as_secs(), 2);
    assert!(tokio::time::timeout(Duration::from_secs(60), queue.next()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn failures_wait_longer_until_forgotten() {
    let queue = WorkQueue::new();
    let mut waits = Vec::new();
    for _ in 0..4 {
        let start = Instant::now();
        queue.add_rate_limited(1);
        drop(queue.next().await);
        waits.push(start.elapsed().as_millis());
    }
    assert_eq!(waits, [5, 10, 20, 40]);
    queue.forget(&1);
    assert_eq!(queue.failures(&1), 0);
}

#[derive(Clone, Debug)]
enum Step {
    Add(u8),
    AddAfter(u8, u8),
    Take,
    Done(usize),
    Advance(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..4_u8).prop_map(Step::Add),
        (0..4_u8, 0..20_u8).prop_map(|(k, d)| Step::AddAfter(k, d)),
        Just(Step::Take),
        (0..4_usize).prop_map(Step::Done),
        (0..10_u8).prop_map(Step::Advance),
    ]
}

proptest! {
    #[test]
    fn never_two_workers_on_a_key_and_never_a_lost_add(steps in prop::collection::vec(step(), 0..80)) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time().start_paused(true).build().expect("runtime");
        runtime.block_on(async {
            let queue = WorkQueue::new();
            let mut held: Vec<Guard<u8>> = Vec::new();
            // Keys added since a worker last took them: each must still come.
            let mut owed: HashSet<u8> = HashSet::new();
            for step in steps {
                match step {
                    Step::Add(k) => { queue.add(k); owed.insert(k); }
                    Step::AddAfter(k, d) => {
                        queue.add_after(k, Duration::from_millis(u64::from(d)));
                        owed.insert(k);
                    }
                    Step::Take => if let Some(guard) = try_next(&queue) {
                        prop_assert!(held.iter().all(|h| **h != *guard), "two workers on {}", *guard);
                        if !queue.shared.state().delayed.contains_key(&*guard) { owed.remove(&*guard); }
                        held.push(guard);
                    },
                    Step::Done(i) => if i < held.len() { held.swap_remove(i); },
                    Step::Advance(ms) => tokio::time::advance(Duration::from_millis(u64::from(ms))).await,
                }
            }
            held.clear();
            tokio::time::advance(Duration::from_secs(1)).await;
            while let Some(guard) = try_next(&queue) { owed.remove(&*guard); }
            prop_assert!(owed.is_empty(), "lost {owed:?}");
            Ok(())
        })?;
    }
}
