//! Table tests of the plans.
