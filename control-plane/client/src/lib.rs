//! The API client: requests, informers, the work queue, events and leader election.
