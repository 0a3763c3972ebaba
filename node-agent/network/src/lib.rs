//! Pod interfaces, address management, routes.
